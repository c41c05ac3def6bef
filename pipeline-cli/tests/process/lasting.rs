//! Variables of scope `session`: they outlive the run.

use serde_json::{Value, json};

use super::crash::copy;
use super::support::{Scratch, finish};

const COUNTER: &str = "workflow:
  name: counter
  variables: {hits: 0, last: nobody}
  steps:
    - {name: before, type: test_echo, value: '{{ [state.hits, state.last] }}'}
    - {name: count, type: set_variable, scope: session, variables: {hits: '{{ state.hits + 1 }}', last: 'number {{ state.hits }}'}}
    - {name: after, type: test_echo, value: '{{ [state.hits, state.last, steps.count.hits] }}'}
";

/// Six ways to write one variable, some of them at once.
const MIXED: &str = "workflow:
  name: mixed
  variables: {sum: 0, log: []}
  steps:
    - {name: one, type: set_variable, scope: session, variables: {sum: '{{ state.sum + 1 }}'}}
    - name: turns
      type: for_loop
      data_source: range(3)
      steps:
        - {name: add, type: set_variable, scope: session, variables: {sum: '{{ state.sum + 1 }}', log: '{{ state.log + [loop.item] }}'}}
    - name: fan
      type: for_loop
      parallel: true
      data_source: range(4)
      reduce: {sum: sum, log: append}
      steps:
        - {name: add, type: set_variable, scope: session, variables: {sum: 1, log: '{{ loop.item }}'}}
    - name: children
      type: for_loop
      parallel: true
      data_source: range(3)
      steps:
        - name: child
          type: pipeline
          pipeline:
            name: below
            variables: {calls: 0}
            steps:
              - {name: call, type: set_variable, scope: session, variables: {calls: '{{ state.calls + 1 }}'}}
  outputs: {sum: state.sum, log: state.log}
";

fn outputs(scratch: &Scratch, arguments: &[&str]) -> Value {
    let ended = scratch.run(&[&["run"], arguments, &["--mock", "--json"]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.json()["outputs"].clone()
}

fn kept(scratch: &Scratch, session: &str) -> Value {
    let shown = scratch.run(&["sessions", "show", session, "--json"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    shown.json()["sessions"][0]["variables"].clone()
}

/// Naive: a variable of scope `session` ends with the run.
#[test]
fn a_session_variable_is_there_in_the_next_run() {
    let scratch = Scratch::new();
    scratch.write("counter.yaml", COUNTER);
    for run in 0..3 {
        let outputs = outputs(&scratch, &["counter.yaml"]);
        let last = if run == 0 { "nobody".to_owned() } else { format!("number {run}") };
        assert_eq!(outputs["before"], json!([run, last]));
        assert_eq!(outputs["after"], json!([run + 1, format!("number {}", run + 1), run + 1]));
    }
    // What is given from outside counts most, and is what the next value is computed from.
    let given = outputs(&scratch, &["counter.yaml", "--set", "hits=100"]);
    assert_eq!((&given["before"][0], &given["after"][0]), (&json!(100), &json!(101)));
    assert_eq!(kept(&scratch, "mock/variables/counter")["hits"], 101);
    // What mocks set is not what live runs see, and what is removed is gone.
    let live = scratch.run(&["run", "counter.yaml", "--json"]);
    assert_eq!(live.json()["outputs"]["after"][0], 1, "{}", live.stderr);
    assert_eq!(scratch.run(&["sessions", "rm", "mock/variables/counter"]).code, Some(0));
    assert_eq!(outputs(&scratch, &["counter.yaml"])["after"][0], 1);
}

#[test]
fn a_session_variable_in_loops_turns_and_children_is_kept_once() {
    let scratch = Scratch::new();
    scratch.write("mixed.yaml", MIXED);
    let first = outputs(&scratch, &["mixed.yaml"]);
    assert_eq!(first, json!({"sum": 8, "log": [0, 1, 2, 0, 1, 2, 3]}));
    let second = outputs(&scratch, &["mixed.yaml"]);
    assert_eq!(second["sum"], 16);
    assert_eq!(kept(&scratch, "mock/variables/mixed")["sum"], 16);
    assert_eq!(kept(&scratch, "mock/variables/below"), json!({"calls": 6}));
}

/// Naive: what was set just before a crash is set again by the resume. Here the run is cut after every record, while the
/// session has everything that the whole run set.
#[test]
fn n11_a_resume_sets_no_session_variable_twice() {
    let whole = Scratch::new();
    whole.write("mixed.yaml", MIXED);
    let expected = outputs(&whole, &["mixed.yaml"]);
    let journal = std::fs::read(whole.run_dir().join("journal.log")).unwrap();
    let ends: Vec<usize> = (1..journal.len()).filter(|at| journal[at - 1] == b'\n').collect();
    let resume = |cut: usize, with_sessions: bool| {
        let scratch = Scratch::new();
        copy(&whole.path().join(".pipeline"), &scratch.path().join(".pipeline"));
        std::fs::write(scratch.run_dir().join("journal.log"), &journal[..cut]).unwrap();
        if !with_sessions {
            std::fs::remove_dir_all(scratch.path().join(".pipeline/sessions")).unwrap();
        }
        let ended = scratch.run(&["resume", "--json"]);
        assert_eq!(ended.code, Some(0), "cut at byte {cut}: {}", ended.stderr);
        let outputs = ended.json()["outputs"].clone();
        (outputs, with_sessions.then(|| kept(&scratch, "mock/variables/mixed")))
    };
    let cuts = &ends[1..ends.len() - 1];
    std::thread::scope(|scope| {
        for half in cuts.chunks(cuts.len().div_ceil(2)) {
            let (resume, expected) = (&resume, &expected);
            scope.spawn(move || {
                for cut in half {
                    let (outputs, kept) = resume(*cut, true);
                    assert_eq!(&outputs, expected, "cut at byte {cut}");
                    assert_eq!(kept.unwrap()["sum"], 8, "cut at byte {cut}");
                }
            });
        }
    });
    let (outputs, _) = resume(cuts[1], false);
    assert_eq!(outputs, expected, "what was not set before the crash is set by the resume");
}

/// Naive: each of two runs adds to the value that it read at its beginning, and one of the sums is lost.
#[test]
fn n11_runs_at_once_lose_no_write() {
    let scratch = Scratch::new();
    scratch.write("mixed.yaml", MIXED);
    let ids = ["a", "b", "c", "d"];
    let children: Vec<_> =
        ids.iter().map(|id| scratch.spawn(&["run", "mixed.yaml", "--mock", "--run-id", id])).collect();
    for child in children {
        let ended = finish(child);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let kept_of_all = kept(&scratch, "mock/variables/mixed");
    assert_eq!(kept_of_all["sum"], 32);
    assert_eq!(kept_of_all["log"].as_array().unwrap().len(), 28);
    assert_eq!(kept(&scratch, "mock/variables/below")["calls"], 12);
}

#[test]
fn a_variable_that_is_set_to_a_constant_is_there_in_the_next_run() {
    let scratch = Scratch::new();
    let text = "workflow:
  name: mark
  variables: {seen: false}
  steps:
    - {name: before, type: test_echo, value: '{{ state.seen }}'}
    - {name: mark, type: set_variable, scope: session, variables: {seen: true}}
  outputs: {before: steps.before.result}
";
    scratch.write("mark.yaml", text);
    assert_eq!(outputs(&scratch, &["mark.yaml"]), json!({"before": false}));
    assert_eq!(outputs(&scratch, &["mark.yaml"]), json!({"before": true}));
}
