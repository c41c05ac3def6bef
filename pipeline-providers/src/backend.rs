//! What each live backend is able to do, by the name that pipelines use.
//!
//! Owns the one table that the mock and the stand-in for a missing credential report from, so that a pipeline checked
//! with either meets the same refusals as live. Must not know requests, rules or credentials.

use pipeline_core::provider::Capabilities;

/// Options of the Claude agent CLI. What only steers this program (retries, telemetry) belongs to the steps.
const CLAUDE_OPTIONS: &[&str] = &[
    "add_dir",
    "agent",
    "agents",
    "allowed_tools",
    "append_system_prompt",
    "cost_tracking",
    "cwd",
    "debug_mode",
    "disallowed_tools",
    "enable_skills",
    "fallback_model",
    "fork_session",
    "hooks",
    "max_turns",
    "mcp_config",
    "mcp_servers",
    "model",
    "output_format",
    "permission_mode",
    "permission_prompt_tool",
    "resume_session",
    "retry_config",
    "session_id",
    "setting_sources",
    "strict_mcp_config",
    "system_prompt",
    "telemetry_enabled",
    "timeout_ms",
    "timeout_seconds",
    "verbose",
];

/// What the live backend `name` honours. A name that is not built in is taken for an OpenAI-compatible service, as
/// entries of `providers` are.
pub(crate) fn capabilities(name: &str) -> Capabilities {
    if name == "claude" {
        Capabilities {
            structured_output: true,
            functions: true,
            sessions: true,
            agent: true,
            options: CLAUDE_OPTIONS,
            ..Capabilities::default()
        }
    } else {
        Capabilities {
            structured_output: true,
            functions: true,
            sampling: true,
            max_output_tokens: true,
            ..Capabilities::default()
        }
    }
}

/// The model that the backend `name` uses when a step names none.
pub(crate) fn default_model(name: &str) -> &'static str {
    match name {
        "claude" => "sonnet",
        "gemini" => "gemini-2.5-flash",
        "openai" => "gpt-5-mini",
        _ => "mock",
    }
}
