//! How many calls a step has made to the mock.
//!
//! Owns [`CallLog`]. The numbers are per step path and go on across retries of the step.
//!
//! After a resume nothing is left of what an earlier process counted, and calls whose results are in the journal do not
//! reach a provider again. The log makes up for it with what the operation's key tells: attempt *t* comes after at
//! least one call in each attempt before it. So numbers are the same before and after a resume for steps that make one
//! call in an attempt, which is nearly all, and for those of an attempt that a crash cut off in the middle (a tool loop): how many
//! of its calls were answered from the journal is known. One limit stays: an attempt that ended before the crash counts as
//! one call, also if it made several. Calls that one attempt makes at the same time are numbered in the order in which they begin.
//!
//! Must not know rules or answers: a rule is a number here.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::Mutex;
use pipeline_core::path::StepPath;
use pipeline_core::step::StepContext;

/// Index of the rule that answered; `None` = the built-in answer.
pub(crate) type Answered = Option<usize>;

/// A call that went before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// This process made it.
    Seen(Answered),
    /// It happened before a resume.
    Unseen,
}

/// Calls of one logical attempt.
#[derive(Debug, Default)]
struct Turn {
    /// The physical attempt that made them. A later one starts over.
    attempt: u32,
    answered: Vec<Answered>,
}

/// Most runs whose calls are remembered. A process that makes runs for years must not remember all of them, and nobody makes
/// so many at once on mocks.
const RUNS: usize = 1024;

/// Calls of one run, by step path.
type Steps = HashMap<StepPath, BTreeMap<u32, Turn>>;

/// Calls by run. Shared by the mocks of a catalog.
#[derive(Debug, Default)]
pub(crate) struct CallLog(Mutex<Runs>);

#[derive(Debug, Default)]
struct Runs {
    steps: HashMap<String, Steps>,
    /// The order in which they began.
    order: VecDeque<String>,
}

impl Runs {
    /// What a run has called; the oldest run is forgotten for a new one that is too many.
    fn of(&mut self, run: &str) -> &mut Steps {
        if !self.steps.contains_key(run) {
            if self.order.len() >= RUNS
                && let Some(oldest) = self.order.pop_front()
            {
                self.steps.remove(&oldest);
            }
            self.order.push_back(run.to_owned());
        }
        self.steps.entry(run.to_owned()).or_default()
    }
}

impl CallLog {
    /// Adds a call that a server answers: it knows of no attempts, so that calls of a step are numbered as they come.
    #[cfg(feature = "mock-server")]
    pub(crate) fn serve(&self, step: &str, choose: impl FnOnce(&[Past]) -> Answered) -> (u64, Answered) {
        let mut runs = self.0.lock();
        let turns = runs.of("").entry(step.into()).or_default();
        let answered = &mut turns.entry(0).or_default().answered;
        let past: Vec<Past> = answered.iter().map(|a| Past::Seen(*a)).collect();
        let chosen = choose(&past);
        answered.push(chosen);
        (u64::try_from(past.len()).unwrap_or(u64::MAX).saturating_add(1), chosen)
    }

    /// Adds a call, answered by what `choose` makes of the calls before it; returns its number, from 1, and the answer.
    pub(crate) fn add(&self, cx: &StepContext, choose: impl FnOnce(&[Past]) -> Answered) -> (u64, Answered) {
        let mut runs = self.0.lock();
        let turns = runs.of(&cx.run.id).entry(cx.key.path.clone()).or_default();
        let current = turns.entry(cx.key.turn).or_default();
        if current.attempt != cx.attempt {
            *current = Turn { attempt: cx.attempt, answered: Vec::new() };
        }
        let recalled = cx.recalled() as usize;
        let past: Vec<Past> = (cx.key.turn.min(1)..=cx.key.turn)
            .flat_map(|turn| {
                let seen = turns.get(&turn).map(|turn| turn.answered.as_slice());
                let unseen = if turn == cx.key.turn { recalled } else { usize::from(seen.is_none()) };
                let seen = seen.unwrap_or_default().iter().map(|answered| Past::Seen(*answered));
                std::iter::repeat_n(Past::Unseen, unseen).chain(seen)
            })
            .collect();
        let answered = choose(&past);
        if let Some(current) = turns.get_mut(&cx.key.turn) {
            current.answered.push(answered);
        }
        (u64::try_from(past.len()).unwrap_or(u64::MAX).saturating_add(1), answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Naive: what was called is kept for every run that there ever was.
    #[test]
    fn x19_calls_of_old_runs_are_forgotten() {
        let mut runs = Runs::default();
        for number in 0..RUNS + 10 {
            runs.of(&format!("r{number}")).entry("s".into()).or_default();
        }
        assert_eq!((runs.steps.len(), runs.order.len()), (RUNS, RUNS));
        assert!(runs.steps.contains_key("r10") && !runs.steps.contains_key("r9"));
    }
}
