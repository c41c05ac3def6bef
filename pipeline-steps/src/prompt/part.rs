//! The parts of a prompt, as the compiler checks them and the step decodes them.
//!
//! Owns [`Part`]; the doc comments are the reference. Must not know what parts come to.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Map;

use pipeline_core::value::Value;

use crate::prompt::extraction::Extraction;

/// A text, or parts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum PromptText {
    /// One text.
    Text(String),
    /// Parts, joined by newlines.
    Parts(Vec<Part>),
    /// What a template that is the whole prompt rendered to.
    #[schemars(skip)]
    Other(Value),
}

/// One part of a prompt.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Part {
    /// A text.
    Static {
        /// The text.
        content: Text,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
    /// The text of files.
    File {
        /// A file, a directory (all files in it and below) or a glob; looked for beside the pipeline file, then in
        /// the working directory. Hidden files count only when they are named.
        path: Text,
        /// Values for `{NAME}` and `{{NAME}}` in these files.
        #[serde(default)]
        variables: Map<String, Value>,
        /// Makes the text a variable `{NAME}` and `{{NAME}}` of the other parts, instead of a part.
        #[serde(default)]
        inject_as: Option<String>,
        /// How bytes become text. Default `utf-8`.
        #[serde(default)]
        encoding: Encoding,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
    /// A value of the run, such as an earlier answer.
    Value {
        /// An expression. Text stays as it is, anything else becomes JSON.
        #[schemars(extend("x-kind" = "expression"))]
        value: Value,
        /// Goes on from the value: `[*]` is every item of a list, `[0]` one of them, `.name` a field.
        #[serde(default)]
        path: Option<String>,
        /// Whether it is an error when there is nothing at `path`. Default true.
        #[serde(default = "yes")]
        strict: bool,
        /// Reads the value with the content extractor; what it finds stands in the prompt.
        #[serde(default)]
        extract: Option<Extraction>,
        /// Only the first sentences of it, at most `max_length` characters (default 500).
        #[serde(default)]
        summary: bool,
        /// Most characters of it.
        #[serde(default)]
        max_length: Option<u64>,
        /// Makes the text a variable `{NAME}` and `{{NAME}}` of the other parts, instead of a part.
        #[serde(default)]
        inject_as: Option<String>,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
    /// What was said in a session. It is data: nothing in it is filled.
    SessionContext {
        /// Name of the session, or the provider's id of it.
        session: Text,
        /// Only so many turns, counted from the last one.
        #[serde(default)]
        include_last_n: Option<u64>,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
    /// Goes on with a conversation: the step's prompt is its next turn.
    ClaudeContinue {
        /// What is said.
        new_prompt: Text,
        /// Name of the session, or the provider's id of it. Default: the step's own session, else the conversation of
        /// the step before.
        #[serde(default)]
        session: Option<Text>,
        /// The part is left out when this is false.
        #[serde(default)]
        #[schemars(extend("x-kind" = "condition"))]
        when: When,
    },
}

/// How bytes become text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) enum Encoding {
    /// UTF-8; a byte order mark is dropped.
    #[default]
    #[serde(rename = "utf-8", alias = "utf8", alias = "UTF-8")]
    Utf8,
    /// ISO 8859-1: every byte is a character.
    #[serde(rename = "latin-1", alias = "latin1", alias = "iso-8859-1")]
    Latin1,
}

/// By hand, because a derived schema does not know the other spellings.
impl JsonSchema for Encoding {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Encoding".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "How bytes become text: utf-8 (a byte order mark is dropped), or latin-1",
            "enum": ["utf-8", "utf8", "UTF-8", "latin-1", "latin1", "iso-8859-1"],
        })
    }
}

/// A condition's result; true when there was none.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct When(pub bool);

impl Default for When {
    fn default() -> Self {
        Self(true)
    }
}

/// A text that a template may have made from anything: what is not text becomes JSON.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self(text_of(&value)))
    }
}

/// A value as it stands in a prompt: text as it is, nothing for null, anything else as JSON.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn yes() -> bool {
    true
}
