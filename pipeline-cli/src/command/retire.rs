//! Old runs go when a new one has come to its end: the newest and the recent stay, and so does whatever can go on.
//!
//! Owns what is removed without being asked for, and that it is told. What cannot be removed is told as well, and changes
//! nothing about how the run ended.

use std::path::Path;

use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::store::{CheckpointStore, RunSummary, StoreError};

use crate::app::App;
use crate::console::{YELLOW, paint, visible};
use crate::exit::{Failure, is_resumable};
use crate::settings::Retention;
use crate::setup::run_dir;

/// Milliseconds of a day.
pub const DAY: i64 = 24 * 60 * 60 * 1000;

/// Removes the runs of a state directory that are neither among the newest nor recent, after `run` has come to its end.
pub async fn retire(app: &App, store: &dyn CheckpointStore, state_dir: &Path, run: &str) {
    if !run_dir(state_dir, run).is_dir() {
        let warning = paint(YELLOW, "warning:");
        app.console.err(&format!(
            "{warning} somebody removed the directory of run {run} while it was worked on: it cannot be shown or resumed"
        ));
    }
    let (retention, runs) = match (app.settings.retention(), count(&state_dir.join("runs"))) {
        (Ok(Some(retention)), runs) => (retention, runs),
        (Ok(None), _) => return,
        (Err(failure), _) => return warn(app, &failure.to_string()),
    };
    // Nothing is read while there is nothing to remove.
    if runs <= retention.keep {
        return;
    }
    match collect(store, retention).await {
        Ok(0) => {}
        Ok(gone) => app.console.note(&format!(
            "removed {gone} old {}; the newest {} and those of the last {} days stay (PIPELINE_KEEP_RUNS, PIPELINE_KEEP_DAYS)",
            if gone == 1 { "run" } else { "runs" },
            retention.keep,
            retention.days
        )),
        Err(failure) => warn(app, &failure.to_string()),
    }
}

fn warn(app: &App, message: &str) {
    app.console.err(&format!(
        "{} old runs were not removed: {}",
        paint(YELLOW, "warning:"),
        visible(message)
    ));
}

fn count(runs: &Path) -> usize {
    std::fs::read_dir(runs).map_or(0, Iterator::count)
}

async fn collect(store: &dyn CheckpointStore, retention: Retention) -> Result<usize, Failure> {
    let oldest = SystemClock.now().0 - i64::from(retention.days) * DAY;
    let mut gone = 0;
    for run in too_old(&store.list().await?, retention.keep, oldest) {
        match store.remove(&run).await {
            Ok(()) => gone += 1,
            // Somebody took it up, or another process collects as well.
            Err(StoreError::Held { .. } | StoreError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(gone)
}

/// Runs that have ended, began before `oldest` and are not among the newest `keep` that have ended.
pub fn too_old(newest_first: &[RunSummary], keep: usize, oldest: i64) -> Vec<String> {
    let ended = newest_first.iter().filter(|run| !is_resumable(run.status) && run.pid.is_none());
    ended.skip(keep).filter(|run| run.started_at.0 < oldest).map(|run| run.run_id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_core::clock::Timestamp;
    use pipeline_core::fact::RunStatus;

    fn run(id: &str, status: RunStatus, day: i64) -> RunSummary {
        RunSummary {
            run_id: id.to_owned(),
            workflow: "demo".to_owned(),
            status,
            started_at: Timestamp(day * DAY),
            mode: "mock".to_owned(),
            source_path: "demo.yaml".to_owned(),
            pid: None,
        }
    }

    #[test]
    fn only_what_has_ended_is_old_and_is_not_among_the_newest_goes() {
        let runs = [
            run("9", RunStatus::Ok, 9),
            run("8", RunStatus::Interrupted, 8),
            run("7", RunStatus::Failed, 7),
            run("3", RunStatus::Ok, 3),
            run("2", RunStatus::Paused, 2),
            run("1", RunStatus::Ok, 1),
        ];
        assert_eq!(too_old(&runs, 2, 5 * DAY), ["3", "1"]);
        assert_eq!(too_old(&runs, 3, 5 * DAY), ["1"]);
        assert_eq!(too_old(&runs, 0, 2 * DAY), ["1"]);
        assert!(too_old(&runs, 50, 100 * DAY).is_empty());
    }
}
