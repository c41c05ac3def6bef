//! Quotas: an account that is used up stops whatever needs it, and nothing else.
//!
//! The step that found out waits with a timer of its own; steps that would use the same account are held back until that
//! timer fires. No try is used up by it.

use std::time::Duration;

use crate::error::{ErrorKind, StepError};
use crate::path::{OpKey, OpRole};
use crate::schedule::state::{InstId, StepState};
use crate::schedule::{Op, Schedule};
use crate::value::Data;

/// Longest wait between two tries that a service can ask for. A rate limit that asks for more is a quota: the run is put down
/// instead of waiting. Of other errors the rest of the hint is not followed, so that every wait has an end that is known.
pub const LONG: Duration = Duration::from_mins(5);

/// When to look again at a quota that does not say when it is renewed.
const UNTOLD: Duration = Duration::from_mins(15);

/// How long a used-up account asks to be left alone; `None` when the error says nothing of the kind. A rate limit that asks
/// for minutes is one too.
pub fn asks_to_park(error: &StepError) -> Option<Duration> {
    let told = error.retry_after_ms.map(Duration::from_millis);
    match error.kind {
        ErrorKind::Quota => Some(told.unwrap_or(UNTOLD)),
        ErrorKind::RateLimited => told.filter(|wait| *wait > LONG),
        _ => None,
    }
}

/// The account that a leaf's configuration uses: its provider's.
pub(super) fn account(with: &Data) -> Option<String> {
    with.get("prompt")?;
    let provider = with.get("provider");
    Some(provider.as_ref().and_then(|provider| provider.json().as_str()).unwrap_or("claude").to_owned())
}

impl Schedule {
    /// Puts a step whose account is used up down until it is renewed.
    pub(super) fn park(&mut self, id: InstId, error: &StepError) {
        let wait = asks_to_park(error).unwrap_or(UNTOLD);
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let until = crate::clock::Timestamp(self.now.0.saturating_add(wait));
        let inst = self.inst(id);
        let key = OpKey { path: inst.path.clone(), turn: inst.turn, role: OpRole::Park };
        let account = inst.account.clone().unwrap_or_default();
        self.parked.entry(account.clone()).or_default();
        let inst = self.inst_mut(id);
        inst.state = StepState::Parked(account);
        inst.op = Some(key.clone());
        self.start_op(Some(id), key, Op::Park { until, message: error.message.clone() });
    }

    /// Holds a step back whose account is used up.
    pub(super) fn is_held_back(&mut self, id: InstId, with: &Data) -> bool {
        let account = account(with);
        let held = account.as_ref().and_then(|account| self.parked.get_mut(account));
        let is_held = held.map(|waiting| waiting.push(id)).is_some();
        let inst = self.inst_mut(id);
        inst.account = account;
        if is_held {
            inst.state = StepState::HeldBack;
        }
        is_held
    }

    /// An account may be used again: whoever waits for it may start.
    pub(super) fn unpark(&mut self, id: InstId) {
        if let StepState::Parked(account) = &self.inst(id).state {
            let held = self.parked.remove(&account.clone()).unwrap_or_default();
            for id in held {
                self.inst_mut(id).state = StepState::Ready;
                self.ready.push_back(id);
            }
        }
    }

    /// A step that is held back, or parked, is stopped.
    pub(super) fn leave_account(&mut self, id: InstId) {
        self.unpark(id);
        for waiting in self.parked.values_mut() {
            waiting.retain(|other| *other != id);
        }
    }
}
