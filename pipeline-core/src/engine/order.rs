//! The order in which a recorded run made its facts, and what waits for its turn.
//!
//! Owns [`Order`]. It is data: what arrives too early is held, and given back when all that the tape has before it was given.
//! A run that does not do what the tape has leaves the order once and for all, and goes on in its own: its facts keep their times.
//! Must not know clocks, tasks or tapes. Next: `dispatcher/follow.rs`, which asks it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::fact::{Record, Status};
use crate::path::OpKey;
use crate::tape::{FactKey, FactKind, Moment, RecordedEnd, RunTime};

/// The recorded order of a run, and what has arrived before its turn. The default keeps no order at all.
pub(super) struct Order<T> {
    /// What is still to come, in order.
    expected: VecDeque<Moment>,
    /// Every fact on the tape.
    known: HashMap<FactKey, Known>,
    /// What waits for its turn, as it arrived.
    held: BTreeMap<u64, Held<T>>,
    places: HashMap<FactKey, u64>,
    /// What a physical attempt does again: it has no turn.
    again: VecDeque<T>,
    serial: u64,
    is_kept: bool,
    /// Why the order was left, until somebody asked.
    left: Option<String>,
}

struct Known {
    time: RunTime,
    end: Option<RecordedEnd>,
    is_to_come: bool,
}

struct Held<T> {
    key: FactKey,
    end: Option<End>,
    item: T,
}

/// How an attempt ended that arrives.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) status: Status,
    /// It did something else than the recorded one.
    pub(super) has_missed: bool,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            expected: VecDeque::new(),
            known: HashMap::new(),
            held: BTreeMap::new(),
            places: HashMap::new(),
            again: VecDeque::new(),
            serial: 0,
            is_kept: false,
            left: None,
        }
    }
}

impl<T> Order<T> {
    /// The order of a tape, for a run that has made `records` already.
    pub(super) fn of(moments: Vec<Moment>, records: &[Record]) -> Self {
        let mut order = Self { is_kept: !moments.is_empty(), ..Self::default() };
        for moment in moments {
            // An attempt that a crash cut off began twice: here it does not.
            if is_repeated(moment.key.fact) && !order.known.contains_key(&moment.key) {
                order.known.insert(
                    moment.key.clone(),
                    Known { time: moment.time, end: moment.end, is_to_come: true },
                );
                order.expected.push_back(moment);
            }
        }
        for key in records.iter().map(|record| FactKey::of(&record.fact)).filter(|key| is_repeated(key.fact))
        {
            let is_again = order.known.get(&key).is_some_and(|known| !known.is_to_come);
            if !is_again && order.take(&key).is_none() {
                order.leave(format!("{} was not recorded there", name(&key)));
            }
        }
        order
    }

    /// Whether the order is kept: there is one, and it was not left.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether there is none: everything goes on as it comes.
    pub(super) fn is_none(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether something waits for its turn.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// What must come next; `None` when the order is not kept.
    pub(super) fn expected(&self) -> Option<&Moment> {
        self.expected.front().filter(|_| self.is_kept)
    }

    /// How the tape has the end of an operation.
    pub(super) fn end(&self, key: &OpKey) -> Option<&RecordedEnd> {
        self.known.get(&FactKey::end_of(key))?.end.as_ref()
    }

    /// Whether the tape has the completion of an operation, and it is still to come.
    pub(super) fn is_to_come(&self, key: &OpKey) -> bool {
        self.is_kept && self.known.get(&FactKey::end_of(key)).is_some_and(|known| known.is_to_come)
    }

    /// Takes in what has happened; `end` is how an attempt ended. What is not on the tape has its turn after everything that
    /// still comes of what is.
    pub(super) fn arrive(&mut self, key: FactKey, end: Option<End>, item: T) {
        if self.is_kept && self.known.get(&key).is_some_and(|known| !known.is_to_come) {
            return self.again.push_back(item);
        }
        self.serial += 1;
        self.places.insert(key.clone(), self.serial);
        self.held.insert(self.serial, Held { key, end, item });
    }

    /// Takes back what waits for its turn.
    pub(super) fn withdraw(&mut self, key: &FactKey) -> Option<T> {
        let place = self.places.remove(key)?;
        self.held.remove(&place).map(|held| held.item)
    }

    /// What may go on now, with the time that the tape has for it. When the order was left, and [`Order::left`] has told why:
    /// whatever was held, as it came.
    pub(super) fn next(&mut self) -> Option<(T, Option<RunTime>)> {
        if self.left.is_some() {
            return None;
        }
        if let Some(item) = self.again.pop_front() {
            return Some((item, None));
        }
        if !self.is_kept {
            let (_, held) = self.held.pop_first()?;
            self.places.remove(&held.key);
            let time = self.take(&held.key);
            return Some((held.item, time));
        }
        let moment = self.expected.front()?;
        let held = self.held.get(self.places.get(&moment.key)?)?;
        if let (Some(recorded), Some(end)) = (moment.end.map(|end| end.status), held.end)
            && recorded != end.status
        {
            // One that was quicker than it was is stopped all the same, when that is asked for.
            if recorded != Status::Cancelled || end.has_missed {
                let key = name(&moment.key);
                self.leave(format!("{key} is `{}`, and was `{}`", end.status.name(), recorded.name()));
            }
            return None;
        }
        let key = moment.key.clone();
        let time = self.take(&key)?;
        self.withdraw(&key).map(|item| (item, Some(time)))
    }

    /// The time of `key`, if it is its turn, which is over then; any time is, when the order was left.
    pub(super) fn take(&mut self, key: &FactKey) -> Option<RunTime> {
        if self.is_kept {
            self.expected.pop_front_if(|moment| moment.key == *key)?;
        }
        let known = self.known.get_mut(key)?;
        std::mem::take(&mut known.is_to_come).then_some(known.time)
    }

    /// From here on the run makes its own order; says why, once.
    pub(super) fn leave(&mut self, why: String) {
        if std::mem::take(&mut self.is_kept) {
            self.left = Some(why);
        }
    }

    /// Leaves the order, because nothing leads to what must come next.
    pub(super) fn stall(&mut self) {
        let unknown = self.held.values().find(|held| !self.known.contains_key(&held.key));
        if let Some(unknown) = unknown {
            return self.leave(format!("{} is not on the tape", name(&unknown.key)));
        }
        let why = match self.expected() {
            Some(moment) => {
                format!("the tape goes on with {}, and nothing leads there", name(&moment.key))
            }
            None => "the tape ends there".to_owned(),
        };
        self.leave(why);
    }

    /// Why the order was left; told once.
    pub(super) fn left(&mut self) -> Option<String> {
        self.left.take()
    }
}

/// Whether a replay makes this kind of fact again: it is interrupted on its own account.
fn is_repeated(fact: FactKind) -> bool {
    !matches!(fact, FactKind::RunPaused | FactKind::RunResumed)
}

/// A fact, for people.
fn name(key: &FactKey) -> String {
    let what = match key.fact {
        FactKind::RunStarted | FactKind::RunPaused | FactKind::RunResumed => "the begin of the run",
        FactKind::RunEnded => "the end of the run",
        FactKind::StepSkipped => "that it is skipped",
        FactKind::AttemptStarted => "the begin",
        FactKind::EffectDone | FactKind::SpendReserved => "an effect",
        FactKind::AttemptEnded => "the end",
        FactKind::TimerFired => "the timer",
    };
    if key.path.is_root() { what.to_owned() } else { format!("{what} of `{}`", key.operation()) }
}
