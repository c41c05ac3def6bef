//! Money: nothing is spent above a limit, whatever runs at once, fails, or is killed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use pipeline_core::engine::RunControl;
use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{Fact, RunStatus};
use pipeline_core::plan::Budget;
use pipeline_core::value::Data;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::support::World;

const CAP_CENTS: usize = 200;

fn capped() -> World {
    let limits = Budget { max_cost_usd: Some(CAP_CENTS as f64 / 100.0), ..Budget::default() };
    World { limits, ..World::default() }
}

/// A fan-out over the branches that `given` gives to a world, each with calls as `Call` reads them.
const FAN: &str = "workflow:
  name: t
  inputs: {branches: {type: array}}
  steps:
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: 50
      break_on_error: false
      data_source: inputs.branches
      steps:
        - {name: pay, type: work, calls: '{{ loop.item }}'}
";

/// A world with a cap and those branches.
fn given<T: serde::Serialize>(branches: &[Vec<T>]) -> World {
    let mut world = capped();
    let branches = serde_json::to_value(branches).unwrap();
    world.inputs.insert("branches".to_owned(), Data::new(branches));
    world
}

fn billed(world: &World) -> usize {
    world.probe.billed.load(Ordering::SeqCst)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

/// A call that costs up to `most`.
fn call() -> impl Strategy<Value = [u64; 2]> {
    (0_u64..=20, 0_u64..=20).prop_map(|(most, part)| [most * part / 20, most])
}

/// One that takes a random time, so that calls end in any order, and may end badly: see `CallEnd`.
fn any_call() -> impl Strategy<Value = [u64; 4]> {
    let end = prop_oneof![9 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    (call(), 0_u64..40, end).prop_map(|([cost, most], ms, end)| [cost, most, ms, end])
}

/// Cents that the journal has as perhaps spent: bills that nobody saw.
fn unseen(world: &World) -> f64 {
    let records = world.store.records.lock();
    let ends = records.iter().filter_map(|record| match &record.fact {
        Fact::AttemptEnded { end, .. } => Some(end.unsettled.cost_usd),
        _ => None,
    });
    ends.sum::<f64>() * 100.0
}

/// Naive: each branch looks at what was spent before it, and all spend at once; or a call that fails after its answer is
/// free, because one that fails before it is.
#[test]
fn x17_x25_fifty_branches_never_spend_above_the_cap_in_a_thousand_schedules() {
    let halves = || {
        let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
        let branches = prop::collection::vec(prop::collection::vec(any_call(), 1..3), 50);
        TestRunner::new(config).run(&branches, |branches| schedule_holds(&branches)).unwrap();
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(halves);
        halves();
        other.join().unwrap();
    });
}

fn schedule_holds(branches: &[Vec<[u64; 4]>]) -> Result<(), TestCaseError> {
    let world = given(branches);
    let report = run(world.run(FAN));
    let billed = billed(&world);
    prop_assert!(billed <= CAP_CENTS, "{} cents of {CAP_CENTS}", billed);
    let known = report.usage.cost_usd.unwrap_or(0.0) * 100.0;
    let unseen = unseen(&world);
    prop_assert!(known < billed as f64 + 1e-6, "{known} told of {billed}");
    // What is told as known and as perhaps spent has all of the bill in it, and stays below the cap, too.
    prop_assert!(known + unseen > billed as f64 - 1e-6, "{known} and {unseen} of {billed}");
    prop_assert!(known + unseen < CAP_CENTS as f64 + 1e-6, "{known} and {unseen} of {CAP_CENTS}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A limit that is never reached changes nothing, and one that is stops the run.
    #[test]
    fn a_fan_out_is_paid_in_full_or_ends_with_its_budget(
        branches in prop::collection::vec(prop::collection::vec(call(), 1..4), 1..50),
    ) {
        let world = given(&branches);
        let report = run(world.run(FAN));
        let total: usize = branches.iter().flatten().map(|[cost, _]| usize::try_from(*cost).unwrap()).sum();
        if report.status == RunStatus::Ok {
            prop_assert_eq!(billed(&world), total);
        } else {
            prop_assert_eq!(report.status, RunStatus::Budget);
        }
        let known = report.usage.cost_usd.unwrap_or(0.0);
        prop_assert!((known - billed(&world) as f64 / 100.0).abs() < 1e-6, "{known} told");
    }

    /// Naive: what was in flight when the process died is forgotten, and spent again.
    #[test]
    fn x10_the_cap_holds_over_kills_and_resumes(
        branches in prop::collection::vec(prop::collection::vec(call(), 1..4), 1..20),
        cuts in prop::collection::vec(0_usize..100, 1..4),
    ) {
        let mut world = given(&branches);
        run(world.run(FAN));
        for cut in cuts {
            let records = world.store.records.lock().len();
            // A kill loses what was not flushed; the service has billed what it has billed.
            let kept = 1 + cut * (records - 1) / 100;
            let billed_before = replay_bill(&world, kept);
            world = world.cut(kept);
            world.probe.billed.store(billed_before, Ordering::SeqCst);
            run(world.resume(FAN));
            prop_assert!(billed(&world) <= CAP_CENTS, "{} cents of {CAP_CENTS}", billed(&world));
        }
    }
}

/// The most that the service can have billed when the journal held `kept` records: everything reserved or done by then.
fn replay_bill(world: &World, kept: usize) -> usize {
    use std::collections::BTreeMap;
    let records = world.store.records.lock();
    let mut open: BTreeMap<(String, u32, u32, u32), usize> = BTreeMap::new();
    let cents = |usd: f64| (0..=CAP_CENTS * 10).find(|c| (*c as f64 - usd * 100.0).abs() < 0.5).unwrap();
    let mut settled: BTreeMap<(String, u32), usize> = BTreeMap::new();
    for record in &records[..kept] {
        match &record.fact {
            Fact::SpendReserved { path, attempt, turn, ordinal, spend } => {
                open.insert((path.to_string(), *turn, *attempt, *ordinal), cents(spend.cost_usd));
            }
            Fact::EffectDone { path, attempt, turn, ordinal, usage: Some(usage), .. } => {
                open.remove(&(path.to_string(), *turn, *attempt, *ordinal));
                *settled.entry((path.to_string(), *turn)).or_default() +=
                    cents(usage.cost_usd.unwrap_or(0.0));
            }
            Fact::AttemptEnded { path, attempt, turn, end, .. } => {
                open.retain(|(p, t, a, _), _| !(*p == path.to_string() && t == turn && a == attempt));
                settled.insert((path.to_string(), *turn), cents(end.usage.cost_usd.unwrap_or(0.0)));
            }
            _ => {}
        }
    }
    settled.values().sum::<usize>() + open.values().sum::<usize>()
}

#[tokio::test(start_paused = true)]
async fn a_run_that_reached_its_budget_goes_on_with_a_higher_one() {
    let branches = vec![vec![[60, 60]]; 5];
    let world = given(&branches);
    let report = world.run(FAN).await;
    assert_eq!(report.status, RunStatus::Budget);
    assert_eq!(billed(&world), 180);
    let error = report.error.unwrap().error;
    assert_eq!(error.kind, ErrorKind::Budget);
    assert!(error.message.contains("max_cost_usd"), "{}", error.message);
    let total = world.store.records.lock().len();
    let mut again = world.cut(total);
    let report = again.resume(FAN).await;
    assert_eq!(report.status, RunStatus::Budget, "the same limit again");
    let total = again.store.records.lock().len();
    again = again.cut(total);
    again.limits.max_cost_usd = Some(5.0);
    let report = again.resume(FAN).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(billed(&again), 300, "nothing was paid twice");
}

/// Naive: a limit of a step is known to the step only, or fails the whole run.
#[tokio::test(start_paused = true)]
async fn a_budget_of_a_step_fails_that_step_and_no_other() {
    let text = "workflow:
  name: t
  steps:
    - name: dear
      type: for_loop
      data_source: range(9)
      budget: {max_cost_usd: 0.5}
      continue_on_error: true
      steps: [{name: pay, type: work, calls: [[20, 20]]}]
    - {name: few, type: for_loop, data_source: range(9), budget: {max_steps: 3}, continue_on_error: true, steps: [{name: s, type: work}]}
    - {name: other, type: work, calls: [[90, 90]]}
";
    let world = World::default();
    let report = world.run(text).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(billed(&world), 40 + 90);
    let failed = report.steps["dear"].error.clone().unwrap();
    assert_eq!(failed.kind, ErrorKind::Budget);
    assert!(failed.message.contains("`dear`"), "{}", failed.message);
    assert!(report.steps["few"].error.as_ref().unwrap().message.contains("max_steps: 3"));
}

/// Naive: a call that is cut off by its deadline costs nothing.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_cut_off_counts_in_full() {
    let text = "workflow:
  name: t
  steps:
    - {name: cut, type: work, calls: [[150, 150]], hang_in_call: true, timeout: 1, continue_on_error: true}
    - {name: next, type: work, calls: [[60, 60]]}
";
    let world = capped();
    let report = world.run(text).await;
    assert_eq!(report.status, RunStatus::Budget, "{:?}", report.steps["next"]);
    assert_eq!(billed(&world), 150);
    // The same is true of another process.
    let total = world.store.records.lock().len();
    let again = world.cut(total);
    assert_eq!(again.resume_with(text, RunControl::default()).await.unwrap().status, RunStatus::Budget);
    assert_eq!(billed(&again), 150);
}

/// Naive: a step that waited for room is started without another look at the limits.
/// Figure: every limit of 1 to 5 attempts, with room for 1 to 5 at once, in a sequence and in a fan-out.
#[tokio::test(start_paused = true)]
async fn x17_no_attempt_begins_beyond_the_limit_of_the_run_however_many_wait() {
    let sequence = "[{name: a, type: work}, {name: b, type: work}, {name: c, type: work}, {name: d, type: work}, {name: e, type: work}, {name: f, type: work}]";
    let fan_out = "[{name: all, type: for_loop, parallel: true, data_source: range(6), steps: [{name: s, type: work, ms: 10}]}]";
    for steps in [sequence, fan_out] {
        for (most, room) in (1..=5).flat_map(|most| (1..=5).map(move |room| (most, room))) {
            let text = format!(
                "workflow:\n  name: t\n  budget: {{max_steps: {most}, max_parallel: {room}}}\n  steps: {steps}\n"
            );
            let world = World::default();
            let report = world.run(&text).await;
            assert_eq!(world.probe.started().len(), most, "room for {room}: {steps}");
            assert_eq!(report.status, RunStatus::Budget, "{:?}", report.error);
            for _ in 0..2 {
                let report = world.resume(&text).await;
                assert_eq!(world.probe.started().len(), most, "resumed, room for {room}: {steps}");
                assert_eq!(report.status, RunStatus::Budget, "{:?}", report.error);
            }
        }
    }
}

/// Naive: what a run was about to start when it was cut off is started by every resume, whatever the limits say.
/// Figure: every cut of a fan-out with a limit on the run and one on the loop.
#[tokio::test(start_paused = true)]
async fn x10_x17_a_limit_on_attempts_holds_over_resumes_wherever_the_run_was_cut() {
    let text = "workflow:
  name: t
  budget: {max_steps: 5, max_parallel: 3}
  steps:
    - {name: few, type: for_loop, parallel: true, data_source: range(4), budget: {max_steps: 3}, continue_on_error: true, steps: [{name: s, type: work, ms: 10}]}
    - {name: all, type: for_loop, parallel: true, data_source: range(4), steps: [{name: s, type: work, ms: 10}]}
";
    let world = World::default();
    assert_eq!(world.run(text).await.status, RunStatus::Budget);
    let begun = |world: &World| -> BTreeSet<String> {
        world.trace().into_iter().filter(|line| line.starts_with("AttemptStarted")).collect()
    };
    assert_eq!(begun(&world).len(), 5, "{:?}", world.trace());
    let total = world.store.records.lock().len();
    for count in 1..total {
        let again = world.cut(count);
        for _ in 0..2 {
            assert_eq!(again.resume(text).await.status, RunStatus::Budget, "cut after {count}");
        }
        assert_eq!(begun(&again), begun(&world), "cut after {count}");
    }
}
