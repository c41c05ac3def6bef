//! `latest`, `list` and what stays, while others are at work.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use pipeline_core::conformance::store::{effect, manifest};
use pipeline_core::fact::{Fact, PauseReason, RunStatus};
use pipeline_core::store::{CheckpointStore, StoreError};
use pipeline_core::value::Data;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Temporary, block_on, ended, sources, write};

/// Naive: the latest checkpoint is removed and then written again.
/// Figure: 100 runs created by 4 writers under the eyes of a reader.
#[test]
fn n10_latest_names_a_whole_run_at_every_moment() {
    let temporary = Temporary::new();
    let done = AtomicBool::new(false);
    let start = Barrier::new(5);
    drop(block_on(temporary.create("first", 1)));
    let seen = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (temporary, start) = (&temporary, &start);
                scope.spawn(move || {
                    start.wait();
                    for run in 0..25 {
                        drop(block_on(temporary.create(&format!("run-{writer}-{run}"), 2)));
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            start.wait();
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let text = fs::read_to_string(temporary.state().join("latest")).unwrap();
                let run = text.strip_suffix('\n').expect("the whole id");
                assert_eq!(block_on(temporary.store.read(run)).unwrap().manifest.run_id, run);
                assert!(block_on(temporary.store.latest()).unwrap().is_some());
                seen.insert(text);
            }
            seen.len()
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(seen > 1, "the reader saw {seen} latest runs");
    let latest = block_on(temporary.store.latest()).unwrap().unwrap();
    assert!(latest.ends_with("-24"), "{latest} is the last of its writer");
    assert_eq!(fs::read_dir(temporary.state()).unwrap().count(), 2, "no temporary file is left");
}

/// Naive: without the file of that name there is no latest run.
#[tokio::test]
async fn n10_a_latest_that_is_gone_or_bad_falls_back_to_the_newest_run() {
    let temporary = Temporary::new();
    for (run, at) in [("new", 3), ("old", 2)] {
        drop(temporary.create(run, at).await);
    }
    let path = temporary.state().join("latest");
    assert_eq!(
        temporary.store.latest().await.unwrap().as_deref(),
        Some("old"),
        "the one that was created last"
    );
    for bad in ["removed\n", "", "../runs/old\n", "\u{0}"] {
        fs::write(&path, bad).unwrap();
        assert_eq!(temporary.store.latest().await.unwrap().as_deref(), Some("new"), "{bad:?}");
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(temporary.store.latest().await.unwrap().as_deref(), Some("new"));
    fs::remove_file(&path).unwrap();
    assert_eq!(temporary.store.latest().await.unwrap().as_deref(), Some("new"));
}

/// Naive: names of whole seconds or small random numbers, and `create_dir_all`: two runs share a directory.
/// Figure: 100 runs at once.
#[test]
fn n24_a_hundred_runs_at_once_get_a_hundred_directories() {
    let temporary = Temporary::new();
    let start = Barrier::new(100);
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let id = Uuid::now_v7().to_string();
                    let mut log = block_on(temporary.create(&id, 1));
                    block_on(write(&mut *log, vec![effect(json!(id))]));
                    id
                })
            })
            .collect();
        creators.into_iter().map(|creator| creator.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 100);
    let listed = block_on(temporary.store.list()).unwrap();
    assert_eq!(listed.into_iter().map(|run| run.run_id).collect::<BTreeSet<_>>(), ids);
    for id in &ids {
        let records = block_on(temporary.store.read(id)).unwrap().records;
        assert_eq!(records.into_iter().map(|record| record.fact).collect::<Vec<_>>(), [effect(json!(id))]);
    }
}

/// Naive: the last kilobyte of a journal says how the run ended; the status of a large end stands before it.
#[tokio::test]
async fn a_run_whose_end_is_a_large_record_is_listed_as_ended() {
    let temporary = Temporary::new();
    let mut log = temporary.create("large", 1).await;
    let outputs = Data::new(json!("x".repeat(60_000)));
    write(&mut *log, vec![Fact::RunEnded { status: RunStatus::Ok, outputs, error: None }]).await;
    drop(log);
    assert_eq!(fs::read_dir(temporary.file("large", "blobs")).unwrap().count(), 0, "it is in its record");
    let listed = temporary.store.list().await.unwrap();
    assert_eq!(listed.iter().map(|run| run.status).collect::<Vec<_>>(), [RunStatus::Ok]);
}

/// Naive: see whether the directory is there, then make it.
/// Figure: 20 creators, one id.
#[test]
fn n24_of_many_creators_of_one_id_exactly_one_gets_it() {
    let temporary = Temporary::new();
    let start = Barrier::new(20);
    let made: usize = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    match block_on(temporary.store.create(&manifest("same", 1), &sources())) {
                        Ok(_) => 1,
                        Err(StoreError::Write { message, .. }) if message.contains("already") => 0,
                        Err(other) => panic!("{other}"),
                    }
                })
            })
            .collect();
        creators.into_iter().map(|creator| creator.join().unwrap()).sum()
    });
    assert_eq!(made, 1);
    assert!(block_on(temporary.store.open("same")).is_ok());
}

/// Naive: what a workflow of this name left is found by the next run.
#[tokio::test]
async fn x08_a_new_run_of_a_finished_workflow_starts_from_nothing() {
    let temporary = Temporary::new();
    temporary.finished("first", 1).await;
    let before = temporary.store.read("first").await.unwrap().records;
    let log = temporary.create("second", 2).await;
    assert!(temporary.store.read("second").await.unwrap().records.is_empty());
    assert_eq!(temporary.store.latest().await.unwrap().as_deref(), Some("second"));
    drop(log);
    let opened = temporary.store.open("second").await.unwrap();
    assert!(opened.stored.records.is_empty());
    assert_eq!(temporary.store.read("first").await.unwrap().records, before);
}

/// Naive: keep the newest files, whatever state their runs are in.
#[tokio::test]
async fn x09_retention_keeps_exactly_k_and_nothing_that_can_go_on() {
    let temporary = Temporary::new();
    for number in 1..=5 {
        temporary.finished(&format!("finished-{number}"), number).await;
    }
    let mut paused = temporary.create("paused", 0).await;
    write(&mut *paused, vec![ended(), Fact::RunPaused { reason: PauseReason::Interrupted }]).await;
    drop(paused);
    drop(temporary.create("interrupted", 0).await);
    let mut held = temporary.create("held", 50).await;
    write(&mut *held, vec![ended()]).await;
    temporary.finished("damaged", 0).await;
    fs::write(temporary.file("damaged", "journal.log"), "no journal\n").unwrap();
    fs::create_dir_all(temporary.file(".removed-cut-off", "blobs")).unwrap();
    fs::write(temporary.state().join("runs/notes.txt"), "mine").unwrap();

    let keeping = temporary.store.clone().with_retention(2);
    drop(keeping.create(&manifest("new", 6), &sources()).await.unwrap());

    let names = || {
        let entries = fs::read_dir(temporary.state().join("runs")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let untouched = ["damaged", "held", "interrupted", "new", "notes.txt", "paused"];
    let expected = |finished: &[&str]| -> BTreeSet<String> {
        untouched.iter().chain(finished).map(|name| (*name).to_owned()).collect()
    };
    assert_eq!(names(), expected(&["finished-4", "finished-5"]));

    drop(temporary.create("newer", 7).await);
    assert!(names().contains("finished-4"), "a store that keeps all removes nothing");
    drop(keeping.clone().with_retention(0).create(&manifest("newest", 8), &sources()).await.unwrap());
    assert!(names().contains("finished-4"), "0 keeps all");
    drop(held);
    drop(keeping.with_retention(1).create(&manifest("last", 9), &sources()).await.unwrap());
    // It is the newest, and nobody holds it any more.
    assert!(names().contains("held") && !names().contains("finished-4") && !names().contains("finished-5"));
}

/// Naive: each counts by itself, and together they remove too much.
/// Figure: 6 at once.
#[test]
fn x09_retention_by_many_at_once_still_keeps_k() {
    let temporary = Temporary::new();
    for number in 0..12 {
        block_on(temporary.finished(&format!("finished-{number:02}"), number));
    }
    let start = Barrier::new(6);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (temporary, start) = (&temporary, &start);
            scope.spawn(move || {
                start.wait();
                let store = temporary.store.clone().with_retention(3);
                drop(block_on(store.create(&manifest(&format!("new-{number}"), 100), &sources())).unwrap());
            });
        }
    });
    let list = block_on(temporary.store.list()).unwrap();
    let kept: Vec<_> =
        list.iter().filter(|run| run.status == RunStatus::Ok).map(|run| run.run_id.as_str()).collect();
    assert_eq!(kept, ["finished-11", "finished-10", "finished-09"]);
    assert_eq!(list.len(), 9);
}

/// Naive: a name from outside is joined to the state directory.
#[tokio::test]
async fn x09_only_an_id_is_ever_a_directory() {
    let temporary = Temporary::new();
    for id in ["../out", "a/b", "", ".", "..", ".hidden", "a b", "ü", &"x".repeat(129)] {
        let refused = temporary.store.create(&manifest(id, 1), &sources()).await.map(drop);
        assert!(matches!(refused, Err(StoreError::Write { .. })), "{id:?}: {refused:?}");
    }
    assert_eq!(fs::read_dir(temporary.state().join("runs")).unwrap().count(), 0);
    let mut named = manifest("run", 1);
    named.workflow = "../../etc/passwd\n".to_owned();
    drop(temporary.store.create(&named, &sources()).await.unwrap());
    assert_eq!(temporary.store.list().await.unwrap()[0].workflow, named.workflow);
}

#[tokio::test]
async fn a_manifest_that_cannot_be_stored_leaves_no_run() {
    let temporary = Temporary::new();
    let mut deep = manifest("run", 1);
    deep.inputs.insert("deep".to_owned(), Data::new((0..100).fold(json!(1), |inner, _| json!([inner]))));
    let error = temporary.store.create(&deep, &sources()).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("inputs"), "{error}");
    assert!(temporary.store.list().await.unwrap().is_empty());
    drop(temporary.create("run", 1).await);
}

#[tokio::test]
async fn damaged_runs_are_listed_with_what_is_known() {
    let temporary = Temporary::new();
    let id = Uuid::now_v7().to_string();
    temporary.finished(&id, 5).await;
    let path = temporary.file(&id, "manifest.json");
    let text = fs::read_to_string(&path).unwrap();

    fs::write(&path, text.replace("\"created_at\"", "\"made_at\"")).unwrap();
    let partly = temporary.store.list().await.unwrap().remove(0);
    assert_eq!(
        (partly.workflow.as_str(), partly.mode.as_str(), partly.status),
        ("review", "mock", RunStatus::Ok)
    );
    assert!(partly.started_at.0 > 1_700_000_000_000, "the time in the id: {}", partly.started_at);

    fs::write(&path, "{").unwrap();
    fs::write(temporary.file(&id, "journal.log"), [0xff; 100]).unwrap();
    let hardly = temporary.store.list().await.unwrap().remove(0);
    assert_eq!(hardly.run_id, id);
    assert_eq!((hardly.workflow.as_str(), hardly.status), ("(unreadable)", RunStatus::Interrupted));
}

#[cfg(unix)]
#[tokio::test]
async fn everything_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let temporary = Temporary::new();
    let mut log = temporary.create("run", 1).await;
    write(&mut *log, vec![effect(json!("x".repeat(70_000)))]).await;
    let mut found = 0;
    let mut open = vec![temporary.state()];
    while let Some(path) = open.pop() {
        let data = fs::metadata(&path).unwrap();
        let expected = if data.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(data.permissions().mode() & 0o777, expected, "{}", path.display());
        found += 1;
        if data.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    // state, runs, latest, the run, its manifest, journal, lock, source with index and text, blobs with one.
    assert_eq!(found, 12);
}

#[test]
fn only_a_directory_that_is_missing_holds_no_runs() {
    let temporary = Temporary::new();
    assert!(block_on(temporary.store.list()).unwrap().is_empty());
    fs::create_dir(temporary.state()).unwrap();
    fs::write(temporary.state().join("runs"), b"").unwrap();
    assert!(matches!(block_on(temporary.store.list()), Err(StoreError::Directory { .. })));
}
