//! What costs money.
//!
//! Owns [`Usage`] (what is known to have been used) and [`Spend`] (what may have been). Must not know prices or vendors.

use serde::{Deserialize, Serialize};

/// What a call, a step or a run used of what costs money.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens sent that were not read from a cache.
    #[serde(default, rename = "input_tokens")]
    pub input: u64,
    /// Tokens received, thinking included.
    #[serde(default, rename = "output_tokens")]
    pub output: u64,
    /// Tokens read from the provider's cache.
    #[serde(default, rename = "cache_read_tokens")]
    pub cache_read: u64,
    /// Tokens written to the provider's cache.
    #[serde(default, rename = "cache_write_tokens")]
    pub cache_write: u64,
    /// US dollars; `None` when at least one call has no known price.
    #[serde(default)]
    pub cost_usd: Option<f64>,
    /// Model calls.
    #[serde(default)]
    pub calls: u64,
    /// Model calls without a known price.
    #[serde(default)]
    pub unpriced_calls: u64,
}

impl Usage {
    /// One call whose bill nobody saw: under a limit it counts as what was reserved for it.
    pub fn unseen() -> Self {
        Self { calls: 1, unpriced_calls: 1, ..Self::default() }
    }

    /// Adds another use to this one.
    pub fn add(&mut self, other: &Self) {
        self.input += other.input;
        self.output += other.output;
        self.cache_read += other.cache_read;
        self.cache_write += other.cache_write;
        self.calls += other.calls;
        self.unpriced_calls += other.unpriced_calls;
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
        };
    }

    /// All tokens together.
    pub fn tokens(&self) -> u64 {
        self.input + self.output + self.cache_read + self.cache_write
    }
}

/// An amount that may have been spent, or that may be: an upper bound, where [`Usage`] is what is known.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spend {
    /// US dollars.
    #[serde(default)]
    pub cost_usd: f64,
    /// Tokens of all kinds.
    #[serde(default)]
    pub tokens: u64,
}

impl Spend {
    /// Nothing.
    pub fn is_zero(&self) -> bool {
        self.tokens == 0 && self.cost_usd <= 0.0
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.cost_usd += other.cost_usd;
        self.tokens += other.tokens;
    }
}

/// What one call can use at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorstCase {
    /// Tokens of all kinds.
    pub tokens: u64,
    /// US dollars; `None` = the model has no known price, or the backend has no bound of its own.
    pub cost: Price,
}

/// What is known of the price of a call before it is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Price {
    /// At most this many US dollars.
    AtMost(f64),
    /// As much as it is allowed: an agent that is given what is left of a limit and stops there.
    AsAllowed,
    /// Nobody knows: under a cost limit such a call is refused.
    Unknown,
}
