//! Observers that panic, stall or are closed at any moment, and what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline_core::engine::RunControl;
use pipeline_core::event::{Event, EventSink, Hears, Progress};
use pipeline_core::fact::{Fact, Record};
use pipeline_core::service::{MOST, State};

use super::hazards::fan;
use super::support::World;

/// Gives up (its thread ends, its queue is closed) or stands still at the event with this number.
struct Broken {
    at: usize,
    seen: usize,
    stalls: bool,
}

impl EventSink for Broken {
    fn event(&mut self, _: &Event) {
        self.seen += 1;
        if self.seen == self.at {
            assert!(self.stalls, "scripted end of an observer");
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Arc<Record>>>>);

impl EventSink for Kept {
    fn event(&mut self, event: &Event) {
        if let Event::Fact(record) = event {
            self.0.lock().push(Arc::clone(record));
        }
    }
}

/// Naive: the monitor is looked up and then called, and may be gone in between; or it is called and waited for.
/// Figure: 13 events, each panicking and standing still.
#[tokio::test]
async fn n14_an_observer_that_is_gone_or_stands_still_at_any_event_changes_nothing() {
    let text = fan(3, "parallel: true", "", "{name: s, type: work, value: '{{ loop.x }}'}");
    let calm = World::default().run(&text).await;
    for at in 1..14 {
        for stalls in [false, true] {
            let kept = Kept::default();
            let broken = Broken { at, seen: 0, stalls };
            let sinks: Vec<Box<dyn EventSink>> = vec![Box::new(broken), Box::new(kept.clone())];
            let control = RunControl { sinks, ..RunControl::default() };
            let world = World::default();
            let report = world.run_with(&text, control).await.expect("a journal");
            assert_eq!((&report.outputs, report.status), (&calm.outputs, calm.status), "event {at}");
            assert_eq!(world.probe.running(), 0);
            // The observer beside it is told everything all the same.
            assert_eq!(kept.0.lock().len(), world.store.records.lock().len(), "event {at}");
        }
    }
}

/// Counts what it is told: facts, progress of forms, progress of steps.
struct Counting(Hears, Arc<Mutex<[usize; 3]>>);

impl EventSink for Counting {
    fn hears(&self) -> Hears {
        self.0
    }

    fn event(&mut self, event: &Event) {
        let place = match event {
            Event::Fact(_) => 0,
            Event::Progress(Progress::Group { .. } | Progress::GroupEnded { .. }) => 1,
            Event::Progress(_) => 2,
        };
        self.1.lock()[place] += 1;
    }
}

/// Naive: every step tells every word to nobody, and a wide run pays for it.
#[tokio::test]
async fn what_no_observer_hears_is_not_told_and_facts_always_are() {
    let text = fan(5, "parallel: true", "", "{name: s, type: work}");
    let mut facts = Vec::new();
    for (hears, forms, steps) in
        [(Hears::Facts, false, false), (Hears::Forms, true, false), (Hears::All, true, true)]
    {
        let counts = Arc::<Mutex<[usize; 3]>>::default();
        let sinks: Vec<Box<dyn EventSink>> = vec![Box::new(Counting(hears, Arc::clone(&counts)))];
        World::default()
            .run_with(&text, RunControl { sinks, ..RunControl::default() })
            .await
            .expect("a journal");
        let told = *counts.lock();
        assert_eq!((told[1] > 0, told[2] > 0), (forms, steps), "{hears:?}: {told:?}");
        facts.push(told[0]);
    }
    assert_eq!(facts, [facts[0]; 3]);
}

/// Naive: counters of their own beside the journal, which drift from it; or a start is told at once, before the ends that a slow
/// disk still has.
#[tokio::test]
async fn n23_every_start_has_one_end_and_observers_are_told_what_the_journal_has() {
    for flush_ms in [0, 3] {
        let mut world = World::default();
        world.store.flush_ms = flush_ms;
        told_as_the_journal_has_it(&world).await;
    }
}

async fn told_as_the_journal_has_it(world: &World) {
    let text =
        fan(40, "parallel: true", "max_parallel: 4", "{name: s, type: work, ms: '{{ 1 + loop.x % 4 }}'}");
    let kept = Kept::default();
    let control = RunControl { sinks: vec![Box::new(kept.clone())], ..RunControl::default() };
    world.run_with(&text, control).await.expect("a journal");
    let told: Vec<Record> = kept.0.lock().iter().map(|record| (**record).clone()).collect();
    let indices = |records: &[Record]| records.iter().map(|r| r.index).collect::<Vec<_>>();
    assert_eq!(indices(&told), indices(&world.store.records.lock()));
    assert_eq!(told, *world.store.records.lock());
    let mut balance = BTreeMap::<_, (usize, usize)>::new();
    for record in &told {
        match &record.fact {
            Fact::AttemptStarted { path, attempt, .. } => {
                balance.entry((path.clone(), *attempt)).or_default().0 += 1;
            }
            Fact::AttemptEnded { path, attempt, .. } => {
                balance.entry((path.clone(), *attempt)).or_default().1 += 1;
            }
            _ => {}
        }
    }
    assert_eq!(balance.len(), 40);
    assert!(balance.values().all(|pair| *pair == (1, 1)), "{balance:?}");
    assert!(told.windows(2).all(|pair| pair[0].elapsed_ms <= pair[1].elapsed_ms));
}

/// Panics at the event with this number, or at all from it on.
struct Panics {
    at: usize,
    always: bool,
    seen: usize,
    told: Arc<Mutex<Vec<u64>>>,
    finished: Arc<Mutex<u32>>,
}

impl EventSink for Panics {
    fn name(&self) -> &'static str {
        "shaky"
    }

    fn event(&mut self, event: &Event) {
        let Event::Fact(record) = event else { return };
        self.seen += 1;
        assert!(self.seen != self.at && !(self.always && self.seen > self.at), "scripted panic");
        self.told.lock().push(record.index);
    }

    fn finish(&mut self) {
        *self.finished.lock() += 1;
    }
}

/// Naive: an observer that breaks once is gone for the rest of the run (or takes the run along), one that always breaks is
/// begun again for ever, and nobody is told of either.
/// Figure: one panic at each of 12 events, and panics without end from each.
#[tokio::test]
async fn n17_an_observer_goes_on_after_a_panic_within_its_budget_and_its_health_is_told() {
    let text = fan(8, "parallel: true", "", "{name: s, type: work, value: '{{ loop.x }}'}");
    let calm = World::default().run(&text).await;
    for at in 1..=12 {
        for always in [false, true] {
            let (told, finished) = (Arc::<Mutex<Vec<u64>>>::default(), Arc::<Mutex<u32>>::default());
            let shaky =
                Panics { at, always, seen: 0, told: Arc::clone(&told), finished: Arc::clone(&finished) };
            let kept = Kept::default();
            let sinks: Vec<Box<dyn EventSink>> = vec![Box::new(shaky), Box::new(kept.clone())];
            let world = World::default();
            let report = world
                .run_with(&text, RunControl { sinks, ..RunControl::default() })
                .await
                .expect("a journal");
            assert_eq!((&report.outputs, report.status), (&calm.outputs, calm.status), "event {at}");
            let records = world.store.records.lock().len() as u64;
            assert_eq!(kept.0.lock().len() as u64, records, "the observer beside it is told everything");
            let health = &report.services[0];
            assert_eq!((health.service.as_str(), report.services[1].state), ("shaky", State::Up));
            assert!(health.trouble.as_ref().is_some_and(|why| why.contains("scripted panic")), "{health:?}");
            assert!(report.warnings.iter().any(|w| w.contains("`shaky`")), "{:?}", report.warnings);
            if always {
                // As many restarts as it may have; then it is down, and nobody begins it again.
                assert_eq!(
                    (health.state, health.restarts),
                    (State::Down, u32::try_from(MOST).unwrap()),
                    "event {at}"
                );
                assert_eq!((told.lock().len(), *finished.lock()), (at - 1, 0));
            } else {
                assert_eq!((health.state, health.restarts), (State::Up, 1), "event {at}");
                let expected: Vec<u64> = (0..records).filter(|index| *index != at as u64 - 1).collect();
                assert_eq!(*told.lock(), expected, "it misses the event that it panicked at, and no other");
                assert_eq!(*finished.lock(), 1);
            }
        }
    }
    // Nothing that was begun for a run outlives it.
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(alive <= 1, "{alive} tasks are alive");
}
