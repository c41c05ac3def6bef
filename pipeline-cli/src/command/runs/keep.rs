//! `pipeline runs cancel`, `repair`, `rm` and `gc`: runs that end, and runs that go.

use std::time::Duration;

use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::{Fact, Record, RunError, RunStatus};
use pipeline_core::process::{Signal, send};
use pipeline_core::store::{OpenedRun, RunLog, StoreError};
use pipeline_core::value::Data;
use serde_json::json;

use super::Place;
use crate::args::{Collect, OneRun, Remove};
use crate::command::retire::{DAY, too_old};
use crate::exit::{Failure, is_resumable, status_name};

/// How long a process that works on a run may take to save its state.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at whether it has.
const PAUSE: Duration = Duration::from_millis(50);

/// Ends a run for good.
///
/// # Errors
/// [`Failure`] when it has ended already, or when whoever works on it does not let go.
pub(super) async fn cancel(place: &Place<'_>, one: &OneRun) -> Result<(), Failure> {
    let run = place.named(one.run.as_deref()).await?;
    let OpenedRun { stored, mut log, .. } = match place.store.open(&run).await {
        Err(StoreError::Held { pid, .. }) => {
            place.app.console.note(&format!("run {run} is worked on by process {pid}: asking it to stop"));
            ask_to_stop(&run, pid)?;
            taken_over(place, &run).await?
        }
        opened => opened?,
    };
    if let Some(Fact::RunEnded { status, .. }) = stored.records.last().map(|r| &r.fact) {
        return Err(Failure::usage(format!("run {run} has ended already: {}", status_name(*status)))
            .help(format!("`pipeline runs rm {run}` removes it")));
    }
    end_for_good(&stored.records, &mut *log, "somebody cancelled the run").await?;
    tell(place, "cancelled", &[run])
}

/// Records that a run which has not ended will not go on.
///
/// # Errors
/// When it cannot be recorded.
pub(in crate::command) async fn end_for_good(
    records: &[Record],
    log: &mut dyn RunLog,
    why: &str,
) -> Result<(), StoreError> {
    let elapsed_ms = records.last().map_or(0, |r| r.elapsed_ms);
    let error = StepError::new(ErrorKind::Cancelled, why);
    let ended = Fact::RunEnded {
        status: RunStatus::Cancelled,
        outputs: Data::null(),
        error: Some(RunError { path: None, error }),
    };
    log.append(SystemClock.now(), elapsed_ms, vec![ended])?;
    log.flush().await
}

/// Sends SIGTERM: the process saves its state and goes.
fn ask_to_stop(run: &str, pid: u32) -> Result<(), Failure> {
    let refused = |why: String| {
        Failure::environment(format!("run {run} is held by process {pid}, which cannot be stopped: {why}"))
            .help("stop it where it runs, then cancel again")
    };
    send(pid, Signal::Terminate).map_err(|error| refused(crate::sources::reason(&error)))
}

/// Waits until the run is free, and takes it.
async fn taken_over(place: &Place<'_>, run: &str) -> Result<OpenedRun, Failure> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match place.store.open(run).await {
            Err(StoreError::Held { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            opened => return Ok(opened?),
        }
    }
}

/// Reads everything of a run, and cuts off a torn end.
///
/// # Errors
/// [`Failure`] when it is damaged in a way that nobody may guess at.
pub(super) async fn repair(place: &Place<'_>, one: &OneRun) -> Result<(), Failure> {
    let run = place.named(one.run.as_deref()).await?;
    let opened = place.store.open(&run).await?;
    let facts = opened.stored.records.len();
    if place.app.settings.json {
        let document = json!({
            "schema": "pipeline.repair/1", "run_id": run, "facts": facts, "repaired": opened.repaired,
        });
        return place.app.console.out(&format!("{document:#}\n"));
    }
    let state = match &opened.repaired {
        None => "nothing had to be repaired".to_owned(),
        Some(what) => format!("repaired: {what}"),
    };
    place.app.console.out(&format!("run {run}: {facts} facts, every checksum fits; {state}\n"))
}

/// Removes the named runs; either all may be removed, or none is.
///
/// # Errors
/// [`Failure`] for one that could still go on (without `--force`), or that is worked on.
pub(super) async fn remove(place: &Place<'_>, args: &Remove) -> Result<(), Failure> {
    let mut ids = Vec::new();
    for asked in &args.runs {
        ids.push(place.named(Some(asked)).await?);
    }
    ids.dedup();
    let all = place.store.list().await?;
    for run in all.iter().filter(|run| ids.contains(&run.run_id)) {
        if let Some(pid) = run.pid {
            return Err(StoreError::Held { run: run.run_id.clone(), pid }.into());
        }
        if is_resumable(run.status) && !args.force {
            return Err(Failure::usage(format!(
                "run {} has not ended ({}) and could go on",
                run.run_id,
                status_name(run.status)
            ))
            .help("--force removes it all the same"));
        }
    }
    for run in &ids {
        place.store.remove(run).await?;
    }
    tell(place, "removed", &ids)
}

/// Removes what has ended, is old, and is not among the newest.
///
/// # Errors
/// [`Failure`] when a run cannot be removed.
pub(super) async fn collect(place: &Place<'_>, args: &Collect) -> Result<(), Failure> {
    let all = place.store.list().await?;
    let oldest = SystemClock.now().0 - i64::from(args.days) * DAY;
    let (old, unfinished) = (too_old(&all, args.keep, oldest), all.iter().filter(|r| is_resumable(r.status)));
    let kept = all.len() - old.len();
    place.app.console.note(&format!(
        "keeping {kept} runs: the newest {}, those of the last {} days, and {} that can still go on",
        args.keep,
        args.days,
        unfinished.count()
    ));
    if !args.dry_run {
        for run in &old {
            match place.store.remove(run).await {
                // Somebody took it up, or another process collects as well.
                Ok(()) | Err(StoreError::Held { .. } | StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    tell(place, if args.dry_run { "would be removed" } else { "removed" }, &old)
}

fn tell(place: &Place<'_>, what: &str, runs: &[String]) -> Result<(), Failure> {
    if place.app.settings.json {
        let document = json!({"schema": "pipeline.kept/1", "did": what, "runs": runs});
        return place.app.console.out(&format!("{document:#}\n"));
    }
    place.app.console.out(&runs.iter().map(|run| format!("{what} {run}\n")).collect::<String>())
}
