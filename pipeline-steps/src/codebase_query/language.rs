//! The languages that are read, and what a file is for by its path alone.
//!
//! Owns [`Language`] and the rules of naming. Must not read files, nor know what a syntax tree looks like.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::Role;

/// A language with a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    Elixir,
    Go,
    JavaScript,
    Python,
    Rust,
    TypeScript,
}

/// A grammar; TypeScript has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Plain,
    Jsx,
}

impl Language {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Elixir => "elixir",
            Self::Go => "go",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Rust => "rust",
            Self::TypeScript => "typescript",
        }
    }

    /// By the ending of a file's name.
    pub(super) fn of(path: &str) -> Option<(Self, Dialect)> {
        let (_, ending) = file_name(path).rsplit_once('.')?;
        Some(match ending {
            "ex" | "exs" => (Self::Elixir, Dialect::Plain),
            "go" => (Self::Go, Dialect::Plain),
            "js" | "jsx" | "mjs" | "cjs" => (Self::JavaScript, Dialect::Jsx),
            "py" | "pyi" | "pyw" => (Self::Python, Dialect::Plain),
            "rs" => (Self::Rust, Dialect::Plain),
            "ts" | "mts" | "cts" => (Self::TypeScript, Dialect::Plain),
            "tsx" => (Self::TypeScript, Dialect::Jsx),
            _ => return None,
        })
    }

    /// What stands between the names of a module and of something in it.
    pub(super) fn separator(self) -> &'static str {
        if self == Self::Rust { "::" } else { "." }
    }

    /// Whether a file imported by one language can be written in the other.
    pub(super) fn family(self) -> Self {
        if self == Self::JavaScript { Self::TypeScript } else { self }
    }

    pub(super) fn grammar(self, dialect: Dialect) -> tree_sitter::Language {
        match (self, dialect) {
            (Self::Elixir, _) => tree_sitter_elixir::LANGUAGE.into(),
            (Self::Go, _) => tree_sitter_go::LANGUAGE.into(),
            (Self::JavaScript, _) => tree_sitter_javascript::LANGUAGE.into(),
            (Self::Python, _) => tree_sitter_python::LANGUAGE.into(),
            (Self::Rust, _) => tree_sitter_rust::LANGUAGE.into(),
            (Self::TypeScript, Dialect::Plain) => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            (Self::TypeScript, Dialect::Jsx) => tree_sitter_typescript::LANGUAGE_TSX.into(),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The last part of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The directory of a path; empty at the top.
pub(super) fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The file's name without its endings and without what marks a test: `parse` of `src/parse.test.ts`.
pub(super) fn stem(path: &str) -> &str {
    let name = file_name(path);
    let mut stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    for mark in ["test_", "tests_"] {
        stem = stem.strip_prefix(mark).unwrap_or(stem);
    }
    for mark in ["_test", "_tests", "-test", "_spec", "-spec", "Test", "Spec"] {
        stem = stem.strip_suffix(mark).filter(|rest| !rest.is_empty()).unwrap_or(stem);
    }
    stem
}

/// What a file is for.
pub(super) fn role(path: &str, language: Option<Language>) -> Role {
    let name = file_name(path);
    if is_test(path, name, language) {
        Role::Test
    } else if is_config(path, name) {
        Role::Config
    } else if language.is_some_and(|language| is_main(path, name, language)) {
        Role::Main
    } else if language.is_some() {
        Role::Source
    } else {
        Role::Other
    }
}

fn is_test(path: &str, name: &str, language: Option<Language>) -> bool {
    let Some(language) = language else { return false };
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let in_folder = |folders: &[&str]| directory(path).split('/').any(|part| folders.contains(&part));
    match language {
        Language::Elixir => stem.ends_with("_test") || in_folder(&["test"]),
        // The tool chain knows tests of Go by this ending alone.
        Language::Go => stem.ends_with("_test"),
        Language::JavaScript | Language::TypeScript => {
            [".test", ".spec", "-test", "_test"].iter().any(|mark| stem.ends_with(mark))
                || in_folder(&["__tests__", "test", "tests", "spec", "e2e"])
        }
        Language::Python => {
            stem.starts_with("test_")
                || stem.ends_with("_test")
                || stem == "conftest"
                || in_folder(&["test", "tests"])
        }
        Language::Rust => {
            stem == "tests"
                || stem == "test"
                || stem.ends_with("_test")
                || stem.ends_with("_tests")
                || in_folder(&["tests", "benches"])
        }
    }
}

fn is_config(path: &str, name: &str) -> bool {
    const NAMES: &[&str] = &[
        "Dockerfile",
        "Makefile",
        "Procfile",
        "go.mod",
        "go.sum",
        "mix.exs",
        "mix.lock",
        "setup.py",
        "noxfile.py",
        "requirements.txt",
        "build.rs",
        "Pipfile",
        "Gemfile",
        "justfile",
    ];
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    NAMES.contains(&name)
        || matches!(ending, "toml" | "yaml" | "yml" | "ini" | "cfg" | "conf" | "lock" | "properties")
        || (ending == "json" && !name.ends_with(".test.json"))
        || name.contains(".config.")
        || name.starts_with(".env")
        || (ending == "txt" && name.starts_with("requirements"))
        || (ending == "exs" && directory(path).split('/').any(|part| part == "config"))
}

fn is_main(path: &str, name: &str, language: Language) -> bool {
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    match language {
        Language::Elixir => name == "application.ex",
        Language::Go => name == "main.go",
        Language::JavaScript | Language::TypeScript => {
            matches!(stem, "index" | "main" | "app" | "server" | "cli")
                && matches!(
                    directory(path).rsplit('/').next(),
                    Some("" | "src" | "lib" | "bin" | "app" | "server")
                )
        }
        Language::Python => {
            matches!(name, "__main__.py" | "main.py" | "app.py" | "manage.py" | "wsgi.py" | "asgi.py")
        }
        Language::Rust => {
            matches!(name, "main.rs" | "lib.rs")
                || directory(path).ends_with("src/bin")
                || path.starts_with("src/bin/")
        }
    }
}
