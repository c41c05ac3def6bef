//! Loops mean the same for every size, one after the other and at once.

use pipeline_core::fact::RunStatus;
use pipeline_core::source::MemorySources;
use serde_json::{Value, json};

use super::support::World;

/// A loop over `count` items that collects, sums and looks at its place.
fn text(count: usize, parallel: bool) -> String {
    let head = "workflow:\n  name: t\n  variables: {seen: [], total: 0}\n  steps:\n    - name: each\n      type: for_loop\n      iterator: n\n";
    let body = "      reduce: {seen: append, total: sum}\n      steps:\n        - {name: double, type: work, value: '{{ loop.n * 2 }}'}\n        - name: note\n          type: work\n          value: '{{ [loop.index, loop.total, loop.first, loop.last, steps.double] }}'\n          set: {seen: '{{ loop.n }}', total: '{{ loop.n }}'}\n    - {name: after, type: work, value: '{{ [state.total, length(state.seen), state.seen] }}'}\n";
    format!(
        "{head}      data_source: 'range({count})'\n      parallel: {parallel}\n      max_parallel: 7\n{body}"
    )
}

async fn outcome(count: usize, parallel: bool) -> (Value, usize) {
    let world = World::default();
    let report = world.run(&text(count, parallel)).await;
    assert_eq!(report.status, RunStatus::Ok, "{count} {parallel}: {:?}", report.error);
    (report.outputs.json().clone(), world.probe.peak())
}

/// X05, X16. Naive: other code for small, large and parallel loops, with other meanings.
#[tokio::test(start_paused = true)]
async fn x05_x16_any_number_of_items_means_the_same() {
    for count in [0, 1, 10, 11, 500, 501] {
        let (one, _) = outcome(count, false).await;
        let (many, peak) = outcome(count, true).await;
        assert_eq!(one, many, "{count} items");
        assert!(peak <= 7, "{count}: {peak} at once");
        assert_eq!(one["each"]["total_items"], count);
        assert_eq!(one["each"]["completed_items"], count);
        let sum = count * count.saturating_sub(1) / 2;
        assert_eq!(one["after"][0], sum, "{count}");
        let order: Vec<usize> = (0..count).collect();
        assert_eq!(one["after"][2], json!(order), "{count}: in item order");
        for (index, value) in one["each"]["results"].as_array().unwrap().iter().enumerate() {
            assert_eq!(value, &json!([index, count, index == 0, index + 1 == count, index * 2]), "{count}");
        }
    }
}

async fn ten_thousand(parallel: bool) {
    let text = format!(
        "workflow:\n  name: t\n  variables: {{total: 0}}\n  steps:\n    - name: each\n      type: for_loop\n      data_source: range(10000)\n      parallel: {parallel}\n      reduce: {{total: sum}}\n      steps:\n        - {{name: note, type: work, value: '{{{{ loop.last }}}}', set: {{total: '{{{{ loop.item }}}}'}}}}\n  outputs: {{done: steps.each.completed_items, total: state.total, last: 'steps.each.results[9999]', first: 'steps.each.results[0]'}}\n"
    );
    let report = World::default().run(&text).await;
    let expected = json!({"done": 10_000, "total": 49_995_000, "last": true, "first": false});
    assert_eq!(report.outputs.json(), &expected, "{:?}", report.error);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_items_one_after_the_other() {
    ten_thousand(false).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_items_at_once() {
    ten_thousand(true).await;
}

#[tokio::test(start_paused = true)]
async fn nested_loops_see_their_parents() {
    let text = "workflow:\n  name: t\n  steps:\n    - name: outer\n      type: for_loop\n      iterator: row\n      data_source: [a, b]\n      steps:\n        - name: inner\n          type: for_loop\n          iterator: cell\n          data_source: [1, 2, 3]\n          parallel: true\n          steps:\n            - {name: at, type: work, value: '{{ loop.parent.row ~ loop.cell ~ loop.level ~ loop.parent.index }}'}\n";
    let report = World::default().run(text).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    let outer = &report.outputs.json()["outer"];
    assert_eq!(outer["results"][0]["results"], json!(["a110", "a210", "a310"]));
    assert_eq!(outer["results"][1]["results"], json!(["b111", "b211", "b311"]));
}

#[tokio::test(start_paused = true)]
async fn a_while_loop_counts_and_may_accept_its_end() {
    let counter = |accept: &str| {
        format!(
            "workflow:\n  name: t\n  variables: {{n: 0}}\n  steps:\n    - name: w\n      type: while_loop\n      condition: state.n < 20\n      max_iterations: 8{accept}\n      steps:\n        - {{name: up, type: work, set: {{n: '{{{{ state.n + 1 }}}}'}}}}\n    - {{name: after, type: work, value: '{{{{ state.n }}}}'}}\n"
        )
    };
    let failed = World::default().run(&counter("")).await;
    assert_eq!(failed.status, RunStatus::Failed);
    let report = World::default().run(&counter("\n      on_max_iterations: accept")).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(report.outputs.json()["after"], 8);
    assert_eq!(report.outputs.json()["w"]["stop_reason"], "max_iterations");
}

/// A pipeline that runs itself through the library until nothing is left.
fn library(limit: u32) -> MemorySources {
    let text = format!(
        "workflow:\n  name: down\n  inputs: {{left: {{type: integer}}}}\n  steps:\n    - name: more\n      type: pipeline\n      pipeline_ref: down\n      condition: inputs.left > 1\n      config: {{max_depth: {limit}}}\n      inputs: {{left: '{{{{ inputs.left - 1 }}}}'}}\n    - {{name: sum, type: work, value: '{{{{ inputs.left + (steps.more.total | default(0)) }}}}'}}\n  outputs: {{total: steps.sum}}\n"
    );
    MemorySources::default().with_library("down", text)
}

/// Naive: depth is counted per process or not at all, and a pipeline that runs itself goes down to the end of the stack.
#[tokio::test(start_paused = true)]
async fn n12_recursion_by_the_library_ends_at_its_limit() {
    let run = |depth: u32, limit: u32| async move {
        let world = World { sources: library(limit), ..World::default() };
        let root = format!(
            "workflow:\n  name: t\n  steps:\n    - name: go\n      type: pipeline\n      pipeline_ref: down\n      config: {{max_depth: {limit}}}\n      inputs: {{left: {depth}}}\n"
        );
        world.run(&root).await
    };
    let ten = run(10, 10).await;
    assert_eq!(ten.status, RunStatus::Ok, "{:?}", ten.error);
    assert_eq!(ten.outputs.json()["go"]["total"], 55);
    let eleven = run(11, 10).await;
    assert_eq!(eleven.status, RunStatus::Failed);
    let error = eleven.error.unwrap().error;
    assert!(error.message.contains("deeper than 10"), "{error:?}");
}
