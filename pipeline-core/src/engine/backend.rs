//! The seam between the schedule and whatever does the work.
//!
//! Owns [`Backend`] and [`drive`], the whole loop between the two. The embedded backend is `embedded.rs`; a distributed
//! durable-execution engine is another, with the same three methods.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::event::Progress;
use crate::fact::Outcome;
use crate::path::{OpKey, StepPath};
use crate::schedule::{Command, Mismatch, Op, Schedule};
use crate::store::StoreError;

/// Does operations and says what came of them.
///
/// Errors of steps travel inside outcomes, as data. Every started attempt completes exactly once: by itself, or as
/// cancelled after [`Backend::cancel`]. A cancelled timer never completes. A completion is durable before `next`
/// gives it.
#[async_trait]
pub trait Backend: Send {
    /// Starts an operation. Never blocks.
    fn start(&mut self, key: OpKey, op: Op);

    /// Asks an operation to stop.
    fn cancel(&mut self, key: &OpKey);

    /// The next completion.
    async fn next(&mut self) -> Result<(OpKey, Outcome), Stop>;

    /// Progress of control forms, for whoever watches. Dropped by default.
    fn progress(&mut self, progress: Vec<Progress>) {
        drop(progress);
    }
}

/// Why a run cannot go on now, although it has not ended.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Somebody asked for it.
    #[error("interrupted")]
    Interrupted,
    /// A budget is used up, and nothing is in flight any more.
    #[error("{0}")]
    Budget(String),
    /// A person must decide.
    #[error("{path}: {message}")]
    Person {
        /// Which step.
        path: StepPath,
        /// What is asked.
        message: String,
    },
    /// An account's quota is used up, and there is nothing else to do.
    #[error("{message}; it can go on at {until}")]
    Parked {
        /// Wall time to go on at.
        until: Timestamp,
        /// Whose, for people.
        message: String,
    },
    /// The journal cannot be written. Nothing after this is acknowledged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal and the plan do not belong together.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

/// Runs a schedule on a backend until its plan has ended.
///
/// # Errors
/// [`Stop`] when it cannot go on now.
pub async fn drive(schedule: &mut Schedule, backend: &mut dyn Backend) -> Result<(), Stop> {
    loop {
        for command in schedule.decide() {
            match command {
                Command::Start(key, op) => backend.start(key, op),
                Command::Cancel(key) => backend.cancel(&key),
            }
        }
        backend.progress(schedule.take_progress());
        if schedule.ended().is_some() {
            return Ok(());
        }
        if let Some(message) = schedule.halted() {
            return Err(Stop::Budget(message.to_owned()));
        }
        let (key, outcome) = backend.next().await?;
        schedule.apply(&key, outcome)?;
    }
}
