//! What happened, in the past tense. A run is its facts.
//!
//! Owns [`Fact`], [`Record`] (a fact with its place and time) and [`Outcome`], what a backend hands to the schedule.
//! Must not know how facts are stored (`store.rs`) or shown. The wire names of the variants are a contract
//! (`runs events --json`). Next: `schedule.rs`, which folds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::StepError;
use crate::path::{OpKey, OpRole, StepPath};
use crate::value::{Data, Hash, Value};

pub use crate::usage::{Spend, Usage};

/// How a step instance ended. Nothing that failed is ever `ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It did what it was for.
    Ok,
    /// A declared fallback answered.
    Degraded,
    /// Its condition was false, or a step that it needs did not run.
    Skipped,
    /// It failed.
    Failed,
    /// Its deadline, or one around it, passed.
    TimedOut,
    /// It was stopped, because a sibling failed or the loop ended.
    Cancelled,
}

impl Status {
    /// `ok` or `degraded`: later steps may read its value.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Ok | Self::Degraded)
    }

    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Which scope a variable is set in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VariableScope {
    /// The pipeline's state.
    #[default]
    Global,
    /// Outlives the run.
    Session,
    /// This turn of a for_loop, or the whole while_loop.
    Loop,
    /// This step list.
    Local,
}

/// A variable that a step asks the schedule to set. Steps never write state themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Where.
    pub scope: VariableScope,
    /// Name.
    pub name: String,
    /// Value.
    pub value: Data,
}

/// How one attempt ended, as the schedule sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// How.
    pub status: Status,
    /// What the step produced; null unless [`Status::is_success`].
    #[serde(default, deserialize_with = "step_value")]
    pub value: Data,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// What it may have used beside that: calls that were cut off, whose bill nobody saw.
    #[serde(default, skip_serializing_if = "Spend::is_zero")]
    pub unsettled: Spend,
    /// It did not take place, because a limit of the run forbade it: the same step starts again when the run goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub put_back: bool,
    /// Variables to set, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Assignment>,
    /// What people should know although it went on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Files that it read as part of its definition, by absolute path, with the hash of what was in each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Hash>,
    /// Monotonic milliseconds from its start to its end.
    #[serde(default)]
    pub duration_ms: u64,
}

impl AttemptEnd {
    /// A failed attempt; the status follows from the error's kind.
    pub fn failed(error: StepError) -> Self {
        let status = match error.kind {
            crate::error::ErrorKind::TimedOut => Status::TimedOut,
            crate::error::ErrorKind::Cancelled => Status::Cancelled,
            _ => Status::Failed,
        };
        Self { error: Some(error), ..Self::with(status, Data::null()) }
    }

    /// An attempt that was asked to stop.
    pub fn stopped() -> Self {
        Self::failed(StepError::new(crate::error::ErrorKind::Cancelled, "it was stopped"))
    }

    /// A successful attempt.
    pub fn ok(value: Value) -> Self {
        Self::with(Status::Ok, Data::of_step(value))
    }

    fn with(status: Status, value: Data) -> Self {
        Self {
            status,
            value,
            error: None,
            usage: Usage::default(),
            unsettled: Spend::default(),
            files: BTreeMap::new(),
            put_back: false,
            set: Vec::new(),
            warnings: Vec::new(),
            duration_ms: 0,
        }
    }
}

fn step_value<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
    Value::deserialize(deserializer).map(Data::of_step)
}

/// What came of an operation, with the recorded time at which it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Wall time of the record.
    pub at: Timestamp,
    /// The run's elapsed milliseconds at the record: deadlines are measured on it.
    pub elapsed_ms: u64,
    /// What.
    pub result: OpResult,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum OpResult {
    /// An attempt ended.
    Ended(Box<AttemptEnd>),
    /// A skip was recorded.
    Skipped,
    /// A timer's time has come.
    Fired,
}

/// Why a run is not going on although it has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// SIGINT, SIGTERM or a cancelled handle.
    Interrupted,
    /// A budget was reached; which one, and by how much.
    Budget {
        /// The sentence for people.
        message: String,
    },
    /// An account's quota is used up: when it can be used again.
    Quota {
        /// Wall time to go on at.
        until: Timestamp,
        /// The sentence for people.
        message: String,
    },
    /// A person must decide: the step and the question.
    Person {
        /// Which step.
        path: StepPath,
        /// What is asked.
        message: String,
    },
}

impl PauseReason {
    /// How a run that stopped for this stands.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Interrupted => RunStatus::Interrupted,
            Self::Budget { .. } => RunStatus::Budget,
            Self::Quota { .. } => RunStatus::Parked,
            Self::Person { .. } => RunStatus::Paused,
        }
    }
}

/// How a whole run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Every step that counts succeeded.
    Ok,
    /// A step failed.
    Failed,
    /// Waits for a person.
    Paused,
    /// Waits for a provider's quota.
    Parked,
    /// A budget was reached.
    Budget,
    /// Somebody cancelled it.
    Cancelled,
    /// A signal or a crash cut it off.
    Interrupted,
    /// Its own deadline passed.
    TimedOut,
    /// It is running, or its process died without a word: only the lock can tell.
    Running,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact")]
pub enum Fact {
    /// The run exists.
    RunStarted {
        /// Its id.
        run_id: String,
        /// The workflow's name.
        workflow: String,
        /// Fingerprint of the compiled plan.
        plan: Hash,
        /// `live`, `mock`, `mixed`, `replay`.
        mode: String,
        /// The checked inputs.
        inputs: Data,
        /// Everything that is invented in this run follows from it.
        seed: u64,
    },
    /// A step instance was not run, and why.
    StepSkipped {
        /// Which.
        path: StepPath,
        /// Which logical attempt.
        turn: u32,
        /// Why.
        reason: String,
    },
    /// A physical attempt began. Written before its effects; flushed with the next fact.
    AttemptStarted {
        /// Which step instance.
        path: StepPath,
        /// Physical attempt, from 1: the number people see.
        attempt: u32,
        /// Logical attempt, from 1: the one that `max_attempts` counts.
        turn: u32,
        /// Hash of definition, inputs, model and parameters.
        fingerprint: Hash,
    },
    /// An inner effect of an attempt is done and must not be done again.
    EffectDone {
        /// Which step instance.
        path: StepPath,
        /// Physical attempt that did it.
        attempt: u32,
        /// Logical attempt that it belongs to.
        turn: u32,
        /// Name given by the step.
        name: String,
        /// The how-many-th effect of this logical attempt, from 0.
        ordinal: u32,
        /// Hash of the request: a recorded result answers only the same request.
        request: Hash,
        /// The recorded result.
        value: Data,
        /// What it used, for a metered effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// A metered effect is about to begin, and may spend this much. Durable before it begins, so that a limit holds over
    /// crashes too. Written only where a limit applies.
    SpendReserved {
        /// Which step instance.
        path: StepPath,
        /// Physical attempt.
        attempt: u32,
        /// Logical attempt.
        turn: u32,
        /// The how-many-th effect of this logical attempt, from 0.
        ordinal: u32,
        /// The most that it can spend.
        #[serde(flatten)]
        spend: Spend,
    },
    /// A physical attempt ended. Always flushed before anybody sees it.
    AttemptEnded {
        /// Which step instance.
        path: StepPath,
        /// Physical attempt.
        attempt: u32,
        /// Logical attempt.
        turn: u32,
        /// Hash of definition, inputs, model and parameters.
        fingerprint: Hash,
        /// How.
        #[serde(flatten)]
        end: Box<AttemptEnd>,
    },
    /// The wait before logical attempt `turn` is over, or a deadline has passed.
    TimerFired {
        /// Which step instance; empty for the run's own deadline.
        path: StepPath,
        /// The logical attempt that it belongs to.
        turn: u32,
        /// `wait` or `deadline`.
        role: OpRole,
    },
    /// The run stops for now; `resume` goes on.
    RunPaused {
        /// Why.
        reason: PauseReason,
    },
    /// A process took the run up again.
    RunResumed {
        /// Its process id.
        pid: u32,
        /// The program's version.
        version: String,
    },
    /// The run ended for good.
    RunEnded {
        /// How.
        status: RunStatus,
        /// What it returned.
        outputs: Data,
        /// Why it did not succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<RunError>,
    },
}

/// The error that ended a run, and the step that it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunError {
    /// Where it came from, if from a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<StepPath>,
    /// What happened.
    #[serde(flatten)]
    pub error: StepError,
}

/// A fact with its place and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Position in the run, from 0, without gaps.
    pub index: u64,
    /// Wall time.
    pub at: Timestamp,
    /// The run's elapsed milliseconds: monotonic, and counted only while a process works on the run.
    pub elapsed_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

impl Record {
    /// Facts of one moment as records that follow each other, the first with this index.
    pub fn numbered(first: u64, at: Timestamp, elapsed_ms: u64, facts: Vec<Fact>) -> Vec<Arc<Self>> {
        (first..).zip(facts).map(|(index, fact)| Arc::new(Self { index, at, elapsed_ms, fact })).collect()
    }

    /// The completion that this record is to the schedule; `None` for records that are bookkeeping only.
    ///
    /// Live running and replay both pass through here: there is no second way to read a fact.
    pub fn completion(&self) -> Option<(OpKey, Outcome)> {
        let (path, turn, role, result) = match &self.fact {
            Fact::AttemptEnded { path, turn, end, .. } => {
                (path, *turn, OpRole::Attempt, OpResult::Ended(end.clone()))
            }
            Fact::StepSkipped { path, turn, .. } => (path, *turn, OpRole::Attempt, OpResult::Skipped),
            Fact::TimerFired { path, turn, role } => (path, *turn, *role, OpResult::Fired),
            _ => return None,
        };
        let key = OpKey { path: path.clone(), turn, role };
        Some((key, Outcome { at: self.at, elapsed_ms: self.elapsed_ms, result }))
    }

    /// The record as one JSON object: the line that `--events` and `runs events --json` print.
    pub fn to_event(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("schema".to_owned(), Value::from("pipeline.event/1"));
        if let Ok(Value::Object(fields)) = serde_json::to_value(self) {
            object.extend(fields);
        }
        Value::Object(object)
    }
}
