//! Where texts come from and how byte offsets become lines.
//!
//! Owns [`SourceLoader`] (the only way the compiler reaches files), [`SourceMap`] and [`MemorySources`].
//! Must not know the file system: the binary brings a loader that does.
//! Next: `document.rs`, which parses a text of the map.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::{FileId, Span};

/// A pipeline file that names another.
#[derive(Debug, Clone, Copy)]
pub struct Referrer<'a> {
    /// Its canonical name.
    pub file: &'a str,
    /// Canonical name of the root file: what lies below its folder may be read.
    pub root: &'a str,
    /// Directories that may be read beside, as the root file writes them (`permissions.read`).
    pub read: &'a [String],
}

/// Reads the pipeline file and the files that it includes (children by `pipeline_file`, library references).
///
/// The compiler calls nothing else to reach the outside world.
pub trait SourceLoader: Send + Sync {
    /// Reads `reference` as `from` names it (`None` for the root file, which may be anywhere).
    ///
    /// # Errors
    /// A [`SourceError`] with a sentence that names the file and what to do.
    fn load(&self, reference: &SourceRef, from: Option<Referrer<'_>>) -> Result<LoadedSource, SourceError>;

    /// True when a file that a *literal* prompt or data path names can be found; `None` when it cannot be known.
    fn data_file_exists(&self, path: &str, from: &str) -> Option<bool>;
}

/// How a file names another pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceRef {
    /// By path, relative to the file that names it.
    Path(String),
    /// By name in the pipeline library.
    Library(String),
}

/// A text with its identity.
#[derive(Debug, Clone)]
pub struct LoadedSource {
    /// What to show to people, as they would write it.
    pub display: String,
    /// Canonical identity: two spellings of one file have the same; cycles are found by it.
    pub canonical: String,
    /// The text.
    pub text: String,
}

/// Why a source could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What happened, naming the file.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
}

/// One file of a [`SourceMap`].
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// What to show to people.
    pub display: String,
    /// Canonical identity.
    pub canonical: String,
    /// The text.
    pub text: Arc<str>,
    line_starts: Vec<u32>,
}

/// Every text of one compilation. Spans point into it.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

/// A 1-based place in a file. Columns count Unicode scalar values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl SourceMap {
    /// Adds a text and returns its id.
    pub fn add(&mut self, source: LoadedSource) -> FileId {
        let mut line_starts = vec![0];
        line_starts
            .extend(source.text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| offset(i + 1)));
        self.files.push(SourceFile {
            display: source.display,
            canonical: source.canonical,
            text: source.text.into(),
            line_starts,
        });
        FileId(offset(self.files.len() - 1))
    }

    /// The file `id`, if there is one.
    pub fn get(&self, id: FileId) -> Option<&SourceFile> {
        self.files.get(id.0 as usize)
    }

    /// All files, in the order in which they were read; the root file is the first.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &SourceFile)> {
        self.files.iter().enumerate().map(|(i, f)| (FileId(offset(i)), f))
    }

    /// `file:line:column` of a span's start.
    pub fn locate(&self, span: Span) -> Option<(&str, Position)> {
        let file = self.get(span.file)?;
        Some((&file.display, file.position(span.start)))
    }
}

impl SourceFile {
    /// Line and column of a byte offset; offsets past the end give the end.
    pub fn position(&self, at: u32) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= at).max(1) - 1;
        let start = self.line_starts.get(line).copied().unwrap_or(0) as usize;
        let before = self.text.get(start..(at as usize).min(self.text.len())).unwrap_or("");
        Position { line: offset(line) + 1, column: offset(before.chars().count()) + 1 }
    }

    /// The text of line `line` (from 1), without its line end.
    pub fn line(&self, line: u32) -> &str {
        let index = line.saturating_sub(1) as usize;
        let start = self.line_starts.get(index).copied().unwrap_or(0) as usize;
        let end = self.line_starts.get(index + 1).map_or(self.text.len(), |e| *e as usize);
        self.text.get(start..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }

    /// Byte offset of a 1-based line and column.
    pub fn offset(&self, line: u32, column: u32) -> u32 {
        let text = self.line(line);
        let start = self.line_starts.get(line.saturating_sub(1) as usize).copied().unwrap_or(0);
        let within =
            text.char_indices().nth(column.saturating_sub(1) as usize).map_or(text.len(), |(i, _)| i);
        start + offset(within)
    }
}

/// Sources held in memory: for tests, for pipelines made in code and for a run's stored sources.
#[derive(Debug, Clone, Default)]
pub struct MemorySources {
    files: BTreeMap<String, String>,
    library: BTreeMap<String, String>,
}

impl MemorySources {
    /// Adds a file under a path. Paths are compared after removing `./` and resolving `..`.
    #[must_use]
    pub fn with(mut self, path: &str, text: impl Into<String>) -> Self {
        self.files.insert(normal(path), text.into());
        self
    }

    /// Adds a library pipeline under a name.
    #[must_use]
    pub fn with_library(mut self, name: &str, text: impl Into<String>) -> Self {
        self.library.insert(name.to_owned(), text.into());
        self
    }
}

impl SourceLoader for MemorySources {
    fn load(&self, reference: &SourceRef, from: Option<Referrer<'_>>) -> Result<LoadedSource, SourceError> {
        let (display, found) = match reference {
            SourceRef::Library(name) => (format!("library:{name}"), self.library.get(name)),
            SourceRef::Path(path) => {
                let folder = from.and_then(|f| f.file.rsplit_once('/')).map_or("", |(folder, _)| folder);
                let full = if path.starts_with('/') || folder.is_empty() {
                    normal(path)
                } else {
                    normal(&format!("{folder}/{path}"))
                };
                let text = self.files.get(&full);
                (full, text)
            }
        };
        match found {
            Some(text) => Ok(LoadedSource { canonical: display.clone(), display, text: text.clone() }),
            None => Err(SourceError {
                message: format!("cannot read {display}: no such file"),
                help: Some("check the path; it is relative to the file that names it".to_owned()),
            }),
        }
    }

    fn data_file_exists(&self, _path: &str, _from: &str) -> Option<bool> {
        None
    }
}

fn normal(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
}

/// Offsets fit in 32 bits: files are limited to 8 MiB before they get here.
pub(crate) fn offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
