//! Stores on disk and in memory keep the promises of the traits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipeline_checkpoint::{
    FileSessions, FileSnapshots, FileStore, MemorySessions, MemorySnapshots, MemoryStore,
};
use pipeline_core::clock::SystemClock;
use pipeline_core::conformance::{checkpoint_store, session_store, snapshot_store};
use tempfile::TempDir;

/// Directories that were not there before.
struct Fresh(TempDir, AtomicUsize);

impl Fresh {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), AtomicUsize::new(0))
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join(self.1.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

#[tokio::test]
async fn the_store_on_disk_conforms() {
    let fresh = Fresh::new();
    checkpoint_store(|| Arc::new(FileStore::new(fresh.dir()))).await;
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    checkpoint_store(|| Arc::new(MemoryStore::default())).await;
}

/// Naive: read, answer, write back, without a lock: one of two turns at once is lost.
#[tokio::test]
async fn n11_sessions_on_disk_conform() {
    let fresh = Fresh::new();
    session_store(|| Arc::new(FileSessions::new(fresh.dir(), Arc::new(SystemClock)))).await;
}

/// Naive: a table that any task may change between another's read and write.
#[tokio::test]
async fn n11_sessions_in_memory_conform() {
    session_store(|| Arc::new(MemorySessions::new(Arc::new(SystemClock)))).await;
}

#[tokio::test]
async fn snapshots_on_disk_conform() {
    let fresh = Fresh::new();
    snapshot_store(|clock| Arc::new(FileSnapshots::new(fresh.dir(), clock))).await;
}

#[tokio::test]
async fn snapshots_in_memory_conform() {
    snapshot_store(|clock| Arc::new(MemorySnapshots::new(clock))).await;
}
