//! The short way to run a pipeline from code.
//!
//! Owns [`Runner`]: what steps may use, put together once, with safe defaults for what is not said. Everything that it does
//! can be done with [`crate::engine::Engine`] and [`crate::plan::compile()`] by hand; the program `pipeline` does.
//! Must not know files or the environment: a store, tools and output files are handed in.

mod transient;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use crate::builder::{self, Workflow};
use crate::catalog::{Duplicate, Services};
use crate::clock::{Clock, SystemClock};
use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{self, Limits};
use crate::engine::{Engine, EngineError, RunControl, RunReport, RunSetup, lasting};
use crate::error::StepError;
use crate::plan::{Budget, CompileOptions, Inputs, Plan, check_inputs, compile_with_sources};
use crate::provider::Provider;
use crate::schedule::LastingVariables;
use crate::source::{MemorySources, SourceLoader, SourceMap, SourceRef};
use crate::step::{RunDirs, RunInfo, Step};
use crate::store::{CheckpointStore, Manifest, StoreError};
use crate::tool::ToolSource;
use crate::value::{Data, Hash, Value};

pub use transient::Transient;

/// The mode that a run of a runner has in its manifest; the program `pipeline` shows it and does not resume it.
const MODE: &str = "embedded";

/// Compiles, runs and resumes pipelines.
pub struct Runner {
    services: Services,
    store: Arc<dyn CheckpointStore>,
    clock: Arc<dyn Clock>,
    directory: PathBuf,
    env: BTreeMap<String, String>,
    limits: Budget,
}

/// What a compilation found, at least one an error. Displayed one a line, with its place: file, line and column, or the path
/// in a [`Workflow`] that was built in code.
#[derive(Debug, Clone)]
pub struct Findings {
    /// Every finding, in source order.
    pub findings: Vec<Diagnostic>,
    /// The texts that they point into.
    pub sources: SourceMap,
}

/// Why a run was not worked on. A run that fails is a report, not an error.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The pipeline has mistakes.
    #[error("{0}")]
    Findings(Findings),
    /// Inputs are missing, unknown or unfit.
    #[error("{}", .0.join("; "))]
    Inputs(Vec<String>),
    /// A file asks for what only its host can connect.
    #[error("the pipeline declares `{0}`, which the program that runs it must connect: {1}")]
    Declared(String, &'static str),
    /// The stored run was made by something that reads its sources in another way.
    #[error("run {0} was begun with another meaning of its sources; go on with the program that began it")]
    Changed(String),
    /// The stored run was not begun by a runner.
    #[error("run {0} was not begun by a runner; go on with the program that began it")]
    Foreign(String),
    /// What earlier runs have left in sessions cannot be read.
    #[error("variables that outlive runs cannot be read: {0}")]
    Sessions(StepError),
    /// The engine or the store refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for RunnerError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<Findings> for RunnerError {
    fn from(findings: Findings) -> Self {
        Self::Findings(findings)
    }
}

impl Runner {
    /// A runner without step types, providers and tools, whose runs live in `store`.
    pub fn new(store: impl CheckpointStore + 'static) -> Self {
        Self {
            services: Services::default(),
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            directory: PathBuf::from("."),
            env: BTreeMap::new(),
            limits: Budget::default(),
        }
    }

    /// Adds a step type.
    ///
    /// # Errors
    /// [`Duplicate`] when the type exists.
    pub fn step(self, step: impl Step + 'static) -> Result<Self, Duplicate> {
        self.steps([Arc::new(step) as Arc<dyn Step>])
    }

    /// Adds step types, for example those of pipeline-steps.
    ///
    /// # Errors
    /// [`Duplicate`] when one exists.
    pub fn steps(mut self, steps: impl IntoIterator<Item = Arc<dyn Step>>) -> Result<Self, Duplicate> {
        steps.into_iter().try_for_each(|step| self.services.catalog.add_step(step))?;
        Ok(self)
    }

    /// Adds a provider, under its own name.
    ///
    /// # Errors
    /// [`Duplicate`] when the name exists.
    pub fn provider(self, provider: impl Provider + 'static) -> Result<Self, Duplicate> {
        self.providers([Arc::new(provider) as Arc<dyn Provider>])
    }

    /// Adds providers, for example the mocks of pipeline-providers.
    ///
    /// # Errors
    /// [`Duplicate`] when a name exists.
    pub fn providers(
        mut self,
        providers: impl IntoIterator<Item = Arc<dyn Provider>>,
    ) -> Result<Self, Duplicate> {
        providers.into_iter().try_for_each(|provider| self.services.catalog.add_provider(provider))?;
        Ok(self)
    }

    /// What models and steps may call, for example the registry of pipeline-tools. The default has nothing.
    #[must_use]
    pub fn tools(mut self, tools: impl ToolSource + 'static) -> Self {
        self.services.tools = Arc::new(tools);
        self
    }

    /// Sets what else steps may use: output files, sessions, snapshots, a tape.
    #[must_use]
    pub fn with(mut self, set: impl FnOnce(&mut Services)) -> Self {
        set(&mut self.services);
        self
    }

    /// Where relative paths begin; the default is the process's own directory. Steps may read there, and write to its
    /// `workspace` and `outputs`, or what the pipeline says in their place.
    #[must_use]
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// The environment that expressions may read, of which a pipeline gets what its `permissions.env` names. The default
    /// is empty.
    #[must_use]
    pub fn env(mut self, env: BTreeMap<String, String>) -> Self {
        self.env = env;
        self
    }

    /// Limits of each run, beside its own; the tighter ones hold.
    #[must_use]
    pub fn limits(mut self, limits: Budget) -> Self {
        self.limits = limits;
        self
    }

    /// Compiles a pipeline that was built in code.
    ///
    /// # Errors
    /// Every finding, when one is an error.
    pub fn compile(&self, workflow: &Workflow) -> Result<Arc<Plan>, Findings> {
        let (sources, name) = workflow.source();
        self.compile_from(&sources, &name)
    }

    /// Compiles the text of a pipeline file; `name` is what findings call it.
    ///
    /// # Errors
    /// As [`Runner::compile`].
    pub fn compile_text(&self, name: &str, text: &str) -> Result<Arc<Plan>, Findings> {
        self.compile_from(&MemorySources::default().with(name, text), name)
    }

    /// Compiles a pipeline whose texts come through a loader.
    ///
    /// # Errors
    /// As [`Runner::compile`].
    pub fn compile_from(&self, loader: &dyn SourceLoader, root: &str) -> Result<Arc<Plan>, Findings> {
        let root = SourceRef::Path(root.to_owned());
        compile_with_sources(loader, &root, &self.services.catalog, &CompileOptions::default())
            .map(|(plan, _)| Arc::new(plan))
            .map_err(|(findings, sources)| Findings { findings, sources })
    }

    /// Runs a plan until it ends or stops. `id` names the run in the store, where it must be new; `inputs` is a map.
    ///
    /// # Errors
    /// [`RunnerError`] when nothing could be run or recorded. A run that fails, pauses or meets a budget is a report: look at
    /// [`RunReport::status`].
    pub async fn run(
        &self,
        id: &str,
        plan: &Arc<Plan>,
        inputs: Value,
        control: RunControl,
    ) -> Result<RunReport, RunnerError> {
        let inputs = check_inputs(plan, inputs_of(inputs)?).map_err(RunnerError::Inputs)?;
        let lasting = match &self.services.sessions {
            Some(sessions) => {
                lasting::stored(&**sessions, plan, false).await.map_err(RunnerError::Sessions)?
            }
            None => LastingVariables::new(),
        };
        let sources = plan.stored_sources();
        let manifest = Manifest {
            run_id: id.to_owned(),
            workflow: plan.root().name.to_string(),
            source_path: sources.root.clone(),
            pipeline_dir: self.directory.clone(),
            source_hash: Hash::of(&sources.files),
            plan: plan.fingerprint(),
            mode: MODE.to_owned(),
            inputs: inputs.clone(),
            settings: json!({ "lasting": lasting }),
            created_at: self.clock.now(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let setup = self.setup(plan, &manifest, inputs, lasting)?;
        let engine = self.engine();
        Ok(Box::pin(engine.run(Arc::clone(plan), setup, manifest, sources, control)).await?)
    }

    /// Goes on with a run of this store, in this process or another: what ended is not done again. The runner must have the
    /// step types and providers that the run began with.
    ///
    /// # Errors
    /// As [`Runner::run`]; [`StoreError::Unknown`] and [`StoreError::Held`] come from the store.
    pub async fn resume(&self, id: &str, control: RunControl) -> Result<RunReport, RunnerError> {
        let opened = self.store.open(id).await?;
        let manifest = &opened.stored.manifest;
        let plan = self.compile_from(&opened.stored.sources, &opened.stored.sources.root)?;
        if plan.fingerprint() != manifest.plan {
            return Err(RunnerError::Changed(id.to_owned()));
        }
        let lasting = serde_json::from_value(manifest.settings["lasting"].clone())
            .map_err(|_| RunnerError::Foreign(id.to_owned()))?;
        let setup = self.setup(&plan, manifest, manifest.inputs.clone(), lasting)?;
        Ok(Box::pin(self.engine().resume(plan, setup, opened, control)).await?)
    }

    /// The engine that this runner uses.
    pub fn engine(&self) -> Engine {
        Engine {
            services: Arc::new(self.services.clone()),
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
        }
    }

    fn setup(
        &self,
        plan: &Plan,
        manifest: &Manifest,
        inputs: Inputs,
        lasting: LastingVariables,
    ) -> Result<RunSetup, RunnerError> {
        let root = plan.root();
        let mut declared = plan.pipelines().flat_map(|p| p.settings.tools.keys());
        if let Some(key) = declared.next() {
            return Err(RunnerError::Declared(key.clone(), "take it out, and hand tools to the runner"));
        }
        let catalog = &self.services.catalog;
        if let Some(entry) = plan.providers().iter().find(|entry| catalog.provider(&entry.name).is_none()) {
            let key = format!("providers.{}", entry.name);
            return Err(RunnerError::Declared(key, "hand a provider of that name to the runner"));
        }
        let base = &self.directory;
        let below = |named: &Option<String>, default: &str| base.join(named.as_deref().unwrap_or(default));
        let all = |names: &[String]| names.iter().map(|name| base.join(name)).collect();
        let settings = &root.settings;
        let dirs = RunDirs {
            working: base.clone(),
            pipeline: manifest.pipeline_dir.clone(),
            workspace: below(&settings.workspace_dir, "workspace"),
            output: below(&settings.output_dir, "outputs"),
            run: base.join(".pipeline").join("runs").join(&manifest.run_id),
            read: all(&settings.read),
            write: all(&settings.write),
            state: base.join(".pipeline"),
        };
        let visible = self.env.iter().filter(|(name, _)| root.env.contains(name));
        Ok(RunSetup {
            info: RunInfo {
                id: manifest.run_id.clone(),
                workflow: manifest.workflow.clone(),
                started_at: manifest.created_at,
                // The same id gives the same invented values, in whichever process the run goes on.
                seed: Hash::of_bytes(manifest.run_id.as_bytes()).seed(),
                mock: false,
                dirs,
                permissions: settings.permissions.clone(),
            },
            inputs,
            env: visible.map(|(name, value)| (name.clone(), value.clone())).collect(),
            state: BTreeMap::new(),
            lasting,
            limits: self.limits.clone(),
            until: None,
        })
    }
}

impl Default for Runner {
    /// A runner whose runs are not kept.
    fn default() -> Self {
        Self::new(Transient)
    }
}

fn inputs_of(given: Value) -> Result<Inputs, RunnerError> {
    match given {
        Value::Null => Ok(Inputs::new()),
        Value::Object(fields) => Ok(fields.into_iter().map(|(k, v)| (k, Data::new(v))).collect()),
        other => Err(RunnerError::Inputs(vec![format!("inputs are a map of names and values, not {other}")])),
    }
}

impl std::error::Error for Findings {}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.findings.iter().filter(|finding| finding.severity == Severity::Error);
        for (index, finding) in errors.enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(place) = self.place(finding) {
                write!(f, "{place}: ")?;
            }
            write!(f, "{}[{}]: {}", finding.severity, finding.code, finding.message)?;
            if let Some(help) = &finding.help {
                write!(f, "; {help}")?;
            }
        }
        Ok(())
    }
}

impl Findings {
    /// Where a finding is: `FILE:LINE:COLUMN`, or the path in a workflow that was built in code.
    pub fn place(&self, finding: &Diagnostic) -> Option<String> {
        let span = finding.span?;
        let file = self.sources.get(span.file)?;
        if builder::is_in_code(&file.canonical) {
            let (node, _) = document::parse(&self.sources, span.file, &Limits::default()).ok()?;
            return Some(builder::path_at(&node, span));
        }
        let (name, at) = self.sources.locate(span)?;
        Some(format!("{name}:{}:{}", at.line, at.column))
    }
}
