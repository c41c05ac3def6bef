//! The store without a disk.
//!
//! Owns [`MemoryStore`]: what [`FileStore`](crate::FileStore) promises, for tests and for runs that nobody wants to keep. What was
//! not flushed is lost when a log is dropped, as in a crash. Must not know files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::clock::Timestamp;
use pipeline_core::fact::{Fact, Record};
use pipeline_core::store::{
    CheckpointStore, Commit, Manifest, OpenedRun, RunLog, RunSummary, StoreError, StoredRun, StoredSources,
};

use crate::summary::Told;

/// Runs that end with the process. Clones share the same runs.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    runs: HashMap<String, Run>,
    latest: Option<String>,
}

struct Run {
    stored: StoredRun,
    is_held: bool,
}

struct MemoryLog {
    state: Arc<Mutex<State>>,
    run: String,
    next: u64,
    pending: Vec<Arc<Record>>,
}

impl MemoryStore {
    fn log(&self, run: &str, next: usize) -> Box<dyn RunLog> {
        Box::new(MemoryLog {
            state: Arc::clone(&self.0),
            run: run.to_owned(),
            next: next as u64,
            pending: Vec::new(),
        })
    }
}

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn create(
        &self,
        manifest: &Manifest,
        sources: &StoredSources,
    ) -> Result<Box<dyn RunLog>, StoreError> {
        let mut state = self.0.lock();
        let run = &manifest.run_id;
        if state.runs.contains_key(run) {
            let message = format!("there is a run {run} already");
            return Err(StoreError::Write { path: PathBuf::from("memory"), message });
        }
        let stored = StoredRun {
            manifest: manifest.clone(),
            sources: sources.clone(),
            records: Vec::new(),
            pid: None,
        };
        state.runs.insert(run.clone(), Run { stored, is_held: true });
        state.latest = Some(run.clone());
        Ok(self.log(run, 0))
    }

    async fn open(&self, run: &str) -> Result<OpenedRun, StoreError> {
        let mut state = self.0.lock();
        let unknown = || StoreError::Unknown { run: run.to_owned() };
        let found = state.runs.get_mut(run).ok_or_else(unknown)?;
        if found.is_held {
            return Err(StoreError::Held { run: run.to_owned(), pid: std::process::id() });
        }
        found.is_held = true;
        let stored = found.stored.clone();
        let log = self.log(run, stored.records.len());
        Ok(OpenedRun { stored, log, repaired: None })
    }

    async fn read(&self, run: &str) -> Result<StoredRun, StoreError> {
        let state = self.0.lock();
        let found = state.runs.get(run).ok_or_else(|| StoreError::Unknown { run: run.to_owned() })?;
        Ok(StoredRun { pid: found.is_held.then(std::process::id), ..found.stored.clone() })
    }

    async fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        let state = self.0.lock();
        let mut all: Vec<RunSummary> = state.runs.values().map(summarise).collect();
        all.sort_by(|a, b| (b.started_at, &b.run_id).cmp(&(a.started_at, &a.run_id)));
        Ok(all)
    }

    async fn latest(&self) -> Result<Option<String>, StoreError> {
        Ok(self.0.lock().latest.clone())
    }

    async fn remove(&self, run: &str) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        let unknown = || StoreError::Unknown { run: run.to_owned() };
        if state.runs.get(run).ok_or_else(unknown)?.is_held {
            return Err(StoreError::Held { run: run.to_owned(), pid: std::process::id() });
        }
        state.runs.remove(run);
        if state.latest.as_deref() == Some(run) {
            let newest = state.runs.values().map(summarise).max_by_key(|r| (r.started_at, r.run_id.clone()));
            state.latest = newest.map(|r| r.run_id);
        }
        Ok(())
    }
}

fn summarise(run: &Run) -> RunSummary {
    let told = run.stored.records.iter().rev().find_map(|record| Told::by(&record.fact));
    let manifest = &run.stored.manifest;
    RunSummary {
        run_id: manifest.run_id.clone(),
        workflow: manifest.workflow.clone(),
        status: told.unwrap_or(Told::Open).status(run.is_held),
        started_at: manifest.created_at,
        mode: manifest.mode.clone(),
        source_path: manifest.source_path.clone(),
        pid: run.is_held.then(std::process::id),
    }
}

impl RunLog for MemoryLog {
    fn append(
        &mut self,
        at: Timestamp,
        elapsed_ms: u64,
        facts: Vec<Fact>,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let records = Record::numbered(self.next, at, elapsed_ms, facts);
        self.next += records.len() as u64;
        self.pending.extend_from_slice(&records);
        Ok(records)
    }

    fn commit(&mut self) -> Commit {
        // A run that is held is never removed, so it is there.
        if let Some(run) = self.state.lock().runs.get_mut(&self.run) {
            run.stored.records.extend(self.pending.drain(..).map(Arc::unwrap_or_clone));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        if let Some(run) = self.state.lock().runs.get_mut(&self.run) {
            run.is_held = false;
        }
    }
}
