//! A limit on memory, files, processes and disks interrupts, and a probe that fails is not one that says "nothing".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::resources::{Resource, ResourceProbe};

use super::support::World;

const MIB: u64 = 1024 * 1024;

/// Says what it is told to, of every resource; `u64::MAX` stands for a probe that fails.
#[derive(Default)]
struct Told {
    bytes: AtomicU64,
    asked: AtomicUsize,
    /// From this question on, the answer is 1 TiB.
    grows_at: Option<usize>,
}

impl ResourceProbe for Told {
    fn read(&self, _: Resource) -> Result<u64, String> {
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
    (World { resources: Some(Arc::<Told>::clone(&probe)), ..World::default() }, probe)
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
    assert!(
        warnings[0].contains("`max_memory_mb: 100`") && warnings[0].contains("the scripted probe is broken")
    );
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
    let text = two_steps("{max_memory_mb: 100, on_unknown: stop}");
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
    world.resources = Some(Arc::new(holding(100)));
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
        world.resources = Some(Arc::new(Told { grows_at: Some(1), ..holding(99) }));
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

/// What is just allowed, just not any more, and how that is said; of each resource.
const BOUNDS: [(&str, u64, u64, &str); 4] = [
    ("max_memory_mb", 7 * MIB, 7 * MIB + 1, "the process holds 8 MiB, and 7 are allowed"),
    ("max_open_files", 7, 8, "the process has 8 files open, and 7 are allowed"),
    ("max_processes", 7, 8, "8 processes that this one started are alive, and 7 are allowed"),
    ("min_free_disk_mb", 7 * MIB, 7 * MIB - 1, "6 MiB are free on the disk, and 7 must stay free"),
];

/// Naive: only memory is a limit, and the others are looked at when something has failed.
#[tokio::test(start_paused = true)]
async fn n16_every_resource_has_a_limit_that_interrupts_and_is_unknown_where_nobody_tells() {
    for (key, enough, not, words) in BOUNDS {
        let text = two_steps(&format!("{{{key}: 7}}"));
        let (mut world, probe) = world(Told { bytes: AtomicU64::new(enough), ..Told::default() });
        assert_eq!(world.run(&text).await.status, RunStatus::Ok, "{key}");
        assert!(probe.asked.load(Ordering::SeqCst) > 100, "{key} is looked at all the time");

        probe.bytes.store(not, Ordering::SeqCst);
        (world.store, world.probe) = <_>::default();
        let report = world.run(&text).await;
        assert_eq!(report.status, RunStatus::Budget, "{key}: {report:?}");
        let error = report.error.expect("it says why").error;
        let message = error.message;
        assert!(message.contains(&format!("{key}: {words} while `first` runs")), "{message}");
        assert!(
            error.help.is_some_and(|help| help.contains("where there is room")),
            "a resume keeps the limit"
        );
        probe.bytes.store(enough, Ordering::SeqCst);
        assert_eq!(world.resume(&text).await.status, RunStatus::Ok, "{key}");
        assert_eq!(world.probe.started(), ["first", "second", "third"], "{key}");

        probe.bytes.store(u64::MAX, Ordering::SeqCst);
        (world.store, world.probe) = <_>::default();
        let report = world.run(&text).await;
        assert_eq!(report.status, RunStatus::Ok, "{key}: {report:?}");
        let warnings = recorded(&world);
        assert_eq!(warnings.len(), 1, "{key}: {warnings:?}");
        assert!(warnings[0].contains(&format!("`{key}: 7` is not watched, because nobody can say")));
        (world.store, world.probe) = <_>::default();
        let strict = two_steps(&format!("{{{key}: 7, on_unknown: stop}}"));
        assert_eq!(world.run(&strict).await.status, RunStatus::Budget, "{key}");
        assert!(world.probe.started().is_empty(), "{key}");
    }
}

/// Naive: the limits of the outermost place alone, or of the innermost.
#[tokio::test(start_paused = true)]
async fn of_all_limits_around_a_step_the_tightest_holds_of_each_resource() {
    let text = "workflow:
  name: t
  budget: {max_open_files: 10, min_free_disk_mb: 2}
  steps:
    - name: child
      type: pipeline
      budget: {max_open_files: 20, min_free_disk_mb: 1}
      pipeline: {name: c, budget: {max_processes: 9}, steps: [{name: inner, type: work, ms: 1000}]}
";
    let (world, _) = world(Told { bytes: AtomicU64::new(9), ..Told::default() });
    let report = world.run(text).await;
    let message = report.error.expect("it says why").error.message;
    assert!(message.contains("and 2 must stay free"), "{message}");
    let (world, _) = self::world(Told { bytes: AtomicU64::new(9), ..Told::default() });
    let fine = text.replace("min_free_disk_mb", "max_memory_mb");
    assert_eq!(world.run(&fine).await.status, RunStatus::Ok);
    let (world, _) = self::world(Told { bytes: AtomicU64::new(10), ..Told::default() });
    let report = world.run(&fine).await;
    let message = report.error.expect("it says why").error.message;
    assert!(message.contains("max_processes: 10 processes"), "of ten files ten are allowed: {message}");
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
