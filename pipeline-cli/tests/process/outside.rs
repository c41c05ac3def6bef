//! What waits for people and quotas, with the real program.

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
