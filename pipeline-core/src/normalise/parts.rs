//! Prompt parts in kernel form: `static`, `file`, `value`, `session_context` and `claude_continue`.
//!
//! Owns the keys of each part and the rewriting of `previous_response` into an expression. Must not know what parts
//! come to.

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::made;

const KINDS: [&str; 5] = ["static", "file", "previous_response", "session_context", "claude_continue"];

/// Keys of the original that never had an effect on any part.
const NO_EFFECT: [&str; 7] = [
    "component",
    "transform",
    "summary_style",
    "summary_focus",
    "max_summary_length",
    "include_metadata",
    "filter",
];

/// Keys of each kind of part, beside `type` and `condition`/`when`. The first one is needed.
fn keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "static" => &["content"],
        "file" => &["path", "variables", "inject_as", "encoding"],
        "value" => &["value", "path", "strict", "extract", "summary", "max_length", "inject_as"],
        "session_context" => &["session_name", "session_id", "session", "include_last_n"],
        "claude_continue" => &["new_prompt", "session_id", "session_name", "session"],
        _ => &[
            "step",
            "extract",
            "strict",
            "extract_with",
            "format",
            "post_processing",
            "summary",
            "max_length",
            "inject_as",
        ],
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
            key if key.starts_with("x-") => {}
            key if NO_EFFECT.contains(&key) => {
                let finding =
                    Diagnostic::note("E0110", entry.key_span, format!("`{key}` has no effect on a part"));
                report.push(finding.help("remove it, or name it with `x-` in front"));
            }
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
    let needed = needed(kind, &entries);
    if !entries.iter().any(|e| e.key == needed && e.value.kind != NodeKind::Null) {
        report.push(Diagnostic::error("E0102", node.span, format!("a `{kind}` part needs `{needed}`")));
        return None;
    }
    let kernel = match kind {
        "previous_response" => previous_response(&mut entries, report),
        "session_context" | "claude_continue" => {
            session(&mut entries);
            kind
        }
        _ => kind,
    };
    entries.insert(0, made("type", Node::text(node.span, kernel)));
    Some(Node { kind: NodeKind::Map(entries), ..node.clone() })
}

/// The key without which a part is nothing.
fn needed(kind: &str, entries: &[Entry]) -> &'static str {
    // Each of these names the session.
    let named = ["session_id", "session"].into_iter().find(|key| entries.iter().any(|e| e.key == *key));
    named.filter(|_| kind == "session_context").unwrap_or(keys(kind)[0])
}

fn take(entries: &mut Vec<Entry>, key: &str) -> Option<Node> {
    entries.iter().position(|e| e.key == key).map(|place| entries.remove(place).value)
}

/// `session_name` and `session_id` are one `session`; the name counts when several stand.
fn session(entries: &mut Vec<Entry>) {
    let (id, plain) = (take(entries, "session_id"), take(entries, "session"));
    let name = take(entries, "session_name").or(plain).or(id);
    entries.extend(name.map(|node| made("session", node)));
}

/// `step` and `extract` become an expression, and a path from the first `[*]` on; the rest becomes `extract`.
fn previous_response(entries: &mut Vec<Entry>, report: &mut Report) -> &'static str {
    let step = take(entries, "step");
    let extract = take(entries, "extract");
    let is_strict =
        entries.iter().find(|e| e.key == "strict").and_then(|e| e.value.as_bool()).unwrap_or(true);
    if let Some(step) = step {
        let name = step.as_text().unwrap_or_default();
        let written = extract.as_ref().and_then(Node::as_text).map(|p| p.trim().trim_start_matches('$'));
        let (head, tail) = match written.and_then(|p| p.split_once("[*]")) {
            Some((head, tail)) => (Some(head), Some(format!("[*]{tail}"))),
            None => (written, None),
        };
        let path = head.map(|p| p.trim_matches('.')).filter(|p| !p.is_empty());
        let mut text = format!("steps{}", quoted(name));
        match path {
            Some(path) => text.push_str(&accessors(path)),
            None => text.push_str(".result"),
        }
        if !is_strict {
            text.push_str(" | default(none)");
        }
        // Placed at the name, so that a finding points at what the user wrote.
        let span = extract.as_ref().filter(|_| path.is_some()).map_or(step.span, |e| e.span);
        entries.insert(0, made("value", Node::text(span, text)));
        if let (Some(tail), Some(extract)) = (tail, &extract) {
            entries.push(made("path", Node::text(extract.span, tail)));
        }
    }
    extractor(entries, report);
    "value"
}

/// `extract_with`, `format` and `post_processing` are one map.
fn extractor(entries: &mut Vec<Entry>, report: &mut Report) {
    let with = take(entries, "extract_with");
    let fields: Vec<Entry> = ["format", "post_processing"]
        .into_iter()
        .filter_map(|key| Some(made(key, take(entries, key)?)))
        .collect();
    if let Some(with) = &with
        && with.as_text() != Some("content_extractor")
    {
        let finding = Diagnostic::error("E0104", with.span, "`extract_with` must be `content_extractor`");
        report.push(finding.help("or leave it out: the value stands in the prompt as it is"));
    }
    let at = with.as_ref().map(|n| n.span).or_else(|| fields.first().map(|e| e.value.span));
    if let Some(span) = at {
        entries.push(made("extract", Node::new(span, NodeKind::Map(fields))));
    }
}

/// A name as it stands in brackets.
fn quoted(name: &str) -> String {
    format!("['{}']", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A dot path as an expression reads it: a part that is no identifier stands in brackets.
fn accessors(path: &str) -> String {
    let mut out = String::new();
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let (name, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        let is_identifier = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if is_identifier {
            out.push('.');
            out.push_str(name);
        } else if !name.is_empty() && name.chars().all(|c| c.is_ascii_digit()) {
            out.push_str(&format!("[{name}]"));
        } else if !name.is_empty() {
            out.push_str(&quoted(name));
        }
        out.push_str(indexes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_what_it_names() {
        for (path, expected) in [
            ("a.b", ".a.b"),
            ("a[0].b", ".a[0].b"),
            ("my-key.x", "['my-key'].x"),
            ("a.0.b", ".a[0].b"),
            ("[1].b", "[1].b"),
            ("it's", "['it\\'s']"),
        ] {
            assert_eq!(accessors(path), expected, "{path}");
        }
    }
}
