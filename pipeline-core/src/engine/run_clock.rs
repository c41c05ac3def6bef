//! The time of a run: wall time, and the milliseconds that processes have worked on it.
//!
//! Owns [`RunClock`]. In a replay it stands at the last moment that the tape gave; it goes on from there when the run leaves
//! the tape's order. Must not know why.

use std::sync::Arc;

use tokio::time::{Duration, Instant};

use crate::clock::{Clock, Timestamp};
use crate::tape::RunTime;

/// The clock of one run.
pub(super) struct RunClock {
    wall: Arc<dyn Clock>,
    begun: Instant,
    elapsed_before: u64,
    /// The last recorded time, and whether the clock stands there.
    recorded: Option<(RunTime, bool)>,
}

impl RunClock {
    pub(super) fn new(wall: Arc<dyn Clock>, elapsed_before: u64) -> Self {
        Self { wall, begun: Instant::now(), elapsed_before, recorded: None }
    }

    /// Now.
    pub(super) fn now(&self) -> RunTime {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let elapsed_ms = self.elapsed_before.saturating_add(since);
        match self.recorded {
            None => RunTime { at: self.wall.now(), elapsed_ms },
            Some((time, true)) => time,
            Some((time, false)) => {
                let since = i64::try_from(since).unwrap_or(i64::MAX);
                RunTime { at: Timestamp(time.at.0.saturating_add(since)), elapsed_ms }
            }
        }
    }

    /// Stands at a recorded time, or is put to it when it goes on; never back.
    pub(super) fn put_to(&mut self, time: RunTime) {
        let goes_on = self.recorded.is_some_and(|(_, stands)| !stands);
        let last = self.recorded.map_or(time, |(last, _)| last);
        let time = RunTime { at: last.at.max(time.at), elapsed_ms: last.elapsed_ms.max(time.elapsed_ms) };
        self.recorded = Some((time, true));
        if goes_on {
            self.go_on();
        }
    }

    /// Goes on from the recorded time.
    pub(super) fn go_on(&mut self) {
        if let Some((time, stands)) = &mut self.recorded {
            *stands = false;
            self.elapsed_before = time.elapsed_ms;
            self.begun = Instant::now();
        }
    }

    /// When so many milliseconds will have elapsed; `None` for a time that never comes.
    pub(super) fn instant_at(&self, elapsed_ms: u64) -> Option<Instant> {
        self.begun.checked_add(Duration::from_millis(elapsed_ms.saturating_sub(self.elapsed_before)))
    }
}

/// Sleeps until a time, or for ever.
pub(super) async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
