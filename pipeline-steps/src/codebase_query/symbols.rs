//! Functions, classes and imports.
//!
//! Owns the answers that are lists of places in source files. All are in the order of paths and lines.

use globset::GlobMatcher;
use pipeline_core::error::{ErrorKind, StepError};
use serde_json::{Value, json};

use super::config::{ClassType, FindClasses, FindFunctions, FindImports, FunctionType, Role, Where};
use super::facts::{Definition, Form, Import, Kind};
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
pub(super) struct Answers {
    pub(super) all: Vec<Value>,
    most: Option<usize>,
}

impl Answers {
    pub(super) fn new(place: &Where) -> Self {
        Self { all: Vec::new(), most: place.max_results }
    }

    pub(super) fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.all.len() >= most)
    }

    pub(super) fn push(&mut self, answer: Value) -> Result<(), StepError> {
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
