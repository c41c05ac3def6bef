//! T6 of `cargo xtask reliability`: ten thousand branches, of which some panic and some hang.

use std::collections::BTreeSet;
use std::time::Duration;

use pipeline_core::conformance::trials::{Trials, is_asked};
use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{Fact, RunStatus};
use tokio::time::Instant;

use super::hazards::fan;
use super::support::World;

/// Branches at once.
const AT_ONCE: usize = 256;

/// One of a hundred panics, one hangs, the others take a while.
const BODY: &str = "{name: s, type: work, ms: '{{ loop.index % 7 }}', value: '{{ loop.index }}', timeout: 1s, panic: '{{ loop.index % 100 == 7 }}', hang: '{{ loop.index % 100 == 8 }}'}";

/// Tasks of this runtime.
fn alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Paths of the attempts that ended with an error of that kind.
fn ended_with(world: &World, kind: ErrorKind) -> (usize, BTreeSet<String>) {
    let records = world.store.records.lock();
    let paths = records.iter().filter_map(|record| match &record.fact {
        Fact::AttemptEnded { path, end, .. } if end.error.as_ref().is_some_and(|e| e.kind == kind) => {
            Some(path.to_string())
        }
        _ => None,
    });
    let paths: Vec<String> = paths.collect();
    (paths.len(), paths.into_iter().collect())
}

async fn collected(items: usize) {
    let (world, before) = (World::default(), alive());
    let text =
        fan(items, "parallel: true", &format!("max_parallel: {AT_ONCE}\n      break_on_error: false"), BODY);
    let report = world.run(&text).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    for (kind, at) in [(ErrorKind::Panicked, 7), (ErrorKind::TimedOut, 8)] {
        let (count, paths) = ended_with(&world, kind);
        let expected: BTreeSet<String> = (at..items).step_by(100).map(|i| format!("f[{i}]/s")).collect();
        assert_eq!(count, expected.len(), "{kind:?}: each is told once");
        assert_eq!(paths, expected, "{kind:?}");
    }
    assert_eq!(world.probe.peak(), AT_ONCE.min(items));
    assert_eq!((world.probe.running(), alive()), (0, before), "attempts and tasks are gone");
}

async fn failed_fast(items: usize) {
    let (world, before) = (World::default(), alive());
    let text = fan(items, "parallel: true", &format!("max_parallel: {AT_ONCE}"), BODY);
    let begun = Instant::now();
    let report = world.run(&text).await;
    assert_eq!(report.status, RunStatus::Failed);
    assert!(begun.elapsed() < Duration::from_millis(250), "drained after {:?}", begun.elapsed());
    assert!(world.probe.started().len() < items, "what had not begun did not begin");
    assert_eq!((world.probe.running(), alive()), (0, before), "attempts and tasks are gone");
}

/// Naive: a task of its own for each branch: its panic is lost, and nothing stops it.
/// Figure: 10,000 branches, 256 at once, of which a hundred panic and a hundred hang.
#[tokio::test(start_paused = true)]
async fn t06_a_wide_fan_out_with_panics_and_hangs_loses_nothing_and_leaves_nothing() {
    let trials = Trials::of("T6", 1);
    let items = if is_asked() { 10_000 } else { 1_000 };
    for _ in 0..trials.wanted() {
        trials.try_while("collected", Box::pin(collected(items))).await;
        trials.try_while("failed fast", Box::pin(failed_fast(items))).await;
    }
    let each = items / 100;
    trials.finish(format!(
        "{items} branches, {AT_ONCE} at once: each of {each} panics told once with its step, {each} hangs ended at their deadline, no task and no guard left; fail-fast drained within 250 ms"
    ));
}
