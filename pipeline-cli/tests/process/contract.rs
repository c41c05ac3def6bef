//! Exit codes, shapes and files that scripts depend on.

use super::support::Scratch;

const HELLO: &str = "workflow:\n  name: hello\n  inputs: {who: {type: string, default: world}}\n  steps:\n    - {name: greet, type: test_echo, value: 'hello {{ inputs.who }}', output_to_file: greeting.txt}\n    - {name: ask, type: claude, prompt: 'Say {{ steps.greet }}'}\n";

#[test]
fn run_json_is_one_document_of_its_schema() {
    let scratch = Scratch::new();
    scratch.write("hello.yaml", HELLO);
    let ended = scratch.run(&["run", "hello.yaml", "--mock", "--json", "-i", "who=you"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["schema"], "pipeline.run/1");
    assert_eq!(document["status"], "ok");
    assert_eq!(document["outputs"]["greet"], "hello you");
    assert_eq!(document["steps"]["greet"]["attempts"], 1);
    assert_eq!(document["steps"]["ask"]["value"]["provider"], "claude");
    assert_eq!(document["usage"]["calls"], 1);
    assert_eq!(std::fs::read_to_string(scratch.path().join("outputs/greeting.txt")).unwrap(), "hello you");
}

#[test]
fn events_are_one_object_a_line_and_the_same_as_those_stored() {
    let scratch = Scratch::new();
    scratch.write("hello.yaml", HELLO);
    let ended = scratch.run(&["run", "hello.yaml", "--mock", "--events"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let facts = |text: &str| -> Vec<serde_json::Value> {
        let lines = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        lines.filter(|l| l.get("fact").is_some()).collect()
    };
    let live = facts(&ended.stdout);
    assert!(live.iter().all(|e| e["schema"] == "pipeline.event/1"));
    let run = scratch.run_dir();
    let id = run.file_name().unwrap().to_str().unwrap();
    let stored = facts(&scratch.run(&["runs", "events", id, "--json"]).stdout);
    assert_eq!(live, stored);
    assert_eq!(stored.first().unwrap()["fact"], "RunStarted");
    assert_eq!(stored.last().unwrap()["fact"], "RunEnded");
}

/// Naive: the finished checkpoint is the latest, and the next run returns its results without running.
#[test]
fn x08_a_second_run_runs_everything_again_and_resume_of_a_finished_run_says_so() {
    let scratch = Scratch::new();
    scratch.write("hello.yaml", HELLO);
    for _ in 0..2 {
        let document = scratch.run(&["run", "hello.yaml", "--mock", "--json"]).json();
        assert_eq!(document["steps"]["greet"]["reused"], false);
    }
    let resumed = scratch.run(&["resume", "--json"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(!resumed.stderr.is_empty(), "it says that nothing was left to do");
    assert_eq!(resumed.json()["outputs"]["greet"], "hello world");
    let list = scratch.run(&["runs", "list", "--json"]).json();
    assert_eq!(list["schema"], "pipeline.runs/1");
    assert_eq!(list["runs"].as_array().unwrap().len(), 2);
}

#[test]
fn a_failing_step_gives_1_and_says_which_and_how_to_go_on() {
    let scratch = Scratch::new();
    scratch.write("f.yaml", "workflow:\n  name: f\n  steps:\n    - {name: a, type: test_echo}\n    - {name: b, type: test_echo, fail: true, error_message: out of cheese}\n");
    let ended = scratch.run(&["run", "f.yaml", "--mock", "--run-id", "r"]);
    // The same again for whoever comes later and goes on with nothing.
    for ended in [ended, scratch.run(&["resume"])] {
        assert_eq!(ended.code, Some(1));
        for part in ["step b: out of cheese", "try it again with: pipeline resume r --from b "] {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
    }
}

/// Naive: what the pipeline returns is made of steps that were not to run, and the run fails.
#[test]
fn a_run_until_a_step_returns_what_there_is() {
    let scratch = Scratch::new();
    scratch.write("u.yaml", "workflow:\n  name: u\n  steps:\n    - {name: a, type: test_echo, value: 1}\n    - {name: b, type: test_echo, value: 2}\n  outputs: {sum: '{{ steps.a + steps.b }}'}\n");
    let outputs = |more: &[&str]| {
        let ended = scratch.run(&[&["run", "u.yaml", "--mock", "--json"], more].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.json()["outputs"].to_string()
    };
    assert_eq!(outputs(&["--until", "a"]), r#"{"a":1}"#);
    assert_eq!(outputs(&["--until", "b"]), r#"{"sum":3}"#);
    assert_eq!(outputs(&[]), r#"{"sum":3}"#);
}

#[test]
fn missing_inputs_are_all_named_and_nothing_runs() {
    let scratch = Scratch::new();
    scratch.write("i.yaml", "workflow:\n  name: i\n  steps:\n    - {name: a, type: test_echo, value: '{{ first_one }} {{ inputs.second_one }}'}\n");
    assert_eq!(scratch.run(&["check", "i.yaml"]).code, Some(0));
    let ended = scratch.run(&["run", "i.yaml", "--mock"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("first_one") && ended.stderr.contains("second_one"), "{}", ended.stderr);
    assert!(!scratch.path().join(".pipeline").exists());
    let ended = scratch.run(&["run", "i.yaml", "--mock", "-i", "first_one=1", "SECOND_ONE=x"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn without_a_credential_nothing_runs_and_the_variable_is_named() {
    let scratch = Scratch::new();
    scratch.write("hello.yaml", HELLO);
    let ended = scratch.run(&["run", "hello.yaml"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("ANTHROPIC_API_KEY") && ended.stderr.contains("--mock"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_state_directory_that_cannot_be_used_gives_3() {
    let scratch = Scratch::new();
    scratch.write("hello.yaml", HELLO);
    scratch.write("taken", "a file");
    let ended = scratch.run(&["run", "hello.yaml", "--mock", "--state-dir", "taken"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("taken"), "{}", ended.stderr);
}

#[test]
fn an_unknown_run_gives_3_and_a_usage_error_2() {
    let scratch = Scratch::new();
    assert_eq!(scratch.run(&["resume", "nothing"]).code, Some(3));
    assert_eq!(scratch.run(&["runs", "show", "nothing"]).code, Some(3));
    assert_eq!(scratch.run(&["run"]).code, Some(2));
    assert_eq!(scratch.run(&["run", "nowhere.yaml", "--mock"]).code, Some(2));
}

/// The process always holds more than 1 MiB.
#[test]
#[cfg(target_os = "linux")]
fn a_limit_on_memory_gives_5_while_the_step_runs() {
    let scratch = Scratch::new();
    scratch.write("memory.yaml", "workflow:\n  name: m\n  steps:\n    - {name: a, type: test_echo}\n    - name: c\n      type: pipeline\n      config: {memory_limit_mb: 1}\n      pipeline: {name: c, steps: [{name: long, type: test_echo, delay_ms: 60000}]}\n");
    let ended = scratch.run(&["run", "memory.yaml", "--mock", "--json"]);
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    let told = ended.json();
    assert_eq!((&told["status"], &told["error"]["kind"]), (&"budget".into(), &"budget".into()));
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("MiB, and 1 are allowed while `c/long` runs"), "{message}");
    assert_eq!(told["steps"]["a"]["status"], "ok");
}

#[test]
fn the_run_deadline_gives_124_and_a_budget_5() {
    let scratch = Scratch::new();
    scratch.write(
        "slow.yaml",
        "workflow:\n  name: s\n  steps:\n    - {name: a, type: test_echo, delay_ms: 30000}\n",
    );
    let ended = scratch.run(&["run", "slow.yaml", "--mock", "--timeout", "200ms"]);
    assert_eq!(ended.code, Some(124), "{}", ended.stderr);
    scratch.write("many.yaml", "workflow:\n  name: m\n  budget: {max_steps: 2}\n  steps:\n    - {name: a, type: test_echo}\n    - {name: b, type: test_echo}\n    - {name: c, type: test_echo}\n");
    let ended = scratch.run(&["run", "many.yaml", "--mock", "--json"]);
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert_eq!(ended.json()["status"], "budget");
}

#[test]
fn small_commands_answer() {
    let scratch = Scratch::new();
    scratch.write("hello.yaml", HELLO);
    let schema = scratch.run(&["schema"]).json();
    assert!(schema["$schema"].is_string());
    assert!(scratch.run(&["explain", "E0101"]).stdout.contains("unknown key"));
    assert_eq!(scratch.run(&["explain", "E9999"]).code, Some(2));
    for (format, part) in [("mermaid", "flowchart"), ("dot", "digraph"), ("json", "\"greet\"")] {
        assert!(scratch.run(&["graph", "hello.yaml", "--format", format]).stdout.contains(part), "{format}");
    }
    assert_eq!(scratch.run(&["doctor", "--json"]).json()["schema"], "pipeline.doctor/1");
    let checked = scratch.run(&["check", "hello.yaml", "--json"]).json();
    assert_eq!(checked["schema"], "pipeline.check/1");
    assert!(!scratch.path().join(".pipeline").exists(), "looking changes nothing");
}
