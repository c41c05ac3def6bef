//! Go.
//!
//! Owns what counts as a definition and an import in a tree of Go. Next: `facts.rs`, which walks.

use tree_sitter::Node;

use super::{Form, Into_, Kind, ScopeKind, Walk, children, definition};
use crate::codebase_query::config::ClassType;

pub(super) fn see(walk: &mut Walk<'_>, node: Node<'_>) -> Into_ {
    let body = node.child_by_field_name("body");
    let Some(name) = walk.text.field(node, "name") else {
        if node.kind() == "import_spec"
            && let Some(path) = node.child_by_field_name("path")
        {
            let module = walk.text.unquoted(path);
            walk.import(node, Form::Import, module, Vec::new(), None);
        }
        return true;
    };
    match node.kind() {
        "function_declaration" => {
            let made = definition(name.clone(), Kind::Function, is_public(&name), None);
            walk.define(node, body, made);
            walk.open(node, name, ScopeKind::Function, false);
        }
        "method_declaration" => {
            let parent = node.child_by_field_name("receiver").and_then(|r| receiver(walk, r));
            walk.define(node, body, definition(name.clone(), Kind::Method, is_public(&name), parent));
            walk.open(node, name, ScopeKind::Function, false);
        }
        "method_elem" | "method_spec" => {
            let made = definition(name.clone(), Kind::Method, is_public(&name), walk.parent("."));
            walk.define(node, None, made);
        }
        "type_spec" | "type_alias" => {
            let target = node.child_by_field_name("type");
            let (kind, body) = match target.map(|t| t.kind()) {
                Some("struct_type") => (ClassType::Struct, target),
                Some("interface_type") => (ClassType::Interface, target),
                _ => (ClassType::Type, None),
            };
            let made = definition(name.clone(), Kind::Type(kind), is_public(&name), walk.parent("."));
            walk.define(node, body, made);
            walk.open(node, name, ScopeKind::Type, false);
        }
        "import_spec" => {
            if let Some(path) = node.child_by_field_name("path") {
                let module = walk.text.unquoted(path);
                // `import . "x"` takes every name, `import _ "x"` none.
                let (names, alias) = match name.as_str() {
                    "." => (vec!["*".to_owned()], None),
                    _ => (Vec::new(), Some(name)),
                };
                walk.import(node, Form::Import, module, names, alias);
            }
        }
        _ => {}
    }
    true
}

/// `T` of `(t *T[K])`.
fn receiver(walk: &Walk<'_>, list: Node<'_>) -> Option<String> {
    let mut node = children(list)
        .into_iter()
        .find(|n| n.kind() == "parameter_declaration")?
        .child_by_field_name("type")?;
    loop {
        node = match node.kind() {
            "pointer_type" | "parenthesized_type" => *children(node).first()?,
            "generic_type" => node.child_by_field_name("type")?,
            _ => return Some(walk.text.of(node).into_owned()),
        };
    }
}

fn is_public(name: &str) -> bool {
    name.chars().next().is_some_and(char::is_uppercase)
}
