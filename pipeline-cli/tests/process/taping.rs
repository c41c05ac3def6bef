//! A run that is recorded and replayed.

use super::support::Scratch;

const FILE: &str = r#"
workflow:
  name: taped
  permissions: {shell: ["date"]}
  steps:
    - {name: first, type: claude, prompt: "Say one"}
    - {name: second, type: gemini, prompt: "After {{ steps.first.text }} and {{ run.timestamp }} say two"}
    - name: fan
      type: for_loop
      iterator: n
      data_source: [1, 2, 3, 4, 5, 6]
      parallel: true
      steps:
        - {name: think, type: claude, prompt: "Think about {{ loop.n }}", output_to_file: "thought-{{ loop.n }}.txt"}
    - {name: last, type: claude, prompt: "Say three"}
"#;

/// Answers that depend on nothing but luck: replayed they must be those of the recording, not of another mock.
const RULES: &str = "seed: 4242\nrules:\n  - match: {step: last}\n    text: only the tape knows this\n";

/// Naive: a replay that asks a provider where the tape has nothing, or needs what the recording needed.
#[test]
fn n13_a_replay_gives_the_same_bytes_and_needs_neither_rules_nor_credentials() {
    let scratch = Scratch::new();
    scratch.write("taped.yaml", FILE);
    scratch.write("rules.yaml", RULES);
    let ids = ["--run-id", "same", "--json"];
    let recorded = scratch.run(
        &[
            &["run", "taped.yaml", "--mock-rules", "rules.yaml", "--record", "tape", "--state-dir", "a"],
            &ids[..],
        ]
        .concat(),
    );
    assert_eq!(recorded.code, Some(0), "{}", recorded.stderr);
    assert!(recorded.stdout.contains("only the tape knows this"));
    std::fs::rename(scratch.path().join("outputs"), scratch.path().join("recorded")).unwrap();
    let replayed =
        scratch.run(&[&["run", "taped.yaml", "--replay", "tape", "--state-dir", "b"], &ids[..]].concat());
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    let timeless = |mut document: serde_json::Value| {
        document["duration_ms"] = 0.into();
        for (_, step) in document["steps"].as_object_mut().unwrap() {
            step["duration_ms"] = 0.into();
        }
        document.to_string()
    };
    assert_eq!(timeless(replayed.json()), timeless(recorded.json()));
    for n in 1..=6 {
        let read =
            |dir: &str| std::fs::read(scratch.path().join(dir).join(format!("thought-{n}.txt"))).unwrap();
        assert_eq!(read("outputs"), read("recorded"));
    }
    let list = scratch.run(&["runs", "list", "--json", "--state-dir", "b"]).json();
    assert_eq!(list["runs"][0]["mode"], "replay");
}

/// Naive: what the tape does not have is asked of a live model, or the whole replay fails.
#[test]
fn n13_one_changed_word_misses_its_own_step_and_says_where() {
    let scratch = Scratch::new();
    scratch.write("taped.yaml", FILE);
    let recorded = scratch.run(&["run", "taped.yaml", "--mock", "--record", "tape"]);
    assert_eq!(recorded.code, Some(0), "{}", recorded.stderr);
    scratch.write(
        "changed.yaml",
        &FILE
            .replace("Say three", "Say four")
            .replace("type: for_loop", "type: for_loop\n      continue_on_error: true"),
    );
    let replayed = scratch.run(&["run", "changed.yaml", "--replay", "tape", "--json"]);
    assert_eq!(replayed.code, Some(1), "{}", replayed.stderr);
    let steps = replayed.json()["steps"].clone();
    for name in ["first", "second", "fan"] {
        assert_eq!(steps[name]["status"], "ok", "{name}");
    }
    let error = &steps["last"]["error"];
    assert_eq!(error["kind"], "environment");
    let message = error["message"].as_str().unwrap();
    for word in ["`last`", "three", "four", "/messages/0/content/0/text"] {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_tape_is_named_or_nothing_runs() {
    let scratch = Scratch::new();
    scratch.write("taped.yaml", FILE);
    let missing = scratch.run(&["run", "taped.yaml", "--replay", "nowhere"]);
    assert_eq!(missing.code, Some(3), "{}", missing.stderr);
    assert!(missing.stderr.contains("there is no tape"), "{}", missing.stderr);
    assert_eq!(scratch.run(&["run", "taped.yaml", "--replay", "t", "--mock"]).code, Some(2));
    assert_eq!(scratch.run(&["run", "taped.yaml", "--replay", "t", "--record", "u"]).code, Some(2));
    let mut command = scratch.command(&["run", "taped.yaml"]);
    command.env("TEST_MODE", "replay");
    assert_eq!(super::support::finish(command.spawn().unwrap()).code, Some(2));
}
