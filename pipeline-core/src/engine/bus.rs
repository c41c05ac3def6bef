//! Delivers events to observers. Observers cannot hurt.
//!
//! Owns [`EventBus`]. Each observer has a thread and a bounded queue of its own: one that is slow loses progress and, when its
//! queue is full, is dropped; one that panics goes on with the next event, and is dropped when its budget of restarts is used
//! up. All of it is told as its [`Health`], and as a warning of the run.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::engine::scope::panic_words;
use crate::event::{Event, EventSink, Hears, Progress};
use crate::fact::Record;
use crate::path::StepPath;
use crate::service::{Health, Restarts, State};

/// Events that may wait for one observer, give or take the last batch.
const QUEUE: usize = 65_536;

/// How long the end of a run waits for its observers.
const FLUSH: Duration = Duration::from_secs(2);

/// The observers of one run.
pub(super) struct EventBus {
    observers: Vec<Observer>,
    /// Events since the last [`EventBus::flush`]: waking a thread for each costs more than what it does with it.
    batch: Vec<Event>,
}

struct Observer {
    hears: Hears,
    /// `None` = it gets nothing more.
    queue: Option<Sender<Arc<[Event]>>>,
    /// Events in the queue.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    health: Arc<Mutex<Health>>,
}

/// An observer on its thread.
struct Watched {
    sink: Box<dyn EventSink>,
    restarts: Restarts,
    health: Arc<Mutex<Health>>,
}

impl Watched {
    /// Tells everything that comes, until there is no more or the observer cannot go on.
    fn listen(mut self, batches: &Receiver<Arc<[Event]>>, waiting: &AtomicUsize) {
        while let Ok(batch) = batches.recv() {
            for event in &*batch {
                if !self.survives(|sink| sink.event(event)) {
                    return;
                }
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.survives(|sink| sink.finish());
    }

    /// Whether it goes on afterwards. It owns what it panicked in the middle of, so nobody else sees that half done.
    fn survives(&mut self, work: impl FnOnce(&mut dyn EventSink)) -> bool {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&mut *self.sink))) else { return true };
        let words = format!("it panicked: {}", panic_words(panic.as_ref()));
        match self.restarts.again(Instant::now()) {
            Some(pause) => {
                self.health.lock().restarted(words);
                std::thread::sleep(pause);
                true
            }
            None => {
                self.health.lock().down(format!("{words}, too often to go on"));
                false
            }
        }
    }
}

impl EventBus {
    pub(super) fn new(sinks: Vec<Box<dyn EventSink>>) -> Self {
        let begin = |(index, sink): (usize, Box<dyn EventSink>)| {
            let (queue, batches) = channel::<Arc<[Event]>>();
            let hears = sink.hears();
            let (waiting, health) =
                (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Health::new(sink.name()))));
            let watched = Watched { sink, restarts: Restarts::default(), health: Arc::clone(&health) };
            let left = Arc::clone(&waiting);
            let builder = std::thread::Builder::new().name(format!("observer-{index}"));
            match builder.spawn(move || watched.listen(&batches, &left)) {
                Ok(thread) => Observer { hears, queue: Some(queue), waiting, thread: Some(thread), health },
                Err(error) => {
                    health.lock().down(format!("it could not be started: {error}"));
                    Observer { hears, queue: None, waiting, thread: None, health }
                }
            }
        };
        Self { observers: sinks.into_iter().enumerate().map(begin).collect(), batch: Vec::new() }
    }

    /// Tells everybody a durable fact, with the next [`EventBus::flush`].
    pub(super) fn fact(&mut self, record: Arc<Record>) {
        if self.is_heard(Hears::Facts) {
            self.batch.push(Event::Fact(record));
        }
    }

    /// Tells whoever keeps up, with the next [`EventBus::flush`].
    pub(super) fn progress(&mut self, progress: Progress) {
        let level = match progress {
            Progress::Group { .. } | Progress::GroupEnded { .. } => Hears::Forms,
            Progress::Text { .. } | Progress::Note { .. } | Progress::Usage { .. } => Hears::All,
        };
        if self.is_heard(level) {
            self.batch.push(Event::Progress(progress));
        }
    }

    /// As [`EventBus::progress`]; of each control form only the latest.
    pub(super) fn latest(&mut self, progress: Vec<Progress>) {
        if !self.is_heard(Hears::Forms) {
            return;
        }
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

    /// Whether somebody hears as much as that.
    pub(super) fn is_heard(&self, level: Hears) -> bool {
        self.observers.iter().any(|observer| observer.queue.is_some() && observer.hears >= level)
    }

    /// Sends what there is to tell.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch: Arc<[Event]> = std::mem::take(&mut self.batch).into();
        let must_arrive = batch.iter().any(|event| matches!(event, Event::Fact(_)));
        for observer in &mut self.observers {
            let Some(queue) = &observer.queue else { continue };
            if observer.waiting.load(Ordering::Relaxed) >= QUEUE {
                if must_arrive {
                    observer.health.lock().down("it was too slow and was dropped");
                    observer.queue = None;
                }
                continue;
            }
            observer.waiting.fetch_add(batch.len(), Ordering::Relaxed);
            if queue.send(Arc::clone(&batch)).is_err() {
                // It has said why.
                observer.queue = None;
            }
        }
    }

    /// Lets observers finish, for a while; gives how they are.
    pub(super) async fn finish(mut self) -> Vec<Health> {
        self.flush();
        let patience = Instant::now() + FLUSH;
        let mut all = Vec::new();
        for Observer { queue, thread, health, .. } in self.observers {
            drop(queue);
            let is_finished = || thread.as_ref().is_none_or(JoinHandle::is_finished);
            while !is_finished() && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if !is_finished() {
                health.lock().down("it did not finish in time");
            }
            let health = health.lock().clone();
            all.push(health);
        }
        all
    }
}

/// What people should know of observers that did not see everything.
pub(super) fn warnings(services: &[Health]) -> Vec<String> {
    let words = |health: &Health| {
        let (name, why) = (&health.service, health.trouble.as_ref()?);
        Some(match health.state {
            State::Down => format!("the observer `{name}` sees the run no more: {why}"),
            State::Up => format!(
                "the observer `{name}` went on after trouble ({} times), the last: {why}",
                health.restarts
            ),
        })
    };
    services.iter().filter_map(words).collect()
}
