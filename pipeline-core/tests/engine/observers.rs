//! Observers that panic, stall or are closed at any moment, and what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline_core::engine::RunControl;
use pipeline_core::event::{Event, EventSink};
use pipeline_core::fact::{Fact, Record};

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

/// Naive: counters of their own beside the journal, which drift from it.
#[tokio::test]
async fn n23_every_start_has_one_end_and_observers_are_told_what_the_journal_has() {
    let text = fan(20, "parallel: true", "max_parallel: 4", "{name: s, type: work, ms: 1}");
    let kept = Kept::default();
    let world = World::default();
    let control = RunControl { sinks: vec![Box::new(kept.clone())], ..RunControl::default() };
    world.run_with(&text, control).await.expect("a journal");
    let told: Vec<Record> = kept.0.lock().iter().map(|record| (**record).clone()).collect();
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
    assert_eq!(balance.len(), 20);
    assert!(balance.values().all(|pair| *pair == (1, 1)), "{balance:?}");
    assert!(told.windows(2).all(|pair| pair[0].elapsed_ms <= pair[1].elapsed_ms));
}
