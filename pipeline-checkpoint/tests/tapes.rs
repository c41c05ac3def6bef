//! Tapes: what was recorded is replayed, a change misses exactly where it is, and no secret is on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pipeline_checkpoint::{FileTape, MemorySessions, TapedRun, TapedSessions};

use pipeline_core::clock::{SystemClock, Timestamp};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::{AttemptEnd, Fact, Record, RunStatus, Spend, Usage};
use pipeline_core::message::Message;
use pipeline_core::path::{OpKey, OpRole, StepPath};
use pipeline_core::redact::Redactor;
use pipeline_core::store::{Session, SessionStore, SessionTurn, StoreError};
use pipeline_core::tape::{Came, FactKey, Moment, Played, Tape, TapedEffect};
use pipeline_core::value::{Data, Hash, Value};

use serde_json::json;

use crate::support::copy;

fn run(id: &str) -> TapedRun {
    TapedRun {
        run_id: id.to_owned(),
        workflow: "review".to_owned(),
        started_at: Timestamp(1_700_000_000_000),
        seed: u64::MAX,
        mode: "live".to_owned(),
        lasting: BTreeMap::new(),
    }
}

fn key(path: &str, turn: u32) -> OpKey {
    OpKey { path: StepPath::from(path), turn, role: OpRole::Attempt }
}

/// An effect with its result.
type Done = (OpKey, u32, &'static str, Value, Result<Value, StepError>);

fn done() -> Vec<Done> {
    let limited = StepError {
        retry_after_ms: Some(1500),
        ..StepError::new(ErrorKind::RateLimited, "The service said \"later\".")
            .help("wait")
            .details(json!({"status": 429}))
    };
    vec![
        (key("review", 1), 0, "model", json!({"text": "count the words"}), Err(limited)),
        (key("review", 2), 0, "model", json!({"text": "count the words"}), Ok(json!({"text": "seven"}))),
        (key("review", 2), 1, "tool", json!({"name": "calculator"}), Ok(json!(7))),
        (
            key("fan[3]/think", 1),
            0,
            "model",
            json!({"n": [0.1, 1e300, u64::MAX]}),
            Ok(json!([0.1, -0.0, 5e-324])),
        ),
    ]
}

fn tape(dir: &Path, run: &TapedRun, redactor: Redactor, effects: &[Done]) {
    let tape = FileTape::record(dir, run, redactor).unwrap();
    for (key, ordinal, name, request, result) in effects {
        let effect = TapedEffect { key, ordinal: *ordinal, name, request };
        assert_eq!(tape.play(&effect), Played::Nothing, "nothing is played while recording");
        tape.record(&effect, Came::Result(result)).unwrap();
    }
}

/// What is played; a miss is an error.
fn play(tape: &FileTape, (key, ordinal, name, request, _): &Done) -> Result<Value, StepError> {
    match tape.play(&TapedEffect { key, ordinal: *ordinal, name, request }) {
        Played::Result(result) => result,
        Played::Missing(miss) | Played::Differs(miss) => Err(*miss),
        Played::Nothing => panic!("it records"),
    }
}

fn replay(dir: &Path) -> FileTape {
    FileTape::replay(dir, Redactor::default()).unwrap().0
}

#[test]
fn results_and_errors_are_replayed_to_the_digit_and_as_often_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &done());
    let (tape, of) = FileTape::replay(dir.path(), Redactor::default()).unwrap();
    assert_eq!(of, run("r"));
    for _ in 0..2 {
        for effect in done().iter().rev() {
            let expected = effect.4.clone().map(|value| value.to_string());
            let played = play(&tape, effect).map(|value| value.to_string());
            assert_eq!(played, expected);
        }
    }
}

#[test]
fn one_changed_word_misses_exactly_its_own_effect() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &done());
    let tape = replay(dir.path());
    for changed in 0..done().len() {
        let mut effects = done();
        effects[changed].3 = json!({"text": "count the lines"});
        for (at, effect) in effects.iter().enumerate() {
            let played = play(&tape, effect);
            if at == changed {
                let error = played.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Environment);
                assert!(error.message.contains(effect.0.path.as_str()), "{}", error.message);
            } else {
                assert_eq!(played, effect.4.clone());
            }
        }
    }
    let mut words = done().remove(1);
    words.3 = json!({"text": "count the lines"});
    let error = play(&tape, &words).unwrap_err();
    assert_eq!(error.details["path"], "/text");
    assert!(error.message.contains("words") && error.message.contains("lines"), "{}", error.message);
}

#[test]
fn what_is_not_on_tape_says_what_is() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &done());
    let tape = replay(dir.path());
    let cases = [
        (("other", 1), 0, "model", "it is new, or has another name"),
        (("review", 3), 0, "model", "retried differently"),
        (("review", 2), 2, "model", "2 effects"),
        (("review", 2), 1, "model", "`tool`"),
    ];
    for ((path, turn), ordinal, name, told) in cases {
        let error = play(&tape, &(key(path, turn), ordinal, name, json!(1), Ok(json!(1)))).unwrap_err();
        let text = format!("{} {}", error.message, error.help.unwrap());
        assert!(text.contains(told), "{text}");
    }
}

/// Naive: only the raw value is looked for; a header with it is base64, a URL has it encoded, a body has it escaped.
#[test]
fn no_secret_gets_on_tape_in_any_form() {
    let secret = "sk-\"Very/Secret+äß 1\"";
    let base64 = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("user:{secret}"))
    };
    let dir = tempfile::tempdir().unwrap();
    let body = json!({"key": secret}).to_string();
    let request = json!({"headers": {"authorization": base64, secret: [secret]}, "body": body});
    let failure =
        StepError::new(ErrorKind::Auth, format!("refused {secret}")).help(secret).details(request.clone());
    let effects = [
        (key("a", 1), 0, "http", request.clone(), Ok(request.clone())),
        (key("b", 1), 0, "http", request.clone(), Err(failure)),
    ];
    tape(dir.path(), &run("r"), Redactor::new([secret]).unwrap(), &effects);
    let text = fs::read_to_string(dir.path().join("tape.log")).unwrap();
    for form in [secret, "Very", "Secret", &base64[8..20]] {
        assert!(!text.contains(form), "{form} is on tape");
    }
    // Whoever replays it may have the secret, another one or none.
    let (tape, _) = FileTape::replay(dir.path(), Redactor::new([secret]).unwrap()).unwrap();
    assert!(play(&tape, &effects[0]).is_ok());
    let mut other = effects[0].clone();
    other.3 = json!({
        "headers": {"authorization": "x", pipeline_core::redact::MARK: [""]}, "body": "{\"key\":\"\"}"
    });
    let error = play(&replay(dir.path()), &other).unwrap_err();
    assert_eq!(error.details["path"], "/headers/authorization", "what is not the secret still counts");
    other.3["headers"]["authorization"] = json!(base64.replace(&base64[8..base64.len() - 4], "other"));
    assert!(play(&replay(dir.path()), &other).is_ok());
}

#[test]
fn a_run_that_goes_on_goes_on_recording_and_another_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let effects = done();
    tape(dir.path(), &run("r"), Redactor::default(), &effects[..2]);
    let path = dir.path().join("tape.log");
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"12345678 half a rec");
    fs::write(&path, torn).unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &effects[2..]);
    let again = [(key("review", 2), 1, "tool", json!({"name": "other"}), Ok(json!(8)))];
    tape(dir.path(), &run("r"), Redactor::default(), &again);
    let played = replay(dir.path());
    for effect in [&effects[1], &effects[3], &again[0]] {
        assert_eq!(play(&played, effect), effect.4.clone(), "what was recorded last counts");
    }
    let other = FileTape::record(dir.path(), &run("s"), Redactor::default()).err().unwrap().to_string();
    assert!(other.contains("tape of run r"), "{other}");
}

#[test]
fn a_tape_has_one_recorder_and_damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(FileTape::replay(dir.path(), Redactor::default()).is_err(), "there is no tape");
    let held = FileTape::record(dir.path(), &run("r"), Redactor::default()).unwrap();
    assert!(FileTape::record(dir.path(), &run("r"), Redactor::default()).is_err());
    drop(held);
    tape(dir.path(), &run("r"), Redactor::default(), &done());
    let path = dir.path().join("tape.log");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = FileTape::replay(dir.path(), Redactor::default()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { offset: 1.., .. }), "{error}");
}

/// The facts of a run whose only step fails once and is stopped in its second attempt.
fn facts() -> Vec<Record> {
    let path = StepPath::from("review");
    let ended = |turn: u32, mut end: AttemptEnd, ms: u64| {
        end.duration_ms = ms;
        let (path, fingerprint) = (path.clone(), Hash::of(&()));
        Fact::AttemptEnded { path, attempt: turn, turn, fingerprint, end: Box::new(end) }
    };
    let started = |turn: u32| {
        let (path, fingerprint) = (path.clone(), Hash::of(&()));
        Fact::AttemptStarted { path, attempt: turn, turn, fingerprint }
    };
    let spend = Spend { cost_usd: 0.25, tokens: 9 };
    let stopped = AttemptEnd {
        unsettled: spend,
        ..AttemptEnd::failed(StepError::new(ErrorKind::Cancelled, "it was stopped"))
    };
    let run = Fact::RunStarted {
        run_id: "r".to_owned(),
        workflow: "review".to_owned(),
        plan: Hash::of(&()),
        mode: "live".to_owned(),
        inputs: Data::null(),
        seed: u64::MAX,
    };
    let facts = [
        run,
        started(1),
        ended(1, AttemptEnd::failed(StepError::new(ErrorKind::RateLimited, "later")), 12),
        Fact::TimerFired { path: path.clone(), turn: 2, role: OpRole::Wait },
        started(2),
        Fact::SpendReserved { path: path.clone(), attempt: 2, turn: 2, ordinal: 1, spend },
        ended(2, stopped, 50),
        Fact::RunEnded { status: RunStatus::Failed, outputs: Data::null(), error: None },
    ];
    let record = |(index, fact)| Record {
        index,
        at: Timestamp(1_700_000_000_000 + i64::try_from(index * 10).unwrap()),
        elapsed_ms: index * 10,
        fact,
    };
    (0_u64..).zip(facts).map(record).collect()
}

/// What was said in a session by a run.
fn turn(run: &str) -> SessionTurn {
    SessionTurn {
        key: format!("{run}/ask/1"),
        messages: vec![Message::user("Who are you?")],
        provider: "claude".to_owned(),
        provider_session: None,
        usage: Usage::default(),
    }
}

/// A store in which these runs have said something in the session `talk`, beside a tape.
async fn talked(tape: &Arc<FileTape>, runs: &[&str]) -> TapedSessions {
    let sessions = MemorySessions::new(Arc::new(SystemClock));
    let mut lease = sessions.lease("talk").await.unwrap();
    for run in runs {
        lease.append(turn(run), BTreeMap::new()).await.unwrap();
    }
    drop(lease);
    TapedSessions::new(Arc::new(sessions), Arc::clone(tape))
}

/// What was recorded of a run that did `done()` and `facts()`, that took up a session, and whose last effect was cut off.
async fn recorded(dir: &Path, id: &str) {
    let tape = Arc::new(FileTape::record(dir, &run(id), Redactor::default()).unwrap());
    drop(talked(&tape, &["before"]).await.lease("talk").await.unwrap());
    for (key, ordinal, name, request, result) in done() {
        let effect = TapedEffect { key: &key, ordinal, name, request: &request };
        tape.record(&effect, Came::Result(&result)).unwrap();
    }
    for record in facts() {
        tape.made(&record).unwrap();
    }
    let (key, request) = (key("review", 2), json!({"text": "slow"}));
    tape.record(&TapedEffect { key: &key, ordinal: 2, name: "model", request: &request }, Came::CutOff)
        .unwrap();
}

fn assert_recorded(tape: &FileTape) {
    for effect in done() {
        assert_eq!(play(tape, &effect), effect.4);
    }
    assert_eq!(tape.moments(), facts().iter().map(Moment::of).collect::<Vec<_>>());
    let cut = |text: &str| {
        let (key, request) = (key("review", 2), json!({ "text": text }));
        tape.play(&TapedEffect { key: &key, ordinal: 2, name: "model", request: &request })
    };
    assert!(matches!(cut("slow"), Played::Missing(_)), "it is where it was cut off");
    assert!(matches!(cut("quick"), Played::Differs(_)), "it is another one");
}

#[tokio::test]
async fn moments_and_effects_that_were_cut_off_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    recorded(dir.path(), "r").await;
    assert_recorded(&replay(dir.path()));
}

/// Naive: what a crash took out of the journal stays on tape, and a replay waits for it.
#[tokio::test]
async fn what_a_crash_lost_is_not_among_the_moments() {
    let dir = tempfile::tempdir().unwrap();
    for kept in 1..facts().len() {
        let dir = dir.path().join(kept.to_string());
        recorded(&dir, "r").await;
        let mut resumed = facts().swap_remove(kept);
        resumed.fact = Fact::RunResumed { pid: 7, version: "0".to_owned() };
        let tape = FileTape::record(&dir, &run("r"), Redactor::default()).unwrap();
        tape.made(&resumed).unwrap();
        drop(tape);
        let expected = facts().into_iter().take(kept).chain([resumed]);
        assert_eq!(replay(&dir).moments(), expected.map(|r| Moment::of(&r)).collect::<Vec<_>>());
    }
}

#[test]
fn every_kind_of_fact_has_a_key_of_its_own() {
    let keys: std::collections::HashSet<FactKey> = facts().iter().map(|r| FactKey::of(&r.fact)).collect();
    assert_eq!(keys.len(), facts().len());
}

/// The file of the first version that had each format is never edited.
#[test]
fn tapes_of_format_1_are_replayed_and_go_on_in_it() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tape-1");
    let dir = tempfile::tempdir().unwrap();
    copy(&golden, dir.path());
    let id = "018bcfe5-687b-7c3a-9d41-5f0e2b7a6c10";
    let (tape, of) = FileTape::replay(dir.path(), Redactor::default()).unwrap();
    assert_eq!(of, run(id));
    for effect in done() {
        assert_eq!(play(&tape, &effect), effect.4);
    }
    assert_eq!(tape.moments(), []);
    let before = fs::read(dir.path().join("tape.log")).unwrap();
    let tape = FileTape::record(dir.path(), &run(id), Redactor::default()).unwrap();
    for record in facts() {
        tape.made(&record).unwrap();
    }
    let (key, request) = (key("review", 3), json!(1));
    tape.record(&TapedEffect { key: &key, ordinal: 0, name: "model", request: &request }, Came::CutOff)
        .unwrap();
    drop(tape);
    assert_eq!(
        fs::read(dir.path().join("tape.log")).unwrap(),
        before,
        "what format 1 has no form for is left out"
    );
}

/// Naive: a replay adds to the sessions of others, or finds what they have said since.
#[tokio::test]
async fn a_replay_begins_with_the_session_that_the_recording_found() {
    let dir = tempfile::tempdir().unwrap();
    let tape = Arc::new(FileTape::record(dir.path(), &run("r"), Redactor::default()).unwrap());
    let sessions = talked(&tape, &["before", "r"]).await;
    for _ in 0..2 {
        let mut lease = sessions.lease("talk").await.unwrap();
        lease.append(turn("r"), BTreeMap::new()).await.unwrap();
    }
    drop((sessions, tape));
    let tape = Arc::new(replay(dir.path()));
    let replayed = talked(&tape, &[]).await;
    let turns = |session: &Session| session.turns.iter().map(|t| t.key.clone()).collect::<Vec<_>>();
    assert_eq!(turns(&replayed.read("talk").await.unwrap().unwrap()), ["before/ask/1"]);
    let mut lease = replayed.lease("talk").await.unwrap();
    assert_eq!(turns(lease.session()), ["before/ask/1"]);
    lease.append(turn("replay"), BTreeMap::new()).await.unwrap();
    drop(lease);
    assert_eq!(turns(replayed.lease("talk").await.unwrap().session()), ["before/ask/1", "replay/ask/1"]);
}

#[tokio::test]
async fn tapes_of_format_2_are_replayed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tape-2");
    let dir = tempfile::tempdir().unwrap();
    copy(&golden, dir.path());
    let (tape, of) = FileTape::replay(dir.path(), Redactor::default()).unwrap();
    assert_eq!(of, run("018bcfe5-687b-7c3a-9d41-5f0e2b7a6c10"));
    assert_recorded(&tape);
    let sessions = talked(&Arc::new(tape), &[]).await;
    assert_eq!(sessions.read("talk").await.unwrap().unwrap().turns, [turn("before")]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tape-format.md");
    let page = fs::read_to_string(page).unwrap();
    for line in fs::read_to_string(golden.join("tape.log")).unwrap().lines() {
        if !line.contains("fan[3]") {
            assert!(page.contains(line), "the page lacks {line}");
        }
    }
}
