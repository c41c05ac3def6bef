//! What the tests share: a step's context without an engine, and a tool made of a function.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::catalog::Services;
use pipeline_core::error::StepError;
use pipeline_core::step::{Permissions, RunDirs, RunInfo, StepContext};
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::Value;
use pipeline_tools::Registry;
use serde_json::json;

/// The context of a step's first attempt.
pub fn context() -> StepContext {
    let mut services = Services::default();
    services.tools = Arc::new(Registry::default());
    StepContext::detached(services)
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
