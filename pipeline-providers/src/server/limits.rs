//! Limits of an account: requests and tokens a minute.
//!
//! Owns the two buckets and the headers that tell of them. What the headers say is what the buckets hold. Must not know
//! formats beyond the names of their headers.

use std::time::Duration;

use pipeline_core::clock::{Clock, SystemClock, Timestamp};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// What is left, and how fast it comes back.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// A minute's worth.
    size: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(size: Option<u64>, now: Instant) -> Option<Self> {
        let size = size? as f64;
        Some(Self { size, left: size, at: now })
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.size / 60.0;
        self.left = (self.left + gained).min(self.size);
        self.at = now;
    }

    fn until(&self, amount: f64) -> Duration {
        let missing = (amount.min(self.size) - self.left).max(0.0);
        Duration::try_from_secs_f64(missing * 60.0 / self.size).unwrap_or_default()
    }
}

/// The limits of one account.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// What a request may do.
pub(super) struct Admission {
    /// How long to wait, when it is refused.
    pub(super) wait: Option<Duration>,
    /// What the format's headers say.
    pub(super) headers: Map<String, Value>,
}

impl Limits {
    pub(super) fn new(requests: Option<u64>, tokens: Option<u64>) -> Self {
        let now = Instant::now();
        Self { requests: Bucket::new(requests, now), tokens: Bucket::new(tokens, now) }
    }

    /// Takes a request of so many tokens, or refuses it.
    pub(super) fn admit(&mut self, tokens: u64, format: &str) -> Admission {
        let now = Instant::now();
        let tokens = tokens as f64;
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.refill(now);
        }
        let waits =
            [(self.requests, 1.0), (self.tokens, tokens)].map(|(b, amount)| b.map(|b| b.until(amount)));
        let wait = waits.into_iter().flatten().max().filter(|w| !w.is_zero());
        if wait.is_none() {
            for (bucket, amount) in [(&mut self.requests, 1.0), (&mut self.tokens, tokens)] {
                if let Some(bucket) = bucket {
                    bucket.left -= amount;
                }
            }
        }
        Admission { wait, headers: self.headers(format) }
    }

    fn headers(&self, format: &str) -> Map<String, Value> {
        let mut all = Map::new();
        for (what, bucket) in [("requests", self.requests), ("tokens", self.tokens)] {
            let Some(bucket) = bucket else { continue };
            let full = bucket.until(bucket.size);
            // Whole numbers, as the services write them.
            let (limit, left) = (json!(whole(bucket.size)), json!(whole(bucket.left)));
            match format {
                "anthropic" => {
                    let millis = i64::try_from(full.as_millis()).unwrap_or(i64::MAX);
                    let reset = Timestamp(SystemClock.now().0.saturating_add(millis)).to_string();
                    all.insert(format!("anthropic-ratelimit-{what}-limit"), limit);
                    all.insert(format!("anthropic-ratelimit-{what}-remaining"), left);
                    all.insert(format!("anthropic-ratelimit-{what}-reset"), json!(reset));
                }
                "openai" => {
                    all.insert(format!("x-ratelimit-limit-{what}"), limit);
                    all.insert(format!("x-ratelimit-remaining-{what}"), left);
                    all.insert(format!("x-ratelimit-reset-{what}"), json!(format!("{}ms", full.as_millis())));
                }
                _ => {}
            }
        }
        all
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is left is not negative, and small"
)]
fn whole(amount: f64) -> u64 {
    amount.max(0.0) as u64
}
