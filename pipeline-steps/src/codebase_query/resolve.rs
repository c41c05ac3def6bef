//! From the name of a module to the file that is meant.
//!
//! Owns [`Resolver`]. It knows where each language looks for a module, as far as that follows from paths and manifests;
//! what it does not find in the codebase is taken as a package. Must not read source files.

mod rust;
mod script;

use std::collections::{BTreeMap, HashMap};

use super::facts::{Form, Import, Kind};
use super::index::Index;
use super::language::{Language, directory, file_name};
use super::tree::Tree;

/// Finds what imports mean.
pub(super) struct Resolver<'t> {
    tree: &'t Tree,
    paths: HashMap<&'t str, usize>,
    /// Rust: the name that code uses, and the directory of the manifest.
    crates: BTreeMap<String, String>,
    /// JavaScript: the name of a package of this codebase, and its directory.
    packages: Vec<(String, String)>,
    /// Go: the path of a module, and its directory.
    modules: Vec<(String, String)>,
    /// Go: the files of a directory, without tests.
    go_files: HashMap<&'t str, Vec<usize>>,
    /// Python: directories in which packages are looked for.
    python: Vec<String>,
    /// Elixir: modules by full name.
    elixir: HashMap<String, usize>,
}

/// What an import means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Files of this codebase, sorted.
    Files(Vec<usize>),
    /// A package, or a part of the language.
    Package(String),
    /// Something of this codebase that is not a file of its own, or is not there.
    Nothing,
}

impl<'t> Resolver<'t> {
    pub(super) fn new(tree: &'t Tree, index: &Index) -> Self {
        let paths = tree.files.iter().enumerate().map(|(place, f)| (f.path.as_str(), place)).collect();
        let mut resolver = Self {
            tree,
            paths,
            crates: BTreeMap::new(),
            packages: Vec::new(),
            modules: Vec::new(),
            go_files: HashMap::new(),
            python: vec![String::new(), "src".to_owned(), "lib".to_owned()],
            elixir: HashMap::new(),
        };
        for (place, file) in tree.files.iter().enumerate() {
            resolver.learn(place, &file.path, file.language(), index);
        }
        // The longest name that fits is meant.
        resolver.packages.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        resolver.modules.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        resolver.python.dedup();
        resolver
    }

    fn learn(&mut self, place: usize, path: &'t str, language: Option<Language>, index: &Index) {
        let dir = directory(path);
        match file_name(path) {
            "Cargo.toml" => {
                let manifest = self.tree.text(path).and_then(|t| toml::from_str::<toml::Table>(&t).ok());
                let name = |table: &str| {
                    Some(manifest.as_ref()?.get(table)?.get("name")?.as_str()?.replace('-', "_"))
                };
                if let Some(name) = name("lib").or_else(|| name("package")) {
                    self.crates.insert(name, dir.to_owned());
                }
            }
            "package.json" => {
                let manifest =
                    self.tree.text(path).and_then(|t| serde_json::from_str::<serde_json::Value>(&t).ok());
                if let Some(name) = manifest.as_ref().and_then(|m| m.get("name")?.as_str()) {
                    self.packages.push((name.to_owned(), dir.to_owned()));
                }
            }
            "go.mod" => {
                let text = self.tree.text(path).unwrap_or_default();
                let module = text.lines().find_map(|line| line.trim().strip_prefix("module "));
                if let Some(module) = module {
                    self.modules.push((module.trim().trim_matches('"').to_owned(), dir.to_owned()));
                }
            }
            "pyproject.toml" | "setup.py" | "setup.cfg" => {
                self.python.push(dir.to_owned());
                self.python.push(joined(dir, "src"));
            }
            name if language == Some(Language::Go) && !name.ends_with("_test.go") => {
                self.go_files.entry(dir).or_default().push(place);
            }
            _ if language == Some(Language::Elixir) => {
                let facts = index.of(place).into_iter().flat_map(|f| &f.definitions);
                for module in facts.filter(|d| matches!(d.kind, Kind::Type(_))) {
                    let full = match &module.parent {
                        Some(parent) => format!("{parent}.{}", module.name),
                        None => module.name.clone(),
                    };
                    self.elixir.entry(full).or_insert(place);
                }
            }
            _ => {}
        }
    }

    /// What an import of the file at `from` means.
    pub(super) fn target(&self, from: usize, import: &Import) -> Target {
        let Some(file) = self.tree.files.get(from) else { return Target::Nothing };
        let target = match file.language() {
            Some(Language::Rust) => self.rust(&file.path, import),
            Some(Language::Python) => self.python(&file.path, import),
            Some(Language::JavaScript | Language::TypeScript) => self.script(&file.path, import),
            Some(Language::Go) => self.go(&import.module),
            Some(Language::Elixir) => match self.elixir.get(&import.module) {
                Some(place) => Target::Files(vec![*place]),
                None => Target::Package(import.module.split('.').next().unwrap_or_default().to_owned()),
            },
            None => Target::Nothing,
        };
        match target {
            Target::Files(mut files) => {
                files.sort_unstable();
                files.dedup();
                if files.is_empty() { Target::Nothing } else { Target::Files(files) }
            }
            // A path in code that leads to no file is most likely a type.
            Target::Package(_) if import.form == Form::Path => Target::Nothing,
            other => other,
        }
    }

    fn at(&self, path: &str) -> Option<usize> {
        self.paths.get(path).copied()
    }

    /// The first of some paths that is a file.
    fn first(&self, paths: impl IntoIterator<Item = String>) -> Option<usize> {
        paths.into_iter().find_map(|path| self.at(&path))
    }

    fn python(&self, from: &str, import: &Import) -> Target {
        let dots = import.module.chars().take_while(|c| *c == '.').count();
        let rest = import.module.trim_start_matches('.').replace('.', "/");
        if dots > 0 {
            let mut base = directory(from);
            for _ in 1..dots {
                base = directory(base);
            }
            return Target::Files(self.python_files(&joined(base, &rest), import));
        }
        // A script sees its own directory, a module the directory of its outermost package.
        let mut outermost = directory(from);
        while self.at(&joined(outermost, "__init__.py")).is_some() && !outermost.is_empty() {
            outermost = directory(outermost);
        }
        let roots = self.python.iter().map(String::as_str).chain([outermost, directory(from)]);
        for root in roots {
            let found = self.python_files(&joined(root, &rest), import);
            if !found.is_empty() {
                return Target::Files(found);
            }
        }
        Target::Package(import.module.split('.').next().unwrap_or_default().to_owned())
    }

    /// The module at `base`, or those of the names that are modules themselves.
    fn python_files(&self, base: &str, import: &Import) -> Vec<usize> {
        let module = |base: &str| {
            let file = |ending: &str| format!("{base}{ending}");
            let package = |name: &str| joined(base, name);
            if base.is_empty() {
                return self.at("__init__.py");
            }
            self.first([file(".py"), package("__init__.py"), file(".pyi"), package("__init__.pyi")])
        };
        let own = module(base);
        let mut files: Vec<usize> = Vec::new();
        for name in &import.names {
            files.extend(module(&joined(base, name)).or(own));
        }
        if import.names.is_empty() {
            files.extend(own);
        }
        files
    }

    fn go(&self, module: &str) -> Target {
        for (name, dir) in &self.modules {
            let Some(rest) = module.strip_prefix(name.as_str()) else { continue };
            if rest.is_empty() || rest.starts_with('/') {
                let dir = joined(dir, rest.trim_start_matches('/'));
                return Target::Files(self.go_files.get(dir.as_str()).cloned().unwrap_or_default());
            }
        }
        // A tree without modules, as it was before there were any: `…/src/<import path>`.
        let in_path = |dir: &&&str| {
            **dir == module || dir.strip_suffix(module).is_some_and(|d| d == "src/" || d.ends_with("/src/"))
        };
        match self.go_files.keys().filter(in_path).min() {
            Some(dir) => Target::Files(self.go_files.get(*dir).cloned().unwrap_or_default()),
            None => Target::Package(module.to_owned()),
        }
    }
}

/// A path in a directory; either may be empty.
pub(super) fn joined(dir: &str, name: &str) -> String {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => dir.to_owned(),
        _ => format!("{dir}/{name}"),
    }
}
