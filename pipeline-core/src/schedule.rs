//! The pure schedule: an interpreter over the plan.
//!
//! Owns [`Schedule`]: `decide()` says what to start and stop, `apply(key, outcome)` moves it. All control flow lives here:
//! sequences, graphs, fan-outs, loops, choices, child pipelines, retries, deadlines, budgets as counters.
//! **Must not know clocks, IO, randomness, tokio or the journal.** The same plan and the same outcomes in the same order
//! give the same commands, live and in replay.
//! Next: `schedule/state.rs` for what it holds, `schedule/advance.rs` for how it moves, `engine.rs` for who drives it.

mod advance;
mod budget;
mod cancel;
mod control;
mod decide;
mod lasting;
mod names;
mod park;
mod retry;
mod state;
mod transition;
mod values;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use slab::Slab;

use crate::clock::Timestamp;
use crate::error::StepError;
use crate::event::Progress;
use crate::fact::{AttemptEnd, OpResult, Outcome, RunError, RunStatus, Spend, Status, Usage};
use crate::path::{OpKey, StepPath};
use crate::plan::{Budget, Cache, Effects, Inputs, Plan, Reducer};
use crate::resources::ResourceLimits;
use crate::value::{Data, Hash, Value};

use state::{Frame, FrameId, InstId, Scope, ScopeId, StepInst, Work};

pub use park::{LONG, asks_to_park};
pub use transition::{Mismatch, OpState};
pub(crate) use values::reduce;

/// What the schedule asks of a backend.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Start this operation; it completes exactly once.
    Start(OpKey, Op),
    /// Stop it: an attempt still completes once, by itself or as cancelled; a timer never does.
    Cancel(OpKey),
}

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Run one attempt.
    Task(Box<TaskCall>),
    /// Record that a step is not run, and why.
    Skip {
        /// Why.
        reason: String,
    },
    /// Record that an attempt ended before it could start: a template that cannot be rendered, a limit that is reached.
    Settle(Box<AttemptEnd>),
    /// Ask a person; the answer is the attempt's value.
    Ask(Box<Question>),
    /// Complete when an account may be used again.
    Park {
        /// Wall time.
        until: Timestamp,
        /// Whose quota is used up, for people.
        message: String,
    },
    /// Complete when the run's elapsed time reaches this.
    Timer {
        /// Milliseconds of run time.
        until_ms: u64,
    },
}

/// Everything that an executor needs for one attempt: plain data, so that it can be sent to another machine.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskCall {
    /// What to run.
    pub work: TaskWork,
    /// Deadline of the attempt, from its start; `None` = written out as none.
    pub timeout: Option<Duration>,
    /// What happens after a crash.
    pub effects: Effects,
    /// File below the output directory that gets the primary value.
    pub output_file: Option<String>,
    /// Hash of kind, configuration and output file: decides reuse.
    pub fingerprint: Hash,
    /// It stands in for one that failed: a success is `degraded`.
    pub is_fallback: bool,
    /// Directory below the workspace that is its own; `None` = the workspace itself.
    pub workspace: Option<String>,
    /// An answer to the same question is taken from earlier runs.
    pub cache: Option<Cache>,
    /// An account that is used up puts it back, to go on later: there is no other way to do it.
    pub may_park: bool,
    /// The limits on spending around it, innermost first.
    pub budgets: Arc<[BudgetAt]>,
    /// What the process may hold while it runs.
    pub resources: ResourceLimits,
    /// It may set variables that outlive the run; `None` also where they are merged before they are kept.
    pub lasting: Option<Lasting>,
}

/// The variables of a workflow that outlive the run, as the run last saw them.
#[derive(Debug, Clone, PartialEq)]
pub struct Lasting {
    /// The workflow that they belong to.
    pub workflow: Arc<str>,
    /// Their values; a name that is missing was never kept, as far as the run knows.
    pub seen: Arc<BTreeMap<String, Data>>,
}

/// Values of one lasting variable that turns or branches wrote at once, and how they become one.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Merge {
    /// The variable.
    pub name: String,
    /// How.
    pub reducer: Reducer,
    /// What it was before, where no other run has written it since.
    pub before: Option<Data>,
    /// What was written, in order.
    pub written: Vec<Data>,
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Question {
    /// The question.
    pub message: String,
    /// The answers to choose from; empty = any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Value>,
    /// JSON Schema that the answer must fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The answer when nobody gives one in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Wall time at which nobody is waited for any longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Question {
    /// Whether an answer is one of the choices. Its schema is checked by whoever takes the answer.
    ///
    /// # Errors
    /// What it should be.
    pub fn fits(&self, answer: &Value) -> Result<(), String> {
        if self.choices.is_empty() || self.choices.contains(answer) {
            return Ok(());
        }
        let choices: Vec<String> = self.choices.iter().map(ToString::to_string).collect();
        Err(format!("{answer} is not one of {}", choices.join(", ")))
    }
}

/// A limit on spending, and the place that it holds for: the run, a step or a child pipeline, with all below it.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetAt {
    /// Where.
    pub path: StepPath,
    /// US dollars.
    pub max_cost_usd: Option<f64>,
    /// Tokens of all kinds.
    pub max_tokens: Option<u64>,
}

/// Variables that outlive runs, by workflow and name.
pub type LastingVariables = BTreeMap<String, BTreeMap<String, Data>>;

/// What one attempt runs.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskWork {
    /// A step of the catalog with its rendered configuration.
    Step {
        /// Step type.
        kind: Arc<str>,
        /// Configuration.
        with: Data,
    },
    /// Writes the primary value of a control form to its output file.
    WriteOutput {
        /// The value.
        value: Data,
    },
    /// Keeps lasting variables that parallel turns or branches wrote.
    Keep {
        /// What they wrote.
        merges: Vec<Merge>,
    },
}

/// What the schedule starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// Checked inputs of the root pipeline.
    pub inputs: Inputs,
    /// Values of the environment that expressions may read.
    pub env: BTreeMap<String, String>,
    /// State set from outside, on top of `variables`.
    pub state: BTreeMap<String, Data>,
    /// Variables of scope `session` as they were when the run began, by workflow: on top of `variables`, below `state`.
    pub lasting: LastingVariables,
    /// Limits from outside.
    pub limits: Budget,
    /// Stop after this top-level step.
    pub until: Option<String>,
    /// The run's id, for `run.id`.
    pub run_id: String,
    /// The run's directory, for `run.dir`.
    pub run_dir: String,
    /// When the run started.
    pub started_at: Timestamp,
    /// Jitter follows from it.
    pub seed: u64,
}

/// How the whole plan ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// How.
    pub status: RunStatus,
    /// What it returns.
    pub outputs: Data,
    /// Why it did not succeed.
    pub error: Option<RunError>,
}

/// How a top-level step stands.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDone {
    /// How it ended.
    pub status: Status,
    /// Its value.
    pub value: Data,
    /// Why it did not succeed, and where that came from.
    pub error: Option<RunError>,
    /// Ended attempts of the leaves below it.
    pub attempts: u32,
    /// Run time when it became ready.
    pub started_ms: u64,
    /// Run time when it ended.
    pub ended_ms: u64,
}

/// The branches that something stands in, outermost first: (fan-out, branch).
type Lanes = Arc<[(u64, usize)]>;

/// The interpreter.
pub struct Schedule {
    plan: Arc<Plan>,
    start: Start,
    frames: Slab<Frame>,
    steps: Slab<StepInst>,
    scopes: Slab<Scope>,
    work: VecDeque<Work>,
    ready: VecDeque<InstId>,
    /// Leaves that wait for a place among `max_parallel`.
    queued: VecDeque<InstId>,
    ops: HashMap<OpKey, InFlight>,
    /// For each block, the position of each step name.
    positions: Vec<HashMap<Arc<str>, usize>>,
    commands: Vec<Command>,
    progress: Vec<Progress>,
    now: Timestamp,
    elapsed_ms: u64,
    serial: u64,
    turns: BTreeMap<StepPath, u32>,
    /// Variables that outlive the run, as last seen.
    lasting: BTreeMap<Arc<str>, Arc<BTreeMap<String, Data>>>,
    /// Those that a control form has just merged, to be kept before it ends.
    merges: Vec<Merge>,
    files: HashMap<String, (StepPath, Lanes)>,
    running: usize,
    /// Of those, questions to people: they take no place among `max_parallel`.
    asked: usize,
    started_steps: u64,
    usage: Usage,
    unsettled: Spend,
    /// Attempts below each place with a `max_steps` of its own.
    steps_below: HashMap<StepPath, u64>,
    /// Some step or child pipeline has a budget of its own.
    has_inner_budgets: bool,
    /// Accounts whose quota is used up, with the steps that wait for them beside the one that found out.
    parked: BTreeMap<String, Vec<InstId>>,
    warnings: Vec<String>,
    enforce_limits: bool,
    halted: Option<String>,
    end: Option<End>,
}

/// An operation that has not completed.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    inst: Option<InstId>,
    state: OpState,
    is_question: bool,
}

impl Schedule {
    /// A schedule at the beginning of a plan.
    pub fn new(plan: Arc<Plan>, start: Start) -> Self {
        let now = start.started_at;
        let lasting = start.lasting.iter().map(|(w, all)| (Arc::from(w.as_str()), Arc::new(all.clone())));
        let lasting = lasting.collect();
        let positions = plan
            .blocks
            .iter()
            .map(|b| b.steps.iter().enumerate().map(|(i, s)| (plan.step(*s).name.clone(), i)).collect())
            .collect();
        let has_inner_budgets = plan.steps.iter().any(|s| s.budget.limits_spending())
            || plan.pipelines.iter().skip(1).any(|p| p.budget.limits_spending());
        Self {
            positions,
            queued: VecDeque::new(),
            plan,
            start,
            frames: Slab::new(),
            steps: Slab::new(),
            scopes: Slab::new(),
            work: VecDeque::from([Work::Begin]),
            ready: VecDeque::new(),
            ops: HashMap::new(),
            commands: Vec::new(),
            progress: Vec::new(),
            now,
            elapsed_ms: 0,
            serial: 0,
            turns: BTreeMap::new(),
            lasting,
            merges: Vec::new(),
            files: HashMap::new(),
            running: 0,
            asked: 0,
            started_steps: 0,
            usage: Usage::default(),
            unsettled: Spend::default(),
            steps_below: HashMap::new(),
            has_inner_budgets,
            parked: BTreeMap::new(),
            warnings: Vec::new(),
            enforce_limits: false,
            halted: None,
            end: None,
        }
    }

    /// What to do now. Call it after every [`Schedule::apply`], live and in replay alike, until it gives nothing more.
    pub fn decide(&mut self) -> Vec<Command> {
        while self.end.is_none() {
            if let Some(work) = self.work.pop_front() {
                self.go_on(work);
            } else if !self.start_ready() {
                break;
            }
        }
        std::mem::take(&mut self.commands)
    }

    /// Takes in what came of an operation.
    ///
    /// # Errors
    /// [`Mismatch`] when the operation was never started or has completed before: the journal and the plan do not
    /// belong together.
    pub fn apply(&mut self, key: &OpKey, outcome: Outcome) -> Result<(), Mismatch> {
        let state = self.ops.get(key).map_or(OpState::Unknown, |op| op.state);
        transition::check(key, state, &outcome.result)?;
        let Some(op) = self.ops.remove(key) else { return Ok(()) };
        self.asked -= usize::from(op.is_question);
        self.now = self.now.max(outcome.at);
        self.elapsed_ms = self.elapsed_ms.max(outcome.elapsed_ms);
        match (op.inst, outcome.result) {
            (None, _) => self.run_deadline_passed(),
            (Some(inst), OpResult::Ended(end)) => self.attempt_ended(inst, *end),
            (Some(inst), OpResult::Skipped) => self.step_skipped(inst),
            (Some(inst), OpResult::Fired) => self.timer_fired(inst, key),
        }
        Ok(())
    }

    /// How the plan ended, once it has.
    pub fn ended(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The budget that stopped it, once nothing is in flight any more.
    pub fn halted(&self) -> Option<&str> {
        if self.running == 0 { self.halted.as_deref() } else { None }
    }

    /// From here on, limits may stop the run. In replay they must not: what was started was started.
    pub fn enforce_limits(&mut self) {
        self.enforce_limits = true;
    }

    /// Top-level steps that have ended, in the order of the file.
    pub fn top_level(&self) -> IndexMap<String, Option<StepDone>> {
        let block = self.plan.block(self.plan.root().body);
        let frame = self.frames.iter().map(|(_, f)| f).find(|f| f.is_root);
        let name = |i: usize| self.plan.step(block.steps[i]).name.to_string();
        (0..block.steps.len())
            .map(|i| (name(i), frame.and_then(|f| f.results.get(i).cloned().flatten())))
            .collect()
    }

    /// What all ended attempts used.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// What may have been used beside that: calls that were cut off, whose bill nobody saw.
    pub fn unsettled(&self) -> Spend {
        self.unsettled
    }

    /// The run's elapsed time at the last applied fact.
    pub fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms
    }

    /// Warnings of all ended attempts, in order; the first hundred.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Progress of control forms since the last call. Disposable.
    pub fn take_progress(&mut self) -> Vec<Progress> {
        std::mem::take(&mut self.progress)
    }

    fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.0]
    }

    fn frame_mut(&mut self, id: FrameId) -> &mut Frame {
        &mut self.frames[id.0]
    }

    fn inst(&self, id: InstId) -> &StepInst {
        &self.steps[id.0]
    }

    fn inst_mut(&mut self, id: InstId) -> &mut StepInst {
        &mut self.steps[id.0]
    }

    fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id.0]
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn start_op(&mut self, inst: Option<InstId>, key: OpKey, op: Op) {
        let is_question = matches!(op, Op::Ask(_));
        self.asked += usize::from(is_question);
        self.ops.insert(key.clone(), InFlight { inst, state: OpState::of(&op), is_question });
        self.commands.push(Command::Start(key, op));
    }

    fn finish_run(&mut self, status: RunStatus, outputs: Data, error: Option<RunError>) {
        for key in self.timers() {
            self.ops.remove(&key);
            self.commands.push(Command::Cancel(key));
        }
        self.end = Some(End { status, outputs, error });
    }

    fn timers(&self) -> Vec<OpKey> {
        let mut keys: Vec<OpKey> =
            self.ops.iter().filter(|(_, op)| op.state == OpState::Timer).map(|(k, _)| k.clone()).collect();
        keys.sort();
        keys
    }
}

/// The error of the run that a step's error is.
fn at(path: &StepPath, error: StepError) -> RunError {
    RunError { path: Some(path.clone()), error }
}
