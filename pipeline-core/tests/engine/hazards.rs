//! Hazards of concurrency, deadlines and control flow. Each test's doc comment says what the naive version is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::engine::RunControl;
use pipeline_core::event::{Event, EventSink};
use pipeline_core::fact::{Fact, RunStatus, Status};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::support::World;

pub(crate) fn fan(items: usize, parallel: &str, extra: &str, body: &str) -> String {
    format!(
        "workflow:\n  name: t\n  steps:\n    - name: f\n      type: for_loop\n      iterator: x\n      data_source: 'range({items})'\n      {parallel}\n      {extra}\n      steps:\n        - {body}\n"
    )
}

/// Naive: linked tasks, a timed-out item loses its id.
/// Figure: 4 sizes of up to 12 items, one of which panics and one of which hangs.
#[tokio::test(start_paused = true)]
async fn n05_every_item_has_one_result_in_order() {
    for (count, limit) in [(1_usize, 1_usize), (5, 2), (12, 4), (12, 50)] {
        let world = World::default();
        let list: Vec<String> = (0..count)
            .map(|i| {
                let how = match i {
                    2 => "ms: 10, panic: true",
                    3 => "hang: true",
                    _ => "ms: 10",
                };
                format!("        - {{name: s{i}, type: work, value: {i}, timeout: 1s, {how}}}\n")
            })
            .collect();
        let text = format!(
            "workflow:\n  name: t\n  steps:\n    - name: p\n      type: parallel\n      max_parallel: {limit}\n      continue_on_error: true\n      steps:\n{}",
            list.concat()
        );
        let report = world.run(&text).await;
        let items = report.steps["p"].value.json()["items"].as_array().expect("items").clone();
        assert_eq!(items.len(), count);
        for (i, item) in items.iter().enumerate() {
            assert_eq!(item["id"], format!("s{i}"));
            let expected = match i {
                2 => json!("panicked"),
                3 => json!("timed_out"),
                _ => Value::Null,
            };
            assert_eq!(item["error"].get("kind").cloned().unwrap_or_default(), expected, "{item}");
        }
        assert_eq!(world.probe.peak(), count.min(limit));
        assert_eq!(world.probe.running(), 0);
    }
}

/// Naive: `max_parallel` used as a chunk size, so that all chunks run at once.
/// Figure: 15 pairs of up to 200 items and up to 20 at once.
#[tokio::test(start_paused = true)]
async fn n06_parallel_loops_are_bounded_and_ordered() {
    for count in [1_usize, 2, 7, 40, 200] {
        for limit in [1_usize, 3, 20] {
            let world = World::default();
            let body = "{name: s, type: work, ms: 5, value: '{{ [loop.x, loop.index, loop.total, loop.first, loop.last] }}'}";
            let report =
                world.run(&fan(count, "parallel: true", &format!("max_parallel: {limit}"), body)).await;
            assert_eq!(world.probe.peak(), count.min(limit), "{count} items, limit {limit}");
            let results = report.steps["f"].value.json()["results"].as_array().expect("results").clone();
            for (i, result) in results.iter().enumerate() {
                assert_eq!(*result, json!([i, i, count, i == 0, i + 1 == count]));
            }
        }
    }
}

/// Naive: unbounded tasks, and siblings of a failed one go on spending.
/// Figure: 50 branches.
#[tokio::test(start_paused = true)]
async fn n07_fail_fast_stops_the_others_and_collect_keeps_them() {
    let branches: String = (0..50)
        .map(|i| {
            let how = if i == 3 { "ms: 10, fail_times: 9" } else { "ms: 100000" };
            format!("        - {{name: s{i}, type: work, {how}, timeout: none}}\n")
        })
        .collect();
    let text = |policy: &str| {
        format!(
            "workflow:\n  name: t\n  steps:\n    - name: p\n      type: parallel\n      on_failure: {policy}\n      steps:\n{branches}"
        )
    };
    let world = World::default();
    let begun = Instant::now();
    let report = world.run(&text("fail_fast")).await;
    assert_eq!(report.status, RunStatus::Failed);
    assert!(begun.elapsed() < Duration::from_millis(10 + 250));
    assert_eq!(world.probe.started().len(), 5, "nothing new starts after the failure");
    assert_eq!(world.probe.running(), 0);

    let world = World::default();
    let report = world.run(&text("collect")).await;
    assert_eq!(report.status, RunStatus::Failed);
    assert_eq!(world.probe.peak(), 5, "the default limit");
    assert_eq!(report.steps["p"].value.json()["succeeded"], 49);
}

/// Naive: tasks live on when the run is dropped.
/// Figure: dropped at each of the first 60 milliseconds.
#[tokio::test(start_paused = true)]
async fn n08a_dropping_the_run_stops_everything() {
    for stop_at in 0..60 {
        let world = Arc::new(World::default());
        let text = fan(20, "parallel: true", "max_parallel: 8", "{name: s, type: work, ms: 10}");
        let run = world.run(&text);
        let _ = tokio::time::timeout(Duration::from_millis(stop_at), run).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(world.probe.running(), 0, "dropped after {stop_at} ms");
    }
}

/// Naive: a panic is a signal that reaches siblings.
/// Figure: a panic in each of 6 branches.
#[tokio::test(start_paused = true)]
async fn n08b_a_panic_touches_no_sibling() {
    let text = |panics: Option<usize>| {
        let branches: String = (0..6)
            .map(|i| {
                let how = if panics == Some(i) { ", panic: true" } else { "" };
                format!("        - {{name: s{i}, type: work, ms: {}, value: {i}{how}}}\n", 10 * i)
            })
            .collect();
        format!(
            "workflow:\n  name: t\n  steps:\n    - name: p\n      type: parallel\n      continue_on_error: true\n      steps:\n{branches}"
        )
    };
    let calm = World::default().run(&text(None)).await;
    for k in 0..6 {
        let report = World::default().run(&text(Some(k))).await;
        for i in (0..6).filter(|i| *i != k) {
            assert_eq!(report.steps["p"].value.json()["items"][i], calm.steps["p"].value.json()["items"][i]);
        }
    }
}

/// Naive: guards that leak when an attempt is cut off in any of several ways.
/// Figure: 200 runs that end in four ways.
#[tokio::test(start_paused = true)]
async fn n08c_nothing_is_left_after_many_runs() {
    for round in 0..200_u64 {
        let world = World::default();
        let body = match round % 4 {
            0 => "{name: s, type: work, ms: 1}",
            1 => "{name: s, type: work, panic: true}",
            2 => "{name: s, type: work, hang: true, timeout: 5ms}",
            _ => "{name: s, type: work, fail_times: 9}",
        };
        world.run(&fan(10, "parallel: true", "max_parallel: 4", body)).await;
        assert_eq!(world.probe.running(), 0);
    }
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(alive <= 1, "{alive} tasks are alive");
}

/// Naive: each level has a limit of its own, and nested fan-outs multiply.
/// Figure: 20 times 20 turns, never more than 8 at once.
#[tokio::test(start_paused = true)]
async fn n08d_one_limit_holds_for_nested_fan_outs() {
    let mut world = World::default();
    world.limits.max_parallel = Some(8);
    let text = "workflow:\n  name: t\n  steps:\n    - name: a\n      type: for_loop\n      parallel: true\n      max_parallel: 20\n      data_source: 'range(20)'\n      steps:\n        - name: b\n          type: for_loop\n          parallel: true\n          max_parallel: 20\n          data_source: 'range(20)'\n          steps: [{name: s, type: work, ms: 10}]\n";
    let report = world.run(text).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(world.probe.peak(), 8);
    assert_eq!(world.probe.started().len(), 400);
}

/// Naive: depth, chain and counters are kept per process, so that parallel children see each other's.
#[tokio::test(start_paused = true)]
async fn n12_x06_nested_runs_see_the_same_in_any_branch() {
    let child = "workflow:\n  name: child\n  inputs: {x: {type: integer}}\n  variables: {n: '{{ inputs.x }}'}\n  steps:\n    - {name: s, type: work, ms: 5, value: '{{ state.n * 2 }}'}\n  outputs: {y: '{{ steps.s }}'}\n";
    let text = |parallel: &str| {
        fan(
            6,
            parallel,
            "max_parallel: 6",
            "{name: c, type: pipeline, pipeline_file: child.yaml, inputs: {x: '{{ loop.x }}'}}",
        )
    };
    let world = |w: World| World { sources: w.sources.with("child.yaml", child), ..World::default() };
    let one = world(World::default()).run(&text("parallel: false")).await;
    let many = world(World::default()).run(&text("parallel: true")).await;
    assert_eq!(one.outputs, many.outputs, "{:?}", many.error);
    assert_eq!(one.steps["f"].value.json()["results"][5]["y"], 10);
}

/// Naive: all branches work in one directory and overwrite each other's files.
#[tokio::test(start_paused = true)]
async fn x14_branches_that_may_write_have_directories_of_their_own() {
    let world = World::default();
    let text = "workflow:
  name: t
  steps:
    - name: fan
      type: for_loop
      data_source: range(3)
      parallel: true
      steps:
        - {name: a, type: work, place: true, workspace: own}
        - {name: b, type: work, place: true, workspace: own}
        - {name: both, type: work, place: true, workspace: shared}
    - {name: alone, type: work, place: true, workspace: own}
    - {name: plain, type: work, place: true}
";
    let report = world.run(text).await;
    let turns = report.outputs.json()["fan"]["iterations"].as_array().unwrap().clone();
    let mut own: Vec<String> = Vec::new();
    for turn in &turns {
        let at = |step: &str| turn["results"][step].as_str().unwrap().to_owned();
        assert_eq!(at("a"), at("b"), "one branch, one directory");
        assert_eq!(at("both"), "");
        own.push(at("a"));
    }
    assert_eq!(own, ["fan[0]", "fan[1]", "fan[2]"]);
    assert_eq!(report.outputs.json()["alone"], "alone");
    assert_eq!(report.outputs.json()["plain"], "");
}

/// Naive: awaits without an end.
#[tokio::test(start_paused = true)]
async fn n15_a_hanging_step_ends_by_its_default_deadline() {
    let world = World::default();
    let begun = Instant::now();
    let report = world.run("workflow:\n  name: t\n  steps: [{name: a, type: work, hang: true}]\n").await;
    assert_eq!(report.steps["a"].status, Some(Status::TimedOut));
    assert_eq!(report.status, RunStatus::Failed);
    assert!(begun.elapsed() <= Duration::from_secs(300) + Duration::from_millis(250));
}

/// Naive: an inner deadline that outlives an outer one.
#[tokio::test(start_paused = true)]
async fn n19a_x18_no_inner_deadline_outlives_an_outer_one() {
    for (outer, middle, inner) in [(100, 200, 400), (400, 200, 100), (300, 100, 200), (50, 50, 50)] {
        let world = World::default();
        let text = format!(
            "workflow:\n  name: t\n  steps:\n    - name: a\n      type: for_loop\n      timeout: {outer}ms\n      data_source: '[1]'\n      steps:\n        - name: b\n          type: while_loop\n          condition: true\n          timeout: {middle}ms\n          steps: [{{name: s, type: work, hang: true, timeout: {inner}ms}}]\n"
        );
        let begun = Instant::now();
        let report = world.run(&text).await;
        assert_eq!(report.status, RunStatus::Failed);
        let least = outer.min(middle).min(inner);
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(least) && took <= Duration::from_millis(least + 250),
            "{took:?}"
        );
        assert_eq!(world.probe.running(), 0);
    }
}

/// Naive: the run's own deadline is checked only between steps.
#[tokio::test(start_paused = true)]
async fn n19a_the_run_deadline_cuts_through_everything() {
    let mut world = World::default();
    world.limits.max_duration = Some(Duration::from_millis(120));
    let begun = Instant::now();
    let report =
        world.run(&fan(9, "parallel: true", "max_parallel: 3", "{name: s, type: work, hang: true}")).await;
    assert_eq!(report.status, RunStatus::TimedOut);
    assert!(begun.elapsed() <= Duration::from_millis(370));
    assert_eq!(world.probe.running(), 0);
}

/// Naive: one supervisor for all runs, so that a crash in one disturbs another.
#[tokio::test(start_paused = true)]
async fn n21_a_crashing_run_leaves_another_alone() {
    let calm_text =
        fan(20, "parallel: true", "max_parallel: 4", "{name: s, type: work, ms: 10, value: '{{ loop.x }}'}");
    let solo = World::default();
    solo.run(&calm_text).await;
    let (calm, wild) = (World::default(), World::default());
    let wild_text = fan(20, "parallel: true", "max_parallel: 4", "{name: s, type: work, ms: 7, panic: true}");
    let stop = CancellationToken::new();
    let control = RunControl { stop: stop.clone(), ..RunControl::default() };
    let killer = async {
        tokio::time::sleep(Duration::from_millis(3)).await;
        stop.cancel();
    };
    let (_, _, ()) = tokio::join!(calm.run(&calm_text), wild.run_with(&wild_text, control), killer);
    assert_eq!(calm.trace(), solo.trace());
}

/// Naive: state is written by whoever finishes first.
/// Figure: 200 orders in which 6 branches end.
#[tokio::test(start_paused = true)]
async fn n22_any_completion_order_gives_one_final_state() {
    let mut seen: Option<Value> = None;
    for shuffle in 0..200_u64 {
        let branches: String = (0..6)
            .map(|i| {
                let ms = (i * 7919 + shuffle * 104_729) % 97;
                format!("        - {{name: s{i}, type: work, ms: {ms}, set: {{v{i}: {i}, last: {i}}}}}\n")
            })
            .collect();
        let text = format!(
            "workflow:\n  name: t\n  variables: {{last: none}}\n  steps:\n    - name: p\n      type: parallel\n      max_parallel: 6\n      steps:\n{branches}    - {{name: end, type: work, value: '{{{{ state }}}}'}}\n"
        );
        let report = World::default().run(&text).await;
        let state = report.steps["end"].value.json().clone();
        assert_eq!(*seen.get_or_insert_with(|| state.clone()), state, "{:?}", report.error);
    }
    assert_eq!(seen.expect("runs")["last"], 5);
}

/// Naive: the mode changes with the number of items, and `total`/`last` are per chunk.
/// Figure: 0, 1, 10, 11, 500 and 501 items.
#[tokio::test(start_paused = true)]
async fn x05_loops_mean_the_same_at_every_size_and_in_every_mode() {
    for count in [0, 1, 10, 11, 500, 501] {
        let body = "{name: s, type: work, value: '{{ [loop.x * 2, loop.total, loop.is_last] }}'}";
        let one = World::default().run(&fan(count, "parallel: false", "", body)).await;
        let many = World::default().run(&fan(count, "parallel: true", "max_parallel: 16", body)).await;
        assert_eq!(one.status, RunStatus::Ok, "{:?}", one.error);
        assert_eq!(one.outputs, many.outputs, "{count} items");
    }
}

/// Naive: exceptions are caught, other failures of a component end the run's process.
#[tokio::test(start_paused = true)]
async fn x12_any_failure_inside_a_step_is_that_steps_error() {
    for how in ["panic: true", "fail_times: 9", "hang: true, timeout: 1ms", "kind: '{{ 5 }}'"] {
        let world = World::default();
        let text = format!(
            "workflow:\n  name: t\n  steps:\n    - {{name: a, type: work, {how}, continue_on_error: true}}\n    - {{name: b, type: work, value: fine}}\n"
        );
        let Ok(report) = tokio::time::timeout(Duration::from_secs(9), world.run(&text)).await else {
            panic!("{how} hangs");
        };
        assert_eq!(report.outputs.json()["b"], "fine", "{how}");
        assert!(report.steps["a"].error.is_some(), "{how}");
    }
}

/// Naive: variables set in parallel turns are dropped, sequential ones kept.
#[tokio::test(start_paused = true)]
async fn x16_reducers_give_the_same_in_all_modes() {
    let run = async |parallel: &str| {
        let text = format!(
            "workflow:\n  name: t\n  variables: {{all: [], sum: 0}}\n  steps:\n    - name: f\n      type: for_loop\n      {parallel}\n      data_source: '[3, 1, 2]'\n      reduce: {{all: append, sum: sum}}\n      steps: [{{name: s, type: work, ms: '{{{{ 10 * loop.item }}}}', set: {{all: '{{{{ loop.item }}}}', sum: '{{{{ loop.item }}}}'}}}}]\n  outputs: {{all: '{{{{ state.all }}}}', sum: '{{{{ state.sum }}}}'}}\n"
        );
        World::default().run(&text).await
    };
    let many = run("parallel: true").await;
    assert_eq!(many.outputs.json(), &json!({"all": [3, 1, 2], "sum": 6}), "{:?}", many.error);
    let one = run("parallel: false").await;
    assert_eq!(one.outputs, many.outputs);
}

struct Leaping(std::sync::atomic::AtomicI64);

impl Clock for Leaping {
    fn now(&self) -> Timestamp {
        let step = self.0.fetch_add(1, Ordering::SeqCst);
        // An hour forward, then two back, and so on: as a broken time server would.
        Timestamp(1_700_000_000_000 + if step % 2 == 0 { 3_600_000 } else { -7_200_000 })
    }
}

/// Naive: durations, deadlines and order from wall time.
#[tokio::test(start_paused = true)]
async fn x21_a_leaping_clock_changes_nothing() {
    let text =
        fan(6, "parallel: false", "timeout: 10s", "{name: s, type: work, ms: 20, value: '{{ loop.x }}'}");
    let steady = World::default();
    let calm = steady.run(&text).await;
    let leaping = World { clock: Arc::new(Leaping(0.into())), ..World::default() };
    let wild = leaping.run(&text).await;
    assert_eq!(calm.outputs, wild.outputs);
    assert_eq!(calm.duration_ms, wild.duration_ms);
    assert_eq!(steady.trace(), leaping.trace());
}

struct Panicking(usize);

impl EventSink for Panicking {
    fn event(&mut self, event: &Event) {
        if let Event::Fact(record) = event {
            assert!(record.index < self.0 as u64, "scripted panic of an observer");
        }
    }
}

/// Naive: the monitor is linked to the run, so that its crash kills the run.
/// Figure: a panic at each of the first 8 records.
#[tokio::test]
async fn n01_a_panicking_observer_changes_nothing() {
    let text = fan(3, "parallel: true", "", "{name: s, type: work, value: '{{ loop.x }}'}");
    let calm = World::default().run(&text).await;
    for k in 0..8 {
        let control = RunControl { sinks: vec![Box::new(Panicking(k))], ..RunControl::default() };
        let report = World::default().run_with(&text, control).await.expect("a journal");
        assert_eq!(report.outputs, calm.outputs);
        assert_eq!(report.status, calm.status);
        assert!(report.warnings.iter().any(|w| w.contains("observer")), "{:?}", report.warnings);
    }
}

/// Naive: an append that fails is logged and the run goes on.
/// Figure: a failure at each of the first 4 flushes.
#[tokio::test(start_paused = true)]
async fn n20_a_journal_that_fails_stops_the_run() {
    let text = fan(4, "parallel: false", "", "{name: s, type: work}");
    for flush in 1..5 {
        let mut world = World::default();
        world.store.fail_at_flush = Some(flush);
        let result = world.run_with(&text, RunControl::default()).await;
        assert!(result.is_err(), "flush {flush} failed, and the run went on");
        assert_eq!(world.probe.running(), 0);
    }
}

/// Naive: a log of everything in memory, warnings without end.
#[tokio::test(start_paused = true)]
async fn x19_warnings_and_progress_are_bounded() {
    let report =
        World::default().run(&fan(2000, "parallel: true", "max_parallel: 50", "{name: s, type: work}")).await;
    assert_eq!(report.status, RunStatus::Ok);
    assert!(report.warnings.len() <= 100);
}

/// Naive: the first end of a wide fan-out waits until all its starts are written.
#[tokio::test(start_paused = true)]
async fn many_starts_are_durable_before_anybody_waits_for_them() {
    let text = fan(600, "parallel: true", "max_parallel: 600", "{name: s, type: work, ms: 1000}");
    let world = World::default();
    let (report, durable) = tokio::join!(world.run(&text), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.store.flushed.load(Ordering::SeqCst)
    });
    assert_eq!(report.status, RunStatus::Ok);
    assert!(durable > 256, "{durable} records are durable while all 600 work");
}

/// Naive: process-global state, so that runs in one process see each other.
/// Figure: 50 runs at once, against 5 alone.
#[tokio::test(start_paused = true)]
async fn n25_many_runs_in_one_process_are_as_alone() {
    let texts: Vec<String> = (1..6)
        .map(|n| {
            fan(
                n * 3,
                "parallel: true",
                "max_parallel: 3",
                "{name: s, type: work, ms: 3, value: '{{ loop.x }}'}",
            )
        })
        .collect();
    let mut alone = Vec::new();
    for text in &texts {
        let world = World::default();
        world.run(text).await;
        alone.push(sorted(world.trace()));
    }
    let worlds: Vec<World> = (0..50).map(|_| World::default()).collect();
    let runs = worlds.iter().enumerate().map(|(i, w)| w.run(&texts[i % texts.len()]));
    futures_util::future::join_all(runs).await;
    for (i, world) in worlds.iter().enumerate() {
        assert_eq!(sorted(world.trace()), alone[i % texts.len()]);
    }
}

/// Turns that end within the same millisecond end in any order.
fn sorted(mut trace: Vec<String>) -> Vec<String> {
    trace.sort();
    trace
}

/// Naive: the finished checkpoint stays the latest, and the next run returns its results without running.
#[tokio::test(start_paused = true)]
async fn x08_a_second_run_runs_everything_again() {
    let text = fan(3, "parallel: false", "", "{name: s, type: work}");
    let first = World::default();
    first.run(&text).await;
    let second = World { probe: Arc::clone(&first.probe), ..World::default() };
    second.run(&text).await;
    assert_eq!(second.probe.started().len(), 6);
    let facts = second.store.records.lock();
    assert!(facts.iter().all(|r| !matches!(r.fact, Fact::RunResumed { .. })));
}
