//! What the tests share: a step's context without an engine, and requests.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use pipeline_core::catalog::{Catalog, Services};
use pipeline_core::clock::Timestamp;
use pipeline_core::error::StepError;
use pipeline_core::path::{OpKey, OpRole};
use pipeline_core::provider::{
    FunctionDeclaration, Message, ModelAnswer, ModelEvent, ModelRequest, Provider,
};
use pipeline_core::step::{EffectPort, Permissions, ProgressPort, RunDirs, RunInfo, StepContext};
use pipeline_core::store::OutputWriter;
use pipeline_core::tool::{Tool, ToolSource, ToolSpec};
use pipeline_core::value::Value;
use pipeline_providers::{MockProvider, MockRules};
use tokio_util::sync::CancellationToken;

struct Nothing;

impl ToolSource for Nothing {
    fn get(&self, _name: &str) -> Option<Arc<dyn Tool>> {
        None
    }

    fn list(&self) -> Vec<ToolSpec> {
        Vec::new()
    }
}

#[async_trait]
impl OutputWriter for Nothing {
    async fn write(&self, _run: &RunInfo, name: &str, _text: &str) -> Result<PathBuf, StepError> {
        Err(StepError::invalid(format!("no test writes `{name}`")))
    }
}

/// The context of logical attempt `turn`, physical attempt `attempt`, of the step at `path`.
pub fn context(run: &str, path: &str, turn: u32, attempt: u32) -> StepContext {
    let run = RunInfo {
        id: run.to_owned(),
        workflow: "test".to_owned(),
        started_at: Timestamp(0),
        seed: 11,
        mock: true,
        dirs: RunDirs::default(),
        permissions: Permissions::default(),
    };
    let services = Services::new(Catalog::default(), Arc::new(Nothing), Arc::new(Nothing));
    StepContext {
        key: OpKey { path: path.into(), turn, role: OpRole::Attempt },
        attempt,
        deadline: tokio::time::Instant::now() + Duration::from_hours(1),
        cancel: CancellationToken::new(),
        workspace: run.dirs.workspace.clone(),
        run: Arc::new(run),
        services: Arc::new(services),
        effects: EffectPort::detached(),
        progress: ProgressPort::detached(),
    }
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
