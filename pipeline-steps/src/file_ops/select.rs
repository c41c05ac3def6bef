//! Which files a path or a glob means.
//!
//! Owns the walk: sorted, through a capability, never into linked directories. Must not change anything on disk.

use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use globset::{GlobBuilder, GlobMatcher};
use pipeline_core::error::StepError;
use pipeline_core::step::StepContext;

use super::{open, trouble};
use crate::confine::Roots;

/// Files below a directory.
pub(super) struct Walk {
    /// The directory that allows them.
    pub(super) dir: Dir,
    /// The directory that was walked, below `dir`.
    pub(super) base: PathBuf,
    /// Files, below `base`, sorted; each with its size in bytes.
    pub(super) files: Vec<(PathBuf, u64)>,
    /// What was left out, and why.
    pub(super) warnings: Vec<String>,
}

/// A pattern that matches names, or paths when it has a `/`.
pub(super) struct Pattern {
    matcher: GlobMatcher,
    on_path: bool,
}

impl Pattern {
    /// # Errors
    /// `Invalid` when it is no glob.
    pub(super) fn new(text: &str) -> Result<Self, StepError> {
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|error| {
            StepError::invalid(format!("the pattern `{text}` cannot be read: {}", error.kind()))
                .help("it is a glob: `*.txt`, `**/*.{md,txt}`, `report-[0-9].csv`")
        })?;
        Ok(Self { matcher: glob.compile_matcher(), on_path: text.contains('/') })
    }

    fn matches(&self, path: &Path) -> bool {
        if self.on_path {
            return self.matcher.is_match(path);
        }
        path.file_name().is_some_and(|name| self.matcher.is_match(name))
    }
}

/// Whether a text is a glob rather than a path.
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// The directory before the first part of a glob that is not plain, and the rest.
pub(super) fn split_glob(text: &str) -> (&str, &str) {
    let first = text.find(['*', '?', '[', '{']).unwrap_or(text.len());
    match text[..first].rfind('/') {
        Some(0) => ("/", &text[1..]),
        Some(slash) => (&text[..slash], &text[slash + 1..]),
        None => (".", text),
    }
}

/// Finds the files below `path` that a pattern matches.
pub(super) async fn walk(
    cx: &StepContext,
    roots: &Roots,
    path: &Path,
    pattern: &Pattern,
    recursive: bool,
) -> Result<Walk, StepError> {
    let (dir, base) = open(cx, roots, path)?;
    let meta = dir.metadata(&base).map_err(|e| trouble("list", path, &e))?;
    if !meta.is_dir() {
        return Err(StepError::invalid(format!("`{}` is not a directory", path.display()))
            .help("name its directory in `path` and the file in `pattern`"));
    }
    let mut found = Walk { dir, base, files: Vec::new(), warnings: Vec::new() };
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        // A long walk lets other tasks go on, and can be stopped.
        tokio::task::yield_now().await;
        found.folder(&folder, path, pattern, recursive, &mut folders)?;
    }
    found.files.sort();
    found.warnings.sort();
    Ok(found)
}

impl Walk {
    fn folder(
        &mut self,
        folder: &Path,
        shown: &Path,
        pattern: &Pattern,
        recursive: bool,
        folders: &mut Vec<PathBuf>,
    ) -> Result<(), StepError> {
        let at = |error: &std::io::Error| trouble("list", &shown.join(folder), error);
        for entry in self.dir.read_dir(self.base.join(folder)).map_err(|e| at(&e))? {
            let entry = entry.map_err(|e| at(&e))?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().map_err(|e| at(&e))?;
            if kind.is_dir() {
                if recursive {
                    folders.push(path);
                }
                continue;
            }
            if !pattern.matches(&path) {
                continue;
            }
            if path.to_str().is_none() {
                self.warnings
                    .push(format!("`{}` is left out: its name is not UTF-8", shown.join(&path).display()));
                continue;
            }
            match self.dir.metadata(self.base.join(&path)) {
                Ok(meta) if meta.is_file() => self.files.push((path, meta.len())),
                Ok(_) => {}
                Err(error) => {
                    let shown = shown.join(&path);
                    self.warnings.push(format!("`{}` is left out: {error}", shown.display()));
                }
            }
        }
        Ok(())
    }
}

/// A path as people write it: joined, without a leading `./`.
pub(super) fn shown(base: &Path, path: &Path) -> String {
    let joined = base.join(path);
    joined.strip_prefix(".").unwrap_or(&joined).display().to_string()
}
