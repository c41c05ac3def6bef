//! Delivers events to observers. Observers cannot hurt.
//!
//! Owns [`EventBus`]. Each observer has a thread and a bounded queue of its own: one that is slow loses progress and, when its
//! queue is full, is dropped; one that panics is dropped. Either is reported as a warning of the run.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::event::{Event, EventSink, Progress};
use crate::fact::Record;
use crate::path::StepPath;

/// Events that may wait for one observer, give or take the last batch.
const QUEUE: usize = 65_536;

/// How long the end of a run waits for its observers.
const FLUSH: Duration = Duration::from_secs(2);

/// The observers of one run.
pub(super) struct EventBus {
    observers: Vec<Observer>,
    /// Events since the last [`EventBus::flush`]: waking a thread for each costs more than what it does with it.
    batch: Vec<Event>,
    lost: Vec<String>,
}

struct Observer {
    queue: Sender<Arc<[Event]>>,
    /// Events in the queue.
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl EventBus {
    pub(super) fn new(sinks: Vec<Box<dyn EventSink>>) -> Self {
        let mut bus = Self { observers: Vec::new(), batch: Vec::new(), lost: Vec::new() };
        for (index, mut sink) in sinks.into_iter().enumerate() {
            let (queue, batches) = channel::<Arc<[Event]>>();
            let waiting = Arc::new(AtomicUsize::new(0));
            let left = Arc::clone(&waiting);
            let builder = std::thread::Builder::new().name(format!("observer-{index}"));
            let spawned = builder.spawn(move || {
                while let Ok(batch) = batches.recv() {
                    for event in &*batch {
                        sink.event(event);
                        left.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                sink.finish();
            });
            match spawned {
                Ok(thread) => bus.observers.push(Observer { queue, waiting, thread }),
                Err(error) => bus.lost.push(format!("an observer could not be started: {error}")),
            }
        }
        bus
    }

    /// Tells everybody a durable fact, with the next [`EventBus::flush`].
    pub(super) fn fact(&mut self, record: Arc<Record>) {
        if self.has_observers() {
            self.batch.push(Event::Fact(record));
        }
    }

    /// Tells whoever keeps up, with the next [`EventBus::flush`].
    pub(super) fn progress(&mut self, progress: Progress) {
        if self.has_observers() {
            self.batch.push(Event::Progress(progress));
        }
    }

    /// As [`EventBus::progress`]; of each control form only the latest.
    pub(super) fn latest(&mut self, progress: Vec<Progress>) {
        let mut latest: HashSet<(StepPath, bool)> = HashSet::new();
        let kept: Vec<Progress> = progress
            .into_iter()
            .rev()
            .filter(|p| match p {
                Progress::Group { path, .. } => latest.insert((path.clone(), false)),
                Progress::GroupEnded { path, .. } => latest.insert((path.clone(), true)),
                Progress::Text { .. } | Progress::Note { .. } | Progress::Usage { .. } => true,
            })
            .collect();
        for progress in kept.into_iter().rev() {
            self.progress(progress);
        }
    }

    pub(super) fn has_observers(&self) -> bool {
        !self.observers.is_empty()
    }

    /// Sends what there is to tell.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch: Arc<[Event]> = std::mem::take(&mut self.batch).into();
        let must_arrive = batch.iter().any(|event| matches!(event, Event::Fact(_)));
        let lost = &mut self.lost;
        self.observers.retain(|observer| {
            if observer.waiting.load(Ordering::Relaxed) >= QUEUE {
                if must_arrive {
                    lost.push("an observer was too slow and was dropped".to_owned());
                }
                return !must_arrive;
            }
            observer.waiting.fetch_add(batch.len(), Ordering::Relaxed);
            let is_there = observer.queue.send(Arc::clone(&batch)).is_ok();
            if !is_there {
                lost.push("an observer panicked and was dropped".to_owned());
            }
            is_there
        });
    }

    /// Lets observers finish, for a while; gives what went wrong with them.
    pub(super) async fn finish(mut self) -> Vec<String> {
        self.flush();
        let mut lost = self.lost;
        let patience = tokio::time::Instant::now() + FLUSH;
        for Observer { queue, thread, .. } in self.observers {
            drop(queue);
            while !thread.is_finished() && tokio::time::Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if !thread.is_finished() {
                lost.push("an observer did not finish in time".to_owned());
            } else if thread.join().is_err() {
                lost.push("an observer panicked".to_owned());
            }
        }
        lost
    }
}
