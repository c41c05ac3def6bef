//! Where Rust looks for modules.
//!
//! Owns the way from a path such as `crate::a::b` to a file. Must not know `#[cfg]`: every module counts.

use super::{Resolver, Target, joined};
use crate::codebase_query::facts::{Form, Import};
use crate::codebase_query::language::{directory, file_name};

impl Resolver<'_> {
    pub(super) fn rust(&self, from: &str, import: &Import) -> Target {
        let own = module_dir(self, from);
        let segments = |module: &str| module.split("::").map(str::to_owned).collect::<Vec<_>>();
        if import.form == Form::Mod {
            let at = match &import.alias {
                Some(path) => self.at(&joined(directory(from), path)),
                None => self.descend(&own, None, &segments(&import.module)),
            };
            return Target::Files(at.into_iter().collect());
        }
        let mut paths: Vec<Vec<String>> = Vec::new();
        for name in &import.names {
            let mut path = segments(&import.module);
            if name != "*" && name != "self" {
                path.push(name.clone());
            }
            paths.push(path);
        }
        if paths.is_empty() {
            paths.push(segments(&import.module));
        }
        let mut files = Vec::new();
        for path in paths {
            match self.rust_path(from, &own, import, &path) {
                Target::Files(more) => files.extend(more),
                Target::Nothing => {}
                package @ Target::Package(_) => return package,
            }
        }
        Target::Files(files)
    }

    fn rust_path(&self, from: &str, own: &str, import: &Import, path: &[String]) -> Target {
        let Some((first, rest)) = path.split_first() else { return Target::Nothing };
        let found = match first.as_str() {
            "crate" => {
                let (dir, root) = self.crate_of(from);
                self.descend(&dir, root, rest)
            }
            "self" => self.descend(own, self.at(from), rest),
            "super" => {
                let mut rest = path;
                let mut inline = import.depth;
                let (mut dir, mut file) = (own.to_owned(), self.at(from));
                while let Some((_, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
                    rest = after;
                    if inline > 0 {
                        inline -= 1;
                        continue;
                    }
                    dir = directory(&dir).to_owned();
                    file = self.module_file(from, &dir);
                }
                self.descend(&dir, file, rest)
            }
            name => match self.crates.get(name) {
                Some(dir) => {
                    let source = joined(dir, "src");
                    let root = self.at(&joined(&source, "lib.rs"));
                    self.descend(&source, root, rest)
                }
                None => match self.descend(own, None, path) {
                    Some(file) => Some(file),
                    None => return Target::Package(name.to_owned()),
                },
            },
        };
        found.map_or(Target::Nothing, |file| Target::Files(vec![file]))
    }

    /// As far down from a module as names are files; the last is the one meant.
    fn descend(&self, dir: &str, file: Option<usize>, path: &[String]) -> Option<usize> {
        let (mut dir, mut file) = (dir.to_owned(), file);
        for name in path {
            let below = joined(&dir, name.trim_start_matches("r#"));
            match self.first([format!("{below}.rs"), format!("{below}/mod.rs")]) {
                Some(next) => file = Some(next),
                // A module that stands in its parent's file may have files below it.
                None if file.is_some() => {}
                None => return None,
            }
            dir = below;
        }
        file
    }

    /// The directory of a file's crate, and the crate's first file.
    fn crate_of(&self, from: &str) -> (String, Option<usize>) {
        let mut package = directory(from);
        while self.at(&joined(package, "Cargo.toml")).is_none() && !package.is_empty() {
            package = directory(package);
        }
        let source = joined(package, "src");
        if from.starts_with(&format!("{source}/")) && !from.starts_with(&format!("{source}/bin/")) {
            let root = self.first([joined(&source, "lib.rs"), joined(&source, "main.rs")]);
            return (source, root);
        }
        // Tests, examples and programs are crates of their own, at the top of their directory.
        let below = from.strip_prefix(package).unwrap_or(from).trim_start_matches('/');
        let mut top = below.split('/').next().filter(|top| *top != below).unwrap_or_default().to_owned();
        if top == "src" {
            top.push_str("/bin");
        }
        let dir = joined(package, &top);
        let root = self.first([joined(&dir, "main.rs"), joined(&dir, "lib.rs")]).or_else(|| self.at(from));
        (dir, root)
    }

    /// The file of the module whose modules are in `dir`.
    fn module_file(&self, from: &str, dir: &str) -> Option<usize> {
        let (root, file) = self.crate_of(from);
        if root == dir {
            return file;
        }
        self.first([format!("{dir}.rs"), format!("{dir}/mod.rs")])
    }
}

/// The directory in which the modules of a file are.
fn module_dir(resolver: &Resolver<'_>, path: &str) -> String {
    let (dir, name) = (directory(path), file_name(path));
    let (root, file) = resolver.crate_of(path);
    let is_root = root == dir && (file == resolver.at(path) || !root.ends_with("src"));
    if matches!(name, "mod.rs" | "lib.rs" | "main.rs") || is_root {
        return dir.to_owned();
    }
    joined(dir, name.strip_suffix(".rs").unwrap_or(name))
}
