//! Prompt parts in kernel form: `static`, `file` and `value`.

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::made;

const KINDS: [&str; 3] = ["static", "file", "previous_response"];

/// Keys of each kind of part, beside `type` and `condition`/`when`.
fn keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "static" => &["content"],
        "file" => &["path", "variables", "inject_as", "encoding"],
        "value" => &["value", "max_length", "inject_as"],
        _ => &["step", "extract", "strict", "max_length", "inject_as"],
    }
}

/// A `prompt`: a text stays one; a list of parts has every part in kernel form.
pub(super) fn prompt(node: &Node, report: &mut Report) -> Node {
    match &node.kind {
        NodeKind::List(items) => {
            let parts = items.iter().filter_map(|item| part(item, report)).collect();
            Node { kind: NodeKind::List(parts), ..node.clone() }
        }
        NodeKind::Text(_) => node.clone(),
        _ => {
            let message =
                format!("`prompt` must be text or a list of parts, and this is {}", node.kind_name());
            report.push(Diagnostic::error("E0103", node.span, message));
            Node::text(node.span, "")
        }
    }
}

fn part(node: &Node, report: &mut Report) -> Option<Node> {
    if node.as_text().is_some() {
        let entries = vec![made("type", Node::text(node.span, "static")), made("content", node.clone())];
        return Some(Node::new(node.span, NodeKind::Map(entries)));
    }
    let Some(kind) = node.get("type").and_then(Node::as_text) else {
        let finding = Diagnostic::error("E0102", node.span, "a prompt part needs `type`");
        report.push(finding.help(format!("it is one of {}", KINDS.join(", "))));
        return None;
    };
    if !KINDS.contains(&kind) && kind != "value" {
        let span = node.get("type").map_or(node.span, |n| n.span);
        if kind == "session_context" || kind == "claude_continue" {
            let finding =
                Diagnostic::error("E0112", span, format!("prompt parts of type `{kind}` are not built yet"));
            report.push(finding.help("use `previous_response`, or name the step in a template"));
            return None;
        }
        let finding = Diagnostic::error("E0104", span, format!("there is no prompt part `{kind}`"));
        report.push(match closest(kind, KINDS) {
            Some(near) => finding.suggest(near),
            None => finding.help(format!("it is one of {}", KINDS.join(", "))),
        });
        return None;
    }
    let mut entries: Vec<Entry> = Vec::new();
    for entry in node.entries() {
        match entry.key.as_str() {
            "type" => {}
            "condition" | "when" => entries.push(Entry { key: "when".to_owned(), ..entry.clone() }),
            key if keys(kind).contains(&key) => entries.push(entry.clone()),
            "extract_with" | "format" | "post_processing" | "summary" if kind == "previous_response" => {
                let message = format!("`{}` of a prompt part is not built yet and is ignored", entry.key);
                report.push(Diagnostic::warning("E0112", entry.key_span, message));
            }
            key if key.starts_with("x-") => {}
            key => {
                let finding =
                    Diagnostic::error("E0101", entry.key_span, format!("a `{kind}` part has no key `{key}`"));
                report.push(match closest(key, keys(kind).iter().copied()) {
                    Some(near) => finding.suggest(near),
                    None => finding.help(format!("it has: {}, condition", keys(kind).join(", "))),
                });
            }
        }
    }
    let needed = keys(kind)[0];
    if !entries.iter().any(|e| e.key == needed && e.value.kind != NodeKind::Null) {
        report.push(Diagnostic::error("E0102", node.span, format!("a `{kind}` part needs `{needed}`")));
        return None;
    }
    let kernel = if kind == "previous_response" { previous_response(&mut entries) } else { kind.to_owned() };
    entries.insert(0, made("type", Node::text(node.span, kernel)));
    Some(Node { kind: NodeKind::Map(entries), ..node.clone() })
}

/// `step` and `extract` become one expression.
fn previous_response(entries: &mut Vec<Entry>) -> String {
    let take = |entries: &mut Vec<Entry>, key: &str| {
        entries.iter().position(|e| e.key == key).map(|place| entries.remove(place).value)
    };
    let step = take(entries, "step");
    let extract = take(entries, "extract");
    let strict = take(entries, "strict").and_then(|n| n.as_bool()).unwrap_or(true);
    if let Some(step) = step {
        let name = step.as_text().unwrap_or_default().replace('\'', "\\'");
        let mut text = match extract.as_ref().and_then(Node::as_text) {
            Some(path) => format!("steps['{name}'].{}", path.trim_start_matches("$.")),
            None => format!("steps['{name}'].result"),
        };
        if !strict {
            text.push_str(" | default('')");
        }
        // Placed at the name, so that a finding points at what the user wrote.
        let span = extract.map_or(step.span, |e| e.span);
        let span = if text.ends_with(".result") { step.span } else { span };
        entries.insert(0, made("value", Node::text(span, text)));
    }
    "value".to_owned()
}
