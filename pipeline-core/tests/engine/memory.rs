//! A limit on memory interrupts, and a probe that fails is not one that says "nothing".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::memory::MemoryProbe;

use super::support::World;

const MIB: u64 = 1024 * 1024;

/// Says what it is told to; `u64::MAX` stands for a probe that fails.
#[derive(Default)]
struct Told {
    bytes: AtomicU64,
    asked: AtomicUsize,
    /// From this question on, the answer is 1 TiB.
    grows_at: Option<usize>,
}

impl MemoryProbe for Told {
    fn held(&self) -> Result<u64, String> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        if self.grows_at.is_some_and(|at| asked >= at) {
            return Ok(MIB * MIB);
        }
        match self.bytes.load(Ordering::SeqCst) {
            u64::MAX => Err("the scripted probe is broken".to_owned()),
            bytes => Ok(bytes),
        }
    }
}

fn world(probe: Told) -> (World, Arc<Told>) {
    let probe = Arc::new(probe);
    (World { memory: Some(Arc::<Told>::clone(&probe)), ..World::default() }, probe)
}

fn broken() -> Told {
    Told { bytes: AtomicU64::new(u64::MAX), ..Told::default() }
}

fn holding(mib: u64) -> Told {
    Told { bytes: AtomicU64::new(mib * MIB), ..Told::default() }
}

fn two_steps(budget: &str) -> String {
    steps(budget, 100_000)
}

/// The second takes so many milliseconds.
fn steps(budget: &str, second: u64) -> String {
    format!(
        "workflow:
  name: t
  budget: {budget}
  steps:
    - {{name: first, type: work, ms: 50, value: 1}}
    - {{name: second, type: work, ms: {second}, value: 2}}
    - {{name: third, type: work, value: 3}}
"
    )
}

/// Warnings that are in the journal.
fn recorded(world: &World) -> Vec<String> {
    let records = world.store.records.lock();
    let ends = records.iter().filter_map(|record| match &record.fact {
        Fact::AttemptEnded { end, .. } => Some(end.warnings.clone()),
        _ => None,
    });
    ends.flatten().collect()
}

/// Naive: the probe's error is read as 0, which is below every limit.
#[tokio::test(start_paused = true)]
async fn n16_a_probe_that_fails_is_told_once_and_never_read_as_nothing() {
    let (world, probe) = world(broken());
    let report = world.run(&two_steps("{max_memory_mb: 100}")).await;
    assert_eq!(report.status, RunStatus::Ok, "{report:?}");
    assert!(probe.asked.load(Ordering::SeqCst) > 100, "it looks all the time");
    let warnings = recorded(&world);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("100 MiB") && warnings[0].contains("the scripted probe is broken"));
    assert!(report.warnings.iter().any(|w| w.contains("is not watched")), "{:?}", report.warnings);
}

/// Naive: without a probe the limit is left out, and nobody hears of it.
#[tokio::test(start_paused = true)]
async fn n16_where_there_is_no_probe_that_is_told_too() {
    let world = World::default();
    let report = world.run(&two_steps("{max_memory_mb: 100}")).await;
    assert_eq!(report.status, RunStatus::Ok, "{report:?}");
    assert_eq!(recorded(&world).len(), 1);
}

/// Naive: a strict limit lets a run go on whose memory it cannot see.
#[tokio::test(start_paused = true)]
async fn n16_a_strict_limit_stops_a_run_whose_memory_nobody_knows() {
    let (world, probe) = world(broken());
    let text = two_steps("{max_memory_mb: 100, on_unknown_memory: stop}");
    let report = world.run(&text).await;
    assert_eq!(report.status, RunStatus::Budget, "{report:?}");
    let error = report.error.expect("it says why").error;
    assert_eq!(error.kind, ErrorKind::Budget);
    assert!(error.message.contains("the scripted probe is broken"), "{}", error.message);
    assert!(world.probe.started().is_empty(), "nothing is started");
    // It was put down, not failed: where memory can be told, a resume does all of it.
    probe.bytes.store(MIB, Ordering::SeqCst);
    let report = world.resume(&text).await;
    assert_eq!(report.status, RunStatus::Ok, "{report:?}");
    assert_eq!(world.probe.started(), ["first", "second", "third"]);
}

/// Naive: the limit is looked at when a step ends, and a step that takes all memory never ends.
#[tokio::test(start_paused = true)]
async fn n16_a_limit_cuts_off_what_is_in_flight_and_a_resume_does_it_again() {
    let (mut world, _) = world(Told { grows_at: Some(20), ..holding(99) });
    let text = two_steps("{max_memory_mb: 100}");
    let report = world.run(&text).await;
    assert_eq!(report.status, RunStatus::Budget, "{report:?}");
    let message = report.error.expect("it says why").error.message;
    assert!(message.contains("1048576 MiB") && message.contains("`second`"), "{message}");
    assert_eq!(world.probe.started(), ["first", "second"]);
    assert!(report.duration_ms < 5000, "{}", report.duration_ms);
    world.memory = Some(Arc::new(holding(100)));
    let report = world.resume(&text).await;
    assert_eq!(report.status, RunStatus::Ok, "{report:?}");
    assert_eq!(world.probe.started(), ["first", "second", "second", "third"]);
    assert!(recorded(&world).is_empty());
}

/// What has ended counts, although it was too much: else a resume would come to the same place for ever.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_step_that_took_too_much_is_recorded() {
    let text = steps("{max_memory_mb: 100}", 50);
    let mut world = World::default();
    for expected in [&["first"][..], &["first", "second"]] {
        // Little at its beginning, too much at its end, which comes before anybody looks in between.
        world.memory = Some(Arc::new(Told { grows_at: Some(1), ..holding(99) }));
        let report = if expected.len() == 1 { world.run(&text).await } else { world.resume(&text).await };
        assert_eq!(report.status, RunStatus::Budget, "{report:?}");
        assert_eq!(world.probe.started(), expected);
    }
}

/// Naive: the first look is after a while, or at the end of the step, which is the end of the run.
#[tokio::test(start_paused = true)]
async fn n16_a_limit_that_is_passed_at_the_start_lets_nothing_begin() {
    let (world, _) = world(holding(101));
    let text =
        "workflow: {name: t, budget: {max_memory_mb: 100}, steps: [{name: only, type: work, value: 1}]}";
    let report = world.run(text).await;
    assert_eq!(report.status, RunStatus::Budget, "{report:?}");
    assert!(world.probe.started().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_child_holds_while_the_child_runs() {
    let text = "workflow:
  name: t
  steps:
    - {name: before, type: work, ms: 1000}
    - name: child
      type: pipeline
      config: {memory_limit_mb: 100}
      pipeline: {name: c, steps: [{name: inner, type: work, ms: 1000}]}
    - {name: after, type: work, ms: 1000}
";
    let (above, _) = world(holding(101));
    let report = above.run(text).await;
    assert_eq!(report.status, RunStatus::Budget, "{report:?}");
    assert_eq!(above.probe.started(), ["before"], "where the limit is passed already nothing begins");
    let (below, _) = world(holding(100));
    assert_eq!(below.run(text).await.status, RunStatus::Ok);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nobody_is_asked() {
    let (world, probe) = world(broken());
    assert_eq!(world.run(&two_steps("{max_steps: 100}")).await.status, RunStatus::Ok);
    assert_eq!(probe.asked.load(Ordering::SeqCst), 0);
}
