//! What somebody who makes pipelines does: begin, check, test, migrate, generate, verify.

use super::support::Scratch;

#[test]
fn a_new_project_is_checked_run_and_tested_as_it_is() {
    let scratch = Scratch::new();
    assert_eq!(scratch.run(&["init"]).code, Some(0));
    assert_eq!(scratch.run(&["check", "pipeline.yaml"]).code, Some(0));
    let tested = scratch.run(&["test", "tests", "--json", "--junit", "j.xml"]);
    assert_eq!(tested.code, Some(0), "{}", tested.stderr);
    let document = tested.json();
    assert_eq!((&document["schema"], &document["passed"]), (&"pipeline.test/1".into(), &2.into()));
    assert!(std::fs::read_to_string(scratch.path().join("j.xml")).unwrap().contains("failures=\"0\""));
    let schema = std::fs::read_to_string(scratch.path().join("pipeline.schema.json")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    assert_eq!(scratch.run(&["init"]).code, Some(2), "nothing is written over");
}

#[test]
fn every_template_is_without_findings_and_runs_on_the_mock() {
    let scratch = Scratch::new();
    for template in ["prompt", "chain", "fan-out", "loop", "extract"] {
        assert_eq!(scratch.run(&["new", template]).code, Some(0));
        let file = format!("{template}.yaml");
        let checked = scratch.run(&["check", &file]);
        assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), ""), "{template}");
        let ran = scratch.run(&["run", &file, "--mock"]);
        assert_eq!(ran.code, Some(0), "{template}: {}", ran.stderr);
    }
    assert!(scratch.run(&["new", "nothing"]).stderr.contains("fan-out"));
}

/// Naive: see whether the file is there, then write it: two that look at once both write.
/// Figure: 8 processes at once, one file.
#[test]
fn x30_a_file_that_exists_is_never_written_over() {
    let scratch = Scratch::new();
    scratch.write("chain.yaml", "mine");
    for args in [&["new", "chain"][..], &["generate", "a chain", "--mock", "-o", "chain.yaml"]] {
        assert_eq!(scratch.run(args).code, Some(2), "{args:?}");
        assert_eq!(std::fs::read_to_string(scratch.path().join("chain.yaml")).unwrap(), "mine");
    }
    // Of many at once exactly one creates the file.
    let all: Vec<_> = (0..8).map(|_| scratch.spawn(&["new", "loop", "-o", "one.yaml"])).collect();
    let won = all.into_iter().map(super::support::finish).filter(|ended| ended.code == Some(0)).count();
    assert_eq!(won, 1);
}

#[test]
fn a_generated_file_runs() {
    let scratch = Scratch::new();
    let dry = scratch.run(&["generate", "improve a text until it is good", "--mock", "--dry-run"]);
    assert!(dry.stdout.contains("while_loop"), "{}", dry.stdout);
    assert_eq!(scratch.run(&["generate", "say hello", "--mock", "-o", "hello.yaml"]).code, Some(0));
    assert_eq!(scratch.run(&["run", "hello.yaml", "--mock"]).code, Some(0));
}

#[test]
fn a_case_tells_everything_that_is_not_as_expected() {
    let scratch = Scratch::new();
    scratch.write("p.yaml", "workflow:\n  name: p\n  steps:\n    - {name: a, type: claude, prompt: hi}\n    - {name: b, type: test_echo, value: '{{ steps.a.text }}', output_to_file: b.txt}\n  outputs: {said: steps.b}\n");
    let cases = "pipeline: p.yaml\ncases:\n  - name: wrong\n    mock: {rules: [{text: yes}]}\n    expect:\n      outputs: {said: 'no'}\n      calls: 3\n      path: [b, a]\n      files: {b.txt: other, c.txt: x}\n      steps: {a: {attempts: 2}, zz: {status: ok}}\n  - name: right\n    mock: {rules: [{text: yes}]}\n    snapshot: true\n    expect: {outputs: {said: 'yes'}, path: [a, b], files: {b.txt: 'yes', c.txt: null}, max_calls: 1, max_cost_usd: 0}\n";
    scratch.write("cases.yaml", cases);
    let ended = scratch.run(&["test", "cases.yaml"]);
    assert_eq!(ended.code, Some(1));
    for part in [
        "output `said`",
        "not 3",
        "a → b, not b → a",
        "b.txt does not hold",
        "c.txt was not",
        "had 1 attempts, not 2",
        "`zz` did not run",
        "there is no snapshot",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(scratch.run(&["test", "cases.yaml", "--filter", "right", "--update"]).code, Some(0));
    assert_eq!(scratch.run(&["test", "cases.yaml", "--filter", "right"]).code, Some(0));
}

#[test]
fn legacy_spellings_are_rewritten_and_comments_stay() {
    let scratch = Scratch::new();
    let text = "workflow:\n  name: old\n  steps:\n    - {name: a, type: claude, prompt: hi}   # first\n    - name: b\n      type: claude\n      prompt: \"Say {{previous_response:a.text}}\"   # second\n";
    scratch.write("old.yaml", text);
    let checked = scratch.run(&["migrate", "old.yaml", "--check"]);
    assert_eq!(checked.code, Some(2), "{}", checked.stderr);
    assert_eq!(std::fs::read_to_string(scratch.path().join("old.yaml")).unwrap(), text);
    assert_eq!(scratch.run(&["migrate", "old.yaml"]).code, Some(0));
    let new = std::fs::read_to_string(scratch.path().join("old.yaml")).unwrap();
    assert_eq!(new, text.replace("previous_response:a.text", "steps['a'].text"));
    assert_eq!(scratch.run(&["migrate", "old.yaml", "--check"]).code, Some(0));
}

/// Naive: a resumed run gives back what was stored in another form than a fresh one.
#[test]
fn x27_a_run_that_is_killed_at_every_record_comes_out_the_same() {
    let scratch = Scratch::new();
    scratch.write("p.yaml", "workflow:\n  name: p\n  steps:\n    - {name: a, type: claude, prompt: hi}\n    - {name: b, type: test_echo, value: '{{ steps.a.text }}', effects: once, delay_ms: 100, output_to_file: b.txt}\n");
    // A step that must not happen twice asks after a kill; whoever verifies lets it run again.
    let ended = scratch.run(&["verify", "p.yaml", "--crash", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["failed"], 0);
    assert_eq!(document["cuts"].as_array().unwrap().len() as u64, document["records"].as_u64().unwrap() - 1);
}

/// Naive: a write that fails is tried again, or told and forgotten, and the run goes on.
#[test]
fn n20_a_disk_that_is_full_at_any_operation_stops_the_run_and_a_resume_gives_the_same() {
    let scratch = Scratch::new();
    // The value of the first is too large for the journal itself.
    scratch.write("p.yaml", "workflow:\n  name: p\n  steps:\n    - {name: large, type: test_echo, value: '{{ range(16000) }}'}\n    - {name: fan, type: for_loop, parallel: true, data_source: range(4), steps: [{name: one, type: test_echo, value: '{{ loop.item }}', output_to_file: 'f{{ loop.item }}.txt'}]}\n");
    let ended = scratch.run(&["verify", "p.yaml", "--faults", "--json"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let document = ended.json();
    assert_eq!(document["failed"], 0);
    assert!(document["faults"].as_array().unwrap().len() >= 8, "{document}");
    assert_eq!(document["not_compared"], serde_json::json!([]));
}

/// Naive: only outputs are compared, so that what a step did twice to a file is not seen.
#[cfg(unix)]
#[test]
fn what_a_kill_makes_of_a_file_is_found_and_the_smallest_kill_is_told() {
    let scratch = Scratch::new();
    scratch.write("p.yaml", "workflow:\n  name: p\n  permissions: {shell: [sh]}\n  steps:\n    - name: both\n      type: parallel\n      steps:\n        - {name: adds, type: shell, command: [sh, -c, 'mkdir -p $0; echo x >> $0/log; sleep 2', '{{ run.dir }}/../../../workspace']}\n        - {name: other, type: test_echo, delay_ms: 1000, value: 1}\n");
    let ended = scratch.run_with_path(&["verify", "p.yaml", "--crash", "-v"]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("the smallest: killed after record"), "{}", ended.stdout);
    let told = ended.stdout.lines().next().unwrap();
    assert!(
        told.contains(" kills in a run of ") && !told.contains("full disks"),
        "only what was asked for: {told}"
    );
    assert!(ended.stdout.contains("the file workspace/log differs"), "{}", ended.stdout);
}
