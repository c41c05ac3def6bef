//! The model checker, for the tests of any crate: `cargo xtask models`.
//!
//! Owns how many schedules are tried, and how a naive version is shown to be one. A model is a function that starts a few
//! threads or tasks of shuttle; every lock of `sync` is a place where another may go first, and one that waits
//! for ever is a failure.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::Runner;
use shuttle::scheduler::{PctScheduler, RandomScheduler};

/// Schedules that are tried of each model, with each of two ways to choose them.
const SCHEDULES: usize = 2_000;

/// Bytes of a thread's stack: unoptimised code needs more than shuttle gives it.
const STACK: usize = 1 << 18;

/// Runs a model under many schedules.
///
/// # Panics
/// With the first schedule that breaks it.
pub fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = STACK;
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(model.clone());
    Runner::new(PctScheduler::new(3, SCHEDULES), config).run(model);
}

/// Whether some schedule breaks a model: what a naive version must be.
pub fn is_seen_through(model: impl Fn() + Send + Sync + Clone + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| check(model))).is_err()
}
