//! Model steps: every named variant is the leaf `prompt` with options.

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::{Leaf, Surroundings, made, merged, parts};

/// Written types that are model steps.
const MODELS: [&str; 8] = [
    "prompt",
    "claude",
    "claude_smart",
    "claude_session",
    "claude_extract",
    "claude_robust",
    "gemini",
    "gemini_instructor",
];

/// Keys that the kernel `prompt` has under the same name.
const SAME: [&str; 12] = [
    "provider",
    "model",
    "system_prompt",
    "append_system_prompt",
    "temperature",
    "top_p",
    "top_k",
    "max_output_tokens",
    "max_turns",
    "repair_attempts",
    "validation_mode",
    "session",
];

const PRESETS: [&str; 5] = ["development", "production", "analysis", "chat", "test"];

/// Options of the original that never had an effect.
const NO_EFFECT: [&str; 8] = [
    "verbose",
    "debug_mode",
    "telemetry_enabled",
    "cost_tracking",
    "print",
    "async_streaming",
    "stream_handler",
    "stream_buffer_size",
];

/// `claude_options` that reach the agent as they are.
const AGENT: [&str; 22] = [
    "output_format",
    "allowed_tools",
    "disallowed_tools",
    "permission_mode",
    "permission_prompt_tool",
    "mcp_config",
    "mcp_servers",
    "strict_mcp_config",
    "cwd",
    "add_dir",
    "attachments",
    "session_id",
    "resume_session",
    "fork_session",
    "agent",
    "agents",
    "hooks",
    "enable_skills",
    "setting_sources",
    "enable_context_management",
    "memory_config",
    "fallback_model",
];

/// Options that services reached over HTTP have, beside the step's own keys.
const SERVICE: [&str; 6] =
    ["thinking_budget", "effort", "stop_sequences", "seed", "cache_prompt", "safety_settings"];

/// Whether a written type is a model step.
pub fn is_model(written: &str) -> bool {
    MODELS.contains(&written)
}

/// The provider that a written type names; `None` for `prompt`, where the step or the defaults do.
pub fn provider_of(written: &str) -> Option<&'static str> {
    match written {
        "prompt" => None,
        "gemini" | "gemini_instructor" => Some("gemini"),
        _ => Some("claude"),
    }
}

struct Model<'a> {
    config: Vec<Entry>,
    options: Vec<Entry>,
    timeout: Option<Entry>,
    retry: Option<Entry>,
    around: &'a Surroundings<'a>,
}

pub(super) fn step(
    written: &str,
    step: &Node,
    entries: Vec<Entry>,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Leaf {
    let default = |key: &str| around.defaults.and_then(|d| d.entry(key)).cloned();
    let mut model = Model { config: Vec::new(), options: Vec::new(), timeout: None, retry: None, around };
    let is_gemini = provider_of(written) == Some("gemini");
    // Least first: what is set later wins.
    if is_gemini {
        if let Some(budget) = default("gemini_token_budget") {
            model.token_budget(&budget, report);
        }
        model.copy("model", default("gemini_model"));
    } else {
        model.copy("model", default("claude_model"));
    }
    if provider_of(written).is_none() {
        model.copy("provider", default("provider"));
    }
    if written == "prompt" || !model.has("model") {
        model.copy("model", default("model"));
    }
    let options = entries.iter().find(|e| e.key == "claude_options" || e.key == "options").cloned();
    if !is_gemini {
        let under = default("claude_options").map_or(Vec::new(), |e| e.value.entries().to_vec());
        let over = options.as_ref().map_or(Vec::new(), |e| e.value.entries().to_vec());
        model.options(&merged(&under, &over), report);
        let preset = entries.iter().any(|e| e.key == "preset");
        if let Some(entry) = default("claude_preset").filter(|_| !preset) {
            model.preset(&entry, report);
        }
    }
    for entry in &entries {
        model.key(written, entry, report);
    }
    if let Some(name) = provider_of(written) {
        model.config.retain(|e| e.key != "provider");
        model.config.push(made("provider", Node::text(step.span, name)));
    }
    if written == "gemini_instructor" && !model.has("output_schema") && !model.has("functions") {
        let finding = Diagnostic::error(
            "E0102",
            step.span,
            "a `gemini_instructor` step needs `output_schema` or `functions`",
        );
        report.push(finding);
    }
    if !model.options.is_empty() {
        let options = std::mem::take(&mut model.options);
        let span = options.first().map_or(step.span, |e| e.value.span);
        model.config.push(made("options", Node::new(span, NodeKind::Map(options))));
    }
    Leaf { timeout: model.timeout, retry: model.retry, ..Leaf::plain("prompt", model.config) }
}

impl Model<'_> {
    fn has(&self, key: &str) -> bool {
        self.config.iter().any(|e| e.key == key)
    }

    fn set(&mut self, key: &str, entry: &Entry) {
        self.config.retain(|e| e.key != key);
        self.config.push(Entry { key: key.to_owned(), ..entry.clone() });
    }

    fn copy(&mut self, key: &str, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.set(key, &entry);
        }
    }

    /// One key of the step.
    fn key(&mut self, written: &str, entry: &Entry, report: &mut Report) {
        match entry.key.as_str() {
            "prompt" => {
                let value = parts::prompt(&entry.value, report);
                self.set("prompt", &Entry { value, ..entry.clone() });
            }
            "claude_options" | "options" => {
                if provider_of(written) == Some("gemini") {
                    let message = format!("a `{written}` step has no `{}`", entry.key);
                    report.push(Diagnostic::error("E0406", entry.key_span, message));
                }
            }
            "token_budget" => self.token_budget(entry, report),
            "functions" | "tools" => self.functions(entry, report),
            "schema" | "output_schema" => self.set("output_schema", entry),
            "preset" => self.preset(entry, report),
            "session_config" => {
                if let Some(name) =
                    entry.value.entry("session_name").or_else(|| entry.value.entry("session_id"))
                {
                    self.set("session", name);
                }
            }
            "retry_config" => self.retry = Some(entry.clone()),
            "extraction" | "extraction_config" | "fallback" | "fallback_model" | "expect" => {
                later(entry, report);
            }
            key if SAME.contains(&key) => self.set(key, entry),
            // The schema of the kernel step reports what it does not know.
            _ => self.config.push(entry.clone()),
        }
    }

    fn token_budget(&mut self, entry: &Entry, report: &mut Report) {
        for inner in entry.value.entries() {
            match inner.key.as_str() {
                "max_output_tokens" | "temperature" | "top_p" | "top_k" => self.set(&inner.key, inner),
                key => {
                    let known = ["max_output_tokens", "temperature", "top_p", "top_k"];
                    let finding = Diagnostic::error(
                        "E0101",
                        inner.key_span,
                        format!("`token_budget` has no key `{key}`"),
                    );
                    report.push(match closest(key, known) {
                        Some(near) => finding.suggest(near),
                        None => finding.help(format!("it has: {}", known.join(", "))),
                    });
                }
            }
        }
    }

    fn preset(&mut self, entry: &Entry, report: &mut Report) {
        let given = entry.value.as_text().unwrap_or_default();
        if !PRESETS.contains(&given) {
            let finding =
                Diagnostic::error("E0104", entry.value.span, format!("there is no preset `{given}`"));
            report.push(match closest(given, PRESETS) {
                Some(near) => finding.suggest(near),
                None => finding.help(format!("it is one of {}", PRESETS.join(", "))),
            });
            return;
        }
        self.options.retain(|e| e.key != "preset");
        self.options.push(Entry { key: "preset".to_owned(), ..entry.clone() });
    }

    fn options(&mut self, entries: &[Entry], report: &mut Report) {
        for entry in entries {
            match entry.key.as_str() {
                "model" | "max_turns" | "system_prompt" | "append_system_prompt" => {
                    self.set(&entry.key, entry);
                }
                "timeout_ms" => self.timeout = Some(entry.clone()),
                "retry_config" => later(entry, report),
                key if AGENT.contains(&key) || SERVICE.contains(&key) => self.options.push(entry.clone()),
                key if NO_EFFECT.contains(&key) => {
                    let message = format!("`{key}` has no effect");
                    let finding = Diagnostic::note("E0110", entry.key_span, message);
                    report.push(finding.help("remove it; progress and cost are always recorded"));
                }
                key if key.starts_with("x-") => {}
                key => {
                    let finding = Diagnostic::error(
                        "E0101",
                        entry.key_span,
                        format!("`claude_options` has no key `{key}`"),
                    );
                    let known =
                        AGENT.iter().copied().chain(["model", "max_turns", "system_prompt", "timeout_ms"]);
                    report.push(match closest(key, known) {
                        Some(near) => finding.suggest(near),
                        None => finding.help("see the reference for its keys"),
                    });
                }
            }
        }
    }

    /// Names of declared functions become their declarations; other names are tools.
    fn functions(&mut self, entry: &Entry, report: &mut Report) {
        let mut declared = Vec::new();
        let mut tools = Vec::new();
        for item in entry.value.items() {
            let name =
                item.as_text().or_else(|| item.get("name").and_then(Node::as_text)).unwrap_or_default();
            match self.around.functions.get(name) {
                Some(function) => {
                    let mut fields = vec![made("name", Node::text(item.span, name))];
                    let given = ["description", "parameters"];
                    fields.extend(given.iter().filter_map(|k| function.entry(k)).cloned());
                    declared.push(Node::new(item.span, NodeKind::Map(fields)));
                }
                None if item.get("parameters").is_some() => declared.push(item.clone()),
                None if entry.key == "tools" && item.as_text().is_some() => tools.push(item.clone()),
                None => {
                    let finding =
                        Diagnostic::error("E0404", item.span, format!("there is no function `{name}`"));
                    report.push(match closest(name, self.around.functions.keys().map(String::as_str)) {
                        Some(near) => finding.suggest(near),
                        None => finding.help("declare it under `functions` of the workflow"),
                    });
                }
            }
        }
        for (key, list) in [("functions", declared), ("tools", tools)] {
            if !list.is_empty() {
                self.set(key, &made(key, Node::new(entry.value.span, NodeKind::List(list))));
            }
        }
    }
}

/// What is known and not built yet.
fn later(entry: &Entry, report: &mut Report) {
    let message = format!("`{}` is not built yet and is ignored", entry.key);
    report.push(Diagnostic::warning("E0112", entry.key_span, message));
}
