//! The ledger under a model checker: `cargo xtask models`.
//!
//! Owns models of callers that reserve, settle, give up and wait at once, and of two naive ledgers that the checker must see
//! through. Every lock is a place where another caller may go first; a caller that waits for ever is found as a deadlock.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::future::{block_on, spawn};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sync::models::{check, is_seen_through};

/// The callers of a model, what each may use at most, and what all may.
const CALLERS: u64 = 3;
const WORST: u64 = 50;
const MOST: u64 = 100;

fn limit() -> Vec<BudgetAt> {
    vec![BudgetAt { path: StepPath::root(), max_cost_usd: None, max_tokens: Some(MOST) }]
}

fn worst() -> WorstCase {
    WorstCase { tokens: WORST, cost: Price::AtMost(0.0) }
}

fn used(tokens: u64) -> Usage {
    Usage { input: tokens, calls: 1, cost_usd: Some(0.0), ..Usage::default() }
}

/// Naive: whoever finds no room waits without a look at what came back meanwhile, or two find the same room.
#[test]
fn x17_n07_no_order_of_calls_spends_beyond_the_limit_or_waits_for_ever() {
    check(|| {
        block_on(async {
            let (ledger, held) = (Ledger::default(), Arc::new(AtomicU64::new(0)));
            let calls = (0..CALLERS).map(|number| {
                let (ledger, held) = (ledger.clone(), Arc::clone(&held));
                spawn(async move {
                    let Ok(reserved) = ledger.reserve(&limit(), worst()).await else { return };
                    let reserved = reserved.expect("there is a limit");
                    assert!(held.fetch_add(WORST, Ordering::SeqCst) + WORST <= MOST, "more than there is");
                    shuttle::future::yield_now().await;
                    if number == 0 {
                        // Nobody saw its bill: it counts in full.
                        drop(reserved);
                        return;
                    }
                    held.fetch_sub(WORST - 10 * number, Ordering::SeqCst);
                    reserved.settle(&used(10 * number));
                })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap();
            }
            let books = ledger.0.books.lock();
            let account = &books.places[&StepPath::root()];
            assert_eq!(account.settled.tokens, held.load(Ordering::SeqCst));
            assert_eq!((account.open, account.reserved.tokens), (0, 0));
        });
    });
}

/// Naive: a caller that was stopped while it waited takes the word that was meant for the next.
#[test]
fn x22_a_caller_that_is_stopped_while_it_waits_leaves_the_others_their_turn() {
    check(|| {
        block_on(async {
            let ledger = Ledger::default();
            let stop = CancellationToken::new();
            let calls = (0..CALLERS).map(|number| {
                let (ledger, stop) = (ledger.clone(), stop.clone());
                spawn(async move {
                    let whole = WorstCase { tokens: MOST, ..worst() };
                    let limits = limit();
                    let call = ledger.reserve(&limits, whole);
                    let reserved = if number == 0 {
                        tokio::select! {
                            biased;
                            () = stop.cancelled() => return false,
                            reserved = call => reserved,
                        }
                    } else {
                        call.await
                    };
                    if number == 1 {
                        stop.cancel();
                    }
                    reserved.map(|reserved| reserved.expect("a limit").settle(&used(0))).is_ok()
                })
            });
            let mut done = Vec::new();
            for call in calls.collect::<Vec<_>>() {
                done.push(call.await.unwrap());
            }
            assert!(done[1] && done[2], "each of them had room for all it wanted, sooner or later");
        });
    });
}

/// A ledger as somebody in a hurry writes it.
#[derive(Default)]
struct Naive {
    taken: Mutex<u64>,
    changed: Notify,
}

impl Naive {
    /// Looks, and takes what it saw.
    fn take_in_two_steps(&self) -> bool {
        let has_room = *self.taken.lock() + WORST <= MOST;
        if has_room {
            *self.taken.lock() += WORST;
        }
        has_room
    }

    /// Looks, and listens for changes after that.
    async fn take_and_then_listen(&self) {
        loop {
            {
                let mut taken = self.taken.lock();
                if *taken + MOST <= MOST {
                    *taken += MOST;
                    return;
                }
            }
            // The checker stops a caller where it locks, not where it unlocks.
            shuttle::thread::yield_now();
            self.changed.notified().await;
        }
    }

    fn give_back(&self, amount: u64) {
        *self.taken.lock() -= amount;
        self.changed.notify_waiters();
    }
}

#[test]
fn the_checker_sees_through_a_ledger_that_looks_first_and_takes_then() {
    assert!(is_seen_through(|| {
        block_on(async {
            let ledger = Arc::new(Naive::default());
            let calls = (0..CALLERS).map(|_| {
                let ledger = Arc::clone(&ledger);
                spawn(async move { ledger.take_in_two_steps() })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap();
            }
            assert!(*ledger.taken.lock() <= MOST);
        });
    }));
}

#[test]
fn the_checker_sees_through_a_ledger_that_listens_too_late() {
    assert!(is_seen_through(|| {
        block_on(async {
            let ledger = Arc::new(Naive::default());
            let calls = (0..CALLERS).map(|_| {
                let ledger = Arc::clone(&ledger);
                spawn(async move {
                    ledger.take_and_then_listen().await;
                    shuttle::future::yield_now().await;
                    ledger.give_back(MOST);
                })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap();
            }
        });
    }));
}
