//! What a file says about a model provider of its own: one entry of `providers`.
//!
//! Owns [`ProviderEntry`], plain data that a plan carries and that a user's configuration may hold as well, and
//! [`ProviderKind`], what the compiler knows of a kind. Must not know how a connection is made, nor any secret: an
//! entry names the variable that holds the key, and never the key.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::provider::Capabilities;

/// A kind of backend, as `providers.NAME.kind` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderKind {
    /// The value of `kind`.
    pub name: &'static str,
    /// Names of providers that are of this kind without saying so.
    pub built_in: &'static [&'static str],
    /// What it honours.
    pub capabilities: Capabilities,
}

/// One entry of `providers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderEntry {
    /// The name that steps use. The key of the entry.
    #[serde(skip)]
    pub name: String,
    /// What it speaks: `anthropic`, `gemini`, `openai`, `ollama`, or `claude` for the agent CLI.
    pub kind: String,
    /// Where it is; the kind's own service when absent. `${NAME}` is filled when the connection is made.
    pub base_url: Option<String>,
    /// The model of steps that name none.
    pub model: Option<String>,
    /// The environment variable that holds the key.
    pub api_key_env: Option<String>,
    /// Path of the executable of an agent CLI, or its name in `PATH`.
    pub executable: Option<String>,
    /// Further headers. `${NAME}` in a value is filled when the connection is made.
    pub headers: BTreeMap<String, String>,
    /// What it can take, and how long it is waited for.
    pub limits: ProviderLimits,
    /// Prices by model, where they differ from the built-in table or are not in it.
    pub prices: BTreeMap<String, ModelPrice>,
}

/// What a provider can take.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderLimits {
    /// Most requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Most tokens sent a minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Most tokens received a minute.
    pub output_tokens_per_minute: Option<u64>,
    /// Most calls at once.
    pub max_parallel: Option<u64>,
    /// Most tokens of one answer, where the model's own maximum is not known.
    pub max_output_tokens: Option<u64>,
    /// Longest wait for the first event of an answer, in seconds. Default 600.
    pub response_seconds: Option<f64>,
    /// Longest silence between two events of an answer, in seconds. Default 60.
    pub idle_seconds: Option<f64>,
}

/// Prices of one model, in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// Tokens sent.
    pub input: f64,
    /// Tokens received, thinking included.
    pub output: f64,
    /// Tokens read from the provider's cache; as `input` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Tokens written to the provider's cache; as `input` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Most tokens of one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Prices of a call that sends more than so many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongPrice>,
}

/// Prices of long calls, in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LongPrice {
    /// A call is long when it sends more tokens than this.
    pub above: u64,
    /// Tokens sent.
    pub input: f64,
    /// Tokens received.
    pub output: f64,
    /// Tokens read from the provider's cache; as `input` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
}
