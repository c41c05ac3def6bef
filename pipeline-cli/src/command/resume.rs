//! `pipeline resume`: goes on with a run, from its own sources and in its own mode; `resume/anew.rs` for an edited file.

mod anew;

use std::path::Path;
use std::sync::Arc;

use pipeline_core::engine::{Engine, Parking, RunReport};
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::plan::{CompileOptions, Plan};
use pipeline_core::store::{CheckpointStore, Manifest, RunSummary, StoredRun, StoredSources};

use super::ask;
use super::retire::retire;
use super::run::read_rules;
use super::work::{Conducted, Watch, resume_command};
use crate::app::{self, App, Kinds};
use crate::args::{Mock, Resume};
use crate::exit::{Exit, Failure, is_resumable, status_name};
use crate::health;
use crate::report::{json, summary};
use crate::settings::Mode;
use crate::setup::{Kept, RulesText, run_dir};

/// Goes on with a run.
///
/// # Errors
/// [`Failure`] when it cannot be taken over, or when it could not be recorded.
pub async fn resume(app: &App, args: &Resume) -> Result<Exit, Failure> {
    let state_dir = app.settings.state_dir(None);
    let store = app::store(&state_dir);
    let id = match &args.run {
        Some(id) => id.clone(),
        None => match choose(&store.list().await?) {
            Choice::GoOn(id) => {
                app.console.note(&format!("going on with run {id}"));
                id
            }
            Choice::Newest(id) if args.file.is_some() || args.from.is_some() => {
                app.console.note(&format!("every run has ended; the newest is {id}"));
                id
            }
            Choice::Newest(id) => return recorded(app, &*store, &state_dir, &id).await,
            Choice::Nothing => {
                let dir = state_dir.display();
                return Err(Failure::environment(format!("there is no run in {dir}"))
                    .help("`pipeline run FILE` begins one; --state-dir names another directory"));
            }
        },
    };
    if args.file.is_some() || args.from.is_some() {
        let id = match anew::anew(app, args, &state_dir, &*store, &id).await? {
            Ok(id) => id,
            Err(exit) => return Ok(exit),
        };
        let going = Resume { run: Some(id), file: None, from: None, ..args.clone() };
        return Box::pin(resume(app, &going)).await;
    }
    let opened = store.open(&id).await?;
    if let Some(repaired) = &opened.repaired {
        app.console.note(&format!("the journal was repaired: {repaired}"));
    }
    let manifest = &opened.stored.manifest;
    let mut kept = Kept::of(manifest)?;
    let (mode, rules) = mode_of(app, manifest, &kept, &args.mock)?;
    kept.allow(&args.permissions, &app.settings);
    kept.limit(&args.limits);
    let mut kinds = app.kinds(mode, rules.as_ref())?;
    let plan = Arc::new(compile_again(app, manifest, &opened.stored.sources, &kinds)?);
    let has_ended = opened.stored.records.last().is_some_and(|r| matches!(r.fact, Fact::RunEnded { .. }));
    if has_ended {
        app.console.note(&format!("run {id} has ended: this is how"));
    } else {
        kinds = app.connect(kinds, &plan)?;
    }
    let mut setup = kept.setup(manifest, run_dir(&state_dir, &id));
    if !has_ended {
        kept.reveal(&mut setup, &app.settings)?;
    }
    let hint = resume_command(app, &id, &state_dir);
    let keeper = Arc::clone(&store);
    let mut workshop = app::workshop(app, kinds, store, &state_dir);
    workshop.declare(app, &plan)?;
    if let Some(taping) = kept.taping.as_ref().filter(|_| !has_ended) {
        taping.put_into(&mut workshop, app, manifest, &kept, &setup.info.dirs.run)?;
    }
    let (watch, mut control) = Watch::new(app, manifest, args.events, args.metrics_file.as_deref());
    control.answers = ask::answers(&args.answers)?;
    control.parking = match (args.waiting.wait, args.try_now) {
        (true, _) => Parking::Wait,
        (false, true) => Parking::TryNow,
        (false, false) => Parking::Stop,
    };
    if !control.answers.is_empty() {
        let asked = Engine::inspect(&plan, &setup, &opened.stored)?.questions;
        ask::check(&control.answers, &asked)?;
    }
    let own_dir = setup.info.dirs.run.clone();
    health::forget(&own_dir);
    let work = workshop.engine.resume(plan, setup, opened, control);
    let conducted = Box::pin(watch.conduct(app, &hint, work)).await;
    workshop.close().await;
    let conducted = conducted?;
    watch.keep_health(app, &conducted, &workshop, &own_dir);
    let exit = watch.tell(app, &conducted, &workshop.written, &hint)?;
    retire(app, &*keeper, &state_dir, &id).await;
    let again = Resume { run: Some(id), answers: Vec::new(), ..args.clone() };
    go_on_with_answers(app, &again, &state_dir, &conducted, exit).await
}

/// Asks on the terminal what a paused run asks, and goes on with the answers; `exit` where nobody answers.
///
/// # Errors
/// As [`resume`].
pub(super) async fn go_on_with_answers(
    app: &App,
    again: &Resume,
    state_dir: &Path,
    conducted: &Conducted,
    exit: Exit,
) -> Result<Exit, Failure> {
    if again.waiting.no_interactive || app.settings.state_dir(None) != state_dir {
        return Ok(exit);
    }
    let Some(report) = conducted.report() else { return Ok(exit) };
    let Some(answers) = ask::on_terminal(app, report).await else { return Ok(exit) };
    let answers = answers.into_iter().map(|(path, answer)| format!("{path}={answer}")).collect();
    Box::pin(resume(app, &Resume { answers, ..again.clone() })).await
}

/// Which run a bare `resume` means.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// The newest that has not ended.
    GoOn(String),
    /// All have ended: the newest.
    Newest(String),
    /// There is none.
    Nothing,
}

/// Runs come newest first. One that another process works on is chosen only when no other has stopped: the attempt to
/// take it over then says who has it.
fn choose(runs: &[RunSummary]) -> Choice {
    let stopped = |run: &&RunSummary| is_resumable(run.status) && run.status != RunStatus::Running;
    let running = |run: &&RunSummary| run.status == RunStatus::Running;
    match runs.iter().find(stopped).or_else(|| runs.iter().find(running)) {
        Some(run) => Choice::GoOn(run.run_id.clone()),
        None => runs.first().map_or(Choice::Nothing, |run| Choice::Newest(run.run_id.clone())),
    }
}

/// Tells how the newest run ended, as it is recorded.
async fn recorded(
    app: &App,
    store: &dyn CheckpointStore,
    state_dir: &Path,
    id: &str,
) -> Result<Exit, Failure> {
    let report = inspect(app, state_dir, &store.read(id).await?)?;
    app.console.err(&format!(
        "there is no unfinished run; the newest, {id}, has ended: {}",
        status_name(report.status)
    ));
    app.console.out(&if app.settings.json {
        format!("{:#}\n", json::run(&report))
    } else {
        summary::outputs(&report.outputs)
    })?;
    let exit = Exit::of_status(report.status);
    if !app.console.quiet || exit != Exit::Success {
        let hint = resume_command(app, id, state_dir);
        app.console.err(&summary::ending(&report, &[], &app.settings.working, &hint));
    }
    Ok(exit)
}

/// How a stored run stands, without taking it over.
///
/// # Errors
/// [`Failure`] when its plan cannot be made again.
pub(super) fn inspect(app: &App, state_dir: &Path, stored: &StoredRun) -> Result<RunReport, Failure> {
    let kept = Kept::of(&stored.manifest)?;
    // Nothing is called: the mock stands in for every provider, whatever the mode was.
    let kinds = app.kinds(Mode::Mock, None)?;
    let plan = Arc::new(compile_again(app, &stored.manifest, &stored.sources, &kinds)?);
    let setup = kept.setup(&stored.manifest, run_dir(state_dir, &stored.manifest.run_id));
    Ok(Engine::inspect(&plan, &setup, stored)?)
}

/// Compiles a run's own sources, and makes sure that the same plan comes of them.
///
/// # Errors
/// [`Failure`] when this version refuses them or reads them differently.
pub(super) fn compile_again(
    app: &App,
    manifest: &Manifest,
    sources: &StoredSources,
    kinds: &Kinds,
) -> Result<Plan, Failure> {
    let run = &manifest.run_id;
    let other_version = |what: &str| {
        Failure::environment(format!("run {run} {what} version {}", env!("CARGO_PKG_VERSION")))
            .help(format!("it was begun with version {}: use that one, or begin a new run", manifest.program))
    };
    let loader = sources.clone();
    let compiled = app::compile(&loader, &sources.root, &kinds.catalog, &CompileOptions::default());
    let (plan, _) = compiled.map_err(|checked| {
        app.console.err(crate::report::diagnostics::text(&checked).trim_end());
        other_version("was accepted when it began and is refused by")
    })?;
    if plan.fingerprint() == manifest.plan {
        Ok(plan)
    } else {
        Err(other_version("does not mean the same to"))
    }
}

/// The mode that the run goes on in, with its rules: those of the command line in the place of those that it began with.
///
/// # Errors
/// [`Failure`] for a mode that this run cannot go on in, or rules that cannot be read.
pub(super) fn mode_of(
    app: &App,
    manifest: &Manifest,
    kept: &Kept,
    asked: &Mock,
) -> Result<(Mode, Option<RulesText>), Failure> {
    let rules = read_rules(app, asked)?;
    let mode = stored_mode(manifest, asked.mock || rules.is_some())?;
    Ok((mode, rules.or_else(|| kept.mock_rules.clone())))
}

fn stored_mode(manifest: &Manifest, asks_for_mock: bool) -> Result<Mode, Failure> {
    let (run, name) = (&manifest.run_id, &manifest.mode);
    let mode = Mode::named(name).ok_or_else(|| {
        Failure::environment(format!("run {run} is in mode `{name}`, which this version does not have"))
            .help(format!("it was begun with version {}: use that one", manifest.program))
    })?;
    if asks_for_mock && matches!(mode, Mode::Live | Mode::Replay) {
        return Err(Failure::usage(format!(
            "run {run} began in mode `{name}` and cannot go on with the mock"
        ))
        .help("leave --mock out, or begin a new run with it"));
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::setup::tests::manifest;
    use pipeline_core::clock::Timestamp;
    use serde_json::Value;

    fn run(id: &str, status: RunStatus) -> RunSummary {
        RunSummary {
            run_id: id.to_owned(),
            workflow: "demo".to_owned(),
            status,
            started_at: Timestamp(0),
            mode: "mock".to_owned(),
            source_path: "demo.yaml".to_owned(),
            pid: None,
        }
    }

    #[test]
    fn a_bare_resume_takes_the_newest_run_that_stopped() {
        let runs = [
            run("5", RunStatus::Ok),
            run("4", RunStatus::Running),
            run("3", RunStatus::Interrupted),
            run("2", RunStatus::Paused),
        ];
        assert_eq!(choose(&runs), Choice::GoOn("3".to_owned()));
        assert_eq!(choose(&runs[..2]), Choice::GoOn("4".to_owned()));
        assert_eq!(choose(&runs[..1]), Choice::Newest("5".to_owned()));
        assert_eq!(choose(&[]), Choice::Nothing);
    }

    #[test]
    fn a_run_goes_on_in_its_own_mode_or_not_at_all() {
        let mut stored = manifest(Value::Null);
        assert_eq!(stored_mode(&stored, false), Ok(Mode::Mock));
        assert_eq!(stored_mode(&stored, true), Ok(Mode::Mock));
        stored.mode = "live".to_owned();
        assert_eq!(stored_mode(&stored, false), Ok(Mode::Live));
        assert_eq!(stored_mode(&stored, true).expect_err("refused").exit.code(), 2);
        stored.mode = "rewind".to_owned();
        assert_eq!(stored_mode(&stored, false).expect_err("unknown").exit.code(), 3);
    }
}
