//! What a new run of a file can take over from an earlier run, and why the rest would run.
//!
//! Owns [`reuse`]: the earlier run's facts are given to a schedule of the new plan, in the order in which they happened,
//! for as long as it asks for the same as before. `plan --against` tells what came of that, `resume --with` does it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;
use pipeline_core::engine::RunSetup;
use pipeline_core::fact::{Fact, OpResult, Outcome, Record, Status};
use pipeline_core::path::{OpKey, OpRole};
use pipeline_core::plan::Plan;
use pipeline_core::schedule::{Command, Op, Schedule};
use pipeline_core::value::Hash;

/// What becomes of each top-level step: the number of its attempts that are reused, or why it runs.
pub type Verdicts = IndexMap<String, Result<usize, String>>;

/// What can be taken over.
pub struct Reuse {
    /// By top-level step.
    pub verdicts: Verdicts,
    /// Positions of the records that a new run begins with, in its order.
    pub records: Vec<usize>,
}

/// What a run of `plan` takes over from `records`; the top-level steps `again` run anew whatever they were.
pub fn reuse(plan: &Arc<Plan>, setup: &RunSetup, records: &[Record], again: &BTreeSet<String>) -> Reuse {
    let mut fold =
        Fold { earlier: Earlier::of(records), again, refused: IndexMap::new(), reusable: BinaryHeap::new() };
    let mut schedule = Schedule::new(Arc::clone(plan), setup.start());
    let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
    let mut taken = Vec::new();
    fold.absorb(schedule.decide());
    while let Some(Reverse((place, key))) = fold.reusable.pop() {
        let Some(known) = fold.earlier.ended.get(&key) else { continue };
        if schedule.apply(&key, known.outcome.clone()).is_err() {
            break;
        }
        if matches!(known.outcome.result, OpResult::Ended(_)) {
            *attempts.entry(top(&key)).or_default() += 1;
        }
        taken.push((place, key));
        fold.absorb(schedule.decide());
    }
    Reuse { verdicts: verdicts(plan, &schedule, &fold.refused, &attempts), records: fold.order(taken) }
}

/// The top-level step that an operation belongs to; empty for the run's own.
fn top(key: &OpKey) -> String {
    key.path.as_str().split(['/', '[']).next().unwrap_or_default().to_owned()
}

fn verdicts(
    plan: &Plan,
    schedule: &Schedule,
    refused: &IndexMap<OpKey, (Op, String)>,
    attempts: &BTreeMap<String, usize>,
) -> Verdicts {
    let ended: HashMap<String, bool> =
        schedule.top_level().into_iter().map(|(name, done)| (name, done.is_some())).collect();
    let first = refused.keys().next().map(top);
    let names = plan.block(plan.root().body).steps.iter().map(|id| plan.step(*id).name.to_string());
    let verdict = |name: String| {
        let why = refused.iter().find(|(key, _)| top(key) == name);
        let verdict = match (why, &first) {
            (Some((key, (_, why))), _) => Err(format!("{}: {why}", key.path)),
            _ if ended.get(&name) == Some(&true) => Ok(attempts.get(&name).copied().unwrap_or(0)),
            (None, Some(before)) => Err(format!("`{before}` runs before it and may give something else")),
            (None, None) => Err("the earlier run did not reach it".to_owned()),
        };
        (name, verdict)
    };
    names.map(verdict).collect()
}

/// What is known of the earlier run.
struct Earlier {
    ended: HashMap<OpKey, Known>,
    /// Where each attempt began and did its effects, with its fingerprint.
    begun: HashMap<OpKey, (Hash, Vec<usize>)>,
    /// What is in the files now that were read then; nothing where a file is gone.
    files: HashMap<String, Option<Hash>>,
}

struct Known {
    place: usize,
    fingerprint: Option<Hash>,
    outcome: Outcome,
}

impl Earlier {
    fn of(records: &[Record]) -> Self {
        let mut earlier = Self { ended: HashMap::new(), begun: HashMap::new(), files: HashMap::new() };
        for (place, record) in records.iter().enumerate() {
            let attempt = |path: &pipeline_core::path::StepPath, turn: u32| OpKey {
                path: path.clone(),
                turn,
                role: OpRole::Attempt,
            };
            match &record.fact {
                Fact::AttemptStarted { path, turn, fingerprint, .. } => {
                    let begun =
                        earlier.begun.entry(attempt(path, *turn)).or_insert((*fingerprint, Vec::new()));
                    begun.0 = *fingerprint;
                    begun.1.push(place);
                }
                Fact::EffectDone { path, turn, .. } | Fact::SpendReserved { path, turn, .. } => {
                    if let Some(begun) = earlier.begun.get_mut(&attempt(path, *turn)) {
                        begun.1.push(place);
                    }
                }
                _ => {}
            }
            if let Fact::AttemptEnded { end, .. } = &record.fact {
                for path in end.files.keys() {
                    let now = || std::fs::read(path).ok().map(|content| Hash::of_bytes(&content));
                    earlier.files.entry(path.clone()).or_insert_with(now);
                }
            }
            if let Some((key, outcome)) = record.completion() {
                let fingerprint = match &record.fact {
                    Fact::AttemptEnded { fingerprint, .. } => Some(*fingerprint),
                    _ => None,
                };
                earlier.ended.insert(key, Known { place, fingerprint, outcome });
            }
        }
        earlier
    }

    /// Where the outcome of an operation stands, if the same was asked for and it succeeded.
    fn reusable(&self, key: &OpKey, op: &Op) -> Result<usize, String> {
        let Some(known) = self.ended.get(key) else {
            return Err(match op {
                Op::Task(call) if self.went_on(key, call.fingerprint) => {
                    "it had begun and not ended".to_owned()
                }
                Op::Timer { .. } => "it waits before it is tried again".to_owned(),
                _ => "it has not run before".to_owned(),
            });
        };
        match (op, &known.outcome.result) {
            (Op::Timer { .. }, OpResult::Fired) | (Op::Skip { .. }, OpResult::Skipped) => Ok(known.place),
            (Op::Task(call), OpResult::Ended(end)) if known.fingerprint == Some(call.fingerprint) => {
                let is_as_it_was = |(path, then): &(&String, &Hash)| {
                    self.files.get(*path).copied().flatten() == Some(**then)
                };
                if let Some((path, _)) = end.files.iter().find(|file| !is_as_it_was(file)) {
                    return Err(format!("{path} is not what it was"));
                }
                // A failed attempt that was tried again is part of what succeeded in the end.
                let later = OpKey { turn: key.turn + 1, ..key.clone() };
                if end.status.is_success() || self.ended.contains_key(&later) {
                    Ok(known.place)
                } else {
                    Err(format!("it ended as {}", end.status.name()))
                }
            }
            (Op::Task(_), OpResult::Ended(_)) => Err("it is asked for something else than before".to_owned()),
            (Op::Ask(_), _) => Err("a person is asked again".to_owned()),
            (_, OpResult::Skipped) => Err("it was skipped before".to_owned()),
            _ => Err("it came out otherwise before".to_owned()),
        }
    }

    /// An attempt at the same thing began and has no end: what it has done need not be done again.
    fn went_on(&self, key: &OpKey, fingerprint: Hash) -> bool {
        !self.ended.contains_key(key) && self.begun.get(key).is_some_and(|(same, _)| *same == fingerprint)
    }
}

struct Fold<'a> {
    earlier: Earlier,
    again: &'a BTreeSet<String>,
    /// What is not taken over, in the order in which it would start.
    refused: IndexMap<OpKey, (Op, String)>,
    reusable: BinaryHeap<Reverse<(usize, OpKey)>>,
}

impl Fold<'_> {
    fn absorb(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                // A deadline that has not passed is no work, and one that has was part of a failure.
                Command::Start(key, _) if key.role == OpRole::Deadline => {}
                Command::Start(key, op) => {
                    let found = if self.again.contains(&top(&key)) {
                        Err("it is asked to run again".to_owned())
                    } else {
                        self.earlier.reusable(&key, &op)
                    };
                    match found {
                        Ok(place) => self.reusable.push(Reverse((place, key))),
                        Err(why) => drop(self.refused.insert(key, (op, why))),
                    }
                }
                Command::Cancel(key) => self.cancelled(&key),
            }
        }
    }

    /// An attempt that is stopped completes once all the same: as it did before, if it was stopped then.
    fn cancelled(&mut self, key: &OpKey) {
        let Some((op, why)) = self.refused.shift_remove(key) else { return };
        if key.role != OpRole::Attempt {
            return;
        }
        let known = self.earlier.ended.get(key).filter(
            |known| matches!(&known.outcome.result, OpResult::Ended(end) if end.status == Status::Cancelled),
        );
        match known {
            Some(known) => self.reusable.push(Reverse((known.place, key.clone()))),
            None => drop(self.refused.insert(key.clone(), (op, why))),
        }
    }

    /// The records of what is taken over. Each end stands where it was taken; what leads to it stands before it, and what
    /// was begun and not ended stays begun.
    fn order(&self, taken: Vec<(usize, OpKey)>) -> Vec<usize> {
        let mut begun: BTreeSet<usize> = BTreeSet::new();
        let mut keep = |key: &OpKey| begun.extend(self.earlier.begun.get(key).into_iter().flat_map(|b| &b.1));
        for (_, key) in &taken {
            keep(key);
        }
        for (key, (op, _)) in &self.refused {
            let is_again = self.again.contains(&top(key));
            if matches!(op, Op::Task(call) if !is_again && self.earlier.went_on(key, call.fingerprint)) {
                keep(key);
            }
        }
        let mut order = Vec::new();
        for (place, _) in taken {
            let later = begun.split_off(&place);
            order.extend(std::mem::replace(&mut begun, later));
            order.push(place);
        }
        order.extend(begun);
        order
    }
}
