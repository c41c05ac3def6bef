//! What every [`CheckpointStore`] does.
//!
//! Owns [`checkpoint_store`] and a sample of each fact. Must not know where a store keeps things: damage, locks between
//! processes and formats are the store's own tests.

#![allow(clippy::panic, clippy::expect_used, reason = "a suite fails by panicking in the test that calls it")]

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use crate::clock::Timestamp;
use crate::error::{ErrorKind, StepError};
use crate::fact::{
    Assignment, AttemptEnd, Fact, PauseReason, Record, RunError, RunStatus, Spend, Usage, VariableScope,
};
use crate::path::{OpRole, StepPath};
use crate::store::{CheckpointStore, Manifest, RunLog, RunSummary, StoreError, StoredSources};
use crate::value::{Data, Hash, Value};

/// Runs the whole suite. Each call of `make` must give a new, empty store.
///
/// # Panics
/// When the store does not do what [`CheckpointStore`] promises; the message says which promise.
pub async fn checkpoint_store(make: impl Fn() -> Arc<dyn CheckpointStore>) {
    an_empty_store_has_no_runs(&*make()).await;
    what_was_flushed_is_read_back(&*make()).await;
    what_was_not_flushed_is_lost_with_its_log(&*make()).await;
    positions_go_on_after_a_reopen(&*make()).await;
    an_id_is_never_used_twice(&*make()).await;
    a_run_has_one_owner(&*make()).await;
    a_removed_run_is_gone_and_a_held_one_stays(&*make()).await;
    an_owner_does_not_keep_readers_out(&*make()).await;
    runs_are_listed_newest_first(&*make()).await;
    a_status_follows_from_the_facts(&*make()).await;
    large_and_deep_values_come_back(&*make()).await;
    sources_come_back_byte_for_byte(&*make()).await;
}

/// A manifest for tests, created at `created_at` milliseconds.
pub fn manifest(run_id: &str, created_at: i64) -> Manifest {
    Manifest {
        run_id: run_id.to_owned(),
        workflow: "review".to_owned(),
        source_path: "pipelines/review.yaml".to_owned(),
        pipeline_dir: PathBuf::from("/somewhere/pipelines"),
        source_hash: Hash::of_bytes(b"source"),
        plan: Hash::of_bytes(b"plan"),
        mode: "mock".to_owned(),
        inputs: [("files", json!(["a", "b"])), ("limit", json!(0.1)), ("deep", json!({"er": null}))]
            .map(|(name, value)| (name.to_owned(), Data::new(value)))
            .into(),
        settings: json!({"output_dir": "out"}),
        created_at: Timestamp(created_at),
        program: "0.1.0".to_owned(),
    }
}

/// One fact of each kind, with every field filled.
pub fn one_of_each(run_id: &str) -> Vec<Fact> {
    let path = || StepPath::from("review/files[3]/analyse");
    let error = full_error();
    let hash = Hash::of_bytes(b"fingerprint");
    let value =
        json!({"text": "ok", "numbers": [0.1, 1e300, -0.0, 5e-324, 1.0, u64::MAX, i64::MIN], "empty": {}});
    let ended = |end: AttemptEnd| Fact::AttemptEnded {
        path: path(),
        attempt: 2,
        turn: 1,
        fingerprint: hash,
        end: Box::new(end),
    };
    vec![
        Fact::RunStarted {
            run_id: run_id.to_owned(),
            workflow: "review".to_owned(),
            plan: hash,
            mode: "mock".to_owned(),
            inputs: Data::new(json!({"a": [1, 2.5]})),
            seed: u64::MAX,
        },
        Fact::StepSkipped { path: path(), turn: 1, reason: "its condition was false".to_owned() },
        Fact::AttemptStarted { path: path(), attempt: 2, turn: 1, fingerprint: hash },
        Fact::EffectDone {
            path: path(),
            attempt: 2,
            turn: 1,
            name: "call".to_owned(),
            ordinal: 0,
            request: hash,
            value: Data::new(value.clone()),
            usage: Some(Usage { input: 7, ..Usage::default() }),
        },
        Fact::SpendReserved {
            path: path(),
            attempt: 2,
            turn: 1,
            ordinal: 1,
            spend: Spend { cost_usd: 0.25, tokens: 9 },
        },
        ended(full_failure()),
        ended(AttemptEnd::ok(value)),
        Fact::TimerFired { path: StepPath::root(), turn: 0, role: OpRole::Deadline },
        Fact::RunPaused { reason: PauseReason::Budget { message: "0.10 of 0.05 USD".to_owned() } },
        Fact::RunPaused { reason: PauseReason::Person { path: path(), message: "Go on?".to_owned() } },
        Fact::RunPaused {
            reason: PauseReason::Quota {
                until: Timestamp(1_800_000_000_000),
                message: "weekly limit".to_owned(),
            },
        },
        Fact::RunPaused { reason: PauseReason::Interrupted },
        Fact::RunResumed { pid: 7, version: "0.1.0".to_owned() },
        Fact::RunEnded {
            status: RunStatus::Failed,
            outputs: Data::new(json!([1])),
            error: Some(RunError { path: Some(path()), error }),
        },
    ]
}

fn full_error() -> StepError {
    StepError {
        retry_after_ms: Some(1500),
        ..StepError::new(ErrorKind::RateLimited, "The service said \"later\".\nTwice.")
            .help("Wait.")
            .details(json!({"status": 429, "request": "ü\u{0}\u{2028}"}))
    }
}

fn full_failure() -> AttemptEnd {
    let set = Assignment { scope: VariableScope::Loop, name: "count".to_owned(), value: Data::new(json!(4)) };
    let usage = Usage {
        input: 1,
        output: 2,
        cache_read: 3,
        cache_write: 4,
        cost_usd: Some(0.1),
        calls: 5,
        unpriced_calls: 6,
    };
    AttemptEnd {
        usage,
        set: vec![set],
        unsettled: Spend { cost_usd: 0.5, tokens: 3 },
        put_back: true,
        warnings: vec!["It was slow.".to_owned()],
        duration_ms: 12,
        ..AttemptEnd::failed(full_error())
    }
}

/// A fact with `value` in it.
pub fn effect(value: Value) -> Fact {
    Fact::EffectDone {
        path: StepPath::from("step"),
        attempt: 1,
        turn: 1,
        name: "effect".to_owned(),
        ordinal: 0,
        request: Hash::of_bytes(b"request"),
        value: Data::new(value),
        usage: None,
    }
}

async fn create(store: &dyn CheckpointStore, run: &str, at: i64) -> Box<dyn RunLog> {
    let made = store.create(&manifest(run, at), &StoredSources::default()).await;
    made.expect("a new run can be created")
}

fn append(log: &mut dyn RunLog, facts: Vec<Fact>) -> Vec<Record> {
    let records = log.append(Timestamp(1_700_000_000_123), 42, facts).expect("facts can be appended");
    records.into_iter().map(Arc::unwrap_or_clone).collect()
}

async fn write(log: &mut dyn RunLog, facts: Vec<Fact>) -> Vec<Record> {
    let records = append(log, facts);
    log.flush().await.expect("what was appended can be flushed");
    records
}

async fn records(store: &dyn CheckpointStore, run: &str) -> Vec<Record> {
    store.read(run).await.expect("the run can be read").records
}

async fn an_empty_store_has_no_runs(store: &dyn CheckpointStore) {
    assert_eq!(store.latest().await.expect("an empty store has a latest"), None);
    assert!(store.list().await.expect("an empty store has a list").is_empty());
    for id in ["missing", "", ".", "..", "../runs", "a/b", "with\0nul", "LATEST"] {
        assert!(matches!(store.open(id).await, Err(StoreError::Unknown { run }) if run == id), "open {id:?}");
        assert!(matches!(store.read(id).await, Err(StoreError::Unknown { run }) if run == id), "read {id:?}");
    }
}

async fn what_was_flushed_is_read_back(store: &dyn CheckpointStore) {
    let mut log = create(store, "run", 5).await;
    let written = write(&mut *log, one_of_each("run")).await;
    let indices: Vec<u64> = written.iter().map(|record| record.index).collect();
    let expected: Vec<u64> = (0..written.len() as u64).collect();
    assert_eq!(indices, expected, "positions start at 0 and have no gaps");
    assert!(
        written.iter().all(|record| record.at == Timestamp(1_700_000_000_123) && record.elapsed_ms == 42)
    );
    drop(log);

    let opened = store.open("run").await.expect("a run without an owner can be opened");
    assert_eq!(opened.stored.records, written, "records are the same after a reopen");
    assert_eq!(opened.stored.manifest, manifest("run", 5));
    assert_eq!(opened.repaired, None, "nothing was to be repaired");
    for (read, written) in opened.stored.records.iter().zip(&written) {
        assert_eq!(
            read.to_event().to_string(),
            written.to_event().to_string(),
            "numbers are the same to the digit"
        );
        assert_eq!(read.completion(), written.completion());
    }
}

async fn what_was_not_flushed_is_lost_with_its_log(store: &dyn CheckpointStore) {
    let mut log = create(store, "run", 5).await;
    let kept = write(&mut *log, vec![effect(json!(1))]).await;
    append(&mut *log, vec![effect(json!(2))]);
    drop(log);
    assert_eq!(records(store, "run").await, kept);
    let mut log = store.open("run").await.expect("the run can be opened").log;
    let again = write(&mut *log, vec![effect(json!(3))]).await;
    assert_eq!(again[0].index, 1, "a position that was lost is used again");
    assert_eq!(records(store, "run").await, [kept, again].concat());
}

async fn positions_go_on_after_a_reopen(store: &dyn CheckpointStore) {
    let mut log = create(store, "run", 5).await;
    let mut all = append(&mut *log, vec![effect(json!(0)), effect(json!(1))]);
    all.extend(write(&mut *log, vec![effect(json!(2))]).await);
    assert!(append(&mut *log, Vec::new()).is_empty());
    log.flush().await.expect("an empty flush succeeds");
    drop(log);
    for turn in 0..3 {
        let mut opened = store.open("run").await.expect("the run can be opened again");
        assert_eq!(opened.stored.records, all);
        all.extend(write(&mut *opened.log, vec![effect(json!({ "turn": turn }))]).await);
    }
    assert_eq!(all.iter().map(|record| record.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(records(store, "run").await, all);
}

async fn an_id_is_never_used_twice(store: &dyn CheckpointStore) {
    let mut log = create(store, "run", 5).await;
    let kept = write(&mut *log, vec![effect(json!("first"))]).await;
    for is_held in [true, false] {
        let again = store.create(&manifest("run", 6), &StoredSources::default()).await;
        assert!(matches!(again, Err(StoreError::Write { .. })), "held: {is_held}");
        if is_held {
            drop(std::mem::replace(&mut log, create(store, "other", 7).await));
        }
    }
    assert_eq!(records(store, "run").await, kept, "the first run is as it was");
    assert_eq!(store.read("run").await.expect("it can be read").manifest, manifest("run", 5));
}

async fn a_run_has_one_owner(store: &dyn CheckpointStore) {
    let log = create(store, "run", 5).await;
    let held = |result: Result<_, StoreError>| match result {
        Err(StoreError::Held { run, pid }) => run == "run" && pid == std::process::id(),
        _ => false,
    };
    assert!(held(store.open("run").await.map(drop)), "a created run is held by its creator");
    assert_eq!(store.read("run").await.expect("it can be read").pid, Some(std::process::id()));
    drop(log);
    assert_eq!(store.read("run").await.expect("it can be read").pid, None, "nobody holds it");
    let opened = store.open("run").await.expect("a dropped log gives the run up");
    assert!(held(store.open("run").await.map(drop)), "an opened run is held");
    drop(opened);
    assert!(store.open("run").await.is_ok());
}

async fn a_removed_run_is_gone_and_a_held_one_stays(store: &dyn CheckpointStore) {
    drop(create(store, "older", 1).await);
    let mut log = create(store, "run", 5).await;
    write(&mut *log, vec![effect(json!(1))]).await;
    assert!(matches!(store.remove("run").await, Err(StoreError::Held { .. })), "somebody works on it");
    assert_eq!(records(store, "run").await.len(), 1, "a refused removal changes nothing");
    drop(log);
    store.remove("run").await.expect("nobody holds it");
    assert!(matches!(store.read("run").await, Err(StoreError::Unknown { .. })));
    assert!(matches!(store.remove("run").await, Err(StoreError::Unknown { .. })));
    assert_eq!(store.list().await.expect("runs can be listed").len(), 1);
    assert_eq!(store.latest().await.expect("there is one").as_deref(), Some("older"));
}

async fn an_owner_does_not_keep_readers_out(store: &dyn CheckpointStore) {
    let mut log = create(store, "run", 5).await;
    let mut all = Vec::new();
    for number in 0..3 {
        all.extend(write(&mut *log, vec![effect(json!(number))]).await);
        assert_eq!(records(store, "run").await, all, "what is flushed can be read at once");
    }
}

async fn runs_are_listed_newest_first(store: &dyn CheckpointStore) {
    for (run, at) in [("middle", 2000), ("oldest", 1000), ("newest", 3000)] {
        drop(create(store, run, at).await);
        assert_eq!(
            store.latest().await.expect("there is a latest").as_deref(),
            Some(run),
            "a new run is the latest"
        );
    }
    let list = store.list().await.expect("runs can be listed");
    let ids: Vec<&str> = list.iter().map(|run| run.run_id.as_str()).collect();
    assert_eq!(ids, ["newest", "middle", "oldest"]);
    let RunSummary { workflow, started_at, mode, source_path, .. } = &list[0];
    let told = (workflow.as_str(), started_at.0, mode.as_str(), source_path.as_str());
    assert_eq!(told, ("review", 3000, "mock", "pipelines/review.yaml"));
}

async fn a_status_follows_from_the_facts(store: &dyn CheckpointStore) {
    let paused = |reason| Fact::RunPaused { reason };
    let ended = |status| Fact::RunEnded { status, outputs: Data::null(), error: None };
    let budget = PauseReason::Budget { message: "over".to_owned() };
    let person = PauseReason::Person { path: StepPath::root(), message: "?".to_owned() };
    let resumed = Fact::RunResumed { pid: 1, version: "0.1.0".to_owned() };
    // What is appended, and the status while the run is held and after.
    let cases = [
        (effect(json!(1)), RunStatus::Running, RunStatus::Interrupted),
        (paused(budget), RunStatus::Budget, RunStatus::Budget),
        (resumed, RunStatus::Running, RunStatus::Interrupted),
        (paused(person), RunStatus::Paused, RunStatus::Paused),
        (paused(PauseReason::Interrupted), RunStatus::Interrupted, RunStatus::Interrupted),
        (ended(RunStatus::TimedOut), RunStatus::TimedOut, RunStatus::TimedOut),
    ];
    drop(create(store, "run", 5).await);
    for (fact, while_held, after) in cases {
        let mut log = store.open("run").await.expect("the run can be opened").log;
        write(&mut *log, vec![fact.clone()]).await;
        let list = store.list().await.expect("runs can be listed");
        assert_eq!((list[0].status, list[0].pid), (while_held, Some(std::process::id())), "{fact:?}, held");
        drop(log);
        let list = store.list().await.expect("runs can be listed");
        assert_eq!((list[0].status, list[0].pid), (after, None), "{fact:?}, given up");
    }
}

async fn large_and_deep_values_come_back(store: &dyn CheckpointStore) {
    let large = |letter: &str| json!({ "text": letter.repeat(200_000), "result": [1, 2] });
    let deep = (0..300).fold(json!("core"), |inner, _| json!({ "in": [inner] }));
    let set =
        |value| Assignment { scope: VariableScope::Global, name: "x".to_owned(), value: Data::new(value) };
    let facts = vec![
        Fact::RunStarted {
            run_id: "run".to_owned(),
            workflow: "w".to_owned(),
            plan: Hash::of_bytes(b""),
            mode: "live".to_owned(),
            inputs: Data::new(large("i")),
            seed: 1,
        },
        effect(large("e")),
        effect(large("e")),
        effect((0..120).fold(json!(1), |inner, _| json!([inner]))),
        Fact::AttemptEnded {
            path: StepPath::from("s"),
            attempt: 1,
            turn: 1,
            fingerprint: Hash::of_bytes(b""),
            end: Box::new(AttemptEnd {
                set: vec![set(large("a")), set(json!("small")), set(large("b"))],
                error: Some(StepError::invalid("no").details(large("d"))),
                ..AttemptEnd::ok(large("v"))
            }),
        },
        Fact::RunEnded {
            status: RunStatus::Ok,
            outputs: Data::new(large("o")),
            error: Some(RunError { path: None, error: StepError::invalid("no").details(large("d")) }),
        },
    ];
    let mut log = create(store, "run", 5).await;
    let mut written = write(&mut *log, facts).await;
    written.extend(write_or_be_refused(&mut *log, deep).await);
    drop(log);
    assert_eq!(records(store, "run").await, written);
}

/// A store may refuse a value that is nested too deep, but then it says so and goes on without it.
async fn write_or_be_refused(log: &mut dyn RunLog, value: Value) -> Vec<Record> {
    match log.append(Timestamp(1), 1, vec![effect(value)]) {
        Ok(records) => {
            log.flush().await.expect("what was accepted can be flushed");
            records.into_iter().map(Arc::unwrap_or_clone).collect()
        }
        Err(refused) => {
            assert!(matches!(refused, StoreError::Write { .. }), "{refused}");
            Vec::new()
        }
    }
}

async fn sources_come_back_byte_for_byte(store: &dyn CheckpointStore) {
    let file = |shown: &str, text: &str| (shown.to_owned(), text.to_owned());
    let sources = StoredSources {
        root: "/a/../b.yaml".to_owned(),
        files: [
            ("/a/../b.yaml".to_owned(), file("b.yaml", "name: x\r\nsteps:\n\t- a\0\u{feff}")),
            ("index.json".to_owned(), file("../../index.json", "")),
            ("CON\n".to_owned(), file("", "no newline at the end")),
            ("x".repeat(5000), file("long", &"ü".repeat(100_000))),
        ]
        .into(),
        links: vec![("/a/../b.yaml".to_owned(), "./x y".to_owned(), "index.json".to_owned())],
    };
    drop(store.create(&manifest("run", 5), &sources).await.expect("any source names are fine"));
    assert_eq!(store.read("run").await.expect("it can be read").sources, sources);
}
