//! How a run is replayed in the order of its recording.
//!
//! Owns [`Following`]. While the order is kept, nothing is appended before its turn, timers fire when the tape says so and no
//! one waits for them, and a request to stop is obeyed as it was. What leaves the order is told once; from there on the
//! dispatcher does what it always does, and only the times of facts are the recorded ones. Must not know tapes. The order
//! itself: `order.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, Happened, Settled};
use crate::engine::effect::EffectPort;
use crate::engine::executor::Grace;
use crate::engine::order::{End, Order};
use crate::engine::run_clock::RunClock;
use crate::fact::{AttemptEnd, Fact, Record, Status};
use crate::path::OpKey;
use crate::store::StoreError;
use crate::tape::{FactKey, FactKind, Moment, RunTime};

/// How long a replay is quiet, with something held back, before it is believed that it never goes on: an attempt may wait for
/// one that is held back in ways that nobody here can see.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a run remembers of the recording that it follows.
pub(super) struct Following {
    pub(super) order: Order<Happened>,
    /// Attempts that were cut off where they are now, and how to tell them that they are not.
    cut: BTreeMap<OpKey, oneshot::Sender<()>>,
    /// Attempts that wait until an effect is saved, whose turn has not come.
    saving: HashSet<OpKey>,
    /// What was asked to stop, and stops when the tape says so; if it says otherwise, it was too late.
    asked: BTreeSet<OpKey>,
    /// Attempts whose deadline holds when the tape says that it passed, not before.
    graces: HashMap<OpKey, CancellationToken>,
    /// What is stopping.
    stopping: HashSet<OpKey>,
    /// What did something else than the recorded attempt.
    missed: HashSet<OpKey>,
    /// When something last happened.
    heard: Instant,
    /// What people should know.
    notes: Vec<String>,
}

impl Following {
    /// Follows a recording, if there are moments of one, in a run that has made `records` already.
    pub(super) fn of(moments: Vec<Moment>, records: &[Record], time: &mut RunClock) -> Self {
        let order = Order::of(moments, records);
        if let Some(last) = records.last().filter(|_| !order.is_none()) {
            time.put_to(RunTime { at: last.at, elapsed_ms: last.elapsed_ms });
        }
        Self {
            order,
            cut: BTreeMap::new(),
            saving: HashSet::new(),
            asked: BTreeSet::new(),
            graces: HashMap::new(),
            stopping: HashSet::new(),
            missed: HashSet::new(),
            heard: Instant::now(),
            notes: Vec::new(),
        }
    }

    /// Whether what happens must be asked for its turn.
    pub(super) fn is_on(&self) -> bool {
        !self.order.is_none()
    }

    pub(super) fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn arrive(&mut self, happened: Happened) {
        self.heard = Instant::now();
        let (key, end) = match &happened {
            Happened::Begun(key, _) => (FactKey::start_of(key), None),
            Happened::Told(fact @ Fact::AttemptEnded { end, .. }) => {
                let key = FactKey::of(fact);
                let has_missed = self.missed.contains(&key.operation());
                (key, Some(End { status: end.status, has_missed }))
            }
            Happened::Told(fact) => (FactKey::of(fact), None),
            Happened::Saved(fact, _) => {
                let key = FactKey::of(fact);
                self.saving.insert(key.operation());
                (key, None)
            }
        };
        self.order.arrive(key, end, happened);
    }

    /// Makes an end the recorded one, as far as that is not the step's own doing.
    pub(super) fn complete(&mut self, key: &OpKey, end: &mut AttemptEnd, effects: &EffectPort) {
        self.cut.remove(key);
        self.graces.remove(key);
        if effects.has_missed() {
            self.missed.insert(key.clone());
        }
        self.correct(key, end);
    }

    /// An attempt that was stopped is stopped although it was quicker than it was, and the recorded measures hold.
    fn correct(&self, key: &OpKey, end: &mut AttemptEnd) {
        if self.stopping.contains(key) && !self.missed.contains(key) {
            *end = AttemptEnd { usage: end.usage, ..AttemptEnd::stopped() };
        }
        if let Some(recorded) = self.order.end(key)
            && recorded.status == end.status
        {
            end.duration_ms = recorded.duration_ms;
            end.unsettled = recorded.unsettled;
            end.put_back |= recorded.put_back;
        }
    }

    /// How much longer than its deadline an attempt may take whose end the tape has: it may be slower today, and it waits for
    /// its turn before it goes on.
    pub(super) fn grace(&mut self, key: &OpKey) -> Option<Grace> {
        self.order.is_to_come(key).then(|| {
            let is_over = CancellationToken::new();
            self.graces.insert(key.clone(), is_over.clone());
            Grace { is_over, most: PATIENCE }
        })
    }

    /// Until when it is worth waiting for what has its turn.
    pub(super) fn patience(&self) -> Option<Instant> {
        (self.order.is_holding() || !self.cut.is_empty()).then(|| self.heard + PATIENCE)
    }
}

impl Dispatcher {
    /// Puts the run's time to that of a fact which waits for nothing. A run that ends before its recording has left it.
    pub(super) fn take_turn(&mut self, fact: &Fact) {
        if let Some(time) = self.following.order.take(&FactKey::of(fact)) {
            self.time.put_to(time);
        } else if self.following.order.is_kept() && matches!(fact, Fact::RunEnded { .. }) {
            self.following.order.stall();
            if let Some(why) = self.following.order.left() {
                self.leave(&why);
            }
        }
    }

    /// Gives everything its turn whose turn has come.
    pub(super) fn follow(&mut self) -> Result<(), StoreError> {
        loop {
            self.make_it_happen();
            let Some((happened, time)) = self.following.order.next() else {
                match self.following.order.left() {
                    Some(why) => self.leave(&why),
                    None => return Ok(()),
                }
                continue;
            };
            if let Some(time) = time {
                self.time.put_to(time);
            }
            if let Happened::Saved(fact, _) = &happened {
                self.following.saving.remove(&FactKey::of(fact).operation());
            }
            self.gather(vec![happened])?;
        }
    }

    /// What the recording waited for is there at once: timers, deadlines, quotas, people who did not answer.
    fn make_it_happen(&mut self) {
        let Some(expected) = self.following.order.expected() else { return };
        let key = expected.key.operation();
        match expected.key.fact {
            FactKind::SpendReserved => {
                let (ordinal, spend) = (expected.key.ordinal, expected.spend);
                let (attempt, OpKey { path, turn, .. }) = (self.attempt_of(&key), key);
                if let (Some(ordinal), Some(spend)) = (ordinal, spend) {
                    let reserved = Fact::SpendReserved { path, attempt, turn, ordinal, spend };
                    self.following.arrive(Happened::Told(reserved));
                }
            }
            FactKind::TimerFired if self.timers.stop(&key) || self.waiting.unpark(&key) => {
                self.settled.push_back((key, Settled::Fired));
            }
            FactKind::AttemptEnded => match self.following.order.end(&key).map(|end| end.status) {
                Some(Status::TimedOut) if self.following.cut.contains_key(&key) => {
                    self.part(&key);
                    self.overdue(&key);
                }
                Some(status @ (Status::TimedOut | Status::Degraded)) => {
                    if status == Status::TimedOut
                        && let Some(is_over) = self.following.graces.remove(&key)
                    {
                        is_over.cancel();
                    }
                    if let Some(end) = self.waiting.give_up(&key) {
                        self.settled.push_back((key, Settled::Ended(Box::new(end))));
                    }
                }
                Some(Status::Cancelled) if self.following.asked.remove(&key) => self.stop_in_time(key),
                _ => {}
            },
            _ => {}
        }
    }

    /// An attempt that waits where it was cut off is about to be stopped: it counts as going on until it is.
    fn part(&mut self, key: &OpKey) {
        if let Some(running) = self.running.get_mut(key) {
            running.cut = self.following.cut.remove(key);
        }
    }

    fn overdue(&self, key: &OpKey) {
        if let Some(running) = self.running.get(key) {
            running.overdue.cancel();
        }
    }

    /// An attempt has come to where the tape has nothing: it waits to be cut off, if the recorded one was.
    pub(super) fn miss(&mut self, key: OpKey, reply: oneshot::Sender<()>) {
        self.following.heard = Instant::now();
        if self.following.stopping.contains(&key) {
            // It is being stopped already: it waits until it is, and nobody waits for it.
            if let Some(running) = self.running.get_mut(&key) {
                running.cut = Some(reply);
            }
            return;
        }
        let end = self.following.order.end(&key).map(|end| end.status);
        if matches!(end, Some(Status::TimedOut | Status::Cancelled)) && self.following.order.is_to_come(&key)
        {
            self.following.cut.insert(key, reply);
        } else {
            self.let_go(&key, reply);
        }
    }

    /// Lets an attempt end that was cut off in the recording: nobody else will.
    fn let_go(&mut self, key: &OpKey, reply: oneshot::Sender<()>) {
        if self.following.order.end(key).is_some_and(|end| end.status == Status::TimedOut) {
            self.following.cut.insert(key.clone(), reply);
            self.part(key);
            self.overdue(key);
        } else {
            // The attempt may have been stopped meanwhile: nobody waits for the answer then.
            let _ = reply.send(());
        }
    }

    /// Whether the recording says what a request to stop comes to, and when.
    pub(super) fn puts_off(&mut self, key: &OpKey) -> bool {
        let puts_off = self.following.order.is_to_come(key);
        if puts_off {
            self.following.asked.insert(key.clone());
        }
        puts_off
    }

    /// Stops what was stopped here. It may have ended already, being quicker than it was.
    fn stop_in_time(&mut self, key: OpKey) {
        self.part(&key);
        let following = &mut self.following;
        following.stopping.insert(key.clone());
        let Some(mut happened) = following.order.withdraw(&FactKey::end_of(&key)) else {
            return self.stop_now(&key);
        };
        if let Happened::Told(Fact::AttemptEnded { end, .. }) = &mut happened {
            following.correct(&key, end);
        }
        following.arrive(happened);
    }

    /// Whether nothing is going on that could lead to what comes next.
    pub(super) fn is_stuck(&self) -> bool {
        let following = &self.following;
        following.order.is_kept()
            && following.cut.len() + following.saving.len() >= self.running.len()
            && self
                .running
                .keys()
                .all(|key| following.cut.contains_key(key) || following.saving.contains(key))
            && self.delivered.is_empty()
            && self.settled.is_empty()
            && self.held.is_empty()
            && self.journal.is_settled()
    }

    /// Whether too long nothing has happened.
    pub(super) fn is_impatient(&self) -> bool {
        self.following.order.is_kept()
            && self.following.patience().is_some_and(|until| until <= Instant::now())
    }

    /// From here on, the run goes its own way.
    fn leave(&mut self, why: &str) {
        self.time.go_on();
        let note = format!("from here on this run is not in the order of its recording: {why}");
        self.following.notes.push(note);
        self.following.saving.clear();
        self.following.stopping.clear();
        for is_over in std::mem::take(&mut self.following.graces).into_values() {
            is_over.cancel();
        }
        for (key, reply) in std::mem::take(&mut self.following.cut) {
            self.let_go(&key, reply);
        }
        for key in std::mem::take(&mut self.following.asked) {
            self.stop_now(&key);
        }
    }
}
