//! What the schedule holds: scopes, frames and step instances.
//!
//! A *scope* is a pipeline with its inputs and state. A *frame* is one run of a list of steps. A *step instance* is one
//! step of a frame. They form one tree: frame → step instance → frame → …
//! Nothing here grows with items that have not been started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::clock::Timestamp;
use crate::fact::RunError;
use crate::path::{OpKey, StepPath};
use crate::plan::{BlockId, Inputs, PipelineId, StepId};
use crate::schedule::StepDone;
use crate::value::{Data, Name};

/// Index of a [`Frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameId(pub(super) usize);

/// Index of a [`StepInst`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InstId(pub(super) usize);

/// Index of a [`Scope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScopeId(pub(super) usize);

/// Something to go on with, without recursion.
#[derive(Debug)]
pub(super) enum Work {
    /// Open the root pipeline.
    Begin,
    /// A frame may have something to start, or may be done.
    Frame(FrameId),
    /// A control form may have something to open, or may be done.
    Control(InstId),
}

/// A pipeline with its own names.
pub(super) struct Scope {
    pub(super) pipeline: PipelineId,
    pub(super) inputs: Inputs,
    pub(super) state: IndexMap<String, Data>,
    pub(super) globals: BTreeMap<String, Data>,
    pub(super) depth: u32,
}

/// Who is told when a frame ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Run,
    Branch(InstId, usize),
    Turn(InstId, usize),
    Case(InstId),
    Child(InstId),
    OnError(InstId),
}

impl Owner {
    pub(super) fn inst(self) -> Option<InstId> {
        match self {
            Self::Run => None,
            Self::Branch(inst, _)
            | Self::Turn(inst, _)
            | Self::Case(inst)
            | Self::Child(inst)
            | Self::OnError(inst) => Some(inst),
        }
    }
}

/// How a list of steps ended.
#[derive(Debug, Clone)]
pub(super) enum FrameEnd {
    /// To its end.
    Done,
    /// A step failed.
    Failed(RunError),
    /// A `break`.
    Broke,
    /// A `continue`.
    Continued,
    /// It was stopped from outside.
    Stopped,
}

/// One run of a list of steps.
pub(super) struct Frame {
    pub(super) block: BlockId,
    pub(super) scope: ScopeId,
    pub(super) owner: Owner,
    pub(super) is_root: bool,
    /// The frame whose names are visible here; `None` at the root of a pipeline.
    pub(super) outer: Option<FrameId>,
    pub(super) path: StepPath,
    pub(super) results: Vec<Option<StepDone>>,
    /// Next position of a sequence.
    pub(super) next: usize,
    pub(super) started: Vec<bool>,
    pub(super) active: BTreeSet<InstId>,
    pub(super) locals: IndexMap<String, Data>,
    /// Writes to the pipeline's state from a parallel turn or branch: merged when it ends.
    pub(super) overlay: Option<IndexMap<String, Written>>,
    pub(super) turn: Option<Arc<Turn>>,
    /// Which parallel lanes this runs in: two places in different lanes of one fan-out run at once.
    pub(super) lanes: Arc<[(u64, usize)]>,
    /// Inside a control form that may be tried again: attempt numbers go on.
    pub(super) again: bool,
    pub(super) ending: Option<FrameEnd>,
    /// Ended attempts below.
    pub(super) attempts: u32,
}

/// A variable that a parallel turn or branch wrote.
pub(super) struct Written {
    pub(super) value: Data,
    /// It outlives the run.
    pub(super) lasts: bool,
}

/// One turn of a loop, as `loop` shows it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) iterator: Option<Arc<str>>,
    pub(super) item: Data,
    pub(super) index: usize,
    pub(super) total: Option<usize>,
    pub(super) level: usize,
    pub(super) parent: Option<Arc<Turn>>,
}

/// One step of a frame.
pub(super) struct StepInst {
    pub(super) frame: FrameId,
    pub(super) position: usize,
    pub(super) step: StepId,
    pub(super) path: StepPath,
    pub(super) state: StepState,
    pub(super) ready_at: Timestamp,
    pub(super) ready_ms: u64,
    pub(super) turn: u32,
    /// Which way it is done: 0 = as written, n = its n-th fallback.
    pub(super) way: usize,
    /// The first turn of this way: tries are counted from it.
    pub(super) way_turn: u32,
    /// The account that it last used.
    pub(super) account: Option<String>,
    pub(super) attempts: u32,
    /// What runs now.
    pub(super) op: Option<OpKey>,
    /// The timer of its deadline, for a control form.
    pub(super) deadline: Option<OpKey>,
    /// Why it is being stopped.
    pub(super) stopping: Option<Stopping>,
}

/// Why a step instance is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    /// Something around it ended.
    Cancelled,
    /// Its own deadline passed.
    TimedOut,
}

/// What a step instance is doing.
pub(super) enum StepState {
    /// Waits for its turn.
    Ready,
    /// One operation is in flight: an attempt, a skip, a settled failure.
    Running,
    /// Waits before another attempt.
    Waiting,
    /// Waits until this account may be used again.
    Parked(String),
    /// Waits for an account that another step found used up.
    HeldBack,
    /// A fan-out over fixed branches.
    Parallel(ParallelState),
    /// A loop over items.
    ForEach(ForEachState),
    /// A loop on a condition.
    While(WhileState),
    /// A chosen list of steps: the case that was taken.
    Choose { case: Option<String>, frame: Option<FrameId> },
    /// A child pipeline.
    Child { frame: FrameId },
    /// Steps that run instead of failing.
    OnError { frame: FrameId },
    /// Its value is being written to a file.
    Writing(Box<StepDone>),
    /// Variables that its turns or branches wrote are being kept for later runs.
    Keeping(Box<StepDone>),
}

/// A fan-out over fixed branches.
pub(super) struct ParallelState {
    pub(super) serial: u64,
    pub(super) next: usize,
    pub(super) open: BTreeMap<usize, FrameId>,
    pub(super) done: BTreeMap<usize, TurnDone>,
    pub(super) failed: Option<RunError>,
}

/// A loop over items.
pub(super) struct ForEachState {
    pub(super) serial: u64,
    pub(super) items: Data,
    pub(super) total: usize,
    pub(super) next: usize,
    pub(super) open: BTreeMap<usize, FrameId>,
    pub(super) done: BTreeMap<usize, TurnDone>,
    pub(super) failed: Option<RunError>,
    /// A `break` or `break_condition`: no more turns.
    pub(super) broke: bool,
}

/// A loop on a condition.
pub(super) struct WhileState {
    pub(super) count: u64,
    pub(super) open: Option<FrameId>,
    pub(super) broke: bool,
    pub(super) failed: Option<RunError>,
    /// Values of the steps of the last turn: the condition may read them.
    pub(super) last: IndexMap<Name, Data>,
    /// `loop` as the condition reads it: the turn that is asked about.
    pub(super) asked: Option<Arc<Turn>>,
    /// Variables of scope `loop`: they live as long as the loop.
    pub(super) vars: IndexMap<String, Data>,
}

/// How one turn or branch ended.
pub(super) struct TurnDone {
    pub(super) status: crate::fact::Status,
    /// The item that it was for.
    pub(super) item: Data,
    /// Values by step.
    pub(super) results: Vec<(Name, Data)>,
    /// Value of the last step.
    pub(super) last: Data,
    pub(super) error: Option<RunError>,
    pub(super) overlay: IndexMap<String, Written>,
}
