//! What a run may still spend: an amount is reserved before a call and settled after it.
//!
//! Owns [`Ledger`], one for all branches, children, repairs and tool turns of a run. A limit belongs to a place: the run
//! itself, a step or a child pipeline; whatever is spent below that place counts. What was in flight when a process
//! died counts as spent in full: nobody saw its bill. Must not know providers or the journal.

#[cfg(all(test, shuttle))]
mod models;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::error::{ErrorKind, StepError};
use crate::fact::{Fact, Record, Spend, Usage};
use crate::path::StepPath;
use crate::schedule::BudgetAt;
use crate::sync::Mutex;
use crate::usage::{Price, WorstCase};

/// The account of one run.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Inner>);

#[derive(Default)]
struct Inner {
    books: Mutex<Books>,
    changed: Notify,
}

#[derive(Default)]
struct Books {
    places: BTreeMap<StepPath, Account>,
    /// What was spent before this process, by place: new accounts begin with their share.
    before: Vec<(StepPath, Spend)>,
}

#[derive(Default, Clone, Copy)]
struct Account {
    settled: Spend,
    reserved: Spend,
    /// Reservations that are open: whether sums of dollars come out at nothing says no more than that they nearly do.
    open: usize,
}

/// Why nothing could be reserved.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What to tell people.
    pub error: StepError,
    /// The limit is the run's own: the run stops, and can go on with a higher one.
    pub is_of_run: bool,
}

/// An amount that is reserved. Dropping it without [`Reservation::settle`] counts it as spent.
pub struct Reservation {
    ledger: Ledger,
    places: Vec<StepPath>,
    spend: Spend,
    is_open: bool,
}

impl Ledger {
    /// The account of a run that other processes have worked on.
    pub fn of(records: &[Record]) -> Self {
        let before = spent(records);
        Self(Arc::new(Inner { books: Mutex::new(Books { before, ..Books::default() }), ..Inner::default() }))
    }

    /// Reserves the worst case of a call under every limit of `chain`; waits while amounts that others have reserved may
    /// still come back. Gives `None` where no limit applies.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot fit, or when nobody knows what the call costs.
    pub async fn reserve(
        &self,
        chain: &[BudgetAt],
        worst: WorstCase,
    ) -> Result<Option<Reservation>, Box<Refusal>> {
        if chain.is_empty() {
            return Ok(None);
        }
        loop {
            let changed = self.0.changed.notified();
            match self.try_reserve(chain, worst) {
                Attempt::Reserved(spend) => {
                    let places = chain.iter().map(|b| b.path.clone()).collect();
                    return Ok(Some(Reservation { ledger: self.clone(), places, spend, is_open: true }));
                }
                Attempt::Refused(refusal) => return Err(refusal),
                Attempt::Wait => changed.await,
            }
        }
    }

    fn try_reserve(&self, chain: &[BudgetAt], worst: WorstCase) -> Attempt {
        let mut books = self.0.books.lock();
        let mut spend = Spend { cost_usd: 0.0, tokens: worst.tokens };
        let mut room: Option<(f64, bool)> = None;
        for budget in chain {
            let account = books.account(&budget.path);
            let waits = account.open > 0;
            if let Some(most) = budget.max_tokens {
                let taken = account.settled.tokens.saturating_add(account.reserved.tokens);
                let left = most.saturating_sub(taken);
                if worst.tokens > left {
                    let what = format!(
                        "max_tokens: {} of {most} tokens are used, and the next call may use {}",
                        account.settled.tokens, worst.tokens
                    );
                    return Attempt::no(waits, budget, &what);
                }
            }
            if let Some(most) = budget.max_cost_usd {
                let left = most - account.settled.cost_usd - account.reserved.cost_usd;
                let told = |next: &str| {
                    let spent = account.settled.cost_usd;
                    format!("max_cost_usd: {spent:.4} of {most} US dollars are spent, and {next}")
                };
                match worst.cost {
                    Price::AtMost(cost) if cost > left + ROUNDING => {
                        return Attempt::no(
                            waits,
                            budget,
                            &told(&format!("the next call may cost {cost:.4}")),
                        );
                    }
                    Price::AtMost(cost) => spend.cost_usd = cost,
                    Price::AsAllowed if left < LEAST => {
                        return Attempt::no(waits, budget, &told("an agent needs more than what is left"));
                    }
                    Price::AsAllowed => {
                        let tightest = room.map_or(left, |(least, _)| least.min(left));
                        room = Some((tightest, waits || room.is_some_and(|(_, w)| w)));
                    }
                    Price::Unknown => return Attempt::Refused(unpriced(budget)),
                }
            }
        }
        if let Some((left, others)) = room {
            // Alone, an agent may spend all that is left; beside others, half, so that each can go on.
            spend.cost_usd = if others && left / 2.0 >= LEAST { left / 2.0 } else { left };
        }
        for budget in chain {
            let account = books.account(&budget.path);
            account.reserved.add(&spend);
            account.open += 1;
        }
        Attempt::Reserved(spend)
    }

    fn close(&self, places: &[StepPath], reserved: Spend, spent: Spend) {
        let mut books = self.0.books.lock();
        for place in places {
            let account = books.account(place);
            account.open -= 1;
            account.reserved.tokens = account.reserved.tokens.saturating_sub(reserved.tokens);
            account.reserved.cost_usd -= reserved.cost_usd;
            if account.open == 0 {
                account.reserved = Spend::default();
            }
            account.settled.add(&spent);
        }
        drop(books);
        self.0.changed.notify_waiters();
    }
}

/// Sums of many small amounts do not come out exactly.
const ROUNDING: f64 = 1e-9;

/// An agent that is given less than this cannot make one call.
const LEAST: f64 = 0.01;

enum Attempt {
    Reserved(Spend),
    Refused(Box<Refusal>),
    Wait,
}

impl Attempt {
    fn no(waits: bool, budget: &BudgetAt, what: &str) -> Self {
        if waits {
            return Self::Wait;
        }
        let is_of_run = budget.path == StepPath::root();
        let message =
            if is_of_run { what.to_owned() } else { format!("the budget of `{}`: {what}", budget.path) };
        let help = "raise the limit, or give each call less to do (`max_output_tokens`)";
        Self::Refused(Box::new(Refusal {
            error: StepError::new(ErrorKind::Budget, message).help(help),
            is_of_run,
        }))
    }
}

fn unpriced(budget: &BudgetAt) -> Box<Refusal> {
    let most = budget.max_cost_usd.unwrap_or_default();
    let message = format!("nobody knows what this model costs, and there is a limit of {most} US dollars");
    let help =
        "give its prices under `providers.NAME.prices`, use another model, or limit `max_tokens` instead";
    Box::new(Refusal { error: StepError::new(ErrorKind::Budget, message).help(help), is_of_run: false })
}

impl Books {
    fn account(&mut self, place: &StepPath) -> &mut Account {
        let before = &self.before;
        self.places.entry(place.clone()).or_insert_with(|| {
            let mut account = Account::default();
            before.iter().filter(|(path, _)| path.is_within(place)).for_each(|(_, s)| account.settled.add(s));
            account
        })
    }
}

impl Reservation {
    /// The most that may be spent.
    pub fn spend(&self) -> Spend {
        self.spend
    }

    /// Counts what was really used, and gives the rest back. Without a price the worst case stands, and without any
    /// figure that of the tokens too: the part of it whose bill nobody saw is given.
    pub fn settle(mut self, usage: &Usage) -> Spend {
        let known = usage.cost_usd.unwrap_or(0.0);
        let is_priced = usage.cost_usd.is_some() && usage.unpriced_calls == 0;
        let cost_usd = if is_priced { known } else { known.max(self.spend.cost_usd) };
        let is_counted = is_priced || usage.tokens() > 0;
        let tokens = if is_counted { usage.tokens() } else { self.spend.tokens };
        self.is_open = false;
        self.ledger.close(&self.places, self.spend, Spend { cost_usd, tokens });
        Spend { cost_usd: cost_usd - known, tokens: tokens - usage.tokens() }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_open {
            self.ledger.close(&self.places, self.spend, self.spend);
        }
    }
}

/// What the records say was spent, by step instance; calls that were in flight when a process died count in full.
fn spent(records: &[Record]) -> Vec<(StepPath, Spend)> {
    let known = |usage: &Usage| Spend { cost_usd: usage.cost_usd.unwrap_or(0.0), tokens: usage.tokens() };
    let mut all = Vec::new();
    // Of logical attempts that have not ended: what their effects used, and what is reserved.
    let mut done: BTreeMap<(StepPath, u32), Spend> = BTreeMap::new();
    let mut open: BTreeMap<(StepPath, u32, u32, u32), Spend> = BTreeMap::new();
    for record in records {
        match &record.fact {
            Fact::SpendReserved { path, attempt, turn, ordinal, spend } => {
                open.insert((path.clone(), *turn, *attempt, *ordinal), *spend);
            }
            Fact::EffectDone { path, attempt, turn, ordinal, usage, .. } => {
                open.remove(&(path.clone(), *turn, *attempt, *ordinal));
                if let Some(usage) = usage {
                    done.entry((path.clone(), *turn)).or_default().add(&known(usage));
                }
            }
            Fact::AttemptEnded { path, attempt, turn, end, .. } => {
                // Its usage has the effects of this logical attempt in it, whichever process did them.
                done.remove(&(path.clone(), *turn));
                open.retain(|(p, t, a, _), _| !(p == path && t == turn && a == attempt));
                let mut total = known(&end.usage);
                total.add(&end.unsettled);
                all.push((path.clone(), total));
            }
            _ => {}
        }
    }
    all.extend(done.into_iter().map(|((path, _), spend)| (path, spend)));
    all.extend(open.into_iter().map(|((path, ..), spend)| (path, spend)));
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn chain(cost: f64) -> Vec<BudgetAt> {
        vec![BudgetAt { path: StepPath::root(), max_cost_usd: Some(cost), max_tokens: None }]
    }

    fn call(cost: f64) -> WorstCase {
        WorstCase { tokens: 10, cost: Price::AtMost(cost) }
    }

    fn used(cost: f64) -> Usage {
        Usage { cost_usd: Some(cost), input: 5, calls: 1, ..Usage::default() }
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_for_what_may_come_back() {
        let ledger = Ledger::default();
        let first = ledger.reserve(&chain(1.0), call(0.7)).await.ok().flatten().unwrap();
        let limits = chain(1.0);
        let second = ledger.reserve(&limits, call(0.7));
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        first.settle(&used(0.2));
        let second = second.await.ok().flatten().unwrap();
        second.settle(&used(0.6));
        let refused = ledger.reserve(&chain(1.0), call(0.3)).await.err().unwrap();
        assert!(refused.is_of_run && refused.error.message.contains("0.8000 of 1"), "{refused:?}");
        assert!(ledger.reserve(&chain(1.0), call(0.2)).await.is_ok());
    }

    /// Naive: a call that was cut off costs nothing.
    #[tokio::test]
    async fn a_reservation_that_is_dropped_counts_as_spent() {
        let ledger = Ledger::default();
        drop(ledger.reserve(&chain(1.0), call(0.7)).await);
        assert!(ledger.reserve(&chain(1.0), call(0.4)).await.is_err());
    }

    #[tokio::test]
    async fn an_unpriced_call_under_a_cost_limit_is_refused() {
        let unknown = WorstCase { tokens: 1, cost: Price::Unknown };
        let refused = Ledger::default().reserve(&chain(9.0), unknown).await.err().unwrap();
        assert!(!refused.is_of_run);
        assert!(Ledger::default().reserve(&[], unknown).await.is_ok_and(|r| r.is_none()));
    }
}
