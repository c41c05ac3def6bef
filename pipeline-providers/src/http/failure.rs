//! What went wrong, as the server said it.
//!
//! Owns [`Fault`], the reading of retry hints, and the words for faults that every vendor shares. Must not know any
//! vendor's words: each maps its own to a kind.

use std::time::Duration;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::http::settings::HttpSettings;

/// Most characters of a server's message that are kept.
const MOST_WORDS: usize = 2000;

/// Why a call failed, before it is told to whom.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    /// What happened, after the provider's name: `has too many requests …`.
    pub(crate) what: String,
    /// The server's own words.
    pub(crate) said: Option<String>,
    /// The server's own code.
    pub(crate) code: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) help: Option<String>,
    pub(crate) usage: Option<Usage>,
    /// What the service will ask money for, where that is not what the kind says.
    pub(crate) bill: Option<Usage>,
}

impl Fault {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            said: None,
            code: None,
            status: None,
            request_id: None,
            retry_after: None,
            help: None,
            usage: None,
            bill: None,
        }
    }

    pub(crate) fn said(mut self, words: impl Into<String>) -> Self {
        self.said = Some(words.into()).filter(|w| !w.is_empty());
        self
    }

    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into()).filter(|c| !c.is_empty());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The error of a step. Nothing in it holds a secret of the connection, whatever the server echoed.
    pub(crate) fn into_error(self, settings: &HttpSettings) -> StepError {
        let short = |text: String| -> String { settings.redact(&text).chars().take(MOST_WORDS).collect() };
        let said = self.said.map(short);
        let name = &settings.entry.name;
        let message = match &said {
            Some(words) => format!("`{name}` {}: {words}", self.what),
            None => format!("`{name}` {}", self.what),
        };
        let mut details = json!({
            "provider": name,
            "status": self.status,
            "code": self.code.map(short),
            "said": said,
            "request_id": self.request_id.map(short),
            "usage": self.usage,
        });
        if let Value::Object(fields) = &mut details {
            fields.retain(|_, value| !value.is_null());
        }
        let mut error = StepError::new(self.kind, settings.redact(&message)).details(details);
        error.help = self.help.or_else(|| help(self.kind, settings));
        error.usage = self.bill.map(Box::new);
        error.retry_after_ms = self.retry_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        error
    }
}

/// What to do next, by kind.
fn help(kind: ErrorKind, settings: &HttpSettings) -> Option<String> {
    let key = settings.key_name.as_deref();
    Some(match (kind, key) {
        (ErrorKind::Auth, Some(key)) => format!("check the key in {key}"),
        (ErrorKind::Auth, None) => "give the provider a key with `api_key_env`".to_owned(),
        (ErrorKind::Denied, _) => {
            "the key is good but may not do this: look at the account's rights".to_owned()
        }
        (ErrorKind::Quota, _) => "look at the account's plan and balance".to_owned(),
        (ErrorKind::Network, _) => format!("check that {} can be reached from here", settings.host()),
        (ErrorKind::TimedOut, _) => "raise `timeout`, or ask for a shorter answer".to_owned(),
        _ => return None,
    })
}

/// The kind of an HTTP status, where the vendor's own code says nothing better.
pub(crate) fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Auth,
        402 => ErrorKind::Quota,
        403 => ErrorKind::Denied,
        408 | 409 | 425 | 500 | 502 | 504 => ErrorKind::Server,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::RateLimited,
        503 | 529 => ErrorKind::Overloaded,
        501 | 505 => ErrorKind::Unsupported,
        status if status >= 500 => ErrorKind::Server,
        _ => ErrorKind::Invalid,
    }
}

/// What happened, by status.
pub(crate) fn what(status: u16, kind: ErrorKind) -> String {
    let what = match kind {
        ErrorKind::Auth => "refuses the key",
        ErrorKind::Denied => "does not permit this",
        ErrorKind::Quota => "has no quota left for this account",
        ErrorKind::RateLimited => "has too many requests from this account",
        ErrorKind::Overloaded => "is overloaded",
        ErrorKind::Server => "failed",
        ErrorKind::TooLarge => "finds the request too large",
        ErrorKind::Refused => "declined",
        _ if (300..400).contains(&status) => "answers from another place, and redirects are not followed",
        _ => "does not accept the request",
    };
    format!("{what} (status {status})")
}

/// What the headers say about trying again. `x-should-retry` wins over the kind: it turns a kind that is tried again into
/// one that is not, and the other way round.
pub(crate) fn hints(fault: &mut Fault, headers: &HeaderMap) {
    if fault.retry_after.is_none() {
        fault.retry_after = retry_after(headers);
    }
    match headers.get("x-should-retry").and_then(|v| v.to_str().ok()) {
        Some("false") if fault.kind.is_transient() => fault.kind = ErrorKind::Invalid,
        Some("true") if !fault.kind.is_transient() => fault.kind = ErrorKind::Server,
        _ => {}
    }
}

/// `retry-after-ms`, else `retry-after` in seconds or as a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let seconds = |number: f64| Duration::try_from_secs_f64(number).ok();
    if let Some(ms) = text("retry-after-ms").and_then(|t| t.parse::<f64>().ok()) {
        return seconds(ms / 1000.0);
    }
    let after = text("retry-after")?;
    if let Ok(number) = after.parse::<f64>() {
        return seconds(number);
    }
    // The server's own clock is what its date is measured on.
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let (until, now) = (date(after)?, date(text("date")?)?);
    seconds(until.duration_since(now).as_secs_f64().max(0.0))
}

/// A length of time as protobuf writes it: `2s`, `1.5s`.
pub(crate) fn proto_duration(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    reqwest::header::HeaderName::from_static(name),
                    reqwest::header::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn every_form_of_the_hint_is_read() {
        let ms = |pairs: &[(&'static str, &'static str)]| retry_after(&headers(pairs)).map(|d| d.as_millis());
        assert_eq!(ms(&[("retry-after", "2")]), Some(2000));
        assert_eq!(ms(&[("retry-after", "1.5")]), Some(1500));
        assert_eq!(ms(&[("retry-after", "9"), ("retry-after-ms", "700")]), Some(700));
        let date = ("date", "Wed, 25 Nov 2026 18:00:00 GMT");
        assert_eq!(ms(&[("retry-after", "Wed, 25 Nov 2026 18:00:30 GMT"), date]), Some(30_000));
        assert_eq!(ms(&[("retry-after", "Wed, 25 Nov 2026 17:00:00 GMT"), date]), Some(0));
        for absurd in ["-1", "soon", "nan", "inf", ""] {
            assert_eq!(
                retry_after(&headers(&[("retry-after", Box::leak(absurd.to_owned().into_boxed_str()))])),
                None,
                "{absurd}"
            );
        }
        assert_eq!(proto_duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(proto_duration("0.5s"), Some(Duration::from_millis(500)));
        assert_eq!(proto_duration("2m"), None);
    }

    #[test]
    fn the_servers_word_on_trying_again_wins() {
        let mut fault = Fault::new(ErrorKind::Server, "failed");
        hints(&mut fault, &headers(&[("x-should-retry", "false")]));
        assert!(!fault.kind.is_transient());
        let mut fault = Fault::new(ErrorKind::Invalid, "does not");
        hints(&mut fault, &headers(&[("x-should-retry", "true")]));
        assert!(fault.kind.is_transient());
    }
}
