//! Python.
//!
//! Owns what counts as a definition and an import in a tree of Python. Next: `facts.rs`, which walks.

use tree_sitter::Node;

use super::{Form, Into_, Kind, ScopeKind, Walk, children, definition};
use crate::codebase_query::config::ClassType;

pub(super) fn see(walk: &mut Walk<'_>, node: Node<'_>) -> Into_ {
    let body = node.child_by_field_name("body");
    match node.kind() {
        "function_definition" => {
            let Some(name) = walk.text.field(node, "name") else { return true };
            let kind = walk.function_kind();
            walk.define(node, body, definition(name.clone(), kind, is_public(&name), walk.parent(".")));
            walk.open(node, name, ScopeKind::Function, false);
        }
        "class_definition" => {
            let Some(name) = walk.text.field(node, "name") else { return true };
            let kind = Kind::Type(ClassType::Class);
            walk.define(node, body, definition(name.clone(), kind, is_public(&name), walk.parent(".")));
            walk.open(node, name, ScopeKind::Type, false);
        }
        "import_statement" => {
            for part in children(node) {
                let (module, alias) = aliased(walk, part);
                walk.import(node, Form::Import, module, Vec::new(), alias);
            }
        }
        "future_import_statement" => {
            let names = children(node).into_iter().map(|n| aliased(walk, n).0).collect();
            walk.import(node, Form::From, "__future__", names, None);
        }
        "import_from_statement" => {
            let Some(module) = node.child_by_field_name("module_name") else { return true };
            let parts: Vec<Node<'_>> = children(node)
                .into_iter()
                .filter(|n| n.id() != module.id() && !n.kind().ends_with("comment"))
                .collect();
            let names = parts
                .iter()
                .map(|n| if n.kind() == "wildcard_import" { "*".to_owned() } else { aliased(walk, *n).0 });
            let names = names.collect();
            let alias = match parts.as_slice() {
                [one] => aliased(walk, *one).1,
                _ => None,
            };
            let module = walk.text.of(module).split_whitespace().collect::<String>();
            walk.import(node, Form::From, module, names, alias);
        }
        _ => return true,
    }
    !node.kind().ends_with("statement")
}

fn aliased(walk: &Walk<'_>, node: Node<'_>) -> (String, Option<String>) {
    if node.kind() == "aliased_import" {
        return (walk.text.field(node, "name").unwrap_or_default(), walk.text.field(node, "alias"));
    }
    (walk.text.of(node).split_whitespace().collect(), None)
}

/// By the custom of the language.
fn is_public(name: &str) -> bool {
    !name.starts_with('_') || (name.starts_with("__") && name.ends_with("__"))
}
