//! Functions, classes, imports and references.
//!
//! Owns the answers that are lists of places in source files. All are in the order of paths and lines.

use globset::GlobMatcher;
use pipeline_core::engine::blocking::Stop;
use pipeline_core::error::{ErrorKind, StepError};
use serde_json::{Value, json};
use tree_sitter::Node;

use super::config::{
    ClassType, FindClasses, FindFunctions, FindImports, FindReferences, FunctionType, Role, Where,
};
use super::facts::{self, Definition, Form, Import, Kind};
use super::index::Index;
use super::resolve::{Resolver, Target};
use super::tree::{Tree, glob, globs};

/// The most answers of one query, so that a value stays one that can be worked with.
const MOST: usize = 100_000;

/// The files that a query looks into.
///
/// # Errors
/// `Invalid` for a file that is not there, or a glob that is none.
pub(super) fn places(tree: &Tree, place: &Where) -> Result<Vec<usize>, StepError> {
    let exclude = globs(&place.exclude_patterns)?;
    let mut only = Vec::new();
    for file in place.in_file.iter().chain(&place.in_files) {
        if file.contains(['*', '?', '[', '{']) {
            let glob = globs(std::slice::from_ref(file))?;
            only.extend((0..tree.files.len()).filter(|at| glob.is_match(&tree.files[*at].path)));
        } else {
            only.push(tree.named(file)?);
        }
    }
    let is_limited = place.in_file.is_some() || !place.in_files.is_empty();
    let all = if is_limited { only } else { (0..tree.files.len()).collect() };
    let mut all: Vec<usize> = all
        .into_iter()
        .filter(|at| {
            let file = &tree.files[*at];
            file.language().is_some_and(|l| place.language.is_none_or(|wanted| wanted == l))
                && !(place.exclude_tests && file.role == Role::Test)
                && !exclude.is_match(&file.path)
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// An exact name, a glob, or both.
struct Name<'q> {
    exact: Option<&'q str>,
    glob: Option<GlobMatcher>,
}

impl<'q> Name<'q> {
    fn new(exact: Option<&'q str>, pattern: Option<&str>) -> Result<Self, StepError> {
        Ok(Self { exact, glob: pattern.map(glob).transpose()?.map(|g| g.compile_matcher()) })
    }

    fn fits(&self, name: &str) -> bool {
        self.exact.is_none_or(|exact| exact == name)
            && self.glob.as_ref().is_none_or(|glob| glob.is_match(name))
    }
}

/// A list that is cut where the query says so, and refused where it is too long.
struct Answers {
    all: Vec<Value>,
    most: Option<usize>,
}

impl Answers {
    fn new(place: &Where) -> Self {
        Self { all: Vec::new(), most: place.max_results }
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.all.len() >= most)
    }

    fn push(&mut self, answer: Value) -> Result<(), StepError> {
        if self.is_full() {
            return Ok(());
        }
        if self.all.len() == MOST {
            let message = format!("there are more than {MOST} answers");
            return Err(StepError::new(ErrorKind::TooLarge, message)
                .help("ask for a name, a language or some files, or give `max_results`"));
        }
        self.all.push(answer);
        Ok(())
    }
}

/// Answers `find_functions`.
pub(super) fn functions(tree: &Tree, index: &Index, asked: &FindFunctions) -> Result<Value, StepError> {
    let name = Name::new(asked.name.as_deref(), asked.pattern.as_deref())?;
    let fits = |found: &Definition| {
        let kind = match asked.kind {
            None => !matches!(found.kind, Kind::Type(_)),
            Some(FunctionType::Function) => found.kind == Kind::Function,
            Some(FunctionType::Method) => found.kind == Kind::Method,
            Some(FunctionType::Macro) => found.kind == Kind::Macro,
            Some(FunctionType::Public) => !matches!(found.kind, Kind::Type(_)) && found.is_public,
            Some(FunctionType::Private) => !matches!(found.kind, Kind::Type(_)) && !found.is_public,
        };
        kind && (found.is_public || !asked.public_only) && name.fits(&found.name)
    };
    definitions(tree, index, &asked.place, fits)
}

/// Answers `find_classes`.
pub(super) fn classes(tree: &Tree, index: &Index, asked: &FindClasses) -> Result<Value, StepError> {
    let name = Name::new(asked.name.as_deref(), asked.pattern.as_deref())?;
    let fits = |found: &Definition| {
        let Kind::Type(kind) = found.kind else { return false };
        asked.kind.is_none_or(|wanted| wanted == kind)
            && (found.is_public || !asked.public_only)
            && name.fits(&found.name)
    };
    definitions(tree, index, &asked.place, fits)
}

fn definitions(
    tree: &Tree,
    index: &Index,
    place: &Where,
    fits: impl Fn(&Definition) -> bool,
) -> Result<Value, StepError> {
    let mut answers = Answers::new(place);
    for at in places(tree, place)? {
        let file = &tree.files[at];
        for found in index.of(at).into_iter().flat_map(|f| &f.definitions).filter(|d| fits(d)) {
            answers.push(json!({
                "name": found.name,
                "type": kind_name(found.kind),
                "file": file.path,
                "line": found.line,
                "end_line": found.end_line,
                "signature": found.signature,
                "visibility": if found.is_public { "public" } else { "private" },
                "parent": found.parent,
                "language": file.language(),
            }))?;
        }
    }
    Ok(answers.all.into())
}

fn kind_name(kind: Kind) -> Value {
    match kind {
        Kind::Function => "function".into(),
        Kind::Method => "method".into(),
        Kind::Macro => "macro".into(),
        Kind::Type(kind) => class_name(kind).into(),
    }
}

fn class_name(kind: ClassType) -> &'static str {
    match kind {
        ClassType::Class => "class",
        ClassType::Struct => "struct",
        ClassType::Enum => "enum",
        ClassType::Union => "union",
        ClassType::Trait => "trait",
        ClassType::Interface => "interface",
        ClassType::Protocol => "protocol",
        ClassType::Implementation => "implementation",
        ClassType::Exception => "exception",
        ClassType::Module => "module",
        ClassType::Type => "type",
    }
}

/// Answers `find_imports`.
pub(super) fn imports(
    tree: &Tree,
    index: &Index,
    resolver: &Resolver<'_>,
    asked: &FindImports,
) -> Result<Value, StepError> {
    let name = Name::new(asked.module.as_deref(), asked.pattern.as_deref())?;
    let mut answers = Answers::new(&asked.place);
    for at in places(tree, &asked.place)? {
        let file = &tree.files[at];
        let separator = file.language().map_or(".", |l| l.separator());
        let fits = |import: &&Import| {
            let whole = |part: &String| name.fits(&format!("{}{separator}{part}", import.module));
            import.form != Form::Path && (name.fits(&import.module) || import.names.iter().any(whole))
        };
        for import in index.of(at).into_iter().flat_map(|f| &f.imports).filter(fits) {
            let target = resolver.target(at, import);
            let is_external = matches!(target, Target::Package(_));
            if asked.external_only && !is_external {
                continue;
            }
            answers.push(json!({
                "module": import.module,
                "names": import.names,
                "alias": if import.form == Form::Mod { None } else { import.alias.as_ref() },
                "type": import.form,
                "file": file.path,
                "line": import.line,
                "is_external": is_external,
                "resolved": paths(tree, &target),
                "language": file.language(),
            }))?;
        }
    }
    Ok(answers.all.into())
}

fn paths(tree: &Tree, target: &Target) -> Vec<Value> {
    match target {
        Target::Files(files) => files.iter().map(|at| tree.files[*at].path.clone().into()).collect(),
        Target::Package(_) | Target::Nothing => Vec::new(),
    }
}

/// Answers `find_references`; reads the files itself, as only those matter that have the name in them.
///
/// # Errors
/// `Invalid`, `TooLarge`, `Cancelled`.
pub(super) fn references(
    tree: &Tree,
    asked: &FindReferences,
    warnings: &mut Vec<String>,
    stop: &Stop,
) -> Result<Value, StepError> {
    let name = super::config::needed(asked.name.as_deref(), "find_references", "name")?;
    let finder = memchr_like(name);
    let mut answers = Answers::new(&asked.place);
    for at in places(tree, &asked.place)? {
        if stop.is_set() {
            return Err(StepError::new(ErrorKind::Cancelled, "it was stopped"));
        }
        let (file, Some((language, dialect))) = (&tree.files[at], tree.files[at].language) else { continue };
        // What cannot be read is told by whoever lists it.
        let Ok(source) = tree.read(at) else { continue };
        if answers.is_full() || !finder(&source) {
            continue;
        }
        let Ok(parsed) = facts::parse(&source, language, dialect, &|| stop.is_set()) else {
            warnings.push(format!("`{}` is left out: it takes too long to read", file.path));
            continue;
        };
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
                && (asked.include_definitions || usage != "definition")
            {
                found.push((node.start_position().row, node.start_position().column, usage));
            }
            true
        });
        let lines: Vec<&[u8]> =
            if found.is_empty() { Vec::new() } else { source.split(|b| *b == b'\n').collect() };
        for (row, column, usage) in found {
            let line = lines.get(row).copied().unwrap_or_default();
            let before = String::from_utf8_lossy(line.get(..column).unwrap_or_default()).chars().count();
            answers.push(json!({
                "name": name,
                "type": usage,
                "file": file.path,
                "line": row + 1,
                "column": before + 1,
                "text": String::from_utf8_lossy(line).trim().chars().take(300).collect::<String>(),
                "language": language,
            }))?;
        }
    }
    Ok(answers.all.into())
}

/// Whether a text has a name in it.
fn memchr_like(name: &str) -> impl Fn(&[u8]) -> bool + '_ {
    let last = name.rsplit(['.', ':']).next().unwrap_or(name).as_bytes();
    move |text| !last.is_empty() && text.windows(last.len()).any(|part| part == last)
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
