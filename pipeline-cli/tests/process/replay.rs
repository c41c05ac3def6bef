//! Replays of whole runs: the bytes and the log of the recording, twenty times.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::support::{Ended, Scratch};

/// Everything whose time or order is luck: branches that end out of order, waits, deadlines, stops, sessions, the time.
const FILE: &str = r#"
workflow:
  name: timed
  variables: {begun: "", sum: 0}
  steps:
    - {name: stamp, type: set_variable, variables: {begun: "{{ now() }}"}}
    - {name: when, type: claude, prompt: "It is {{ now() }}, and was {{ state.begun }}. Say one"}
    - name: fan
      type: for_loop
      iterator: n
      data_source: [1, 2, 3, 4, 5, 6, 7, 8]
      parallel: true
      max_parallel: 5
      reduce: {sum: sum}
      steps:
        - {name: think, type: claude, prompt: "Think about {{ loop.n }}", output_to_file: "thought-{{ loop.n }}.txt"}
        - {name: add, type: set_variable, variables: {sum: "{{ loop.n }}"}}
    - name: flaky
      type: gemini
      prompt: "Try it"
      retry: {max_attempts: 3, backoff: fixed, base_delay: 120ms, jitter: false}
    - {name: late, type: claude, prompt: "Take your time", timeout: 150ms, continue_on_error: true}
    - name: race
      type: parallel
      on_failure: fail_fast
      continue_on_error: true
      steps:
        - {name: slow, type: claude, prompt: "Run slowly"}
        - {name: fails, type: gemini, prompt: "Stumble"}
    - name: again
      type: while_loop
      condition: "loop.index < 3"
      max_iterations: 5
      steps:
        - {name: turn, type: claude, prompt: "Turn {{ loop.index }} at {{ now() }}"}
    - {name: open, type: claude_session, session_config: {session_name: talk}, prompt: "What is 5 + 3?"}
    - name: both
      type: parallel
      steps:
        - {name: left, type: claude_session, session_config: {session_name: talk}, prompt: "And on the left?"}
        - {name: right, type: claude_session, session_config: {session_name: talk}, prompt: "And on the right?"}
    - {name: last, type: claude, prompt: "Say three at {{ now() }} after {{ steps.fan.results }}", output_to_file: last.txt}
"#;

const RULES: &str = r"
seed: 77
rules:
  - {match: {step: think}, delay_ms: [1, 60]}
  - {match: {step: flaky, call: 1}, error: {kind: server}}
  - {match: {step: flaky, call: 2}, error: {kind: server}}
  - {match: {step: late}, delay_ms: 60000}
  - {match: {step: slow}, delay_ms: 60000}
  - {match: {step: fails}, delay_ms: 20, error: {kind: invalid}}
  - {match: {step: left}, delay_ms: [1, 20]}
  - {match: {step: right}, delay_ms: [1, 20]}
";

const IDS: [&str; 3] = ["--run-id", "same", "--json"];

fn record(scratch: &Scratch) -> Ended {
    scratch.write("timed.yaml", FILE);
    scratch.write("rules.yaml", RULES);
    let how =
        ["run", "timed.yaml", "--mock-rules", "rules.yaml", "--record", "tape", "--state-dir", "recorded"];
    let out = ["--output-dir", "recorded/out"];
    let ended = scratch.run(&[&how[..], &out, &IDS].concat());
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    ended
}

fn replay(scratch: &Scratch, file: &str, dir: &str) -> Ended {
    let out = format!("{dir}/out");
    let how = ["run", file, "--replay", "tape", "--state-dir", dir, "--output-dir", &out];
    scratch.run(&[&how[..], &IDS].concat())
}

/// The records of a run, as they are in its log.
fn records(scratch: &Scratch, dir: &str) -> Vec<Value> {
    let text = fs::read_to_string(scratch.path().join(dir).join("runs/same/journal.log")).unwrap();
    let json = text.lines().skip(1).map(|line| &line[line.find('{').unwrap()..]);
    json.map(|json| serde_json::from_str(json).unwrap()).collect()
}

/// What of them is not the run's own: everything but the mode.
fn comparable(records: &[Value]) -> Vec<String> {
    let without_mode = |record: &Value| {
        let mut record = record.clone();
        record.as_object_mut().unwrap().remove("mode");
        record.to_string()
    };
    records.iter().map(without_mode).collect()
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Naive: outputs come from the tape, and the order, the clock and the waits are those of today.
#[test]
fn n13_twenty_replays_have_the_bytes_the_order_and_the_times_of_the_recording() {
    let scratch = Scratch::new();
    let recorded = record(&scratch);
    let facts = comparable(&records(&scratch, "recorded"));
    let ends = |what: &str| facts.iter().filter(|f| !f.contains("RunEnded") && f.contains(what)).count();
    assert_eq!((ends("\"status\":\"timed_out\""), ends("\"status\":\"cancelled\"")), (1, 1), "{facts:#?}");
    assert_eq!(ends("\"TimerFired\""), 2, "{facts:#?}");
    let path = |fact: &&String| fact[fact.find("/think").unwrap() - 3..].chars().take(3).collect::<String>();
    let thoughts: Vec<String> = facts
        .iter()
        .filter(|f| f.contains("AttemptEnded") && f.contains("/think"))
        .map(|f| path(&f))
        .collect();
    assert!(!thoughts.is_sorted(), "nothing is out of order: {thoughts:?}");
    for round in 0..20 {
        let dir = format!("replay-{round}");
        let replayed = replay(&scratch, "timed.yaml", &dir);
        assert_eq!(replayed.code, Some(0), "{}\n{}", replayed.stdout, replayed.stderr);
        assert_eq!(comparable(&records(&scratch, &dir)), facts, "round {round}");
        assert_eq!(replayed.stdout.replace(&dir, "recorded"), recorded.stdout);
        let out = |dir: &str| files(&scratch.path().join(dir).join("out"));
        assert_eq!(out(&dir), out("recorded"));
    }
}

/// Naive: the whole run misses, waits for ever for what does not come, or says nothing.
#[test]
fn n13_one_changed_word_misses_in_its_step_and_the_others_are_replayed() {
    let scratch = Scratch::new();
    record(&scratch);
    for (n, (from, to)) in
        [("Try it", "Try that"), ("Take your time", "Take all time"), ("Say one", "Say two")]
            .into_iter()
            .enumerate()
    {
        let text =
            FILE.replace(from, to).replace("prompt: \"Try", "continue_on_error: true\n      prompt: \"Try");
        let text = text.replace("Say two\"", "Say two\", continue_on_error: true");
        scratch.write("changed.yaml", &text);
        let dir = format!("changed-{n}");
        let ended = replay(&scratch, "changed.yaml", &dir);
        assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
        let document = ended.json();
        let missed: Vec<&str> = document["steps"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, step)| {
                step["error"]["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("on tape") || m.contains("recorded one"))
            })
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(missed, [["flaky", "late", "when"][n]], "{document:#}");
        let warnings = document["warnings"].as_array().unwrap();
        let told = warnings.iter().filter(|w| w.as_str().unwrap().contains("order of its recording"));
        assert_eq!(told.count(), 1, "{document:#}");
    }
}
