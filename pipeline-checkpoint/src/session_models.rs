//! Conversations under a model checker: `cargo xtask models`.
//!
//! Owns models of steps that go on with one conversation at once, and of naive queues that the checker must see through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipeline_core::conformance::session::turn;
use pipeline_core::store::SessionStore;
use pipeline_core::sync::Mutex;
use pipeline_core::sync::models::{check, is_seen_through};
use shuttle::future::{block_on, spawn, yield_now};

use crate::MemorySessions;
use crate::session_file::Queues;

/// Steps at once.
const STEPS: usize = 3;

/// Naive: a turn is added to what was read before the others added theirs.
#[test]
fn n11_turns_of_steps_at_once_are_all_kept_each_once() {
    check(|| {
        block_on(async {
            let store = MemorySessions::new(Arc::new(pipeline_core::clock::SystemClock));
            let steps = (0..STEPS).map(|step| {
                let store = store.clone();
                spawn(async move {
                    let mut lease = store.lease("talk").await.unwrap();
                    yield_now().await;
                    let key = format!("r/s{step}/1");
                    lease.append(turn(&key), BTreeMap::new()).await.unwrap();
                    // Again, as after a crash: it is there.
                    lease.append(turn(&key), BTreeMap::new()).await.unwrap();
                })
            });
            for step in steps.collect::<Vec<_>>() {
                step.await.unwrap();
            }
            let session = store.read("talk").await.unwrap().expect("it was made");
            let mut keys: Vec<_> = session.turns.iter().map(|turn| turn.key.clone()).collect();
            keys.sort();
            assert_eq!(keys, (0..STEPS).map(|step| format!("r/s{step}/1")).collect::<Vec<_>>());
        });
    });
}

/// How many are inside at once.
#[derive(Default)]
struct Inside(AtomicUsize);

impl Inside {
    async fn stay(&self) {
        assert_eq!(self.0.fetch_add(1, Ordering::SeqCst), 0, "somebody is inside already");
        yield_now().await;
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Naive: a queue that nobody stands in is thrown away while somebody is about to.
#[test]
fn n11_one_step_at_a_time_has_a_conversation_while_queues_come_and_go() {
    check(|| {
        block_on(async {
            let (queues, inside) = (Arc::new(Queues::default()), Arc::new(Inside::default()));
            let steps = (0..STEPS).map(|step| {
                let (queues, inside) = (Arc::clone(&queues), Arc::clone(&inside));
                spawn(async move {
                    for _ in 0..2 {
                        let _turn = queues.enter("talk").await;
                        inside.stay().await;
                    }
                    // A queue of another name sweeps those that are empty.
                    drop(queues.enter(&format!("other {step}")).await);
                })
            });
            for step in steps.collect::<Vec<_>>() {
                step.await.unwrap();
            }
        });
    });
}

#[test]
fn the_checker_sees_through_queues_that_are_looked_for_first_and_made_then() {
    type Known = Mutex<BTreeMap<&'static str, Arc<tokio::sync::Mutex<()>>>>;
    assert!(is_seen_through(|| {
        block_on(async {
            let (known, inside) = (Arc::new(Known::default()), Arc::new(Inside::default()));
            let steps = (0..STEPS).map(|_| {
                let (known, inside) = (Arc::clone(&known), Arc::clone(&inside));
                spawn(async move {
                    let there = known.lock().get("talk").cloned();
                    let queue = there.unwrap_or_else(|| {
                        let made = Arc::<tokio::sync::Mutex<()>>::default();
                        known.lock().insert("talk", Arc::clone(&made));
                        made
                    });
                    let _turn = queue.lock_owned().await;
                    inside.stay().await;
                })
            });
            for step in steps.collect::<Vec<_>>() {
                step.await.unwrap();
            }
        });
    }));
}
