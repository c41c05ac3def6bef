//! What works beside the steps of a run: how often it may begin again, and how it is.
//!
//! Owns [`Restarts`], a budget, and [`Health`]. Who breaks goes on after a pause that grows; who has used up its budget stays down
//! and says so. Observers (`engine/bus.rs`) and servers of tools keep to it. The journal does not: after a write that failed
//! nothing is tried again, and the run stops. Must not know any service.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Restarts that a service may have within [`WITHIN`].
pub const MOST: usize = 5;

/// The time in which restarts count.
pub const WITHIN: Duration = Duration::from_mins(1);

/// The pause before the first restart; it doubles with each one in [`WITHIN`], and stays below a second.
const FIRST: Duration = Duration::from_millis(10);

/// The restarts of one service.
#[derive(Debug, Default)]
pub struct Restarts {
    lately: VecDeque<Instant>,
}

impl Restarts {
    /// The pause before a service that has broken begins again; `None` when its budget is used up for now.
    pub fn again(&mut self, now: Instant) -> Option<Duration> {
        while self.lately.front().is_some_and(|first| now.duration_since(*first) > WITHIN) {
            self.lately.pop_front();
        }
        if self.lately.len() >= MOST {
            return None;
        }
        let pause = FIRST * (1 << self.lately.len());
        self.lately.push_back(now);
        Some(pause)
    }
}

/// How a service is, or was when its run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its name.
    pub service: String,
    /// Whether it works.
    pub state: State,
    /// How often it began again.
    pub restarts: u32,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Whether a service works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does, or did until it was no longer needed.
    Up,
    /// It does not, and is not tried again for now.
    Down,
}

impl Health {
    /// Of a service that has just begun.
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into(), state: State::Up, restarts: 0, trouble: None }
    }

    /// It works (again).
    pub fn up(&mut self) {
        self.state = State::Up;
    }

    /// It works no more.
    pub fn down(&mut self, why: impl Into<String>) {
        self.state = State::Down;
        self.trouble = Some(why.into());
    }

    /// It has broken and goes on.
    pub fn restarted(&mut self, why: impl Into<String>) {
        self.restarts += 1;
        self.trouble = Some(why.into());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    /// Naive: what breaks begins again at once and for ever, or never.
    #[tokio::test(start_paused = true)]
    async fn n17_a_budget_of_restarts_is_used_up_and_comes_back() {
        let mut restarts = Restarts::default();
        let mut pauses = Vec::new();
        while let Some(pause) = restarts.again(Instant::now()) {
            pauses.push(pause);
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses.len(), MOST);
        assert!(
            pauses.is_sorted() && pauses.iter().all(|pause| *pause < Duration::from_secs(1)),
            "{pauses:?}"
        );
        tokio::time::advance(WITHIN / 2).await;
        assert_eq!(restarts.again(Instant::now()), None, "used up is used up");
        tokio::time::advance(WITHIN).await;
        assert_eq!(restarts.again(Instant::now()), Some(FIRST), "a service that was long well has all of it");
    }
}
