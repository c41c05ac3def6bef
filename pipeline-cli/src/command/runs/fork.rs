//! `pipeline runs fork`: a new run that takes over what an earlier one did, up to a step.
//!
//! The facts of the steps that stay are written into the journal of a new run, which is then resumed: so a fork is a
//! run like any other, and its own forks and resumes work as well.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_core::clock::{Clock, SystemClock, Timestamp};
use pipeline_core::diagnostic::closest;
use pipeline_core::fact::{AttemptEnd, Fact, Record};
use pipeline_core::path::StepPath;
use pipeline_core::plan::{Body, Plan, StepPlan};
use pipeline_core::store::{CheckpointStore, Manifest, StoreError, StoredSources};
use pipeline_core::value::{Data, Hash, Value};
use serde_json::json;

use super::Place;
use crate::app::App;
use crate::args::{Fork, Resume};
use crate::command::resume::{compile_again, mode_of, resume};
use crate::command::run::new_id;
use crate::exit::{Exit, Failure};
use crate::inputs;
use crate::setup::Kept;

/// Begins the new run and works on it.
///
/// # Errors
/// [`Failure`] when nothing would be different, or when the new run could not be worked on.
pub(super) async fn fork(place: &Place<'_>, args: &Fork) -> Result<Exit, Failure> {
    let app = place.app;
    let stored = place.read(Some(&args.run)).await?;
    let old = &stored.manifest;
    let mut kept = Kept::of(old)?;
    let (mode, rules) = mode_of(app, old, &kept, &args.mock)?;
    kept.allow(&args.permissions, &app.settings);
    kept.limit(&args.limits);
    kept.until = None;
    kept.forked_from = Some(old.run_id.clone());
    // A tape is of one run: what a recorded one did is not told by the tape of another. A replay stays one.
    kept.taping = kept.taping.take().filter(|taping| taping.replayed().is_some());
    let kinds = app.kinds(mode, rules.as_ref())?;
    let plan = compile_again(app, old, &stored.sources, &kinds)?;
    let given = inputs::variables(&args.set, &app.settings.working)
        .map_err(|failure| failure.help("write --set STEP=VALUE or --set STEP=@FILE"))?;
    if args.from.is_none() && given.is_empty() {
        return Err(Failure::usage("nothing would be different in the new run")
            .help("say --from STEP to run a step and everything after it again, or --set STEP=VALUE to give it a value"));
    }
    let again = run_again(&plan, args.from.as_deref(), &given)?;
    let values = values(&plan, given)?;
    app.connect(kinds, &plan)?;

    let manifest = Manifest {
        run_id: new_id(args.id.as_deref(), place.store).await?,
        settings: kept.to_value()?,
        created_at: SystemClock.now(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        ..old.clone()
    };
    let taken = take_over(&stored.records, &manifest, &again, &values);
    let stays = told(stays(&plan, &again), &taken);
    begin(place.store, &manifest, &stored.sources, taken).await?;
    tell(app, &manifest.run_id, &old.run_id, &stays);
    let going = Resume {
        run: Some(manifest.run_id),
        mock: args.mock.clone(),
        events: args.events,
        ..Resume::default()
    };
    resume(app, &going).await
}

/// Creates a run that begins with facts of an earlier one.
///
/// # Errors
/// When it cannot be stored.
pub(in crate::command) async fn begin(
    store: &dyn CheckpointStore,
    manifest: &Manifest,
    sources: &StoredSources,
    facts: Vec<(Timestamp, u64, Fact)>,
) -> Result<(), StoreError> {
    let mut log = store.create(manifest, sources).await?;
    for (at, elapsed_ms, fact) in facts {
        log.append(at, elapsed_ms, vec![fact])?;
    }
    log.flush().await
}

/// Tells what a new run takes over.
pub(in crate::command) fn tell(app: &App, new: &str, old: &str, stays: &str) {
    app.console.note(&format!("run {new} takes over from {old}: {stays}"));
}

/// What is taken over in words: steps as a whole, and what was done of others.
pub(in crate::command) fn told(mut stays: Vec<String>, facts: &[(Timestamp, u64, Fact)]) -> String {
    let is_of_others =
        |path: &StepPath| !stays.iter().any(|step| path.is_within(&StepPath::from(step.as_str())));
    let others = facts
        .iter()
        .filter(|(_, _, fact)| matches!(fact, Fact::AttemptEnded { path, .. } if is_of_others(path)));
    match others.count() {
        0 if stays.is_empty() => return "nothing".to_owned(),
        0 => {}
        1 => stays.push("1 ended attempt of another".to_owned()),
        more => stays.push(format!("{more} ended attempts of others")),
    }
    stays.join(", ")
}

/// Names of the top-level steps that do not run again.
pub(in crate::command) fn stays(plan: &Plan, again: &BTreeSet<String>) -> Vec<String> {
    top_level(plan).map(|s| s.name.to_string()).filter(|name| !again.contains(name)).collect()
}

fn top_level(plan: &Plan) -> impl Iterator<Item = &StepPlan> {
    plan.block(plan.root().body).steps.iter().map(|id| plan.step(*id))
}

/// Names of the top-level steps that run again: `from` and what follows it, and what follows the steps of `given`.
///
/// # Errors
/// A usage [`Failure`] for a name that is no top-level step.
pub(in crate::command) fn run_again(
    plan: &Plan,
    from: Option<&str>,
    given: &BTreeMap<String, Data>,
) -> Result<BTreeSet<String>, Failure> {
    let names: Vec<&str> = top_level(plan).map(|step| &*step.name).collect();
    let place = |flag: &str, name: &str| {
        names.iter().position(|known| *known == name).ok_or_else(|| {
            let help = match closest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the top-level steps are {}", names.join(", ")),
            };
            Failure::usage(format!("{flag} names `{name}`, which is not a top-level step of this pipeline"))
                .help(help)
        })
    };
    let mut again = BTreeSet::new();
    for name in given.keys() {
        again.extend(after(plan, place("--set", name)?));
    }
    if let Some(from) = from {
        let at = place("--from", from)?;
        again.insert(at);
        again.extend(after(plan, at));
    }
    let again: BTreeSet<String> = again.into_iter().map(|at| names[at].to_owned()).collect();
    match given.keys().find(|name| again.contains(*name)) {
        None => Ok(again),
        Some(name) => Err(Failure::usage(format!("--set gives a value to `{name}`, which runs again"))
            .help("a step that comes after another that is set or run again makes its value anew; set the last one only")),
    }
}

/// Positions of the steps that come after `at`: the rest of a sequence, or what needs it in a graph.
fn after(plan: &Plan, at: usize) -> BTreeSet<usize> {
    let block = plan.block(plan.root().body);
    let Some(needs) = &block.needs else { return (at + 1..block.steps.len()).collect() };
    let mut found = BTreeSet::new();
    let mut open = vec![at];
    while let Some(from) = open.pop() {
        for (step, needed) in needs.iter().enumerate() {
            if needed.contains(&from) && found.insert(step) {
                open.push(step);
            }
        }
    }
    found
}

/// The values of `--set` in the shape that their steps give.
fn values(plan: &Plan, given: BTreeMap<String, Data>) -> Result<BTreeMap<String, Data>, Failure> {
    let shaped = |(name, value): (String, Data)| {
        let step = top_level(plan).find(|step| *step.name == *name);
        match step.map(|s| &s.body) {
            Some(Body::Leaf(leaf)) if &*leaf.kind == "prompt" => {
                let value = answer(value.into_json());
                Ok((name, Data::of_step(value)))
            }
            Some(Body::Leaf(_)) => Ok((name, Data::of_step(value.into_json()))),
            _ => {
                Err(Failure::usage(format!("`{name}` is made of other steps, so it cannot be given a value"))
                    .help("fork with --from the step after it, or set a step that does its own work"))
            }
        }
    };
    given.into_iter().map(shaped).collect()
}

/// A given value as the answer of a model: an object with `text` is one already.
fn answer(value: Value) -> Value {
    if value.get("text").is_some() {
        return value;
    }
    let (text, data) = match value {
        Value::String(text) => (text, Value::Null),
        other => (other.to_string(), other),
    };
    json!({"text": text, "data": data, "stop_reason": "set_by_hand", "function_calls": [], "attempts": 1, "success": true})
}

/// The facts of the new run, with their times.
pub(in crate::command) fn take_over(
    records: &[Record],
    new: &Manifest,
    again: &BTreeSet<String>,
    values: &BTreeMap<String, Data>,
) -> Vec<(Timestamp, u64, Fact)> {
    let mut taken = Vec::new();
    let mut set: BTreeSet<&str> = BTreeSet::new();
    let mut last = 0;
    for record in records {
        let path = match &record.fact {
            Fact::RunStarted { workflow, plan, mode, inputs, seed, .. } => {
                let fact = Fact::RunStarted {
                    run_id: new.run_id.clone(),
                    workflow: workflow.clone(),
                    plan: *plan,
                    mode: mode.clone(),
                    inputs: inputs.clone(),
                    seed: *seed,
                };
                taken.push((new.created_at, 0, fact));
                continue;
            }
            Fact::StepSkipped { path, .. }
            | Fact::AttemptStarted { path, .. }
            | Fact::EffectDone { path, .. }
            | Fact::AttemptEnded { path, .. }
            | Fact::TimerFired { path, .. } => path.as_str(),
            _ => continue,
        };
        let top = path.split(['/', '[']).next().unwrap_or(path);
        // The run's own deadline counts anew.
        if top.is_empty() || again.contains(top) {
            continue;
        }
        last = record.elapsed_ms;
        match values.get_key_value(top) {
            None => taken.push((record.at, record.elapsed_ms, record.fact.clone())),
            Some((name, value)) if set.insert(name) => taken.extend(by_hand(name, value, record.at, last)),
            Some(_) => {}
        }
    }
    // What the old run had not reached.
    for (name, value) in values.iter().filter(|(name, _)| !set.contains(name.as_str())) {
        taken.extend(by_hand(name, value, new.created_at, last));
    }
    taken
}

/// The attempt that a value from outside stands for.
fn by_hand(name: &str, value: &Data, at: Timestamp, elapsed_ms: u64) -> Vec<(Timestamp, u64, Fact)> {
    let path = StepPath::from(name);
    let fingerprint = Hash::of(&("set by hand", value));
    let mut end = AttemptEnd::ok(value.json().clone());
    end.warnings.push(format!("the value of `{name}` was set by hand"));
    let started = Fact::AttemptStarted { path: path.clone(), attempt: 1, turn: 1, fingerprint };
    let ended = Fact::AttemptEnded { path, attempt: 1, turn: 1, fingerprint, end: Box::new(end) };
    vec![(at, elapsed_ms, started), (at, elapsed_ms, ended)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_text_is_an_answer_and_an_answer_stays() {
        assert_eq!(answer(json!("hi"))["text"], "hi");
        assert_eq!(answer(json!({"score": 3}))["data"]["score"], 3);
        assert_eq!(answer(json!({"text": "x"})), json!({"text": "x"}));
    }
}
