//! Graphs of steps, what the steps do, and one life of a process that runs them.
//!
//! Owns [`Shape`] (which step needs which), [`World`] (how long each takes, how often it fails or hangs, and what it saw) and
//! what may never happen: a step before those it needs, work after the end, an end after its time. Must not know the disk's faults.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::catalog::{Catalog, Services};
use pipeline_core::clock::Timestamp;
use pipeline_core::conformance::snapshot::SetClock;
use pipeline_core::conformance::store::manifest;
use pipeline_core::conformance::trials::Random;
use pipeline_core::engine::{Engine, RunControl, RunSetup};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::path::StepPath;
use pipeline_core::plan::{Budget, CompileOptions, Inputs, Plan, compile};
use pipeline_core::source::{MemorySources, SourceRef};
use pipeline_core::step::{Permissions, RunDirs, RunInfo, Step, StepContext, StepOutput, StepSpec};
use pipeline_core::store::StoredSources;
use pipeline_core::value::{Data, Hash, Value};
use serde::Deserialize;
use tokio::time::Instant;

use super::disk::{Disk, Store};

/// Steps of a graph.
pub(super) const STEPS: usize = 30;
/// How long an attempt may take.
const TIMEOUT: Duration = Duration::from_millis(400);
/// Tries of each step.
const TRIES: u32 = 3;
/// Longest wait between two of them.
const WAIT: Duration = Duration::from_millis(80);

/// Which step needs which.
pub(super) struct Shape {
    needs: Vec<Vec<usize>>,
    /// Steps that may fail for good.
    weak: Vec<bool>,
    /// Bytes of their values.
    sizes: Vec<usize>,
    plan: Arc<Plan>,
}

impl Shape {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5ea);
        let needs: Vec<Vec<usize>> = (0..STEPS)
            .map(|step| {
                let mut needed: Vec<usize> = (0..random.below(4)).map(|_| random.below(step)).collect();
                needed.retain(|other| *other < step);
                needed.sort_unstable();
                needed.dedup();
                needed
            })
            .collect();
        let weak: Vec<bool> = (0..STEPS).map(|_| random.percent(10)).collect();
        let sizes: Vec<usize> = (0..STEPS).map(|_| if random.percent(2) { 70_000 } else { 16 }).collect();
        let mut text = format!(
            "workflow:\n  name: graph\n  budget: {{max_parallel: {}}}\n  steps:\n",
            1 + random.below(8)
        );
        for (step, needed) in needs.iter().enumerate() {
            let names: Vec<String> = needed.iter().map(|n| format!("s{n}")).collect();
            let from: Vec<String> =
                needed.iter().filter(|n| !weak[**n]).map(|n| format!("'{{{{ steps.s{n} }}}}'")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "    - {{name: s{step}, type: simulated, needs: [{}], number: {step}, from: [{}], size: {}, timeout: 400ms, retry: {{max_attempts: {TRIES}, base_delay: 20ms, max_delay: 80ms}}, continue_on_error: {}}}",
                names.join(", "),
                from.join(", "),
                sizes[step],
                weak[step],
            );
        }
        let outputs: Vec<String> =
            (0..STEPS).filter(|s| !weak[*s]).map(|s| format!("s{s}: steps.s{s}")).collect();
        let _ = writeln!(text, "  outputs: {{{}}}", outputs.join(", "));
        let sources = MemorySources::default().with("graph.yaml", &*text);
        let root = SourceRef::Path("graph.yaml".to_owned());
        let plan = match compile(&sources, &root, &catalog(Arc::default()), &CompileOptions::default()) {
            Ok((plan, _)) => Arc::new(plan),
            Err(findings) => {
                panic!("{:?}", findings.iter().map(|finding| &finding.message).collect::<Vec<_>>())
            }
        };
        Self { needs, weak, sizes, plan }
    }

    /// What the outputs of a run must be.
    pub(super) fn outputs(&self) -> Value {
        let mut values: Vec<Value> = Vec::new();
        for (step, needed) in self.needs.iter().enumerate() {
            let from: Vec<&Value> = needed.iter().filter(|n| !self.weak[**n]).map(|n| &values[*n]).collect();
            values.push(value(step, &from, self.sizes[step]));
        }
        let strong = values.into_iter().enumerate().filter(|(step, _)| !self.weak[*step]);
        Value::Object(strong.map(|(step, value)| (format!("s{step}"), value)).collect())
    }
}

/// What a step makes of what it is given.
fn value(step: usize, from: &[&Value], size: usize) -> Value {
    let hash = &Hash::of(&(step, from)).to_string()[..16];
    Value::from(format!("{hash}{}", "x".repeat(size - hash.len())))
}

/// What one step does.
#[derive(Debug, Clone, Copy, Default)]
struct Doing {
    ms: u64,
    hangs: u32,
    fails: u32,
}

/// What the steps of one run do and saw.
#[derive(Default)]
pub(super) struct Seen {
    doing: Vec<Doing>,
    needs: Vec<Vec<usize>>,
    trace: Mutex<Vec<(u64, String)>>,
    done: Mutex<Vec<bool>>,
    wrong: Mutex<Option<String>>,
    running: AtomicUsize,
    begun: Mutex<Option<Instant>>,
}

impl Seen {
    fn now(&self) -> u64 {
        let ms = self.begun.lock().map_or(0, |begun| begun.elapsed().as_millis());
        u64::try_from(ms).unwrap_or(u64::MAX)
    }

    fn note(&self, what: String) {
        let now = self.now();
        self.trace.lock().push((now, what));
    }
}

/// A run of a [`Shape`].
pub(super) struct World<'s> {
    shape: &'s Shape,
    seen: Arc<Seen>,
}

/// How a life ended.
pub(super) enum End {
    /// The power went.
    Cut,
    /// Somebody stopped it.
    Stopped,
    /// It has begun as many attempts as it may.
    Limited,
    /// The run is over, with these outputs.
    Done(Value),
}

/// One life of a process.
pub(super) struct Lived {
    pub(super) end: End,
    pub(super) ms: u64,
    pub(super) trace: Vec<(u64, String)>,
}

impl<'s> World<'s> {
    pub(super) fn new(shape: &'s Shape, random: &mut Random) -> Self {
        let doing = (0..STEPS).map(|step| {
            let tries = if shape.weak[step] { 9 } else { 2 };
            let hangs = u32::from(random.percent(6));
            let fails = if random.percent(15) { 1 + random.below(tries - 1) } else { 0 };
            let most = if shape.weak[step] { 9 } else { TRIES - 1 };
            let fails = u32::try_from(fails).unwrap_or(0).min(most - hangs);
            Doing { ms: random.draw() % 200, hangs, fails }
        });
        let seen = Seen { doing: doing.collect(), needs: shape.needs.clone(), ..Seen::default() };
        Self { shape, seen: Arc::new(seen) }
    }

    /// Runs, or goes on with what is on the disk, until it ends, is stopped, or the power goes.
    pub(super) fn live(
        &self,
        disk: &Disk,
        lock: &Path,
        stop_at: Option<u64>,
        limit: Option<u64>,
    ) -> Result<Lived, String> {
        let seen = &self.seen;
        let mut done = vec![false; STEPS];
        if disk.has_run() {
            for record in disk.records()? {
                if let Fact::AttemptEnded { path, end, turn, .. } = &record.fact
                    && let Some(step) = path.as_str().strip_prefix('s').and_then(|n| n.parse::<usize>().ok())
                {
                    done[step] = end.error.is_none() || *turn >= TRIES;
                }
            }
        }
        *seen.done.lock() = done;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|e| e.to_string())?;
        let (end, ms) = runtime.block_on(self.process(disk, lock, stop_at, limit))?;
        let (left, trace) = (seen.running.load(Ordering::SeqCst), std::mem::take(&mut *seen.trace.lock()));
        // After a cut tasks are left; in which order they are dropped here is no matter of theirs.
        drop(runtime);
        seen.trace.lock().clear();
        if !matches!(end, End::Cut) && left > 0 {
            return Err(format!("{left} attempts went on after the end"));
        }
        if let Some(wrong) = seen.wrong.lock().take() {
            return Err(wrong);
        }
        Ok(Lived { end, ms, trace })
    }

    async fn process(
        &self,
        disk: &Disk,
        lock: &Path,
        stop_at: Option<u64>,
        limit: Option<u64>,
    ) -> Result<(End, u64), String> {
        let begun = Instant::now();
        *self.seen.begun.lock() = Some(begun);
        let mut services = Services::default();
        services.catalog = catalog(Arc::clone(&self.seen));
        let store = Store { disk: disk.clone(), dir: lock.to_owned() };
        let engine = Engine {
            services: Arc::new(services),
            store: Arc::new(store),
            clock: Arc::new(SetClock::at(Timestamp(1_700_000_000_000))),
        };
        let control = RunControl::default();
        let stop = control.stop.clone();
        let plan = Arc::clone(&self.shape.plan);
        let run = async {
            if disk.has_run() {
                let opened = engine.store.open("run").await.map_err(|error| format!("refused: {error}"))?;
                engine.resume(plan, setup(limit), opened, control).await.map_err(|e| e.to_string())
            } else {
                let sources = StoredSources::default();
                engine
                    .run(plan, setup(limit), manifest("run", 1), sources, control)
                    .await
                    .map_err(|e| e.to_string())
            }
        };
        let stopper = async {
            match stop_at {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
            stop.cancel();
            std::future::pending::<()>().await;
        };
        // Every step one after the other, each with all its tries, and a disk as slow as it can be.
        let attempts = u32::try_from(STEPS).unwrap_or(u32::MAX) * TRIES;
        let worst = (TIMEOUT + WAIT + Duration::from_millis(100)) * attempts;
        let report = tokio::select! {
            biased;
            () = disk.down.notified() => return Ok((End::Cut, elapsed(begun))),
            report = run => report?,
            () = stopper => unreachable!("it waits for ever"),
            () = tokio::time::sleep(worst) => return Err(format!("it did not end within {worst:?}")),
        };
        let end = match report.status {
            RunStatus::Ok => End::Done(report.outputs.json().clone()),
            RunStatus::Budget if limit.is_some() => End::Limited,
            _ if stop.is_cancelled() => End::Stopped,
            other => return Err(format!("it ended as {other:?}: {:?}", report.error)),
        };
        Ok((end, elapsed(begun)))
    }
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The attempt that a fact is the end of.
pub(super) fn ended(fact: &Fact) -> Option<(StepPath, u32)> {
    match fact {
        Fact::AttemptEnded { path, turn, .. } | Fact::StepSkipped { path, turn, .. } => {
            Some((path.clone(), *turn))
        }
        _ => None,
    }
}

/// The attempt that a fact is the beginning of.
pub(super) fn begun(fact: &Fact) -> Option<(StepPath, u32)> {
    match fact {
        Fact::AttemptStarted { path, turn, .. } => Some((path.clone(), *turn)),
        _ => None,
    }
}

fn catalog(seen: Arc<Seen>) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.add_step(Arc::new(Simulated(seen))).unwrap();
    catalog
}

fn setup(max_steps: Option<u64>) -> RunSetup {
    RunSetup {
        info: RunInfo {
            id: "run".to_owned(),
            workflow: "graph".to_owned(),
            started_at: Timestamp(1),
            seed: 7,
            mock: true,
            dirs: RunDirs::default(),
            permissions: Permissions::default(),
        },
        inputs: Inputs::new(),
        env: BTreeMap::new(),
        state: BTreeMap::new(),
        lasting: BTreeMap::new(),
        limits: Budget { max_steps, ..Budget::default() },
        until: None,
    }
}

/// A step that does what its world says.
struct Simulated(Arc<Seen>);

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    number: usize,
    from: Vec<Value>,
    size: usize,
}

struct Running<'a>(&'a Seen, usize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.note(format!("left s{}", self.1));
    }
}

#[async_trait]
impl Step for Simulated {
    fn spec(&self) -> StepSpec {
        StepSpec { kind: "simulated", summary: "", schema: schemars::schema_for!(Config), example: "" }
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with)?;
        let (seen, step, turn) = (&*self.0, config.number, cx.key.turn);
        seen.note(format!("begin s{step}#{turn}"));
        if let Some(early) = seen.needs[step].iter().find(|needed| !seen.done.lock()[**needed]) {
            *seen.wrong.lock() = Some(format!("s{step} began before s{early} had ended"));
        }
        seen.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(seen, step);
        let doing = seen.doing[step];
        tokio::time::sleep(Duration::from_millis(doing.ms)).await;
        if turn >= TRIES {
            seen.done.lock()[step] = true;
        }
        if turn <= doing.hangs {
            std::future::pending::<()>().await;
        }
        if turn <= doing.hangs + doing.fails {
            return Err(StepError::new(ErrorKind::Server, "simulated"));
        }
        seen.done.lock()[step] = true;
        let from: Vec<&Value> = config.from.iter().collect();
        Ok(StepOutput::ok(value(step, &from, config.size)))
    }
}
