//! The presets of Claude steps, as data.
//!
//! Owns [`PRESETS`]: what each name stands for, in one place, so that whoever tells where a value came from can name it.
//! A preset lies under everything that the file says itself. Must not know steps.

use serde_json::{Map, json};

use crate::value::Value;

/// A named set of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Most turns of the agent.
    pub max_turns: u64,
    /// Tools that the agent may use.
    pub allowed_tools: &'static [&'static str],
    /// The model; `None` = the provider's.
    pub model: Option<&'static str>,
    /// The model that is asked when the first one fails.
    pub fallback_model: Option<&'static str>,
    /// Tries after the first.
    pub max_retries: u64,
    /// How the waits between tries grow.
    pub backoff: &'static str,
    /// What is tried again.
    pub retry_on: &'static [&'static str],
    /// Deadline of an attempt.
    pub timeout_ms: u64,
    /// How the agent writes its answer on the wire.
    pub output_format: &'static str,
    /// Who the agent is.
    pub system_prompt: &'static str,
    /// What `claude_smart` adds to the system prompt.
    pub manner: &'static str,
}

/// Every preset.
pub const PRESETS: [Preset; 5] = [
    Preset {
        name: "development",
        max_turns: 20,
        allowed_tools: &["Write", "Edit", "Read", "Bash", "Search", "Glob", "Grep"],
        model: Some("sonnet"),
        fallback_model: None,
        max_retries: 3,
        backoff: "exponential",
        retry_on: &["timeout", "api_error"],
        timeout_ms: 300_000,
        output_format: "stream_json",
        system_prompt: "You are a development assistant: you write, run and explain code.",
        manner: "Say in detail what you do and why.",
    },
    Preset {
        name: "production",
        max_turns: 10,
        allowed_tools: &["Read"],
        model: Some("opus"),
        fallback_model: Some("sonnet"),
        max_retries: 2,
        backoff: "linear",
        retry_on: &["timeout"],
        timeout_ms: 120_000,
        output_format: "json",
        system_prompt: "You are a production assistant: you are careful, exact and brief.",
        manner: "Put safety first and use as little as the task needs.",
    },
    Preset {
        name: "analysis",
        max_turns: 5,
        allowed_tools: &["Read", "Glob", "Grep"],
        model: Some("opus"),
        fallback_model: None,
        max_retries: 2,
        backoff: "exponential",
        retry_on: &["timeout", "api_error"],
        timeout_ms: 180_000,
        output_format: "json",
        system_prompt: "You are an expert in code analysis: you read, compare and judge.",
        manner: "Give a structured analysis with recommendations.",
    },
    Preset {
        name: "chat",
        max_turns: 15,
        allowed_tools: &[],
        model: None,
        fallback_model: None,
        max_retries: 1,
        backoff: "linear",
        retry_on: &["timeout"],
        timeout_ms: 60_000,
        output_format: "text",
        system_prompt: "You are a helpful assistant.",
        manner: "Answer in a conversation, and concisely.",
    },
    Preset {
        name: "test",
        max_turns: 3,
        allowed_tools: &["Read"],
        model: None,
        fallback_model: None,
        max_retries: 1,
        backoff: "linear",
        retry_on: &[],
        timeout_ms: 30_000,
        output_format: "json",
        system_prompt: "You are a test assistant.",
        manner: "Answer the same question the same way every time.",
    },
];

/// The preset of a name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

impl Preset {
    /// What it stands for, by the names of `claude_options`.
    pub fn options(&self) -> Map<String, Value> {
        let mut all = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                all.insert(key.to_owned(), value);
            }
        };
        put("max_turns", self.max_turns.into());
        put("allowed_tools", json!(self.allowed_tools));
        put("model", json!(self.model));
        put("fallback_model", json!(self.fallback_model));
        put("timeout_ms", self.timeout_ms.into());
        put("output_format", self.output_format.into());
        put("system_prompt", self.system_prompt.into());
        // Trying again on nothing is not trying again.
        if !self.retry_on.is_empty() {
            let retry = json!({
                "max_retries": self.max_retries, "backoff_strategy": self.backoff, "retry_on": self.retry_on,
            });
            put("retry_config", retry);
        }
        all
    }
}
