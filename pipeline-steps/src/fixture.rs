//! What the tests of this crate share: a temporary world, a context without an engine, a scripted provider.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cap_std::fs::Dir;
use parking_lot::Mutex;
use pipeline_core::catalog::{Catalog, Services};
use pipeline_core::clock::Timestamp;
use pipeline_core::error::StepError;
use pipeline_core::fact::Usage;
use pipeline_core::path::{OpKey, OpRole, StepPath};
use pipeline_core::provider::{
    Capabilities, FunctionCall, ModelAnswer, ModelEvent, ModelRequest, ModelStream, Price, Provider,
    WorstCase,
};
use pipeline_core::step::{EffectPort, ProgressPort, RunDirs, RunInfo, StepContext};
use pipeline_core::tool::{Tool, ToolOutput, ToolSource, ToolSpec};
use pipeline_core::value::Value;

/// A temporary directory with `work` (pipeline and working directory) and `outside`, which nobody may touch.
pub struct Fixture {
    root: tempfile::TempDir,
    pub provider: Arc<Script>,
    pub tools: Arc<Tools>,
}

impl Fixture {
    pub fn new() -> Self {
        Self::answering(Vec::new())
    }

    /// With a provider `test` that answers these, in order.
    pub fn answering(answers: Vec<Result<ModelAnswer, StepError>>) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        std::fs::create_dir(root.path().join("outside")).unwrap();
        let provider = Arc::new(Script::new("test", answers));
        Self { root, provider, tools: Arc::default() }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join("work").join(below)
    }

    pub fn outside(&self, below: &str) -> PathBuf {
        self.root.path().join("outside").join(below)
    }

    /// The working directory, opened.
    pub fn dir(&self) -> Dir {
        Dir::open_ambient_dir(self.path(""), cap_std::ambient_authority()).unwrap()
    }

    pub fn write(&self, below: &str, text: &str) {
        std::fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        std::fs::write(self.path(below), text).unwrap();
    }

    pub fn context(&self) -> StepContext {
        self.context_with(EffectPort::detached())
    }

    pub fn context_with(&self, effects: EffectPort) -> StepContext {
        let mut catalog = Catalog::default();
        catalog.add_provider(Arc::clone(&self.provider) as Arc<dyn Provider>).unwrap();
        let run = RunInfo {
            id: "run".to_owned(),
            workflow: "test".to_owned(),
            started_at: Timestamp(0),
            seed: 1,
            mock: true,
            dirs: RunDirs {
                working: self.root.path().join("work"),
                pipeline: self.root.path().join("work"),
                workspace: self.path("workspace"),
                output: self.path("outputs"),
                run: self.path("run"),
                read: Vec::new(),
                write: Vec::new(),
                state: PathBuf::new(),
            },
            permissions: pipeline_core::step::Permissions::default(),
        };
        let tools = Arc::clone(&self.tools) as Arc<dyn ToolSource>;
        StepContext {
            key: OpKey { path: StepPath::from("step"), turn: 1, role: OpRole::Attempt },
            attempt: 1,
            deadline: tokio::time::Instant::now() + Duration::from_mins(10),
            cancel: tokio_cancel(),
            workspace: run.dirs.workspace.clone(),
            run: Arc::new(run),
            services: Arc::new(Services::new(catalog, tools, Arc::new(crate::OutputFiles))),
            effects,
            progress: ProgressPort::detached(),
        }
    }

    /// The same, with a provider that is able to do this.
    pub fn able(self, able: Capabilities) -> Self {
        *self.provider.able.lock() = able;
        self
    }

    /// What the provider was asked, in order.
    pub fn requests(&self) -> Vec<ModelRequest> {
        self.provider.requests.lock().clone()
    }
}

/// The type's crate is not a dependency of this one.
fn tokio_cancel<T: Default>() -> T {
    T::default()
}

/// An answer with a price and tokens that add up visibly.
pub fn answer(text: &str) -> ModelAnswer {
    ModelAnswer {
        text: text.to_owned(),
        model: "test-1".to_owned(),
        usage: Usage { input: 10, output: 3, calls: 1, cost_usd: Some(0.5), ..Usage::default() },
        stop_reason: "end_turn".to_owned(),
        session_id: Some("s1".to_owned()),
        function_calls: Vec::new(),
        content: Vec::new(),
        request_id: None,
        warnings: Vec::new(),
        files: std::collections::BTreeMap::new(),
    }
}

/// An answer that calls functions.
pub fn calling(calls: &[(&str, Value)]) -> ModelAnswer {
    let call = |(name, arguments): &(&str, Value)| FunctionCall {
        id: format!("call_{name}"),
        name: (*name).to_owned(),
        arguments: arguments.clone(),
    };
    ModelAnswer { function_calls: calls.iter().map(call).collect(), ..answer("I call") }
}

/// A provider that answers from a list and remembers what it was asked.
pub struct Script {
    name: &'static str,
    pub answers: Mutex<VecDeque<Result<ModelAnswer, StepError>>>,
    requests: Mutex<Vec<ModelRequest>>,
    able: Mutex<Capabilities>,
}

impl Script {
    pub fn new(name: &'static str, answers: Vec<Result<ModelAnswer, StepError>>) -> Self {
        let able = if name == "claude" { agent() } else { service() };
        Self { name, answers: Mutex::new(answers.into()), requests: Mutex::default(), able: Mutex::new(able) }
    }
}

/// What a service with an API of its own is able to do.
pub fn service() -> Capabilities {
    Capabilities {
        structured_output: true,
        functions: true,
        sampling: true,
        max_output_tokens: true,
        ..Capabilities::default()
    }
}

/// What an agent is able to do.
pub fn agent() -> Capabilities {
    Capabilities {
        structured_output: true,
        functions: true,
        sessions: true,
        agent: true,
        options: &[
            "allowed_tools",
            "disallowed_tools",
            "cwd",
            "permission_mode",
            "agents",
            "hooks",
            "mcp_servers",
            "enable_skills",
            "setting_sources",
            "output_format",
            "add_dir",
        ],
        ..Capabilities::default()
    }
}

#[async_trait]
impl Provider for Script {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.able.lock().clone()
    }

    fn default_model(&self) -> &'static str {
        "test-1"
    }

    fn worst_case(&self, _: &ModelRequest) -> WorstCase {
        WorstCase { tokens: 20, cost: Price::AtMost(1.0) }
    }

    async fn start(&self, request: &ModelRequest, _cx: &StepContext) -> Result<ModelStream, StepError> {
        self.requests.lock().push(request.clone());
        let answer = self.answers.lock().pop_front().expect("the script has no more answers");
        let event = answer.map(|a| ModelEvent::Finished(Box::new(a)));
        Ok(Box::pin(futures_util::stream::iter([event])))
    }
}

/// Two tools: `shout` answers in capitals, `broken` fails.
#[derive(Default)]
pub struct Tools {
    pub calls: Arc<Mutex<Vec<(String, Value)>>>,
}

struct Named(&'static str, Arc<Mutex<Vec<(String, Value)>>>);

#[async_trait]
impl Tool for Named {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.0.to_owned(),
            description: format!("the tool {}", self.0),
            parameters: serde_json::json!({ "type": "object" }),
        }
    }

    async fn call(&self, arguments: Value, _cx: &StepContext) -> Result<ToolOutput, StepError> {
        self.1.lock().push((self.0.to_owned(), arguments.clone()));
        if self.0 == "broken" {
            return Err(StepError::invalid("the tool is broken"));
        }
        if self.0 == "offline" {
            return Err(StepError::new(pipeline_core::error::ErrorKind::Network, "the tool is offline"));
        }
        let text = arguments["text"].as_str().unwrap_or_default().to_uppercase();
        Ok(ToolOutput { content: text, data: Value::Null })
    }
}

impl ToolSource for Tools {
    fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        let known = ["shout", "broken", "offline"].into_iter().find(|n| *n == name)?;
        Some(Arc::new(Named(known, Arc::clone(&self.calls))))
    }

    fn list(&self) -> Vec<ToolSpec> {
        ["broken", "offline", "shout"].iter().filter_map(|n| Some(self.get(n)?.spec())).collect()
    }
}

/// A file's text.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
