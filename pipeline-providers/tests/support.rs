//! What the tests share: a step's context without an engine, and requests.

use std::sync::Arc;

use futures_util::StreamExt;
use pipeline_core::catalog::Services;
use pipeline_core::path::{OpKey, OpRole};
use pipeline_core::provider::{
    FunctionDeclaration, Message, ModelAnswer, ModelEvent, ModelRequest, Provider,
};
use pipeline_core::step::{RunInfo, StepContext};
use pipeline_core::value::Value;
use pipeline_providers::{MockProvider, MockRules};

/// The context of logical attempt `turn`, physical attempt `attempt`, of the step at `path`.
pub fn context(run: &str, path: &str, turn: u32, attempt: u32) -> StepContext {
    let cx = StepContext::detached(Services::default());
    let run = RunInfo { id: run.to_owned(), seed: 11, mock: true, ..(*cx.run).clone() };
    let key = OpKey { path: path.into(), turn, role: OpRole::Attempt };
    StepContext { key, attempt, run: Arc::new(run), ..cx }
}

/// The context of the first attempt of the step at `path`.
pub fn at(path: &str) -> StepContext {
    context("run", path, 1, 1)
}

pub fn rules(text: &str) -> Arc<MockRules> {
    Arc::new(MockRules::parse(text, "rules.yaml").unwrap())
}

pub fn claude(text: &str) -> MockProvider {
    MockProvider::new("claude", rules(text))
}

pub fn message(role: &str, text: &str) -> Message {
    if role == "assistant" { Message::assistant(text) } else { Message::user(text) }
}

pub fn asking(prompt: &str) -> ModelRequest {
    ModelRequest { messages: vec![message("user", prompt)], ..ModelRequest::default() }
}

pub fn function(name: &str, parameters: Value) -> FunctionDeclaration {
    FunctionDeclaration { name: name.to_owned(), description: String::new(), parameters }
}

/// Every event of a call: the pieces of text, and the answer that ended it.
pub async fn events(
    provider: &dyn Provider,
    request: &ModelRequest,
    cx: &StepContext,
) -> (Vec<String>, ModelAnswer) {
    let mut stream = provider.start(request, cx).await.unwrap();
    let mut pieces = Vec::new();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ModelEvent::TextDelta(piece) => pieces.push(piece),
            ModelEvent::Finished(answer) => {
                assert!(stream.next().await.is_none(), "`Finished` is the last event");
                return (pieces, *answer);
            }
            ModelEvent::ThinkingDelta(_)
            | ModelEvent::ToolCall { .. }
            | ModelEvent::Usage(_)
            | ModelEvent::Note(_) => {}
        }
    }
    panic!("the stream ended without an answer");
}
