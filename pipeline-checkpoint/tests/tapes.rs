//! Tapes: what was recorded is replayed, a change misses exactly where it is, and no secret is on the disk.

use std::fs;
use std::path::Path;

use pipeline_checkpoint::{FileTape, TapedRun};
use std::collections::BTreeMap;

use pipeline_core::clock::Timestamp;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::path::{OpKey, OpRole, StepPath};
use pipeline_core::redact::Redactor;
use pipeline_core::store::{StoreError, Tape, TapedEffect};
use pipeline_core::value::Value;

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

async fn tape(dir: &Path, run: &TapedRun, redactor: Redactor, effects: &[Done]) {
    let tape = FileTape::record(dir, run, redactor).unwrap();
    for (key, ordinal, name, request, result) in effects {
        let effect = TapedEffect { key, ordinal: *ordinal, name, request };
        assert_eq!(tape.play(&effect).await.unwrap(), None, "nothing is played while recording");
        tape.record(&effect, result).await.unwrap();
    }
}

async fn play(tape: &FileTape, (key, ordinal, name, request, _): &Done) -> Result<Option<Value>, StepError> {
    tape.play(&TapedEffect { key, ordinal: *ordinal, name, request }).await
}

fn replay(dir: &Path) -> FileTape {
    FileTape::replay(dir, Redactor::default()).unwrap().0
}

#[tokio::test]
async fn results_and_errors_are_replayed_to_the_digit_and_as_often_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &done()).await;
    let (tape, of) = FileTape::replay(dir.path(), Redactor::default()).unwrap();
    assert_eq!(of, run("r"));
    for _ in 0..2 {
        for effect in done().iter().rev() {
            let expected = effect.4.clone().map(|value| Some(value.to_string()));
            let played = play(&tape, effect).await.map(|value| value.map(|value| value.to_string()));
            assert_eq!(played, expected);
        }
    }
}

#[tokio::test]
async fn one_changed_word_misses_exactly_its_own_effect() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &done()).await;
    let tape = replay(dir.path());
    for changed in 0..done().len() {
        let mut effects = done();
        effects[changed].3 = json!({"text": "count the lines"});
        for (at, effect) in effects.iter().enumerate() {
            let played = play(&tape, effect).await;
            if at == changed {
                let error = played.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Environment);
                assert!(error.message.contains(effect.0.path.as_str()), "{}", error.message);
            } else {
                assert_eq!(played, effect.4.clone().map(Some));
            }
        }
    }
    let mut words = done().remove(1);
    words.3 = json!({"text": "count the lines"});
    let error = play(&tape, &words).await.unwrap_err();
    assert_eq!(error.details["path"], "/text");
    assert!(error.message.contains("words") && error.message.contains("lines"), "{}", error.message);
}

#[tokio::test]
async fn what_is_not_on_tape_says_what_is() {
    let dir = tempfile::tempdir().unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &done()).await;
    let tape = replay(dir.path());
    let cases = [
        (("other", 1), 0, "model", "it is new, or has another name"),
        (("review", 3), 0, "model", "retried differently"),
        (("review", 2), 2, "model", "2 effects"),
        (("review", 2), 1, "model", "`tool`"),
    ];
    for ((path, turn), ordinal, name, told) in cases {
        let error = play(&tape, &(key(path, turn), ordinal, name, json!(1), Ok(json!(1)))).await.unwrap_err();
        let text = format!("{} {}", error.message, error.help.unwrap());
        assert!(text.contains(told), "{text}");
    }
}

/// Naive: only the raw value is looked for; a header with it is base64, a URL has it encoded, a body has it escaped.
#[tokio::test]
async fn no_secret_gets_on_tape_in_any_form() {
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
    tape(dir.path(), &run("r"), Redactor::new([secret]).unwrap(), &effects).await;
    let text = fs::read_to_string(dir.path().join("tape.log")).unwrap();
    for form in [secret, "Very", "Secret", &base64[8..20]] {
        assert!(!text.contains(form), "{form} is on tape");
    }
    // Whoever replays it may have the secret, another one or none.
    let (tape, _) = FileTape::replay(dir.path(), Redactor::new([secret]).unwrap()).unwrap();
    assert!(play(&tape, &effects[0]).await.is_ok());
    let mut other = effects[0].clone();
    other.3 = json!({
        "headers": {"authorization": "x", pipeline_core::redact::MARK: [""]}, "body": "{\"key\":\"\"}"
    });
    let error = play(&replay(dir.path()), &other).await.unwrap_err();
    assert_eq!(error.details["path"], "/headers/authorization", "what is not the secret still counts");
    other.3["headers"]["authorization"] = json!(base64.replace(&base64[8..base64.len() - 4], "other"));
    assert!(play(&replay(dir.path()), &other).await.is_ok());
}

#[tokio::test]
async fn a_run_that_goes_on_goes_on_recording_and_another_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let effects = done();
    tape(dir.path(), &run("r"), Redactor::default(), &effects[..2]).await;
    let path = dir.path().join("tape.log");
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"12345678 half a rec");
    fs::write(&path, torn).unwrap();
    tape(dir.path(), &run("r"), Redactor::default(), &effects[2..]).await;
    let again = [(key("review", 2), 1, "tool", json!({"name": "other"}), Ok(json!(8)))];
    tape(dir.path(), &run("r"), Redactor::default(), &again).await;
    let played = replay(dir.path());
    for effect in [&effects[1], &effects[3], &again[0]] {
        assert_eq!(play(&played, effect).await, effect.4.clone().map(Some), "what was recorded last counts");
    }
    let other = FileTape::record(dir.path(), &run("s"), Redactor::default()).err().unwrap().to_string();
    assert!(other.contains("tape of run r"), "{other}");
}

#[tokio::test]
async fn a_tape_has_one_recorder_and_damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(FileTape::replay(dir.path(), Redactor::default()).is_err(), "there is no tape");
    let held = FileTape::record(dir.path(), &run("r"), Redactor::default()).unwrap();
    assert!(FileTape::record(dir.path(), &run("r"), Redactor::default()).is_err());
    drop(held);
    tape(dir.path(), &run("r"), Redactor::default(), &done()).await;
    let path = dir.path().join("tape.log");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = FileTape::replay(dir.path(), Redactor::default()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { offset: 1.., .. }), "{error}");
}

/// The file of the first version that had each format is never edited.
#[tokio::test]
async fn tapes_of_format_1_are_replayed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tape-1");
    let dir = tempfile::tempdir().unwrap();
    copy(&golden, dir.path());
    let (tape, of) = FileTape::replay(dir.path(), Redactor::default()).unwrap();
    assert_eq!(of, run("018bcfe5-687b-7c3a-9d41-5f0e2b7a6c10"));
    for effect in done() {
        assert_eq!(play(&tape, &effect).await, effect.4.map(Some));
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tape-format.md");
    let page = fs::read_to_string(page).unwrap();
    for line in fs::read_to_string(golden.join("tape.log")).unwrap().lines().take(4) {
        assert!(page.contains(line), "the page lacks {line}");
    }
}
