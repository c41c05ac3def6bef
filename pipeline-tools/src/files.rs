//! Tools for files.
//!
//! Owns [`ReadFile`], [`WriteFile`] and [`ListFiles`]. A relative path is meant from the step's workspace. What is opened is below one of
//! the roots of the run, by capability: `..` and symbolic links do not lead out. Must not know the registry.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::Value;
use serde::Deserialize;
use serde_json::json;

use crate::decode::{decode, spec};

/// Bytes of a file that one call reads.
const MOST_READ: u64 = 1 << 20;

/// Entries that one call lists.
const MOST_LISTED: usize = 10_000;

/// Reads a text file.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadFile;

/// Writes a text file, as a whole or not at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteFile;

/// Lists a directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListFiles;

#[derive(Deserialize)]
struct Place {
    path: String,
}

#[derive(Deserialize)]
struct Content {
    path: String,
    content: String,
}

#[async_trait]
impl Tool for ReadFile {
    fn spec(&self) -> ToolSpec {
        let properties =
            json!({"path": {"type": "string", "description": "From the workspace, or absolute"}});
        spec("read_file", "Reads a text file (UTF-8, up to 1 MiB).", properties, &["path"])
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Place { path } = decode("read_file", arguments)?;
        let (dir, inner) = readable(cx, &path)?;
        let file = dir.open(&inner).map_err(|error| failed("read", &path, &error))?;
        let mut bytes = Vec::new();
        file.take(MOST_READ + 1).read_to_end(&mut bytes).map_err(|error| failed("read", &path, &error))?;
        if bytes.len() as u64 > MOST_READ {
            return Err(StepError::new(ErrorKind::TooLarge, format!("`{path}` has more than 1 MiB"))
                .help("read a part of it with another tool"));
        }
        let content = String::from_utf8(bytes)
            .map_err(|_| StepError::new(ErrorKind::Parse, format!("`{path}` is not text (UTF-8)")))?;
        Ok(ToolOutput { data: json!({ "path": path, "bytes": content.len() }), content })
    }
}

#[async_trait]
impl Tool for WriteFile {
    fn spec(&self) -> ToolSpec {
        let properties = json!({
            "path": {"type": "string", "description": "From the workspace, or absolute"},
            "content": {"type": "string"},
        });
        let about =
            "Writes a text file in the workspace or the output directory, in the place of what was there.";
        spec("write_file", about, properties, &["path", "content"])
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Content { path, content } = decode("write_file", arguments)?;
        let (dir, inner) = writable(cx, &path)?;
        place(&dir, &inner, content.as_bytes(), &unfinished(cx))
            .map_err(|error| failed("write", &path, &error))?;
        let bytes = content.len();
        Ok(ToolOutput {
            content: format!("wrote {bytes} bytes to {path}"),
            data: json!({ "path": path, "bytes": bytes }),
        })
    }
}

#[async_trait]
impl Tool for ListFiles {
    fn spec(&self) -> ToolSpec {
        let properties =
            json!({"path": {"type": "string", "description": "A directory, `.` for the workspace"}});
        spec(
            "list_files",
            "Lists a directory: names, directories with a slash at their end.",
            properties,
            &["path"],
        )
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Place { path } = decode("list_files", arguments)?;
        let (dir, inner) = readable(cx, &path)?;
        let inner = if inner.as_os_str().is_empty() { PathBuf::from(".") } else { inner };
        let mut names = Vec::new();
        for entry in dir.read_dir(&inner).map_err(|error| failed("list", &path, &error))? {
            let entry = entry.map_err(|error| failed("list", &path, &error))?;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            names.push(format!("{}{}", entry.file_name().to_string_lossy(), if is_dir { "/" } else { "" }));
            if names.len() > MOST_LISTED {
                let message = format!("`{path}` has more than {MOST_LISTED} entries");
                return Err(StepError::new(ErrorKind::TooLarge, message).help("list a directory below it"));
            }
        }
        names.sort();
        Ok(ToolOutput { content: names.join("\n"), data: json!(names) })
    }
}

/// A name that no other call in this process has, nor one of another step.
fn unfinished(cx: &StepContext) -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    format!(".tmp-{:016x}-{}-{}", cx.seed(), std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}

fn readable(cx: &StepContext, path: &str) -> Result<(Dir, PathBuf), StepError> {
    let dirs = &cx.run.dirs;
    let own = [&cx.workspace, &dirs.workspace, &dirs.output, &dirs.pipeline, &dirs.working];
    open(cx, path, "read", own.into_iter().chain(&dirs.read).chain(&dirs.write))
}

fn writable(cx: &StepContext, path: &str) -> Result<(Dir, PathBuf), StepError> {
    let dirs = &cx.run.dirs;
    let own = [&cx.workspace, &dirs.workspace, &dirs.output];
    for dir in own {
        if dir.is_absolute() {
            // One that cannot be made is told when it is opened.
            let _ = Dir::create_ambient_dir_all(dir, ambient_authority());
        }
    }
    open(cx, path, "write", own.into_iter().chain(&dirs.write))
}

/// The innermost root around a path, and the path in it.
fn open<'a>(
    cx: &StepContext,
    path: &str,
    verb: &str,
    roots: impl Iterator<Item = &'a PathBuf>,
) -> Result<(Dir, PathBuf), StepError> {
    let full = lexical(&cx.workspace.join(path));
    // A root that is not set would be around everything.
    let mut around: Vec<PathBuf> = roots
        .filter(|root| root.is_absolute())
        .map(|root| lexical(root))
        .filter(|root| full.starts_with(root))
        .collect();
    around.sort_by_key(|root| std::cmp::Reverse(root.components().count()));
    let mut last = None;
    for root in around {
        match Dir::open_ambient_dir(&root, ambient_authority()) {
            Ok(dir) => return Ok((dir, full.strip_prefix(&root).unwrap_or(&full).to_path_buf())),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => failed(verb, path, &error),
        None => StepError::new(
            ErrorKind::Denied,
            format!("`{path}` is outside of the directories that this run may {verb}"),
        )
        .help(format!(
            "use a path in the workspace, or allow its directory with `permissions.{verb}` or --allow-{verb}"
        )),
    })
}

/// Without `.` and `..`, by the text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

fn place(dir: &Dir, path: &Path, bytes: &[u8], unfinished: &str) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        match dir.metadata(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => dir.create_dir_all(above)?,
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    let temporary = above.unwrap_or_else(|| Path::new("")).join(unfinished);
    let write = || {
        let mut file = dir.create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        dir.rename(&temporary, dir, path)
    };
    write().inspect_err(|_| {
        // What was not finished is nobody's.
        let _ = dir.remove_file(&temporary);
    })
}

fn failed(verb: &str, path: &str, error: &io::Error) -> StepError {
    // cap-std makes its own error, without a number of the system, for a path that would escape.
    if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        let message =
            format!("cannot {verb} `{path}`: it leads out of the directories that this run may {verb}");
        return StepError::new(ErrorKind::Denied, message).help("use a path in the workspace");
    }
    let kind = if error.kind() == io::ErrorKind::PermissionDenied {
        ErrorKind::Denied
    } else {
        ErrorKind::Environment
    };
    StepError::new(kind, format!("cannot {verb} `{path}`: {error}"))
}
