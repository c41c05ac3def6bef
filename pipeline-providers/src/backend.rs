//! What each kind of backend is able to do, and which kind the built-in names are of.
//!
//! Owns the one table that live providers, the mock and the stand-in for a missing credential report from, so that a
//! pipeline checked with any of them meets the same refusals. Must not know requests, rules or credentials.

use pipeline_core::provider::{Capabilities, ProviderKind};

/// Tells a server on this machine which step of a run makes a request, so that a mock's rules for steps hold. It goes to no
/// other machine: names of steps are nobody's business there.
#[cfg(any(feature = "http", feature = "mock-server"))]
pub(crate) const STEP_HEADER: &str = "x-pipeline-step";

/// `claude_options` that the Claude agent CLI honours. What becomes a key of the step (`model`, `max_turns`) or steers this
/// program (`timeout_ms`, `retry_config`) is not among them.
pub(crate) const CLAUDE_OPTIONS: &[&str] = &[
    "add_dir",
    "agent",
    "agents",
    "allowed_tools",
    "attachments",
    "cwd",
    "disallowed_tools",
    "enable_context_management",
    "enable_skills",
    "fallback_model",
    "fork_session",
    "hooks",
    "mcp_config",
    "mcp_servers",
    "memory_config",
    "output_format",
    "permission_mode",
    "permission_prompt_tool",
    "resume_session",
    "session_id",
    "setting_sources",
    "strict_mcp_config",
];

const ANTHROPIC_OPTIONS: &[&str] = &["cache_prompt", "effort", "stop_sequences", "thinking_budget"];
const GEMINI_OPTIONS: &[&str] = &["safety_settings", "seed", "stop_sequences", "thinking_budget"];
const OPENAI_OPTIONS: &[&str] = &["effort", "seed", "stop_sequences"];

/// Every kind that entries of `providers` may name.
pub fn kinds() -> Vec<ProviderKind> {
    let kind = |name, built_in| ProviderKind { name, built_in, capabilities: capabilities(name) };
    vec![
        kind("claude", &["claude"]),
        kind("anthropic", &[]),
        kind("gemini", &["gemini"]),
        kind("openai", &["openai"]),
        kind("ollama", &["ollama"]),
    ]
}

/// What a backend of that kind honours. The built-in providers are named after their kinds; any other name is taken for
/// an OpenAI-compatible service.
pub(crate) fn capabilities(kind: &str) -> Capabilities {
    let service = Capabilities {
        structured_output: true,
        functions: true,
        sampling: true,
        max_output_tokens: true,
        images: true,
        documents: true,
        ..Capabilities::default()
    };
    match kind {
        "claude" => Capabilities {
            structured_output: true,
            max_output_tokens: true,
            sessions: true,
            agent: true,
            images: true,
            documents: true,
            options: CLAUDE_OPTIONS,
            ..Capabilities::default()
        },
        "anthropic" => Capabilities { options: ANTHROPIC_OPTIONS, cache_is_unlimited: true, ..service },
        "gemini" => Capabilities { options: GEMINI_OPTIONS, ..service },
        _ => Capabilities { options: OPENAI_OPTIONS, documents: kind == "openai", ..service },
    }
}

/// The model that a backend of that kind uses when a step names none.
pub(crate) fn default_model(kind: &str) -> &'static str {
    match kind {
        "claude" | "anthropic" => "sonnet",
        "gemini" => "gemini-2.5-flash",
        "openai" => "gpt-5-mini",
        "ollama" => "llama3.2",
        _ => "mock",
    }
}
