//! The embedded backend: the journal, the tasks and the timers of one run.
//!
//! Owns [`Dispatcher`]. Append first, then tell: what tasks hand back is appended and committed together (group commit), and
//! only then given to the schedule and the observers. Next: `executor.rs` for one attempt, `scope.rs` for its task,
//! `journal.rs` for what is on its way to the disk, `dispatcher/follow.rs` for replays.

mod follow;
mod outside;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::catalog::Services;
use crate::clock::Clock;
use crate::engine::backend::{Backend, Stop};
use crate::engine::bus::{EventBus, warnings};
use crate::engine::effect::{DoneEffect, EffectPort, ProgressPort, Save, Saved, Surroundings};
use crate::engine::executor::{Attempt, execute};
use crate::engine::journal::{Batch, Journal};
use crate::engine::ledger::Ledger;
use crate::engine::replay::Attempts;
use crate::engine::run_clock::{RunClock, sleep_until};
use crate::engine::scope::TaskScope;
use crate::engine::timers::Timers;
use crate::engine::waiting::Waiting;
use crate::engine::watch::Watch;
use crate::error::{ErrorKind, StepError};
use crate::event::{Hears, Progress};
use crate::fact::{AttemptEnd, Fact, Outcome, Record, Status};
use crate::path::{OpKey, OpRole, StepPath};
use crate::plan::Effects;
use crate::resources::ResourceLimits;
use crate::schedule::{Op, TaskCall};
use crate::service::Health;
use crate::step::RunInfo;
use crate::store::{RunLog, StoreError};
use crate::value::Hash;

use follow::Following;

/// Saves and progress messages that may wait.
const MESSAGES: usize = 1024;

/// Most ends that are taken in before what follows from earlier ones is begun: of a thousand that come together, the places of the
/// first are taken again while the last are still being recorded.
const AT_ONCE: usize = 64;

/// How long after a stop more is taken in that ends meanwhile, in milliseconds. Nothing is waited for.
const LAST_MS: u64 = 100;

/// The embedded backend of one run.
pub(super) struct Dispatcher {
    journal: Journal,
    time: RunClock,
    services: Arc<Services>,
    info: Arc<RunInfo>,
    pub(super) bus: EventBus,
    stop: CancellationToken,
    pub(super) waiting: Waiting,
    /// Parked accounts are waited for.
    pub(super) waits: bool,
    watch: Watch,
    tasks: TaskScope,
    running: HashMap<OpKey, Running>,
    timers: Timers,
    settled: VecDeque<(OpKey, Settled)>,
    /// Attempts that must be on disk as started before they start.
    held: Vec<(OpKey, Box<TaskCall>)>,
    delivered: VecDeque<(OpKey, Outcome)>,
    ahead: HashMap<StepPath, u32>,
    effects: HashMap<OpKey, Vec<DoneEffect>>,
    ledger: Ledger,
    saves: (mpsc::Sender<Save>, mpsc::Receiver<Save>),
    progress: (mpsc::Sender<Progress>, mpsc::Receiver<Progress>),
    following: Following,
    /// When it was first noticed that the run is stopped, in elapsed milliseconds.
    stopped_ms: Option<u64>,
    broken: Option<StoreError>,
}

/// What is known of an attempt in flight.
struct Running {
    attempt: u32,
    fingerprint: Hash,
    cancel: CancellationToken,
    /// Ends it as if its time were over.
    overdue: CancellationToken,
    /// Where it waits to be stopped, in a replay: kept until it is.
    cut: Option<oneshot::Sender<()>>,
    effects: Option<EffectPort>,
    resources: ResourceLimits,
}

/// Something that completes without a task.
enum Settled {
    Ended(Box<AttemptEnd>),
    Skipped(String),
    Fired,
}

/// Something that happened and is to be appended.
enum Happened {
    Told(Fact),
    Saved(Fact, oneshot::Sender<()>),
    /// An attempt that begins when its turn has come.
    Begun(OpKey, Box<TaskCall>),
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
        records: &[Record],
    ) -> Self {
        let mut time = RunClock::new(clock, records.last().map_or(0, |record| record.elapsed_ms));
        let moments = services.tape.as_ref().map(|tape| tape.moments()).unwrap_or_default();
        // Its own: what stops one run is no business of another that the caller stops by the same token.
        let stop = stop.child_token();
        let watch = Watch::new(services.resources.clone(), stop.clone());
        let following = Following::of(moments, records, &mut time);
        Self {
            journal: Journal::new(log, services.tape.clone()),
            time,
            services,
            info,
            bus,
            stop,
            waiting: Waiting::default(),
            waits: false,
            watch,
            tasks: TaskScope::default(),
            running: HashMap::new(),
            timers: Timers::default(),
            settled: VecDeque::new(),
            held: Vec::new(),
            delivered: VecDeque::new(),
            ahead: attempts.ahead,
            effects: attempts.effects,
            ledger,
            saves: mpsc::channel(MESSAGES),
            progress: mpsc::channel(MESSAGES),
            following,
            stopped_ms: None,
            broken: None,
        }
    }

    /// The run's elapsed milliseconds.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.time.now().elapsed_ms
    }

    /// Appends a fact and makes it durable, with all that was appended before, then tells the observers. Gives the run's elapsed
    /// milliseconds that were recorded with it.
    pub(super) async fn record(&mut self, fact: Fact) -> Result<u64, StoreError> {
        self.take_turn(&fact);
        let time = self.time.now();
        self.journal.gather(time, vec![fact], Vec::new())?;
        self.settle().await?;
        self.bus.flush();
        Ok(time.elapsed_ms)
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

    /// Lets observers finish; gives what people should know, and how the observers are.
    pub(super) async fn finish(mut self) -> (Vec<String>, Vec<Health>) {
        let mut notes = self.following.notes();
        let services = self.bus.finish().await;
        notes.extend(warnings(&services));
        (notes, services)
    }

    /// The number of the physical attempt that does an operation.
    fn attempt_of(&self, key: &OpKey) -> u32 {
        key.turn + self.ahead.get(&key.path).copied().unwrap_or(0)
    }

    fn launch(&mut self, key: OpKey, call: Box<TaskCall>) {
        // A replay does as its recording did, whatever this process holds.
        let is_replay = self.following.order.is_kept();
        let resources = if is_replay { ResourceLimits::default() } else { call.resources };
        if !self.watch.begin(&key, resources) {
            return;
        }
        let attempt = self.attempt_of(&key);
        let started = Fact::AttemptStarted {
            path: key.path.clone(),
            attempt,
            turn: key.turn,
            fingerprint: call.fingerprint,
        };
        let cancel = CancellationToken::new();
        let overdue = CancellationToken::new();
        let fingerprint = call.fingerprint;
        let running = Running { attempt, fingerprint, cancel, overdue, cut: None, effects: None, resources };
        self.running.insert(key.clone(), running);
        match self.journal.append(self.time.now(), vec![started]) {
            Ok(records) => records.into_iter().for_each(|r| self.bus.fact(r)),
            Err(error) => self.broken = Some(error),
        }
        if call.effects == Effects::Once {
            self.held.push((key, call));
        } else {
            self.spawn(key, call);
        }
    }

    fn spawn(&mut self, key: OpKey, call: Box<TaskCall>) {
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
            progress: if self.bus.is_heard(Hears::All) {
                let redactor = Arc::clone(&self.services.redactor);
                ProgressPort::new(key.path.clone(), self.progress.0.clone(), redactor)
            } else {
                ProgressPort::detached()
            },
            cancel: running.cancel.clone(),
            overdue: running.overdue.clone(),
            grace: self.following.grace(&key),
            now: self.time.now().at,
            key: key.clone(),
        };
        self.tasks.spawn(key, execute(attempt, call));
    }

    fn ended(&mut self, key: &OpKey, mut end: Box<AttemptEnd>, all: &mut Vec<Happened>) {
        let running = self.running.remove(key);
        let resources = running.as_ref().map(|running| running.resources).unwrap_or_default();
        end.warnings.extend(self.watch.end(key, resources));
        let attempt = running.as_ref().map_or(key.turn, |r| r.attempt);
        if let Some(effects) = running.as_ref().and_then(|r| r.effects.as_ref()) {
            effects.account(&mut end);
            self.following.complete(key, &mut end, effects);
            if end.put_back {
                let (unsaved, done) = effects.leave();
                all.extend(unsaved.map(|done| Happened::Told(effect_done(key, attempt, done))));
                let next = OpKey { turn: key.turn + 1, ..key.clone() };
                self.effects.insert(next, done);
            }
        }
        let fingerprint = running.map_or_else(|| Hash::of(&()), |r| r.fingerprint);
        let (path, turn) = (key.path.clone(), key.turn);
        all.push(Happened::Told(Fact::AttemptEnded { path, attempt, turn, fingerprint, end }));
    }

    fn settled(&mut self, key: &OpKey, settled: Settled, all: &mut Vec<Happened>) {
        match settled {
            Settled::Ended(end) => self.ended(key, end, all),
            Settled::Fired => {
                let (path, turn, role) = (key.path.clone(), key.turn, key.role);
                all.push(Happened::Told(Fact::TimerFired { path, turn, role }));
            }
            Settled::Skipped(reason) => {
                let (path, turn) = (key.path.clone(), key.turn);
                all.push(Happened::Told(Fact::StepSkipped { path, turn, reason }));
            }
        }
    }

    fn saved(&mut self, save: Save, all: &mut Vec<Happened>) {
        let Save { key, attempt, what, reply } = save;
        let fact = match what {
            Saved::Missing => return self.miss(key, reply),
            Saved::Effect(effect) => effect_done(&key, attempt, effect),
            Saved::Reserved(ordinal, spend) => {
                Fact::SpendReserved { path: key.path, attempt, turn: key.turn, ordinal, spend }
            }
        };
        all.push(Happened::Saved(fact, reply));
    }

    /// Whether nothing is going on but deadlines.
    fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.settled.is_empty()
            && self.journal.is_settled()
            && self.timers.are_deadlines()
            && !self.following.order.is_holding()
    }

    /// Waits for something to happen, then takes whatever else has happened already.
    async fn happened(&mut self) -> Result<Vec<Happened>, Stop> {
        let (mut all, mut ends, mut saves) = (Vec::new(), Vec::new(), Vec::new());
        if self.settled.is_empty() {
            let due = self.due();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(all),
                batch = self.journal.durable() => self.tell(batch?),
                ended = self.tasks.next(), if !self.journal.is_busy() => ends.push(ended),
                Some(save) = self.saves.1.recv() => saves.push(save),
                Some(progress) = self.progress.1.recv() => self.bus.progress(progress),
                () = sleep_until(due) => {}
            }
        }
        self.watch.look_when_due();
        while let Some((key, settled)) = self.settled.pop_front() {
            self.settled(&key, settled, &mut all);
        }
        saves.extend(std::iter::from_fn(|| self.saves.1.try_recv().ok()));
        // What ends while a batch is on its way cannot become durable before the next: to be woken for each costs more than to
        // take them in together. Only a save comes after all that ended before it: it may reserve what they have set free.
        let most = match (saves.is_empty(), self.journal.is_busy()) {
            (false, _) => usize::MAX,
            (true, false) => AT_ONCE,
            (true, true) => 0,
        };
        ends.extend(std::iter::from_fn(|| self.tasks.try_next()).take(most));
        for (key, end) in ends {
            if matches!(end.status, Status::TimedOut | Status::Cancelled) {
                // It may have been cut off while it waited for this to be saved.
                for save in saves.extract_if(.., |save| save.key == key) {
                    self.saved(save, &mut all);
                }
            }
            self.ended(&key, end, &mut all);
        }
        for save in saves {
            self.saved(save, &mut all);
        }
        while !self.following.order.is_kept()
            && let Some(key) = self.timers.take_due(self.elapsed_ms())
        {
            self.settled(&key, Settled::Fired, &mut all);
        }
        while let Ok(progress) = self.progress.1.try_recv() {
            self.bus.progress(progress);
        }
        Ok(all)
    }

    /// Takes in what has ended well when the run is stopped: it was paid for. A failure may come of the stop itself, as where a
    /// whole group of processes is told to end: it is tried again.
    fn keep_the_last(&mut self) -> Result<(), StoreError> {
        let now = self.elapsed_ms();
        let is_late = now > *self.stopped_ms.get_or_insert(now) + LAST_MS;
        if is_late || self.following.is_on() {
            // In a replay everything is on the tape, and has its turn.
            return Ok(());
        }
        let mut all = Vec::new();
        while let Some((key, end)) = self.tasks.try_next() {
            if end.status.is_success() {
                self.ended(&key, end, &mut all);
            }
        }
        self.gather(all)
    }

    /// Appends what happened, for the next commit; in a replay, what has its turn.
    fn take_in(&mut self, happened: Vec<Happened>) -> Result<(), StoreError> {
        if !self.following.is_on() {
            return self.gather(happened);
        }
        for happened in happened {
            self.following.arrive(happened);
        }
        if self.is_impatient() {
            self.following.order.stall();
        }
        self.follow()
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
                Happened::Begun(key, call) => self.launch(key, call),
            }
        }
        if facts.is_empty() {
            return Ok(());
        }
        self.journal.gather(self.time.now(), facts, replies)
    }

    /// Stops an operation.
    fn stop_now(&mut self, key: &OpKey) {
        if self.waiting.remove(key) {
            let error = StepError::new(ErrorKind::Cancelled, "it was stopped before anybody answered");
            self.settled.push_back((key.clone(), Settled::Ended(Box::new(AttemptEnd::failed(error)))));
        } else if key.role != OpRole::Attempt {
            self.timers.stop(key);
        } else if let Some(place) = self.held.iter().position(|(k, _)| k == key) {
            self.held.remove(place);
            let error = StepError::new(ErrorKind::Cancelled, "it was stopped before it started");
            self.settled.push_back((key.clone(), Settled::Ended(Box::new(AttemptEnd::failed(error)))));
        } else if let Some(running) = self.running.get(key) {
            running.cancel.cancel();
            self.tasks.abort(key);
        }
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
            Op::Task(call) if self.following.is_on() => self.following.arrive(Happened::Begun(key, call)),
            Op::Task(call) => self.launch(key, call),
            Op::Skip { reason } => self.settled.push_back((key, Settled::Skipped(reason))),
            Op::Settle(end) => self.settled.push_back((key, Settled::Ended(end))),
            Op::Ask(question) => self.ask(key, *question),
            Op::Park { until, message } => self.waiting.park(key, until, message),
            Op::Timer { until_ms } => self.timers.start(key, until_ms),
        }
    }

    fn cancel(&mut self, key: &OpKey) {
        if !self.puts_off(key) {
            self.stop_now(key);
        }
    }

    async fn next(&mut self) -> Result<(OpKey, Outcome), Stop> {
        loop {
            if let Some(error) = self.broken.take() {
                return Err(error.into());
            }
            // What was gathered is on its way to the disk while what is durable is decided on.
            self.journal.commit();
            if let Some(completion) = self.delivered.pop_front() {
                return Ok(completion);
            }
            if self.stop.is_cancelled() {
                self.keep_the_last()?;
                if self.journal.is_settled() {
                    return Err(self
                        .watch
                        .why()
                        .map_or(Stop::Interrupted, |why| Stop::Budget(why.to_owned())));
                }
                self.settle().await?;
                continue;
            }
            self.start_held().await?;
            if self.following.is_on() {
                self.follow()?;
            }
            if !self.following.order.is_kept() {
                self.wake();
            }
            if self.is_idle()
                && let Some(stop) = self.waiting.stop()
                && !(self.waits && matches!(stop, Stop::Parked { .. }))
            {
                return Err(stop);
            }
            if self.is_stuck() {
                self.following.order.stall();
                self.follow()?;
                continue;
            }
            self.journal.commit();
            self.bus.flush();
            let happened = self.happened().await?;
            self.take_in(happened)?;
        }
    }

    fn progress(&mut self, progress: Vec<Progress>) {
        self.bus.latest(progress);
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
