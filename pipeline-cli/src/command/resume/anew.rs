//! `pipeline resume --with FILE` and `--from STEP`: a new run takes the place of one that stopped.
//!
//! A journal is never rewritten. So what is taken over is copied to a new run, which goes on, and the old one ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pipeline_core::clock::{Clock, SystemClock, Timestamp};
use pipeline_core::engine::lasting;
use pipeline_core::fact::{Fact, Record};
use pipeline_core::plan::{CompileOptions, Inputs, Plan, check_inputs};
use pipeline_core::store::{CheckpointStore, Manifest, StoredSources};
use pipeline_core::value::Hash;

use super::{compile_again, mode_of};
use crate::app::{self, App, Kinds};
use crate::args::Resume;
use crate::command::consent::{Asked, consent};
use crate::command::reuse::reuse;
use crate::command::run::new_id;
use crate::command::runs::{fork, keep};
use crate::command::work::tell_findings;
use crate::console::{YELLOW, paint, visible};
use crate::exit::{Exit, Failure};
use crate::settings::Mode;
use crate::setup::{Kept, run_dir};
use crate::wiring;

/// What a new run begins with.
struct Heir {
    manifest: Manifest,
    sources: StoredSources,
    facts: Vec<(Timestamp, u64, Fact)>,
    stays: Vec<String>,
}

/// Makes the new run and ends the old one. Gives the new one's id, or how the program ends where the file has errors.
///
/// # Errors
/// [`Failure`] when the old run is worked on, when the file does not fit it, or when nothing could be stored.
pub(super) async fn anew(
    app: &App,
    args: &Resume,
    state_dir: &Path,
    store: &dyn CheckpointStore,
    id: &str,
) -> Result<Result<String, Exit>, Failure> {
    // Opened, not read: nobody may work on it while another run takes its place.
    let mut opened = store.open(id).await?;
    let old = &opened.stored.manifest;
    let mut kept = Kept::of(old)?;
    let (mode, rules) = mode_of(app, old, &kept, &args.mock)?;
    kept.mock_rules.clone_from(&rules);
    kept.until = None;
    kept.forked_from = Some(id.to_owned());
    // A tape is of one run: what a recorded one did is not told by the tape of another. A replay stays one.
    kept.taping = kept.taping.take().filter(|taping| taping.replayed().is_some());
    let kinds = app.kinds(mode, rules.as_ref())?;
    let records = &opened.stored.records;
    let new = Manifest {
        run_id: new_id(None, store).await?,
        created_at: SystemClock.now(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        ..old.clone()
    };
    let heir = match &args.file {
        None => {
            let plan = compile_again(app, old, &opened.stored.sources, &kinds)?;
            let again = fork::run_again(&plan, args.from.as_deref(), &BTreeMap::new())?;
            let manifest = Manifest { settings: kept.to_value()?, ..new };
            let facts = fork::take_over(records, &manifest, &again, &BTreeMap::new());
            let stays = fork::stays(&plan, &again);
            Heir { manifest, sources: opened.stored.sources.clone(), facts, stays }
        }
        Some(file) => {
            let Some((plan, dir)) = compiled(app, file, &kinds, state_dir)? else {
                return Ok(Err(Exit::Usage));
            };
            may_run(app, args, file, &plan, mode, &kinds, store).await?;
            widen(app, args, &plan, &mut kept);
            remember(state_dir, &plan, mode, &mut kept).await?;
            let inputs = inputs(app, &plan, &old.inputs)?;
            let sources = plan.stored_sources();
            let manifest = Manifest {
                source_path: file.clone(),
                pipeline_dir: dir,
                source_hash: Hash::of(&sources.files),
                plan: plan.fingerprint(),
                workflow: plan.root().name.to_string(),
                inputs,
                settings: kept.to_value()?,
                ..new
            };
            edited(app, args, &plan, &kept, state_dir, manifest, sources, records)?
        }
    };
    let stays = fork::told(heir.stays, &heir.facts);
    fork::begin(store, &heir.manifest, &heir.sources, heir.facts).await?;
    fork::tell(app, &heir.manifest.run_id, id, &stays);
    if !matches!(opened.stored.records.last().map(|r| &r.fact), Some(Fact::RunEnded { .. })) {
        let why = format!("run {} goes on in its place", heir.manifest.run_id);
        keep::end_for_good(&opened.stored.records, &mut *opened.log, &why).await?;
    }
    Ok(Ok(heir.manifest.run_id))
}

/// The edited file as a plan, with its folder; `None` when it has errors, which are told.
fn compiled(
    app: &App,
    file: &str,
    kinds: &Kinds,
    state_dir: &Path,
) -> Result<Option<(Arc<Plan>, std::path::PathBuf)>, Failure> {
    let loader = app.sources(state_dir);
    match app::compile(&loader, file, &kinds.catalog, &CompileOptions::default()) {
        Ok((plan, checked)) => {
            tell_findings(app, &checked, false)?;
            let dir = loader.folder_of(&plan.stored_sources().root);
            Ok(Some((Arc::new(plan), dir)))
        }
        Err(checked) => {
            tell_findings(app, &checked, true)?;
            Ok(None)
        }
    }
}

async fn may_run(
    app: &App,
    args: &Resume,
    file: &str,
    plan: &Plan,
    mode: Mode,
    kinds: &Kinds,
    store: &dyn CheckpointStore,
) -> Result<(), Failure> {
    let asked = Asked { file, yes: false, max_cost_usd: args.limits.max_cost_usd };
    consent(app, asked, plan, mode, &kinds.catalog, store).await
}

/// An edited file says anew what it may reach; flags of the old run are not carried over to it.
fn widen(app: &App, args: &Resume, plan: &Plan, kept: &mut Kept) {
    let file = &plan.root().settings;
    kept.read = file.read.iter().map(|dir| app.settings.absolute(dir)).collect();
    kept.write = file.write.iter().map(|dir| app.settings.absolute(dir)).collect();
    kept.permissions = file.permissions.clone();
    kept.let_read(&plan.root().env, &app.settings);
    kept.allow(&args.permissions, &app.settings);
}

/// Variables that outlive runs are those that the old run began with, and what the edited file reads beside them.
async fn remember(state_dir: &Path, plan: &Plan, mode: Mode, kept: &mut Kept) -> Result<(), Failure> {
    let sessions = wiring::sessions(state_dir, Arc::new(SystemClock));
    let now = lasting::stored(&*sessions, plan, mode == Mode::Mock)
        .await
        .map_err(|error| Failure::environment(error.message.clone()).help(error.help.unwrap_or_default()))?;
    for (workflow, variables) in now {
        let known = kept.lasting.entry(workflow).or_default();
        for (name, value) in variables {
            known.entry(name).or_insert(value);
        }
    }
    Ok(())
}

/// The old run's inputs, as the edited file declares them.
fn inputs(app: &App, plan: &Plan, old: &Inputs) -> Result<Inputs, Failure> {
    let declared = |name: &str| plan.root().inputs.iter().any(|input| input.name == name);
    let mut given = Inputs::new();
    for (name, value) in old {
        if declared(name) {
            given.insert(name.clone(), value.clone());
        } else {
            app.console.note(&format!(
                "{} the file has no input `{}` any more",
                paint(YELLOW, "note:"),
                visible(name)
            ));
        }
    }
    check_inputs(plan, given).map_err(|messages| {
        let mut failure = Failure::usage("");
        failure.messages = messages;
        failure.help("a resumed run keeps its inputs; give a new input a default, or begin a new run")
    })
}

#[expect(clippy::too_many_arguments, reason = "a new run is what all of these say")]
fn edited(
    app: &App,
    args: &Resume,
    plan: &Arc<Plan>,
    kept: &Kept,
    state_dir: &Path,
    manifest: Manifest,
    sources: StoredSources,
    records: &[Record],
) -> Result<Heir, Failure> {
    let again = match &args.from {
        None => BTreeSet::new(),
        Some(from) => fork::run_again(plan, Some(from), &BTreeMap::new())?,
    };
    let mut setup = kept.setup(&manifest, run_dir(state_dir, &manifest.run_id));
    kept.reveal(&mut setup, &app.settings)?;
    let reused = reuse(plan, &setup, records, &again);
    let mut stays = Vec::new();
    for (name, verdict) in &reused.verdicts {
        match verdict {
            Ok(_) => stays.push(name.clone()),
            Err(why) => app.console.note(&format!("`{}` runs: {}", visible(name), visible(why))),
        }
    }
    let mut facts = vec![(manifest.created_at, 0, started(&manifest, kept))];
    let mut last = 0;
    for record in reused.records.iter().filter_map(|place| records.get(*place)) {
        // Run time never goes back, even where the edited file has another order.
        last = record.elapsed_ms.max(last);
        facts.push((record.at, last, record.fact.clone()));
    }
    Ok(Heir { manifest, sources, facts, stays })
}

fn started(manifest: &Manifest, kept: &Kept) -> Fact {
    Fact::RunStarted {
        run_id: manifest.run_id.clone(),
        workflow: manifest.workflow.clone(),
        plan: manifest.plan,
        mode: manifest.mode.clone(),
        inputs: manifest.inputs.clone().into_iter().collect(),
        seed: kept.seed,
    }
}
