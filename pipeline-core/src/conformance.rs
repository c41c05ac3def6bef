//! Suites that any implementation of a core trait can run in its own tests (feature `conformance`).
//!
//! Each gives the first thing that an implementation does wrong, as a sentence.

use crate::clock::Timestamp;
use crate::fact::{AttemptEnd, Fact, RunStatus};
use crate::store::{CheckpointStore, Manifest, StoreError, StoredSources};
use crate::value::{Data, Hash, Value};

/// A manifest to test with.
pub fn manifest(run: &str, at: i64) -> Manifest {
    Manifest {
        run_id: run.to_owned(),
        workflow: "test".to_owned(),
        source_path: "test.yaml".to_owned(),
        pipeline_dir: "/".into(),
        source_hash: Hash::of(&()),
        plan: Hash::of(&()),
        mode: "mock".to_owned(),
        inputs: serde_json::json!({"a": 1}),
        settings: Value::Null,
        created_at: Timestamp(at),
        program: "test".to_owned(),
    }
}

/// Sources with awkward names.
pub fn sources() -> StoredSources {
    let mut sources = StoredSources { root: "/a b/x.yaml".to_owned(), ..StoredSources::default() };
    sources.files.insert("/a b/x.yaml".to_owned(), ("x.yaml".to_owned(), "α: 1\r\n".to_owned()));
    sources.files.insert("library:../y".to_owned(), ("library:../y".to_owned(), String::new()));
    sources.links.push(("/a b/x.yaml".to_owned(), "library:../y".to_owned(), "library:../y".to_owned()));
    sources
}

/// A fact with a value of about `size` bytes.
pub fn fact(turn: u32, size: usize) -> Fact {
    let value = serde_json::json!({"text": "ü".repeat(size / 2), "turn": turn});
    Fact::AttemptEnded {
        path: "a/b[3]".into(),
        attempt: turn,
        turn,
        fingerprint: Hash::of(&turn),
        end: Box::new(AttemptEnd::ok(value)),
    }
}

fn check(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn told<T>(result: Result<T, StoreError>, what: &str) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {e}"))
}

/// What every [`CheckpointStore`] must do. `store` must be empty.
///
/// # Errors
/// The first thing that it does wrong.
pub async fn checkpoint_store(store: &dyn CheckpointStore) -> Result<(), String> {
    check(told(store.list().await, "list")?.is_empty(), "an empty store lists runs")?;
    check(told(store.latest().await, "latest")?.is_none(), "an empty store has a latest run")?;
    check(
        matches!(store.read("none").await, Err(StoreError::Unknown { .. })),
        "an unknown run must be `Unknown`",
    )?;
    check(matches!(store.open("../x").await, Err(StoreError::Unknown { .. })), "a path is no run id")?;

    let (first, sources) = (manifest("run-1", 1000), sources());
    let mut log = told(store.create(&first, &sources).await, "create")?;
    check(store.create(&first, &sources).await.is_err(), "a run id is used twice")?;
    check(told(store.latest().await, "latest")?.as_deref() == Some("run-1"), "latest must name the new run")?;
    check(matches!(store.open("run-1").await, Err(StoreError::Held { .. })), "a held run must be `Held`")?;

    let facts = vec![fact(1, 10), fact(2, 300_000)];
    let mut written = told(log.append(Timestamp(5), 7, facts), "append")?;
    told(log.flush().await, "flush")?;
    check(told(store.read("run-1").await, "read")?.records == written, "what is flushed must be readable")?;
    written.extend(told(log.append(Timestamp(6), 8, vec![fact(3, 10)]), "append")?);
    told(log.flush().await, "flush")?;
    check(told(store.list().await, "list")?[0].status == RunStatus::Running, "a held run is running")?;
    // Never flushed, so never promised.
    told(log.append(Timestamp(7), 9, vec![fact(4, 10)]), "append")?;
    drop(log);

    let opened = told(store.open("run-1").await, "open")?;
    check(opened.stored.records == written, "a reopened run must have exactly what was flushed")?;
    check(
        opened.stored.manifest == first && opened.stored.sources == sources,
        "manifest and sources must come back",
    )?;
    let mut log = opened.log;
    let ended = Fact::RunEnded { status: RunStatus::Ok, outputs: Data::null(), error: None };
    let more = told(log.append(Timestamp(9), 10, vec![ended]), "append")?;
    check(more[0].index == 3, "numbers must go on where they were")?;
    told(log.flush().await, "flush")?;
    drop(log);

    let second = manifest("run-2", 2000);
    drop(told(store.create(&second, &sources).await, "create")?);
    let all = told(store.list().await, "list")?;
    let ids: Vec<&str> = all.iter().map(|s| s.run_id.as_str()).collect();
    check(ids == ["run-2", "run-1"], "runs are listed newest first")?;
    check(all[0].status == RunStatus::Interrupted, "a run without an end that nobody holds is interrupted")?;
    check(all[1].status == RunStatus::Ok, "a finished run has the status of its end")
}
