//! Control flow: what runs, in which order, how often, and what comes of it.

use std::time::Duration;

use pipeline_core::fact::{RunStatus, Status};
use serde_json::json;

use super::support::World;

#[tokio::test(start_paused = true)]
async fn a_sequence_passes_values_on() {
    let world = World::default();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - {name: a, type: work, value: 2}\n    - {name: b, type: work, value: '{{ steps.a + 40 }}'}\n",
        )
        .await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(report.outputs.json(), &json!({"a": 2, "b": 42}));
    assert_eq!(world.trace().len(), 6, "{:?}", world.trace());
}

#[tokio::test(start_paused = true)]
async fn a_false_condition_skips_and_a_failure_stops() {
    let world = World::default();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - {name: a, type: work, value: 2, condition: '1 > 2'}\n    - {name: b, type: work, fail_times: 9}\n    - {name: c, type: work}\n",
        )
        .await;
    assert_eq!(report.status, RunStatus::Failed);
    assert_eq!(report.steps["a"].status, Some(Status::Skipped));
    assert_eq!(report.steps["b"].status, Some(Status::Failed));
    assert_eq!(report.steps["c"].status, None);
    assert_eq!(report.error.expect("an error").path.expect("a path").as_str(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_graph_runs_what_is_ready_at_once() {
    let world = World::default();
    let begun = tokio::time::Instant::now();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - {name: a, type: work, ms: 100, value: 1}\n    - {name: b, type: work, ms: 100, value: 2}\n    - {name: c, type: work, ms: 100, needs: [a, b], value: '{{ steps.a + steps.b }}'}\n",
        )
        .await;
    assert_eq!(report.outputs.json()["c"], 3, "{:?}", report.error);
    assert_eq!(world.probe.peak(), 2);
    assert_eq!(begun.elapsed(), Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn retries_wait_and_count() {
    let world = World::default();
    let begun = tokio::time::Instant::now();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - name: a\n      type: work\n      fail_times: 2\n      value: done\n      retry: {max_attempts: 3, backoff: exponential, base_delay: 1s, jitter: false}\n",
        )
        .await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(report.steps["a"].attempts, 3);
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_while_loop_counts_with_state() {
    let world = World::default();
    let report = world
        .run(
            "workflow:\n  name: t\n  variables: {n: 0}\n  steps:\n    - name: w\n      type: while_loop\n      condition: 'state.n < 3'\n      steps:\n        - {name: inc, type: work, set: {n: '{{ state.n + 1 }}'}}\n  outputs: {n: '{{ state.n }}', turns: '{{ steps.w.iterations }}', why: '{{ steps.w.stop_reason }}'}\n",
        )
        .await;
    assert_eq!(
        report.outputs.json(),
        &json!({"n": 3, "turns": 3, "why": "condition_false"}),
        "{:?}",
        report.error
    );
}

#[tokio::test(start_paused = true)]
async fn break_and_continue_shape_a_loop() {
    let world = World::default();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - name: f\n      type: for_loop\n      iterator: x\n      data_source: '[1, 2, 3, 4, 5]'\n      steps:\n        - {name: skip, type: continue, condition: 'loop.x == 2'}\n        - {name: stop, type: break, condition: 'loop.x == 4'}\n        - {name: out, type: work, value: '{{ loop.x }}'}\n",
        )
        .await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    let ran: Vec<String> = world.probe.started();
    assert_eq!(ran, ["f[0]/out", "f[2]/out"]);
}

#[tokio::test(start_paused = true)]
async fn a_switch_takes_one_case() {
    let world = World::default();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - {name: kind, type: work, value: b}\n    - name: s\n      type: switch\n      expression: steps.kind\n      cases:\n        a: [{name: x, type: work, value: 1}]\n        b: [{name: y, type: work, value: {z: 2}}]\n  outputs: {z: '{{ steps.s.z }}', case: '{{ steps.s.case }}'}\n",
        )
        .await;
    assert_eq!(report.outputs.json(), &json!({"z": 2, "case": "b"}), "{:?}", report.error);
}

#[tokio::test(start_paused = true)]
async fn on_error_takes_a_value_or_steps() {
    let world = World::default();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - {name: a, type: work, fail_times: 9, on_error: fallback}\n    - name: b\n      type: work\n      fail_times: 9\n      on_error:\n        - {name: fix, type: work, value: '{{ state.error.kind }}'}\n",
        )
        .await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(report.steps["a"].status, Some(Status::Degraded));
    assert_eq!(report.outputs.json(), &json!({"a": "fallback", "b": "server"}));
}

#[tokio::test(start_paused = true)]
async fn a_control_form_writes_its_output_file() {
    let world = World::default();
    world
        .run(
            "workflow:\n  name: t\n  steps:\n    - name: f\n      type: for_loop\n      data_source: '[1, 2]'\n      output_to_file: out.json\n      steps: [{name: s, type: work, value: '{{ loop.item }}'}]\n",
        )
        .await;
    assert!(world.files.0.lock().contains_key("out.json"));
}

#[tokio::test(start_paused = true)]
async fn two_lanes_cannot_write_one_file() {
    let world = World::default();
    let report = world
        .run(
            "workflow:\n  name: t\n  steps:\n    - name: f\n      type: for_loop\n      parallel: true\n      data_source: '[1, 2]'\n      steps: [{name: s, type: work, ms: 5, value: 1, output_to_file: same.txt}]\n",
        )
        .await;
    assert_eq!(report.status, RunStatus::Failed);
    assert!(report.error.expect("an error").error.message.contains("same.txt"));
}

/// Naive: a timer that is recorded together with the failure that stops it contradicts the plan, and the run is lost.
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_over_when_it_is_stopped_is_no_contradiction() {
    let text = "workflow:\n  name: t\n  steps:\n    - name: p\n      type: parallel\n      on_failure: fail_fast\n      steps:\n        - {name: a, type: work, ms: 12, fail_times: 9}\n        - {name: b, type: work, ms: 5, fail_times: 9, retry: {max_attempts: 2, backoff: fixed, base_delay: 7ms, jitter: false}}\n";
    let world = World::default();
    world.run(text).await;
    let at = |line: &str| world.trace().iter().position(|l| l == line).unwrap();
    let (fired, failed) = (at("TimerFired p/b#2"), at("AttemptEnded p/a#1 failed"));
    assert_eq!(fired + 1, failed);
    // Both were due; a slower disk puts them into one batch, the other way round.
    let world = world.cut(failed + 1);
    {
        let mut records = world.store.records.lock();
        records.swap(fired, failed);
        (records[fired].index, records[failed].index) = (fired as u64, failed as u64);
    }
    assert_eq!(world.resume(text).await.status, RunStatus::Failed);
}

/// Naive: what the pipeline returns is made of steps that were not to run.
#[tokio::test(start_paused = true)]
async fn a_run_until_a_step_returns_what_there_is() {
    let text = "workflow:
  name: t
  steps:
    - {name: a, type: work, value: 1}
    - {name: none, type: work, condition: 'false'}
    - {name: b, type: work, value: 2}
  outputs: {sum: '{{ steps.a + steps.b }}'}
";
    for (until, outputs) in [("a", json!({"a": 1})), ("none", json!({"a": 1})), ("b", json!({"sum": 3}))] {
        let world = World::default();
        let report = world.run_as(text, |setup| setup.until = Some(until.to_owned())).await;
        assert_eq!(report.outputs.json(), &outputs, "until {until}: {:?}", report.error);
        assert_eq!(report.status, RunStatus::Ok);
    }
}
