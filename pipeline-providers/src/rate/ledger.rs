//! The arithmetic of an account: what is left of the minute, and who waits how long.
//!
//! Owns [`Ledger`], plain data. A call may begin as soon as nothing is owed, however large it is, and what it takes is owed
//! by those after it: so a large call waits no longer than a small one. Must not know clocks, files or tasks.

use std::collections::BTreeMap;

use pipeline_core::process::is_alive;
use pipeline_core::provider::ProviderLimits;
use serde::{Deserialize, Serialize};

use crate::rate::signals::{RateSignals, Window};

/// How much of a limit is used: services measure at other moments than we do.
const SHARE: f64 = 0.95;

/// How much may be used at once after a pause, as a part of a minute's limit.
const BURST: f64 = 1.0 / 12.0;

/// How much a new word on the size of calls weighs.
const WEIGHT: f64 = 0.2;

/// Less than this is nothing: levels are sums of fractions.
const TINY: f64 = 1e-6;

/// Tokens that an answer is taken for until some have come.
const FIRST_OUTPUT: f64 = 500.0;

/// What a call is expected to use, or has used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Want {
    /// 1, or 0 when it was refused.
    pub requests: u64,
    /// Tokens sent.
    pub input: u64,
    /// Most tokens received.
    pub output: u64,
    /// Whether tokens are counted by the one who calls; an agent's are not known before.
    pub is_counted: bool,
}

/// What was taken for a call. What is corrected later is this, not what would be taken by then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Booked {
    want: Want,
    requests: f64,
    input: f64,
    output: f64,
}

/// What happened to an account.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A call used `used` where `booked` was taken.
    Settle { booked: Booked, used: Want },
    /// A call has ended.
    End,
    /// The service told its limits.
    Heard(RateSignals),
    /// The service said no.
    Hold { ms: u64, is_quota: bool },
}

/// What comes of asking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    /// It may begin.
    Go(Booked),
    /// It may not begin before so much later.
    Later { ms: u64 },
    /// As many calls as may be are going on.
    Full,
    /// The account is used up for so long.
    UsedUp { ms: u64 },
}

/// What is known of an account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    requests: Bucket,
    input: Bucket,
    output: Bucket,
    tokens: Bucket,
    /// Nobody calls before.
    held_until: u64,
    /// The account is used up until then.
    used_up_until: u64,
    /// What tokens really are, against what was expected.
    input_ratio: Option<f64>,
    /// Tokens that are sent with a call.
    #[serde(default)]
    input_mean: Option<f64>,
    /// Tokens of an answer.
    output_mean: Option<f64>,
    /// Calls that are going on, by process.
    calls: BTreeMap<u32, u64>,
    /// The latest moment it knows.
    seen: u64,
}

/// One limit: a level that rises with time and that bookings lower, below zero too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Bucket {
    level: f64,
    at: u64,
    /// What the service told.
    told: Option<u64>,
    /// Whether the level has been filled once.
    is_begun: bool,
}

impl Bucket {
    /// The limit that counts: the smaller of what is configured and what was told.
    fn limit(&self, configured: Option<u64>) -> Option<f64> {
        let limit = match (configured, self.told) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        limit.map(|limit| limit.max(1) as f64 * SHARE)
    }

    fn fill(&mut self, limit: f64, now: u64) {
        let most = (limit * BURST).max(1.0);
        // After a restart of the machine its time begins anew.
        if !self.is_begun || now < self.at {
            (self.level, self.is_begun) = (most, true);
        } else {
            let passed = (now - self.at) as f64;
            self.level = (self.level + limit * passed / 60_000.0).min(most);
        }
        self.at = now;
    }

    /// How many milliseconds until `needed` is there.
    fn wait(&mut self, configured: Option<u64>, needed: f64, now: u64) -> f64 {
        let Some(limit) = self.limit(configured) else { return 0.0 };
        self.fill(limit, now);
        let lacking = needed - self.level;
        if lacking < TINY { 0.0 } else { (lacking * 60_000.0 / limit).max(1.0) }
    }

    /// Puts back, or takes more of, what was expected wrongly.
    fn correct(&mut self, configured: Option<u64>, amount: f64, now: u64) {
        if let Some(limit) = self.limit(configured) {
            self.fill(limit, now);
            self.level = (self.level + amount).min((limit * BURST).max(1.0));
        }
    }

    /// The service told its limit and what it has left, of which the next call will take `call`.
    fn hear(&mut self, configured: Option<u64>, window: Window, call: f64, now: u64) {
        self.told = window.limit.or(self.told);
        let Some(limit) = self.limit(configured) else { return };
        self.fill(limit, now);
        if let Some(remaining) = window.remaining {
            // Others may use the account too: what the service has left is the most there is. A call begins as soon as
            // nothing is owed, and then the service must have enough for it.
            self.level = self.level.min(remaining as f64 - call);
        }
    }
}

impl Ledger {
    /// Time that runs backwards is that of a machine that was started anew: nothing of before holds.
    pub(super) fn begin(&mut self, now: u64) {
        if now < self.seen {
            (self.held_until, self.used_up_until) = (0, 0);
            self.calls.clear();
        }
        self.seen = now;
    }

    /// Books a call.
    pub(super) fn book(&mut self, limits: &ProviderLimits, want: Want, now: u64) -> Answer {
        if self.used_up_until > now {
            return Answer::UsedUp { ms: self.used_up_until - now };
        }
        if let Some(most) = limits.max_parallel {
            // A process that died gave nothing back.
            self.calls.retain(|process, _| is_alive(*process));
            if self.calls.values().sum::<u64>() >= most {
                return Answer::Full;
            }
        }
        let waits = [
            self.requests.wait(limits.requests_per_minute, want.requests as f64, now),
            self.input.wait(limits.input_tokens_per_minute, 0.0, now),
            self.output.wait(limits.output_tokens_per_minute, 0.0, now),
            self.tokens.wait(None, 0.0, now),
            self.held_until.saturating_sub(now) as f64,
        ];
        let wait = waits.into_iter().fold(0.0, f64::max).ceil();
        if wait > 0.0 {
            return Answer::Later { ms: milliseconds(wait) };
        }
        *self.calls.entry(std::process::id()).or_default() += 1;
        let booked = self.amounts(want);
        self.correct(limits, (-booked.requests, -booked.input, -booked.output), now);
        Answer::Go(booked)
    }

    pub(super) fn change(&mut self, limits: &ProviderLimits, change: Change, now: u64) {
        match change {
            Change::Settle { booked, used } => {
                self.learn(booked.want, used);
                let requests = booked.requests - used.requests as f64;
                let tokens = (booked.input - used.input as f64, booked.output - used.output as f64);
                self.correct(limits, (requests, tokens.0, tokens.1), now);
            }
            Change::End => self.end(),
            Change::Heard(signals) => {
                let (input, output) = (self.input_mean.unwrap_or(0.0), self.output_mean.unwrap_or(0.0));
                // One that is not counted in tokens waits until it is there as a whole.
                self.requests.hear(limits.requests_per_minute, signals.requests, 0.0, now);
                self.input.hear(limits.input_tokens_per_minute, signals.input, input, now);
                self.output.hear(limits.output_tokens_per_minute, signals.output, output, now);
                self.tokens.hear(None, signals.tokens, input + output, now);
                if let Some(after) = signals.retry_after {
                    self.hold(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), now);
                }
            }
            Change::Hold { ms, is_quota: false } => {
                self.hold(ms, now);
                // The service has less than we believed.
                for bucket in [&mut self.requests, &mut self.input, &mut self.output, &mut self.tokens] {
                    bucket.level = bucket.level.min(0.0);
                }
            }
            Change::Hold { ms, is_quota: true } => {
                self.used_up_until = self.used_up_until.max(now.saturating_add(ms));
            }
        }
    }

    fn hold(&mut self, ms: u64, now: u64) {
        // An absurd hint holds nobody for longer than a day.
        const DAY: u64 = 24 * 60 * 60 * 1000;
        self.held_until = self.held_until.max(now.saturating_add(ms.min(DAY)));
    }

    fn end(&mut self) {
        let own = std::process::id();
        if let Some(calls) = self.calls.get_mut(&own) {
            *calls = calls.saturating_sub(1);
        }
        self.calls.retain(|_, calls| *calls > 0);
    }

    /// What a call is really expected to take.
    fn amounts(&self, want: Want) -> Booked {
        let (input, output) = if want.is_counted {
            let output = self.output_mean.unwrap_or(FIRST_OUTPUT).min(want.output as f64);
            (want.input as f64 * self.input_ratio.unwrap_or(1.0), output)
        } else {
            (0.0, 0.0)
        };
        Booked { want, requests: want.requests as f64, input, output }
    }

    fn learn(&mut self, booked: Want, used: Want) {
        if !booked.is_counted || used.requests == 0 {
            return;
        }
        let mix = |known: Option<f64>, new: f64| known.map_or(new, |known| known + (new - known) * WEIGHT);
        if booked.input > 0 && used.input > 0 {
            self.input_ratio = Some(mix(self.input_ratio, used.input as f64 / booked.input as f64));
        }
        self.input_mean = Some(mix(self.input_mean, used.input as f64));
        self.output_mean = Some(mix(self.output_mean, used.output as f64));
    }

    fn correct(&mut self, limits: &ProviderLimits, (requests, input, output): (f64, f64, f64), now: u64) {
        self.requests.correct(limits.requests_per_minute, requests, now);
        self.input.correct(limits.input_tokens_per_minute, input, now);
        self.output.correct(limits.output_tokens_per_minute, output, now);
        self.tokens.correct(None, input + output, now);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a wait is not negative and ends"
)]
fn milliseconds(wait: f64) -> u64 {
    wait as u64
}
