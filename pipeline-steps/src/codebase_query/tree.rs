//! The files of a codebase.
//!
//! Owns [`Tree`]: which files there are, without those that ignore files name, and how one of them is read. Names may come
//! from a walk by path; whether they count, and all that is read, goes through the capability of a root that may be
//! read. Must not know what files mean.

use std::io::Read;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use pipeline_core::engine::blocking::Stop;
use pipeline_core::error::{ErrorKind, StepError};

use super::config::Role;
use super::language::{self, Dialect, Language};
use crate::confine::Roots;

/// The largest file that is read: what is larger was not written by people.
pub(super) const LARGEST: u64 = 1024 * 1024;

/// The most files of a codebase.
const MOST: usize = 500_000;

/// A directory and its files.
pub(super) struct Tree {
    dir: Dir,
    /// The codebase below `dir`.
    below: PathBuf,
    /// The same for programs that are told a directory: absolute.
    pub(super) place: PathBuf,
    /// The directory that may be read, absolute.
    pub(super) root: PathBuf,
    /// As it was written.
    shown: String,
    /// Sorted by path.
    pub(super) files: Vec<File>,
}

/// One file.
#[derive(Debug)]
pub(super) struct File {
    /// Below the codebase, with `/`.
    pub(super) path: String,
    pub(super) size: u64,
    /// When it was written, in milliseconds since 1970.
    pub(super) modified: Option<i64>,
    pub(super) language: Option<(Language, Dialect)>,
    pub(super) role: Role,
}

impl File {
    pub(super) fn language(&self) -> Option<Language> {
        self.language.map(|(language, _)| language)
    }
}

/// Why the text of a file is not there.
#[derive(Debug)]
pub(super) enum Unread {
    TooLarge,
    Binary,
    Failed(std::io::Error),
}

/// What a walk leaves out, beside what ignore files name.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) include_hidden: bool,
    pub(super) exclude: Vec<String>,
}

impl Tree {
    /// Opens `path` (as written) and lists its files.
    ///
    /// # Errors
    /// `Denied` outside of the roots, `Environment` when it cannot be listed, `Invalid` for a glob that is none,
    /// `TooLarge`, `Cancelled`.
    pub(super) fn walk(
        roots: &Roots,
        path: &str,
        working: &Path,
        selection: &Selection,
        stop: &Stop,
    ) -> Result<Self, StepError> {
        let written = Path::new(path);
        let (dir, asked) = roots.open(written, working)?;
        let failed = |error: &std::io::Error| roots.failure(written, error);
        if !dir.metadata(&asked).map_err(|e| failed(&e))?.is_dir() {
            let message = format!("`{path}` is not a directory");
            return Err(StepError::invalid(message)
                .help("give the directory of the codebase, and the file in a query"));
        }
        let mut root = crate::confine::lexical(&working.join(written));
        if asked != Path::new(".") {
            for _ in asked.components() {
                root.pop();
            }
        }
        // Links on the way are resolved within the root, so that the walk by path meets none.
        let below = if asked == Path::new(".") {
            PathBuf::new()
        } else {
            dir.canonicalize(&asked).map_err(|e| failed(&e))?
        };
        let place = if below.as_os_str().is_empty() { root.clone() } else { root.join(&below) };
        let mut tree = Self { dir, below, place, root, shown: path.to_owned(), files: Vec::new() };
        tree.list(selection, stop)?;
        Ok(tree)
    }

    fn list(&mut self, selection: &Selection, stop: &Stop) -> Result<(), StepError> {
        let exclude = globs(&selection.exclude)?;
        let above = self.ignored_above();
        let mut walk = WalkBuilder::new(&self.place);
        walk.hidden(!selection.include_hidden)
            .parents(false)
            .git_global(false)
            .require_git(false)
            .follow_links(false);
        walk.filter_entry(move |entry| {
            let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
            entry.file_name() != ".git"
                && !above.iter().any(|ignore| ignore.matched(entry.path(), is_dir).is_ignore())
        });
        for entry in walk.build() {
            if stop.is_set() {
                return Err(StepError::new(ErrorKind::Cancelled, "it was stopped"));
            }
            // A directory that may not be listed holds no files for us.
            let Ok(entry) = entry else { continue };
            let Ok(path) = entry.path().strip_prefix(&self.place) else { continue };
            let Some(path) = path.to_str().filter(|_| entry.file_type().is_some_and(|kind| kind.is_file()))
            else {
                continue;
            };
            if exclude.is_match(path) {
                continue;
            }
            // Asked through the capability: what was swapped for a link to elsewhere does not count.
            let Ok(meta) = self.dir.symlink_metadata(self.below.join(path)) else { continue };
            if !meta.is_file() {
                continue;
            }
            if self.files.len() == MOST {
                let message = format!("`{}` has more than {MOST} files", self.shown);
                return Err(StepError::new(ErrorKind::TooLarge, message)
                    .help("give the directory of one project, or leave files out with `exclude_patterns`"));
            }
            let modified = meta.modified().ok().and_then(|time| {
                let since = time.into_std().duration_since(std::time::UNIX_EPOCH).ok()?;
                i64::try_from(since.as_millis()).ok()
            });
            let language = Language::of(path);
            let role = language::role(path, language.map(|(l, _)| l));
            self.files.push(File { path: path.to_owned(), size: meta.len(), modified, language, role });
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    /// The ignore files of the repository around the codebase, as far as it may be read.
    fn ignored_above(&self) -> Vec<Gitignore> {
        let mut around = Vec::new();
        let mut at = self.below.as_path();
        while !self.dir.exists(at.join(".git")) {
            let Some(parent) = at.parent() else { return Vec::new() };
            around.push(parent.to_path_buf());
            at = parent;
        }
        let ignore = |dir: PathBuf| {
            let text = self.dir.read_to_string(dir.join(".gitignore")).ok()?;
            let mut builder = GitignoreBuilder::new(self.root.join(dir));
            for line in text.lines() {
                // A line that is no pattern is as if it were not there, as git has it.
                let _ = builder.add_line(None, line);
            }
            builder.build().ok()
        };
        around.into_iter().filter_map(ignore).collect()
    }

    /// The place of a file in [`Tree::files`]; `path` is meant below the codebase, or as the codebase was written.
    pub(super) fn find(&self, path: &str) -> Option<usize> {
        let clean = |path: &Path| crate::confine::lexical(path).to_str().map(str::to_owned);
        let at = |path: String| self.files.binary_search_by(|f| f.path.as_str().cmp(&path)).ok();
        let written = Path::new(path);
        at(clean(written)?).or_else(|| {
            let below = clean(written)?;
            let shown = clean(Path::new(&self.shown))?;
            at(Path::new(&below).strip_prefix(&shown).ok()?.to_str()?.to_owned())
        })
    }

    /// The file that a query names.
    ///
    /// # Errors
    /// `Invalid` when there is none, with the nearest name.
    pub(super) fn named(&self, path: &str) -> Result<usize, StepError> {
        self.find(path).ok_or_else(|| {
            let message = format!("there is no file `{path}` in `{}`", self.shown);
            let near = |f: &&File| strsim::normalized_levenshtein(&f.path, path);
            let best = self.files.iter().max_by(|a, b| near(a).total_cmp(&near(b)));
            let help = match best.filter(|f| near(f) > 0.6) {
                Some(file) => format!("did you mean `{}`?", file.path),
                None => {
                    "paths are meant below the directory of the codebase; files that are ignored do not count"
                        .to_owned()
                }
            };
            StepError::invalid(message).help(help)
        })
    }

    /// The text of a file.
    pub(super) fn read(&self, file: usize) -> Result<Vec<u8>, Unread> {
        let Some(file) = self.files.get(file) else {
            return Err(Unread::Failed(std::io::ErrorKind::NotFound.into()));
        };
        if file.size > LARGEST {
            return Err(Unread::TooLarge);
        }
        let mut text = Vec::with_capacity(usize::try_from(file.size).unwrap_or(0) + 1);
        let opened = self.dir.open(self.below.join(&file.path)).map_err(Unread::Failed)?;
        opened.take(LARGEST + 1).read_to_end(&mut text).map_err(Unread::Failed)?;
        if text.len() as u64 > LARGEST {
            return Err(Unread::TooLarge);
        }
        if text.iter().take(8192).any(|byte| *byte == 0) {
            return Err(Unread::Binary);
        }
        Ok(text)
    }

    /// The text of a file that is text.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.read(self.find(path)?).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A set of globs on paths; one without a `/` is meant for names in any directory.
///
/// # Errors
/// `Invalid` for what is no glob.
pub(super) fn globs(patterns: &[String]) -> Result<GlobSet, StepError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./");
        let anywhere = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
        set.add(glob(&anywhere)?);
        // A directory means all that is in it.
        set.add(glob(&format!("{}/**", anywhere.trim_end_matches('/')))?);
    }
    set.build().map_err(|error| StepError::invalid(format!("the patterns cannot be used: {error}")))
}

/// A glob whose `*` does not cross a `/`.
///
/// # Errors
/// `Invalid` for what is no glob.
pub(super) fn glob(pattern: &str) -> Result<Glob, StepError> {
    GlobBuilder::new(pattern).literal_separator(true).build().map_err(|error| {
        StepError::invalid(format!("the pattern `{pattern}` cannot be read: {}", error.kind()))
            .help("it is a glob: `*.py`, `src/**/*.{ts,tsx}`, `test_*`")
    })
}
