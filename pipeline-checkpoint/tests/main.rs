//! The stores from the outside: conformance, crashes, many at once, golden files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use pipeline_checkpoint::{FileStore, MemoryStore};
use pipeline_core::clock::Timestamp;
use pipeline_core::conformance::{checkpoint_store, fact, manifest, sources};
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::store::{CheckpointStore, StoreError};
use pipeline_core::value::Data;

#[tokio::test]
async fn files_conform() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint_store(&FileStore::new(dir.path().join("state"))).await.unwrap();
}

#[tokio::test]
async fn memory_conforms() {
    checkpoint_store(&MemoryStore::default()).await.unwrap();
}

fn journal(state: &Path) -> std::path::PathBuf {
    state.join("runs/run-1/journal.log")
}

async fn write_run(state: &Path, facts: u32) {
    let store = FileStore::new(state);
    let mut log = store.create(&manifest("run-1", 1), &sources()).await.unwrap();
    for turn in 1..=facts {
        log.append(Timestamp(i64::from(turn)), 1, vec![fact(turn, 30)]).unwrap();
        log.flush().await.unwrap();
    }
}

/// Naive: the checkpoint file is written in place.
#[tokio::test]
async fn n10_a_cut_at_every_byte_of_the_last_record_opens_to_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), 4).await;
    let bytes = std::fs::read(journal(dir.path())).unwrap();
    let last = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last..=bytes.len() {
        std::fs::write(journal(dir.path()), &bytes[..cut]).unwrap();
        let store = FileStore::new(dir.path());
        let opened = store.open("run-1").await.unwrap();
        let expected = if cut == bytes.len() { 4 } else { 3 };
        assert_eq!(opened.stored.records.len(), expected, "cut at {cut}");
        assert_eq!(opened.repaired.is_some(), cut != last && cut != bytes.len(), "cut at {cut}");
        let mut log = opened.log;
        log.append(Timestamp(9), 2, vec![fact(9, 5)]).unwrap();
        log.flush().await.unwrap();
        drop(log);
        assert_eq!(store.read("run-1").await.unwrap().records.len(), expected + 1);
    }
}

/// Naive: `latest` is removed and then written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n10_latest_always_names_a_run_that_exists() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::new(dir.path()));
    drop(store.create(&manifest("run-0", 0), &sources()).await.unwrap());
    let writers = (1..20).map(|n| {
        let store = Arc::clone(&store);
        async move { drop(store.create(&manifest(&format!("run-{n}"), n), &sources()).await.unwrap()) }
    });
    let reader = async {
        for _ in 0..200 {
            let latest = store.latest().await.unwrap().expect("there is always one");
            assert!(store.read(&latest).await.is_ok(), "{latest}");
            tokio::task::yield_now().await;
        }
    };
    futures_util::future::join(futures_util::future::join_all(writers), reader).await;
}

/// Naive: exists-check, then create.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n24_a_hundred_runs_at_once_have_a_hundred_directories() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let made = (0..100).map(|n| {
        let store = store.clone();
        // Half of them ask for a name that another one asks for too.
        async move { store.create(&manifest(&format!("run-{}", n / 2), 1), &sources()).await.is_ok() }
    });
    let made = futures_util::future::join_all(made).await;
    assert_eq!(made.into_iter().filter(|ok| *ok).count(), 50);
    assert_eq!(std::fs::read_dir(dir.path().join("runs")).unwrap().count(), 50);
}

/// Naive: files are world-readable, though they hold prompts and answers.
#[tokio::test]
async fn only_the_owner_can_read_a_run() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    write_run(&state, 1).await;
    let mut open = vec![state.clone()];
    while let Some(path) = open.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
}

/// Naive: checkpoints keyed by workflow name, a prefix listing that mixes workflows, a retention that is never called.
#[tokio::test]
async fn x09_retention_keeps_exactly_k_and_never_a_run_that_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path()).with_retention(3);
    for n in 0..10 {
        let mut log = store.create(&manifest(&format!("run-{n}"), n), &sources()).await.unwrap();
        // The first two are interrupted, the others finish.
        if n >= 2 {
            let ended = Fact::RunEnded { status: RunStatus::Ok, outputs: Data::null(), error: None };
            log.append(Timestamp(n), 1, vec![ended]).unwrap();
            log.flush().await.unwrap();
        }
    }
    let held = store.open("run-7").await.unwrap();
    let removed = store.prune(1).await.unwrap();
    let ids: Vec<String> = store.list().await.unwrap().into_iter().map(|s| s.run_id).collect();
    assert_eq!(ids, ["run-9", "run-7", "run-1", "run-0"], "removed {removed:?}");
    drop(held);
}

/// Naive: the whole run is kept in memory, or rewritten, with every record.
#[tokio::test]
async fn x19_a_hundred_thousand_records_take_bounded_memory_and_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let mut log = store.create(&manifest("run-1", 1), &sources()).await.unwrap();
    let before = open_files();
    for batch in 0..100_u32 {
        log.append(Timestamp(1), 1, (0..1000).map(|n| fact(batch * 1000 + n, 20)).collect()).unwrap();
        log.flush().await.unwrap();
    }
    assert_eq!(open_files(), before);
    drop(log);
    assert_eq!(store.read("run-1").await.unwrap().records.len(), 100_000);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_damaged_blob_is_told_and_never_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let mut log = store.create(&manifest("run-1", 1), &sources()).await.unwrap();
    log.append(Timestamp(1), 1, vec![fact(1, 200_000)]).unwrap();
    log.flush().await.unwrap();
    drop(log);
    let blob =
        std::fs::read_dir(dir.path().join("runs/run-1/blobs")).unwrap().next().unwrap().unwrap().path();
    let size = std::fs::metadata(journal(dir.path())).unwrap().len();
    assert!(size < 2000, "the large value stands in the journal");
    std::fs::write(&blob, "{}").unwrap();
    assert!(matches!(store.read("run-1").await, Err(StoreError::Damaged { .. })));
}

/// The first format. These files are never edited: what once was written is read for ever.
#[tokio::test]
async fn format_1_is_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1");
    let dir = tempfile::tempdir().unwrap();
    copy(&golden, dir.path());
    let stored = FileStore::new(dir.path()).read("run-1").await.unwrap();
    assert_eq!(stored.manifest, manifest("run-1", 1));
    assert_eq!(stored.sources, sources());
    let facts: Vec<Fact> = stored.records.into_iter().map(|r| r.fact).collect();
    assert_eq!(facts, [fact(1, 30), fact(2, 30), fact(3, 30)]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
