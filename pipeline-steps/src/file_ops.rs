//! `file_ops`: lists, copies, moves, deletes, converts and checks files.
//!
//! Owns the step and its configuration. Paths are relative to the working directory and reached only through
//! [`crate::confine::Roots`]. Must not know how a copy is undone (`copy.rs`) or how a pattern is walked (`select.rs`).

mod select;
mod list;
mod validate;
mod wait;
mod copy;
mod relocate;
mod process;
mod convert;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use cap_std::fs::Dir;
use pipeline_core::document::Node;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::CheckContext;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::confine::Roots;

#[cfg(any(test, fuzzing))]
pub use convert::fuzz as convert_fuzz;

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
    /// Moves files: all of them, or nothing has changed.
    Move,
    /// Deletes files and directories: all of them, or nothing has changed.
    Delete,
    /// Checks that files are there and how large they are; fails with all that is wrong.
    Validate,
    /// Makes a CSV, JSON, YAML or XML file of another one.
    Convert,
    /// Waits until files are there, or gone.
    Wait,
    /// Copies files, a piece at a time; the same as `copy`.
    StreamCopy,
    /// Changes a text file, line by line.
    StreamProcess,
}

/// Every key beside `operation`.
const KEYS: [&str; 13] = [
    "path",
    "pattern",
    "recursive",
    "source",
    "destination",
    "files",
    "format",
    "infer_types",
    "processor",
    "replacement",
    "gone",
    "max_wait",
    "missing_ok",
];

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Copy => "copy",
            Self::Move => "move",
            Self::Delete => "delete",
            Self::Validate => "validate",
            Self::Convert => "convert",
            Self::Wait => "wait",
            Self::StreamCopy => "stream_copy",
            Self::StreamProcess => "stream_process",
        }
    }

    /// Keys that it needs, and keys that it takes beside them.
    fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::List => (&[], &["path", "pattern", "recursive"]),
            Self::Copy | Self::Move | Self::StreamCopy => (&["source", "destination"], &["recursive"]),
            Self::Delete => (&["path"], &["recursive", "missing_ok"]),
            Self::Convert => (&["source", "destination"], &["format", "infer_types"]),
            Self::Wait => (&["path"], &["gone", "max_wait"]),
            Self::StreamProcess => (&["source", "processor"], &["destination", "pattern", "replacement"]),
            Self::Validate => (&["files"], &[]),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What to do.
    operation: Operation,
    /// list: the directory; the working directory when it is left out. delete, wait: a path, a glob, or a list of them.
    #[serde(default)]
    path: Option<OneOrMany>,
    /// list: which files, as a glob on their names, or on their paths below `path` when it has a `/`. Default: `*`.
    /// stream_process with `replace`: the text that is replaced.
    #[serde(default)]
    pattern: Option<String>,
    /// list: directories inside, too. copy, move, delete: directories with all that is in them.
    #[serde(default)]
    recursive: bool,
    /// copy, move: a file, a glob, or a list of them. convert, stream_process: a file.
    #[serde(default)]
    source: Option<OneOrMany>,
    /// The new file; for copy and move a directory when it ends in `/`, exists as one, or several files are meant.
    /// stream_process: the file itself is changed when this is left out.
    #[serde(default)]
    destination: Option<String>,
    /// validate: the files and what must be true of each.
    #[serde(default)]
    files: Vec<validate::Expected>,
    /// convert: `FROM_to_TO`, for example `csv_to_json`; by the ends of the names when it is left out.
    #[serde(default)]
    format: Option<String>,
    /// convert from CSV: numbers, `true` and `false` become such where they are spelled as JSON does; else all is text.
    #[serde(default)]
    infer_types: bool,
    /// stream_process: what becomes of each line.
    #[serde(default)]
    processor: Option<process::Processor>,
    /// stream_process with `replace`: what stands in the place of `pattern`; nothing when it is left out.
    #[serde(default)]
    replacement: Option<String>,
    /// wait: until they are gone, not until they are there.
    #[serde(default)]
    gone: bool,
    /// wait: how long at most; until the step's own deadline when it is left out.
    #[serde(default)]
    #[schemars(extend("x-kind" = "duration"))]
    max_wait: Option<f64>,
    /// delete: a path that is not there is no failure.
    #[serde(default)]
    missing_ok: bool,
}

impl Config {
    /// The one file that `source` must be.
    fn one_source(&self, operation: Operation) -> Result<&str, StepError> {
        match self.source.as_ref().ok_or_else(|| missing(operation, "source"))? {
            OneOrMany::One(text) => Ok(text),
            OneOrMany::Many(texts) if texts.len() == 1 => Ok(&texts[0]),
            OneOrMany::Many(_) => Err(StepError::invalid(format!("`{}` takes one file", operation.name()))
                .help("use a for_loop for several")),
        }
    }
}

/// A text or a list of texts.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts.iter().map(String::as_str).collect(),
        }
    }
}

/// The step type `file_ops`.
pub(crate) struct FileOps;

#[async_trait]
impl Step for FileOps {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "file_ops",
            summary: "Lists, copies, moves, deletes, converts and checks files, within the directories that the run may use.",
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
            cx.missing(config, &[key], node.span, message, &format!("add `{key}: …`"));
        }
        for key in KEYS {
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

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with.clone())?;
        let operation = config.operation;
        let work = async {
            let done = match operation {
                Operation::List => list::list(cx, &config).await?,
                Operation::Copy | Operation::StreamCopy => copy::copy(cx, &config, operation).await?,
                Operation::Move => relocate::relocate(cx, &config).await?,
                Operation::Delete => relocate::delete(cx, &config).await?,
                Operation::Convert => convert::convert(cx, &config).await?,
                Operation::Wait => wait::wait(cx, &config).await?,
                Operation::StreamProcess => process::process(cx, &config).await?,
                Operation::Validate => validate::validate(cx, &config.files)?,
            };
            serde_json::to_value(done).map_err(|e| StepError::new(ErrorKind::Internal, e.to_string()))
        };
        // What was found on disk is recorded, so that a resumed run sees what this one saw.
        let done = cx.effect(operation.name(), with.json(), work).await?.into_json();
        let done: Done = cx.decode(done)?;
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
