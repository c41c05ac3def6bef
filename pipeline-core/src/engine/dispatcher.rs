//! The embedded backend: the journal, the tasks and the timers of one run.
//!
//! Owns [`Dispatcher`]. Append first, then tell: what tasks hand back is appended and flushed together (group commit), and
//! only then given to the schedule and the observers. Next: `executor.rs` for one attempt, `scope.rs` for its task.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::catalog::Services;
use crate::clock::Clock;
use crate::engine::backend::{Backend, Stop};
use crate::engine::bus::EventBus;
use crate::engine::effect::{EffectPort, ProgressPort, SaveEffect};
use crate::engine::executor::{Attempt, execute};
use crate::engine::replay::Attempts;
use crate::engine::scope::TaskScope;
use crate::error::{ErrorKind, StepError};
use crate::event::Progress;
use crate::fact::{AttemptEnd, Fact, Outcome};
use crate::path::{OpKey, OpRole, StepPath};
use crate::plan::Effects;
use crate::schedule::{Op, TaskCall};
use crate::step::RunInfo;
use crate::store::{RunLog, StoreError};
use crate::value::Hash;

/// Saves and progress messages that may wait.
const MESSAGES: usize = 1024;

/// The embedded backend of one run.
pub(super) struct Dispatcher {
    log: Box<dyn RunLog>,
    clock: Arc<dyn Clock>,
    services: Arc<Services>,
    info: Arc<RunInfo>,
    pub(super) bus: EventBus,
    stop: CancellationToken,
    tasks: TaskScope,
    running: HashMap<OpKey, Running>,
    timers: BTreeMap<(u64, u64), OpKey>,
    timer_keys: HashMap<OpKey, (u64, u64)>,
    timer_serial: u64,
    settled: VecDeque<(OpKey, Settled)>,
    /// Attempts that must be on disk as started before they start.
    held: Vec<(OpKey, TaskCall)>,
    delivered: VecDeque<(OpKey, Outcome)>,
    ahead: HashMap<StepPath, u32>,
    effects: HashMap<OpKey, Vec<crate::engine::effect::DoneEffect>>,
    saves: (mpsc::Sender<SaveEffect>, mpsc::Receiver<SaveEffect>),
    progress: (mpsc::Sender<Progress>, mpsc::Receiver<Progress>),
    begun: Instant,
    elapsed_before: u64,
    broken: Option<StoreError>,
}

/// What is known of an attempt in flight.
struct Running {
    attempt: u32,
    fingerprint: Hash,
    cancel: CancellationToken,
}

/// Something that completes without a task.
enum Settled {
    Ended(Box<AttemptEnd>),
    Skipped(String),
}

/// Something that happened and is to be appended.
enum Happened {
    Completed(Fact),
    Saved(Fact, oneshot::Sender<()>),
}

impl Dispatcher {
    #[expect(clippy::too_many_arguments, reason = "one call site; they are the parts of a run")]
    pub(super) fn new(
        log: Box<dyn RunLog>,
        clock: Arc<dyn Clock>,
        services: Arc<Services>,
        info: Arc<RunInfo>,
        bus: EventBus,
        stop: CancellationToken,
        attempts: Attempts,
        elapsed_before: u64,
    ) -> Self {
        Self {
            log,
            clock,
            services,
            info,
            bus,
            stop,
            tasks: TaskScope::default(),
            running: HashMap::new(),
            timers: BTreeMap::new(),
            timer_keys: HashMap::new(),
            timer_serial: 0,
            settled: VecDeque::new(),
            held: Vec::new(),
            delivered: VecDeque::new(),
            ahead: attempts.ahead,
            effects: attempts.effects,
            saves: mpsc::channel(MESSAGES),
            progress: mpsc::channel(MESSAGES),
            begun: Instant::now(),
            elapsed_before,
            broken: None,
        }
    }

    /// The run's elapsed milliseconds.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.elapsed_before + u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Appends facts and makes them durable, then tells the observers.
    pub(super) async fn record(&mut self, facts: Vec<Fact>) -> Result<(), StoreError> {
        let records = self.append(facts)?;
        self.log.flush().await?;
        for record in &records {
            self.bus.fact(record);
        }
        Ok(())
    }

    /// Stops every task and waits until all are gone.
    pub(super) async fn shutdown(&mut self) {
        for running in self.running.values() {
            running.cancel.cancel();
        }
        self.tasks.shutdown().await;
        self.running.clear();
    }

    /// What went wrong with observers.
    pub(super) async fn finish(self) -> Vec<String> {
        self.bus.finish().await
    }

    fn append(&mut self, facts: Vec<Fact>) -> Result<Vec<Arc<crate::fact::Record>>, StoreError> {
        let (at, elapsed) = (self.clock.now(), self.elapsed_ms());
        Ok(self.log.append(at, elapsed, facts)?.into_iter().map(Arc::new).collect())
    }

    fn launch(&mut self, key: OpKey, call: TaskCall) {
        let attempt = key.turn + self.ahead.get(&key.path).copied().unwrap_or(0);
        let started = Fact::AttemptStarted {
            path: key.path.clone(),
            attempt,
            turn: key.turn,
            fingerprint: call.fingerprint,
        };
        let cancel = CancellationToken::new();
        let running = Running { attempt, fingerprint: call.fingerprint, cancel: cancel.clone() };
        self.running.insert(key.clone(), running);
        match self.append(vec![started]) {
            Ok(records) => records.iter().for_each(|r| self.bus.fact(r)),
            Err(error) => self.broken = Some(error),
        }
        if call.effects == Effects::Once {
            self.held.push((key, call));
        } else {
            self.spawn(key, call);
        }
    }

    fn spawn(&mut self, key: OpKey, call: TaskCall) {
        let Some(running) = self.running.get(&key) else { return };
        let recorded = self.effects.remove(&key).unwrap_or_default();
        let attempt = Attempt {
            number: running.attempt,
            run: Arc::clone(&self.info),
            services: Arc::clone(&self.services),
            effects: EffectPort::new(key.clone(), running.attempt, recorded, self.saves.0.clone()),
            progress: if self.bus.has_observers() {
                ProgressPort::new(key.path.clone(), self.progress.0.clone())
            } else {
                ProgressPort::detached()
            },
            cancel: running.cancel.clone(),
            key: key.clone(),
        };
        self.tasks.spawn(key, execute(attempt, call));
    }

    fn ended(&mut self, key: &OpKey, end: AttemptEnd) -> Happened {
        let running = self.running.remove(key);
        let attempt = running.as_ref().map_or(key.turn, |r| r.attempt);
        let fingerprint = running.map_or_else(|| Hash::of(&()), |r| r.fingerprint);
        let (path, turn) = (key.path.clone(), key.turn);
        Happened::Completed(Fact::AttemptEnded { path, attempt, turn, fingerprint, end: Box::new(end) })
    }

    fn settled(&mut self, key: &OpKey, settled: Settled) -> Happened {
        match settled {
            Settled::Ended(end) => self.ended(key, *end),
            Settled::Skipped(reason) => {
                Happened::Completed(Fact::StepSkipped { path: key.path.clone(), turn: key.turn, reason })
            }
        }
    }

    fn saved(save: SaveEffect) -> Happened {
        let SaveEffect { key, attempt, effect, reply } = save;
        let fact = Fact::EffectDone {
            path: key.path,
            attempt,
            turn: key.turn,
            name: effect.name,
            ordinal: effect.ordinal,
            request: effect.request,
            value: effect.value,
        };
        Happened::Saved(fact, reply)
    }

    fn due_timer(&mut self) -> Option<Happened> {
        let (&place, _) = self.timers.first_key_value()?;
        if place.0 > self.elapsed_ms() {
            return None;
        }
        let key = self.timers.remove(&place)?;
        self.timer_keys.remove(&key);
        Some(Happened::Completed(Fact::TimerFired { path: key.path, turn: key.turn, role: key.role }))
    }

    /// Waits for something to happen, then takes whatever else has happened already.
    async fn happened(&mut self) -> Result<Vec<Happened>, Stop> {
        let mut all = Vec::new();
        if self.settled.is_empty() {
            let until = self.timers.first_key_value().map_or(u64::MAX, |(place, _)| place.0);
            let wait = Duration::from_millis(until.saturating_sub(self.elapsed_before));
            let due = self.begun.checked_add(wait);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Stop::Interrupted),
                (key, end) = self.tasks.next() => { let ended = self.ended(&key, end); all.push(ended); }
                Some(save) = self.saves.1.recv() => all.push(Self::saved(save)),
                Some(progress) = self.progress.1.recv() => self.bus.progress(&progress),
                () = sleep_until(due) => {}
            }
        }
        while let Some((key, settled)) = self.settled.pop_front() {
            let settled = self.settled(&key, settled);
            all.push(settled);
        }
        while let Some((key, end)) = self.tasks.try_next() {
            let ended = self.ended(&key, end);
            all.push(ended);
        }
        while let Ok(save) = self.saves.1.try_recv() {
            all.push(Self::saved(save));
        }
        while let Some(fired) = self.due_timer() {
            all.push(fired);
        }
        while let Ok(progress) = self.progress.1.try_recv() {
            self.bus.progress(&progress);
        }
        Ok(all)
    }

    /// Makes what happened durable, then queues the completions and answers the saves.
    async fn settle(&mut self, happened: Vec<Happened>) -> Result<(), StoreError> {
        let mut replies = Vec::new();
        let facts = happened
            .into_iter()
            .map(|h| match h {
                Happened::Completed(fact) => fact,
                Happened::Saved(fact, reply) => {
                    replies.push(reply);
                    fact
                }
            })
            .collect();
        let records = self.append(facts)?;
        self.log.flush().await?;
        for reply in replies {
            // The attempt may have been stopped meanwhile: nobody waits for the answer then.
            let _ = reply.send(());
        }
        for record in &records {
            self.bus.fact(record);
            self.delivered.extend(record.completion());
        }
        Ok(())
    }

    async fn start_held(&mut self) -> Result<(), StoreError> {
        if !self.held.is_empty() {
            self.log.flush().await?;
            for (key, call) in std::mem::take(&mut self.held) {
                self.spawn(key, call);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Dispatcher {
    fn start(&mut self, key: OpKey, op: Op) {
        match op {
            Op::Task(call) => self.launch(key, call),
            Op::Skip { reason } => self.settled.push_back((key, Settled::Skipped(reason))),
            Op::Settle(end) => self.settled.push_back((key, Settled::Ended(end))),
            Op::Timer { until_ms } => {
                self.timer_serial += 1;
                let place = (until_ms, self.timer_serial);
                self.timer_keys.insert(key.clone(), place);
                self.timers.insert(place, key);
            }
        }
    }

    fn cancel(&mut self, key: &OpKey) {
        if key.role != OpRole::Attempt {
            if let Some(place) = self.timer_keys.remove(key) {
                self.timers.remove(&place);
            }
        } else if let Some(place) = self.held.iter().position(|(k, _)| k == key) {
            self.held.remove(place);
            let error = StepError::new(ErrorKind::Cancelled, "it was stopped before it started");
            self.settled.push_back((key.clone(), Settled::Ended(Box::new(AttemptEnd::failed(error)))));
        } else if let Some(running) = self.running.get(key) {
            running.cancel.cancel();
            self.tasks.abort(key);
        }
    }

    async fn next(&mut self) -> Result<(OpKey, Outcome), Stop> {
        loop {
            if let Some(error) = self.broken.take() {
                return Err(error.into());
            }
            if let Some(completion) = self.delivered.pop_front() {
                return Ok(completion);
            }
            if self.stop.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            self.start_held().await?;
            let happened = self.happened().await?;
            if !happened.is_empty() {
                self.settle(happened).await?;
            }
        }
    }

    fn progress(&mut self, progress: Vec<Progress>) {
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
        for progress in kept.iter().rev() {
            self.bus.progress(progress);
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
