//! Hazards of forms inside forms: panics, deadlines, counters and attempts at any depth.

use std::time::Duration;

use pipeline_core::engine::RunControl;
use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::plan::{CompileOptions, compile};
use pipeline_core::source::{MemorySources, SourceRef};
use pipeline_core::value::Hash;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::support::World;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 += 1;
        Hash::of(&("dice", self.0)).seed() % bound
    }
}

/// A step inside `depth` forms of all kinds, in flow style; `extra` gives each form its keys.
fn nested(depth: u64, leaf: &str, mut extra: impl FnMut(u64) -> String) -> String {
    (0..depth).fold(leaf.to_owned(), |inner, level| {
        let keys = extra(level);
        match level % 4 {
            0 => format!("{{name: f{level}, type: for_loop, data_source: '[1]'{keys}, steps: [{inner}]}}"),
            1 => format!("{{name: p{level}, type: parallel{keys}, steps: [{inner}]}}"),
            2 => format!("{{name: w{level}, type: while_loop, condition: true{keys}, steps: [{inner}]}}"),
            _ => format!(
                "{{name: c{level}, type: pipeline{keys}, pipeline: {{name: inner{level}, steps: [{inner}]}}}}"
            ),
        }
    })
}

/// Naive: a task for each level, linked to the one above, so that a panic passes every handler on its way to the top.
/// Figure: 9 depths, a sibling beside each.
#[tokio::test(start_paused = true)]
async fn x02_a_panic_at_any_depth_is_the_error_of_its_own_step() {
    for depth in 0..9 {
        let boom = nested(depth, "{name: boom, type: work, ms: 5, panic: true}", |_| String::new());
        let world = World::default();
        let text = format!(
            "workflow:\n  name: t\n  steps:\n    - name: p\n      type: parallel\n      on_failure: collect\n      steps:\n        - {boom}\n        - {{name: calm, type: work, ms: 20, value: calm}}\n"
        );
        let report = world.run(&text).await;
        assert_eq!(report.status, RunStatus::Failed);
        let items = report.steps["p"].value.json()["items"].clone();
        assert_eq!(items[1]["value"], "calm", "{items}");
        assert_eq!(items[0]["error"]["kind"], "panicked", "{items}");
        let records = world.store.records.lock();
        let panicked = records.iter().find_map(|record| match &record.fact {
            Fact::AttemptEnded { path, end, .. } => {
                end.error.as_ref().filter(|e| e.kind == ErrorKind::Panicked).map(|_| path.to_string())
            }
            _ => None,
        });
        assert!(panicked.is_some_and(|path| path.ends_with("boom")), "depth {depth}");
        assert!(matches!(records.last().map(|r| &r.fact), Some(Fact::RunEnded { .. })));
        assert_eq!(world.probe.running(), 0);
    }
}

/// Naive: deadlines stand beside each other (an item's, a stream's, a provider's with retries in it), and the longest decides.
/// Figure: 300 random nestings of up to 7 forms, with up to 4 attempts.
#[tokio::test(start_paused = true)]
async fn n19a_x18_whatever_the_nesting_the_earliest_deadline_holds() {
    let mut dice = Dice(0);
    for case in 0..300 {
        let depth = 1 + dice.below(7);
        let leaf_ms = 20 + dice.below(400);
        let (attempts, delay) = (1 + dice.below(4), 1 + dice.below(100));
        let retry = format!(
            "retry: {{max_attempts: {attempts}, backoff: fixed, base_delay: {delay}ms, jitter: false, on: [timeout]}}"
        );
        let leaf = format!("{{name: s, type: work, hang: true, timeout: {leaf_ms}ms, {retry}}}");
        let mut least = leaf_ms * attempts + delay * (attempts - 1);
        let form = nested(depth, &leaf, |_| {
            if dice.below(3) == 0 {
                return String::new();
            }
            let ms = 20 + dice.below(900);
            least = least.min(ms);
            format!(", timeout: {ms}ms")
        });
        let world = World::default();
        let begun = Instant::now();
        let report = world.run(&format!("workflow:\n  name: t\n  steps: [{form}]\n")).await;
        assert_eq!(report.status, RunStatus::Failed, "case {case}: {form}");
        let took = begun.elapsed();
        let (earliest, latest) = (Duration::from_millis(least), Duration::from_millis(least + 250));
        assert!(took >= earliest && took <= latest, "case {case}: {took:?}, not {earliest:?}: {form}");
        assert_eq!(world.probe.running(), 0);
    }
}

/// A pipeline of the library that runs itself `left` times, three steps each time.
fn library(limit: u64) -> MemorySources {
    let text = format!(
        "workflow:\n  name: down\n  inputs: {{left: {{type: integer}}}}\n  steps:\n    - {{name: a, type: work}}\n    - {{name: b, type: work}}\n    - name: more\n      type: pipeline\n      pipeline_ref: down\n      condition: inputs.left > 1\n      config: {{max_total_steps: {limit}, max_depth: 50}}\n      inputs: {{left: '{{{{ inputs.left - 1 }}}}'}}\n"
    );
    MemorySources::default().with_library("down", text)
}

/// Naive: one counter for the process, never reset and added up along the ancestors: the second run begins where the first
/// ended, and branches count each other's steps.
/// Figure: every limit up to 60, twice, one after the other and all at once.
#[tokio::test(start_paused = true)]
async fn n12_x06_a_run_counts_its_own_steps_and_the_same_in_every_mode() {
    let passes = async |limit: u64, parallel: bool| {
        let world = World { sources: library(limit), ..World::default() };
        let text = format!(
            "workflow:\n  name: t\n  steps:\n    - name: f\n      type: for_loop\n      data_source: '[3, 3, 3]'\n      parallel: {parallel}\n      max_parallel: 3\n      steps: [{{name: go, type: pipeline, pipeline_ref: down, config: {{max_total_steps: {limit}, max_depth: 50}}, inputs: {{left: '{{{{ loop.item }}}}'}}}}]\n"
        );
        world.run(&text).await.status == RunStatus::Ok
    };
    let mut least = Vec::new();
    for parallel in [false, true, false, true] {
        let mut limit = 1;
        while !passes(limit, parallel).await {
            limit += 1;
            assert!(limit < 60, "no limit is enough");
        }
        least.push(limit);
    }
    assert_eq!(least[0], least[2], "a run in sequence counts from nothing");
    assert_eq!(least[1], least[3], "a run at once counts from nothing");
    // What begins last sees all steps before it: at most so many, in whatever order branches take turns.
    assert!(least[0] > 10 && least[1].abs_diff(least[0]) <= 3, "{least:?}");
}

/// Naive: pipelines are told apart by the name in them, which a copy or a new name hides.
/// Figure: circles of 1 to 5 files.
#[test]
fn n12_circles_are_found_under_any_name() {
    for length in 1..6 {
        let mut sources = MemorySources::default();
        for number in 0..length {
            let next = (number + 1) % length;
            let text = format!(
                "workflow:\n  name: {}\n  steps: [{{name: s, type: pipeline, pipeline_file: ./p{next}.yaml}}]\n",
                if number == 0 { "first".to_owned() } else { format!("renamed{}", number % 2) }
            );
            sources = sources.with(&format!("p{number}.yaml"), text);
        }
        let root = SourceRef::Path("p0.yaml".to_owned());
        let found = compile(&sources, &root, &World::default().catalog(), &CompileOptions::default());
        let findings = found.map(|_| ()).expect_err("a circle");
        assert!(findings.iter().any(|f| f.code == "E0302"), "{length}: {findings:?}");
    }
}

/// Naive: every layer retries by itself, the server's hint is followed to the letter or not at all, delays have no cap and are
/// the same for all branches, and a wait cannot be stopped.
/// Figure: 40 branches of 4 attempts; a hint of 11 days.
#[tokio::test(start_paused = true)]
async fn x22_attempts_are_counted_once_and_waits_are_bounded_varied_and_stopped() {
    let text = |kind: &str, more: &str| {
        format!(
            "workflow:\n  name: t\n  steps:\n    - name: f\n      type: for_loop\n      data_source: range(40)\n      parallel: true\n      max_parallel: 40\n      steps: [{{name: s, type: work, continue_on_error: true, fail_times: 99, kind: {kind}{more}, retry: {{max_attempts: 4, backoff: exponential, base_delay: 1s, max_delay: 3s}}}}]\n"
        )
    };
    let world = World::default();
    world.run(&text("server", "")).await;
    assert_eq!(world.probe.started().len(), 40 * 4);
    let mut waits = Vec::new();
    let mut ended = std::collections::HashMap::new();
    for record in world.store.records.lock().iter() {
        match &record.fact {
            Fact::AttemptEnded { path, .. } => drop(ended.insert(path.clone(), record.elapsed_ms)),
            Fact::TimerFired { path, .. } => waits.push(record.elapsed_ms - ended[path]),
            _ => {}
        }
    }
    assert_eq!(waits.len(), 40 * 3);
    assert!(waits.iter().all(|wait| (1_000..=3_010).contains(wait)), "{waits:?}");
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 40, "all branches come back at once: {waits:?}");

    // Kinds that are no use trying again are not, whatever their words say.
    let world = World::default();
    world.run(&text("auth", "")).await;
    assert_eq!(world.probe.started().len(), 40);

    // A hint is followed as long as it is one: nobody waits for eleven days.
    let world = World::default();
    let begun = Instant::now();
    world.run(&text("overloaded", ", retry_after_ms: 20000")).await;
    assert!((60_000..=60_250).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let begun = Instant::now();
    world.run(&text("overloaded", ", retry_after_ms: 999999999")).await;
    assert!(begun.elapsed() <= Duration::from_millis(3 * 300_000 + 250), "{:?}", begun.elapsed());

    let stop = CancellationToken::new();
    let control = RunControl { stop: stop.clone(), ..RunControl::default() };
    let (world, text) = (World::default(), text("server", ""));
    let begun = Instant::now();
    let stopper = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(world.run_with(&text, control), stopper);
    assert_eq!(report.expect("a journal").status, RunStatus::Interrupted);
    assert!(begun.elapsed() <= Duration::from_millis(750), "{:?}", begun.elapsed());
}
