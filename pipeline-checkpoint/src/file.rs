//! The store on disk.
//!
//! Owns [`FileStore`]: where a run's files are, the order in which they become durable, and who may touch them.
//! Must not know the form of a journal line (`line.rs`) nor what is torn and what is damaged (`scan.rs`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use pipeline_core::store::{
    CheckpointStore, Manifest, OpenedRun, RunLog, RunSummary, StoreError, StoredRun, StoredSources,
};

use crate::blob;
use crate::disk;
use crate::failing::{self, Failing};
use crate::journal::{self, FileLog, Sink};
use crate::line::{self, Head};
use crate::lock::{self, RunLock};
use crate::manifest;
use crate::retention;
use crate::scan::{self, End};
use crate::summary::{self, JOURNAL};

const RUNS: &str = "runs";
const BLOBS: &str = "blobs";
const LATEST: &str = "latest";
/// Longest run id, in bytes: far below what file systems allow, so that other names can be made from it.
const MAX_ID: usize = 128;

/// Runs in a directory, one directory each. Cheap to clone; clones and other processes may use the same directory.
///
/// The lock that says who owns a run is the operating system's. Network file systems may not keep it: use a local disk.
#[derive(Debug, Clone)]
pub struct FileStore {
    state_dir: PathBuf,
    keep: usize,
    fails_at: Option<u64>,
}

impl FileStore {
    /// A store in `state_dir`, which is made when the first run is. All runs are kept.
    ///
    /// A relative path is meant from the current directory of now, not of later.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let given = state_dir.into();
        // Only an empty path, or one without a current directory, has no absolute form: using it says so.
        let state_dir = std::path::absolute(&given).unwrap_or(given);
        Self { state_dir, keep: 0, fails_at: None }
    }

    /// Keeps the newest `keep` finished runs; 0 keeps all. The others are removed when a run is created. Runs that can
    /// still go on, and those that a process holds, stay and do not count.
    #[must_use]
    pub fn with_retention(mut self, keep: usize) -> Self {
        self.keep = keep;
        self
    }

    /// A disk to try out what becomes of a run when it is full: of the writes and flushes of a run's journal and blobs, that with
    /// this number, from 1, fails, and every one after it. [`FileStore::has_failed`] tells whether it came to that.
    #[must_use]
    pub fn failing_at(mut self, operation: u64) -> Self {
        self.fails_at = Some(operation);
        self
    }

    /// Whether the disk of that run has failed on purpose.
    pub fn has_failed(&self, run: &str) -> bool {
        self.existing(run).is_ok_and(|dir| dir.join(failing::MARK).exists())
    }

    /// Where the journal of the run in `dir` is written to.
    fn sink(&self, journal: File, dir: &Path) -> Box<dyn Sink> {
        match self.fails_at {
            Some(first) => Box::new(Failing::new(journal, first, dir)),
            None => Box::new(journal),
        }
    }

    fn runs(&self) -> PathBuf {
        self.state_dir.join(RUNS)
    }

    /// The directory of a run that exists. An id that could not be one (it may come from a command line) is unknown.
    fn existing(&self, run: &str) -> Result<PathBuf, StoreError> {
        let dir = self.runs().join(run);
        if is_id(run) && dir.is_dir() { Ok(dir) } else { Err(StoreError::Unknown { run: run.to_owned() }) }
    }

    fn summaries(&self) -> Result<Vec<RunSummary>, StoreError> {
        let runs = self.runs();
        let refused = |error: &io::Error| disk::directory_error(&runs, error);
        let entries = match fs::read_dir(&runs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(refused(&error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| refused(&error))?;
            let name = entry.file_name();
            let Some(run) = name.to_str().filter(|name| is_id(name)) else { continue };
            let dir = entry.path();
            // A run may be removed while the list is made.
            if dir.is_dir() {
                all.extend(summary::summarise(run, &dir));
            }
        }
        all.sort_by(|a, b| (b.started_at, &b.run_id).cmp(&(a.started_at, &a.run_id)));
        Ok(all)
    }

    /// Makes everything of a new run durable. The journal comes last: a directory without one is no run yet.
    fn write_run(&self, dir: &Path, manifest: &Manifest, sources: &StoredSources) -> Result<End, StoreError> {
        let blobs = dir.join(BLOBS);
        disk::create_dir(&blobs).map_err(|error| disk::write_error(&blobs, &error))?;
        let head = Head {
            run_id: manifest.run_id.clone(),
            sources: manifest::write_sources(dir, sources)?,
            manifest: manifest::write(dir, manifest)?,
        };
        let journal = dir.join(JOURNAL);
        let refused = |error: &io::Error| disk::write_error(&journal, error);
        disk::sync_dir(dir).map_err(|error| refused(&error))?;
        let (line, crc) = line::encode_head(&head).map_err(|error| refused(&error.into()))?;
        disk::replace(&journal, &line).map_err(|error| refused(&error))?;
        let latest = self.state_dir.join(LATEST);
        disk::replace(&latest, format!("{}\n", manifest.run_id).as_bytes())
            .map_err(|error| disk::write_error(&latest, &error))?;
        Ok(End { length: line.len() as u64, crc, seq: 0, epoch: 0 })
    }
}

#[async_trait]
impl CheckpointStore for FileStore {
    async fn create(
        &self,
        manifest: &Manifest,
        sources: &StoredSources,
    ) -> Result<Box<dyn RunLog>, StoreError> {
        let runs = self.runs();
        disk::create_shared_dir(&runs).map_err(|error| disk::directory_error(&runs, &error))?;
        if self.keep > 0 {
            retention::prune(&runs, &self.summaries()?, self.keep)?;
        }
        let run = manifest.run_id.as_str();
        let dir = runs.join(run);
        if !is_id(run) {
            let message =
                format!("`{run}` cannot be a run id: letters, digits, `-` and `_` only, at most {MAX_ID}");
            return Err(StoreError::Write { path: runs, message });
        }
        disk::create_dir(&dir).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                StoreError::Write { path: dir.clone(), message: format!("there is a run {run} already") }
            }
            _ => disk::write_error(&dir, &error),
        })?;
        let lock = RunLock::acquire(run, &dir).await?;
        let end = self.write_run(&dir, manifest, sources).inspect_err(|_| {
            // Nobody was told of this run. If it cannot be removed either, opening it says that it is incomplete.
            let _ = fs::remove_dir_all(&dir);
        })?;
        let journal = dir.join(JOURNAL);
        let sink = self.sink(journal::open(&journal)?, &dir);
        Ok(Box::new(FileLog::new(journal, dir.join(BLOBS), sink, end, lock)))
    }

    async fn open(&self, run: &str) -> Result<OpenedRun, StoreError> {
        let dir = self.existing(run)?;
        if !dir.join(JOURNAL).exists() {
            // Its creator may be about to take the lock: stay out of its way.
            return Err(incomplete(&dir.join(JOURNAL)));
        }
        let mut lock = RunLock::acquire(run, &dir).await?;
        let Loaded { stored, end, torn } = load(run, &dir)?;
        lock.raise_epoch(end.epoch)?;
        let journal = dir.join(JOURNAL);
        let file = journal::open(&journal)?;
        if torn.is_some() {
            let cut = file.set_len(end.length).and_then(|()| file.sync_all());
            cut.map_err(|error| disk::write_error(&journal, &error))?;
        }
        let log = FileLog::new(journal, dir.join(BLOBS), self.sink(file, &dir), end, lock);
        Ok(OpenedRun { stored, log: Box::new(log), repaired: torn })
    }

    async fn read(&self, run: &str) -> Result<StoredRun, StoreError> {
        // A torn end is left as it is: a live owner may be writing it at this moment.
        let dir = self.existing(run)?;
        let pid = lock::holder(&dir);
        Ok(StoredRun { pid, ..load(run, &dir)?.stored })
    }

    async fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        self.summaries()
    }

    async fn latest(&self) -> Result<Option<String>, StoreError> {
        let named = disk::read(&self.state_dir.join(LATEST))?;
        let named = named.and_then(|bytes| String::from_utf8(bytes).ok());
        match named.as_deref().map(str::trim_end) {
            Some(run) if self.existing(run).is_ok() => Ok(Some(run.to_owned())),
            // Never written, or that run was removed.
            _ => Ok(self.summaries()?.into_iter().next().map(|run| run.run_id)),
        }
    }

    async fn remove(&self, run: &str) -> Result<(), StoreError> {
        let dir = self.existing(run)?;
        let lock = RunLock::acquire(run, &dir).await?;
        if retention::take_away(&self.runs(), run, lock)? {
            Ok(())
        } else {
            Err(StoreError::Unknown { run: run.to_owned() })
        }
    }
}

struct Loaded {
    stored: StoredRun,
    end: End,
    torn: Option<String>,
}

fn load(run: &str, dir: &Path) -> Result<Loaded, StoreError> {
    let journal = dir.join(JOURNAL);
    let Some(bytes) = disk::read(&journal)? else {
        let is_there = dir.is_dir();
        return Err(if is_there {
            incomplete(&journal)
        } else {
            StoreError::Unknown { run: run.to_owned() }
        });
    };
    let scan = scan::scan(&journal, &bytes)?;
    drop(bytes);
    if scan.head.run_id != run {
        return Err(disk::damaged(&journal, format!("this is the journal of run {}", scan.head.run_id)));
    }
    let manifest = manifest::read(dir, scan.head.manifest)?;
    let sources = manifest::read_sources(dir, scan.head.sources)?;
    let mut records = Vec::with_capacity(scan.entries.len());
    for mut entry in scan.entries {
        blob::put_back(&mut entry.record.fact, &entry.blobs, &dir.join(BLOBS), disk::read)?;
        records.push(entry.record);
    }
    Ok(Loaded { stored: StoredRun { manifest, sources, records, pid: None }, end: scan.end, torn: scan.torn })
}

fn incomplete(journal: &Path) -> StoreError {
    disk::damaged(journal, "it is missing: the run was never completely created, and none of its steps ran")
}

/// Whether a text can be a run id, and so the name of a directory: never a path, never hidden.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
