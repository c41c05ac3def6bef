//! `pipeline run`: from a file and a command line to a run.

use std::sync::Arc;

use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::diagnostic::closest;
use pipeline_core::engine::{Parking, lasting};
use pipeline_core::plan::{CompileOptions, Inputs, Plan, check_inputs};
use pipeline_core::store::{CheckpointStore, Manifest, StoreError, StoredSources};
use pipeline_core::value::Hash;

use super::consent::{Asked, consent};
use super::detach::detach;
use super::resume::go_on_with_answers;
use super::retire::retire;
use super::work::{Watch, resume_command, tell_findings};
use crate::app::{self, App};
use crate::args::{Mock, Resume, Run};
use crate::exit::{Exit, Failure};
use crate::inputs::{self, Given};
use crate::settings::Mode;
use crate::setup::{Kept, RulesText, check_run_id, run_dir};
use crate::sources::{FileSources, reason};
use crate::taping::Taping;
use crate::wiring;

/// Runs a pipeline.
///
/// # Errors
/// [`Failure`] when nothing could be run, or when the run could not be recorded.
pub async fn run(app: &App, args: &Run) -> Result<Exit, Failure> {
    if args.dry_run {
        return super::plan::plan(app, &planned(args)).await;
    }
    let rules = read_rules(app, &args.mock)?;
    let taping = Taping::of(app, &args.taping)?;
    let replayed = taping.as_ref().and_then(Taping::replayed);
    let mode = match replayed {
        Some(_) => Mode::Replay,
        None => app.settings.mode(args.mock.mock || rules.is_some())?,
    };
    let kinds = app.kinds(mode, rules.as_ref())?;
    let loader = app.sources(&app.settings.state_dir(None));
    let compiled = app::compile(&loader, &args.file, &kinds.catalog, &CompileOptions::default());
    let plan = match compiled {
        Ok((plan, checked)) => {
            tell_findings(app, &checked, false)?;
            plan
        }
        Err(checked) => {
            tell_findings(app, &checked, true)?;
            return Ok(Exit::Usage);
        }
    };
    let inputs = checked_inputs(app, args, &plan)?;
    check_until(args.until.as_deref(), &plan)?;
    let mut kept = kept(app, args, &plan, mode, rules)?;
    kept.seed = replayed.map_or(kept.seed, |run| run.seed);
    let kinds = app.connect(kinds, &plan)?;

    let state_dir = app.settings.state_dir(Some(&plan.root().settings));
    let store = wiring::store(&state_dir, args.disk_fails_at);
    let sessions = wiring::sessions(&state_dir, Arc::new(SystemClock));
    kept.lasting = match replayed {
        Some(run) => run.lasting.clone(),
        None => lasting::stored(&*sessions, &plan, mode == Mode::Mock).await.map_err(|error| {
            Failure::environment(error.message.clone()).help(error.help.unwrap_or_default())
        })?,
    };
    kept.taping = taping;
    let asked = Asked { file: &args.file, yes: args.yes, max_cost_usd: args.limits.max_cost_usd };
    let keeper = Arc::clone(&store);
    consent(app, asked, &plan, mode, &kinds.catalog, &*store).await?;
    let id = new_id(args.id.as_deref(), &*store).await?;
    if args.detach {
        return detach(app, args, &id, &state_dir, &*store).await;
    }
    let sources = plan.stored_sources();
    let manifest = manifest(id, args, &plan, mode, &inputs, &kept, &sources, &loader)?;
    let mut setup = kept.setup(&manifest, run_dir(&state_dir, &manifest.run_id));
    kept.reveal(&mut setup, &app.settings)?;
    let resume = resume_command(app, &manifest.run_id, &state_dir);

    let mut workshop = app::workshop(app, kinds, store, &state_dir);
    workshop.declare(app, &plan)?;
    if let Some(taping) = &kept.taping {
        taping.put_into(&mut workshop, app, &manifest, &kept, &setup.info.dirs.run)?;
    }
    let (watch, mut control) = Watch::new(app, &manifest, args.events, args.metrics_file.as_deref());
    control.parking = if args.waiting.wait { Parking::Wait } else { Parking::Stop };
    let run_id = manifest.run_id.clone();
    let own_dir = setup.info.dirs.run.clone();
    let work = workshop.engine.run(Arc::new(plan), setup, manifest, sources, control);
    let conducted = Box::pin(watch.conduct(app, &resume, work)).await;
    workshop.close().await;
    let conducted = conducted?;
    watch.keep_health(app, &conducted, &workshop, &own_dir);
    let exit = watch.tell(app, &conducted, &workshop.written, &resume)?;
    retire(app, &*keeper, &state_dir, &run_id).await;
    let again =
        Resume { run: Some(run_id), events: args.events, waiting: args.waiting.clone(), ..Resume::default() };
    let exit = go_on_with_answers(app, &again, &state_dir, &conducted, exit).await;
    // The process ends here, and the system takes its memory back at once: dropping ten thousand results takes 20 ms.
    let _kept = std::mem::ManuallyDrop::new(conducted);
    exit
}

/// The same command line as `pipeline plan` has it.
fn planned(args: &Run) -> crate::args::Plan {
    crate::args::Plan {
        file: args.file.clone(),
        against: None,
        mock: args.mock.clone(),
        limits: args.limits.clone(),
        sandboxing: args.permissions.sandboxing.clone(),
        workspace_dir: args.workspace_dir.clone(),
        output_dir: args.output_dir.clone(),
    }
}

/// The file of mock rules, if one is named.
///
/// # Errors
/// A usage [`Failure`] when it cannot be read.
pub(super) fn read_rules(app: &App, mock: &Mock) -> Result<Option<RulesText>, Failure> {
    let Some(path) = &mock.mock_rules else { return Ok(None) };
    let name = path.display().to_string();
    match std::fs::read_to_string(app.settings.absolute(path)) {
        Ok(text) => Ok(Some(RulesText { name, text })),
        Err(error) => Err(Failure::usage(format!("cannot read the mock rules {name}: {}", reason(&error)))
            .help("check the path after --mock-rules")),
    }
}

fn checked_inputs(app: &App, args: &Run, plan: &Plan) -> Result<Inputs, Failure> {
    let declared = &plan.root().inputs;
    let given = Given { file: args.input_file.as_deref(), flags: &args.inputs, pairs: &args.pairs };
    let given = inputs::inputs(given, declared, &app.settings.working)?;
    check_inputs(plan, given).map_err(|messages| {
        let mut failure = Failure::usage("");
        failure.messages = messages;
        failure.help("give inputs as `-i NAME=VALUE`, `-i NAME=@FILE` or with --input-file")
    })
}

fn check_until(until: Option<&str>, plan: &Plan) -> Result<(), Failure> {
    let Some(until) = until else { return Ok(()) };
    let names: Vec<&str> =
        plan.block(plan.root().body).steps.iter().map(|id| &*plan.step(*id).name).collect();
    if names.contains(&until) {
        return Ok(());
    }
    let help = match closest(until, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the steps are {}", names.join(", ")),
    };
    Err(Failure::usage(format!("--until names `{until}`, which is not a step of this pipeline")).help(help))
}

/// What the run must remember of the command line and the surroundings.
fn kept(app: &App, args: &Run, plan: &Plan, mode: Mode, rules: Option<RulesText>) -> Result<Kept, Failure> {
    let settings = &app.settings;
    let file = &plan.root().settings;
    let seed = match mode {
        // Two mock runs of one pipeline give the same values.
        Mode::Mock => rules.as_ref().map_or(0, RulesText::seed),
        Mode::Live | Mode::Mixed | Mode::Replay => Hash::of_bytes(uuid::Uuid::now_v7().as_bytes()).seed(),
    };
    let mut kept = Kept {
        working: settings.working.clone(),
        workspace: settings.workspace_dir(args.workspace_dir.as_deref(), file),
        output: settings.output_dir(args.output_dir.as_deref(), file),
        read: file.read.iter().map(|dir| settings.absolute(dir)).collect(),
        write: file.write.iter().map(|dir| settings.absolute(dir)).collect(),
        permissions: file.permissions.clone(),
        until: args.until.clone(),
        state: inputs::variables(&args.set, &settings.working)?,
        mock_rules: rules,
        seed,
        ..Kept::default()
    };
    kept.let_read(&plan.root().env, settings);
    kept.allow(&args.permissions, settings);
    kept.limit(&settings.limits(&args.limits, &plan.root().budget));
    Ok(kept)
}

/// A new run's id: the one that was asked for, if no run has it, or a new UUID that sorts by time.
///
/// # Errors
/// [`Failure`] for an id that is no id, or is taken.
pub(super) async fn new_id(asked: Option<&str>, store: &dyn CheckpointStore) -> Result<String, Failure> {
    let Some(id) = asked else { return Ok(uuid::Uuid::now_v7().to_string()) };
    check_run_id(id)?;
    match store.read(id).await {
        Err(StoreError::Unknown { .. }) => Ok(id.to_owned()),
        Err(error @ StoreError::Directory { .. }) => Err(error.into()),
        // One that cannot be read exists all the same.
        Ok(_) | Err(_) => Err(Failure::usage(format!("there is a run {id} already"))
            .help(format!("choose another --run-id, or `pipeline resume {id}`"))),
    }
}

#[expect(clippy::too_many_arguments, reason = "a manifest is what all of these say")]
fn manifest(
    run_id: String,
    args: &Run,
    plan: &Plan,
    mode: Mode,
    inputs: &Inputs,
    kept: &Kept,
    sources: &StoredSources,
    loader: &FileSources,
) -> Result<Manifest, Failure> {
    Ok(Manifest {
        run_id,
        workflow: plan.root().name.to_string(),
        source_path: args.file.clone(),
        pipeline_dir: loader.folder_of(&sources.root),
        source_hash: Hash::of(&sources.files),
        plan: plan.fingerprint(),
        mode: mode.name().to_owned(),
        inputs: inputs.clone(),
        settings: kept.to_value()?,
        created_at: SystemClock.now(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
