//! How many finished runs stay.
//!
//! Owns the removal of finished runs, oldest first. A run that can still go on, and one that a process holds, is never
//! removed. Must not know how runs are made.

use std::fs;
use std::io;
use std::path::Path;

use pipeline_core::store::{RunSummary, StoreError};

use crate::disk;
use crate::lock::RunLock;
use crate::summary::{self, Told};

/// Prefix of a run's directory while it is being removed: no run id begins like that.
const REMOVED: &str = ".removed-";

/// Removes finished runs until `keep` are left, and what an earlier removal that was cut off has left. `newest_first` are
/// all runs. Returns the ids of the removed.
pub(crate) fn prune(
    runs: &Path,
    newest_first: &[RunSummary],
    keep: usize,
) -> Result<Vec<String>, StoreError> {
    sweep(runs)?;
    let finished = newest_first.iter().filter(|run| run.pid.is_none() && has_ended(&runs.join(&run.run_id)));
    let mut removed = Vec::new();
    for run in finished.skip(keep) {
        if remove(runs, &run.run_id)? {
            removed.push(run.run_id.clone());
        }
    }
    Ok(removed)
}

fn has_ended(dir: &Path) -> bool {
    matches!(summary::told(dir), Ok(Told::Ended(_)))
}

/// Removes one run unless somebody took it up in the meantime.
fn remove(runs: &Path, run: &str) -> Result<bool, StoreError> {
    let dir = runs.join(run);
    let Some(lock) = RunLock::try_acquire(&dir)? else { return Ok(false) };
    if !has_ended(&dir) {
        return Ok(false);
    }
    take_away(runs, run, lock)
}

/// Removes a run that `lock` owns; false when it is gone already.
pub(crate) fn take_away(runs: &Path, run: &str, lock: RunLock) -> Result<bool, StoreError> {
    let dir = runs.join(run);
    // First out of sight in one step, so that nobody ever finds half a run. The lock goes with it.
    let gone = runs.join(format!("{REMOVED}{run}-{}", uuid::Uuid::now_v7()));
    match fs::rename(&dir, &gone) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(refused(&dir, &error)),
    }
    disk::sync_dir(runs).map_err(|error| refused(runs, &error))?;
    drop(lock);
    delete(&gone)?;
    Ok(true)
}

fn sweep(runs: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(runs).map_err(|error| refused(runs, &error))? {
        let entry = entry.map_err(|error| refused(runs, &error))?;
        if entry.file_name().to_string_lossy().starts_with(REMOVED) {
            delete(&entry.path())?;
        }
    }
    Ok(())
}

fn delete(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        // Another process sweeps as well.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(dir, &error)),
    }
}

fn refused(path: &Path, error: &io::Error) -> StoreError {
    let message = format!("an old run cannot be removed ({error}); remove it by hand, or keep all runs");
    StoreError::Directory { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use pipeline_core::clock::Timestamp;
    use pipeline_core::conformance::store::manifest;
    use pipeline_core::fact::{Fact, RunStatus};
    use pipeline_core::store::{CheckpointStore, StoredSources};
    use pipeline_core::value::Data;

    use super::*;

    #[tokio::test]
    async fn what_is_gone_already_is_no_error_and_what_cannot_go_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let lock = RunLock::acquire("run", &run).await.unwrap();
        fs::remove_dir_all(&run).unwrap();
        assert!(!take_away(dir.path(), "run", lock).unwrap(), "it is gone already");
        // Its name is allowed, and no longer one can be made of it.
        let long = "x".repeat(240);
        let run = dir.path().join(&long);
        fs::create_dir(&run).unwrap();
        let lock = RunLock::acquire(&long, &run).await.unwrap();
        assert!(take_away(dir.path(), &long, lock).is_err());
        assert!(run.is_dir());
        delete(&dir.path().join("missing")).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(delete(&file).is_err(), "a file is no directory of a run");
    }

    /// Between the list and the removal a run can be taken up, go on, and be given up again.
    /// Naive: list the old runs, then remove them: in between one may have been taken up.
    #[tokio::test]
    async fn x09_a_run_that_was_taken_up_after_the_list_was_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::FileStore::new(dir.path());
        let runs = dir.path().join("runs");
        let mut log = store.create(&manifest("run", 1), &StoredSources::default()).await.unwrap();
        assert!(!remove(&runs, "run").unwrap(), "it is held");
        drop(log);
        assert!(!remove(&runs, "run").unwrap(), "it can go on");
        log = store.open("run").await.unwrap().log;
        let ended = Fact::RunEnded { status: RunStatus::Ok, outputs: Data::null(), error: None };
        log.append(Timestamp(1), 1, vec![ended]).unwrap();
        log.flush().await.unwrap();
        assert!(!remove(&runs, "run").unwrap(), "it is finished, and held");
        drop(log);
        assert!(remove(&runs, "run").unwrap());
        assert!(!remove(&runs, "run").unwrap(), "it is gone");
        assert_eq!(fs::read_dir(&runs).unwrap().count(), 0);
    }
}
