//! One attempt to get an answer: questions, tool calls, repairs, until the answer is what was asked for.
//!
//! Owns the loop and the step's value. Must not know how text becomes JSON (`answer.rs`), where a prompt comes from
//! (`parts.rs`) or where conversations are kept (`session.rs`).

use std::path::Path;
use std::sync::Arc;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{
    Capabilities, Content, FunctionCall, Message, ModelAnswer, ModelRequest, Provider, Role,
};
use pipeline_core::step::{StepContext, StepOutput};
use pipeline_core::tool::{Tool, ToolOutput};
use pipeline_core::value::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::atomic;
use crate::confine::Roots;
use crate::prompt::answer::{Expected, Misfit, json_of};
use crate::prompt::config::{Config, Memory, SessionConfig, ValidationMode};
use crate::prompt::expect::{Expect, Looked};
use crate::prompt::extraction::Extraction;
use crate::prompt::parts::Asked;
use crate::prompt::request;
use crate::prompt::session::{self, Answered, Turn};

/// Model calls in one attempt that may ask for tools, when the step does not say.
const TOOL_TURNS: u64 = 10;

/// What the model is told of a call that the pipeline gets.
const HANDED_BACK: &str = "The call is handed to the pipeline.";

/// A conversation that is going on.
pub(super) struct Conversation<'a> {
    cx: &'a StepContext,
    provider: Arc<dyn Provider>,
    able: Capabilities,
    tools: Vec<Arc<dyn Tool>>,
    request: ModelRequest,
    expected: Option<Expected>,
    mode: ValidationMode,
    repair_attempts: u64,
    tool_turns: u64,
    session: Option<SessionConfig>,
    memory: Memory,
    extraction: Option<Extraction>,
    expect: Expect,
    /// What was said before, by earlier turns of the session.
    before: Vec<Message>,
    /// What is left of turns that are left out, as text before the prompt.
    told: Option<String>,
    /// What is said in this turn.
    said: Vec<Message>,
    /// How much of it the provider's own session knows.
    known: usize,
    usage: Usage,
    warnings: Vec<String>,
    /// Calls of declared functions, which the pipeline is told.
    calls: Vec<FunctionCall>,
}

impl<'a> Conversation<'a> {
    /// Looks up everything that is named, before anything is paid for.
    ///
    /// # Errors
    /// `Invalid` for a name that does not exist or a schema that is none, `Unsupported` for what the provider cannot do.
    pub async fn new(
        cx: &'a StepContext,
        provider: Arc<dyn Provider>,
        mut config: Config,
    ) -> Result<Self, StepError> {
        let tools = request::tools(cx, &config).await?;
        let schema = request::schema(&mut config);
        let expect = config.expect.take().unwrap_or_default();
        expect.check(cx)?;
        let (session, memory, extraction) =
            (config.session.take(), std::mem::take(&mut config.memory), config.extraction.take());
        let (mode, repair_attempts) = (config.validation_mode, config.repair_attempts);
        let tool_turns = config.max_turns.unwrap_or(TOOL_TURNS);
        let request = request::build(cx, config, schema.as_ref(), &tools, &*provider)?;
        Ok(Self {
            cx,
            able: provider.capabilities(),
            provider,
            tools,
            request,
            expected: schema.map(Expected::new).transpose()?,
            mode,
            repair_attempts,
            tool_turns,
            session,
            memory,
            extraction,
            expect,
            before: Vec::new(),
            told: None,
            said: Vec::new(),
            known: 0,
            usage: Usage::default(),
            warnings: Vec::new(),
            calls: Vec::new(),
        })
    }

    /// Asks and goes on until the answer is what was asked for.
    ///
    /// A thousand prompts may wait at once: what few of them do is boxed, so that the others need no room for it.
    ///
    /// # Errors
    /// The provider's; `Schema` when the repairs are used up or an expectation is not met; `Budget` when turns are used up;
    /// a tool's, when the model can do nothing about it.
    pub async fn run(mut self: Box<Self>, asked: Asked) -> Result<StepOutput, StepError> {
        self.warnings = asked.warnings;
        let turn = self.begin(asked.continues).await?;
        self.said.push(Message { role: Role::User, content: asked.content });
        session::check_length(&self.memory, &self.messages())?;
        let before = self.expect.before(self.cx).await?;
        let (answer, data) = self.until_it_fits().await?;
        let looked = Looked { text: &answer.text, data: data.as_ref() };
        self.expect.hold(self.cx, &looked, before.as_ref()).await?;
        if let Some(turn) = turn {
            let mut said = std::mem::take(&mut self.said);
            said.push(without_open_calls(answer.to_message()));
            let (session, usage) = (answer.session_id.clone(), self.usage);
            let answered = Answered { provider: self.provider.name(), session, usage };
            Box::pin(turn.end(self.cx, said, answered)).await?;
        }
        Ok(self.output(answer, data))
    }

    /// Takes the session that this prompt is a turn of.
    async fn begin(&mut self, continues: Option<String>) -> Result<Option<Turn>, StepError> {
        let turn = match (continues, &self.session) {
            (Some(name), _) => match Box::pin(Turn::resume(self.cx, &name)).await? {
                Some(turn) => turn,
                // No session of ours: the provider may know it.
                None if self.able.sessions => {
                    self.request.session = Some(name);
                    return Ok(None);
                }
                None => {
                    return Err(StepError::invalid(format!("there is no session `{name}` to go on with"))
                        .help("name one that a step before has begun; `pipeline sessions list` shows those that persist"));
                }
            },
            (None, Some(config)) => Box::pin(Turn::begin(self.cx, config)).await?,
            (None, None) => return Ok(None),
        };
        let history = turn.history(self.provider.name(), &self.able, &self.memory);
        self.request.session = history.session;
        self.before = history.messages;
        self.told = history.told;
        Ok(Some(turn))
    }

    /// What the next call carries: all that was said, or what the provider's own session does not know.
    fn messages(&self) -> Vec<Message> {
        let mut messages = if self.request.session.is_some() { Vec::new() } else { self.before.clone() };
        let first = messages.len();
        let known = if self.request.session.is_some() { self.known } else { 0 };
        messages.extend(self.said.iter().skip(known).cloned());
        if let (Some(told), 0, Some(message)) = (&self.told, known, messages.get_mut(first)) {
            message.content.insert(0, Content::Text { text: told.clone() });
        }
        messages
    }

    /// The answer that fits, and its JSON.
    async fn until_it_fits(&mut self) -> Result<(ModelAnswer, Option<Value>), StepError> {
        let mut turns = 0;
        let mut repairs = 0;
        loop {
            self.request.messages = self.messages();
            let answer = self.ask().await?;
            if !answer.files.is_empty() {
                Box::pin(self.keep_files(&answer)).await?;
            }
            let wanted = self.sort_calls(&answer.function_calls);
            if !wanted.is_empty() {
                turns += 1;
                if turns >= self.tool_turns {
                    return Err(self.too_many_turns(turns, &wanted));
                }
                let results = Box::pin(self.use_tools(&answer.function_calls)).await?;
                self.go_on(&answer, results);
                continue;
            }
            let misfit = match self.data(&answer) {
                Ok(data) => return Ok((answer, data)),
                Err(misfit) => misfit,
            };
            if repairs < self.repair_attempts {
                repairs += 1;
                self.cx.progress.note(&format!("the answer does not fit its schema: repair {repairs}"));
                let repair = self.expected.as_ref().map_or_else(String::new, |e| e.repair(&misfit));
                let mut content: Vec<Content> = answer.function_calls.iter().map(handed_back).collect();
                content.push(Content::Text { text: repair });
                self.go_on(&answer, content);
                continue;
            }
            return match (self.mode, misfit.found.clone()) {
                (ValidationMode::Loose, Some(found)) => {
                    self.warnings.push(format!("the answer does not fit its schema:\n{}", misfit.list()));
                    Ok((answer, Some(found)))
                }
                _ => Err(misfit.error(repairs, &json!(self.usage))),
            };
        }
    }

    /// The answer has been heard, and this is said next.
    fn go_on(&mut self, answer: &ModelAnswer, content: Vec<Content>) {
        self.said.push(answer.to_message());
        if let Some(session) = answer.session_id.as_ref().filter(|_| self.able.sessions) {
            self.request.session = Some(session.clone());
            self.known = self.said.len();
        }
        self.said.push(Message { role: Role::User, content });
    }

    /// One model call: once, whatever crashes.
    async fn ask(&mut self) -> Result<ModelAnswer, StepError> {
        let described = Described { provider: self.provider.name(), request: &self.request };
        let worst = self.provider.worst_case(&self.request);
        let (request, provider, cx) = (&self.request, &self.provider, self.cx);
        let call = |allowed: Option<f64>| async move {
            let limited =
                allowed.map(|_| Box::new(ModelRequest { max_cost_usd: allowed, ..request.clone() }));
            let answer = provider.complete(limited.as_deref().unwrap_or(request), cx).await?;
            serde_json::to_value(answer).map_err(|e| internal("keep", &e))
        };
        let recorded = self.cx.metered("model", &described, worst, usage_of, call).await?;
        let answer: ModelAnswer =
            ModelAnswer::deserialize(recorded.json()).map_err(|e| internal("read", &e))?;
        self.usage.add(&counted(answer.usage));
        Ok(answer)
    }

    /// Files that an agent wrote somewhere else than on this machine's disk come with the answer.
    async fn keep_files(&self, answer: &ModelAnswer) -> Result<(), StepError> {
        let workspace = &self.cx.workspace;
        let roots = Roots::write_below(workspace);
        for (name, text) in &answer.files {
            let name = Path::new(name);
            let (dir, below) = roots.open(name, workspace)?;
            atomic::write(&dir, &below, text.as_bytes()).await.map_err(|e| roots.failure(name, &e))?;
        }
        Ok(())
    }

    /// Calls of tools are returned, to be executed; the others are kept for the pipeline.
    fn sort_calls(&mut self, calls: &[FunctionCall]) -> Vec<FunctionCall> {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            calls.iter().cloned().partition(|call| self.tool(&call.name).is_some());
        self.calls.extend(theirs);
        ours
    }

    fn tool(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.tools.iter().find(|t| t.spec().name == name)
    }

    /// Executes the calls in order; what the model is told of every one of them.
    async fn use_tools(&mut self, calls: &[FunctionCall]) -> Result<Vec<Content>, StepError> {
        let mut told = Vec::new();
        for call in calls {
            if self.tool(&call.name).is_none() {
                told.push(handed_back(call));
                continue;
            }
            let (content, is_error) = match self.use_tool(call).await? {
                Ok(output) => (content(&output), false),
                Err(error) => (format!("{}: {}", error.kind.name(), error.message), true),
            };
            let (id, name) = (call.id.clone(), call.name.clone());
            told.push(Content::ToolResult { id, name, content, is_error });
        }
        Ok(told)
    }

    /// One tool call, as an effect. What the model can react to is a result, and is recorded like one.
    async fn use_tool(&self, call: &FunctionCall) -> Result<Result<ToolOutput, StepError>, StepError> {
        let Some(tool) = self.tool(&call.name) else {
            return Err(StepError::new(ErrorKind::Internal, format!("the tool `{}` is gone", call.name)));
        };
        self.cx.progress.note(&format!("tool {}", call.name));
        let request = json!({ "tool": call.name, "arguments": call.arguments });
        let work = async {
            match tool.call(call.arguments.clone(), self.cx).await {
                Ok(output) => Ok(json!({ "output": output })),
                Err(error) if is_for_the_model(error.kind) => Ok(json!({ "error": error })),
                Err(error) => Err(error),
            }
        };
        let recorded = self.cx.effect("tool", &request, work).await?.into_json();
        let read = |e: serde_json::Error| internal("read", &e);
        match recorded.get("error") {
            Some(error) => Ok(Err(serde_json::from_value(error.clone()).map_err(read)?)),
            None => Ok(Ok(serde_json::from_value(recorded["output"].clone()).map_err(read)?)),
        }
    }

    fn too_many_turns(&self, turns: u64, wanted: &[FunctionCall]) -> StepError {
        let names: Vec<&str> = wanted.iter().map(|c| c.name.as_str()).collect();
        let message = format!("the model still asks for tools ({}) after {turns} turns", names.join(", "));
        StepError::new(ErrorKind::Budget, message)
            .help("raise `max_turns`, or ask for less in one step")
            .details(json!({ "usage": self.usage }))
    }

    /// The answer's JSON, if it has any.
    fn data(&self, answer: &ModelAnswer) -> Result<Option<Value>, Misfit> {
        match &self.expected {
            // The model chose to call a declared function instead of answering.
            Some(_) if !self.calls.is_empty() && answer.text.trim().is_empty() => Ok(None),
            Some(expected) => expected.check(&answer.text).map(Some),
            None => Ok(json_of(&answer.text)),
        }
    }

    /// The step's value: the language page's row for `prompt`.
    fn output(self, answer: ModelAnswer, data: Option<Value>) -> StepOutput {
        let usage = self.usage;
        let extraction = self.extraction.as_ref().map(|e| e.of(&answer.text));
        let mut warnings = self.warnings;
        warnings.extend(answer.warnings);
        let cost = usage.cost_usd.filter(|_| usage.unpriced_calls == 0);
        let mut value = serde_json::Map::with_capacity(12);
        value.insert("text".to_owned(), answer.text.into());
        // Without JSON there is no `data`: a null would be the primary value instead of the text.
        if let Some(data) = data {
            value.insert("data".to_owned(), data);
        }
        let tokens = json!({
            "input": usage.input,
            "output": usage.output,
            "cache_read": usage.cache_read,
            "cache_write": usage.cache_write,
        });
        let rest = [
            ("model", json!(answer.model)),
            ("provider", json!(self.provider.name())),
            ("usage", tokens),
            ("cost_usd", json!(cost)),
            ("stop_reason", json!(answer.stop_reason)),
            ("session_id", json!(answer.session_id)),
            ("function_calls", json!(self.calls)),
            ("attempts", json!(self.cx.key.turn)),
            ("success", json!(true)),
        ];
        value.extend(rest.map(|(name, field)| (name.to_owned(), field)));
        if let Some(extraction) = extraction {
            value.insert("extraction".to_owned(), extraction);
        }
        StepOutput { usage, warnings, ..StepOutput::ok(Value::Object(value)) }
    }
}

/// Everything that an answer depends on.
#[derive(Serialize)]
struct Described<'a> {
    provider: &'a str,
    request: &'a ModelRequest,
}

/// The result of a declared function: its call goes to the pipeline, and every call needs one.
fn handed_back(call: &FunctionCall) -> Content {
    let (id, name) = (call.id.clone(), call.name.clone());
    Content::ToolResult { id, name, content: HANDED_BACK.to_owned(), is_error: false }
}

/// The last turn of a conversation, told again later: a call that has no result stands in it as text.
fn without_open_calls(mut message: Message) -> Message {
    for content in &mut message.content {
        if let Content::ToolCall(call) = content {
            *content = Content::Text { text: format!("(calls {} with {})", call.name, call.arguments) };
        }
    }
    message
}

/// Whether a model can react to a tool's error: by other arguments, another tool, or without it. Anything else is the
/// step's own failure, which the schedule may retry.
fn is_for_the_model(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Invalid
            | ErrorKind::Denied
            | ErrorKind::Parse
            | ErrorKind::Schema
            | ErrorKind::TooLarge
            | ErrorKind::Refused
            | ErrorKind::Unsupported
            | ErrorKind::Environment
            | ErrorKind::Panicked
    )
}

/// What a model is told of a tool's result.
fn content(output: &ToolOutput) -> String {
    if output.content.is_empty() && !output.data.is_null() {
        return output.data.to_string();
    }
    output.content.clone()
}

/// What a recorded answer used.
fn usage_of(answer: &Value) -> Usage {
    let usage = answer.get("usage").and_then(|usage| Usage::deserialize(usage).ok());
    counted(usage.unwrap_or_default())
}

/// With the call itself counted, for a provider that counts tokens only.
fn counted(mut usage: Usage) -> Usage {
    if usage.calls == 0 {
        usage.calls = 1;
        usage.unpriced_calls = u64::from(usage.cost_usd.is_none());
    }
    usage
}

fn internal(what: &str, error: &serde_json::Error) -> StepError {
    StepError::new(ErrorKind::Internal, format!("cannot {what} a recorded result: {error}"))
}
