//! What the server answers next, where a test says so.
//!
//! Owns [`Step`] and the queue of steps. The door is `POST /__script` with a list of them; it is no part of any wire format.

use pipeline_core::value::Value;
use serde::Deserialize;
use serde_json::Map;

/// One scripted answer. Everything is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Step {
    /// Text of the answer.
    pub(super) text: Option<String>,
    /// Thinking before it.
    pub(super) thinking: Option<String>,
    /// Calls after it.
    pub(super) tools: Vec<Tool>,
    /// Stop reason, in the format's own words.
    pub(super) stop: Option<String>,
    /// Figures put over the computed ones, in the format's own names.
    pub(super) usage: Map<String, Value>,
    /// An error of that status instead.
    pub(super) status: Option<u16>,
    /// Its words: `type`, `message`, `code`, `details`.
    pub(super) error: Map<String, Value>,
    /// Further headers.
    pub(super) headers: Map<String, Value>,
    /// Seconds before the first byte.
    pub(super) delay: f64,
    /// Seconds between two events.
    pub(super) chunk_delay: f64,
    /// Drops the connection after so many events.
    pub(super) cut: Option<usize>,
    /// Ends the body, cleanly, after so many events.
    pub(super) end: Option<usize>,
    /// An error inside the stream, after the text.
    pub(super) sse_error: Option<Value>,
    /// A body that is sent as it is.
    pub(super) raw: Option<String>,
    /// Only for a request whose body has this text.
    #[serde(rename = "match")]
    pub(super) only: Option<String>,
    /// How often it is used; -1 = for ever. Default 1.
    pub(super) repeat: Option<i64>,
    /// A way to misbehave.
    pub(super) fault: Option<Fault>,
}

/// A call of a function.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tool {
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) input: Value,
}

/// Ways to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// Reads the request and never answers.
    HangBeforeHeaders,
    /// Answers with the head and one event, and then nothing.
    HangMidStream,
    /// Says in the middle of a stream that nothing more will come.
    HalfClose,
    /// Closes the connection without an answer.
    Reset,
    /// Sends an event that is no JSON.
    GarbageJson,
    /// Sends HTML with status 200.
    WrongContentType,
    /// Sends a body of a gigabyte without an event in it.
    HugeBody,
    /// Sends a head and an empty body.
    EmptyBody,
    /// Sends comments for ever, and no event.
    DripComments,
    /// Sends an event that no client knows, and goes on as usual.
    UnknownEvent,
}

/// Takes the first step that fits a request.
pub(super) fn take(steps: &mut Vec<Step>, body: &str) -> Option<Step> {
    let fits = |step: &Step| step.only.as_deref().is_none_or(|text| body.contains(text));
    let place = steps.iter().position(fits)?;
    match steps.get_mut(place).map(|step| (step.repeat.unwrap_or(1), step)) {
        Some((left, step)) if left > 1 => {
            step.repeat = Some(left - 1);
            Some(step.clone())
        }
        Some((left, step)) if left < 0 => Some(step.clone()),
        _ => Some(steps.remove(place)),
    }
}

/// A text in pieces, as models send it; one empty piece for an empty text.
pub(super) fn pieces(text: &str, length: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut all: Vec<String> = characters.chunks(length).map(|piece| piece.iter().collect()).collect();
    if all.is_empty() {
        all.push(String::new());
    }
    all
}
