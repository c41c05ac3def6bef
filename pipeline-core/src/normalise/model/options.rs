//! `claude_options`: where each option goes.
//!
//! Owns the table of names. An option is a field of every model step, a policy of the schedule (deadline, retries,
//! fallback), an option of the agent, or a name that never had an effect. Must not know what an agent does with it.

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::model::{Model, Origin};
use crate::normalise::{made, merged};

/// Fields of every model step.
const FIELDS: [&str; 4] = ["model", "max_turns", "system_prompt", "append_system_prompt"];

/// Policies of the schedule.
const POLICIES: [&str; 4] = ["timeout_ms", "timeout_seconds", "retry_config", "fallback_model"];

/// What the conversation itself does with a long history.
const MEMORY: [&str; 2] = ["enable_context_management", "memory_config"];

/// Options that the agent is told.
const AGENT: [&str; 19] = [
    "output_format",
    "allowed_tools",
    "disallowed_tools",
    "permission_mode",
    "permission_prompt_tool",
    "mcp_config",
    "strict_mcp_config",
    "mcp_servers",
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
];

/// Options that services reached over HTTP have, beside the step's own keys.
const SERVICE: [&str; 6] =
    ["thinking_budget", "effort", "stop_sequences", "seed", "cache_prompt", "safety_settings"];

/// Options of the original that never had an effect.
const NO_EFFECT: [&str; 7] = [
    "verbose",
    "debug_mode",
    "telemetry_enabled",
    "cost_tracking",
    "print",
    "async_streaming",
    "pass_through_streaming",
];

impl Model<'_> {
    /// A layer of options; what it says wins over the layers before it.
    pub(super) fn options(&mut self, entries: &[Entry], origin: Origin, report: &mut Report) {
        for entry in entries {
            match entry.key.as_str() {
                key if FIELDS.contains(&key) => self.set(key, entry),
                "timeout_ms" => self.timeout = Some((entry.clone(), origin)),
                "timeout_seconds" => self.timeout = Some((milliseconds(entry), origin)),
                "retry_config" => self.retry = Some((entry.clone(), origin)),
                "fallback_model" => self.fallback_model = Some(entry.clone()),
                "temperature" => self.if_able("temperature", entry, report),
                "max_tokens" => self.if_able("max_output_tokens", entry, report),
                key if MEMORY.contains(&key) => {
                    self.memory(entry, report);
                    // An agent that shortens its own conversations is told too.
                    if self.able.as_ref().is_some_and(|able| able.options.contains(&key)) {
                        self.agent_option(entry, origin, report);
                    }
                }
                key if AGENT.contains(&key) || SERVICE.contains(&key) => {
                    self.agent_option(entry, origin, report);
                }
                key if NO_EFFECT.contains(&key) || key.starts_with("stream_") => no_effect(entry, report),
                key if key.starts_with("x-") => {}
                key => unknown(key, entry, report),
            }
        }
    }

    /// The original never sent these. They are sent where the backend takes them.
    fn if_able(&mut self, key: &str, entry: &Entry, report: &mut Report) {
        let able = self
            .able
            .as_ref()
            .is_none_or(|a| if key == "temperature" { a.sampling } else { a.max_output_tokens });
        if able {
            self.set(key, entry);
        } else {
            no_effect(entry, report);
        }
    }

    fn agent_option(&mut self, entry: &Entry, origin: Origin, report: &mut Report) {
        let key = entry.key.as_str();
        let lacks = self.able.as_ref().is_some_and(|able| !able.options.contains(&key));
        // What only a preset wants of a backend without such a thing is not wanted: no tools are no wider. What the file
        // wants is refused by the compiler, which knows every backend.
        if lacks && (origin == Origin::Preset || key == "output_format") {
            if origin == Origin::File {
                no_effect(entry, report);
            }
            return;
        }
        let value = match key {
            "output_format" => word(entry, &["text", "json", "stream_json"], report),
            "permission_mode" => {
                word(entry, &["default", "accept_edits", "bypass_permissions", "plan"], report)
            }
            "allowed_tools" | "disallowed_tools" | "add_dir" | "setting_sources" => list(entry, report),
            "agents" => agents(entry, report),
            _ => entry.value.clone(),
        };
        let value = match self.options.iter().find(|e| e.key == key).map(|e| &e.value.kind) {
            Some(NodeKind::Map(under)) if matches!(value.kind, NodeKind::Map(_)) => {
                Node::new(value.span, NodeKind::Map(merged(under, value.entries())))
            }
            _ => value,
        };
        self.options.retain(|e| e.key != key);
        self.options.push(Entry { value, ..entry.clone() });
    }

    /// `enable_context_management` and `memory_config` are `memory` of the kernel step.
    fn memory(&mut self, entry: &Entry, report: &mut Report) {
        const KNOWN: [&str; 3] = ["max_context_length", "auto_compact", "compact_threshold"];
        let mut fields =
            self.config.iter().find(|e| e.key == "memory").map_or(Vec::new(), |e| e.value.entries().to_vec());
        if entry.key == "enable_context_management" {
            fields = merged(&fields, &[made("auto_compact", entry.value.clone())]);
        } else {
            for inner in entry.value.entries() {
                if KNOWN.contains(&inner.key.as_str()) {
                    fields = merged(&fields, std::slice::from_ref(inner));
                } else {
                    let message = format!("`memory_config` has no key `{}`", inner.key);
                    let finding = Diagnostic::error("E0101", inner.key_span, message);
                    report.push(finding.help(format!("it has: {}", KNOWN.join(", "))));
                }
            }
        }
        self.set("memory", &made("memory", Node::new(entry.value.span, NodeKind::Map(fields))));
    }
}

/// One of a few words, in any of the original's spellings (`acceptEdits`, `stream-json`).
fn word(entry: &Entry, words: &[&str], report: &mut Report) -> Node {
    let Some(text) = entry.value.as_text().filter(|t| !t.contains("{{")) else { return entry.value.clone() };
    let bare =
        |t: &str| t.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    match words.iter().find(|w| bare(w) == bare(text)) {
        Some(word) => Node { kind: NodeKind::Text((*word).to_owned()), ..entry.value.clone() },
        None => {
            let message = format!("`{}` must be one of {}", entry.key, words.join(", "));
            let finding = Diagnostic::error("E0104", entry.value.span, message);
            report.push(match closest(text, words.iter().copied()) {
                Some(near) => finding.suggest(near),
                None => finding,
            });
            entry.value.clone()
        }
    }
}

/// A list of names; one name is a list of one.
fn list(entry: &Entry, report: &mut Report) -> Node {
    match &entry.value.kind {
        NodeKind::Text(text) if text.contains("{{") => entry.value.clone(),
        NodeKind::Text(_) => Node::new(entry.value.span, NodeKind::List(vec![entry.value.clone()])),
        NodeKind::List(items) if items.iter().all(|i| i.as_text().is_some()) => entry.value.clone(),
        NodeKind::Null => Node::new(entry.value.span, NodeKind::List(Vec::new())),
        _ => {
            let message =
                format!("`{}` must be a list of names, and this is {}", entry.key, entry.value.kind_name());
            report.push(Diagnostic::error("E0103", entry.value.span, message));
            entry.value.clone()
        }
    }
}

/// Subagents by name. The original dropped one without `description` or `prompt`, and told nobody.
fn agents(entry: &Entry, report: &mut Report) -> Node {
    const KNOWN: [&str; 5] = ["name", "description", "prompt", "tools", "model"];
    for agent in entry.value.entries() {
        for needed in ["description", "prompt"] {
            if agent.value.get(needed).is_none_or(|n| n.kind == NodeKind::Null) {
                let message = format!("the agent `{}` needs `{needed}`", agent.key);
                report.push(Diagnostic::error("E0102", agent.key_span, message));
            }
        }
        for inner in agent.value.entries().iter().filter(|e| !KNOWN.contains(&e.key.as_str())) {
            let message = format!("an agent has no key `{}`", inner.key);
            let finding = Diagnostic::error("E0101", inner.key_span, message);
            report.push(match closest(&inner.key, KNOWN) {
                Some(near) => finding.suggest(near),
                None => finding.help(format!("it has: {}", KNOWN.join(", "))),
            });
        }
    }
    if !matches!(entry.value.kind, NodeKind::Map(_)) {
        let message = format!("`agents` must be a map of names, and this is {}", entry.value.kind_name());
        report.push(Diagnostic::error("E0103", entry.value.span, message));
    }
    entry.value.clone()
}

/// Seconds as milliseconds. What is no length of time is reported where the deadline is read.
fn milliseconds(entry: &Entry) -> Entry {
    let seconds = if let NodeKind::Number(n) = &entry.value.kind { n.as_f64() } else { None };
    let length = seconds.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
    let value = match length.and_then(|l| u64::try_from(l.as_millis()).ok()) {
        Some(ms) => Node::from_json(entry.value.span, &ms.into()),
        None => entry.value.clone(),
    };
    Entry { key: "timeout_ms".to_owned(), value, ..entry.clone() }
}

/// Notes an option that the original accepted and never used.
pub(super) fn no_effect(entry: &Entry, report: &mut Report) {
    let message = format!("`{}` has no effect", entry.key);
    let finding = Diagnostic::note("E0110", entry.key_span, message);
    report.push(finding.help("remove it; progress and cost are always recorded"));
}

fn unknown(key: &str, entry: &Entry, report: &mut Report) {
    let finding = Diagnostic::error("E0101", entry.key_span, format!("`claude_options` has no key `{key}`"));
    let known = FIELDS.iter().chain(&POLICIES).chain(&AGENT).chain(&SERVICE).chain(&MEMORY).copied();
    report.push(match closest(key, known) {
        Some(near) => finding.suggest(near),
        None => finding.help("see the reference for its keys"),
    });
}
