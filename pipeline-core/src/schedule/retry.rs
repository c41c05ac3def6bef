//! Whether and when to try again: data in, data out.

use std::time::Duration;

use crate::error::StepError;
use crate::path::StepPath;
use crate::plan::{Backoff, Retry};
use crate::schedule::park::LONG;
use crate::value::Hash;

/// The delay before another try, or `None` when there is none.
///
/// `tries` counts the tries that have ended. The delay lies between `base_delay` and `max_delay`, varied by up to a
/// quarter of itself, and is never shorter than what the service asked for, up to [`LONG`]. The variation follows from the run's
/// seed and the path, so that a resumed run waits the same.
pub(super) fn delay(
    retry: &Retry,
    tries: u32,
    error: &StepError,
    path: &StepPath,
    seed: u64,
) -> Option<Duration> {
    if tries >= retry.max_attempts || !retry.on.contains(&error.kind) {
        return None;
    }
    let factor = match retry.backoff {
        Backoff::Fixed => 1,
        Backoff::Linear => tries,
        Backoff::Exponential => 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX),
    };
    let mut delay = retry.base_delay.saturating_mul(factor.max(1)).min(retry.max_delay);
    if retry.jitter {
        let dice = Hash::of(&(seed, path.as_str(), tries, "jitter")).seed() % 1000;
        delay = delay
            .mul_f64(0.75 + dice as f64 / 2000.0)
            .clamp(retry.base_delay.min(retry.max_delay), retry.max_delay);
    }
    let asked = error.retry_after_ms.map_or(Duration::ZERO, Duration::from_millis);
    Some(delay.max(asked.min(LONG)))
}
