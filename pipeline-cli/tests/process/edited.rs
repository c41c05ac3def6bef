//! A run that goes on with an edited file, or from an earlier step.

use super::support::Scratch;

const FILE: &str = "workflow:
  name: w
  inputs: {topic: {type: string, default: tea}}
  steps:
    - {name: a, type: test_echo, value: [1, 2]}
    - name: fan
      type: for_loop
      data_source: steps.a
      parallel: true
      timeout: 1h
      steps: [{name: think, type: claude, prompt: 'Think of {{ loop.item }} and {{ inputs.topic }}'}]
    - {name: b, type: test_echo, value: x, fail: true, error_message: out of cheese}
    - {name: c, type: test_echo, value: '{{ steps.b }}!'}
  outputs: {said: steps.c}
";

/// A run that failed at `b`, and its file put right.
fn failed() -> (Scratch, String) {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let ended = scratch.run(&["run", "w.yaml", "--mock", "--run-id", "first"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let edited = FILE.replace(", fail: true, error_message: out of cheese", "");
    scratch.write("edited.yaml", &edited);
    (scratch, edited)
}

/// Naive: results are found by workflow and step name, whatever the file says by now.
#[test]
fn x09_an_edited_file_takes_over_what_it_asks_for_as_before_and_says_what_runs() {
    let (scratch, _) = failed();
    let ended = scratch.run(&["resume", "first", "--with", "edited.yaml", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["outputs"]["said"], "x!");
    let reused = |step: &str| document["steps"][step]["reused"].as_bool().unwrap();
    assert_eq!(["a", "fan", "b", "c"].map(reused), [true, true, false, false]);
    assert_eq!(document["usage"]["calls"], 2, "no model was called again");
    for part in ["takes over from first: a, fan\n", "`b` runs: b: it is asked for something else"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    // The old journal is not touched: it ended, and so it stays.
    assert_eq!(scratch.run(&["runs", "show", "first", "--json"]).json()["status"], "failed");
}

#[test]
fn a_run_from_a_step_on_is_a_new_run_and_the_hint_of_a_failed_one_names_it() {
    let (scratch, edited) = failed();
    let shown = scratch.run(&["runs", "show", "first"]);
    assert!(shown.stdout.contains("pipeline resume first --from b"), "{}", shown.stdout);
    scratch.write("edited.yaml", &edited);
    let again = scratch.run(&["resume", "first", "--with", "edited.yaml", "--from", "fan", "--json"]);
    assert_eq!(again.json()["steps"]["fan"]["reused"], false, "{}", again.stderr);
    assert_eq!(again.json()["steps"]["a"]["reused"], true);
    let same = scratch.run(&["resume", "first", "--from", "b", "--json"]);
    assert_eq!(same.code, Some(1), "the file is as wrong as it was: {}", same.stderr);
    assert_eq!(same.json()["steps"]["fan"]["reused"], true);
    let wrong = scratch.run(&["resume", "first", "--from", "fann"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("did you mean `fan`?"), "{}", wrong.stderr);
    let absent = scratch.run(&["resume", "first", "--with", "nope.yaml"]);
    assert!(absent.code == Some(2) && absent.stderr.contains("nope.yaml"), "{}", absent.stderr);
}

/// Naive: the file asks for the same as before, whatever stands in the files that it names.
#[test]
fn an_answer_to_a_prompt_file_that_has_changed_is_not_taken_over() {
    let scratch = Scratch::new();
    scratch.write("one.md", "Think of tea.");
    scratch.write("two.md", "Think of milk.");
    let file = "workflow:
  name: w
  steps:
    - {name: a, type: claude, prompt: [{type: file, path: one.md}]}
    - {name: b, type: claude, prompt: [{type: file, path: two.md}]}
    - {name: c, type: test_echo, value: x, fail: true}
";
    scratch.write("w.yaml", file);
    let first = scratch.run(&["run", "w.yaml", "--mock", "--run-id", "first"]);
    assert_eq!(first.code, Some(1), "{}", first.stderr);
    scratch.write("edited.yaml", &file.replace(", fail: true", ""));
    scratch.write("two.md", "Think of honey.");
    let planned = scratch.run(&["plan", "edited.yaml", "--against", "first"]);
    assert!(planned.stdout.contains("two.md is not what it was"), "{}{}", planned.stdout, planned.stderr);
    let ended = scratch.run(&["resume", "first", "--with", "edited.yaml", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let document = ended.json();
    let reused = |step: &str| document["steps"][step]["reused"].as_bool().unwrap();
    assert_eq!(["a", "b", "c"].map(reused), [true, false, false], "{}", ended.stderr);
    assert!(document["steps"]["b"]["value"]["text"].to_string().contains("honey"), "{document}");
}

/// Items that were done stay done; the one that was cut off goes on. The old run does not go on beside the new one.
#[test]
fn a_loop_that_was_interrupted_goes_on_under_another_file_and_the_old_run_ends() {
    let scratch = Scratch::new();
    let file = "workflow:
  name: w
  steps:
    - name: each
      type: for_loop
      data_source: [1, 2, 3]
      steps: [{name: think, type: claude, prompt: 'Think of {{ loop.item }}'}]
    - {name: last, type: test_echo, value: old}
";
    scratch.write("w.yaml", file);
    scratch.write("rules.yaml", "rules:\n  - {match: {prompt_contains: 'of 3'}, delay_ms: 60000}\n");
    let mut child = scratch.spawn(&["run", "w.yaml", "--mock-rules", "rules.yaml", "--run-id", "first"]);
    let begun = || {
        let events = scratch.run(&["runs", "events", "first", "--json"]).stdout;
        events.lines().any(|l| l.contains("AttemptEnded") && l.contains("each[1]/think"))
    };
    while !begun() {}
    child.kill().unwrap();
    child.wait().unwrap();
    scratch.write("edited.yaml", &file.replace("value: old", "value: new"));
    let ended = scratch.run(&["resume", "--with", "edited.yaml", "--mock", "--mock-rules", "none.yaml"]);
    assert_eq!(ended.code, Some(2), "rules that are not there change nothing: {}", ended.stderr);
    scratch.write("none.yaml", "rules: []\n");
    let ended = scratch.run(&["resume", "--with", "edited.yaml", "--mock-rules", "none.yaml", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in ["`each` runs: each[2]/think: it ha", "takes over from first: 2 ended attempts of others"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let document = ended.json();
    assert_eq!((&document["outputs"]["last"], &document["usage"]["calls"]), (&"new".into(), &3.into()));
    let old = scratch.run(&["runs", "show", "first", "--json"]).json();
    assert_eq!(old["status"], "cancelled");
    assert!(old["error"]["message"].as_str().unwrap().contains("goes on in its place"), "{old}");
}

#[test]
fn inputs_stay_those_of_the_run_as_far_as_the_file_has_them() {
    let (scratch, edited) = failed();
    scratch.write(
        "edited.yaml",
        &edited.replace("inputs: {topic:", "inputs: {subject:").replace("inputs.topic", "inputs.subject"),
    );
    let ended = scratch.run(&["resume", "first", "--with", "edited.yaml", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("no input `topic` any more"), "{}", ended.stderr);
    scratch.write("edited.yaml", &edited.replace("{type: string, default: tea}", "{type: integer}"));
    let refused = scratch.run(&["resume", "first", "--with", "edited.yaml"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("topic") && refused.stderr.contains("help:"), "{}", refused.stderr);
}

#[test]
fn a_plan_says_who_said_each_value_and_where() {
    let scratch = Scratch::new();
    scratch.write(
        "p.yaml",
        "workflow:
  name: p
  defaults:
    timeout_seconds: 40
    model: opus
  steps:
    - {name: a, type: claude, prompt: hello, preset: analysis}
",
    );
    let document = scratch.run(&["plan", "p.yaml", "--mock", "--json"]).json();
    let values = document["steps"][0]["values"].as_array().unwrap();
    let said = |key: &str| {
        let value = values.iter().find(|v| v["key"] == key).unwrap_or_else(|| panic!("{key}"));
        (value["from"].as_str().unwrap(), value["line"].as_u64())
    };
    assert_eq!(said("timeout"), ("defaults", Some(4)));
    assert_eq!(said("prompt"), ("step", Some(7)));
    assert_eq!(said("system_prompt"), ("preset", Some(7)));
    assert_eq!(said("retry.max_attempts"), ("preset", Some(7)));
    assert_eq!(said("retry.jitter"), ("built-in", None));
    assert_eq!(document["steps"][0]["model"], "claude/opus", "a written model is the one that is told");
    let text = scratch.run(&["plan", "p.yaml", "--mock"]).stdout;
    assert!(text.contains("by defaults: timeout 40.0, model opus"), "{text}");
    let all = scratch.run(&["plan", "p.yaml", "--mock", "-v"]).stdout;
    assert!(all.contains("retry.jitter: true (built-in)") && all.contains("(defaults, p.yaml:5)"), "{all}");
}
