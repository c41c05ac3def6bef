//! Places where a name is used.
//!
//! Owns the answer to `find_references`: reads the files itself, several at once, as only those matter that have the name in
//! them; the order is that of paths and lines all the same.

use std::sync::Arc;

use pipeline_core::engine::blocking::Stop;
use pipeline_core::error::StepError;
use serde_json::{Value, json};
use tree_sitter::Node;

use super::config::{self, FindReferences};
use super::facts;
use super::index;
use super::symbols::{Answers, places};
use super::tree::Tree;

/// After so many files, it is looked whether there are enough answers.
const PORTION: usize = 512;

/// Answers `find_references`.
///
/// # Errors
/// `Invalid`, `TooLarge`, `Cancelled`.
pub(super) async fn references(
    tree: &Arc<Tree>,
    asked: &FindReferences,
    warnings: &mut Vec<String>,
) -> Result<Value, StepError> {
    let name: Arc<str> = config::needed(asked.name.as_deref(), "find_references", "name")?.into();
    let with_definitions = asked.include_definitions;
    let mut answers = Answers::new(&asked.place);
    for portion in places(tree, &asked.place)?.chunks(PORTION) {
        if answers.is_full() {
            break;
        }
        let name = Arc::clone(&name);
        let one = move |tree: &Tree, at, stop: &Stop| uses(tree, at, &name, with_definitions, stop);
        for (at, found) in index::on_lanes(tree, portion.to_vec(), one).await? {
            match found {
                Some(found) => found.into_iter().try_for_each(|answer| answers.push(answer))?,
                None => {
                    let path = &tree.files[at].path;
                    warnings.push(format!("`{path}` is left out: it takes too long to read"));
                }
            }
        }
    }
    Ok(answers.all.into())
}

/// The uses in one file; nothing when it takes too long to read.
fn uses(tree: &Tree, at: usize, name: &str, with_definitions: bool, stop: &Stop) -> Option<Vec<Value>> {
    let (file, Some((language, dialect))) = (&tree.files[at], tree.files[at].language) else {
        return Some(Vec::new());
    };
    // What cannot be read is told by whoever lists it.
    let Some(source) = tree.read(at).ok().filter(|source| has(source, name)) else { return Some(Vec::new()) };
    let parsed = facts::parse(&source, language, dialect, &|| stop.is_set()).ok()?;
    let mut found = Vec::new();
    // Innermost last: the node, its kind and whether the next child is its name.
    let mut around: Vec<Node<'_>> = Vec::new();
    facts::each(&parsed, |node| {
        while around
            .last()
            .is_some_and(|a| a.end_byte() <= node.start_byte() || a.end_byte() < node.end_byte())
        {
            around.pop();
        }
        if node.child_count() > 0 {
            let is_text = is_text(node.kind());
            around.push(node);
            return !is_text || node.kind().contains("template") || node.kind() == "string";
        }
        if let Some(usage) = usage(&source, node, &around, name)
            && (with_definitions || usage != "definition")
        {
            found.push((node.start_position().row, node.start_position().column, usage));
        }
        true
    });
    let lines: Vec<&[u8]> =
        if found.is_empty() { Vec::new() } else { source.split(|b| *b == b'\n').collect() };
    let answer = |(row, column, usage): (usize, usize, &str)| {
        let line = lines.get(row).copied().unwrap_or_default();
        let before = String::from_utf8_lossy(line.get(..column).unwrap_or_default()).chars().count();
        json!({
            "name": name,
            "type": usage,
            "file": file.path,
            "line": row + 1,
            "column": before + 1,
            "text": String::from_utf8_lossy(line).trim().chars().take(300).collect::<String>(),
            "language": language,
        })
    };
    Some(found.into_iter().map(answer).collect())
}

/// Whether a text has a name, or the last part of one, in it.
fn has(text: &[u8], name: &str) -> bool {
    let last = name.rsplit(['.', ':']).next().unwrap_or(name).as_bytes();
    !last.is_empty() && text.windows(last.len()).any(|part| part == last)
}

fn is_text(kind: &str) -> bool {
    kind.contains("comment") || kind.contains("string")
}

/// How a leaf uses a name; `None` when it is something else.
fn usage(source: &[u8], leaf: Node<'_>, around: &[Node<'_>], name: &str) -> Option<&'static str> {
    let kind = leaf.kind();
    if !(kind.contains("identifier") || matches!(kind, "alias" | "constant" | "atom")) {
        return None;
    }
    let text = source.get(leaf.byte_range())?;
    let is_name = text == name.as_bytes()
        // Elixir has the whole path of a module in one leaf.
        || (kind == "alias" && text.strip_suffix(name.as_bytes()).is_some_and(|before| before.ends_with(b".")));
    if !is_name {
        return None;
    }
    let parent = around.last()?;
    let is_field = |field: &str| parent.child_by_field_name(field).is_some_and(|n| n.id() == leaf.id());
    if around.iter().rev().take(6).any(|n| {
        n.kind().starts_with("import")
            || matches!(n.kind(), "use_declaration" | "future_import_statement" | "export_clause")
    }) {
        return Some("import");
    }
    let defines = ["definition", "declaration", "_item", "declarator", "_spec", "signature", "method_elem"];
    if is_field("name") && defines.iter().any(|d| parent.kind().contains(d)) {
        return Some("definition");
    }
    if elixir_definition(source, leaf, around) {
        return Some("definition");
    }
    let calls = |n: &Node<'_>| {
        matches!(
            n.kind(),
            "call_expression" | "generic_function" | "call" | "new_expression" | "macro_invocation"
        )
    };
    let called = |n: &Node<'_>| {
        ["function", "target", "constructor", "macro"]
            .iter()
            .filter_map(|field| n.child_by_field_name(field))
            .any(|f| f.start_byte() <= leaf.start_byte() && leaf.end_byte() == f.end_byte())
    };
    if around.iter().rev().take(3).any(|n| calls(n) && called(n)) {
        return Some("call");
    }
    Some(if kind == "type_identifier" { "type" } else { "reference" })
}

/// `name` of `def name(…) when …`: it begins the first argument of a call of `def` or one of its kin.
fn elixir_definition(source: &[u8], leaf: Node<'_>, around: &[Node<'_>]) -> bool {
    let begins =
        |n: &&Node<'_>| n.start_byte() == leaf.start_byte() && matches!(n.kind(), "call" | "binary_operator");
    let mut outer = around.iter().rev().skip_while(begins);
    let is_first = outer.next().is_some_and(|n| {
        n.kind() == "arguments"
            && n.named_child(0).is_some_and(|first| first.start_byte() == leaf.start_byte())
    });
    let target = outer.next().and_then(|n| n.child_by_field_name("target"));
    is_first && target.and_then(|t| source.get(t.byte_range())).is_some_and(|t| t.starts_with(b"def"))
}
