//! Packages that the manifests of a codebase ask for.
//!
//! Owns [`packages`] and the reading of manifests: Cargo.toml, package.json, pyproject.toml, requirements, setup.cfg,
//! Pipfile, go.mod, mix.exs. Must not look a package up anywhere.

mod lines;
mod tables;

use serde::Serialize;
use serde_json::{Value, json};

use super::config::{GetDependencies, Need};
use super::language::{Language, file_name};
use super::tree::Tree;

/// A package as a manifest asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Package {
    pub(super) name: String,
    /// What versions may be taken, in the words of the manifest; `None` = any, or given elsewhere.
    pub(super) version: Option<String>,
    #[serde(rename = "type")]
    pub(super) need: Need,
    pub(super) language: Language,
    pub(super) manifest: String,
}

/// A package without the manifest that it stands in.
type Asked = (String, Option<String>, Need);

/// Every package, by manifest and name; and the manifests that could not be read.
pub(super) fn packages(tree: &Tree) -> (Vec<Package>, Vec<String>) {
    let (mut all, mut warnings) = (Vec::new(), Vec::new());
    for file in &tree.files {
        let name = file_name(&file.path);
        let Some((language, read)) = reader(name) else { continue };
        let Some(text) = tree.text(&file.path) else { continue };
        match read(&text) {
            Ok(mut asked) => {
                asked.sort();
                asked.dedup();
                all.extend(asked.into_iter().map(|(name, version, need)| Package {
                    name,
                    version,
                    need,
                    language,
                    manifest: file.path.clone(),
                }));
            }
            Err(why) => warnings.push(format!("`{}` cannot be read: {why}", file.path)),
        }
    }
    (all, warnings)
}

type Reader = fn(&str) -> Result<Vec<Asked>, String>;

fn reader(name: &str) -> Option<(Language, Reader)> {
    Some(match name {
        "Cargo.toml" => (Language::Rust, tables::cargo as Reader),
        "package.json" => (Language::JavaScript, tables::npm),
        "pyproject.toml" => (Language::Python, tables::pyproject),
        "Pipfile" => (Language::Python, tables::pipfile),
        "setup.cfg" => (Language::Python, lines::setup_cfg),
        "go.mod" => (Language::Go, lines::go_mod),
        "mix.exs" => (Language::Elixir, lines::mix),
        _ if name.starts_with("requirements") && name.rsplit('.').next() == Some("txt") => {
            (Language::Python, lines::requirements)
        }
        _ => return None,
    })
}

/// Answers `get_dependencies`.
pub(super) fn answer(tree: &Tree, asked: &GetDependencies, warnings: &mut Vec<String>) -> Value {
    let (mut all, unread) = packages(tree);
    warnings.extend(unread);
    all.retain(|p| asked.need.is_none_or(|need| need == p.need));
    all.retain(|p| asked.language.is_none_or(|l| l.family() == p.language.family()));
    json!({ "count": all.len(), "dependencies": all })
}
