//! Timers of one run, on its elapsed milliseconds.
//!
//! Owns [`Timers`]. Must not know clocks: whoever asks says how late it is.

use std::collections::{BTreeMap, HashMap};

use crate::path::{OpKey, OpRole};

/// The timers that run.
#[derive(Default)]
pub(super) struct Timers {
    /// By time, then in the order in which they were started.
    due: BTreeMap<(u64, u64), OpKey>,
    places: HashMap<OpKey, (u64, u64)>,
    serial: u64,
}

impl Timers {
    pub(super) fn start(&mut self, key: OpKey, until_ms: u64) {
        self.serial += 1;
        let place = (until_ms, self.serial);
        self.places.insert(key.clone(), place);
        self.due.insert(place, key);
    }

    /// Stops a timer; false when it does not run.
    pub(super) fn stop(&mut self, key: &OpKey) -> bool {
        self.places.remove(key).is_some_and(|place| self.due.remove(&place).is_some())
    }

    /// When the next is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first_key_value().map(|(place, _)| place.0)
    }

    /// Takes the first that is due.
    pub(super) fn take_due(&mut self, elapsed_ms: u64) -> Option<OpKey> {
        let (_, key) = self.due.first_entry().filter(|first| first.key().0 <= elapsed_ms)?.remove_entry();
        self.places.remove(&key);
        Some(key)
    }

    /// Whether nothing but deadlines is waited for.
    pub(super) fn are_deadlines(&self) -> bool {
        self.due.values().all(|key| key.role == OpRole::Deadline)
    }
}
