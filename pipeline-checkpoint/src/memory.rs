//! Runs in memory: for tests, and for programs that do not want a state directory. Clones share their runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::clock::Timestamp;
use pipeline_core::fact::{Fact, PauseReason, Record, RunStatus};
use pipeline_core::store::{
    CheckpointStore, Manifest, OpenedRun, RunLog, RunSummary, StoreError, StoredRun, StoredSources,
};

#[derive(Debug, Clone)]
struct Run {
    stored: StoredRun,
    /// Records that were flushed.
    durable: usize,
    is_held: bool,
}

#[derive(Debug, Default)]
struct Runs {
    by_id: BTreeMap<String, Run>,
    latest: Option<String>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Runs>>);

struct MemoryLog {
    runs: Arc<Mutex<Runs>>,
    id: String,
    records: Vec<Record>,
    next: u64,
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        if let Some(run) = self.runs.lock().by_id.get_mut(&self.id) {
            run.is_held = false;
        }
    }
}

#[async_trait]
impl RunLog for MemoryLog {
    fn append(
        &mut self,
        at: Timestamp,
        elapsed_ms: u64,
        facts: Vec<Fact>,
    ) -> Result<Vec<Record>, StoreError> {
        let new: Vec<Record> =
            (self.next..).zip(facts).map(|(index, fact)| Record { index, at, elapsed_ms, fact }).collect();
        self.next += new.len() as u64;
        self.records.extend(new.iter().cloned());
        Ok(new)
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let new = std::mem::take(&mut self.records);
        if let Some(run) = self.runs.lock().by_id.get_mut(&self.id) {
            run.stored.records.extend(new);
            run.durable = run.stored.records.len();
        }
        Ok(())
    }
}

impl MemoryStore {
    fn log(&self, id: &str, next: u64) -> Box<dyn RunLog> {
        Box::new(MemoryLog { runs: Arc::clone(&self.0), id: id.to_owned(), records: Vec::new(), next })
    }
}

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn create(
        &self,
        manifest: &Manifest,
        sources: &StoredSources,
    ) -> Result<Box<dyn RunLog>, StoreError> {
        let mut runs = self.0.lock();
        let id = manifest.run_id.clone();
        if runs.by_id.contains_key(&id) {
            let message = "a run of this id exists already".to_owned();
            return Err(StoreError::Write { path: id.into(), message });
        }
        let stored = StoredRun { manifest: manifest.clone(), sources: sources.clone(), records: Vec::new() };
        runs.by_id.insert(id.clone(), Run { stored, durable: 0, is_held: true });
        runs.latest = Some(id.clone());
        Ok(self.log(&id, 0))
    }

    async fn open(&self, run: &str) -> Result<OpenedRun, StoreError> {
        let mut runs = self.0.lock();
        let found = runs.by_id.get_mut(run).ok_or_else(|| StoreError::Unknown { run: run.to_owned() })?;
        if found.is_held {
            return Err(StoreError::Held { run: run.to_owned(), pid: std::process::id() });
        }
        found.is_held = true;
        let stored = found.stored.clone();
        let log = self.log(run, stored.records.len() as u64);
        Ok(OpenedRun { stored, log, repaired: None })
    }

    async fn read(&self, run: &str) -> Result<StoredRun, StoreError> {
        let runs = self.0.lock();
        let found = runs.by_id.get(run).ok_or_else(|| StoreError::Unknown { run: run.to_owned() })?;
        Ok(found.stored.clone())
    }

    async fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        let runs = self.0.lock();
        let mut all: Vec<RunSummary> = runs.by_id.values().map(summary).collect();
        all.sort_by(|a, b| (b.started_at, &b.run_id).cmp(&(a.started_at, &a.run_id)));
        Ok(all)
    }

    async fn latest(&self) -> Result<Option<String>, StoreError> {
        Ok(self.0.lock().latest.clone())
    }
}

fn summary(run: &Run) -> RunSummary {
    let status = match run.stored.records.last().map(|r| &r.fact) {
        Some(Fact::RunEnded { status, .. }) => *status,
        Some(Fact::RunPaused { reason: PauseReason::Budget { .. } }) => RunStatus::Budget,
        Some(Fact::RunPaused { reason: PauseReason::Person { .. } }) => RunStatus::Paused,
        _ if run.is_held => RunStatus::Running,
        _ => RunStatus::Interrupted,
    };
    RunSummary {
        run_id: run.stored.manifest.run_id.clone(),
        workflow: run.stored.manifest.workflow.clone(),
        status,
        started_at: run.stored.manifest.created_at,
        mode: run.stored.manifest.mode.clone(),
        source_path: run.stored.manifest.source_path.clone(),
        pid: run.is_held.then(std::process::id),
    }
}
