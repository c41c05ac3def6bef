//! Convenience spellings into kernel form: nodes in, nodes out.
//!
//! Owns [`leaf`]: which kernel step a written `type` means, and its configuration there. Must not know scopes, names or
//! plans. Next: `normalise/model.rs` for model steps; `plan/compile.rs`, which compiles what comes out.

mod model;
mod parts;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Report};
use crate::document::{Entry, Node, NodeKind};
use crate::provider::Capabilities;

pub use model::{PRESETS, Preset, is_model, preset, provider_of};

/// Keys of the workflow that reach every Claude step unless it overrides them.
pub const OF_CLAUDE: [&str; 7] = [
    "agents",
    "hooks",
    "mcp_servers",
    "enable_skills",
    "setting_sources",
    "enable_context_management",
    "memory_config",
];

/// What a pipeline says that reaches its steps.
pub struct Surroundings<'a> {
    /// `defaults`.
    pub defaults: Option<&'a Node>,
    /// `functions`, by name.
    pub functions: &'a BTreeMap<String, Node>,
    /// The workflow's keys among [`OF_CLAUDE`].
    pub agent: &'a [Entry],
    /// What a provider is able to do; `None` for a name that is not known.
    pub capabilities: &'a dyn Fn(&str) -> Option<Capabilities>,
}

/// A leaf in kernel form.
pub struct Leaf {
    /// Step type in the catalog.
    pub kind: &'static str,
    /// Its configuration.
    pub config: Vec<Entry>,
    /// A deadline that was written among the options.
    pub timeout: Option<Entry>,
    /// A retry policy that was written among the options.
    pub retry: Option<Entry>,
    /// Other ways to do it, in order: each a set of keys that is laid over the configuration.
    pub fallback: Vec<Vec<Entry>>,
    /// What to do instead of failing, where the step itself has no `on_error`.
    pub on_error: Option<Node>,
}

impl Leaf {
    /// A leaf with nothing but its configuration.
    pub fn plain(kind: &'static str, config: Vec<Entry>) -> Self {
        Self { kind, config, timeout: None, retry: None, fallback: Vec::new(), on_error: None }
    }
}

/// A leaf's kernel form. `entries` are the step's keys without those that every step has.
pub fn leaf(
    written: &str,
    step: &Node,
    entries: Vec<Entry>,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Leaf> {
    if is_model(written) {
        return Some(model::step(written, step, &entries, around, report));
    }
    match written {
        "set_variable" => Some(Leaf::plain("set_variable", set_variable(step, entries))),
        "data_transform" => {
            let mut config = entries;
            if let Some(at) = config.iter().position(|e| e.key == "lazy") {
                let entry = config.remove(at);
                let finding = Diagnostic::note("E0110", entry.key_span, "`lazy` has no effect");
                report.push(finding.help("remove it; rows are never copied before they must be"));
            }
            if !config.iter().any(|e| e.key == "output_field")
                && let Some(name) = step.get("name")
            {
                config.push(made("output_field", name.clone()));
            }
            Some(Leaf::plain("data_transform", config))
        }
        "checkpoint" => {
            let mut config = entries;
            let loads = step.get("action").and_then(Node::as_text) == Some("load");
            if !loads && !config.iter().any(|e| e.key == "state") {
                config.push(made("state", Node::new(step.span, NodeKind::Text("state".into()))));
            }
            Some(Leaf::plain("checkpoint", config))
        }
        _ => None,
    }
}

/// `variable` + `value` is `variables` with one entry.
fn set_variable(step: &Node, entries: Vec<Entry>) -> Vec<Entry> {
    let Some(name) = step.get("variable").and_then(Node::as_text).filter(|_| step.get("variables").is_none())
    else {
        return entries;
    };
    let value = step.get("value").cloned().unwrap_or_else(|| Node::new(step.span, NodeKind::Null));
    let key_span = step.get("variable").map_or(step.span, |n| n.span);
    let one = Entry { key: name.to_owned(), key_span, value };
    let span = one.value.span;
    let mut config: Vec<Entry> =
        entries.into_iter().filter(|e| e.key != "variable" && e.key != "value").collect();
    config.push(made("variables", Node::new(span, NodeKind::Map(vec![one]))));
    config
}

/// An entry made by the program, placed where its value stands.
fn made(key: &str, value: Node) -> Entry {
    Entry { key: key.to_owned(), key_span: value.span, value }
}

/// Two maps as one: maps merge deep, anything else of `over` wins.
pub(crate) fn merged(under: &[Entry], over: &[Entry]) -> Vec<Entry> {
    let mut all: Vec<Entry> = under.to_vec();
    for entry in over {
        match all.iter_mut().find(|e| e.key == entry.key) {
            Some(slot) => {
                slot.value = match (&slot.value.kind, &entry.value.kind) {
                    (NodeKind::Map(a), NodeKind::Map(b)) => {
                        Node::new(entry.value.span, NodeKind::Map(merged(a, b)))
                    }
                    _ => entry.value.clone(),
                };
                slot.key_span = entry.key_span;
            }
            None => all.push(entry.clone()),
        }
    }
    all
}
