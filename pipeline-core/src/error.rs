//! One vocabulary for what can go wrong while a pipeline runs.
//!
//! Owns [`ErrorKind`] (what should the caller do?) and [`StepError`]. The same names serve `retry.on` in YAML,
//! mock rules, JSON output and code. Retry reads the kind and nothing else.
//! Must not know vendors: their words are mapped to a kind where they arrive.

use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// What kind of trouble it is; answers what the caller should do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request or the input is wrong; the same again fails again.
    Invalid,
    /// A credential is missing or refused.
    Auth,
    /// A permission of ours or theirs says no.
    Denied,
    /// An account's quota is used up; see [`StepError::retry_after_ms`] for when it is not.
    Quota,
    /// Too many requests just now.
    RateLimited,
    /// The service is up but over its load.
    Overloaded,
    /// The service failed.
    Server,
    /// The service was not reached, or the connection broke.
    Network,
    /// The answer ended before its end.
    Truncated,
    /// The answer could not be read.
    Parse,
    /// The answer does not fit the schema.
    Schema,
    /// Something is over a size limit.
    TooLarge,
    /// The model or agent declined.
    Refused,
    /// The chosen backend cannot do that.
    Unsupported,
    /// This machine lacks something: an executable, a directory, a file.
    Environment,
    /// A budget would be exceeded.
    Budget,
    /// Somebody stopped it.
    Cancelled,
    /// A deadline passed.
    TimedOut,
    /// Code of a step panicked.
    Panicked,
    /// A fault of this program.
    Internal,
}

impl ErrorKind {
    /// The name used in YAML, JSON and mock rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Auth => "auth",
            Self::Denied => "denied",
            Self::Quota => "quota",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Network => "network",
            Self::Truncated => "truncated",
            Self::Parse => "parse",
            Self::Schema => "schema",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::Environment => "environment",
            Self::Budget => "budget",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
            Self::Internal => "internal",
        }
    }

    /// Whether a service bills nothing for a call that ended so: it never took the request on. An error of these kinds
    /// that comes after an answer has begun says what was used ([`StepError::used`]).
    pub fn is_free(self) -> bool {
        matches!(
            self,
            Self::Auth
                | Self::Denied
                | Self::Quota
                | Self::RateLimited
                | Self::Overloaded
                | Self::Invalid
                | Self::Unsupported
                | Self::TooLarge
                | Self::Environment
                | Self::Budget
        )
    }

    /// Whether the same attempt may well succeed later without anything being changed.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Overloaded
                | Self::Server
                | Self::Network
                | Self::Truncated
                | Self::TimedOut
        )
    }
}

/// Why an attempt did not succeed: data that travels inside outcomes, is journaled, and is shown to people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What kind of trouble.
    pub kind: ErrorKind,
    /// What happened, in a sentence that names the thing it happened to.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The service's own hint when to come back, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What the call used although it failed, where the service said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Box<Usage>>,
    /// Facts for machines: status code, request id, exit code, tail of stderr.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

impl StepError {
    /// An error of a kind with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: None,
            retry_after_ms: None,
            usage: None,
            details: serde_json::Value::Null,
        }
    }

    /// [`ErrorKind::Invalid`] with its sentence.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what the call used although it failed.
    #[must_use]
    pub fn used(mut self, usage: Usage) -> Self {
        self.usage = Some(Box::new(usage));
        self
    }

    /// Adds facts for machines.
    #[must_use]
    pub fn details(mut self, details: serde_json::Value) -> Self {
        self.details = details;
        self
    }
}
