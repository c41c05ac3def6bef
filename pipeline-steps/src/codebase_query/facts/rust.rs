//! Rust.
//!
//! Owns what counts as a definition and an import in a tree of Rust. Next: `facts.rs`, which walks.

use tree_sitter::Node;

use super::{Detail, Form, Into_, Kind, ScopeKind, Walk, child_of, children, definition};
use crate::codebase_query::config::ClassType;

pub(super) fn see(walk: &mut Walk<'_>, node: Node<'_>) -> Into_ {
    let body = || node.child_by_field_name("body");
    match node.kind() {
        "function_item" | "function_signature_item" => {
            let Some(name) = walk.text.field(node, "name") else { return true };
            let kind = walk.function_kind();
            let is_public =
                is_public(node) || walk.around().is_some_and(|s| s.kind == ScopeKind::Type && s.is_public);
            walk.define(node, body(), definition(name.clone(), kind, is_public, walk.parent("::")));
            walk.open(node, name, ScopeKind::Function, false);
        }
        "macro_definition" => {
            let Some(name) = walk.text.field(node, "name") else { return true };
            let is_public = is_exported(walk, node);
            let first = child_of(node, "macro_rule");
            walk.define(node, first, definition(name, Kind::Macro, is_public, walk.parent("::")));
        }
        "struct_item" => named(walk, node, body(), ClassType::Struct),
        "enum_item" => named(walk, node, body(), ClassType::Enum),
        "union_item" => named(walk, node, body(), ClassType::Union),
        "type_item" | "associated_type" => named(walk, node, None, ClassType::Type),
        "trait_item" => {
            named(walk, node, body(), ClassType::Trait);
            let name = walk.text.field(node, "name").unwrap_or_default();
            walk.open(node, name, ScopeKind::Type, is_public(node));
        }
        "mod_item" => {
            let name = walk.text.field(node, "name").unwrap_or_default();
            if body().is_some() {
                named(walk, node, body(), ClassType::Module);
                walk.open(node, name, ScopeKind::Module, false);
            } else {
                // Where an attribute says so, the module is in another file than its name tells.
                let path = attributes(node).find_map(|a| path_attribute(&walk.text.of(a)));
                named(walk, node, None, ClassType::Module);
                let module = inline_path(walk, &name);
                walk.import(node, Form::Mod, module, Vec::new(), path);
            }
        }
        "impl_item" => {
            let name = node.child_by_field_name("type").map_or_else(String::new, |t| plain_type(walk, t));
            // What a trait promises can be called wherever the trait can.
            let of_trait = node.child_by_field_name("trait").is_some();
            walk.open(node, name, ScopeKind::Type, of_trait);
        }
        "use_declaration" => {
            if let Some(argument) = node.child_by_field_name("argument") {
                uses(walk, node, argument, String::new());
            }
            return false;
        }
        "extern_crate_declaration" => {
            let name = walk.text.field(node, "name").unwrap_or_default();
            let alias = walk.text.field(node, "alias");
            walk.import(node, Form::ExternCrate, name, Vec::new(), alias);
        }
        // Of what a macro is given, only the macro knows what it means; comments and literals mean nothing.
        "token_tree" | "line_comment" | "block_comment" | "string_literal" | "raw_string_literal" => {
            return false;
        }
        _ if walk.detail == Detail::Definitions => return may_define(walk.text.0, node),
        "scoped_identifier" | "scoped_type_identifier" => {
            let path = walk.text.of(node);
            if let Some((module, name)) = path.rsplit_once("::")
                && !path.contains(['<', '\n', ' '])
            {
                walk.import(node, Form::Path, module, vec![name.to_owned()], None);
                return false;
            }
        }
        _ => {}
    }
    true
}

/// Whether there can be a definition or an import within a node: to look for the words that they begin with, or have after
/// their visibility, is far quicker than to walk.
fn may_define(source: &[u8], node: Node<'_>) -> bool {
    let text = source.get(node.byte_range()).unwrap_or_default();
    let mut words = text.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    words.any(|word| {
        matches!(
            word,
            b"fn"
                | b"struct"
                | b"enum"
                | b"union"
                | b"type"
                | b"trait"
                | b"mod"
                | b"impl"
                | b"use"
                | b"extern"
                | b"macro_rules"
        )
    })
}

fn named(walk: &mut Walk<'_>, node: Node<'_>, body: Option<Node<'_>>, kind: ClassType) {
    if let Some(name) = walk.text.field(node, "name") {
        let is_public = is_public(node)
            || (kind == ClassType::Type
                && walk.around().is_some_and(|s| s.kind == ScopeKind::Type && s.is_public));
        walk.define(node, body, definition(name, Kind::Type(kind), is_public, walk.parent("::")));
    }
}

fn is_public(node: Node<'_>) -> bool {
    child_of(node, "visibility_modifier").is_some()
}

/// The attributes just before a node.
fn attributes(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    std::iter::successors(node.prev_sibling(), Node::prev_sibling)
        .take_while(|n| n.kind() == "attribute_item")
}

fn is_exported(walk: &Walk<'_>, node: Node<'_>) -> bool {
    attributes(node).any(|a| walk.text.of(a).contains("macro_export"))
}

/// The file of `#[path = "file.rs"]`.
fn path_attribute(text: &str) -> Option<String> {
    let rest = text.strip_prefix("#[")?.trim_start().strip_prefix("path")?.trim_start().strip_prefix('=')?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// A module within modules that stand in the same file.
fn inline_path(walk: &Walk<'_>, name: &str) -> String {
    walk.parent("::").map_or_else(|| name.to_owned(), |parent| format!("{parent}::{name}"))
}

/// The name of a type, without what it is made of: `Map` of `&mut a::Map<K, V>`.
fn plain_type(walk: &Walk<'_>, node: Node<'_>) -> String {
    let inner = match node.kind() {
        "generic_type" | "reference_type" => node.child_by_field_name("type"),
        "scoped_type_identifier" => node.child_by_field_name("name"),
        _ => None,
    };
    inner.map_or_else(|| walk.text.of(node).into_owned(), |inner| plain_type(walk, inner))
}

/// One tree of a `use`, flattened: the names that are taken out of each module.
fn uses(walk: &mut Walk<'_>, at: Node<'_>, tree: Node<'_>, prefix: String) {
    let text = |walk: &Walk<'_>, node: Node<'_>| walk.text.of(node).split_whitespace().collect::<String>();
    let joined = |prefix: &str, path: &str| {
        if prefix.is_empty() { path.to_owned() } else { format!("{prefix}::{path}") }
    };
    match tree.kind() {
        "use_list" => {
            let (plain, nested): (Vec<_>, Vec<_>) = children(tree)
                .into_iter()
                .partition(|n| matches!(n.kind(), "identifier" | "self" | "crate" | "super"));
            if !plain.is_empty() && !prefix.is_empty() {
                let names = plain.iter().map(|n| text(walk, *n)).collect();
                walk.import(at, Form::Use, prefix.clone(), names, None);
            } else {
                for node in plain {
                    let module = text(walk, node);
                    walk.import(at, Form::Use, module, Vec::new(), None);
                }
            }
            for node in nested.into_iter().filter(|n| !n.kind().ends_with("comment")) {
                uses(walk, at, node, prefix.clone());
            }
        }
        "scoped_use_list" => {
            let path = tree.child_by_field_name("path").map(|p| text(walk, p)).unwrap_or_default();
            let path = if path.is_empty() { prefix } else { joined(&prefix, &path) };
            if let Some(list) = tree.child_by_field_name("list") {
                uses(walk, at, list, path);
            }
        }
        "use_wildcard" => {
            let path = text(walk, tree);
            let path = joined(&prefix, path.trim_end_matches('*').trim_end_matches("::"));
            let path = path.trim_end_matches("::").to_owned();
            walk.import(at, Form::Use, path, vec!["*".to_owned()], None);
        }
        "use_as_clause" => {
            let path = tree.child_by_field_name("path").map(|p| text(walk, p)).unwrap_or_default();
            let alias = walk.text.field(tree, "alias");
            leaf(walk, at, &joined(&prefix, &path), alias);
        }
        _ => {
            let path = text(walk, tree);
            leaf(walk, at, &joined(&prefix, &path), None);
        }
    }
}

fn leaf(walk: &mut Walk<'_>, at: Node<'_>, path: &str, alias: Option<String>) {
    let path = path.trim_start_matches("::");
    match path.rsplit_once("::") {
        Some((module, name)) => walk.import(at, Form::Use, module, vec![name.to_owned()], alias),
        None => walk.import(at, Form::Use, path, Vec::new(), alias),
    }
}
