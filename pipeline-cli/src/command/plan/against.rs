//! Which steps of an earlier run a new run of a file would reuse, and why the others would run.
//!
//! The earlier run's facts are given to a schedule of the new plan for as long as it asks for the same as before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;
use pipeline_core::engine::RunSetup;
use pipeline_core::fact::{Fact, OpResult, Outcome, Record};
use pipeline_core::path::{OpKey, OpRole};
use pipeline_core::plan::Plan;
use pipeline_core::schedule::{Command, Op, Schedule};
use pipeline_core::value::Hash;

/// What becomes of a top-level step; why, when it runs.
pub type Verdicts = IndexMap<String, Result<usize, String>>;

/// For each top-level step the number of its attempts that would be reused, or why it would run.
pub fn against(plan: &Arc<Plan>, setup: &RunSetup, records: &[Record]) -> Verdicts {
    let mut schedule = Schedule::new(Arc::clone(plan), setup.start());
    let mut known: HashMap<OpKey, (Option<Hash>, Outcome)> = HashMap::new();
    for record in records {
        let Some((key, outcome)) = record.completion() else { continue };
        let fingerprint = match &record.fact {
            Fact::AttemptEnded { fingerprint, .. } => Some(*fingerprint),
            _ => None,
        };
        known.insert(key, (fingerprint, outcome));
    }
    let mut reasons: BTreeMap<String, String> = BTreeMap::new();
    let mut reused: BTreeMap<String, usize> = BTreeMap::new();
    let mut commands = schedule.decide();
    let mut open = std::collections::VecDeque::new();
    loop {
        open.extend(commands.drain(..));
        let Some(command) = open.pop_front() else { break };
        let Command::Start(key, op) = command else { continue };
        let top = key.path.as_str().split(['/', '[']).next().unwrap_or_default().to_owned();
        match reusable(&key, &op, &known) {
            Ok(outcome) => {
                *reused.entry(top).or_default() += usize::from(matches!(outcome.result, OpResult::Ended(_)));
                if schedule.apply(&key, outcome).is_err() {
                    break;
                }
                commands = schedule.decide();
            }
            Err(why) => {
                reasons.entry(top).or_insert(format!("{}: {why}", key.path));
            }
        }
    }
    let ended: HashMap<String, bool> =
        schedule.top_level().into_iter().map(|(name, done)| (name, done.is_some())).collect();
    let first = reasons.keys().next().cloned();
    let names = plan.block(plan.root().body).steps.iter().map(|id| plan.step(*id).name.to_string());
    let verdict = |name: String| {
        let verdict = match reasons.remove(&name) {
            Some(why) => Err(why),
            None if ended.get(&name) == Some(&true) => Ok(reused.get(&name).copied().unwrap_or(0)),
            None => Err(match &first {
                Some(before) => format!("`{before}` runs before it and may give something else"),
                None => "the earlier run did not reach it".to_owned(),
            }),
        };
        (name, verdict)
    };
    names.map(verdict).collect()
}

/// The recorded outcome of an operation, if the same was asked for and it succeeded.
fn reusable(
    key: &OpKey,
    op: &Op,
    known: &HashMap<OpKey, (Option<Hash>, Outcome)>,
) -> Result<Outcome, String> {
    let found = known.get(key);
    match (op, found) {
        (Op::Timer { .. }, Some((_, outcome))) if key.role == OpRole::Wait => Ok(outcome.clone()),
        (Op::Timer { .. }, _) => Err("it waits".to_owned()),
        (Op::Skip { .. }, Some((_, outcome))) if matches!(outcome.result, OpResult::Skipped) => {
            Ok(outcome.clone())
        }
        (Op::Task(call), Some((fingerprint, outcome))) => match &outcome.result {
            OpResult::Ended(end) if *fingerprint == Some(call.fingerprint) => {
                // A failed attempt that was tried again is part of what succeeded in the end.
                let later = OpKey { turn: key.turn + 1, ..key.clone() };
                if end.status.is_success() || known.contains_key(&later) {
                    Ok(outcome.clone())
                } else {
                    Err(format!("it ended as {}", end.status.name()))
                }
            }
            OpResult::Ended(_) => Err("it is asked for something else than before".to_owned()),
            _ => Err("it was skipped before".to_owned()),
        },
        (_, None) => Err("it has not run before".to_owned()),
        _ => Err("it came out otherwise before".to_owned()),
    }
}
