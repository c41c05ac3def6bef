//! Sessions and extraction as a file writes them.
//!
//! Owns the spellings of `session`, `session_config`, `extraction` and `extraction_config`. Must not know stores.

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::made;
use crate::normalise::model::{Model, options};

impl Model<'_> {
    /// `session: NAME`, `session: {…}` and `session_config: {…}` are one map.
    pub(super) fn session(&mut self, entry: &Entry, report: &mut Report) {
        const KNOWN: [&str; 4] = ["name", "persist", "continue_on_restart", "max_turns"];
        let mut fields: Vec<Entry> = Vec::new();
        match &entry.value.kind {
            NodeKind::Text(_) => fields.push(made("name", entry.value.clone())),
            NodeKind::Map(entries) => {
                for inner in entries {
                    let key = match inner.key.as_str() {
                        "session_name" | "session_id" | "name" => "name",
                        "max_turns" | "max_session_turns" => "max_turns",
                        "persist" => "persist",
                        "continue_on_restart" | "continue_session" => "continue_on_restart",
                        // Every turn is durable when it ends, and a description is for readers.
                        "checkpoint_frequency" | "checkpoint_interval" | "checkpoint_dir" => {
                            options::no_effect(inner, report);
                            continue;
                        }
                        "description" => continue,
                        key if key.starts_with("x-") => continue,
                        key => {
                            let message = format!("`{}` has no key `{key}`", entry.key);
                            let finding = Diagnostic::error("E0101", inner.key_span, message);
                            report.push(match closest(key, KNOWN.into_iter().chain(["session_name"])) {
                                Some(near) => finding.suggest(near),
                                None => finding.help(format!("it has: {}, description", KNOWN.join(", "))),
                            });
                            continue;
                        }
                    };
                    // A name before an id, in whatever order they stand.
                    let is_id = inner.key == "session_id" && fields.iter().any(|e| e.key == "name");
                    if !is_id {
                        fields.retain(|e| e.key != key);
                        fields.push(Entry { key: key.to_owned(), ..inner.clone() });
                    }
                }
            }
            NodeKind::Null => {}
            _ => {
                let message = format!(
                    "`{}` must be a name or a map, and this is {}",
                    entry.key,
                    entry.value.kind_name()
                );
                report.push(Diagnostic::error("E0103", entry.value.span, message));
            }
        }
        self.set("session", &made("session", Node::new(entry.value.span, NodeKind::Map(fields))));
    }

    /// A session without a name has the step's.
    pub(super) fn complete_session(&mut self) {
        if self.written == "claude_session" && !self.has("session") {
            self.config.push(made("session", Node::new(self.step.span, NodeKind::Map(Vec::new()))));
        }
        if !self.has("session") {
            self.go_on_with_the_last();
        }
        let name = self.step.get("name").or_else(|| self.step.get("id")).cloned();
        if let (Some(entry), Some(name)) = (self.config.iter_mut().find(|e| e.key == "session"), name)
            && let NodeKind::Map(fields) = &mut entry.value.kind
            && !fields.iter().any(|e| e.key == "name")
        {
            fields.push(made("name", name));
        }
    }

    /// A `claude_continue` that names no session, in a step that has none, goes on with the step before.
    fn go_on_with_the_last(&mut self) {
        let Some(prompt) = self.config.iter_mut().find(|e| e.key == "prompt") else { return };
        let NodeKind::List(parts) = &mut prompt.value.kind else { return };
        for part in parts {
            let is_open = part.get("type").and_then(Node::as_text) == Some("claude_continue")
                && part.get("session").is_none();
            if let (NodeKind::Map(fields), true) = (&mut part.kind, is_open) {
                let text = "{{ previous_response.session_id | default('') }}";
                fields.push(made("session", Node::text(part.span, text)));
            }
        }
    }

    /// `extraction` and `extraction_config`.
    pub(super) fn extraction(&mut self, entry: &Entry, report: &mut Report) {
        let mut fields: Vec<Entry> = Vec::new();
        for inner in entry.value.entries() {
            match inner.key.as_str() {
                "output_format" => fields.push(Entry { key: "format".to_owned(), ..inner.clone() }),
                "post_processing" => {
                    let value = without_legacy_words(&inner.value, report);
                    fields.push(Entry { value, ..inner.clone() });
                }
                "use_content_extractor"
                | "sections"
                | "code_block_processing"
                | "recommendation_format"
                | "summary_style" => options::no_effect(inner, report),
                _ => fields.push(inner.clone()),
            }
        }
        if !matches!(entry.value.kind, NodeKind::Map(_) | NodeKind::Null) {
            let message = format!("`{}` must be a map, and this is {}", entry.key, entry.value.kind_name());
            report.push(Diagnostic::error("E0103", entry.value.span, message));
        }
        self.set("extraction", &made("extraction", Node::new(entry.value.span, NodeKind::Map(fields))));
    }
}

/// Words of `post_processing` that the original took and only warned about.
fn without_legacy_words(node: &Node, report: &mut Report) -> Node {
    let NodeKind::List(items) = &node.kind else { return node.clone() };
    let mut kept = Vec::new();
    for item in items {
        match item.as_text() {
            Some(word @ ("trim" | "validate")) => {
                let message = format!("`{word}` has no effect");
                let finding = Diagnostic::note("E0110", item.span, message);
                report.push(finding.help("remove it; answers are checked against their schema anyway"));
            }
            _ => kept.push(item.clone()),
        }
    }
    Node { kind: NodeKind::List(kept), ..node.clone() }
}
