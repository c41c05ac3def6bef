//! What kind of project a codebase is.
//!
//! Owns `get_project_type`: manifests decide, the nearest to the top first; without any, the language with most source.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::language::{Language, file_name};
use super::tree::Tree;

/// The manifests that tell a language.
const MANIFESTS: &[(&str, Language)] = &[
    ("Cargo.toml", Language::Rust),
    ("go.mod", Language::Go),
    ("mix.exs", Language::Elixir),
    ("pyproject.toml", Language::Python),
    ("setup.py", Language::Python),
    ("setup.cfg", Language::Python),
    ("requirements.txt", Language::Python),
    ("Pipfile", Language::Python),
    ("package.json", Language::JavaScript),
];

/// Answers `get_project_type`.
pub(super) fn project_type(tree: &Tree) -> Value {
    let sizes = sizes(tree);
    let typed = tree.files.iter().any(|f| file_name(&f.path) == "tsconfig.json")
        || bytes(&sizes, Language::TypeScript) > bytes(&sizes, Language::JavaScript);
    let mut manifests: Vec<(&str, Language)> = Vec::new();
    for file in &tree.files {
        let name = file_name(&file.path);
        if let Some((_, language)) = MANIFESTS.iter().find(|(manifest, _)| *manifest == name) {
            let is_script = *language == Language::JavaScript && typed;
            manifests.push((&file.path, if is_script { Language::TypeScript } else { *language }));
        }
    }
    manifests.sort_by_key(|(path, language)| {
        (path.matches('/').count(), std::cmp::Reverse(bytes(&sizes, *language)), *path)
    });
    let mut types: Vec<Language> = Vec::new();
    for (_, language) in &manifests {
        if !types.contains(language) {
            types.push(*language);
        }
    }
    if types.is_empty() {
        types.extend(largest(&sizes));
    }
    let languages: Vec<Value> = sizes
        .iter()
        .map(|(language, (files, bytes))| json!({ "language": language, "files": files, "bytes": bytes }))
        .collect();
    json!({
        "type": types.first().map_or("unknown", |language| language.name()),
        "types": types,
        "manifests": manifests.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        "languages": languages,
        "files": tree.files.len(),
    })
}

type Sizes = BTreeMap<Language, (usize, u64)>;

fn sizes(tree: &Tree) -> Sizes {
    let mut sizes = Sizes::new();
    for file in &tree.files {
        if let Some(language) = file.language() {
            let size = sizes.entry(language).or_default();
            size.0 += 1;
            size.1 += file.size;
        }
    }
    sizes
}

fn bytes(sizes: &Sizes, language: Language) -> u64 {
    sizes.get(&language).map_or(0, |(_, bytes)| *bytes)
}

fn largest(sizes: &Sizes) -> Option<Language> {
    sizes.iter().max_by_key(|(language, (_, bytes))| (*bytes, std::cmp::Reverse(**language))).map(|(l, _)| *l)
}
