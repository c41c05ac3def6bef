//! Elixir, where everything is a call.
//!
//! Owns which calls define and import in a tree of Elixir. Next: `facts.rs`, which walks.

use tree_sitter::Node;

use super::{Form, Into_, Kind, ScopeKind, Walk, child_of, children, definition};
use crate::codebase_query::config::ClassType;

pub(super) fn see(walk: &mut Walk<'_>, node: Node<'_>) -> Into_ {
    match node.kind() {
        "alias" => {
            let module = walk.text.of(node);
            walk.import(node, Form::Path, module, Vec::new(), None);
            return false;
        }
        "call" => {}
        _ => return true,
    }
    let Some(target) = node.child_by_field_name("target").filter(|t| t.kind() == "identifier") else {
        return true;
    };
    let arguments = child_of(node, "arguments").map(children).unwrap_or_default();
    let Some(&first) = arguments.first() else { return true };
    let keyword = walk.text.of(target);
    match keyword.as_ref() {
        "defmodule" => module(walk, node, first, ClassType::Module),
        "defprotocol" => module(walk, node, first, ClassType::Protocol),
        "defimpl" => implementation(walk, node, first, &arguments),
        "defstruct" => of_module(walk, node, ClassType::Struct),
        "defexception" => of_module(walk, node, ClassType::Exception),
        "def" | "defdelegate" | "defn" => function(walk, node, first, Kind::Function, true),
        "defp" | "defnp" => function(walk, node, first, Kind::Function, false),
        "defmacro" | "defguard" => function(walk, node, first, Kind::Macro, true),
        "defmacrop" | "defguardp" => function(walk, node, first, Kind::Macro, false),
        "alias" => return !imports(walk, node, &arguments, Form::Alias),
        "import" => return !imports(walk, node, &arguments, Form::Import),
        "require" => return !imports(walk, node, &arguments, Form::Require),
        "use" => return !imports(walk, node, &arguments, Form::Use),
        _ => {}
    }
    true
}

fn module(walk: &mut Walk<'_>, node: Node<'_>, name: Node<'_>, kind: ClassType) {
    if name.kind() == "alias" {
        let name = walk.text.of(name).into_owned();
        let made = definition(name.clone(), Kind::Type(kind), true, walk.parent("."));
        walk.define(node, child_of(node, "do_block"), made);
        walk.open(node, name, ScopeKind::Module, true);
    }
}

/// `defimpl Protocol, for: Type` makes the module `Protocol.Type`.
fn implementation(walk: &mut Walk<'_>, node: Node<'_>, protocol: Node<'_>, arguments: &[Node<'_>]) {
    let of = keyword(walk, arguments, "for").or_else(|| walk.parent("."));
    let protocol = walk.text.of(protocol).into_owned();
    let name = of.map_or_else(|| protocol.clone(), |of| format!("{protocol}.{of}"));
    let made = definition(name.clone(), Kind::Type(ClassType::Implementation), true, walk.parent("."));
    walk.define(node, child_of(node, "do_block"), made);
    walk.open(node, name, ScopeKind::Module, true);
}

/// A struct or an exception has the name of its module.
fn of_module(walk: &mut Walk<'_>, node: Node<'_>, kind: ClassType) {
    if let Some(name) = walk.around().map(|s| s.name.clone()) {
        walk.define(node, None, definition(name, Kind::Type(kind), true, walk.parent(".")));
    }
}

fn function(walk: &mut Walk<'_>, node: Node<'_>, head: Node<'_>, kind: Kind, is_public: bool) {
    let head =
        if head.kind() == "binary_operator" && walk.text.field(head, "operator").as_deref() == Some("when") {
            head.child_by_field_name("left").unwrap_or(head)
        } else {
            head
        };
    let (name, arity) = match head.kind() {
        "identifier" => (walk.text.of(head).into_owned(), 0),
        "call" => {
            let Some(target) = head.child_by_field_name("target").filter(|t| t.kind() == "identifier") else {
                return;
            };
            let arguments = child_of(head, "arguments").map(children).unwrap_or_default();
            (walk.text.of(target).into_owned(), arguments.len())
        }
        "binary_operator" => (walk.text.field(head, "operator").unwrap_or_default(), 2),
        "unary_operator" => (walk.text.field(head, "operator").unwrap_or_default(), 1),
        _ => return,
    };
    let parent = walk.parent(".");
    // A function has as many clauses as its author likes, and is defined by the first.
    if walk.remembered.insert(format!("{}.{name}/{arity}", parent.as_deref().unwrap_or_default())) {
        walk.define(node, child_of(node, "do_block"), definition(name, kind, is_public, parent));
    }
}

fn imports(walk: &mut Walk<'_>, node: Node<'_>, arguments: &[Node<'_>], form: Form) -> bool {
    let Some(first) = arguments.first() else { return false };
    match first.kind() {
        "alias" => {
            let alias = keyword(walk, arguments, "as");
            let module = walk.text.of(*first);
            walk.import(node, form, module, Vec::new(), alias);
            true
        }
        // `alias A.{B, C}`
        "dot" => {
            let (Some(left), Some(right)) =
                (first.child_by_field_name("left"), first.child_by_field_name("right"))
            else {
                return false;
            };
            let prefix = walk.text.of(left);
            for name in children(right) {
                let module = format!("{prefix}.{}", walk.text.of(name));
                walk.import(node, form, module, Vec::new(), None);
            }
            true
        }
        _ => false,
    }
}

/// The value of `name: value` among the arguments of a call.
fn keyword(walk: &Walk<'_>, arguments: &[Node<'_>], name: &str) -> Option<String> {
    let pairs = arguments.iter().filter(|a| a.kind() == "keywords").flat_map(|a| children(*a));
    pairs.filter(|p| p.kind() == "pair").find_map(|pair| {
        let key = walk.text.field(pair, "key")?;
        (key.trim_end().trim_end_matches(':') == name).then(|| walk.text.field(pair, "value"))?
    })
}
