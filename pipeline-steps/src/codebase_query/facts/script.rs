//! JavaScript and TypeScript.
//!
//! Owns what counts as a definition and an import in their trees. Next: `facts.rs`, which walks.

use tree_sitter::Node;

use super::{Facts, Form, Into_, Kind, ScopeKind, Walk, child_of, children, definition};
use crate::codebase_query::config::ClassType;
use crate::codebase_query::language::Dialect;

pub(super) fn see(walk: &mut Walk<'_>, node: Node<'_>) -> Into_ {
    match node.kind() {
        // What a variable, a field or an assignment holds has been seen with it.
        "function_expression" | "generator_function" | "class" if is_held(walk, node) => {}
        "function_declaration"
        | "generator_function_declaration"
        | "function_signature"
        | "function_expression"
        | "generator_function" => function(walk, node, node, "name", Kind::Function),
        "method_definition" | "method_signature" | "abstract_method_signature" => {
            function(walk, node, node, "name", Kind::Method);
        }
        "public_field_definition" | "pair" | "field_definition" => {
            let value = node.child_by_field_name("value").filter(|v| is_function(*v));
            if let Some(value) = value {
                let key = if node.kind() == "pair" { "key" } else { "name" };
                let key = if node.child_by_field_name(key).is_some() { key } else { "property" };
                function(walk, node, value, key, Kind::Method);
            }
        }
        "variable_declarator" => variable(walk, node),
        "assignment_expression" => assignment(walk, node),
        "class_declaration" | "abstract_class_declaration" | "class" => {
            class(walk, node, node, ClassType::Class);
        }
        "interface_declaration" => class(walk, node, node, ClassType::Interface),
        "enum_declaration" => class(walk, node, node, ClassType::Enum),
        "type_alias_declaration" => class(walk, node, node, ClassType::Type),
        "internal_module" | "module" => class(walk, node, node, ClassType::Module),
        "import_statement" => {
            walk.is_module = true;
            import(walk, node);
            return false;
        }
        "export_statement" => return export(walk, node),
        "call_expression" => call(walk, node, Vec::new()),
        _ => {}
    }
    true
}

fn is_held(walk: &Walk<'_>, node: Node<'_>) -> bool {
    walk.around().is_some_and(|s| s.end == node.end_byte())
}

fn is_function(node: Node<'_>) -> bool {
    matches!(node.kind(), "arrow_function" | "function_expression" | "generator_function")
}

/// Whether other modules can see what stands at `node`, outside of a class.
fn is_exported(walk: &Walk<'_>, node: Node<'_>) -> bool {
    node.end_byte() <= walk.exported_until && walk.around().is_none_or(|s| s.is_public)
}

/// Whether what can use an object can use its member.
fn is_open(walk: &Walk<'_>, node: Node<'_>, name: &str) -> bool {
    let modifier = child_of(node, "accessibility_modifier").map(|m| walk.text.of(m).into_owned());
    !name.starts_with('#') && !matches!(modifier.as_deref(), Some("private" | "protected"))
}

/// A function with its name in `key` of `node`, and its body in `value`.
fn function(walk: &mut Walk<'_>, node: Node<'_>, value: Node<'_>, key: &str, kind: Kind) {
    let Some(name) = node.child_by_field_name(key) else { return };
    let name = walk.text.unquoted(name);
    let is_public = match kind {
        Kind::Method => is_open(walk, node, &name),
        _ => is_exported(walk, node),
    };
    let made = definition(name.clone(), kind, is_public, walk.parent("."));
    walk.define(node, value.child_by_field_name("body"), made);
    walk.open(value, name, ScopeKind::Function, false);
}

fn class(walk: &mut Walk<'_>, node: Node<'_>, value: Node<'_>, kind: ClassType) {
    let Some(name) = node.child_by_field_name("name") else { return };
    let name = walk.text.unquoted(name);
    let is_public = is_exported(walk, node);
    let made = definition(name.clone(), Kind::Type(kind), is_public, walk.parent("."));
    let body = if kind == ClassType::Type { None } else { value.child_by_field_name("body") };
    walk.define(node, body, made);
    let scope = if kind == ClassType::Module { ScopeKind::Module } else { ScopeKind::Type };
    walk.open(value, name, scope, is_public);
}

fn variable(walk: &mut Walk<'_>, node: Node<'_>) {
    let (Some(name), Some(value)) = (node.child_by_field_name("name"), node.child_by_field_name("value"))
    else {
        return;
    };
    if value.kind() == "call_expression" {
        return call(walk, value, taken(walk, name));
    }
    if name.kind() != "identifier" {
        return;
    }
    if is_function(value) {
        function(walk, node, value, "name", Kind::Function);
    } else if value.kind() == "class" {
        class(walk, node, value, ClassType::Class);
    }
}

fn assignment(walk: &mut Walk<'_>, node: Node<'_>) {
    let (Some(left), Some(right)) = (node.child_by_field_name("left"), node.child_by_field_name("right"))
    else {
        return;
    };
    let is_class = right.kind() == "class";
    if !is_class && !is_function(right) {
        return;
    }
    let (name, owner) = match left.kind() {
        "identifier" => (walk.text.of(left).into_owned(), None),
        "member_expression" => {
            let owner = walk.text.field(left, "object").unwrap_or_default();
            (walk.text.field(left, "property").unwrap_or_default(), Some(owner))
        }
        _ => return,
    };
    if name == "exports" {
        return;
    }
    let is_exports = matches!(owner.as_deref(), Some("exports" | "module.exports"));
    let prototype = owner.as_deref().and_then(|o| o.strip_suffix(".prototype"));
    let parent = prototype
        .map(str::to_owned)
        .or_else(|| owner.clone().filter(|_| !is_exports))
        .or_else(|| walk.parent("."));
    let kind = match (is_class, prototype) {
        (true, _) => Kind::Type(ClassType::Class),
        (false, Some(_)) => Kind::Method,
        (false, None) => Kind::Function,
    };
    walk.define(node, right.child_by_field_name("body"), definition(name.clone(), kind, true, parent));
    walk.open(right, name, if is_class { ScopeKind::Type } else { ScopeKind::Function }, false);
}

fn import(walk: &mut Walk<'_>, node: Node<'_>) {
    let (mut names, mut alias) = (Vec::new(), None);
    for clause in children(node) {
        match clause.kind() {
            // `import x = require("y")`
            "import_require_clause" => {
                if let Some(source) = clause.child_by_field_name("source") {
                    let alias = child_of(clause, "identifier").map(|n| walk.text.of(n).into_owned());
                    let module = walk.text.unquoted(source);
                    return walk.import(node, Form::Require, module, Vec::new(), alias);
                }
            }
            "import_clause" => {
                for part in children(clause) {
                    match part.kind() {
                        "identifier" => {
                            names.push("default".to_owned());
                            alias = Some(walk.text.of(part).into_owned());
                        }
                        "namespace_import" => {
                            names.push("*".to_owned());
                            alias = child_of(part, "identifier").map(|n| walk.text.of(n).into_owned());
                        }
                        _ => {
                            let (more, as_what) = specifiers(walk, part);
                            names.extend(more);
                            alias = alias.or(as_what);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(source) = node.child_by_field_name("source") {
        let module = walk.text.unquoted(source);
        walk.import(node, Form::Import, module, names, alias);
    }
}

/// The names of `{a, b as c}`; the other name, when there is only one.
fn specifiers(walk: &Walk<'_>, list: Node<'_>) -> (Vec<String>, Option<String>) {
    let parts: Vec<Node<'_>> =
        children(list).into_iter().filter(|n| n.kind().ends_with("_specifier")).collect();
    let names = parts.iter().filter_map(|n| walk.text.field(*n, "name")).collect();
    let alias = match parts.as_slice() {
        [one] => walk.text.field(*one, "alias"),
        _ => None,
    };
    (names, alias)
}

fn export(walk: &mut Walk<'_>, node: Node<'_>) -> Into_ {
    walk.is_module = true;
    let clause = child_of(node, "export_clause");
    if let Some(source) = node.child_by_field_name("source") {
        let (names, alias) = match (clause, child_of(node, "namespace_export")) {
            (Some(clause), _) => specifiers(walk, clause),
            (None, Some(space)) => {
                (vec!["*".to_owned()], children(space).first().map(|n| walk.text.of(*n).into_owned()))
            }
            (None, None) => (vec!["*".to_owned()], None),
        };
        let module = walk.text.unquoted(source);
        walk.import(node, Form::Export, module, names, alias);
        return false;
    }
    if let Some(clause) = clause {
        walk.remembered.extend(specifiers(walk, clause).0);
    }
    if let Some(value) = node.child_by_field_name("value").filter(|v| v.kind() == "identifier") {
        let name = walk.text.of(value).into_owned();
        walk.remembered.insert(name);
    }
    if walk.around().is_none_or(|s| s.is_public) {
        walk.exported_until = node.end_byte();
    }
    true
}

/// `require("x")` and `import("x")`.
fn call(walk: &mut Walk<'_>, node: Node<'_>, names: Vec<String>) {
    let Some(function) = node.child_by_field_name("function") else { return };
    let form = match function.kind() {
        "import" => Form::Dynamic,
        "identifier" if walk.text.of(function) == "require" => Form::Require,
        _ => return,
    };
    let arguments = node.child_by_field_name("arguments").map(children).unwrap_or_default();
    if let [only] = arguments.as_slice()
        && only.kind() == "string"
        // A variable has been seen before the call that it holds.
        && walk.remembered.insert(format!("call at {}", node.start_byte()))
    {
        let module = walk.text.unquoted(*only);
        walk.import(node, form, module, names, None);
    }
}

/// The names of `const {a, b: c} = …`.
fn taken(walk: &Walk<'_>, pattern: Node<'_>) -> Vec<String> {
    if pattern.kind() != "object_pattern" {
        return Vec::new();
    }
    let name = |node: Node<'_>| match node.kind() {
        "shorthand_property_identifier_pattern" => Some(walk.text.of(node).into_owned()),
        "pair_pattern" => walk.text.field(node, "key"),
        _ => None,
    };
    children(pattern).into_iter().filter_map(name).collect()
}

/// What is exported by name, further down in the file; everything of a file that is no module.
pub(super) fn finish(walk: Walk<'_>) -> Facts {
    let mut facts = walk.facts;
    for found in facts.definitions.iter_mut().filter(|d| d.parent.is_none()) {
        found.is_public |= !walk.is_module || walk.remembered.contains(&found.name);
    }
    facts
}

/// The same text, as long and with the same lines, without what the grammar of TypeScript is known not to take although
/// the language does; `None` when there is nothing of that kind.
///
/// That is a backquote escaped within the type of a template, and a signature that begins with `<` on a line of its own
/// where the line before ends without a semicolon.
pub(super) fn eased(source: &[u8], dialect: Dialect) -> Option<Vec<u8>> {
    let mut eased = source.to_vec();
    let mut is_changed = false;
    for at in 0..source.len().saturating_sub(1) {
        if source[at] == b'\\' && source[at + 1] == b'`' {
            eased[at..=at + 1].copy_from_slice(b"__");
            is_changed = true;
        }
    }
    // Where elements may be written, `<` begins one.
    if dialect == Dialect::Jsx {
        return is_changed.then_some(eased);
    }
    let (mut start, mut last) = (0, b';');
    let mut in_comment = false;
    for line in source.split_inclusive(|byte| *byte == b'\n') {
        let indent = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let text = line[indent..].trim_ascii_end();
        if text.starts_with(b"/*") {
            in_comment = true;
        }
        if !in_comment && !text.is_empty() && !text.starts_with(b"//") {
            let ends_type =
                last.is_ascii_alphanumeric() || matches!(last, b'>' | b')' | b']' | b'}' | b'"' | b'\'');
            if indent > 0 && text.starts_with(b"<") && ends_type {
                eased[start + indent - 1] = b';';
                is_changed = true;
            }
            last = text.last().copied().unwrap_or(last);
        }
        if text.ends_with(b"*/") {
            in_comment = false;
        }
        start += line.len();
    }
    is_changed.then_some(eased)
}
