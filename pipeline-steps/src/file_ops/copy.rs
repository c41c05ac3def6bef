//! The operations `copy` and `stream_copy`, and the copying half of `move`: every file arrives whole, or nothing has changed.
//!
//! Owns [`Transaction`]: files are written beside their targets first and put into place together; whatever stops it before
//! its end, even a dropped future, puts back what was there. Must not know which step runs it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

#[cfg(unix)]
use cap_std::fs::MetadataExt;
use cap_std::fs::{Dir, File, OpenOptions};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::value::{Hash, Value};
use serde_json::json;

use super::select::{Pattern, is_glob, shown, split_glob, walk};
use super::{Config, Done, OneOrMany, Operation, missing, open, trouble};
use crate::confine::Roots;

/// Bytes that are copied before other tasks get their turn.
const CHUNK: usize = 1 << 20;

/// A file to copy.
pub(super) struct Source {
    pub(super) dir: Dir,
    pub(super) path: PathBuf,
    /// As people write it.
    pub(super) shown: String,
    /// Where it goes when the destination is a directory.
    below: PathBuf,
}

impl Source {
    /// Whether it lies where `path` of `dir` is.
    pub(super) fn is_same(&self, dir: &Dir, path: &Path) -> bool {
        match (self.dir.metadata(&self.path), dir.metadata(path)) {
            #[cfg(unix)]
            (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
            // Here files have no number to be told by: what looks the same is taken for the same.
            #[cfg(not(unix))]
            (Ok(a), Ok(b)) => {
                a.len() == b.len()
                    && a.modified().ok() == b.modified().ok()
                    && a.created().ok() == b.created().ok()
            }
            _ => false,
        }
    }
}

/// What `source` means.
pub(super) struct Sources {
    pub(super) files: Vec<Source>,
    /// They can be several, so the destination is a directory.
    are_several: bool,
    warnings: Vec<String>,
}

/// Copies that are written and not yet in place.
pub(super) struct Placed {
    pub(super) work: Transaction,
    /// Where each will lie.
    pub(super) files: Vec<(Dir, PathBuf)>,
    pub(super) value: Value,
    pub(super) warnings: Vec<String>,
}

/// Opens a file for reading. What is no plain file is refused at once: a FIFO would be waited for without an end.
pub(super) fn open_plain(dir: &Dir, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        cap_std::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    let file = dir.open_with(path, &options)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"))
}

/// Copies files.
pub(super) async fn copy(cx: &StepContext, config: &Config, operation: Operation) -> Result<Done, StepError> {
    let found = sources(cx, config, &Roots::read(cx), operation).await?;
    let placed = stage_all(cx, config, &found, operation).await?;
    placed.work.commit()?;
    Ok(Done { value: placed.value, warnings: placed.warnings })
}

/// The files that `source` means.
pub(super) async fn sources(
    cx: &StepContext,
    config: &Config,
    roots: &Roots,
    operation: Operation,
) -> Result<Sources, StepError> {
    let written = config.source.as_ref().ok_or_else(|| missing(operation, "source"))?;
    let are_several = matches!(written, OneOrMany::Many(_));
    let mut found = Sources { files: Vec::new(), are_several, warnings: Vec::new() };
    for text in written.texts() {
        find(cx, roots, text, config.recursive, &mut found).await?;
    }
    Ok(found)
}

/// Writes every copy beside its target.
pub(super) async fn stage_all(
    cx: &StepContext,
    config: &Config,
    found: &Sources,
    operation: Operation,
) -> Result<Placed, StepError> {
    let destination = config.destination.as_deref().ok_or_else(|| missing(operation, "destination"))?;
    let target = Path::new(destination);
    let (dir, base) = open(cx, &Roots::write(cx), target)?;
    let into_directory =
        found.are_several || destination.ends_with('/') || dir.metadata(&base).is_ok_and(|m| m.is_dir());
    let mut work =
        Transaction::new(dir.try_clone().map_err(|e| trouble("write", target, &e))?, &cx.idempotency_key());
    let (mut files, mut places) = (Vec::new(), Vec::new());
    for source in &found.files {
        let (path, name) = if into_directory {
            (base.join(&source.below), shown(target, &source.below))
        } else {
            (base.clone(), destination.to_owned())
        };
        let size = work.stage(source, &path, &name).await?;
        files.push(json!({"source": source.shown, "destination": name, "size": size}));
        places.push((dir.try_clone().map_err(|e| trouble("write", target, &e))?, path));
    }
    let count = files.len();
    let value = json!({
        "operation": operation.name(), "source": config.source, "destination": destination, "files": files,
        "count": count,
    });
    Ok(Placed { work, files: places, value, warnings: found.warnings.clone() })
}

/// Adds the files that a text means.
async fn find(
    cx: &StepContext,
    roots: &Roots,
    text: &str,
    recursive: bool,
    all: &mut Sources,
) -> Result<(), StepError> {
    let (base, pattern) = if is_glob(text) {
        split_glob(text)
    } else {
        let path = Path::new(text);
        let (dir, below) = open(cx, roots, path)?;
        let meta = dir.metadata(&below).map_err(|e| trouble("copy", path, &e))?;
        if meta.is_file() {
            let name = path.file_name().map(PathBuf::from).unwrap_or_default();
            all.files.push(Source { dir, path: below, shown: text.to_owned(), below: name });
            return Ok(());
        }
        if !(meta.is_dir() && recursive) {
            return Err(StepError::invalid(format!("`{text}` is not a file"))
                .help("copy a directory with `recursive: true`"));
        }
        (text, "**")
    };
    let found = walk(
        cx,
        roots,
        Path::new(base),
        &Pattern::new(pattern)?,
        pattern.contains("**") || pattern.contains('/'),
    )
    .await?;
    if found.files.is_empty() {
        return Err(StepError::new(ErrorKind::Environment, format!("`{text}` matches no file"))
            .help("check the spelling; relative paths start at the directory in which the run was started"));
    }
    all.warnings.extend(found.warnings);
    all.are_several = true;
    for (file, _) in found.files {
        let dir = found.dir.try_clone().map_err(|e| trouble("copy", Path::new(text), &e))?;
        let path = found.base.join(&file);
        all.files.push(Source { dir, path, shown: shown(Path::new(base), &file), below: file });
    }
    Ok(())
}

/// One file on its way.
struct Staged {
    target: PathBuf,
    shown: String,
    temp: PathBuf,
    /// What was there before, under another name.
    backup: Option<PathBuf>,
    is_placed: bool,
}

/// Files that are put into place together. Undone when it is dropped before [`Transaction::commit`] has succeeded.
pub(super) struct Transaction {
    dir: Dir,
    /// Part of the names of temporary files: the same in a repeated attempt, which so finds what a crash left.
    mark: String,
    staged: Vec<Staged>,
    made_dirs: Vec<PathBuf>,
    is_done: bool,
}

impl Transaction {
    pub(super) fn new(dir: Dir, key: &str) -> Self {
        let mark = Hash::of(&key).to_string()[..12].to_owned();
        Self { dir, mark, staged: Vec::new(), made_dirs: Vec::new(), is_done: false }
    }

    /// Writes a copy of `source` beside its target. Returns its size in bytes.
    async fn stage(&mut self, source: &Source, target: &Path, shown: &str) -> Result<u64, StepError> {
        let mut from = open_plain(&source.dir, &source.path)
            .map_err(|e| trouble("read", Path::new(&source.shown), &e))?;
        let mut to = self.begin(target, shown)?;
        let failed = |error: io::Error| trouble("write", Path::new(shown), &error);
        let size = pump(&mut from, &mut to, &source.shown, shown).await?;
        let permissions = from.metadata().map_err(failed)?.permissions();
        to.set_permissions(permissions).and_then(|()| to.sync_all()).map_err(failed)?;
        Ok(size)
    }

    /// A new file beside `target`, to be written and flushed before the commit.
    pub(super) fn begin(&mut self, target: &Path, shown: &str) -> Result<File, StepError> {
        if self.staged.iter().any(|s| s.target == target) {
            return Err(StepError::invalid(format!("two files would become `{shown}`"))
                .help("copy them to different directories"));
        }
        let failed = |error: io::Error| trouble("write", Path::new(shown), &error);
        if self.dir.metadata(target).is_ok_and(|m| m.is_dir()) {
            return Err(StepError::invalid(format!("`{shown}` is a directory"))
                .help("name the new file in `destination`"));
        }
        self.make_parents(target).map_err(failed)?;
        // Names have a limit of 255 bytes, which a long target already uses.
        let digest = Hash::of(&(&self.mark, target.to_string_lossy())).to_string();
        let beside = |what: &str| target.with_file_name(format!(".{}.{what}", &digest[..16]));
        let (temp, backup) = (beside("new"), beside("old"));
        // What a crash left, or what somebody put there: never written through.
        match self.dir.remove_file(&temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = self.dir.open_with(&temp, options.write(true).create_new(true)).map_err(failed)?;
        let backup = self.dir.symlink_metadata(target).is_ok().then_some(backup);
        let entry =
            Staged { target: target.to_owned(), shown: shown.to_owned(), temp, backup, is_placed: false };
        self.staged.push(entry);
        Ok(file)
    }

    fn make_parents(&mut self, target: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut parent = target.parent();
        while let Some(path) = parent.filter(|p| !p.as_os_str().is_empty()) {
            match self.dir.metadata(path) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(path.to_owned()),
                Err(error) => return Err(error),
            }
            parent = path.parent();
        }
        for path in missing.into_iter().rev() {
            self.dir.create_dir(&path)?;
            self.made_dirs.push(path);
        }
        Ok(())
    }

    /// Puts every staged file into place.
    pub(super) fn commit(mut self) -> Result<(), StepError> {
        for index in 0..self.staged.len() {
            let file = &self.staged[index];
            let failed = |error: io::Error| trouble("write", Path::new(&file.shown), &error);
            if let Some(backup) = &file.backup {
                keep(&self.dir, &file.target, backup).map_err(failed)?;
            }
            self.dir.rename(&file.temp, &self.dir, &file.target).map_err(failed)?;
            self.staged[index].is_placed = true;
        }
        self.is_done = true;
        for file in &self.staged {
            if let Some(backup) = &file.backup {
                // The copy is complete; a backup that stays behind does no harm.
                let _ = self.dir.remove_file(backup);
            }
            sync_parent(&self.dir, &file.target);
        }
        Ok(())
    }
}

/// Gives what is at `target` a second name, so that there is never a moment without a file.
fn keep(dir: &Dir, target: &Path, backup: &Path) -> io::Result<()> {
    match dir.remove_file(backup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match dir.hard_link(target, dir, backup) {
        Ok(()) => Ok(()),
        // Not every file system has links.
        Err(_) => dir.copy(target, dir, backup).map(|_| ()),
    }
}

/// Makes the new name durable where the system can; a file system that cannot flush directories orders names itself.
fn sync_parent(dir: &Dir, target: &Path) {
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = dir.open(parent) {
        let _ = folder.sync_all();
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // Nobody can be told from here; the error that led here has been, and each file left over is named after its target.
        for file in self.staged.iter().rev() {
            match (&file.backup, file.is_placed) {
                (Some(backup), true) => {
                    let _ = self.dir.rename(backup, &self.dir, &file.target);
                }
                (Some(backup), false) => {
                    let _ = self.dir.remove_file(backup);
                }
                (None, true) => {
                    let _ = self.dir.remove_file(&file.target);
                }
                (None, false) => {}
            }
            if !file.is_placed {
                let _ = self.dir.remove_file(&file.temp);
            }
        }
        for path in self.made_dirs.iter().rev() {
            let _ = self.dir.remove_dir(path);
        }
    }
}

/// Copies bytes, a chunk at a time.
async fn pump(from: &mut File, to: &mut File, source: &str, target: &str) -> Result<u64, StepError> {
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(trouble("read", Path::new(source), &error)),
        };
        to.write_all(&buffer[..count]).map_err(|e| trouble("write", Path::new(target), &e))?;
        size += count as u64;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use cap_std::ambient_authority;

    use super::*;

    fn names(dir: &Dir) -> Vec<String> {
        let entries = dir.entries().unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn staged(dir: &Dir, targets: &[&str]) -> Transaction {
        let mut work = Transaction::new(dir.try_clone().unwrap(), "run/copy/1");
        for target in targets {
            let (path, below) = (PathBuf::from("source"), PathBuf::new());
            let source = Source { dir: dir.try_clone().unwrap(), path, shown: "source".to_owned(), below };
            work.stage(&source, Path::new(target), target).await.unwrap();
        }
        work
    }

    #[tokio::test]
    async fn a_copy_that_fails_halfway_puts_back_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(home.path(), ambient_authority()).unwrap();
        dir.write("source", "new").unwrap();
        dir.write("a", "old").unwrap();
        let work = staged(&dir, &["a", "b", "c"]).await;
        // Somebody makes a directory where the third file should go, so the third rename fails.
        dir.create_dir("c").unwrap();
        let error = work.commit().unwrap_err();
        assert!(error.message.contains("`c`"), "{error}");
        assert_eq!(names(&dir), ["a", "c", "source"]);
        assert_eq!(dir.read_to_string("a").unwrap(), "old");
    }

    #[tokio::test]
    async fn a_copy_that_is_dropped_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(home.path(), ambient_authority()).unwrap();
        dir.write("source", "new").unwrap();
        dir.write("a", "old").unwrap();
        let work = staged(&dir, &["a", "deep/er/b"]).await;
        assert_eq!(dir.read_to_string("a").unwrap(), "old", "nothing is in place before the commit");
        drop(work);
        assert_eq!(names(&dir), ["a", "source"]);
    }

    #[tokio::test]
    async fn what_a_crash_left_does_not_stop_the_next_attempt() {
        let home = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(home.path(), ambient_authority()).unwrap();
        dir.write("source", "new").unwrap();
        dir.write("a", "old").unwrap();
        let crashed = staged(&dir, &["a"]).await;
        dir.write(crashed.staged[0].backup.as_ref().unwrap(), "older").unwrap();
        std::mem::forget(crashed);
        staged(&dir, &["a"]).await.commit().unwrap();
        assert_eq!(names(&dir), ["a", "source"]);
        assert_eq!(dir.read_to_string("a").unwrap(), "new");
    }
}
