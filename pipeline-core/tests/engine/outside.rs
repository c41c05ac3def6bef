//! What waits for the world outside: people and quotas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::engine::{EngineError, Parking, RunControl};
use pipeline_core::fact::{RunStatus, Status};
use pipeline_core::value::Value;
use serde_json::json;

use super::support::World;

const ASKS: &str = "workflow:
  name: t
  steps:
    - name: both
      type: parallel
      branches:
        people:
          - {name: before, type: work, ms: 5}
          - {name: go, type: approval, message: 'Ship {{ steps.before }}?', choices: ['yes', 'no'], timeout: 1h}
          - {name: after, type: work, value: '{{ steps.go }}'}
        machine:
          - {name: busy, type: work, ms: 50}
";

fn answers(all: &[(&str, Value)]) -> RunControl {
    let answers = all.iter().map(|(path, answer)| ((*path).to_owned(), answer.clone())).collect();
    RunControl { answers, ..RunControl::default() }
}

fn again(world: &World) -> World {
    let total = world.store.records.lock().len();
    world.cut(total)
}

/// Naive: a question holds a task and a thread until somebody comes, or is lost with the process.
#[tokio::test(start_paused = true)]
async fn a_question_puts_the_run_down_when_nothing_else_is_to_do_and_its_answer_goes_on() {
    let world = World::default();
    let report = world.run(ASKS).await;
    assert_eq!(report.status, RunStatus::Paused);
    assert!(
        world.trace().iter().any(|l| l.starts_with("AttemptEnded both/machine/busy")),
        "{:?}",
        world.trace()
    );
    assert_eq!(report.questions.len(), 1);
    assert_eq!(report.questions[0].0.as_str(), "both/people/go");
    let paused = again(&world);
    for (path, answer, expected) in [
        ("both/people/go", json!("maybe"), "is not one of"),
        ("both/people/no_such", json!("yes"), "does not wait"),
    ] {
        match paused.resume_with(ASKS, answers(&[(path, answer)])).await {
            Err(EngineError::Answer(message)) => assert!(message.contains(expected), "{message}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(paused.trace(), world.trace(), "nothing was done");
    }
    let report = paused.resume_with(ASKS, answers(&[("both/people/go", json!("yes"))])).await.unwrap();
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(report.outputs.json()["both"]["results"]["people"], "yes");
}

struct Wall(AtomicI64);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

fn walled(text: &str) -> (World, Arc<Wall>, String) {
    let wall = Arc::new(Wall(AtomicI64::new(1_700_000_000_000)));
    let world = World { clock: Arc::<Wall>::clone(&wall), ..World::default() };
    (world, wall, text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_in_time_and_the_default_counts_or_the_step_fails() {
    for (default, status) in [(", default: 'no'", RunStatus::Ok), ("", RunStatus::Failed)] {
        let (world, wall, text) = walled(&ASKS.replace(", timeout: 1h", &format!(", timeout: 1h{default}")));
        assert_eq!(world.run(&text).await.status, RunStatus::Paused);
        // Run time stands still while nobody works on the run; the time to answer does not.
        wall.0.fetch_add(2 * 3600 * 1000, Ordering::SeqCst);
        let report = again(&world).resume(&text).await;
        assert_eq!(report.status, status, "{:?}", report.error);
        if status == RunStatus::Failed {
            assert!(report.error.unwrap().error.message.contains("nobody answered"));
        }
    }
}

const ONCE: &str = "workflow:\n  name: t\n  steps: [{name: a, type: work, ms: 5, effects: once, value: 1}, {name: b, type: work, value: '{{ steps.a }}'}]\n";

/// Naive: an attempt that was cut off runs again without a word.
#[tokio::test(start_paused = true)]
async fn x28_a_person_decides_about_an_attempt_whose_effects_must_not_happen_twice() {
    let whole = World::default();
    whole.run(ONCE).await;
    let started = whole.trace().iter().position(|l| l.starts_with("AttemptStarted a")).unwrap();
    for (answer, value, status, reruns) in [
        (json!("rerun"), json!(1), RunStatus::Ok, 1),
        (json!({"value": 7}), json!(7), RunStatus::Ok, 0),
        (json!("fail"), Value::Null, RunStatus::Failed, 0),
    ] {
        let world = whole.cut(started + 1);
        let report = world.resume(ONCE).await;
        assert_eq!((report.status, report.questions.len()), (RunStatus::Paused, 1));
        let world = again(&world);
        let report = world.resume_with(ONCE, answers(&[("a", answer)])).await.unwrap();
        assert_eq!(report.status, status, "{:?}", report.error);
        assert_eq!(report.outputs.json().get("b").cloned().unwrap_or_default(), value);
        assert_eq!(world.probe.started().iter().filter(|p| *p == "a").count(), reruns);
    }
}

/// A quota that is used up for two hours, in one of two branches.
const QUOTA: &str = "workflow:
  name: t
  steps:
    - name: both
      type: parallel
      branches:
        tired: [{name: call, type: work, fail_times: 1, kind: quota, retry_after_ms: 7200000, value: done}]
        fresh: [{name: work, type: work, ms: 50}]
    - {name: last, type: work}
";

/// Naive: a used-up quota uses up the retries, or fails the run, or sleeps for hours in memory.
#[tokio::test(start_paused = true)]
async fn a_used_up_quota_parks_the_run_and_costs_no_try() {
    let (world, wall, text) = walled(QUOTA);
    let report = world.run(&text).await;
    assert_eq!(report.status, RunStatus::Parked);
    assert!(report.error.unwrap().error.message.contains("2023-11-15T00:13:20"), "the time to go on at");
    let early = again(&world);
    assert_eq!(early.resume(&text).await.status, RunStatus::Parked, "not before its time");
    let now = again(&world);
    let control = RunControl { parking: Parking::TryNow, ..RunControl::default() };
    assert_eq!(now.resume_with(&text, control).await.unwrap().status, RunStatus::Ok);
    wall.0.fetch_add(3 * 3600 * 1000, Ordering::SeqCst);
    let later = again(&world);
    let report = later.resume(&text).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(report.outputs.json()["both"]["results"]["tired"], "done");
    assert_eq!(report.steps["both"].status, Some(Status::Ok));
}

/// The paused clock moves on when everything sleeps, and the wall with it.
struct Moving(tokio::time::Instant);

impl Clock for Moving {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn who_wants_to_waits_for_the_quota() {
    let world = World { clock: Arc::new(Moving(tokio::time::Instant::now())), ..World::default() };
    let control = RunControl { parking: Parking::Wait, answers: BTreeMap::new(), ..RunControl::default() };
    let begun = tokio::time::Instant::now();
    let report = world.run_with(QUOTA, control).await.unwrap();
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert!(begun.elapsed().as_secs() >= 7200, "{:?}", begun.elapsed());
}
