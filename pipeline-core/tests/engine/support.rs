//! What the engine tests share: a scripted step that watches itself, a store in memory, and short ways to run a text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::catalog::{Catalog, Services};
use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::conformance::snapshot::SetClock;
use pipeline_core::conformance::store;
use pipeline_core::engine::{Engine, EngineError, RunControl, RunReport, RunSetup};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::{Assignment, Fact, Record, Usage, VariableScope};
use pipeline_core::plan::{Budget, CompileOptions, Inputs, Plan, compile};
use pipeline_core::provider::{Price, WorstCase};
use pipeline_core::resources::ResourceProbe;
use pipeline_core::source::{MemorySources, SourceRef};
use pipeline_core::step::{Permissions, RunDirs, RunInfo, Step, StepContext, StepOutput, StepSpec};
use pipeline_core::store::{
    CheckpointStore, Commit, Manifest, OpenedRun, OutputWriter, RunLog, RunSummary, StoreError, StoredRun,
    StoredSources,
};
use pipeline_core::tape::Tape;
use pipeline_core::value::{Data, Hash, Value};
use serde::Deserialize;

/// What the scripted steps of one test did.
#[derive(Default)]
pub struct Probe {
    running: AtomicUsize,
    peak: AtomicUsize,
    started: Mutex<Vec<String>>,
    dropped: AtomicUsize,
    /// Cents that services billed.
    pub billed: AtomicUsize,
    /// Not 0: steps take other times than they are told, and shorter ones.
    pace: u64,
}

impl Probe {
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    pub fn at(pace: u64) -> Self {
        Self { pace, ..Self::default() }
    }

    fn paced(&self, ms: u64, at: &str) -> Duration {
        let hash = Hash::of(&(self.pace, at)).to_string();
        let share = u64::from_str_radix(&hash[..4], 16).unwrap_or(0) % 100;
        Duration::from_millis(if self.pace == 0 { ms } else { ms * share / 100 })
    }

    /// Paths of all attempts that began, in order.
    pub fn started(&self) -> Vec<String> {
        self.started.lock().clone()
    }
}

struct Guard(Arc<Probe>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A scripted leaf.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Work {
    /// Its value.
    value: Value,
    /// How long it takes.
    ms: Option<u64>,
    /// How many first attempts fail.
    fail_times: u32,
    /// The kind of its errors.
    kind: Option<String>,
    /// Hint of its errors.
    retry_after_ms: Option<u64>,
    /// Its value is the directory that it works in.
    place: bool,
    /// Calls that cost money, one after the other.
    calls: Vec<Call>,
    /// Its first call is cut off after so many milliseconds, by hanging.
    hang_in_call: bool,
    /// It panics.
    panic: bool,
    /// It never ends.
    hang: bool,
    /// Makes it the user of an account, as the prompt of a model step does.
    prompt: Option<String>,
    /// The account.
    provider: Option<String>,
    /// `session`: the variables that it sets outlive the run.
    scope: Option<VariableScope>,
    /// Variables that it sets.
    #[schemars(extend("x-kind" = "bindings"))]
    set: BTreeMap<String, Value>,
    /// How many inner effects it does, one after the other.
    inner: u32,
    /// How long each of them takes.
    inner_ms: u64,
    /// It fails after this inner effect.
    fail_after_effect: Option<u32>,
}

/// A call of a model, written as `[cost, most]`, `[cost, most, ms]` or `[cost, most, ms, end]`.
#[derive(Debug, Clone, Copy, Deserialize, schemars::JsonSchema)]
#[serde(from = "Vec<u64>")]
#[schemars(with = "Vec<u64>")]
pub struct Call {
    /// What it costs, in cents.
    pub cost: u64,
    /// What it may cost at most.
    pub most: u64,
    /// How long it takes.
    pub ms: u64,
    pub end: CallEnd,
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    Answer,
    /// An error of a kind that would be free, had the service not answered; it says what it cost.
    Billed,
    /// The same, and nobody saw the bill.
    Unseen,
    /// The service refuses, and bills nothing.
    Refused,
}

impl From<Vec<u64>> for Call {
    fn from(parts: Vec<u64>) -> Self {
        let part = |index: usize, default| parts.get(index).copied().unwrap_or(default);
        let end = match part(3, 0) {
            0 => CallEnd::Answer,
            1 => CallEnd::Billed,
            2 => CallEnd::Unseen,
            _ => CallEnd::Refused,
        };
        Self { cost: part(0, 0), most: part(1, 0), ms: part(2, 5), end }
    }
}

pub struct WorkStep(pub Arc<Probe>);

#[async_trait]
impl Step for WorkStep {
    fn spec(&self) -> StepSpec {
        StepSpec { kind: "work", summary: "Scripted.", schema: schemars::schema_for!(Work), example: "" }
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let work: Work =
            serde_json::from_value(with.into_json()).map_err(|e| StepError::invalid(e.to_string()))?;
        self.0.started.lock().push(cx.key.path.to_string());
        cx.progress.note("works");
        let running = self.0.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.peak.fetch_max(running, Ordering::SeqCst);
        let _guard = Guard(Arc::clone(&self.0));
        if let Some(ms) = work.ms {
            tokio::time::sleep(self.0.paced(ms, cx.key.path.as_str())).await;
        }
        if work.hang {
            std::future::pending::<()>().await;
        }
        assert!(!work.panic, "scripted panic at {}", cx.key.path);
        let mut sum = Vec::new();
        for index in 0..work.inner {
            let path = format!("{}!{index}", cx.key.path);
            let probe = Arc::clone(&self.0);
            let effect = async move {
                probe.started.lock().push(path);
                if work.inner_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(work.inner_ms)).await;
                }
                Ok(Value::from(index))
            };
            sum.push(cx.effect("inner", &Value::from(index), effect).await?.into_json());
            if work.fail_after_effect == Some(index) {
                return Err(StepError::new(ErrorKind::Server, "scripted failure after an effect"));
            }
        }
        for call in work.calls {
            self.call(cx, call, work.hang_in_call).await?;
        }
        if cx.key.turn <= work.fail_times {
            let kind =
                serde_json::from_value(work.kind.clone().unwrap_or_else(|| "server".to_owned()).into());
            let mut error = StepError::new(kind.unwrap_or(ErrorKind::Server), "scripted failure");
            error.retry_after_ms = work.retry_after_ms;
            return Err(error);
        }
        let place = cx.workspace.display().to_string();
        let value = if work.place { Value::from(place) } else { work.value };
        let mut output = StepOutput::ok(if work.inner > 0 { Value::Array(sum) } else { value });
        output.set = work
            .set
            .into_iter()
            .map(|(name, value)| Assignment {
                scope: work.scope.unwrap_or_default(),
                name,
                value: Data::new(value),
            })
            .collect();
        Ok(output)
    }
}

impl WorkStep {
    /// A model call of a service that keeps books of its own.
    async fn call(&self, cx: &StepContext, made: Call, hangs: bool) -> Result<(), StepError> {
        fn usage(cents: u64) -> Usage {
            Usage { cost_usd: Some(cents as f64 / 100.0), input: cents, calls: 1, ..Usage::default() }
        }
        let Call { cost, most, ms, end } = made;
        let worst = WorstCase { tokens: most, cost: Price::AtMost(most as f64 / 100.0) };
        let probe = Arc::clone(&self.0);
        let call = move |_| async move {
            // The service counts a call when it takes it on.
            let taken_on = if end == CallEnd::Refused { 0 } else { cost };
            probe.billed.fetch_add(usize::try_from(taken_on).unwrap_or(0), Ordering::SeqCst);
            if hangs {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(ms)).await;
            let cut_off = StepError::new(ErrorKind::TooLarge, "the answer is cut off");
            match end {
                CallEnd::Answer => Ok(Value::from(cost)),
                CallEnd::Billed => Err(cut_off.used(usage(cost))),
                CallEnd::Unseen => Err(cut_off.used(Usage::unseen())),
                CallEnd::Refused => Err(StepError::new(ErrorKind::Overloaded, "busy")),
            }
        };
        let usage_of = |value: &Value| usage(value.as_u64().unwrap_or(0));
        cx.metered("model", &Value::from(cost), worst, usage_of, call).await.map(|_| ())
    }
}

/// Runs kept in memory, with everything that was appended.
#[derive(Clone, Default)]
pub struct TestStore {
    pub records: Arc<Mutex<Vec<Record>>>,
    pub flushed: Arc<AtomicUsize>,
    /// The flush with this number fails, and every one after it.
    pub fail_at_flush: Option<usize>,
    /// How long each takes.
    pub flush_ms: u64,
    flushes: Arc<AtomicUsize>,
}

struct TestLog(TestStore);

impl RunLog for TestLog {
    fn append(
        &mut self,
        at: Timestamp,
        elapsed_ms: u64,
        facts: Vec<Fact>,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut records = self.0.records.lock();
        let first = records.len() as u64;
        let new = Record::numbered(first, at, elapsed_ms, facts);
        records.extend(new.iter().map(|record| Record::clone(record)));
        Ok(new)
    }

    fn commit(&mut self) -> Commit {
        let store = self.0.clone();
        let length = store.records.lock().len();
        Box::pin(async move {
            // A disk is never done at once: whoever does not wait for it is found out.
            tokio::task::yield_now().await;
            if store.flush_ms > 0 {
                tokio::time::sleep(Duration::from_millis(store.flush_ms)).await;
            }
            let number = store.flushes.fetch_add(1, Ordering::SeqCst);
            if store.fail_at_flush.is_some_and(|n| number >= n) {
                return Err(StoreError::Write { path: "journal".into(), message: "scripted".to_owned() });
            }
            store.flushed.fetch_max(length, Ordering::SeqCst);
            Ok(())
        })
    }
}

#[async_trait]
impl CheckpointStore for TestStore {
    async fn create(&self, _: &Manifest, _: &StoredSources) -> Result<Box<dyn RunLog>, StoreError> {
        Ok(Box::new(TestLog(self.clone())))
    }

    async fn open(&self, run: &str) -> Result<OpenedRun, StoreError> {
        let stored = self.read(run).await?;
        Ok(OpenedRun { stored, log: Box::new(TestLog(self.clone())), repaired: None })
    }

    async fn read(&self, _: &str) -> Result<StoredRun, StoreError> {
        let records = self.records.lock().clone();
        Ok(StoredRun { manifest: manifest(), sources: StoredSources::default(), records, pid: None })
    }

    async fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        Ok(Vec::new())
    }

    async fn latest(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn remove(&self, run: &str) -> Result<(), StoreError> {
        Err(StoreError::Unknown { run: run.to_owned() })
    }
}

/// Output files kept in memory.
#[derive(Default)]
pub struct Files(pub Mutex<BTreeMap<String, String>>);

#[async_trait]
impl OutputWriter for Files {
    async fn write(&self, _: &RunInfo, name: &str, text: &str) -> Result<std::path::PathBuf, StepError> {
        self.0.lock().insert(name.to_owned(), text.to_owned());
        Ok(name.into())
    }
}

/// When these runs begin.
const BEGUN: i64 = 1_700_000_000_000;

fn manifest() -> Manifest {
    store::manifest("run", BEGUN)
}

/// One test's world.
pub struct World {
    pub probe: Arc<Probe>,
    pub store: TestStore,
    pub files: Arc<Files>,
    pub inputs: Inputs,
    pub limits: Budget,
    pub sources: MemorySources,
    pub clock: Arc<dyn Clock>,
    pub tape: Option<Arc<dyn Tape>>,
    pub resources: Option<Arc<dyn ResourceProbe>>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            probe: Arc::default(),
            store: TestStore::default(),
            files: Arc::default(),
            inputs: Inputs::new(),
            limits: Budget::default(),
            sources: MemorySources::default(),
            clock: Arc::new(SetClock::at(Timestamp(BEGUN))),
            tape: None,
            resources: None,
        }
    }
}

impl World {
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.add_step(Arc::new(WorkStep(Arc::clone(&self.probe)))).expect("one step type");
        catalog
    }

    pub fn plan(&self, text: &str) -> Arc<Plan> {
        let sources = self.sources.clone().with("test.yaml", text);
        let root = SourceRef::Path("test.yaml".to_owned());
        match compile(&sources, &root, &self.catalog(), &CompileOptions::default()) {
            Ok((plan, _)) => Arc::new(plan),
            Err(findings) => panic!("{findings:#?}"),
        }
    }

    pub fn engine(&self) -> Engine {
        let mut services = Services::default();
        services.catalog = self.catalog();
        services.outputs = Arc::<Files>::clone(&self.files);
        services.tape.clone_from(&self.tape);
        services.resources.clone_from(&self.resources);
        Engine {
            services: Arc::new(services),
            store: Arc::new(self.store.clone()),
            clock: Arc::clone(&self.clock),
        }
    }

    pub fn setup(&self) -> RunSetup {
        RunSetup {
            info: RunInfo {
                id: "run".to_owned(),
                workflow: "test".to_owned(),
                started_at: Timestamp(1_700_000_000_000),
                seed: 7,
                mock: true,
                dirs: RunDirs::default(),
                permissions: Permissions::default(),
            },
            inputs: self.inputs.clone(),
            env: BTreeMap::new(),
            state: BTreeMap::new(),
            lasting: BTreeMap::new(),
            limits: self.limits.clone(),
            until: None,
        }
    }

    /// Runs a text to its end.
    pub async fn run(&self, text: &str) -> RunReport {
        self.run_with(text, RunControl::default()).await.expect("the journal is writable")
    }

    pub async fn run_with(&self, text: &str, control: RunControl) -> Result<RunReport, EngineError> {
        let plan = self.plan(text);
        self.engine().run(plan, self.setup(), manifest(), StoredSources::default(), control).await
    }

    /// Runs a text after a change to what a run begins with.
    pub async fn run_as(&self, text: &str, change: impl FnOnce(&mut RunSetup)) -> RunReport {
        let mut setup = self.setup();
        change(&mut setup);
        let (engine, control) = (self.engine(), RunControl::default());
        let run = engine.run(self.plan(text), setup, manifest(), StoredSources::default(), control);
        run.await.expect("the journal is writable")
    }

    /// Goes on with what is in the store.
    pub async fn resume(&self, text: &str) -> RunReport {
        self.resume_with(text, RunControl::default()).await.expect("it fits")
    }

    pub async fn resume_with(&self, text: &str, control: RunControl) -> Result<RunReport, EngineError> {
        let opened = self.store.open("run").await.expect("the store opens");
        self.engine().resume(self.plan(text), self.setup(), opened, control).await
    }

    /// The facts as `Fact path#turn status` lines.
    pub fn trace(&self) -> Vec<String> {
        self.store.records.lock().iter().map(|r| line(&r.fact)).collect()
    }

    /// A world that holds the first `count` records of this one.
    pub fn cut(&self, count: usize) -> Self {
        let records = self.store.records.lock()[..count].to_vec();
        Self {
            store: TestStore { records: Arc::new(Mutex::new(records)), ..TestStore::default() },
            inputs: self.inputs.clone(),
            sources: self.sources.clone(),
            limits: self.limits.clone(),
            clock: Arc::clone(&self.clock),
            tape: self.tape.clone(),
            resources: self.resources.clone(),
            probe: Arc::new(Probe {
                billed: AtomicUsize::new(self.probe.billed.load(Ordering::SeqCst)),
                ..Probe::default()
            }),
            ..Self::default()
        }
    }
}

pub fn line(fact: &Fact) -> String {
    match fact {
        Fact::RunStarted { .. } => "RunStarted".to_owned(),
        Fact::StepSkipped { path, turn, .. } => format!("StepSkipped {path}#{turn}"),
        Fact::AttemptStarted { path, turn, .. } => format!("AttemptStarted {path}#{turn}"),
        Fact::EffectDone { path, turn, ordinal, .. } => format!("EffectDone {path}#{turn}!{ordinal}"),
        Fact::SpendReserved { path, turn, ordinal, .. } => format!("SpendReserved {path}#{turn}!{ordinal}"),
        Fact::AttemptEnded { path, turn, end, .. } => {
            format!("AttemptEnded {path}#{turn} {}", end.status.name())
        }
        Fact::TimerFired { path, turn, .. } => format!("TimerFired {path}#{turn}"),
        Fact::RunPaused { .. } => "RunPaused".to_owned(),
        Fact::RunResumed { .. } => "RunResumed".to_owned(),
        Fact::RunEnded { status, .. } => format!("RunEnded {status:?}"),
    }
}
