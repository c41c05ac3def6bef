//! Manifests that are lines of text or code: requirements, setup.cfg, go.mod, mix.exs.
//!
//! Owns their reading, and that of one requirement of Python, which others use too.

use super::Asked;
use crate::codebase_query::config::Need;
use crate::codebase_query::facts::{self, parse};
use crate::codebase_query::language::{Dialect, Language};

/// `name[extra] >= 1.0; marker` as a name and its versions.
pub(super) fn requirement(line: &str) -> Option<(String, Option<String>)> {
    let line = line.split(" #").next()?.split(';').next()?.trim();
    let end =
        line.find(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.')).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim();
    // Extras belong to the name, and say nothing of versions.
    let rest = rest.strip_prefix('[').and_then(|r| r.split_once(']')).map_or(rest, |(_, rest)| rest).trim();
    let version = rest.trim_start_matches('(').trim_end_matches(')').trim();
    let is_name = name.starts_with(|c: char| c.is_alphanumeric());
    is_name.then(|| (name.to_owned(), (!version.is_empty()).then(|| version.to_owned())))
}

// The readers of one kind have one type, though this one cannot fail.
#[expect(clippy::unnecessary_wraps, reason = "all readers have one type")]
pub(super) fn requirements(text: &str) -> Result<Vec<Asked>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with(['#', '-']) && !l.contains("://"));
    Ok(lines.filter_map(requirement).map(|(name, version)| (name, version, Need::Runtime)).collect())
}

#[expect(clippy::unnecessary_wraps, reason = "all readers have one type")]
pub(super) fn setup_cfg(text: &str) -> Result<Vec<Asked>, String> {
    let (mut section, mut key) = ("", "");
    let mut all = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            (section, key) = (name, "");
            continue;
        }
        let value = match line.split_once('=') {
            Some((name, value)) if !line.starts_with([' ', '\t']) => {
                key = name.trim();
                value.trim()
            }
            _ => trimmed,
        };
        let need = match (section, key) {
            ("options", "install_requires") => Need::Runtime,
            ("options", "setup_requires") => Need::Build,
            ("options", "tests_require") => Need::Development,
            ("options.extras_require", _) => Need::Optional,
            _ => continue,
        };
        all.extend(requirement(value).map(|(name, version)| (name, version, need)));
    }
    Ok(all)
}

#[expect(clippy::unnecessary_wraps, reason = "all readers have one type")]
pub(super) fn go_mod(text: &str) -> Result<Vec<Asked>, String> {
    let mut in_block = false;
    let mut all = Vec::new();
    for line in text.lines().map(str::trim) {
        let asked = match line {
            "require (" => {
                in_block = true;
                continue;
            }
            ")" => {
                in_block = false;
                continue;
            }
            line if in_block => line,
            line => match line.strip_prefix("require ") {
                Some(rest) => rest,
                None => continue,
            },
        };
        let (asked, note) = asked.split_once("//").unwrap_or((asked, ""));
        let mut words = asked.split_whitespace();
        if let Some(name) = words.next() {
            let need = if note.contains("indirect") { Need::Indirect } else { Need::Runtime };
            all.push((name.to_owned(), words.next().map(str::to_owned), need));
        }
    }
    Ok(all)
}

/// `{:name, "~> 1.0", only: :test}` in the function `deps`.
pub(super) fn mix(text: &str) -> Result<Vec<Asked>, String> {
    let source = text.as_bytes();
    let tree = parse(source, Language::Elixir, Dialect::Plain, &|| false)
        .map_err(|_| "it takes too long".to_owned())?;
    let of = |node: tree_sitter::Node<'_>| String::from_utf8_lossy(&source[node.byte_range()]).into_owned();
    let (mut all, mut deps) = (Vec::new(), None);
    facts::each(&tree, |node| {
        if node.kind() == "call" && deps.is_none() {
            let head = of(node);
            if head.starts_with("defp deps") || head.starts_with("def deps") {
                deps = Some(node.byte_range());
            }
        }
        let within = deps.as_ref().is_some_and(|d| d.contains(&node.start_byte()));
        if !within || node.kind() != "tuple" {
            return true;
        }
        let mut cursor = node.walk();
        let parts: Vec<_> = node.named_children(&mut cursor).collect();
        let Some(name) = parts.first().filter(|n| n.kind() == "atom") else { return true };
        let version =
            parts.get(1).filter(|n| n.kind() == "string").map(|n| of(*n).trim_matches('"').to_owned());
        let options = parts.iter().filter(|n| n.kind() == "keywords").map(|n| of(*n)).collect::<String>();
        let need = if options.contains("optional: true") {
            Need::Optional
        } else if options.contains("only:") && !options.contains(":prod") {
            Need::Development
        } else {
            Need::Runtime
        };
        all.push((of(*name).trim_start_matches(':').to_owned(), version, need));
        false
    });
    Ok(all)
}
