//! Recordings of runs: what came of every effect, and when each fact was made.
//!
//! Owns [`Tape`], what it is told and what it tells: [`TapedEffect`], [`Played`], [`Moment`]. Must not know files or formats.
//! Next: `engine/effect.rs` for effects, `engine/order.rs` for moments.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::StepError;
use crate::fact::{Fact, Record, Spend, Status};
use crate::path::{OpKey, OpRole, StepPath};
use crate::store::StoreError;
use crate::value::Value;

/// Records a run, or answers from a recording.
pub trait Tape: Send + Sync {
    /// What was recorded for this effect.
    fn play(&self, effect: &TapedEffect<'_>) -> Played;

    /// Keeps what came of an effect. Secrets never get on tape.
    ///
    /// # Errors
    /// `Environment` when it cannot be written.
    fn record(&self, effect: &TapedEffect<'_>, came: Came<'_>) -> Result<(), StepError>;

    /// Keeps when a fact was made; nothing, in a replay.
    ///
    /// # Errors
    /// [`StoreError::Write`] when it cannot be written.
    fn made(&self, record: &Record) -> Result<(), StoreError>;

    /// The recorded moments, in order; none while recording, and on a tape that has none.
    fn moments(&self) -> Vec<Moment>;
}

/// An effect, as a tape finds it.
#[derive(Debug, Clone, Copy)]
pub struct TapedEffect<'a> {
    /// The step instance and its logical attempt.
    pub key: &'a OpKey,
    /// Its place among the effects of the attempt.
    pub ordinal: u32,
    /// Its name.
    pub name: &'a str,
    /// Everything that its result depends on.
    pub request: &'a Value,
}

/// What came of an effect.
#[derive(Debug, Clone, Copy)]
pub enum Came<'a> {
    /// Its result, or the error that it ended with.
    Result(&'a Result<Value, StepError>),
    /// Nothing: its attempt was stopped, or timed out, before it ended.
    CutOff,
}

/// What a tape has in the place of an effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Played {
    /// Nothing: it records.
    Nothing,
    /// The recorded result, or the error that it ended with.
    Result(Result<Value, StepError>),
    /// Nothing came of it: its attempt was cut off before it ended, or before it began. The error is for an attempt that is
    /// not cut off this time.
    Missing(Box<StepError>),
    /// Another effect, or another request. The error tells the first difference.
    Differs(Box<StepError>),
}

/// When a fact was made, and what else a replay must know to make it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// The record's position in the run.
    pub index: u64,
    /// Which fact.
    #[serde(flatten)]
    pub key: FactKey,
    /// When.
    #[serde(flatten)]
    pub time: RunTime,
    /// For the end of an attempt: how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RecordedEnd>,
    /// For a reservation: how much. A replay reserves nothing, and tells it all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend: Option<Spend>,
}

/// The time of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunTime {
    /// Wall time.
    pub at: Timestamp,
    /// The run's elapsed milliseconds.
    pub elapsed_ms: u64,
}

/// What of an attempt's end the engine measured or decided: the step itself comes to the rest of it again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecordedEnd {
    /// How.
    pub status: Status,
    /// Milliseconds from its start to its end.
    pub duration_ms: u64,
    /// What calls that were cut off may have used.
    #[serde(default, skip_serializing_if = "Spend::is_zero")]
    pub unsettled: Spend,
    /// It did not take place, because a limit of the run forbade it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub put_back: bool,
}

/// What tells a fact from all others of its run. A physical attempt is none of it: a crash is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FactKey {
    /// Which kind of fact.
    pub fact: FactKind,
    /// Which step instance; the root for what concerns the run.
    #[serde(default = "StepPath::root", skip_serializing_if = "StepPath::is_root")]
    pub path: StepPath,
    /// Which logical attempt; 0 for what concerns the run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// For effects: the how-many-th of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u32>,
    /// For timers: what for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<OpRole>,
}

/// The kinds of [`Fact`]; the names are those of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are documented at `Fact`")]
pub enum FactKind {
    RunStarted,
    StepSkipped,
    AttemptStarted,
    EffectDone,
    SpendReserved,
    AttemptEnded,
    TimerFired,
    RunPaused,
    RunResumed,
    RunEnded,
}

impl FactKey {
    /// The key of a fact.
    pub fn of(fact: &Fact) -> Self {
        let of_run = |fact| Self { fact, path: StepPath::root(), turn: 0, ordinal: None, role: None };
        let of_step = |fact, path: &StepPath, turn: u32| Self { path: path.clone(), turn, ..of_run(fact) };
        match fact {
            Fact::RunStarted { .. } => of_run(FactKind::RunStarted),
            Fact::StepSkipped { path, turn, .. } => of_step(FactKind::StepSkipped, path, *turn),
            Fact::AttemptStarted { path, turn, .. } => of_step(FactKind::AttemptStarted, path, *turn),
            Fact::EffectDone { path, turn, ordinal, .. } => {
                Self { ordinal: Some(*ordinal), ..of_step(FactKind::EffectDone, path, *turn) }
            }
            Fact::SpendReserved { path, turn, ordinal, .. } => {
                Self { ordinal: Some(*ordinal), ..of_step(FactKind::SpendReserved, path, *turn) }
            }
            Fact::AttemptEnded { path, turn, .. } => of_step(FactKind::AttemptEnded, path, *turn),
            Fact::TimerFired { path, turn, role } => {
                Self { role: Some(*role), ..of_step(FactKind::TimerFired, path, *turn) }
            }
            Fact::RunPaused { .. } => of_run(FactKind::RunPaused),
            Fact::RunResumed { .. } => of_run(FactKind::RunResumed),
            Fact::RunEnded { .. } => of_run(FactKind::RunEnded),
        }
    }

    /// The key of the fact that an attempt began.
    pub fn start_of(key: &OpKey) -> Self {
        let (path, turn) = (key.path.clone(), key.turn);
        Self { fact: FactKind::AttemptStarted, path, turn, ordinal: None, role: None }
    }

    /// The key of the fact that completes an operation, if it is not skipped.
    pub fn end_of(key: &OpKey) -> Self {
        let (fact, role) = match key.role {
            OpRole::Attempt => (FactKind::AttemptEnded, None),
            role => (FactKind::TimerFired, Some(role)),
        };
        Self { fact, path: key.path.clone(), turn: key.turn, ordinal: None, role }
    }

    /// The operation that it is about.
    pub fn operation(&self) -> OpKey {
        OpKey { path: self.path.clone(), turn: self.turn, role: self.role.unwrap_or(OpRole::Attempt) }
    }
}

impl Moment {
    /// What a tape keeps of a record.
    pub fn of(record: &Record) -> Self {
        let end = match &record.fact {
            Fact::AttemptEnded { end, .. } => Some(RecordedEnd {
                status: end.status,
                duration_ms: end.duration_ms,
                unsettled: end.unsettled,
                put_back: end.put_back,
            }),
            _ => None,
        };
        let spend = match &record.fact {
            Fact::SpendReserved { spend, .. } => Some(*spend),
            _ => None,
        };
        let time = RunTime { at: record.at, elapsed_ms: record.elapsed_ms };
        Self { index: record.index, key: FactKey::of(&record.fact), time, end, spend }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(turn: &u32) -> bool {
    *turn == 0
}
