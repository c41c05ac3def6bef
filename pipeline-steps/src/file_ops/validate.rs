//! The operation `validate`.
//!
//! Owns what can be required of a file. Must not change or read one.

use std::io;
use std::path::Path;

use cap_std::fs::Metadata;
use pipeline_core::error::StepError;
use pipeline_core::step::StepContext;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Done, open, trouble};
use crate::confine::Roots;

/// A file and what must be true of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// The file or directory.
    path: String,
    /// Whether it must exist. When it need not, the rest is checked only if it does.
    #[serde(default = "yes")]
    must_exist: bool,
    /// It must be a regular file.
    #[serde(default)]
    must_be_file: bool,
    /// It must be a directory.
    #[serde(default)]
    must_be_dir: bool,
    /// The smallest size of a file, in bytes.
    #[serde(default)]
    min_size: Option<u64>,
    /// The largest size of a file, in bytes.
    #[serde(default)]
    max_size: Option<u64>,
}

fn yes() -> bool {
    true
}

/// Checks every file, and fails with all findings at once.
pub(super) fn validate(cx: &StepContext, files: &[Expected]) -> Result<Done, StepError> {
    let roots = Roots::read(cx);
    let mut results = Vec::new();
    let mut problems = Vec::new();
    for expected in files {
        let found = look(cx, &roots, &expected.path)?;
        let wrong = expected.problems(found.as_ref());
        results.push(json!({
            "path": expected.path,
            "valid": wrong.is_empty(),
            "exists": found.is_some(),
            "size": found.as_ref().filter(|m| m.is_file()).map(Metadata::len),
            "problems": wrong,
        }));
        problems.extend(wrong.into_iter().map(|problem| format!("`{}` {problem}", expected.path)));
    }
    if !problems.is_empty() {
        return Err(StepError::invalid(problems.join("; ")).details(json!({"files": results})));
    }
    let count = results.len();
    let value = json!({"operation": "validate", "files": Value::Array(results), "count": count});
    Ok(Done { value, warnings: Vec::new() })
}

/// What is there, if anything is.
fn look(cx: &StepContext, roots: &Roots, path: &str) -> Result<Option<Metadata>, StepError> {
    let path = Path::new(path);
    let (dir, below) = open(cx, roots, path)?;
    match dir.metadata(below) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(trouble("look at", path, &error)),
    }
}

impl Expected {
    fn problems(&self, found: Option<&Metadata>) -> Vec<String> {
        let Some(meta) = found else {
            return if self.must_exist { vec!["does not exist".to_owned()] } else { Vec::new() };
        };
        let mut problems = Vec::new();
        if self.must_be_file && !meta.is_file() {
            problems.push("is not a regular file".to_owned());
        }
        if self.must_be_dir && !meta.is_dir() {
            problems.push("is not a directory".to_owned());
        }
        if meta.is_file() {
            let size = meta.len();
            if let Some(min) = self.min_size.filter(|min| size < *min) {
                problems.push(format!("has {size} bytes, and at least {min} are asked for"));
            }
            if let Some(max) = self.max_size.filter(|max| size > *max) {
                problems.push(format!("has {size} bytes, and at most {max} are allowed"));
            }
        }
        problems
    }
}
