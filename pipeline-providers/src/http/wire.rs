//! What every wire format has to say: how a request is written, and how an answer is read.
//!
//! Owns [`Wire`], [`Reader`] and what they share: the answer so far, the ids of calls, the system prompt. Must not know
//! connections or time.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{Content, FunctionCall, Message, ModelAnswer, ModelEvent, ModelRequest, Role};
use serde_json::{Value, json};

use crate::http::failure::Fault;
use crate::http::settings::{Credential, HttpSettings};

/// Most bytes of an answer: text, thinking and arguments together.
pub(crate) const MOST_ANSWER: usize = 8 << 20;

/// Most bytes of a stream, whatever is in it: far more than an answer of [`MOST_ANSWER`] in the small pieces of a model, and a
/// bound for a server that sends events without end.
pub(crate) const MOST_STREAM: usize = 64 << 20;

/// A request with its model resolved.
pub(crate) struct Call<'a> {
    pub(crate) request: &'a ModelRequest,
    /// Full name.
    pub(crate) model: &'a str,
    /// Most tokens of the answer: the step's, else the model's maximum, where it is known.
    pub(crate) most_output: Option<u64>,
}

impl Call<'_> {
    /// The system prompt and what is added to it.
    pub(crate) fn system(&self) -> Option<String> {
        let parts = [&self.request.system, &self.request.append_system];
        let text =
            parts.into_iter().flatten().filter(|t| !t.is_empty()).cloned().collect::<Vec<_>>().join("\n\n");
        (!text.is_empty()).then_some(text)
    }

    pub(crate) fn option(&self, name: &str) -> Option<&Value> {
        self.request.agent.get(name).filter(|value| !value.is_null())
    }
}

/// A wire format.
pub(crate) trait Wire: Send + Sync {
    /// What goes behind the base URL.
    fn path(&self, base_url: &str, model: &str) -> String;

    /// Headers beside the content type, secrets among them.
    fn headers(&self, credential: &Credential) -> Vec<(String, String)>;

    /// The body of a streaming request.
    fn body(&self, call: &Call<'_>, settings: &HttpSettings) -> Result<Value, StepError>;

    /// Most tokens of the answer that a body asks for.
    fn most_output(&self, body: &Value) -> Option<u64>;

    /// A reader of one answer.
    fn reader(&self, model: &str) -> Box<dyn Reader>;

    /// What a body that tells an error says, with the status it came with.
    fn fault(&self, status: u16, body: &Value) -> Fault;

    /// The header that has the request's id.
    fn id_header(&self) -> &'static str;
}

/// Reads one answer, event by event.
pub(crate) trait Reader: Send + Sync {
    /// Takes an event; what it tells goes into `told`.
    fn event(&mut self, name: &str, data: &str, told: &mut Vec<ModelEvent>) -> Result<(), Fault>;

    /// Whether the format's own end has come.
    fn is_complete(&self) -> bool;

    /// The answer so far.
    fn heard(&mut self) -> &mut Heard;

    /// Judges how the answer ended.
    fn verdict(&mut self) -> Result<(), Fault>;
}

/// An answer that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) model: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<FunctionCall>,
    /// The turn as it must be sent back; only used when something in it is opaque.
    pub(crate) content: Vec<Content>,
    pub(crate) usage: Usage,
    pub(crate) has_usage: bool,
    pub(crate) stop_reason: String,
    pub(crate) warnings: Vec<String>,
    size: usize,
}

impl Heard {
    /// Counts what is stored.
    pub(crate) fn store(&mut self, bytes: usize) -> Result<(), Fault> {
        self.size += bytes;
        if self.size > MOST_ANSWER {
            let what = format!("gives an answer over {} MiB", MOST_ANSWER >> 20);
            return Err(Fault::new(ErrorKind::TooLarge, what));
        }
        Ok(())
    }

    /// Whether there is anything of an answer.
    pub(crate) fn has_any(&self) -> bool {
        self.size > 0
    }

    /// A piece of text.
    pub(crate) fn text(&mut self, piece: &str, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        if piece.is_empty() {
            return Ok(());
        }
        self.store(piece.len())?;
        self.text.push_str(piece);
        told.push(ModelEvent::TextDelta(piece.to_owned()));
        Ok(())
    }

    /// A piece of thinking.
    pub(crate) fn thinking(&mut self, piece: &str, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        if !piece.is_empty() {
            self.store(piece.len())?;
            told.push(ModelEvent::ThinkingDelta(piece.to_owned()));
        }
        Ok(())
    }

    /// A finished call of a function, its arguments as text.
    pub(crate) fn call(&mut self, id: &str, name: &str, arguments: &str) -> Result<FunctionCall, Fault> {
        let text = if arguments.trim().is_empty() { "{}" } else { arguments };
        let arguments = serde_json::from_str(text).map_err(|error| {
            Fault::new(ErrorKind::Parse, format!("calls `{name}` with arguments that are no JSON: {error}"))
        })?;
        let call = FunctionCall { id: id.to_owned(), name: name.to_owned(), arguments };
        self.calls.push(call.clone());
        Ok(call)
    }

    /// What no answer may be: nothing at all.
    pub(crate) fn not_empty(&self) -> Result<(), Fault> {
        if self.text.trim().is_empty() && self.calls.is_empty() {
            let what = format!("answered with nothing (stop reason `{}`)", self.stop_reason);
            return Err(Fault::new(ErrorKind::Truncated, what));
        }
        Ok(())
    }

    /// A stop reason that this program does not know: the answer is taken, and people are told.
    pub(crate) fn unknown_stop(&mut self, reason: &str) {
        self.warnings.push(format!("the answer ended for a reason that is not known here: `{reason}`"));
    }

    pub(crate) fn into_answer(self, request_id: Option<String>) -> ModelAnswer {
        let is_plain = !self.content.iter().any(|c| matches!(c, Content::Opaque { .. }));
        ModelAnswer {
            text: self.text,
            model: self.model,
            usage: self.usage,
            stop_reason: self.stop_reason,
            session_id: None,
            function_calls: self.calls,
            content: if is_plain { Vec::new() } else { self.content },
            request_id,
            warnings: self.warnings,
            files: std::collections::BTreeMap::new(),
        }
    }
}

/// A cut answer: it reached a limit of tokens.
pub(crate) fn cut_off(most: &str) -> Fault {
    Fault::new(ErrorKind::TooLarge, format!("cut the answer off: {most}"))
        .help("raise `max_output_tokens`, or ask for less in one step")
}

/// Every message, with calls that have no id given one, and the results that answer them the same. Providers that need
/// ids refuse a conversation without them; it may have begun elsewhere.
pub(crate) fn with_ids(messages: &[Message]) -> Vec<Message> {
    let mut open: Vec<(String, String)> = Vec::new();
    let mut count = 0;
    let mut all = messages.to_vec();
    for message in &mut all {
        for content in &mut message.content {
            match content {
                Content::ToolCall(call) => {
                    count += 1;
                    if call.id.is_empty() {
                        call.id = format!("call_{count}");
                    }
                    open.push((call.name.clone(), call.id.clone()));
                }
                Content::ToolResult { id, name, .. } => {
                    let place = if id.is_empty() {
                        open.iter().position(|(n, _)| n == name)
                    } else {
                        open.iter().position(|(_, i)| i == id)
                    };
                    if let Some(place) = place {
                        *id = open.remove(place).1;
                    }
                }
                Content::Text { .. } | Content::Media { .. } | Content::Opaque { .. } => {}
            }
        }
    }
    all
}

/// The conversation without turns that say nothing, and with neighbours of one role made one: services refuse both.
pub(crate) fn turns(messages: &[Message]) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    for mut message in messages.iter().cloned() {
        message.content.retain(|c| !matches!(c, Content::Text { text } if text.is_empty()));
        match all.last_mut() {
            _ if message.content.is_empty() => {}
            Some(last) if last.role == message.role => last.content.append(&mut message.content),
            _ => all.push(message),
        }
    }
    all
}

/// Checks what no service over HTTP can honour, whatever made the request.
pub(crate) fn check(request: &ModelRequest, options: &[&str], provider: &str) -> Result<(), StepError> {
    let unsupported = |what: String| StepError::new(ErrorKind::Unsupported, what);
    if request.session.is_some() {
        let what = format!("`{provider}` keeps no sessions of its own");
        return Err(unsupported(what).help("use `session_config`, which keeps the conversation here"));
    }
    if let Some(name) = request.agent.keys().find(|name| !options.contains(&name.as_str())) {
        return Err(unsupported(format!("`{provider}` has no option `{name}`")).help("remove it"));
    }
    if !request.messages.iter().any(|m| m.role == Role::User && !m.content.is_empty()) {
        return Err(StepError::invalid(format!("`{provider}` was asked nothing: the prompt is empty")));
    }
    Ok(())
}

/// A piece of media that a format cannot carry.
pub(crate) fn no_media(provider: &str, media_type: &str, name: &str) -> StepError {
    let what = format!("`{provider}` takes no {media_type} (`{name}`)");
    StepError::new(ErrorKind::Unsupported, what).help("use an image (PNG, JPEG, GIF, WebP) or a PDF document")
}

/// Whether it is an image that the services take.
pub(crate) fn is_image(media_type: &str) -> bool {
    matches!(media_type, "image/png" | "image/jpeg" | "image/gif" | "image/webp")
}

/// Sends an answer's format with the system prompt, where a service cannot be bound to it.
pub(crate) fn told_schema(system: Option<String>, schema: &Value) -> String {
    let ask = format!("Answer with nothing but one JSON value that fits this JSON Schema:\n{schema}");
    system.map_or(ask.clone(), |system| format!("{system}\n\n{ask}"))
}

/// An object without the entries that are null.
pub(crate) fn compact(fields: Value) -> Value {
    match fields {
        Value::Object(fields) => Value::Object(fields.into_iter().filter(|(_, v)| !v.is_null()).collect()),
        other => other,
    }
}

/// A data URL.
pub(crate) fn data_url(media_type: &str, data: &str) -> Value {
    json!(format!("data:{media_type};base64,{data}"))
}

/// A whole number in an object, 0 when it is not there.
pub(crate) fn count(object: &Value, name: &str) -> u64 {
    object.get(name).and_then(Value::as_u64).unwrap_or(0)
}
