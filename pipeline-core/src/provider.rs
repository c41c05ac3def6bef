//! The contract between a model step and whatever answers it.
//!
//! Owns [`Provider`], [`ModelRequest`], [`ModelEvent`] and [`Capabilities`]. One request shape for every vendor;
//! what a backend cannot honour is refused when the pipeline is compiled, never ignored.
//! Must not know vendors, HTTP or processes. Next: pipeline-providers.

mod entry;

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, StepError};
use crate::fact::Usage;
use crate::step::StepContext;
use crate::value::Value;

pub use crate::message::{Content, FunctionCall, Message, Role};
pub use crate::provider::entry::{LongPrice, ModelPrice, ProviderEntry, ProviderKind, ProviderLimits};
pub use crate::usage::{Price, WorstCase};

/// Something that answers prompts.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name under which pipelines use it: `claude`, `gemini`, `openai`, or a name from `providers`.
    fn name(&self) -> &str;

    /// What it can honour. The compiler refuses what it cannot; the built-in mock reports what the live backend of
    /// the same name would.
    fn capabilities(&self) -> Capabilities;

    /// The model used when a step names none.
    fn default_model(&self) -> &str;

    /// The most that one call of `request` can use: what a budget reserves before it is made. Never less than what the
    /// call will be billed for.
    fn worst_case(&self, request: &ModelRequest) -> WorstCase;

    /// Starts one attempt. Does not retry. Dropping the stream stops it and everything it started.
    ///
    /// # Errors
    /// A typed error with the server's own words.
    async fn start(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelStream, StepError>;

    /// Runs an attempt to its end: a fold over [`Provider::start`], with text deltas reported as progress.
    ///
    /// # Errors
    /// What the stream ends with; [`ErrorKind::Truncated`] when it ends without [`ModelEvent::Finished`].
    async fn complete(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelAnswer, StepError> {
        let mut stream = self.start(request, cx).await?;
        while let Some(event) = stream.next().await {
            match event? {
                ModelEvent::TextDelta(text) => cx.progress.text(&text),
                ModelEvent::ToolCall { name } => cx.progress.note(&format!("calls {name}")),
                ModelEvent::Note(note) => cx.progress.note(&note),
                ModelEvent::ThinkingDelta(_) => {}
                ModelEvent::Usage(usage) => cx.progress.usage(&usage),
                ModelEvent::Finished(answer) => return Ok(*answer),
            }
        }
        Err(StepError::new(ErrorKind::Truncated, format!("{} ended its answer before the end", self.name())))
    }
}

/// Events of one model call, ended by [`ModelEvent::Finished`] or an error.
pub type ModelStream = Pin<Box<dyn Stream<Item = Result<ModelEvent, StepError>> + Send>>;

/// One thing that a model call tells.
#[derive(Debug, Clone)]
pub enum ModelEvent {
    /// A piece of the answer's text.
    TextDelta(String),
    /// A piece of the model's thinking.
    ThinkingDelta(String),
    /// The model, or the agent, calls a tool.
    ToolCall {
        /// Name of the tool.
        name: String,
    },
    /// Usage of this call so far; the last word is the answer's.
    Usage(Usage),
    /// A word for people: a retry of the agent, a model that took over.
    Note(String),
    /// The whole answer. The last event of a stream that succeeded.
    Finished(Box<ModelAnswer>),
}

/// What a step asks of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// Model name; `None` = the provider's default.
    pub model: Option<String>,
    /// The prompt, and the turns before it.
    pub messages: Vec<Message>,
    /// Replaces the system prompt.
    pub system: Option<String>,
    /// Is added to the system prompt.
    pub append_system: Option<String>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Top-k sampling.
    pub top_k: Option<u64>,
    /// Most tokens of the answer.
    pub max_output_tokens: Option<u64>,
    /// Most turns of an agent.
    pub max_turns: Option<u64>,
    /// The answer must be JSON that fits.
    pub output_schema: Option<Value>,
    /// Functions the model may call.
    pub functions: Vec<FunctionDeclaration>,
    /// Options of the agent CLI, by their names in `claude_options`.
    pub agent: serde_json::Map<String, Value>,
    /// Provider session to go on with.
    pub session: Option<String>,
    /// Most US dollars that an agent may spend by itself. Not part of what the answer depends on.
    #[serde(skip)]
    pub max_cost_usd: Option<f64>,
    /// Where an agent works. Not part of what the answer depends on: a run may be replayed elsewhere.
    #[serde(skip)]
    pub cwd: Option<std::path::PathBuf>,
}

/// A function that a model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionDeclaration {
    /// Name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: Value,
}

/// A model's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelAnswer {
    /// The text.
    pub text: String,
    /// The model that answered.
    pub model: String,
    /// Tokens and cost.
    pub usage: Usage,
    /// Why it stopped, in the provider's words mapped to `end_turn`, `max_tokens`, `tool_use`, `stop_sequence`, or as given.
    pub stop_reason: String,
    /// The provider's session id, to go on with later.
    pub session_id: Option<String>,
    /// Calls of declared functions.
    pub function_calls: Vec<FunctionCall>,
    /// The turn as it must be sent back when the conversation goes on; empty = text and calls say it all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Content>,
    /// The provider's id of the request, for its support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What people should know although the call succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Files that an agent wrote, relative to its working directory (mock rules' `files`).
    #[serde(default)]
    pub files: std::collections::BTreeMap<String, String>,
}

impl ModelAnswer {
    /// A plain answer that used nothing.
    pub fn new(model: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            model: model.into(),
            usage: Usage::default(),
            stop_reason: "end_turn".to_owned(),
            session_id: None,
            function_calls: Vec::new(),
            content: Vec::new(),
            request_id: None,
            warnings: Vec::new(),
            files: std::collections::BTreeMap::new(),
        }
    }

    /// The stream of a call that is answered at once: what [`Provider::start`] gives where nothing arrives in pieces.
    pub fn into_stream(self) -> ModelStream {
        Box::pin(futures_util::stream::once(std::future::ready(Ok(ModelEvent::Finished(Box::new(self))))))
    }

    /// The turn to send back when the conversation goes on.
    pub fn to_message(&self) -> Message {
        if !self.content.is_empty() {
            return Message { role: Role::Assistant, content: self.content.clone() };
        }
        let text = (!self.text.is_empty()).then(|| Content::Text { text: self.text.clone() });
        let calls = self.function_calls.iter().cloned().map(Content::ToolCall);
        Message { role: Role::Assistant, content: text.into_iter().chain(calls).collect() }
    }
}

/// What a backend can honour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `output_schema` natively.
    pub structured_output: bool,
    /// `functions`.
    pub functions: bool,
    /// `temperature`, `top_p`, `top_k`.
    pub sampling: bool,
    /// `max_output_tokens`.
    pub max_output_tokens: bool,
    /// Continuing by session id.
    pub sessions: bool,
    /// It is an agent with tools of its own: `max_turns`, `allowed_tools`, working directory.
    pub agent: bool,
    /// Images as prompt parts.
    pub images: bool,
    /// PDF documents as prompt parts.
    pub documents: bool,
    /// Input that is read from a prompt cache does not count against the account's limit of tokens a minute.
    pub cache_is_unlimited: bool,
    /// Names of `claude_options` (or the like) that it honours.
    pub options: &'static [&'static str],
}
