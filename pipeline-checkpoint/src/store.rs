//! Runs in a state directory.
//!
//! Owns [`FileStore`]: `runs/ID/{manifest.json, source/, journal.log, blobs/, run.lock}` and `latest`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::fact::{Fact, PauseReason, Record, RunStatus};
use pipeline_core::store::{
    CheckpointStore, Manifest, OpenedRun, RunLog, RunSummary, StoreError, StoredRun, StoredSources,
};
use pipeline_core::value::Value;

use crate::blobs;
use crate::files;
use crate::format::{FIRST, FORMAT, HEADER};
use crate::journal::{self, Contents, Writer};
use crate::lock::{self, Asked, RunLock};
use crate::run_log::FileLog;
use crate::sources;

const JOURNAL: &str = "journal.log";
const MANIFEST: &str = "manifest.json";
const SCHEMA: &str = "pipeline.manifest/";

/// Runs kept in files. One directory, any number of processes; one process owns a run at a time.
#[derive(Debug, Clone)]
pub struct FileStore {
    dir: PathBuf,
    keep: Option<usize>,
}

impl FileStore {
    /// A store in a state directory (usually `.pipeline`), which is made when the first run is.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { dir: state_dir.into(), keep: None }
    }

    /// Keeps at most `keep` finished runs: older ones are removed when a run is created. Runs that can be resumed, and
    /// those that a process holds, are never removed. Default: all are kept.
    #[must_use]
    pub fn with_retention(mut self, keep: usize) -> Self {
        self.keep = Some(keep);
        self
    }

    /// The directory of a run.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the id cannot be one.
    pub fn run_dir(&self, run: &str) -> Result<PathBuf, StoreError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if run.is_empty() || run.len() > 64 || !run.chars().all(fits) {
            return Err(StoreError::Unknown { run: run.to_owned() });
        }
        Ok(self.dir.join("runs").join(run))
    }

    /// Removes the oldest finished runs so that at most `keep` are left; gives the ids of those removed.
    ///
    /// # Errors
    /// [`StoreError::Directory`] or [`StoreError::Write`].
    pub async fn prune(&self, keep: usize) -> Result<Vec<String>, StoreError> {
        let finished = |s: &RunSummary| {
            matches!(s.status, RunStatus::Ok | RunStatus::Failed | RunStatus::TimedOut | RunStatus::Cancelled)
        };
        let mut removed = Vec::new();
        for summary in self.list().await?.into_iter().filter(finished).skip(keep) {
            let dir = self.run_dir(&summary.run_id)?;
            // Whoever opens it meanwhile keeps it.
            if let Asked::Ours(_lock) = lock::acquire(&dir).map_err(|e| write_error(&dir, &e))? {
                std::fs::remove_dir_all(&dir).map_err(|e| write_error(&dir, &e))?;
                removed.push(summary.run_id);
            }
        }
        Ok(removed)
    }

    fn existing(&self, run: &str) -> Result<PathBuf, StoreError> {
        let dir = self.run_dir(run)?;
        if dir.join(MANIFEST).is_file() { Ok(dir) } else { Err(StoreError::Unknown { run: run.to_owned() }) }
    }

    fn directory_error(&self, error: &io::Error) -> StoreError {
        StoreError::Directory { path: self.dir.clone(), message: error.to_string() }
    }

    fn load(dir: &Path) -> Result<(StoredRun, Contents), StoreError> {
        let manifest = read_manifest(dir)?;
        let sources = sources::read(&dir.join("source"))?;
        let contents = read_journal(dir)?;
        let path = dir.join(JOURNAL);
        let mut records = Vec::with_capacity(contents.records.len());
        for (index, json) in contents.records.iter().enumerate() {
            let json = blobs::join(&dir.join("blobs"), json)?;
            let record: Record = serde_json::from_str(&json).map_err(|e| StoreError::Damaged {
                path: path.clone(),
                offset: 0,
                message: format!("record {index} is not understood: {e}"),
            })?;
            records.push(record);
        }
        Ok((StoredRun { manifest, sources, records }, contents))
    }

    fn create_run(&self, manifest: &Manifest, stored: &StoredSources) -> Result<FileLog, StoreError> {
        let runs = self.dir.join("runs");
        files::make_dirs(&runs).map_err(|e| self.directory_error(&e))?;
        let dir = self.run_dir(&manifest.run_id)?;
        let failed = |e: &io::Error| write_error(&dir, e);
        match files::make_new_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(failed(&io::Error::other("a run of this id exists already")));
            }
            Err(error) => return Err(self.directory_error(&error)),
            Ok(()) => {}
        }
        let lock = match lock::acquire(&dir).map_err(|e| failed(&e))? {
            Asked::Ours(lock) => lock,
            Asked::Held(pid) => return Err(StoreError::Held { run: manifest.run_id.clone(), pid }),
        };
        files::make_new_dir(&dir.join("blobs")).map_err(|e| failed(&e))?;
        sources::write(&dir.join("source"), stored).map_err(|e| failed(&e))?;
        let path = dir.join(JOURNAL);
        let mut file = files::open_append(&path, true).map_err(|e| failed(&e))?;
        io::Write::write_all(&mut file, HEADER.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|e| failed(&e))?;
        // The manifest comes last: a run without one does not exist.
        let text = manifest_text(manifest).map_err(|e| failed(&e))?;
        files::write_atomic(&dir.join(MANIFEST), text.as_bytes()).map_err(|e| failed(&e))?;
        files::sync_dir(&runs).map_err(|e| failed(&e))?;
        files::write_atomic(&self.dir.join("latest"), format!("{}\n", manifest.run_id).as_bytes())
            .map_err(|e| failed(&e))?;
        let writer = Writer::new(file, path, 1, 0, FIRST);
        Ok(FileLog { writer, blobs: dir.join("blobs"), pending: Vec::new(), _lock: lock })
    }

    fn take_over(dir: &Path, lock: RunLock) -> Result<OpenedRun, StoreError> {
        let (stored, contents) = Self::load(dir)?;
        let path = dir.join(JOURNAL);
        let failed = |e: &io::Error| write_error(&path, e);
        let mut file = files::open_append(&path, false).map_err(|e| failed(&e))?;
        if contents.torn.is_some() {
            file.set_len(contents.good).map_err(|e| failed(&e))?;
            if contents.good == 0 {
                io::Write::write_all(&mut file, HEADER.as_bytes()).map_err(|e| failed(&e))?;
            }
            file.sync_all().map_err(|e| failed(&e))?;
        }
        let next = contents.records.len() as u64;
        let writer = Writer::new(file, path, contents.epoch + 1, next, contents.last);
        let log = FileLog { writer, blobs: dir.join("blobs"), pending: Vec::new(), _lock: lock };
        Ok(OpenedRun { stored, log: Box::new(log), repaired: contents.torn })
    }

    fn summary(dir: &Path) -> Option<RunSummary> {
        let manifest = read_manifest(dir).ok()?;
        let pid = lock::holder(dir);
        let status = match (pid, last_status(dir)) {
            (Some(_), None | Some(RunStatus::Interrupted)) => RunStatus::Running,
            (_, status) => status.unwrap_or(RunStatus::Interrupted),
        };
        Some(RunSummary {
            run_id: manifest.run_id,
            workflow: manifest.workflow,
            status,
            started_at: manifest.created_at,
            mode: manifest.mode,
            source_path: manifest.source_path,
            pid,
        })
    }
}

#[async_trait]
impl CheckpointStore for FileStore {
    async fn create(
        &self,
        manifest: &Manifest,
        sources: &StoredSources,
    ) -> Result<Box<dyn RunLog>, StoreError> {
        let log = self.create_run(manifest, sources)?;
        if let Some(keep) = self.keep {
            self.prune(keep).await?;
        }
        Ok(Box::new(log))
    }

    async fn open(&self, run: &str) -> Result<OpenedRun, StoreError> {
        let dir = self.existing(run)?;
        // Somebody who only looks holds the lock for an instant.
        for _ in 0..5 {
            match lock::acquire(&dir).map_err(|e| write_error(&dir, &e))? {
                Asked::Ours(lock) => return Self::take_over(&dir, lock),
                Asked::Held(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Err(StoreError::Held { run: run.to_owned(), pid: lock::holder(&dir).unwrap_or(0) })
    }

    async fn read(&self, run: &str) -> Result<StoredRun, StoreError> {
        Self::load(&self.existing(run)?).map(|(stored, _)| stored)
    }

    async fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        let entries = match std::fs::read_dir(self.dir.join("runs")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.directory_error(&error)),
        };
        let mut all: Vec<RunSummary> = entries.flatten().filter_map(|e| Self::summary(&e.path())).collect();
        all.sort_by(|a, b| (b.started_at, &b.run_id).cmp(&(a.started_at, &a.run_id)));
        Ok(all)
    }

    async fn latest(&self) -> Result<Option<String>, StoreError> {
        match std::fs::read_to_string(self.dir.join("latest")) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.directory_error(&error)),
        }
    }
}

fn write_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Write { path: path.to_owned(), message: error.to_string() }
}

fn manifest_text(manifest: &Manifest) -> Result<String, io::Error> {
    let mut fields = serde_json::Map::new();
    fields.insert("schema".to_owned(), format!("{SCHEMA}{FORMAT}").into());
    if let Value::Object(rest) = serde_json::to_value(manifest)? {
        fields.extend(rest);
    }
    Ok(serde_json::to_string_pretty(&fields)?)
}

fn read_manifest(dir: &Path) -> Result<Manifest, StoreError> {
    let path = dir.join(MANIFEST);
    let damaged = |message: String| StoreError::Damaged { path: path.clone(), offset: 0, message };
    let text = std::fs::read_to_string(&path).map_err(|e| damaged(e.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    let version =
        value.get("schema").and_then(Value::as_str).and_then(|s| s.strip_prefix(SCHEMA)?.parse::<u32>().ok());
    match version {
        Some(found) if found > FORMAT => Err(StoreError::Newer { path, found, supported: FORMAT }),
        Some(_) => serde_json::from_value(value).map_err(|e| damaged(e.to_string())),
        None => Err(damaged("it does not say its format".to_owned())),
    }
}

fn read_journal(dir: &Path) -> Result<Contents, StoreError> {
    let path = dir.join(JOURNAL);
    match std::fs::read(&path) {
        Ok(bytes) => journal::read(&path, &bytes),
        Err(error) => Err(StoreError::Damaged { path, offset: 0, message: error.to_string() }),
    }
}

/// How a run stands by its last record; `None` when it is damaged.
fn last_status(dir: &Path) -> Option<RunStatus> {
    let contents = read_journal(dir).ok()?;
    let json = contents.records.last().map(|json| blobs::join(&dir.join("blobs"), json));
    let record: Option<Record> = json.and_then(|json| serde_json::from_str(&json.ok()?).ok());
    Some(match record.map(|r| r.fact) {
        Some(Fact::RunEnded { status, .. }) => status,
        Some(Fact::RunPaused { reason: PauseReason::Budget { .. } }) => RunStatus::Budget,
        Some(Fact::RunPaused { reason: PauseReason::Person { .. } }) => RunStatus::Paused,
        _ => RunStatus::Interrupted,
    })
}
