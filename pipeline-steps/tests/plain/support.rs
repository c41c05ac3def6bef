//! A world for the steps that need no service: compiles a text and runs it in a temporary directory.
//!
//! Owns the fakes. Must not know what any step does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::catalog::{Catalog, Services};
use pipeline_core::clock::Timestamp;
use pipeline_core::conformance::snapshot::SetClock;
use pipeline_core::conformance::store;
use pipeline_core::diagnostic::Diagnostic;
use pipeline_core::document::Node;
use pipeline_core::engine::{Engine, RunControl, RunReport, RunSetup};
use pipeline_core::error::StepError;
use pipeline_core::plan::{Budget, CheckContext, CompileOptions, Inputs, Plan, compile};
use pipeline_core::provider::{Capabilities, ModelRequest, ModelStream, Price, Provider, WorstCase};
use pipeline_core::runner::Transient;
use pipeline_core::source::{MemorySources, SourceRef};
use pipeline_core::step::{RunDirs, RunInfo, Step, StepContext, StepOutput, StepSpec};
use pipeline_core::store::{OutputWriter, SnapshotSpace, SnapshotStore, StoredSources};
use pipeline_core::tool::{Tool, ToolOutput, ToolSource, ToolSpec};
use pipeline_core::value::{Data, Value};

struct Nothing;

/// Gives back what it is asked to compute; fails at the word `fail`.
struct Calculator;

#[async_trait]
impl Tool for Calculator {
    fn spec(&self) -> ToolSpec {
        let parameters = serde_json::json!({ "type": "object" });
        ToolSpec { name: "calculator".to_owned(), description: String::new(), parameters }
    }

    async fn call(&self, arguments: Value, _: &StepContext) -> Result<ToolOutput, StepError> {
        let expression = arguments["expression"].clone();
        if expression == "fail" {
            return Err(StepError::new(pipeline_core::error::ErrorKind::Network, "the tool is offline"));
        }
        Ok(ToolOutput { content: expression.to_string(), data: expression })
    }
}

impl ToolSource for Nothing {
    fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        (name == "calculator").then(|| Arc::new(Calculator) as Arc<dyn Tool>)
    }

    fn list(&self) -> Vec<ToolSpec> {
        vec![Calculator.spec()]
    }
}

/// Snapshots in memory, which outlive a run of the same world.
#[derive(Default)]
pub struct Snapshots(pub Mutex<BTreeMap<String, Value>>);

#[async_trait]
impl SnapshotStore for Snapshots {
    async fn save(&self, _: SnapshotSpace, name: &str, value: &Value) -> Result<(), StepError> {
        self.0.lock().insert(name.to_owned(), value.clone());
        Ok(())
    }

    async fn load(&self, _: SnapshotSpace, name: &str) -> Result<Option<(Value, Timestamp)>, StepError> {
        Ok(self.0.lock().get(name).map(|value| (value.clone(), Timestamp(0))))
    }
}

#[async_trait]
impl OutputWriter for Nothing {
    async fn write(&self, _: &RunInfo, name: &str, _: &str) -> Result<PathBuf, StepError> {
        Ok(name.into())
    }
}

/// Stands in for model steps: gives the values of a list, one after the other, and then `{"text": "written"}`.
struct Model(Mutex<Vec<Value>>);

#[derive(schemars::JsonSchema)]
struct Anything {}

#[async_trait]
impl Step for Model {
    fn spec(&self) -> StepSpec {
        StepSpec { kind: "prompt", summary: "", schema: schemars::schema_for!(Anything), example: "" }
    }

    async fn run(&self, _: &StepContext, _: Data) -> Result<StepOutput, StepError> {
        let next = self.0.lock().pop();
        Ok(StepOutput::ok(next.unwrap_or_else(|| serde_json::json!({"text": "written"}))))
    }
}

/// A provider that is only named: [`Model`] answers in its place.
struct Named(&'static str);

#[async_trait]
impl Provider for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            structured_output: true,
            functions: true,
            sampling: true,
            max_output_tokens: true,
            sessions: true,
            agent: true,
            ..Capabilities::default()
        }
    }

    fn default_model(&self) -> &'static str {
        "none"
    }

    fn worst_case(&self, _: &ModelRequest) -> WorstCase {
        WorstCase { tokens: 0, cost: Price::AtMost(0.0) }
    }

    async fn start(&self, _: &ModelRequest, _: &StepContext) -> Result<ModelStream, StepError> {
        Err(StepError::invalid("nobody calls it"))
    }
}

/// One test's world.
pub struct World {
    pub home: tempfile::TempDir,
    pub answers: Vec<Value>,
    pub snapshots: Arc<Snapshots>,
    /// What expressions read of the environment.
    pub env: BTreeMap<String, String>,
    /// When set, every step type is there with its own schema, and what each is given is kept.
    pub given: Option<Given>,
}

/// What each step was given, by its path.
type Given = Arc<Mutex<BTreeMap<String, Value>>>;

/// Keeps what a step is given, and runs it; a prompt gets an answer that `answers` has instead.
struct Spy {
    step: Arc<dyn Step>,
    given: Given,
    answer: Option<Value>,
}

#[async_trait]
impl Step for Spy {
    fn spec(&self) -> StepSpec {
        self.step.spec()
    }

    fn check(&self, config: &Node, cx: &mut CheckContext<'_>) {
        self.step.check(config, cx);
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        self.given.lock().insert(cx.key.path.to_string(), with.json().clone());
        match &self.answer {
            Some(answer) => Ok(StepOutput::ok(answer.clone())),
            None => self.step.run(cx, with).await,
        }
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("a temporary directory"),
            answers: Vec::new(),
            snapshots: Arc::default(),
            env: BTreeMap::new(),
            given: None,
        }
    }

    /// Writes a file below the working directory.
    pub fn file(&self, name: &str, text: &str) {
        let path = self.home.path().join("work").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    /// The text of a file below the working directory, if it is there.
    pub fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.home.path().join("work").join(name)).ok()
    }

    /// Every file and directory below a directory of the working directory, hidden ones too.
    pub fn tree(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![self.home.path().join("work").join(name)];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(&dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                found.push(
                    path.strip_prefix(self.home.path().join("work")).expect("below").display().to_string(),
                );
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        if let Some(given) = &self.given {
            for step in pipeline_steps::builtin(Arc::default()) {
                let answer = self.answers.first().filter(|_| step.spec().kind == "prompt").cloned();
                let spy = Spy { step, given: Arc::clone(given), answer };
                catalog.add_step(Arc::new(spy)).expect("one of each type");
            }
            catalog.add_provider(Arc::new(Named("claude"))).expect("one of each name");
            return catalog;
        }
        // The prompt step is stood in for by a scripted one.
        let steps = pipeline_steps::builtin(Arc::default());
        for step in steps.into_iter().filter(|s| s.spec().kind != "prompt") {
            catalog.add_step(step).expect("one of each type");
        }
        let answers = self.answers.iter().rev().cloned().collect();
        catalog.add_step(Arc::new(Model(Mutex::new(answers)))).expect("one of each type");
        for name in ["claude", "gemini"] {
            catalog.add_provider(Arc::new(Named(name))).expect("one of each name");
        }
        catalog
    }

    pub fn compile(&self, text: &str) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
        let sources = MemorySources::default().with("test.yaml", text);
        let root = SourceRef::Path("test.yaml".to_owned());
        compile(&sources, &root, &self.catalog(), &CompileOptions::default())
    }

    fn dirs(&self) -> RunDirs {
        let work = self.home.path().join("work");
        for dir in ["workspace", "outputs"] {
            std::fs::create_dir_all(work.join(dir)).expect("a directory");
        }
        RunDirs {
            pipeline: work.clone(),
            workspace: work.join("workspace"),
            output: work.join("outputs"),
            run: self.home.path().join("run"),
            working: work,
            read: Vec::new(),
            write: Vec::new(),
            state: PathBuf::new(),
        }
    }

    /// Runs a whole file to its end.
    pub async fn run(&self, text: &str) -> RunReport {
        let plan = match self.compile(text) {
            Ok((plan, _)) => Arc::new(plan),
            Err(findings) => panic!("{findings:#?}"),
        };
        let started_at = Timestamp(1_700_000_000_000);
        let mut services = Services::new(self.catalog(), Arc::new(Nothing), Arc::new(Nothing));
        services.snapshots = Some(Arc::clone(&self.snapshots) as Arc<dyn SnapshotStore>);
        services.child_env = Arc::new(BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]));
        let clock = Arc::new(SetClock::at(started_at));
        let engine = Engine { services: Arc::new(services), store: Arc::new(Transient), clock };
        let info = RunInfo {
            id: "run".to_owned(),
            workflow: "test".to_owned(),
            started_at,
            seed: 7,
            mock: true,
            dirs: self.dirs(),
            permissions: plan.root().settings.permissions.clone(),
        };
        let setup = RunSetup {
            info,
            inputs: Inputs::new(),
            env: self.env.clone(),
            state: BTreeMap::new(),
            lasting: BTreeMap::new(),
            limits: Budget::default(),
            until: None,
        };
        let manifest = store::manifest("run", started_at.0);
        let run = engine.run(plan, setup, manifest, StoredSources::default(), RunControl::default());
        run.await.expect("the journal is writable")
    }

    /// Runs steps, given as the lines below `steps:`.
    pub async fn steps(&self, steps: &str) -> RunReport {
        self.run(&workflow(steps)).await
    }

    /// The value of the last step, which must succeed.
    pub async fn value(&self, steps: &str) -> Value {
        let report = self.steps(steps).await;
        let (name, step) = report.steps.last().expect("a step");
        assert!(step.status.is_some_and(pipeline_core::fact::Status::is_success), "{name}: {:?}", step.error);
        step.value.json().clone()
    }

    /// The error of the last step, which must fail.
    pub async fn error(&self, steps: &str) -> StepError {
        let report = self.steps(steps).await;
        let (name, step) = report.steps.last().expect("a step");
        step.error.clone().unwrap_or_else(|| panic!("{name} gave {:?}", step.value))
    }

    /// Codes and messages of what the compiler finds.
    pub fn findings(&self, steps: &str) -> Vec<String> {
        let all = match self.compile(&workflow(steps)) {
            Ok((_, findings)) | Err(findings) => findings,
        };
        all.iter().map(|d| format!("{} {}", d.code, d.message)).collect()
    }
}

fn workflow(steps: &str) -> String {
    let lines: Vec<String> = steps.lines().map(|line| format!("    {line}")).collect();
    format!(
        "workflow:\n  name: test\n  inputs: {{}}\n  permissions: {{shell: [sh, printf, cat, pwd, env, ls]}}\n  steps:\n{}\n",
        lines.join("\n")
    )
}
