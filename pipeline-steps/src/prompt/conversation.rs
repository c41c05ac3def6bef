//! One attempt to get an answer: questions, tool calls, repairs, until the answer is what was asked for.
//!
//! Owns the loop and the step's value. Must not know how text becomes JSON (`answer.rs`) or where a prompt's text
//! comes from (`parts.rs`).

use std::path::Path;
use std::sync::Arc;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{
    Content, FunctionCall, FunctionDeclaration, Message, ModelAnswer, ModelRequest, Provider, Role,
};
use pipeline_core::step::{StepContext, StepOutput};
use pipeline_core::tool::{Tool, ToolOutput};
use pipeline_core::value::Value;
use serde_json::json;

use crate::atomic;
use crate::confine::Roots;
use crate::prompt::answer::{Expected, Misfit, json_of};
use crate::prompt::config::{Config, Text, ValidationMode};

/// Model calls in one attempt that may ask for tools, when the step does not say.
const TOOL_TURNS: u64 = 10;

/// The provider when the step and the defaults name none.
const DEFAULT_PROVIDER: &str = "claude";

/// A conversation that is going on.
pub(super) struct Conversation<'a> {
    cx: &'a StepContext,
    provider: Arc<dyn Provider>,
    tools: Vec<Arc<dyn Tool>>,
    request: ModelRequest,
    expected: Option<Expected>,
    mode: ValidationMode,
    repair_attempts: u64,
    tool_turns: u64,
    usage: Usage,
    /// Calls of declared functions, which the pipeline is told.
    calls: Vec<FunctionCall>,
}

impl<'a> Conversation<'a> {
    /// Looks up everything that is named, before anything is paid for.
    ///
    /// # Errors
    /// `Invalid` for a name that does not exist or a schema that is none.
    pub fn new(cx: &'a StepContext, config: Config) -> Result<Self, StepError> {
        let text = |text: Option<Text>| text.map(|t| t.0);
        let name = text(config.provider).unwrap_or_else(|| DEFAULT_PROVIDER.to_owned());
        let provider = cx.services.catalog.provider(&name).cloned().ok_or_else(|| {
            let known: Vec<&str> = cx.services.catalog.providers().map(|p| p.name()).collect();
            StepError::invalid(format!("there is no provider `{name}`"))
                .help(format!("it is one of: {}", known.join(", ")))
        })?;
        let tools = config.tools.iter().map(|name| tool(cx, name)).collect::<Result<Vec<_>, _>>()?;
        let schema = config.output_schema.or_else(|| config.json.then(|| json!({ "type": "object" })));
        let mut functions = config.functions.0;
        for tool in &tools {
            let spec = tool.spec();
            if functions.iter().any(|f| f.name == spec.name) {
                let message = format!("`{}` is both a declared function and a tool", spec.name);
                return Err(StepError::invalid(message).help("give one of them another name"));
            }
            let (name, description, parameters) = (spec.name, spec.description, spec.parameters);
            functions.push(FunctionDeclaration { name, description, parameters });
        }
        let request = ModelRequest {
            model: text(config.model),
            messages: Vec::new(),
            system: text(config.system_prompt),
            append_system: text(config.append_system_prompt),
            temperature: config.temperature,
            top_p: config.top_p,
            top_k: config.top_k,
            max_output_tokens: config.max_output_tokens,
            max_turns: config.max_turns,
            output_schema: schema.clone(),
            functions,
            agent: config.options,
            session: text(config.session),
            max_cost_usd: None,
            cwd: Some(cx.workspace.clone()),
        };
        Ok(Self {
            cx,
            provider,
            tools,
            request,
            expected: schema.map(Expected::new).transpose()?,
            mode: config.validation_mode,
            repair_attempts: config.repair_attempts,
            tool_turns: config.max_turns.unwrap_or(TOOL_TURNS),
            usage: Usage::default(),
            calls: Vec::new(),
        })
    }

    /// Asks `text` and goes on until the answer is what was asked for.
    ///
    /// # Errors
    /// The provider's; `Schema` when the repairs are used up; `Budget` when the turns with tools are; a tool's, when
    /// the model can do nothing about it.
    pub async fn run(mut self, text: String) -> Result<StepOutput, StepError> {
        self.request.messages.push(Message::user(text));
        let mut turns = 0;
        let mut repairs = 0;
        loop {
            let answer = self.ask().await?;
            self.keep_files(&answer).await?;
            let wanted = self.sort_calls(&answer.function_calls);
            if !wanted.is_empty() {
                turns += 1;
                if turns >= self.tool_turns {
                    return Err(self.too_many_turns(turns, &wanted));
                }
                self.use_tools(&answer, &wanted).await?;
                continue;
            }
            let misfit = match self.data(&answer) {
                Ok(data) => return Ok(self.output(answer, data, Vec::new())),
                Err(misfit) => misfit,
            };
            if repairs < self.repair_attempts {
                repairs += 1;
                self.cx.progress.note(&format!("the answer does not fit its schema: repair {repairs}"));
                let repair = self.expected.as_ref().map_or_else(String::new, |e| e.repair(&misfit));
                self.request.messages.extend([answer.to_message(), Message::user(repair)]);
                continue;
            }
            return match (self.mode, misfit.found.clone()) {
                (ValidationMode::Loose, Some(found)) => {
                    let warning = format!("the answer does not fit its schema:\n{}", misfit.list());
                    Ok(self.output(answer, Some(found), vec![warning]))
                }
                _ => Err(misfit.error(repairs, &json!(self.usage))),
            };
        }
    }

    /// One model call: once, whatever crashes.
    async fn ask(&mut self) -> Result<ModelAnswer, StepError> {
        let described = json!({ "provider": self.provider.name(), "request": self.request });
        let worst = self.provider.worst_case(&self.request);
        let (asked, provider, cx) = (self.request.clone(), Arc::clone(&self.provider), self.cx);
        let call = |allowed| async move {
            let request = ModelRequest { max_cost_usd: allowed, ..asked };
            let answer = provider.complete(&request, cx).await?;
            serde_json::to_value(answer).map_err(|e| internal("keep", &e))
        };
        let recorded = self.cx.metered("model", &described, worst, usage_of, call).await?;
        let answer: ModelAnswer =
            serde_json::from_value(recorded.into_json()).map_err(|e| internal("read", &e))?;
        self.usage.add(&counted(answer.usage));
        Ok(answer)
    }

    /// Files that an agent wrote somewhere else than on this machine's disk come with the answer.
    async fn keep_files(&self, answer: &ModelAnswer) -> Result<(), StepError> {
        let dirs = &self.cx.run.dirs;
        let roots = Roots::write_below(&dirs.workspace);
        for (name, text) in &answer.files {
            let name = Path::new(name);
            let (dir, below) = roots.open(name, &dirs.workspace)?;
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

    /// Executes the calls in order and tells the model their results.
    async fn use_tools(&mut self, answer: &ModelAnswer, wanted: &[FunctionCall]) -> Result<(), StepError> {
        let mut told = Vec::new();
        for call in wanted {
            let (content, is_error) = match self.use_tool(call).await? {
                Ok(output) => (content(&output), false),
                Err(error) => (format!("{}: {}", error.kind.name(), error.message), true),
            };
            let (id, name) = (call.id.clone(), call.name.clone());
            told.push(Content::ToolResult { id, name, content, is_error });
        }
        self.request.messages.push(answer.to_message());
        self.request.messages.push(Message { role: Role::User, content: told });
        Ok(())
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
    fn output(self, answer: ModelAnswer, data: Option<Value>, warnings: Vec<String>) -> StepOutput {
        let usage = self.usage;
        let cost = usage.cost_usd.filter(|_| usage.unpriced_calls == 0);
        let mut value = serde_json::Map::new();
        value.insert("text".to_owned(), answer.text.into());
        // Without JSON there is no `data`: a null would be the primary value instead of the text.
        if let Some(data) = data {
            value.insert("data".to_owned(), data);
        }
        let rest = json!({
            "model": answer.model,
            "provider": self.provider.name(),
            "usage": {
                "input": usage.input,
                "output": usage.output,
                "cache_read": usage.cache_read,
                "cache_write": usage.cache_write,
            },
            "cost_usd": cost,
            "stop_reason": answer.stop_reason,
            "session_id": answer.session_id,
            "function_calls": self.calls,
            "attempts": self.cx.key.turn,
            "success": true,
        });
        if let Value::Object(rest) = rest {
            value.extend(rest);
        }
        StepOutput { usage, warnings, ..StepOutput::ok(Value::Object(value)) }
    }
}

fn tool(cx: &StepContext, name: &str) -> Result<Arc<dyn Tool>, StepError> {
    cx.services.tools.get(name).ok_or_else(|| {
        let known: Vec<String> = cx.services.tools.list().into_iter().map(|t| t.name).collect();
        StepError::invalid(format!("there is no tool `{name}`")).help(match known.as_slice() {
            [] => "no tool is registered; declare it under `tools` or `mcp_servers`".to_owned(),
            known => format!("it is one of: {}", known.join(", ")),
        })
    })
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
    let usage = answer.get("usage").cloned().and_then(|u| serde_json::from_value(u).ok());
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
