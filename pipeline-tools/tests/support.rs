//! What the tests share: a step's context without an engine, and a tool made of a function.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::catalog::{Catalog, Services};
use pipeline_core::clock::Timestamp;
use pipeline_core::error::StepError;
use pipeline_core::path::{OpKey, OpRole};
use pipeline_core::step::{EffectPort, Permissions, ProgressPort, RunDirs, RunInfo, StepContext};
use pipeline_core::store::OutputWriter;
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::Value;
use pipeline_tools::Registry;
use serde_json::json;
use tokio_util::sync::CancellationToken;

struct NoOutputs;

#[async_trait]
impl OutputWriter for NoOutputs {
    async fn write(&self, _run: &RunInfo, name: &str, _text: &str) -> Result<PathBuf, StepError> {
        Err(StepError::invalid(format!("no test writes `{name}`")))
    }
}

/// The context of a step's first attempt.
pub fn context() -> StepContext {
    let run = RunInfo {
        id: "run".to_owned(),
        workflow: "test".to_owned(),
        started_at: Timestamp(0),
        seed: 11,
        mock: false,
        dirs: RunDirs::default(),
        permissions: Permissions::default(),
    };
    let services = Services::new(Catalog::default(), Arc::new(Registry::default()), Arc::new(NoOutputs));
    StepContext {
        key: OpKey { path: "a".into(), turn: 1, role: OpRole::Attempt },
        attempt: 1,
        deadline: tokio::time::Instant::now() + Duration::from_hours(1),
        cancel: CancellationToken::new(),
        workspace: run.dirs.workspace.clone(),
        run: Arc::new(run),
        services: Arc::new(services),
        effects: EffectPort::detached(),
        progress: ProgressPort::detached(),
    }
}

/// A context whose directories are below `root`, with permissions.
pub fn context_in(root: &std::path::Path, permissions: Permissions) -> StepContext {
    let mut cx = context();
    let dir = |name: &str| {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    let dirs = RunDirs {
        working: dir("working"),
        pipeline: dir("working"),
        workspace: dir("workspace"),
        output: dir("output"),
        run: dir("run"),
        ..RunDirs::default()
    };
    cx.workspace.clone_from(&dirs.workspace);
    cx.run = Arc::new(RunInfo { dirs, permissions, ..(*cx.run).clone() });
    let mut services = (*cx.services).clone();
    services.child_env = Arc::new([("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into());
    cx.services = Arc::new(services);
    cx
}

/// The registry of a workflow that declares this.
pub fn declared(keys: &Value, variables: &[(&str, &str)]) -> Result<Registry, String> {
    let written = pipeline_tools::Written::read(keys.as_object().unwrap())?;
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Registry::declared(&written, &pipeline_tools::Secrets::new(variables.collect()))
}

/// A tool whose calls are answered by a function.
pub struct Fake {
    pub name: String,
    pub parameters: Value,
    pub answer: fn(Value) -> Result<Value, StepError>,
}

#[async_trait]
impl Tool for Fake {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.clone(),
            description: "For tests.".to_owned(),
            parameters: self.parameters.clone(),
        }
    }

    async fn call(&self, arguments: Value, _cx: &StepContext) -> Result<ToolOutput, StepError> {
        tokio::task::yield_now().await;
        let data = (self.answer)(arguments)?;
        Ok(ToolOutput { content: data.to_string(), data })
    }
}

/// A tool that takes anything.
pub fn fake(name: impl Into<String>, answer: fn(Value) -> Result<Value, StepError>) -> Arc<dyn Tool> {
    Arc::new(Fake { name: name.into(), parameters: json!({}), answer })
}

/// A tool that hands back its arguments.
pub fn echo(name: impl Into<String>) -> Arc<dyn Tool> {
    fake(name, Ok)
}

/// A tool that panics when it is called.
pub fn bomb(name: impl Into<String>) -> Arc<dyn Tool> {
    fake(name, |_| panic!("boom"))
}
