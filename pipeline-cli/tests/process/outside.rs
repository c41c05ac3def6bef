//! What outlives a step or a run, or waits for people and quotas, with the real program.

use super::support::Scratch;

const SHIP: &str = "workflow:
  name: ship
  steps:
    - {name: draft, type: claude, prompt: Write a note}
    - {name: go, type: approval, message: 'Ship {{ steps.draft.text }}?', choices: ['yes', 'no']}
    - {name: done, type: test_echo, value: '{{ steps.go }}'}
";

#[test]
fn a_question_exits_4_and_its_answer_goes_on() {
    let scratch = Scratch::new();
    scratch.write("ship.yaml", SHIP);
    let paused = scratch.run(&["run", "ship.yaml", "--mock", "--json"]);
    assert_eq!(paused.code, Some(4), "{}", paused.stderr);
    let document = paused.json();
    assert_eq!(document["status"], "paused");
    assert_eq!(document["questions"][0]["path"], "go");
    assert_eq!(document["questions"][0]["choices"], serde_json::json!(["yes", "no"]));
    let shown = scratch.run(&["runs", "show"]);
    assert!(shown.stdout.contains("--answer 'go=") && shown.stdout.contains("Ship "), "{}", shown.stdout);
    let misfit = scratch.run(&["resume", "--answer", "go=maybe"]);
    assert_eq!(misfit.code, Some(2), "{}", misfit.stderr);
    assert!(misfit.stderr.contains("\"maybe\" is not one of"), "{}", misfit.stderr);
    let nobody = scratch.run(&["resume", "--answer", "draft=x"]);
    assert_eq!(nobody.code, Some(2), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("`go`"), "what does wait: {}", nobody.stderr);
    let ended = scratch.run(&["resume", "--answer", "go=yes", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.json()["outputs"]["done"], "yes");
}

#[test]
fn a_used_up_quota_exits_75_and_says_when_it_goes_on() {
    let scratch = Scratch::new();
    scratch.write("ship.yaml", SHIP);
    scratch.write(
        "rules.yaml",
        "rules:\n  - match: {step: draft, call: 1}\n    error: {kind: quota, retry_after_ms: 7200000, message: weekly limit}\n",
    );
    let parked = scratch.run(&["run", "ship.yaml", "--mock-rules", "rules.yaml", "--json"]);
    assert_eq!(parked.code, Some(75), "{}", parked.stderr);
    assert_eq!(parked.json()["status"], "parked");
    assert!(
        parked.stderr.contains("weekly limit") && parked.stderr.contains("until 20"),
        "{}",
        parked.stderr
    );
    assert_eq!(scratch.run(&["resume"]).code, Some(75), "not before its time");
    let tried = scratch.run(&["resume", "--try-now", "--json"]);
    assert_eq!(tried.code, Some(4), "{}", tried.stderr);
    assert_eq!(tried.json()["steps"]["draft"]["status"], "ok");
}

/// Naive: what was kept is used for another question, or too long, or a failure is kept.
#[test]
fn an_answer_is_kept_for_the_same_question_as_long_as_it_is_good() {
    let scratch = Scratch::new();
    let text = |prompt: &str, cache: &str| {
        format!(
            "workflow:\n  name: t\n  steps: [{{name: a, type: claude, prompt: {prompt}, cache: {cache}}}]\n"
        )
    };
    let ask = |prompt: &str, cache: &str, rules: &str| {
        scratch.write("t.yaml", &text(prompt, cache));
        scratch.write("rules.yaml", rules);
        let ended = scratch.run(&["run", "t.yaml", "--mock-rules", "rules.yaml", "--json"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let document = ended.json();
        (
            document["outputs"]["a"]["text"].as_str().unwrap().to_owned(),
            document["usage"]["calls"].as_u64().unwrap(),
        )
    };
    let says = |word: &str| format!("rules: [{{text: {word}}}]");
    assert_eq!(ask("Hi", "true", &says("one")), ("one".to_owned(), 1));
    assert_eq!(ask("Hi", "true", &says("two")), ("one".to_owned(), 0), "the same question");
    assert_eq!(ask("Ho", "true", &says("two")), ("two".to_owned(), 1), "another one");
    assert_eq!(ask("Hi", "1h", &says("three")), ("one".to_owned(), 0));
    assert_eq!(ask("Hi", "0s", &says("four")).1, 1, "too old at once");
    scratch.write("bad.yaml", "workflow:\n  name: t\n  steps: [{name: a, type: test_echo, cache: true}]\n");
    let refused = scratch.run(&["check", "bad.yaml"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stdout.contains("E0407"), "{}", refused.stdout);
}

/// Naive: a child that ends cleans up the workspace of its running parent.
#[test]
fn x07_files_of_a_parent_outlive_any_end_of_a_child() {
    let scratch = Scratch::new();
    scratch.write("workspace/mine.txt", "still here");
    scratch.write(
        "t.yaml",
        "workflow:
  name: t
  steps:
    - {name: put, type: file_ops, operation: copy, source: workspace/mine.txt, destination: workspace/copy.txt}
    - {name: good, type: pipeline, pipeline: {name: c, steps: [{name: a, type: test_echo}]}}
    - {name: bad, type: pipeline, continue_on_error: true, pipeline: {name: c, steps: [{name: a, type: test_echo, fail: true}]}}
    - {name: late, type: pipeline, continue_on_error: true, timeout: 50ms, pipeline: {name: c, steps: [{name: a, type: test_echo, delay_ms: 5000}]}}
    - {name: check, type: file_ops, operation: validate, files: [{path: workspace/copy.txt, must_exist: true}, {path: workspace/mine.txt, must_exist: true}]}
",
    );
    let ended = scratch.run(&["run", "t.yaml", "--mock", "--json"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(std::fs::read_to_string(scratch.path().join("workspace/copy.txt")).unwrap(), "still here");
}
