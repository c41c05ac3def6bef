//! What one source file defines and imports.
//!
//! Owns [`Facts`] and the walk over a syntax tree that finds them; what counts as a definition is each language's own
//! (`facts/rust.rs` and its neighbours). Must not read files, nor know how names of modules lead to files.

mod elixir;
mod go;
mod python;
mod rust;
mod script;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tree_sitter::{Node, ParseOptions, Parser, Tree, TreeCursor};

use super::config::ClassType;
use super::language::{Dialect, Language};

/// How long one file may take; far more than a file of the largest size takes.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest signature, in bytes.
const SIGNATURE: usize = 300;

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) definitions: Vec<Definition>,
    pub(super) imports: Vec<Import>,
    /// Parts of the file are not as the language wants them.
    pub(super) is_broken: bool,
}

/// Something with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) line: usize,
    pub(super) end_line: usize,
    pub(super) signature: String,
    pub(super) is_public: bool,
    /// What it belongs to.
    pub(super) parent: Option<String>,
}

/// What a definition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Function,
    Method,
    Macro,
    Type(ClassType),
}

/// A module, or names of it, made usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) module: String,
    /// Names that are taken out of it, as they are called there; `*` for all.
    pub(super) names: Vec<String>,
    /// How it is called here, when that is different.
    pub(super) alias: Option<String>,
    pub(super) line: usize,
    pub(super) form: Form,
    /// How many modules of the same file stand around it.
    pub(super) depth: usize,
}

/// How something is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Form {
    /// `import x`, Go and JavaScript alike.
    Import,
    /// `from x import y`.
    From,
    /// `use x`, of Rust and of Elixir.
    Use,
    /// `mod x;`: the module is another file.
    Mod,
    /// `extern crate x`.
    ExternCrate,
    /// `require`, of JavaScript and of Elixir.
    Require,
    /// `alias X`.
    Alias,
    /// `export … from "x"`.
    Export,
    /// `import("x")`.
    Dynamic,
    /// A path in the middle of code; it makes files depend on each other and is no import.
    Path,
}

/// How much of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Definitions and imports; code that can hold neither may be passed over.
    Definitions,
    /// Paths in the middle of code, too.
    Paths,
}

/// A file that took too long, or a search that was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GaveUp;

/// The text of a file, as its walk needs it.
#[derive(Clone, Copy)]
struct Text<'s>(&'s [u8]);

impl<'s> Text<'s> {
    fn of(self, node: Node<'_>) -> std::borrow::Cow<'s, str> {
        String::from_utf8_lossy(self.0.get(node.byte_range()).unwrap_or_default())
    }

    fn field(self, node: Node<'_>, field: &str) -> Option<String> {
        node.child_by_field_name(field).map(|n| self.of(n).into_owned())
    }

    /// A text literal without its quotes.
    fn unquoted(self, node: Node<'_>) -> String {
        self.of(node).trim_matches(['"', '\'', '`']).to_owned()
    }

    /// From the start of a node to `end`, on one line.
    fn line(self, start: usize, end: usize) -> String {
        let text = String::from_utf8_lossy(self.0.get(start..end).unwrap_or_default());
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.len() > SIGNATURE {
            let cut = (0..=SIGNATURE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            line.truncate(cut);
            line.push('…');
        }
        line
    }
}

/// A node that others belong to.
#[derive(Debug, Clone)]
struct Scope {
    name: String,
    kind: ScopeKind,
    /// What is defined within can be used wherever the scope can, unless it says otherwise.
    is_public: bool,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScopeKind {
    Module,
    Type,
    Function,
}

/// What a language's rules work with while the tree is walked.
struct Walk<'s> {
    text: Text<'s>,
    detail: Detail,
    scopes: Vec<Scope>,
    facts: Facts,
    /// What a language wants to remember: functions seen already, names exported.
    remembered: HashSet<String>,
    /// Up to where everything is exported.
    exported_until: usize,
    /// The file imports or exports.
    is_module: bool,
}

impl Walk<'_> {
    /// The innermost scope.
    fn around(&self) -> Option<&Scope> {
        self.scopes.last()
    }

    fn is_in_type(&self) -> bool {
        self.around().is_some_and(|s| s.kind == ScopeKind::Type)
    }

    /// `Method` directly within a type.
    fn function_kind(&self) -> Kind {
        if self.is_in_type() { Kind::Method } else { Kind::Function }
    }

    fn parent(&self, separator: &str) -> Option<String> {
        let names: Vec<&str> = self.scopes.iter().map(|s| s.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(separator))
    }

    /// Records a definition at `node`, whose text up to `body` is its signature.
    fn define(&mut self, node: Node<'_>, body: Option<Node<'_>>, definition: Definition) {
        let end = body.map_or(node.end_byte(), |b| b.start_byte());
        let signature = self.text.line(node.start_byte(), end);
        let signature = signature.trim_end_matches(['{', ':', ';', ',', ' ']).to_owned();
        let signature = signature.strip_suffix(" do").map(str::to_owned).unwrap_or(signature);
        // Attributes and decorators may stand above the name, within the node.
        let name = ["name", "key", "property"].iter().find_map(|field| node.child_by_field_name(field));
        self.facts.definitions.push(Definition {
            line: name.unwrap_or(node).start_position().row + 1,
            end_line: node.end_position().row + 1,
            signature,
            ..definition
        });
    }

    fn open(&mut self, node: Node<'_>, name: impl Into<String>, kind: ScopeKind, is_public: bool) {
        self.scopes.push(Scope { name: name.into(), kind, is_public, end: node.end_byte() });
    }

    fn import(
        &mut self,
        node: Node<'_>,
        form: Form,
        module: impl Into<String>,
        names: Vec<String>,
        alias: Option<String>,
    ) {
        let line = node.start_position().row + 1;
        let module = module.into();
        // A path is of interest once.
        let is_new = form != Form::Path || self.remembered.insert(format!("{module} {}", names.join(" ")));
        if !module.is_empty() && is_new {
            let depth = self.scopes.iter().filter(|s| s.kind == ScopeKind::Module).count();
            self.facts.imports.push(Import { module, names, alias, line, form, depth });
        }
    }
}

/// The least of a definition; [`Walk::define`] fills in where it stands.
fn definition(name: impl Into<String>, kind: Kind, is_public: bool, parent: Option<String>) -> Definition {
    Definition { name: name.into(), kind, line: 0, end_line: 0, signature: String::new(), is_public, parent }
}

/// Whether the walk goes into a node.
type Into_ = bool;

/// Reads a file.
///
/// # Errors
/// When it takes too long, or `is_stopped`.
pub(super) fn read(
    source: &[u8],
    language: Language,
    dialect: Dialect,
    detail: Detail,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Facts, GaveUp> {
    let tree = parse(source, language, dialect, is_stopped)?;
    let mut walk = Walk {
        text: Text(source),
        detail,
        scopes: Vec::new(),
        facts: Facts::default(),
        remembered: HashSet::new(),
        exported_until: 0,
        is_module: false,
    };
    walk.facts.is_broken = tree.root_node().has_error();
    let see: fn(&mut Walk<'_>, Node<'_>) -> Into_ = match language {
        Language::Elixir => elixir::see,
        Language::Go => go::see,
        Language::JavaScript | Language::TypeScript => script::see,
        Language::Python => python::see,
        Language::Rust => rust::see,
    };
    each(&tree, |node| {
        // Many nodes are keywords and signs, which define nothing.
        if !node.is_named() {
            return false;
        }
        while walk.scopes.last().is_some_and(|s| s.end <= node.start_byte()) {
            walk.scopes.pop();
        }
        see(&mut walk, node)
    });
    Ok(if language.family() == Language::TypeScript { script::finish(walk) } else { walk.facts })
}

/// Parses a file, within [`DEADLINE`].
///
/// # Errors
/// When it takes too long, or `is_stopped`.
pub(super) fn parse(
    source: &[u8],
    language: Language,
    dialect: Dialect,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Tree, GaveUp> {
    let mut parser = Parser::new();
    parser.set_language(&language.grammar(dialect)).map_err(|_| GaveUp)?;
    let deadline = Instant::now() + DEADLINE;
    let mut parse = |source: &[u8]| {
        let mut progress = |_: &tree_sitter::ParseState| {
            let is_over = is_stopped() || Instant::now() >= deadline;
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = ParseOptions::new().progress_callback(&mut progress);
        let mut chunk = |at: usize, _| source.get(at..).unwrap_or_default();
        let tree = parser.parse_with_options(&mut chunk, None, Some(options)).ok_or(GaveUp);
        if tree.is_err() {
            parser.reset();
        }
        tree
    };
    let tree = parse(source)?;
    if language != Language::TypeScript || !tree.root_node().has_error() {
        return Ok(tree);
    }
    let Some(eased) = script::eased(source, dialect) else { return Ok(tree) };
    let second = parse(&eased)?;
    Ok(if errors(&second) < errors(&tree) { second } else { tree })
}

/// How many places of a file are not understood.
fn errors(tree: &Tree) -> usize {
    let mut count = 0;
    each(tree, |node| {
        count += usize::from(node.is_error() || node.is_missing());
        node.has_error()
    });
    count
}

/// Visits every node, parents first, without recursion: the depth of a file is its author's choice.
pub(super) fn each<'t>(tree: &'t Tree, mut see: impl FnMut(Node<'t>) -> Into_) {
    let mut cursor = tree.walk();
    loop {
        if see(cursor.node()) && cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return;
            }
        }
    }
}

/// The named children of a node.
fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor: TreeCursor<'_> = node.walk();
    node.named_children(&mut cursor).collect()
}

/// The first child of a kind.
fn child_of<'t>(node: Node<'t>, kind: &str) -> Option<Node<'t>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).find(|n| n.kind() == kind)
}

#[cfg(test)]
mod tests;
