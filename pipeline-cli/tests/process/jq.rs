//! jq programs through the real binary: what they give, and that none can hurt the run that starts them.

use std::io::Write;
use std::time::Duration;

use super::support::{Ended, Scratch, finish};

/// Runs one program over three rows in a pipeline. The step has `timeout`.
fn query(program: &str, timeout: &str) -> Ended {
    let scratch = Scratch::new();
    let quoted = serde_json::to_string(program).unwrap();
    scratch.write(
        "q.yaml",
        &format!(
            "workflow:\n  name: q\n  variables:\n    rows: [{{k: a, n: 1}}, {{k: b, n: 2}}, {{k: a, n: 5}}]\n  steps:\n    - name: \
             t\n      type: data_transform\n      timeout: {timeout}\n      input_source: state.rows\n      output_field: out\n      \
             operations: [{{operation: query, query: {quoted}}}]\n"
        ),
    );
    let mut command = scratch.command(&["run", "q.yaml", "--mock", "--json"]);
    command.env("SECRET", "canary-7141");
    finish(command.spawn().unwrap())
}

fn error(ended: &Ended) -> serde_json::Value {
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    ended.json()["steps"]["t"]["error"].clone()
}

#[test]
fn one_output_is_the_result_and_several_are_rows() {
    let out = |program: &str| {
        let ended = query(program, "20s");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.json()["outputs"]["t"]["out"].clone()
    };
    let groups = out("group_by(.k) | map({k: .[0].k, sum: (map(.n) | add)})");
    assert_eq!(groups, serde_json::json!([{"k": "a", "sum": 6}, {"k": "b", "sum": 2}]));
    assert_eq!(out("map(.n) | add"), 8);
    assert_eq!(out(".[] | select(.n > 1) | .k"), serde_json::json!(["b", "a"]));
    assert_eq!(out("empty"), serde_json::json!([]));
}

#[test]
fn a_program_that_is_wrong_is_told_with_its_place() {
    let told = error(&query("map(.n | fooo)", "20s"));
    assert_eq!(told["kind"], "invalid");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("there is no filter `fooo`, at character 10"), "{message}");
    let message = error(&query("map(.n", "20s"))["message"].to_string();
    assert!(message.contains("closing parenthesis"), "{message}");
    let message = error(&query("import \"x\" as x; .", "20s"))["message"].to_string();
    assert!(message.contains("cannot import"), "{message}");
}

/// Naive: `unwrap_valr` in our own process, where `halt` ends the run with status 0.
#[test]
fn x26_halt_ends_the_program_and_not_the_run() {
    assert_eq!(query("halt", "20s").json()["outputs"]["t"]["out"], serde_json::json!([]));
    let told = error(&query("halt(3)", "20s"));
    assert!(told["message"].as_str().unwrap().contains("halted with code 3"), "{told}");
}

/// Naive: all of jaq's functions, `env` among them.
#[test]
fn x26_a_program_sees_no_environment_and_no_clock() {
    for program in ["env", "$ENV", "now", "input", "0 | localtime"] {
        let ended = query(program, "20s");
        assert_eq!(error(&ended)["kind"], "invalid", "{program}");
        assert!(!ended.stdout.contains("canary-7141"));
    }
}

/// Naive: in our own process, whose stack it overflows.
#[test]
fn x26_deep_recursion_is_an_error_of_the_step() {
    let told = error(&query("reduce range(100000) as $i (1; [.]) | tostring", "20s"));
    assert_eq!(told["kind"], "too_large");
    let told = error(&query("[range(1e7)] | [., ., ., ., ., ., ., .] | map(map(tostring)) | length", "20s"));
    assert!(told["kind"] == "too_large" || told["kind"] == "timed_out", "{told}");
}

/// Naive: no fuel and no interrupt, so the run hangs for ever.
#[test]
fn x26_an_endless_program_ends_at_the_deadline() {
    let begun = tokio::time::Instant::now();
    for program in ["last(repeat(1))", "def f: f; f"] {
        let ended = query(program, "500ms");
        assert_eq!(error(&ended)["kind"], "timed_out", "{program}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// The child takes the limits itself, so that they hold even when nobody waits for it any more.
/// Naive: only the parent watches the time, and a child whose parent is gone computes for ever.
#[test]
fn x26_the_child_limits_its_own_processor_time() {
    let scratch = Scratch::new();
    let mut command = scratch.command(&["__jq", "1"]);
    command.stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\"last(repeat(1))\"\n1").unwrap();
    let ended = finish(child);
    assert_eq!(ended.code, None, "ended by a signal");
}
