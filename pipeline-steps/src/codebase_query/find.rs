//! `find_files`.
//!
//! Owns the criteria by which files are chosen.

use pipeline_core::clock::Timestamp;
use pipeline_core::error::StepError;
use serde_json::{Value, json};

use super::config::{FindFiles, Role};
use super::tree::{Tree, Unread, globs};

/// Answers `find_files`; `related` are the files that have to do with `related_to`.
///
/// # Errors
/// `Invalid` for a glob or a time that is none.
pub(super) fn files(tree: &Tree, asked: &FindFiles, related: Option<&[usize]>) -> Result<Value, StepError> {
    let pattern = asked.pattern.as_ref().map(|p| globs(std::slice::from_ref(p))).transpose()?;
    let exclude = globs(&asked.exclude_patterns)?;
    let since = asked.modified_since.as_deref().map(time).transpose()?;
    let ending = asked.extension.as_ref().map(|e| format!(".{}", e.trim_start_matches('.')));
    let mut files = Vec::new();
    for (at, file) in tree.files.iter().enumerate() {
        let role = match asked.role {
            None => true,
            Some(Role::Source) => matches!(file.role, Role::Source | Role::Main),
            Some(role) => file.role == role,
        };
        let fits = role
            && pattern.as_ref().is_none_or(|p| p.is_match(&file.path))
            && !exclude.is_match(&file.path)
            && asked.language.is_none_or(|l| file.language() == Some(l))
            && ending.as_ref().is_none_or(|e| file.path.ends_with(e.as_str()))
            && asked.size_min.is_none_or(|least| file.size >= least)
            && asked.size_max.is_none_or(|most| file.size <= most)
            && since.is_none_or(|since| file.modified.is_some_and(|at| at >= since.0))
            && !(asked.exclude_tests && file.role == Role::Test)
            && related.is_none_or(|related| related.contains(&at))
            && asked.contains.as_ref().is_none_or(|text| contains(tree, at, text));
        if fits {
            files.push(json!({
                "path": file.path,
                "type": file.role,
                "language": file.language(),
                "size": file.size,
            }));
        }
    }
    Ok(json!({ "count": files.len(), "files": files, "criteria": asked }))
}

fn contains(tree: &Tree, at: usize, text: &str) -> bool {
    match tree.read(at) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).contains(text),
        Err(Unread::TooLarge | Unread::Binary | Unread::Failed(_)) => false,
    }
}

fn time(text: &str) -> Result<Timestamp, StepError> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse().map_err(|_| {
        StepError::invalid(format!("`{text}` is not a time"))
            .help("write a day or a moment: `2026-01-31`, `2026-01-31T12:00:00Z`")
    })
}
