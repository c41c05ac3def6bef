//! Answers, before they become bytes.
//!
//! Owns [`Reply`] and [`Asked`], which every format makes and reads. Must not know connections.

use pipeline_core::fact::Usage;
use pipeline_core::provider::ModelRequest;
use serde_json::{Map, Value, json};

/// An answer.
pub(super) enum Reply {
    /// A JSON document, or text that is sent as it is.
    Whole { status: u16, body: String },
    /// Events: name, if it has one, and data.
    Events(Vec<(Option<&'static str>, String)>),
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::Whole { status, body: body.to_string() }
    }
}

/// What was asked, in this program's own shape.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) request: ModelRequest,
    pub(super) is_streamed: bool,
    /// Text that the service is asked to keep: the whole of what stands before the last mark, or before the last turn.
    pub(super) prefix: Option<String>,
}

/// A request that the format does not allow.
#[derive(Debug)]
pub(super) struct Wrong(pub(super) String);

/// Refuses keys that the format does not have.
pub(super) fn known(object: &Value, what: &str, keys: &[&str]) -> Result<(), Wrong> {
    let Value::Object(fields) = object else { return Err(Wrong(format!("{what}: not an object"))) };
    match fields.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(Wrong(format!("{what}.{key}: extra inputs are not permitted"))),
        None => Ok(()),
    }
}

/// A field that must be there.
pub(super) fn needed<'a>(object: &'a Value, what: &str, key: &str) -> Result<&'a Value, Wrong> {
    object.get(key).filter(|v| !v.is_null()).ok_or_else(|| Wrong(format!("{what}.{key}: field required")))
}

/// Text that must be there.
pub(super) fn text<'a>(object: &'a Value, what: &str, key: &str) -> Result<&'a str, Wrong> {
    needed(object, what, key)?.as_str().ok_or_else(|| Wrong(format!("{what}.{key}: not a text")))
}

/// A list that must be there and have something in it.
pub(super) fn list<'a>(object: &'a Value, what: &str, key: &str) -> Result<&'a [Value], Wrong> {
    let list =
        needed(object, what, key)?.as_array().ok_or_else(|| Wrong(format!("{what}.{key}: not a list")))?;
    if list.is_empty() {
        return Err(Wrong(format!("{what}.{key}: at least one is required")));
    }
    Ok(list)
}

/// Puts figures over others.
pub(super) fn over(mut usage: Value, figures: &Map<String, Value>) -> Value {
    if let Value::Object(fields) = &mut usage {
        fields.extend(figures.clone());
    }
    usage
}

/// The words of a scripted error, or those of an error without any.
pub(super) fn words(error: &Map<String, Value>) -> Value {
    error.get("message").cloned().unwrap_or_else(|| json!("mock error"))
}

/// What the answer uses, by length and by what was kept before.
pub(super) struct Figures {
    pub(super) used: Usage,
}
