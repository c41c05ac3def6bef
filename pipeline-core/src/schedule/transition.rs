//! The one table of legal transitions of an operation.
//!
//! Owns [`OpState`] and [`Mismatch`]. Live running and replay go through the same table, so a journal that does not belong
//! to its plan is refused instead of being half believed.

use crate::fact::OpResult;
use crate::path::OpKey;
use crate::schedule::Op;

/// What is known of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpState {
    /// Never started, or completed already.
    Unknown,
    /// An attempt that was started or settled.
    Attempt,
    /// A skip that waits for its record.
    Skip,
    /// A timer that runs.
    Timer,
}

impl OpState {
    /// The state of an operation that has just been started.
    pub(super) fn of(op: &Op) -> Self {
        match op {
            Op::Task(_) | Op::Settle(_) | Op::Ask(_) => Self::Attempt,
            Op::Skip { .. } => Self::Skip,
            Op::Timer { .. } | Op::Park { .. } => Self::Timer,
        }
    }
}

/// A completion that the plan does not expect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot {result} while it is {state}")]
pub struct Mismatch {
    /// The operation.
    pub key: OpKey,
    /// What is known of it.
    pub state: &'static str,
    /// What came.
    pub result: &'static str,
}

/// Checks a completion against the table.
pub(super) fn check(key: &OpKey, state: OpState, result: &OpResult) -> Result<(), Mismatch> {
    let legal = match (state, result) {
        (OpState::Attempt, OpResult::Ended(_))
        | (OpState::Skip, OpResult::Skipped)
        // A timer that does not run any more was stopped by what was recorded together with it.
        | (OpState::Timer | OpState::Unknown, OpResult::Fired) => true,
        (OpState::Unknown | OpState::Attempt | OpState::Skip | OpState::Timer, _) => false,
    };
    if legal {
        return Ok(());
    }
    let state = match state {
        OpState::Unknown => "not running",
        OpState::Attempt => "an attempt",
        OpState::Skip => "being skipped",
        OpState::Timer => "a timer",
    };
    let result = match result {
        OpResult::Ended(_) => "end",
        OpResult::Skipped => "be skipped",
        OpResult::Fired => "fire",
    };
    Err(Mismatch { key: key.clone(), state, result })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::fact::AttemptEnd;
    use crate::path::{OpRole, StepPath};

    /// Naive: a completion that the plan does not expect is believed, and the rest of the journal with it.
    #[test]
    fn the_table_is_what_it_is() {
        use OpState::{Attempt, Skip, Timer, Unknown};
        let ended = OpResult::Ended(Box::new(AttemptEnd::stopped()));
        let key = OpKey { path: StepPath::from("a"), turn: 1, role: OpRole::Attempt };
        let legal = |state, result: &OpResult| check(&key, state, result).is_ok();
        for (result, states) in [
            (&ended, &[Attempt][..]),
            (&OpResult::Skipped, &[Skip][..]),
            (&OpResult::Fired, &[Timer, Unknown][..]),
        ] {
            for state in [Unknown, Attempt, Skip, Timer] {
                assert_eq!(legal(state, result), states.contains(&state), "{state:?} {result:?}");
            }
        }
        let told = check(&key, Timer, &ended).unwrap_err().to_string();
        assert!(told.ends_with("cannot end while it is a timer"), "{told}");
    }
}
