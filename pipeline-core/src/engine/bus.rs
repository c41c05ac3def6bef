//! Delivers events to observers. Observers cannot hurt.
//!
//! Owns [`EventBus`]. Each observer has a thread and a bounded queue of its own: one that is slow loses progress and, when its
//! queue is full, is dropped; one that panics is dropped. Either is reported as a warning of the run.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::event::{Event, EventSink, Progress};
use crate::fact::Record;

/// Events that may wait for one observer.
const QUEUE: usize = 65_536;

/// How long the end of a run waits for its observers.
const FLUSH: Duration = Duration::from_secs(2);

/// The observers of one run.
pub(super) struct EventBus {
    observers: Vec<Observer>,
    lost: Vec<String>,
}

struct Observer {
    queue: SyncSender<Event>,
    thread: JoinHandle<()>,
}

impl EventBus {
    pub(super) fn new(sinks: Vec<Box<dyn EventSink>>) -> Self {
        let mut bus = Self { observers: Vec::new(), lost: Vec::new() };
        for (index, mut sink) in sinks.into_iter().enumerate() {
            let (queue, events) = sync_channel::<Event>(QUEUE);
            let builder = std::thread::Builder::new().name(format!("observer-{index}"));
            let spawned = builder.spawn(move || {
                while let Ok(event) = events.recv() {
                    sink.event(&event);
                }
                sink.finish();
            });
            match spawned {
                Ok(thread) => bus.observers.push(Observer { queue, thread }),
                Err(error) => bus.lost.push(format!("an observer could not be started: {error}")),
            }
        }
        bus
    }

    /// Tells everybody a durable fact.
    pub(super) fn fact(&mut self, record: &Arc<Record>) {
        self.send(|| Event::Fact(Arc::clone(record)), true);
    }

    /// Tells whoever keeps up.
    pub(super) fn progress(&mut self, progress: &Progress) {
        self.send(|| Event::Progress(progress.clone()), false);
    }

    pub(super) fn has_observers(&self) -> bool {
        !self.observers.is_empty()
    }

    fn send(&mut self, event: impl Fn() -> Event, must_arrive: bool) {
        let lost = &mut self.lost;
        self.observers.retain(|observer| match observer.queue.try_send(event()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) if !must_arrive => true,
            Err(TrySendError::Full(_)) => {
                lost.push("an observer was too slow and was dropped".to_owned());
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                lost.push("an observer panicked and was dropped".to_owned());
                false
            }
        });
    }

    /// Lets observers finish, for a while; gives what went wrong with them.
    pub(super) async fn finish(self) -> Vec<String> {
        let mut lost = self.lost;
        let patience = tokio::time::Instant::now() + FLUSH;
        for Observer { queue, thread } in self.observers {
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
