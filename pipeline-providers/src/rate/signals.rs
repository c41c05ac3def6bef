//! What a service tells of its limits with every answer.
//!
//! Owns [`RateSignals`] and the names of the headers. Must not know HTTP: whoever has headers hands in a way to look one up.

use std::time::Duration;

/// One limit of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Window {
    /// So many a minute.
    pub limit: Option<u64>,
    /// So many are left just now.
    pub remaining: Option<u64>,
}

/// The limits that an answer told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RateSignals {
    /// Requests.
    pub requests: Window,
    /// Tokens sent.
    pub input: Window,
    /// Tokens received.
    pub output: Window,
    /// Tokens of both kinds together.
    pub tokens: Window,
    /// Nobody should call before.
    pub retry_after: Option<Duration>,
}

impl RateSignals {
    /// Reads them from headers, by any of the names in use; `None` when there are none.
    pub fn read(header: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| header(name)?.trim().parse::<u64>().ok();
        let window = |what: &str| Window {
            limit: number(&format!("anthropic-ratelimit-{what}-limit"))
                .or_else(|| number(&format!("x-ratelimit-limit-{what}"))),
            remaining: number(&format!("anthropic-ratelimit-{what}-remaining"))
                .or_else(|| number(&format!("x-ratelimit-remaining-{what}"))),
        };
        let signals = Self {
            requests: window("requests"),
            input: window("input-tokens"),
            output: window("output-tokens"),
            tokens: window("tokens"),
            retry_after: None,
        };
        (signals != Self::default()).then_some(signals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Option<RateSignals> {
        RateSignals::read(|name| {
            headers.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn both_spellings_are_read() {
        let window = |limit, remaining| Window { limit: Some(limit), remaining: Some(remaining) };
        let anthropic = read(&[
            ("anthropic-ratelimit-input-tokens-limit", "30000"),
            ("anthropic-ratelimit-input-tokens-remaining", "29000"),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "0"),
        ]);
        let anthropic = anthropic.unwrap_or_default();
        assert_eq!((anthropic.input, anthropic.requests), (window(30000, 29000), window(50, 0)));
        let openai = read(&[("x-ratelimit-limit-tokens", "90000"), ("x-ratelimit-remaining-tokens", " 10 ")]);
        assert_eq!(openai.unwrap_or_default().tokens, window(90000, 10));
        assert_eq!(read(&[("x-ratelimit-limit-tokens", "many")]), None);
    }
}
