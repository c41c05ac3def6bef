//! How long a stage took.
//!
//! Owns the one place in this crate that reads a clock. Must not know what is being timed.

use std::time::{Duration, Instant};

/// Runs `work` and gives its result with the time that passed.
#[expect(clippy::disallowed_methods, reason = "stages are timed for people; nothing depends on it")]
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
