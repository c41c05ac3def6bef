//! The engine: the embedded backend of the schedule, and the door to run or resume a plan.
//!
//! Owns [`Engine`]. Must not know files, vendors or terminals. Next: `engine/backend.rs` for the loop,
//! `engine/dispatcher.rs` for the backend.

pub mod backend;
pub mod blocking;
mod scope;
mod bus;
mod waiting;
mod timers;
mod watch;
mod run_clock;
mod order;
mod dispatcher;
mod journal;
mod ledger;
pub mod effect;
pub mod lasting;
mod executor;
mod replay;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::catalog::Services;
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorKind, StepError};
use crate::event::EventSink;
use crate::fact::{AttemptEnd, Fact, PauseReason, Record, RunError, RunStatus, Status, Usage};
use crate::path::{OpKey, StepPath};
use crate::plan::{Budget, Inputs, Plan};
use crate::resources::Resource;
use crate::schedule::{Command, LastingVariables, Op, Question, Schedule, Start, TaskCall};
use crate::service::Health;
use crate::step::RunInfo;
use crate::store::{CheckpointStore, Manifest, OpenedRun, RunLog, StoreError, StoredRun, StoredSources};
use crate::value::{Data, Value};

use backend::{Backend, Stop, drive};
use bus::EventBus;
use dispatcher::Dispatcher;
use ledger::Ledger;
use replay::{Attempts, Pending, replay};
use waiting::Waiting;

/// Runs plans. Cheap to clone; nothing in it belongs to one run.
#[derive(Clone)]
pub struct Engine {
    /// What steps use.
    pub services: Arc<Services>,
    /// Where runs live.
    pub store: Arc<dyn CheckpointStore>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

/// What a run is given beside its plan. All of it is stored or derived from what is stored, so that a resume has
/// the same.
#[derive(Debug, Clone)]
pub struct RunSetup {
    /// Facts about the run that steps may know.
    pub info: RunInfo,
    /// Checked inputs (see [`crate::plan::check_inputs`]).
    pub inputs: Inputs,
    /// Values of the environment that expressions may read (`permissions.env`).
    pub env: BTreeMap<String, String>,
    /// State set from outside (`--set VAR=VALUE`).
    pub state: BTreeMap<String, Data>,
    /// Variables of scope `session` as they were when the run began: see [`lasting::stored`].
    pub lasting: LastingVariables,
    /// Limits from outside; the tighter of these and the file's hold.
    pub limits: Budget,
    /// Stops after the top-level step of this name.
    pub until: Option<String>,
}

/// Who watches a run and who may stop it.
#[derive(Default)]
pub struct RunControl {
    /// Observers.
    pub sinks: Vec<Box<dyn EventSink>>,
    /// Answers to questions that the run has asked, by step path.
    pub answers: BTreeMap<String, Value>,
    /// What to do about accounts whose quota is used up.
    pub parking: Parking,
    /// Cancelled by the first Ctrl-C: nothing more is started, what is in flight is cut off, state is saved.
    pub stop: CancellationToken,
}

impl RunControl {
    /// Adds an observer: an [`EventSink`], or a function of [`crate::event::Event`].
    #[must_use]
    pub fn watch(mut self, sink: impl EventSink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Adds the answer to a question that the run has asked.
    #[must_use]
    pub fn answer(mut self, path: impl Into<String>, answer: impl Into<Value>) -> Self {
        self.answers.insert(path.into(), answer.into());
        self
    }
}

/// What to do about accounts whose quota is used up, when there is nothing else to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parking {
    /// Stop; the run can be resumed when the time has come.
    #[default]
    Stop,
    /// Wait for the time.
    Wait,
    /// Try at once what was parked before; stop when it is parked again.
    TryNow,
}

/// Why a run could not be worked on at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal and the plan do not belong together.
    #[error("the journal of this run does not fit its plan: {0}")]
    Mismatch(String),
    /// An answer that nothing waits for, or that does not fit. Nothing was done.
    #[error("{0}")]
    Answer(String),
}

/// How a run stands, when it ended or stopped: what `run --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Run id.
    pub run_id: String,
    /// Workflow name.
    pub workflow: String,
    /// How it ended or stopped.
    pub status: RunStatus,
    /// What it returned.
    pub outputs: Data,
    /// Top-level steps, in the order of the file.
    pub steps: IndexMap<String, StepReport>,
    /// What all attempts used.
    pub usage: Usage,
    /// When it was created.
    pub started_at: Timestamp,
    /// The run's elapsed milliseconds.
    pub duration_ms: u64,
    /// What people should know.
    pub warnings: Vec<String>,
    /// Why it did not succeed.
    pub error: Option<RunError>,
    /// What it asks people, by step path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<(StepPath, Question)>,
    /// How the observers of this process are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Health>,
}

/// How a top-level step stands.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// How; `None` = not reached.
    pub status: Option<Status>,
    /// Its value.
    pub value: Data,
    /// Ended attempts, of all leaves below it for a control form.
    pub attempts: u32,
    /// From ready to ended, in run time.
    pub duration_ms: u64,
    /// True when this process did not run it, because the journal had it.
    pub reused: bool,
    /// Why it did not succeed.
    pub error: Option<StepError>,
}

impl Engine {
    /// Creates a run and works on it until it ends or stops.
    ///
    /// # Errors
    /// [`EngineError`] when the run could not be created or its journal could not be written; a run that fails is a
    /// report, not an error.
    pub async fn run(
        &self,
        plan: Arc<Plan>,
        setup: RunSetup,
        manifest: Manifest,
        sources: StoredSources,
        control: RunControl,
    ) -> Result<RunReport, EngineError> {
        let log = self.store.create(&manifest, &sources).await?;
        let schedule = Schedule::new(Arc::clone(&plan), setup.start());
        let started = Fact::RunStarted {
            run_id: manifest.run_id.clone(),
            workflow: manifest.workflow.clone(),
            plan: plan.fingerprint(),
            mode: manifest.mode.clone(),
            inputs: setup.inputs.clone().into_iter().collect(),
            seed: setup.info.seed,
        };
        let begin = Begin {
            log,
            attempts: Attempts::default(),
            ledger: Ledger::default(),
            records: Vec::new(),
            fact: started,
        };
        self.work(schedule, Pending::default(), setup, begin, control).await
    }

    /// Goes on with a run that was taken over. A finished run is reported as it is: nothing is appended.
    ///
    /// # Errors
    /// As [`Engine::run`], and [`EngineError::Mismatch`].
    pub async fn resume(
        &self,
        plan: Arc<Plan>,
        setup: RunSetup,
        opened: OpenedRun,
        control: RunControl,
    ) -> Result<RunReport, EngineError> {
        let records = &opened.stored.records;
        let mut schedule = Schedule::new(plan, setup.start());
        let mut pending = replay(&mut schedule, records).map_err(|m| EngineError::Mismatch(m.to_string()))?;
        if let Some(report) = finished(&schedule, &setup, records) {
            return Ok(report);
        }
        let attempts = Attempts::of(&pending, records);
        pending.give_back(&mut schedule, &attempts.cut);
        let fact =
            Fact::RunResumed { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let ledger = Ledger::of(records);
        let begin = Begin { log: opened.log, attempts, ledger, records: opened.stored.records, fact };
        self.work(schedule, pending, setup, begin, control).await
    }

    /// Folds a stored run, without working on it: what `runs show` prints.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`].
    pub fn inspect(plan: &Arc<Plan>, setup: &RunSetup, stored: &StoredRun) -> Result<RunReport, EngineError> {
        let mut schedule = Schedule::new(Arc::clone(plan), setup.start());
        let pending =
            replay(&mut schedule, &stored.records).map_err(|m| EngineError::Mismatch(m.to_string()))?;
        if let Some(report) = finished(&schedule, setup, &stored.records) {
            return Ok(report);
        }
        let reason = stored.records.iter().rev().find_map(|r| match &r.fact {
            Fact::RunPaused { reason } => Some(reason.clone()),
            Fact::RunResumed { .. } => Some(PauseReason::Interrupted),
            _ => None,
        });
        let reason = reason.unwrap_or(PauseReason::Interrupted);
        let status = match reason.status() {
            RunStatus::Interrupted if stored.pid.is_some() => RunStatus::Running,
            status => status,
        };
        let mut report = report_of(&schedule, setup, status, &[]);
        let mut waiting = Waiting::default();
        let once = Attempts::of(&pending, &stored.records).once(&pending);
        let (operations, _) = pending.into_parts();
        for (key, op) in operations {
            match op {
                Op::Ask(question) => waiting.ask(key, *question),
                Op::Task(call) if once.contains(&key) => waiting.ask_once(key, call),
                _ => {}
            }
        }
        report.questions = waiting.open();
        report.error = why_it_stopped(&reason, &setup.info.id);
        Ok(report)
    }

    /// What every attempt of a stored run was given, in the order in which they became ready: the rendered configuration,
    /// the deadline, the fingerprint. For reports, and for telling what another run would do again.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`].
    pub fn calls(
        plan: &Arc<Plan>,
        setup: &RunSetup,
        stored: &StoredRun,
    ) -> Result<Vec<(OpKey, TaskCall)>, EngineError> {
        let mut schedule = Schedule::new(Arc::clone(plan), setup.start());
        let mut calls = Vec::new();
        let mut keep = |commands: Vec<Command>| {
            calls.extend(commands.into_iter().filter_map(|command| match command {
                Command::Start(key, Op::Task(call)) => Some((key, *call)),
                _ => None,
            }));
        };
        keep(schedule.decide());
        for record in &stored.records {
            if let Some((key, outcome)) = record.completion() {
                schedule.apply(&key, outcome).map_err(|m| EngineError::Mismatch(m.to_string()))?;
                keep(schedule.decide());
            }
        }
        Ok(calls)
    }

    async fn work(
        &self,
        mut schedule: Schedule,
        pending: Pending,
        setup: RunSetup,
        begin: Begin,
        control: RunControl,
    ) -> Result<RunReport, EngineError> {
        let reused: Vec<String> = schedule
            .top_level()
            .into_iter()
            .filter(|(_, done)| done.is_some())
            .map(|(name, _)| name)
            .collect();
        schedule.enforce_limits();
        let once = begin.attempts.once(&pending);
        let mut dispatcher = Dispatcher::new(
            begin.log,
            Arc::clone(&self.clock),
            Arc::clone(&self.services),
            Arc::new(setup.info.clone()),
            EventBus::new(control.sinks),
            control.stop,
            begin.attempts,
            begin.ledger,
            &begin.records,
        );
        dispatcher.waits = control.parking == Parking::Wait;
        let (operations, cancelled) = pending.into_parts();
        // Questions first, so that an answer that does not fit is refused before anything is done.
        let (asked, others): (Vec<_>, Vec<_>) =
            operations.into_iter().partition(|(key, op)| matches!(op, Op::Ask(_)) || once.contains(key));
        for (key, op) in asked {
            match op {
                Op::Task(call) if !cancelled.contains(&key) => dispatcher.waiting.ask_once(key, call),
                op => dispatcher.start(key, op),
            }
        }
        dispatcher.check_answers(&control.answers).map_err(EngineError::Answer)?;
        dispatcher.record(begin.fact).await?;
        for (path, answer) in control.answers {
            dispatcher.answer(&path, answer).map_err(EngineError::Answer)?;
        }
        for (key, op) in others {
            // An attempt that was asked to stop, and whose end was not recorded, does not start again.
            let is_cancelled = cancelled.contains(&key);
            let op = if is_cancelled { Op::Settle(Box::new(AttemptEnd::stopped())) } else { op };
            dispatcher.start(key, op);
        }
        if control.parking == Parking::TryNow {
            dispatcher.unpark_all();
        }
        let ended = drive(&mut schedule, &mut dispatcher).await;
        dispatcher.shutdown().await;
        let closed = self.close(&schedule, &setup, &reused, ended, &mut dispatcher).await;
        // Observers last, so that they see how it ended, and always, so that none outlives the run.
        let (notes, services) = dispatcher.finish().await;
        let mut report = closed?;
        report.warnings.extend(notes);
        report.services = services;
        Ok(report)
    }

    /// Records how the run ended or stopped, and reports it.
    async fn close(
        &self,
        schedule: &Schedule,
        setup: &RunSetup,
        reused: &[String],
        ended: Result<(), Stop>,
        dispatcher: &mut Dispatcher,
    ) -> Result<RunReport, EngineError> {
        let reason = match ended {
            Ok(()) => {
                let status = schedule.ended().map_or(RunStatus::Failed, |end| end.status);
                let mut report = report_of(schedule, setup, status, reused);
                self.clean(&mut report);
                let fact =
                    Fact::RunEnded { status, outputs: report.outputs.clone(), error: report.error.clone() };
                report.duration_ms = dispatcher.record(fact).await?;
                return Ok(report);
            }
            Err(Stop::Store(error)) => return Err(error.into()),
            Err(Stop::Mismatch(mismatch)) => return Err(EngineError::Mismatch(mismatch.to_string())),
            Err(Stop::Interrupted) => PauseReason::Interrupted,
            Err(Stop::Budget(message)) => PauseReason::Budget { message },
            Err(Stop::Person { path, message }) => PauseReason::Person { path, message },
            Err(Stop::Parked { until, message }) => PauseReason::Quota { until, message },
        };
        let reason = self.cleaned(reason);
        let mut report = report_of(schedule, setup, reason.status(), reused);
        report.duration_ms = dispatcher.elapsed_ms();
        report.error = why_it_stopped(&reason, &setup.info.id);
        report.questions = dispatcher.waiting.open();
        self.clean(&mut report);
        dispatcher.record(Fact::RunPaused { reason }).await?;
        Ok(report)
    }
}

/// Secrets out of what the schedule made of expressions: what comes of steps passed the same redactor.
impl Engine {
    fn cleaned(&self, mut reason: PauseReason) -> PauseReason {
        match &mut reason {
            PauseReason::Budget { message }
            | PauseReason::Person { message, .. }
            | PauseReason::Quota { message, .. } => *message = self.services.redactor.text(message),
            PauseReason::Interrupted => {}
        }
        reason
    }

    fn clean(&self, report: &mut RunReport) {
        let redactor = &self.services.redactor;
        if redactor.is_empty() {
            return;
        }
        report.outputs = redactor.cleaned_data(&report.outputs);
        report.error = report.error.take().map(|e| RunError { error: redactor.error(e.error), ..e });
        for (_, step) in &mut report.steps {
            step.value = redactor.cleaned_data(&step.value);
            step.error = step.error.take().map(|error| redactor.error(error));
        }
        for (_, question) in &mut report.questions {
            question.message = redactor.text(&question.message);
        }
    }
}

/// Why a run that stopped is not going on, for people; a signal needs no words.
fn why_it_stopped(reason: &PauseReason, run: &str) -> Option<RunError> {
    let (path, error) = match reason {
        PauseReason::Interrupted => return None,
        PauseReason::Budget { message } => (
            None,
            StepError::new(ErrorKind::Budget, format!("a budget is used up: {message}")).help(format!(
                "{}raise the limit in the file and go on with that: what is done is taken over",
                if Resource::ALL.iter().any(|resource| message.starts_with(resource.key())) {
                    "resume the run where there is room for it, or "
                } else if message.starts_with("max_cost_usd") {
                    "resume the run with a higher `--max-cost-usd`, if that is the limit, or "
                } else {
                    ""
                }
            )),
        ),
        PauseReason::Quota { until, message } => (
            None,
            StepError::new(ErrorKind::Quota, format!("{message}; the run waits until {until}"))
                .help("resume it then; `resume --wait` waits, `resume --try-now` does not"),
        ),
        PauseReason::Person { path, message } => (
            Some(path.clone()),
            StepError::new(ErrorKind::Environment, format!("a person must decide: {message}"))
                .help(format!("answer it with `pipeline resume {run} --answer '{path}=…'`")),
        ),
    };
    Some(RunError { path, error })
}

/// What a process begins with.
struct Begin {
    log: Box<dyn RunLog>,
    attempts: Attempts,
    ledger: Ledger,
    /// What was recorded before.
    records: Vec<Record>,
    fact: Fact,
}

impl RunSetup {
    /// What the schedule of this run starts from.
    pub fn start(&self) -> Start {
        Start {
            inputs: self.inputs.clone(),
            env: self.env.clone(),
            state: self.state.clone(),
            lasting: self.lasting.clone(),
            limits: self.limits.clone(),
            until: self.until.clone(),
            run_id: self.info.id.clone(),
            run_dir: self.info.dirs.run.display().to_string(),
            started_at: self.info.started_at,
            seed: self.info.seed,
        }
    }
}

/// The report of a run whose end is recorded.
fn finished(schedule: &Schedule, setup: &RunSetup, records: &[Record]) -> Option<RunReport> {
    let last = records.last()?;
    let Fact::RunEnded { status, outputs, error } = &last.fact else { return None };
    let names: Vec<String> = schedule.top_level().into_keys().collect();
    let mut report = report_of(schedule, setup, *status, &names);
    report.outputs = outputs.clone();
    report.error.clone_from(error);
    report.duration_ms = last.elapsed_ms;
    Some(report)
}

fn report_of(schedule: &Schedule, setup: &RunSetup, status: RunStatus, reused: &[String]) -> RunReport {
    let steps = schedule.top_level().into_iter().map(|(name, done)| {
        let is_reused = reused.contains(&name);
        let report = match done {
            None => StepReport {
                status: None,
                value: Data::null(),
                attempts: 0,
                duration_ms: 0,
                reused: false,
                error: None,
            },
            Some(done) => StepReport {
                status: Some(done.status),
                value: done.value,
                attempts: done.attempts,
                duration_ms: done.ended_ms.saturating_sub(done.started_ms),
                reused: is_reused,
                error: done.error.map(|e| e.error),
            },
        };
        (name, report)
    });
    let end = schedule.ended();
    RunReport {
        run_id: setup.info.id.clone(),
        workflow: setup.info.workflow.clone(),
        status,
        outputs: end.map_or_else(Data::null, |e| e.outputs.clone()),
        steps: steps.collect(),
        usage: schedule.usage(),
        started_at: setup.info.started_at,
        duration_ms: schedule.elapsed_ms(),
        warnings: schedule.warnings().to_vec(),
        error: end.and_then(|e| e.error.clone()),
        questions: Vec::new(),
        services: Vec::new(),
    }
}
