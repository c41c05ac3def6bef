//! Sessions on disk: their bytes, their size, and other processes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline_checkpoint::{FileSessions, FileSnapshots};
use pipeline_core::clock::{SystemClock, Timestamp};
use pipeline_core::conformance::session::{set, turn};
use pipeline_core::conformance::snapshot::SetClock;
use pipeline_core::error::ErrorKind;
use pipeline_core::message::Message;
use pipeline_core::store::{SessionStore, SessionTurn, SnapshotSpace, SnapshotStore};
use pipeline_core::value::Hash;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Temporary, block_on, child, copy, state_of_child};

fn store(dir: &Path) -> FileSessions {
    FileSessions::new(dir, Arc::new(SystemClock))
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join("sessions").join(format!("{}.log", Hash::of_bytes(name.as_bytes())))
}

async fn say(store: &FileSessions, name: &str, turn: SessionTurn) {
    store.lease(name).await.unwrap().append(turn, BTreeMap::new()).await.unwrap();
}

async fn with_turns(keys: &[&str]) -> (TempDir, FileSessions, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for key in keys {
        say(&store, "chat", turn(key)).await;
    }
    let path = file(dir.path(), "chat");
    (dir, store, path)
}

/// Naive: each turn stores the whole conversation so far, which makes 100 turns fifty conversations.
#[tokio::test]
async fn n11_a_long_conversation_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    // 100 turns of 2,000 tokens, at four characters a token.
    let text = |letter: &str| letter.repeat(4_000);
    let mut transcript = 0;
    for number in 0..100 {
        let messages = vec![Message::user(text("q")), Message::assistant(text("a"))];
        transcript += serde_json::to_string(&messages).unwrap().len();
        say(&store, "chat", SessionTurn { messages, ..turn(&number.to_string()) }).await;
    }
    let stored = usize::try_from(fs::metadata(file(dir.path(), "chat")).unwrap().len()).unwrap();
    assert!(stored < transcript * 11 / 10, "{stored} bytes for a transcript of {transcript}");
    assert_eq!(store.read("chat").await.unwrap().unwrap().turns.len(), 100);
}

/// Naive: the limit is that of reading, and what is around the value comes on top of it.
#[tokio::test]
async fn the_deepest_value_of_a_turn_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let store_it = async |levels: usize| {
        let store = store(dir.path());
        let mut lease = store.lease("chat").await.unwrap();
        lease.append(turn(&levels.to_string()), set("deep", nested(levels))).await
    };
    store_it(496).await.unwrap();
    let refused = store_it(497).await.unwrap_err();
    assert!(refused.message.contains("nested deeper than 496 levels"), "{}", refused.message);
    let read = store(dir.path()).read("chat").await.unwrap().unwrap();
    assert_eq!(read.turns.len(), 1);
    assert_eq!(read.variables["deep"], nested(496));
}

#[tokio::test]
async fn only_the_owner_may_read_them() {
    let (dir, _store, path) = with_turns(&["a"]).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir.path().join("sessions")), mode(&path)), (0o700, 0o600));
    let snapshots = FileSnapshots::new(dir.path(), Arc::new(SystemClock));
    snapshots.save(SnapshotSpace::Cache, "x", &json!(1)).await.unwrap();
    for entry in fs::read_dir(dir.path().join("cache")).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert_eq!(mode(&dir.path().join("cache")), 0o700);
}

#[tokio::test]
async fn every_cut_of_the_last_turn_goes_on_after_the_turn_before() {
    let (_dir, store, path) = with_turns(&["a", "b"]).await;
    let whole = fs::read(&path).unwrap();
    let start = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in start..whole.len() {
        for zeros in [0, 3] {
            let mut torn = whole[..cut].to_vec();
            torn.resize(cut + zeros, 0);
            fs::write(&path, &torn).unwrap();
            assert_eq!(store.read("chat").await.unwrap().unwrap().turns, [turn("a")]);
            assert_eq!(fs::read(&path).unwrap(), torn, "reading repairs nothing");
            say(&store, "chat", turn("c")).await;
            assert_eq!(store.read("chat").await.unwrap().unwrap().turns, [turn("a"), turn("c")]);
        }
    }
}

#[tokio::test]
async fn a_session_that_was_cut_while_it_was_made_is_none() {
    let (_dir, store, path) = with_turns(&["a"]).await;
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(store.read("chat").await.unwrap(), None, "cut at {cut}");
        assert!(store.list().await.unwrap().is_empty());
        say(&store, "chat", turn("b")).await;
        assert_eq!(store.read("chat").await.unwrap().unwrap().turns, [turn("b")]);
    }
}

#[tokio::test]
async fn damage_is_refused_with_its_place_and_can_be_removed() {
    let (_dir, store, path) = with_turns(&["a", "b", "c"]).await;
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
    let places = [(20, 0), (ends[0] + 300, ends[0] + 1), (ends[1] + 300, ends[1] + 1)];
    for (at, offset) in places {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let error = store.lease("chat").await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Environment);
        assert!(error.message.contains(&format!("damaged at byte {offset}")), "{}", error.message);
        assert_eq!(fs::read(&path).unwrap(), damaged, "nothing is repaired by guessing");
        let listed = store.list().await.unwrap();
        assert!(listed.len() == 1 && listed[0].damage.is_some());
    }
    // A record of another history, whole by itself.
    let mut lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    lines.remove(1);
    fs::write(&path, lines.concat()).unwrap();
    assert!(store.lease("chat").await.is_err());
    assert!(store.remove("chat").await.unwrap(), "a damaged session can be removed");
    say(&store, "chat", turn("new")).await;
}

#[tokio::test]
async fn a_newer_format_is_not_damage() {
    let (_dir, store, path) = with_turns(&["a"]).await;
    let rest = "pipeline-session 2 whatever comes then";
    fs::write(&path, format!("{:08x} {rest}\n", crc32fast::hash(rest.as_bytes()))).unwrap();
    let error = store.lease("chat").await.err().unwrap();
    assert!(error.message.contains("has format 2"), "{}", error.message);
}

#[tokio::test]
async fn a_file_under_another_name_is_not_taken_for_it() {
    let (dir, store, path) = with_turns(&["a"]).await;
    fs::copy(&path, file(dir.path(), "other")).unwrap();
    assert!(store.lease("other").await.is_err());
}

/// Naive: a lock in memory only. Two processes read the same history, and one turn is lost.
#[test]
fn n11_processes_take_turns() {
    if let Some(state) = state_of_child() {
        let store = store(&state);
        block_on(async {
            for _ in 0..25 {
                let mut lease = store.lease("chat").await.unwrap();
                let number = lease.session().turns.len();
                lease.append(turn(&number.to_string()), set("n", json!(number))).await.unwrap();
            }
        });
        return;
    }
    let temporary = Temporary::new();
    let test = "sessions::n11_processes_take_turns";
    let children: Vec<_> = (0..3).map(|_| child(test, &temporary).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let session = block_on(store(&temporary.state()).read("chat")).unwrap().unwrap();
    let keys: Vec<String> = session.turns.into_iter().map(|turn| turn.key).collect();
    assert_eq!(keys, (0..75).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// The holder dies without a word: the system gives its lock back.
/// Naive: a lock file stays behind when its owner dies, and nobody may talk any more.
#[test]
fn n11_a_session_outlives_whoever_held_it() {
    if let Some(state) = state_of_child() {
        block_on(async {
            let mut lease = store(&state).lease("chat").await.unwrap();
            lease.append(turn("a"), BTreeMap::new()).await.unwrap();
            std::process::abort();
        });
    }
    let temporary = Temporary::new();
    let mut child = child("sessions::n11_a_session_outlives_whoever_held_it", &temporary).spawn().unwrap();
    assert!(!child.wait().unwrap().success());
    let sessions = store(&temporary.state());
    block_on(say(&sessions, "chat", turn("b")));
    let session = block_on(sessions.read("chat")).unwrap().unwrap();
    assert_eq!(session.turns, [turn("a"), turn("b")]);
}

#[tokio::test]
async fn a_snapshot_that_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = FileSnapshots::new(dir.path(), Arc::new(SystemClock));
    snapshots.save(SnapshotSpace::Checkpoint, "a", &json!({"x": [1, 2, 3]})).await.unwrap();
    let path = dir.path().join("snapshots").join(format!("{}.json", Hash::of_bytes(b"a")));
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bad in [whole[..at].to_vec(), [&whole[..at], &[whole[at] ^ 1], &whole[at + 1..]].concat()] {
            fs::write(&path, bad).unwrap();
            assert!(snapshots.load(SnapshotSpace::Checkpoint, "a").await.is_err(), "byte {at}");
        }
    }
}

/// The files of the first version that had each format are never edited.
#[tokio::test]
async fn sessions_and_snapshots_of_format_1_load_and_go_on() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sessions-1");
    let dir = tempfile::tempdir().unwrap();
    copy(&golden.join("state"), dir.path());
    let expected: Value =
        serde_json::from_str(&fs::read_to_string(golden.join("expected.json")).unwrap()).unwrap();
    let store = store(dir.path());
    let session = store.read("review chat").await.unwrap().unwrap();
    assert_eq!(serde_json::to_value(&session).unwrap(), expected["session"]);
    say(&store, "review chat", turn("more")).await;
    assert_eq!(store.read("review chat").await.unwrap().unwrap().turns.len(), session.turns.len() + 1);
    let clock = SetClock::default();
    clock.set(Timestamp(1));
    let snapshots = FileSnapshots::new(dir.path(), Arc::new(clock));
    let (value, at) = snapshots.load(SnapshotSpace::Checkpoint, "after review").await.unwrap().unwrap();
    assert_eq!((value, json!(at)), (expected["snapshot"].clone(), expected["at"].clone()));
}

#[test]
fn the_examples_in_the_page_are_real_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../docs/session-format.md")).unwrap();
    let state = root.join("tests/golden/sessions-1/state");
    for (folder, lines) in [("sessions", 2), ("snapshots", 2)] {
        let path = fs::read_dir(state.join(folder)).unwrap().next().unwrap().unwrap().path();
        for line in fs::read_to_string(&path).unwrap().lines().take(lines) {
            assert!(page.contains(line), "{} of {}", line, path.display());
        }
    }
}
