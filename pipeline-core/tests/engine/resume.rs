//! Going on after a crash: the journal is cut at every record, and every resume must end the same.

use std::collections::BTreeSet;
use std::time::Duration;

use pipeline_core::engine::RunControl;
use pipeline_core::fact::{Fact, RunStatus};
use tokio_util::sync::CancellationToken;

use super::support::World;

/// A while loop in a parallel loop in a child pipeline, with retries, inner effects, conditions and state.
const NESTED: &str = "workflow:
  name: t
  variables: {seen: []}
  steps:
    - {name: first, type: work, value: 1, inner: 2}
    - name: c
      type: pipeline
      inputs: {n: 4}
      pipeline:
        name: inner
        steps:
          - name: fan
            type: for_loop
            parallel: true
            max_parallel: 3
            data_source: 'range(inputs.n)'
            steps:
              - name: turns
                type: while_loop
                until: 'steps.work[0] >= 2'
                steps:
                  - name: work
                    type: work
                    ms: '{{ 5 + loop.parent.item }}'
                    value: '{{ [loop.index + 1, loop.parent.item] }}'
              - {name: flaky, type: work, fail_times: 1, value: '{{ loop.item }}', retry: {max_attempts: 3, base_delay: 10ms}}
              - {name: maybe, type: work, value: even, condition: 'loop.item % 2 == 0'}
    - {name: twice, type: work, inner: 3, fail_times: 1, retry: {max_attempts: 2, base_delay: 5ms}}
    - {name: end, type: work, value: '{{ steps.c.fan.total_items }}'}
";

/// Naive: a checkpoint per top-level step, so that loops and children start over (X10), and what a resumed run returns
/// differs from a fresh one (X27).
#[tokio::test(start_paused = true)]
async fn x10_x27_a_cut_after_any_record_resumes_to_the_same_end() {
    let whole = World::default();
    let expected = whole.run(NESTED).await;
    assert_eq!(expected.status, RunStatus::Ok, "{:?}", expected.error);
    let total = whole.store.records.lock().len();
    assert!(total > 40, "{total} records are too few to prove anything");
    for count in 1..total {
        let world = whole.cut(count);
        let report = world.resume(NESTED).await;
        assert_eq!(report.status, RunStatus::Ok, "cut after {count}: {:?}", report.error);
        let (a, b) = (serde_json::to_string(&report.outputs), serde_json::to_string(&expected.outputs));
        assert_eq!(a.expect("json"), b.expect("json"), "cut after {count}");
        check_no_repeat(&world, count);
    }
}

/// No attempt that had ended before the cut starts again, and no logical attempt ends twice.
fn check_no_repeat(world: &World, cut: usize) {
    let records = world.store.records.lock();
    let mut ended = BTreeSet::new();
    for (place, record) in records.iter().enumerate() {
        match &record.fact {
            Fact::AttemptEnded { path, turn, .. } | Fact::StepSkipped { path, turn, .. } => {
                assert!(ended.insert((path.clone(), *turn)), "{path}#{turn} ended twice (cut {cut})");
            }
            Fact::AttemptStarted { path, turn, .. } if place >= cut => {
                assert!(!ended.contains(&(path.clone(), *turn)), "{path}#{turn} ran again (cut {cut})");
            }
            _ => {}
        }
    }
}

/// Naive: a crashed step is run again blindly. Here its finished inner effects answer from the journal.
#[tokio::test(start_paused = true)]
async fn x28_finished_inner_effects_are_not_done_again() {
    let text = "workflow:\n  name: t\n  steps: [{name: a, type: work, inner: 4}]\n";
    let whole = World::default();
    whole.run(text).await;
    let total = whole.store.records.lock().len();
    for count in 1..total - 1 {
        let world = whole.cut(count);
        let done = whole.trace()[..count].iter().filter(|l| l.starts_with("EffectDone")).count();
        let report = world.resume(text).await;
        assert_eq!(report.outputs.json()["a"], serde_json::json!([0, 1, 2, 3]));
        if whole.trace()[..count].iter().any(|l| l.starts_with("AttemptEnded")) {
            continue;
        }
        let redone = world.probe.started().iter().filter(|p| p.contains('!')).count();
        assert_eq!(redone, 4 - done, "cut after {count}");
    }
}

/// Naive: an attempt whose effects must not happen twice is run again after a crash.
#[tokio::test(start_paused = true)]
async fn x28_effects_once_stop_for_a_person() {
    let once = "workflow:\n  name: t\n  steps: [{name: a, type: work, ms: 5, effects: once}, {name: b, type: work}]\n";
    let whole = World::default();
    let report = whole.run(once).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    let started = whole.trace().iter().position(|l| l.starts_with("AttemptStarted a")).expect("it started");
    let world = whole.cut(started + 1);
    let report = world.resume(once).await;
    assert_eq!(report.status, RunStatus::Paused);
    assert!(world.probe.started().is_empty());
}

/// A finished run is reported, not run.
#[tokio::test(start_paused = true)]
async fn a_finished_run_is_reported_as_it_is() {
    let whole = World::default();
    let first = whole.run(NESTED).await;
    let total = whole.store.records.lock().len();
    let again = whole.cut(total);
    let report = again.resume(NESTED).await;
    assert_eq!(report.outputs, first.outputs);
    assert!(again.probe.started().is_empty());
    assert_eq!(again.store.records.lock().len(), whole.store.records.lock().len());
}

/// Naive: replay and live running decide differently.
#[tokio::test(start_paused = true)]
async fn n22_replaying_any_prefix_asks_for_what_the_live_run_did() {
    let whole = World::default();
    whole.run(NESTED).await;
    let total = whole.store.records.lock().len();
    // Resuming twice in a row, each time cut in the middle, must still end the same.
    for count in (1..total).step_by(5) {
        let world = whole.cut(count);
        world.resume(NESTED).await;
        let total = world.store.records.lock().len();
        let again = world.cut(total - 1);
        let report = again.resume(NESTED).await;
        assert_eq!(report.status, RunStatus::Ok, "cut after {count}");
    }
}

/// Naive: what ended in the moment of the stop is thrown away with the tasks, and is done and paid again.
/// Figure: 300 attempts that end at the same instant, with a stop just before, at and after it.
#[tokio::test(start_paused = true)]
async fn what_has_ended_when_a_run_is_stopped_is_kept() {
    let text = "workflow:
  name: t
  steps:
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: 300
      data_source: 'range(300)'
      steps: [{name: s, type: work, ms: 10, value: '{{ loop.item }}'}]
    - {name: end, type: work, ms: 2}
";
    for (after, again) in [(9, 300), (10, 0), (11, 1)] {
        let world = World::default();
        let stop = CancellationToken::new();
        let control = RunControl { stop: stop.clone(), ..RunControl::default() };
        let stopper = async {
            tokio::time::sleep(Duration::from_millis(after)).await;
            // Everything else that is due has its turn.
            tokio::task::yield_now().await;
            stop.cancel();
        };
        let (report, ()) = tokio::join!(world.run_with(text, control), stopper);
        assert_eq!(report.expect("a journal").status, RunStatus::Interrupted);
        assert_eq!(world.resume(text).await.status, RunStatus::Ok);
        assert_eq!(world.probe.started().len(), 301 + again, "stopped after {after} ms");
        assert_eq!(world.probe.running(), 0);
    }
}
