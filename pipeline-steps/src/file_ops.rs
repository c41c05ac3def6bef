//! `file_ops`: lists, copies and checks files.
//!
//! Owns the step and its configuration. Paths are relative to the working directory and reached only through
//! [`crate::confine::Roots`]. Must not know how a copy is undone (`copy.rs`) or how a pattern is walked (`select.rs`).

mod copy;
mod list;
mod select;
mod validate;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use cap_std::fs::Dir;
use pipeline_core::document::Node;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::CheckContext;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::confine::Roots;
use crate::decode::decode;

const EXAMPLE: &str = r#"workflow:
  name: backup
  steps:
    - name: find
      type: file_ops
      operation: list
      path: .
      pattern: "*.yaml"
    - name: back_up
      type: file_ops
      operation: copy
      source: "*.yaml"
      destination: workspace/backup/
"#;

/// What to do with files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Operation {
    /// Lists the files of a directory, sorted.
    List,
    /// Copies files: all of them, or nothing has changed.
    Copy,
    /// Checks that files are there and how large they are; fails with all that is wrong.
    Validate,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Copy => "copy",
            Self::Validate => "validate",
        }
    }

    /// Keys that it needs, and keys that it takes beside them.
    fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::List => (&[], &["path", "pattern", "recursive"]),
            Self::Copy => (&["source", "destination"], &["recursive"]),
            Self::Validate => (&["files"], &[]),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What to do.
    operation: Operation,
    /// list: the directory; the working directory when it is left out.
    #[serde(default)]
    path: Option<String>,
    /// list: which files, as a glob on their names, or on their paths below `path` when it has a `/`. Default: `*`.
    #[serde(default)]
    pattern: Option<String>,
    /// list: directories inside, too. copy: directories with all that is in them.
    #[serde(default)]
    recursive: bool,
    /// copy: a file, a glob, or a list of them.
    #[serde(default)]
    source: Option<OneOrMany>,
    /// copy: the new file; a directory when it ends in `/`, exists as one, or several files are copied.
    #[serde(default)]
    destination: Option<String>,
    /// validate: the files and what must be true of each.
    #[serde(default)]
    files: Vec<validate::Expected>,
}

/// A text or a list of texts.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The step type `file_ops`.
pub(crate) struct FileOps;

#[async_trait]
impl Step for FileOps {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "file_ops",
            summary: "Lists, copies and checks files, within the directories that the run may use.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    fn check(&self, config: &Node, cx: &mut CheckContext<'_>) {
        let Some(node) = config.get("operation") else { return };
        let Ok(operation) = serde_json::from_value::<Operation>(node.to_json()) else { return };
        let (needed, more) = operation.keys();
        for key in needed.iter().filter(|key| config.get(key).is_none()) {
            let message = format!("the operation `{}` needs `{key}`", operation.name());
            cx.error("E0102", node.span, message, &format!("add `{key}: …`"));
        }
        for key in ["path", "pattern", "recursive", "source", "destination", "files"] {
            if let Some(entry) = config.entry(key)
                && !needed.contains(&key)
                && !more.contains(&key)
            {
                let message = format!("the operation `{}` does nothing with `{key}`", operation.name());
                let takes = [needed, more].concat().join(", ");
                cx.warning("E0110", entry.key_span, message, &format!("it takes: {takes}"));
            }
        }
    }

    async fn run(&self, cx: &StepContext, with: Value) -> Result<StepOutput, StepError> {
        let config: Config = decode(cx, with.clone())?;
        let operation = config.operation;
        let work = async {
            let done = match operation {
                Operation::List => list::list(cx, &config).await?,
                Operation::Copy => copy::copy(cx, &config).await?,
                Operation::Validate => validate::validate(cx, &config.files)?,
            };
            serde_json::to_value(done).map_err(|e| StepError::new(ErrorKind::Internal, e.to_string()))
        };
        // What was found on disk is recorded, so that a resumed run sees what this one saw.
        let done = cx.effect(operation.name(), &with, work).await?.into_json();
        let done: Done = decode(cx, done)?;
        Ok(StepOutput { warnings: done.warnings, ..StepOutput::ok(done.value) })
    }
}

/// What an operation gives, as it is recorded.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    value: Value,
    warnings: Vec<String>,
}

/// The capability for a path as written, and the path below it; `.` for the directory itself.
fn open(cx: &StepContext, roots: &Roots, path: &Path) -> Result<(Dir, PathBuf), StepError> {
    let (dir, below) = roots.open(path, &cx.run.dirs.working)?;
    let below = if below.as_os_str().is_empty() { PathBuf::from(".") } else { below };
    Ok((dir, below))
}

fn missing(operation: Operation, key: &str) -> StepError {
    StepError::invalid(format!("the operation `{}` needs `{key}`", operation.name()))
        .help(format!("add `{key}: …`"))
}

/// An error of the system, with what was being done to which path as written.
fn trouble(doing: &str, path: &Path, error: &io::Error) -> StepError {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => StepError::new(
            ErrorKind::Environment,
            format!("cannot {doing} `{shown}`: there is no such file or directory"),
        )
        .help("check the spelling; relative paths start at the directory in which the run was started"),
        io::ErrorKind::PermissionDenied => {
            StepError::new(ErrorKind::Denied, format!("cannot {doing} `{shown}`: {error}")).help(
                "it may be a link that leads outside of the allowed directories, or the system refuses; allow another \
                 directory with `--allow-read DIR` or `--allow-write DIR`",
            )
        }
        _ => StepError::new(ErrorKind::Environment, format!("cannot {doing} `{shown}`: {error}")),
    }
}
