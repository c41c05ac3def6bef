//! Folding recorded facts into a schedule: what resume, `runs show` and the report have in common.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::engine::effect::DoneEffect;
use crate::fact::{Fact, Record};
use crate::path::{OpKey, OpRole, StepPath};
use crate::plan::Effects;
use crate::planted::{Bug, planted};
use crate::schedule::{Command, Mismatch, Op, Schedule};

/// Operations that were started and have not completed, in the order in which they were started.
#[derive(Debug, Default)]
pub struct Pending {
    order: BTreeMap<u64, (OpKey, Op)>,
    by_key: HashMap<OpKey, u64>,
    cancelled: Vec<OpKey>,
    next: u64,
}

impl Pending {
    fn absorb(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Start(key, op) => {
                    self.by_key.insert(key.clone(), self.next);
                    self.order.insert(self.next, (key, op));
                    self.next += 1;
                }
                Command::Cancel(key) if key.role == OpRole::Attempt => self.cancelled.push(key),
                Command::Cancel(key) => self.remove(&key),
            }
        }
    }

    fn remove(&mut self, key: &OpKey) {
        if let Some(place) = self.by_key.remove(key) {
            self.order.remove(&place);
        }
    }

    /// Gives back to the schedule what it started while nobody looked at limits, and what no process ever began: it is
    /// decided anew.
    pub fn give_back(&mut self, schedule: &mut Schedule, begun: &[OpKey]) {
        let begun: HashSet<&OpKey> = begun.iter().chain(&self.cancelled).collect();
        let tasks = self.order.values().filter(|(key, op)| matches!(op, Op::Task(_)) && !begun.contains(key));
        let unbegun: Vec<OpKey> = tasks.map(|(key, _)| key.clone()).collect();
        // From the last to the first: each goes to the front of the queue.
        for key in unbegun.iter().rev() {
            if schedule.take_back(key) {
                self.remove(key);
            }
        }
    }

    /// The operations, in order.
    pub fn operations(&self) -> impl Iterator<Item = &(OpKey, Op)> {
        self.order.values()
    }

    /// The operations in order, and those among them that were asked to stop.
    pub fn into_parts(self) -> (Vec<(OpKey, Op)>, Vec<OpKey>) {
        (self.order.into_values().collect(), self.cancelled)
    }
}

/// Folds records into a fresh schedule.
///
/// # Errors
/// [`Mismatch`] when a record does not fit the plan.
pub fn replay(schedule: &mut Schedule, records: &[Record]) -> Result<Pending, Mismatch> {
    let mut pending = Pending::default();
    pending.absorb(schedule.decide());
    let known = if planted(Bug::ForgetLast) { records.len().saturating_sub(1) } else { records.len() };
    for record in &records[..known] {
        if let Some((key, outcome)) = record.completion() {
            schedule.apply(&key, outcome)?;
            pending.remove(&key);
            pending.absorb(schedule.decide());
        }
    }
    schedule.take_progress();
    Ok(pending)
}

/// What is known of physical attempts from the records: needed where one was cut off.
#[derive(Debug, Default)]
pub struct Attempts {
    /// For a step instance, how far physical attempt numbers are ahead of logical ones.
    pub ahead: HashMap<StepPath, u32>,
    /// Finished effects of logical attempts that have not ended.
    pub effects: HashMap<OpKey, Vec<DoneEffect>>,
    /// Logical attempts that began and have no end.
    pub cut: Vec<OpKey>,
}

impl Attempts {
    /// Reads the records for what concerns `pending`.
    pub fn of(pending: &Pending, records: &[Record]) -> Self {
        let mut attempts = Self::default();
        for record in records {
            match &record.fact {
                Fact::AttemptStarted { path, attempt, turn, .. } => {
                    let key = OpKey { path: path.clone(), turn: *turn, role: OpRole::Attempt };
                    if pending.by_key.contains_key(&key) {
                        attempts.ahead.insert(path.clone(), attempt + 1 - turn);
                        attempts.cut.retain(|k| *k != key);
                        attempts.cut.push(key);
                    } else if attempt > turn {
                        attempts.ahead.insert(path.clone(), attempt - turn);
                    }
                }
                Fact::EffectDone { path, turn, name, ordinal, request, value, usage, .. } => {
                    let key = OpKey { path: path.clone(), turn: *turn, role: OpRole::Attempt };
                    let done = DoneEffect {
                        ordinal: *ordinal,
                        name: name.clone(),
                        request: *request,
                        value: value.clone(),
                        usage: *usage,
                        is_counted: false,
                    };
                    let list = attempts.effects.entry(key).or_default();
                    list.retain(|d| d.ordinal != done.ordinal);
                    list.push(done);
                }
                Fact::AttemptEnded { path, turn, end, .. } => {
                    let key = OpKey { path: path.clone(), turn: *turn, role: OpRole::Attempt };
                    let done = attempts.effects.remove(&key);
                    if let Some(mut done) = done.filter(|_| end.put_back) {
                        // The next attempt goes on where this one was put back.
                        for effect in &mut done {
                            effect.is_counted = true;
                        }
                        attempts.effects.insert(OpKey { turn: turn + 1, ..key }, done);
                    }
                }
                _ => {}
            }
        }
        attempts.effects.retain(|key, _| pending.by_key.contains_key(key));
        attempts
    }

    /// The pending attempts that were cut off and must not simply run again.
    pub fn once(&self, pending: &Pending) -> Vec<OpKey> {
        let is_once = |op: &Op| matches!(op, Op::Task(call) if call.effects == Effects::Once);
        let cut = pending.operations().filter(|(key, op)| is_once(op) && self.cut.contains(key));
        cut.map(|(key, _)| key.clone()).collect()
    }
}
