//! Model steps: every named variant is the leaf `prompt` with options.
//!
//! Owns the order in which a step's options are gathered: preset, then the workflow's keys, then `defaults`, then what the
//! step says; what comes later wins, maps are merged deep, lists are replaced. Must not know how a prompt is sent.
//! Next: `model/options.rs` (`claude_options`), `model/robust.rs` (fallbacks), `parts.rs` (the prompt).

mod preset;
mod options;
mod robust;
mod session;
mod media;

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::{Leaf, Surroundings, made, merged, parts};
use crate::provider::Capabilities;

pub use preset::{PRESETS, Preset, preset};

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
const SAME: [&str; 13] = [
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
    "json",
    "expect",
];

/// The provider when the step and the defaults name none.
const DEFAULT_PROVIDER: &str = "claude";

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

/// Where an option comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Preset,
    /// The file says it: the workflow, `defaults`, or the step.
    File,
}

struct Model<'a> {
    written: &'a str,
    step: &'a Node,
    around: &'a Surroundings<'a>,
    /// The provider, where it can be known now.
    provider: Option<String>,
    /// What it is able to do.
    able: Option<Capabilities>,
    config: Vec<Entry>,
    /// Options of the agent.
    options: Vec<Entry>,
    timeout: Option<(Entry, Origin)>,
    retry: Option<(Entry, Origin)>,
    /// Models that are asked when the first one fails.
    fallback_model: Option<Entry>,
    fallback: Option<Entry>,
}

/// Compiles one model step into kernel form.
pub(super) fn step(
    written: &str,
    step: &Node,
    entries: &[Entry],
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Leaf {
    let named = entries.iter().find(|e| e.key == "provider").map(|e| &e.value);
    let default = around.defaults.and_then(|d| d.get("provider")).filter(|_| provider_of(written).is_none());
    let provider = match named.or(default).filter(|_| named.is_some() || provider_of(written).is_none()) {
        Some(node) => node.as_text().filter(|t| !t.contains("{{")).map(str::to_owned),
        None => Some(provider_of(written).unwrap_or(DEFAULT_PROVIDER).to_owned()),
    };
    let able = provider.as_deref().and_then(around.capabilities);
    let mut model = Model {
        written,
        step,
        around,
        provider,
        able,
        config: Vec::new(),
        options: Vec::new(),
        timeout: None,
        retry: None,
        fallback_model: None,
        fallback: None,
    };
    model.gather(entries, report);
    model.finish(report)
}

impl Model<'_> {
    /// Everything that is said about the step, least first: what is set later wins.
    fn gather(&mut self, entries: &[Entry], report: &mut Report) {
        let is_claude = self.is_claude();
        if let Some(chosen) = self.chosen_preset(entries, report) {
            self.preset(chosen, report);
        }
        if is_claude {
            // Where this program itself calls the tools, it also has the servers and asks the hooks.
            let is_agent = self.able.as_ref().is_none_or(|able| able.agent);
            let ours = |key: &str| matches!(key, "mcp_servers" | "hooks");
            let told = self.around.agent.iter().filter(|e| is_agent || !ours(&e.key));
            self.options(&told.cloned().collect::<Vec<_>>(), Origin::File, report);
        }
        self.defaults(is_claude, report);
        let mut given: Vec<Entry> = Vec::new();
        for key in ["options", "claude_options"] {
            if let Some(entry) = entries.iter().find(|e| e.key == key) {
                if key == "claude_options" && provider_of(self.written) == Some("gemini") {
                    let message = format!("a `{}` step has no `{key}`", self.written);
                    report.push(Diagnostic::error("E0406", entry.key_span, message));
                    continue;
                }
                if !matches!(entry.value.kind, NodeKind::Map(_)) {
                    let message = format!("`{key}` must be a map, and this is {}", entry.value.kind_name());
                    report.push(Diagnostic::error("E0103", entry.value.span, message));
                }
                given = merged(&given, entry.value.entries());
            }
        }
        self.options(&given, Origin::File, report);
        for entry in entries {
            self.key(entry, report);
        }
    }

    /// Whether it is asked of Claude, so that what the workflow says of Claude steps counts.
    fn is_claude(&self) -> bool {
        let by_type = provider_of(self.written) == Some("claude");
        by_type || self.provider.as_deref() == Some("claude") || self.able.as_ref().is_some_and(|a| a.agent)
    }

    fn has(&self, key: &str) -> bool {
        self.config.iter().any(|e| e.key == key)
    }

    fn set(&mut self, key: &str, entry: &Entry) {
        self.config.retain(|e| e.key != key);
        self.config.push(Entry { key: key.to_owned(), ..entry.clone() });
    }

    fn copy(&mut self, key: &str, entry: Option<&Entry>) {
        if let Some(entry) = entry {
            self.set(key, entry);
        }
    }

    /// `defaults`.
    fn defaults(&mut self, is_claude: bool, report: &mut Report) {
        let Some(defaults) = self.around.defaults else { return };
        let default = |key: &str| defaults.entry(key);
        self.copy("model", default("model"));
        if provider_of(self.written) == Some("gemini") || self.provider.as_deref() == Some("gemini") {
            if let Some(budget) = default("gemini_token_budget") {
                self.token_budget(budget, report);
            }
            self.copy("model", default("gemini_model"));
        }
        if provider_of(self.written).is_none() {
            self.copy("provider", default("provider"));
        }
        if !is_claude {
            return;
        }
        self.copy("model", default("claude_model"));
        if let Some(format) = default("claude_output_format") {
            let format = Entry { key: "output_format".to_owned(), ..format.clone() };
            self.options(&[format], Origin::File, report);
        }
        if let Some(entry) = default("claude_fallback_model") {
            self.fallback_model = Some(entry.clone());
        }
        if let Some(options) = default("claude_options") {
            self.options(options.value.entries(), Origin::File, report);
        }
    }

    /// The preset that lies under the step, with the place that names it.
    fn chosen_preset(&self, entries: &[Entry], report: &mut Report) -> Option<(&'static Preset, Node)> {
        let own = entries.iter().find(|e| e.key == "preset").map(|e| &e.value);
        let default = self.around.defaults.and_then(|d| d.get("claude_preset")).filter(|_| self.is_claude());
        if let Some(node) = own.or(default) {
            let given = node.as_text().unwrap_or_default();
            let found = preset(given);
            if found.is_none() {
                let message = format!("there is no preset `{given}`");
                let finding = Diagnostic::error("E0104", node.span, message);
                let known = PRESETS.map(|p| p.name);
                report.push(match closest(given, known) {
                    Some(near) => finding.suggest(near),
                    None => finding.help(format!("it is one of {}", known.join(", "))),
                });
            }
            return Some((found?, node.clone()));
        }
        let name = match self.written {
            "claude_smart" => "development",
            "claude_session" | "claude_extract" => "analysis",
            "claude_robust" => "production",
            _ => return None,
        };
        Some((preset(name)?, Node::text(self.step.span, name)))
    }

    fn preset(&mut self, (chosen, at): (&'static Preset, Node), report: &mut Report) {
        let mut options = chosen.options();
        if self.written == "claude_smart" {
            options.insert("append_system_prompt".to_owned(), chosen.manner.into());
        }
        let entries: Vec<Entry> =
            options.iter().map(|(key, value)| made(key, Node::from_json(at.span, value))).collect();
        self.options(&entries, Origin::Preset, report);
    }

    /// One key of the step.
    fn key(&mut self, entry: &Entry, report: &mut Report) {
        match entry.key.as_str() {
            "prompt" => {
                let value = parts::prompt(&entry.value, report);
                self.set("prompt", &Entry { value, ..entry.clone() });
            }
            // Gathered already, or added at the end.
            "claude_options" | "options" | "preset" | "file" | "fallback_action" => {}
            "token_budget" => self.token_budget(entry, report),
            "functions" | "tools" => self.functions(entry, report),
            "schema" | "output_schema" => self.set("output_schema", entry),
            "session" | "session_config" => self.session(entry, report),
            "extraction" | "extraction_config" => self.extraction(entry, report),
            "memory_config" | "enable_context_management" => {
                self.options(std::slice::from_ref(entry), Origin::File, report);
            }
            "fallback" => self.fallback = Some(entry.clone()),
            "fallback_model" => self.fallback_model = Some(entry.clone()),
            key if SAME.contains(&key) => self.set(key, entry),
            // The schema of the kernel step reports what it does not know.
            _ => self.config.push(entry.clone()),
        }
    }

    fn token_budget(&mut self, entry: &Entry, report: &mut Report) {
        const KNOWN: [&str; 4] = ["max_output_tokens", "temperature", "top_p", "top_k"];
        for inner in entry.value.entries() {
            match inner.key.as_str() {
                key if KNOWN.contains(&key) => self.set(key, inner),
                "max_input_tokens" => options::no_effect(inner, report),
                key => {
                    let message = format!("`token_budget` has no key `{key}`");
                    let finding = Diagnostic::error("E0101", inner.key_span, message);
                    report.push(match closest(key, KNOWN) {
                        Some(near) => finding.suggest(near),
                        None => finding.help(format!("it has: {}", KNOWN.join(", "))),
                    });
                }
            }
        }
    }

    /// Names of declared functions become their declarations; other names are tools.
    fn functions(&mut self, entry: &Entry, report: &mut Report) {
        for item in entry.value.items() {
            let name =
                item.as_text().or_else(|| item.get("name").and_then(Node::as_text)).unwrap_or_default();
            match self.around.functions.get(name) {
                Some(function) => {
                    let mut fields = vec![made("name", Node::text(item.span, name))];
                    let given = ["description", "parameters"];
                    fields.extend(given.iter().filter_map(|k| function.entry(k)).cloned());
                    self.add("functions", Node::new(item.span, NodeKind::Map(fields)));
                }
                None if item.get("parameters").is_some() => self.add("functions", item.clone()),
                None => {
                    let known = self.around.functions.keys().map(String::as_str);
                    let near = closest(name, known);
                    // A registered tool may be named as a function too; a slip of a declared name is not one.
                    if item.as_text().is_some() && (entry.key == "tools" || near.is_none()) {
                        self.add("tools", item.clone());
                        continue;
                    }
                    let message = format!("there is no function `{name}`");
                    let finding = Diagnostic::error("E0404", item.span, message);
                    report.push(match near {
                        Some(near) => finding.suggest(near),
                        None => finding.help("declare it under `functions` of the workflow"),
                    });
                }
            }
        }
    }

    /// Adds an item to a list of the configuration.
    fn add(&mut self, key: &str, item: Node) {
        match self.config.iter_mut().find(|e| e.key == key) {
            Some(Entry { value: Node { kind: NodeKind::List(items), .. }, .. }) => items.push(item),
            _ => self.config.push(made(key, Node::new(item.span, NodeKind::List(vec![item])))),
        }
    }

    fn finish(mut self, report: &mut Report) -> Leaf {
        if let Some(entry) = self.step.entry("file") {
            self.file(entry, report);
        }
        if !self.has("provider")
            && let Some(name) = provider_of(self.written)
        {
            self.config.push(made("provider", Node::text(self.step.span, name)));
        }
        if self.written == "gemini_instructor" && !self.has("output_schema") && !self.has("functions") {
            let schema = Node::from_json(self.step.span, &instructed());
            self.config.push(made("output_schema", schema));
        }
        self.complete_session();
        if self.written == "claude_extract" && !self.has("extraction") {
            self.config.push(made("extraction", Node::new(self.step.span, NodeKind::Map(Vec::new()))));
        }
        self.check_media(report);
        let (fallback, on_error) = self.fallbacks(report);
        if !self.options.is_empty() {
            let options = std::mem::take(&mut self.options);
            let span = options.first().map_or(self.step.span, |e| e.value.span);
            self.config.push(made("options", Node::new(span, NodeKind::Map(options))));
        }
        // What only a preset says lies under what `defaults` say of every step.
        let defaults = self.around.defaults;
        let over = |given: Option<(Entry, Origin)>, key: &str| {
            let is_under = defaults.is_some_and(|d| d.get(key).is_some());
            given.filter(|(_, origin)| *origin == Origin::File || !is_under).map(|(entry, _)| entry)
        };
        Leaf {
            kind: "prompt",
            timeout: over(self.timeout.take(), "timeout_seconds"),
            retry: over(self.retry.take(), "retry"),
            config: self.config,
            fallback,
            on_error,
        }
    }

    /// `file` of a task: its content is the last part of the prompt.
    fn file(&mut self, entry: &Entry, report: &mut Report) {
        let fields =
            vec![made("type", Node::text(entry.value.span, "file")), made("path", entry.value.clone())];
        let part = Node::new(entry.value.span, NodeKind::Map(fields));
        let mut items = match self.config.iter().find(|e| e.key == "prompt").map(|e| &e.value) {
            Some(Node { kind: NodeKind::List(items), .. }) => items.clone(),
            Some(text) => parts::prompt(&Node::new(text.span, NodeKind::List(vec![text.clone()])), report)
                .items()
                .to_vec(),
            None => Vec::new(),
        };
        items.push(part);
        self.set("prompt", &made("prompt", Node::new(entry.value.span, NodeKind::List(items))));
    }
}

/// What an answer of `gemini_instructor` has when the step does not say.
fn instructed() -> crate::value::Value {
    serde_json::json!({
        "type": "object",
        "required": ["text"],
        "properties": {
            "text": { "type": "string" }, "analysis": { "type": "string" }, "summary": { "type": "string" },
        },
    })
}
