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

    /// Adds another use to this one. Counts come from services and agents, and may be any: a sum stays at the largest number,
    /// so that no claim makes it small.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.calls, other.calls),
            (&mut self.unpriced_calls, other.unpriced_calls),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
        };
    }

    /// All tokens together.
    pub fn tokens(&self) -> u64 {
        self.sent().saturating_add(self.output)
    }

    /// All tokens sent, however they were read.
    pub fn sent(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
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
        self.tokens = self.tokens.saturating_add(other.tokens);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Naive: a service that claims 2^64 tokens has used none, and the limit on tokens never comes.
    #[test]
    fn sums_of_claims_without_bound_stay_at_the_largest_number() {
        let most = Usage { input: u64::MAX, output: 2, calls: u64::MAX, ..Usage::default() };
        let mut sum = Usage { cache_read: 7, ..most };
        assert_eq!((sum.tokens(), sum.sent()), (u64::MAX, u64::MAX));
        sum.add(&most);
        assert_eq!((sum.input, sum.output, sum.cache_read, sum.calls), (u64::MAX, 4, 7, u64::MAX));
        let mut spend = Spend { cost_usd: 1.0, tokens: u64::MAX };
        spend.add(&Spend { cost_usd: 0.5, tokens: 1 });
        assert_eq!(spend, Spend { cost_usd: 1.5, tokens: u64::MAX });
    }
}
