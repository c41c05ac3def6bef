//! The operation `list`.
//!
//! Owns the shape of its value. Must not know how files are found.

use std::path::Path;

use pipeline_core::error::StepError;
use pipeline_core::step::StepContext;
use serde_json::json;

use super::select::{Pattern, shown, walk};
use super::{Config, Done};
use crate::confine::Roots;

/// Lists files, sorted by path.
pub(super) async fn list(cx: &StepContext, config: &Config) -> Result<Done, StepError> {
    let path = match config.path.as_ref().map(super::OneOrMany::texts).as_deref() {
        None => ".",
        Some([one]) => one,
        Some(_) => {
            return Err(
                StepError::invalid("`list` takes one directory").help("list each in a step of its own")
            );
        }
    };
    let pattern_text = config.pattern.as_deref().unwrap_or("*");
    let pattern = Pattern::new(pattern_text)?;
    // A pattern that spells a path asks for what is inside.
    let recursive = config.recursive || pattern_text.contains('/');
    let found = walk(cx, &Roots::read(cx), Path::new(path), &pattern, recursive).await?;
    let file = |(file, size): &(std::path::PathBuf, u64)| {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        json!({"path": shown(Path::new(path), file), "name": name, "size": size})
    };
    let files: Vec<_> = found.files.iter().map(file).collect();
    let count = files.len();
    let value =
        json!({"operation": "list", "path": path, "pattern": pattern_text, "files": files, "count": count});
    Ok(Done { value, warnings: found.warnings })
}
