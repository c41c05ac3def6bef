//! The embedded backend: the journal, the tasks and the timers of one run.
//!
//! Owns [`Dispatcher`]. Append first, then tell: what tasks hand back is appended and committed together (group commit), and
//! only then given to the schedule and the observers. Next: `executor.rs` for one attempt, `scope.rs` for its task,
//! `journal.rs` for what is on its way to the disk.

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
use crate::engine::effect::{DoneEffect, EffectPort, ProgressPort, Save, Saved, Surroundings};
use crate::engine::executor::{Attempt, execute};
use crate::engine::journal::{Batch, Journal};
use crate::engine::ledger::Ledger;
use crate::engine::replay::Attempts;
use crate::engine::scope::TaskScope;
use crate::engine::waiting::{OnceAnswer, Waiting};
use crate::error::{ErrorKind, StepError};
use crate::event::Progress;
use crate::fact::{AttemptEnd, Fact, Outcome};
use crate::path::{OpKey, OpRole, StepPath};
use crate::plan::Effects;
use crate::schedule::{Op, TaskCall};
use crate::step::RunInfo;
use crate::store::{RunLog, StoreError};
use crate::value::{Hash, Value};

/// Saves and progress messages that may wait.
const MESSAGES: usize = 1024;

/// The embedded backend of one run.
pub(super) struct Dispatcher {
    journal: Journal,
    clock: Arc<dyn Clock>,
    services: Arc<Services>,
    info: Arc<RunInfo>,
    pub(super) bus: EventBus,
    stop: CancellationToken,
    pub(super) waiting: Waiting,
    /// Parked accounts are waited for.
    pub(super) waits: bool,
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
    effects: HashMap<OpKey, Vec<DoneEffect>>,
    ledger: Ledger,
    saves: (mpsc::Sender<Save>, mpsc::Receiver<Save>),
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
    effects: Option<EffectPort>,
}

/// Something that completes without a task.
enum Settled {
    Ended(Box<AttemptEnd>),
    Skipped(String),
    Unparked,
}

/// Something that happened and is to be appended.
enum Happened {
    Told(Fact),
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
        ledger: Ledger,
        elapsed_before: u64,
    ) -> Self {
        Self {
            journal: Journal::new(log),
            clock,
            services,
            info,
            bus,
            stop,
            waiting: Waiting::default(),
            waits: false,
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
            ledger,
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

    /// Appends facts and makes them durable, with all that was appended before, then tells the observers.
    pub(super) async fn record(&mut self, facts: Vec<Fact>) -> Result<(), StoreError> {
        self.journal.gather(self.clock.now(), self.elapsed_ms(), facts, Vec::new())?;
        self.settle().await?;
        self.bus.flush();
        Ok(())
    }

    /// Waits until everything that was appended is durable, and tells of it.
    async fn settle(&mut self) -> Result<(), StoreError> {
        for batch in self.journal.settle().await? {
            self.tell(batch);
        }
        Ok(())
    }

    /// Tells everybody of a durable batch.
    fn tell(&mut self, batch: Batch) {
        for reply in batch.replies {
            // The attempt may have been stopped meanwhile: nobody waits for the answer then.
            let _ = reply.send(());
        }
        for record in batch.records {
            self.delivered.extend(record.completion());
            self.bus.fact(record);
        }
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

    fn launch(&mut self, key: OpKey, call: TaskCall) {
        let attempt = key.turn + self.ahead.get(&key.path).copied().unwrap_or(0);
        let started = Fact::AttemptStarted {
            path: key.path.clone(),
            attempt,
            turn: key.turn,
            fingerprint: call.fingerprint,
        };
        let cancel = CancellationToken::new();
        let running =
            Running { attempt, fingerprint: call.fingerprint, cancel: cancel.clone(), effects: None };
        self.running.insert(key.clone(), running);
        match self.journal.append(self.clock.now(), self.elapsed_ms(), vec![started]) {
            Ok(records) => records.into_iter().for_each(|r| self.bus.fact(r)),
            Err(error) => self.broken = Some(error),
        }
        if call.effects == Effects::Once {
            self.held.push((key, call));
        } else {
            self.spawn(key, call);
        }
    }

    fn spawn(&mut self, key: OpKey, call: TaskCall) {
        let Some(running) = self.running.get_mut(&key) else { return };
        let around = Surroundings {
            ledger: self.ledger.clone(),
            budgets: Arc::clone(&call.budgets),
            tape: self.services.tape.clone(),
            redactor: Arc::clone(&self.services.redactor),
        };
        let recorded = self.effects.remove(&key).unwrap_or_default();
        let effects = EffectPort::new(key.clone(), running.attempt, recorded, self.saves.0.clone(), around);
        running.effects = Some(effects.clone());
        let attempt = Attempt {
            number: running.attempt,
            run: Arc::clone(&self.info),
            services: Arc::clone(&self.services),
            effects,
            progress: if self.bus.has_observers() {
                let redactor = Arc::clone(&self.services.redactor);
                ProgressPort::new(key.path.clone(), self.progress.0.clone(), redactor)
            } else {
                ProgressPort::detached()
            },
            cancel: running.cancel.clone(),
            now: self.clock.now(),
            key: key.clone(),
        };
        self.tasks.spawn(key, execute(attempt, call));
    }

    fn ended(&mut self, key: &OpKey, mut end: AttemptEnd, all: &mut Vec<Happened>) {
        let running = self.running.remove(key);
        let attempt = running.as_ref().map_or(key.turn, |r| r.attempt);
        if let Some(effects) = running.as_ref().and_then(|r| r.effects.as_ref()) {
            effects.account(&mut end);
            if end.put_back {
                let (unsaved, done) = effects.leave();
                all.extend(unsaved.map(|done| Happened::Told(effect_done(key, attempt, done))));
                let next = OpKey { turn: key.turn + 1, ..key.clone() };
                self.effects.insert(next, done);
            }
        }
        let fingerprint = running.map_or_else(|| Hash::of(&()), |r| r.fingerprint);
        let (path, turn) = (key.path.clone(), key.turn);
        let end = Box::new(end);
        all.push(Happened::Told(Fact::AttemptEnded { path, attempt, turn, fingerprint, end }));
    }

    fn settled(&mut self, key: &OpKey, settled: Settled, all: &mut Vec<Happened>) {
        match settled {
            Settled::Ended(end) => self.ended(key, *end, all),
            Settled::Unparked => {
                let (path, turn, role) = (key.path.clone(), key.turn, key.role);
                all.push(Happened::Told(Fact::TimerFired { path, turn, role }));
            }
            Settled::Skipped(reason) => {
                let (path, turn) = (key.path.clone(), key.turn);
                all.push(Happened::Told(Fact::StepSkipped { path, turn, reason }));
            }
        }
    }

    fn saved(save: Save) -> Happened {
        let Save { key, attempt, what, reply } = save;
        let fact = match what {
            Saved::Effect(effect) => effect_done(&key, attempt, effect),
            Saved::Reserved(ordinal, spend) => {
                Fact::SpendReserved { path: key.path, attempt, turn: key.turn, ordinal, spend }
            }
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
        Some(Happened::Told(Fact::TimerFired { path: key.path, turn: key.turn, role: key.role }))
    }

    /// Whether every answer has its question and fits it.
    ///
    /// # Errors
    /// All that do not, a sentence each.
    pub(super) fn check_answers(&self, answers: &BTreeMap<String, Value>) -> Result<(), String> {
        let wrong: Vec<String> =
            answers.iter().filter_map(|(path, answer)| self.waiting.check(path, answer).err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Takes in an answer of a person.
    ///
    /// # Errors
    /// A sentence when nothing waits there, or when the answer does not fit.
    pub(super) fn answer(&mut self, path: &str, answer: Value) -> Result<(), String> {
        match self.waiting.answer(path, answer)? {
            (key, OnceAnswer::Ended(end)) => self.settled.push_back((key, Settled::Ended(end))),
            (key, OnceAnswer::Rerun(call)) => self.start(key, Op::Task(call)),
        }
        Ok(())
    }

    /// Lets every parked account be used at once.
    pub(super) fn unpark_all(&mut self) {
        while let Some(key) = self.waiting.unparked(self.clock.now(), true) {
            self.settled.push_back((key, Settled::Unparked));
        }
    }

    /// Completes what waited for wall time.
    fn wake(&mut self) {
        let now = self.clock.now();
        while let Some((key, end)) = self.waiting.overdue(now) {
            self.settled.push_back((key, Settled::Ended(Box::new(end))));
        }
        while let Some(key) = self.waiting.unparked(now, false) {
            self.settled.push_back((key, Settled::Unparked));
        }
    }

    /// Whether nothing is going on but deadlines.
    fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.settled.is_empty()
            && self.journal.is_settled()
            && self.timers.values().all(|key| key.role == OpRole::Deadline)
    }

    /// How long until something that waits for wall time is due.
    fn until_due(&self) -> Option<Duration> {
        let due = self.waiting.next_due()?.0.saturating_sub(self.clock.now().0);
        Some(Duration::from_millis(u64::try_from(due).unwrap_or(0)))
    }

    /// Waits for something to happen, then takes whatever else has happened already.
    async fn happened(&mut self) -> Result<Vec<Happened>, Stop> {
        let mut all = Vec::new();
        if self.settled.is_empty() {
            let until = self.timers.first_key_value().map_or(u64::MAX, |(place, _)| place.0);
            let wait = Duration::from_millis(until.saturating_sub(self.elapsed_before));
            let due = self.begun.checked_add(wait);
            let outside = self.until_due().and_then(|wait| Instant::now().checked_add(wait));
            let due = outside.map_or(due, |outside| Some(due.map_or(outside, |due| due.min(outside))));
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(all),
                batch = self.journal.durable() => self.tell(batch?),
                (key, end) = self.tasks.next() => self.ended(&key, end, &mut all),
                Some(save) = self.saves.1.recv() => all.push(Self::saved(save)),
                Some(progress) = self.progress.1.recv() => self.bus.progress(progress),
                () = sleep_until(due) => {}
            }
        }
        while let Some((key, settled)) = self.settled.pop_front() {
            self.settled(&key, settled, &mut all);
        }
        while let Some((key, end)) = self.tasks.try_next() {
            self.ended(&key, end, &mut all);
        }
        while let Ok(save) = self.saves.1.try_recv() {
            all.push(Self::saved(save));
        }
        while let Some(fired) = self.due_timer() {
            all.push(fired);
        }
        while let Ok(progress) = self.progress.1.try_recv() {
            self.bus.progress(progress);
        }
        Ok(all)
    }

    /// Appends what happened, for the next commit.
    fn gather(&mut self, happened: Vec<Happened>) -> Result<(), StoreError> {
        let (mut facts, mut replies) = (Vec::with_capacity(happened.len()), Vec::new());
        for happened in happened {
            match happened {
                Happened::Told(fact) => facts.push(fact),
                Happened::Saved(fact, reply) => {
                    facts.push(fact);
                    replies.push(reply);
                }
            }
        }
        if facts.is_empty() {
            return Ok(());
        }
        self.journal.gather(self.clock.now(), self.elapsed_ms(), facts, replies)
    }

    async fn start_held(&mut self) -> Result<(), StoreError> {
        if !self.held.is_empty() {
            self.journal.flush().await?;
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
        if self.stop.is_cancelled() {
            // The run is about to stop: what it decides from its last completions is for the resume.
            return;
        }
        match op {
            Op::Task(call) => self.launch(key, call),
            Op::Skip { reason } => self.settled.push_back((key, Settled::Skipped(reason))),
            Op::Settle(end) => self.settled.push_back((key, Settled::Ended(end))),
            Op::Ask(question) => self.waiting.ask(key, *question),
            Op::Park { until, message } => self.waiting.park(key, until, message),
            Op::Timer { until_ms } => {
                self.timer_serial += 1;
                let place = (until_ms, self.timer_serial);
                self.timer_keys.insert(key.clone(), place);
                self.timers.insert(place, key);
            }
        }
    }

    fn cancel(&mut self, key: &OpKey) {
        if self.waiting.remove(key) {
            let error = StepError::new(ErrorKind::Cancelled, "it was stopped before anybody answered");
            self.settled.push_back((key.clone(), Settled::Ended(Box::new(AttemptEnd::failed(error)))));
        } else if key.role != OpRole::Attempt {
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
                if self.journal.is_settled() {
                    return Err(Stop::Interrupted);
                }
                self.settle().await?;
                continue;
            }
            self.start_held().await?;
            self.wake();
            if self.is_idle()
                && let Some(stop) = self.waiting.stop()
                && !(self.waits && matches!(stop, Stop::Parked { .. }))
            {
                return Err(stop);
            }
            self.journal.commit();
            self.bus.flush();
            let happened = self.happened().await?;
            self.gather(happened)?;
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
        for progress in kept.into_iter().rev() {
            self.bus.progress(progress);
        }
    }
}

fn effect_done(key: &OpKey, attempt: u32, done: DoneEffect) -> Fact {
    Fact::EffectDone {
        path: key.path.clone(),
        attempt,
        turn: key.turn,
        name: done.name,
        ordinal: done.ordinal,
        request: done.request,
        value: done.value,
        usage: done.usage,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
