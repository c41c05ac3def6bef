//! A backend that answers without a network: deterministic, and scripted where a test or a trial wants more.
//!
//! Owns [`MockProvider`]. It honours schemas and functions by making valid instances, so that everything after a model
//! call runs as it would live. It is a value that is handed in: there is no global switch, so runs with different
//! scripts go on side by side. Must not know steps or the engine.
//! Next: `mock/rules.rs` (the script), `mock/instance.rs` (values that fit a schema).

// Declaration order is reading order: from leaf to root.
mod seed;
mod pattern;
mod instance;
mod calls;
mod rules;
mod read;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{
    Capabilities, FunctionCall, FunctionDeclaration, Message, ModelAnswer, ModelEvent, ModelRequest,
    ModelStream, Price, Provider, Role, WorstCase,
};
use pipeline_core::step::StepContext;
use pipeline_core::value::Value;

use crate::backend;
use crate::mock::rules::{CallFacts, Rule, Scripted};
use crate::mock::seed::Dice;

pub(crate) use calls::CallLog;
pub use rules::MockRules;

/// Pieces that an answer is streamed in, at most.
const PIECES: usize = 3;

/// Tokens of an answer that nothing limits, as far as a budget reserves them.
const ANSWER_TOKENS: u64 = 4096;

/// Characters of the prompt that the built-in answer repeats.
const ECHO: usize = 60;

/// A provider that answers by rules, else by itself.
///
/// The built-in answer to a call is:
/// - with functions declared and no answer of the model in the conversation yet: one call of the function whose name the
///   prompt has (else of the first), with arguments that fit its schema and without text;
/// - with an output schema: a value that fits it, as JSON text;
/// - else one line that says that it is a mock, of which provider, for which step, with the beginning of the prompt.
///
/// The prompt is the last message of the user. The same request in the same step of a run with the same seeds gets the
/// same answer, in every process and on every thread. Mock calls are priced at 0 dollars; a token is four characters.
#[derive(Debug)]
pub struct MockProvider {
    name: String,
    kind: String,
    default_model: String,
    rules: Arc<MockRules>,
    log: Arc<CallLog>,
}

impl MockProvider {
    /// The stand-in for the backend `name`, with a count of calls of its own.
    pub fn new(name: impl Into<String>, rules: Arc<MockRules>) -> Self {
        Self::sharing(name, rules, Arc::default())
    }

    /// The stand-in for the backend `name`, which counts calls in `log`.
    pub(crate) fn sharing(name: impl Into<String>, rules: Arc<MockRules>, log: Arc<CallLog>) -> Self {
        let name = name.into();
        let default_model = backend::default_model(&name).to_owned();
        Self { kind: name.clone(), name, default_model, rules, log }
    }

    /// The same as a stand-in for a backend of `kind`, whose steps use `model` when they name none.
    #[must_use]
    pub fn in_place_of(mut self, kind: &str, model: Option<String>) -> Self {
        kind.clone_into(&mut self.kind);
        self.default_model = model.unwrap_or_else(|| backend::default_model(kind).to_owned());
        self
    }

    fn model<'a>(&'a self, request: &'a ModelRequest) -> &'a str {
        request.model.as_deref().unwrap_or(&self.default_model)
    }

    /// The call's number at its step and the rule that answers it.
    fn choose(&self, request: &ModelRequest, cx: &StepContext) -> (u64, Option<&Rule>) {
        let call = CallFacts {
            path: cx.key.path.as_str(),
            prompt: &prompt(request),
            provider: &self.name,
            model: self.model(request),
        };
        // A log that nobody reads would only grow.
        let (number, chosen) = if self.rules.count_calls() {
            self.log.add(cx, |past| self.rules.choose(&call, past))
        } else {
            (1, self.rules.choose(&call, &[]))
        };
        (number, chosen.and_then(|index| self.rules.rules.get(index)))
    }

    fn answer(
        &self,
        request: &ModelRequest,
        cx: &StepContext,
        rule: Option<&Rule>,
    ) -> Result<ModelAnswer, StepError> {
        let path = cx.key.path.as_str();
        let seed = self.rules.seed ^ cx.seed();
        let (text, function_calls) = match rule.map(|r| &r.answer) {
            Some(Scripted::Error { kind, retry_after_ms, message }) => {
                let message = message.clone().unwrap_or_else(|| {
                    format!(
                        "mock {}: a rule makes the call of step `{path}` fail ({})",
                        self.name,
                        kind.name()
                    )
                });
                let mut error = StepError::new(*kind, message);
                error.retry_after_ms = *retry_after_ms;
                return Err(error);
            }
            Some(Scripted::Answer { text, function_calls }) => {
                (text.clone().unwrap_or_default(), function_calls.clone())
            }
            Some(Scripted::BuiltIn) | None => self.built_in(request, path, seed)?,
        };
        let stop_reason = if function_calls.is_empty() { "end_turn" } else { "tool_use" };
        let session = || format!("mock-{}", Dice::new(seed, "session").uuid());
        Ok(ModelAnswer {
            usage: usage(request, &text, &function_calls, rule),
            text,
            model: self.model(request).to_owned(),
            stop_reason: stop_reason.to_owned(),
            session_id: self.capabilities().sessions.then(|| request.session.clone().unwrap_or_else(session)),
            function_calls,
            content: Vec::new(),
            request_id: None,
            warnings: Vec::new(),
            files: rule.map(|r| r.files.clone()).unwrap_or_default(),
        })
    }

    /// What a server that stands for this backend says to a request of `step`, or of one that did not say its name.
    #[cfg(feature = "mock-server")]
    pub(crate) fn say(&self, request: &ModelRequest, model: &str, step: &str) -> Result<Said, StepError> {
        let call = CallFacts { path: step, prompt: &prompt(request), provider: &self.name, model };
        let (number, chosen) = if self.rules.count_calls() {
            self.log.serve(step, |past| self.rules.choose(&call, past))
        } else {
            (1, self.rules.choose(&call, &[]))
        };
        let rule = chosen.and_then(|index| self.rules.rules.get(index));
        let (input, output) = rule.map_or((None, None), |r| (r.input_tokens, r.output_tokens));
        let (low, high) = rule.map_or((0, 0), |r| r.delay_ms);
        let delay_ms = Dice::new(self.rules.seed, &format!("{step} delay {number}")).between(low, high);
        let said = |text, calls, error| Said { text, calls, error, input, output, delay_ms };
        match rule.map(|r| &r.answer) {
            Some(Scripted::Error { kind, retry_after_ms, message }) => {
                let message = message
                    .clone()
                    .unwrap_or_else(|| format!("a rule makes the call fail ({})", kind.name()));
                Ok(said(String::new(), Vec::new(), Some((*kind, *retry_after_ms, message))))
            }
            Some(Scripted::Answer { text, function_calls }) => {
                Ok(said(text.clone().unwrap_or_default(), function_calls.clone(), None))
            }
            Some(Scripted::BuiltIn) | None => {
                let (text, calls) = self.built_in(request, step, self.rules.seed)?;
                Ok(said(text, calls, None))
            }
        }
    }

    fn built_in(
        &self,
        request: &ModelRequest,
        path: &str,
        seed: u64,
    ) -> Result<(String, Vec<FunctionCall>), StepError> {
        let prompt = prompt(request);
        let prompt = prompt.as_str();
        let answered = request.messages.iter().any(|m| m.role == Role::Assistant);
        if let (Some(function), false) = (function_to_call(&request.functions, prompt), answered) {
            let what = format!("the parameters of function `{}`", function.name);
            let arguments = self.instance(&function.parameters, &what, path, seed)?;
            return Ok((String::new(), vec![call(&function.name, arguments, seed)]));
        }
        if let Some(schema) = &request.output_schema {
            let value = self.instance(schema, "`output_schema`", path, seed)?;
            return Ok((value.to_string(), Vec::new()));
        }
        let beginning: String = prompt.chars().take(ECHO).collect();
        let text = format!("Mock answer of {} for step {path}: {beginning}", self.name);
        Ok((text, Vec::new()))
    }

    fn instance(&self, schema: &Value, what: &str, path: &str, seed: u64) -> Result<Value, StepError> {
        instance::of(schema, &mut Dice::new(seed, "instance")).map_err(|reason| {
            let message = format!(
                "mock {}: no value was found that fits {what} of step `{path}`: {reason}",
                self.name
            );
            let help = format!(
                "check the schema, or give the answer in a file of rules (--mock-rules): `match: {{step: {path}}}` with `data: …`"
            );
            StepError::new(ErrorKind::Unsupported, message).help(help)
        })
    }
}

/// What is said to a request.
#[cfg(feature = "mock-server")]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) calls: Vec<FunctionCall>,
    pub(crate) error: Option<(ErrorKind, Option<u64>, String)>,
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    /// Milliseconds before any of it is said.
    pub(crate) delay_ms: u64,
}

#[async_trait]
impl Provider for MockProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        backend::capabilities(&self.kind)
    }

    fn default_model(&self) -> &str {
        &self.default_model
    }

    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        // What it answers is not known yet; a rule may claim any usage. Tokens are bounded like those of a live model.
        let sent = usage(request, "", &[], None).input;
        WorstCase {
            tokens: sent + request.max_output_tokens.unwrap_or(ANSWER_TOKENS),
            cost: Price::AtMost(0.0),
        }
    }

    async fn start(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelStream, StepError> {
        let (number, rule) = self.choose(request, cx);
        let (low, high) = rule.map_or((0, 0), |r| r.delay_ms);
        let seed = self.rules.seed ^ cx.seed();
        let delay = Dice::new(seed, &format!("delay {number}")).between(low, high);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let answer = self.answer(request, cx, rule)?;
        let mut events: Vec<_> =
            pieces(&answer.text).into_iter().map(|p| Ok(ModelEvent::TextDelta(p))).collect();
        events.push(Ok(ModelEvent::Finished(Box::new(answer))));
        Ok(Box::pin(stream::iter(events)))
    }
}

/// The last message of the user; empty when there is none.
fn prompt(request: &ModelRequest) -> String {
    request.messages.iter().rfind(|m| m.role == Role::User).map_or_else(String::new, Message::text)
}

/// A call with an id, as services give it.
fn call(name: &str, arguments: Value, seed: u64) -> FunctionCall {
    FunctionCall {
        id: format!("call_{:016x}", Dice::new(seed, name).between(0, u64::MAX - 1)),
        name: name.to_owned(),
        arguments,
    }
}

fn function_to_call<'a>(
    functions: &'a [FunctionDeclaration],
    prompt: &str,
) -> Option<&'a FunctionDeclaration> {
    functions.iter().find(|f| prompt.contains(&f.name)).or_else(|| functions.first())
}

/// Tokens by length: four characters are one.
fn usage(request: &ModelRequest, text: &str, calls: &[FunctionCall], rule: Option<&Rule>) -> Usage {
    let tokens = |characters: usize| u64::try_from(characters.div_ceil(4)).unwrap_or(u64::MAX);
    let count = |text: &str| text.chars().count();
    let systems = [&request.system, &request.append_system];
    let sent = systems.into_iter().flatten().map(|s| count(s)).sum::<usize>()
        + request.messages.iter().map(|m| count(&m.text())).sum::<usize>();
    let received =
        count(text) + calls.iter().map(|c| count(&c.name) + count(&c.arguments.to_string())).sum::<usize>();
    Usage {
        input: rule.and_then(|r| r.input_tokens).unwrap_or_else(|| tokens(sent)),
        output: rule.and_then(|r| r.output_tokens).unwrap_or_else(|| tokens(received)),
        cost_usd: Some(0.0),
        calls: 1,
        ..Usage::default()
    }
}

/// `text` in up to [`PIECES`] parts of about the same length; none for an empty text.
fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let length = characters.len().div_ceil(PIECES).max(1);
    characters.chunks(length).map(|piece| piece.iter().collect()).collect()
}
