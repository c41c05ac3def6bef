//! The operations `move` and `delete`: all of it, or nothing has changed.
//!
//! Owns [`Hidden`]: what is to go is first renamed beside its place, all of it, and put back if anything fails before the
//! end. Must not know how copies are made (`copy.rs`).

use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::value::Hash;
use serde_json::json;

use super::copy::{Placed, sources, stage_all};
use super::select::{Pattern, is_glob, shown, split_glob, walk};
use super::{Config, Done, Operation, missing, open, trouble};
use crate::confine::Roots;

/// Files and directories that are out of the way, and come back when this is dropped before [`Hidden::finish`].
#[derive(Default)]
struct Hidden {
    moved: Vec<(Dir, PathBuf, PathBuf)>,
    is_done: bool,
}

impl Hidden {
    /// Renames it beside its place.
    fn hide(&mut self, dir: Dir, path: &Path, mark: &str) -> io::Result<()> {
        if path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no name"));
        }
        let digest = Hash::of(&(mark, path.to_string_lossy())).to_string();
        let away = path.with_file_name(format!(".gone-{}", &digest[..16]));
        // What a crash left of an earlier try is not wanted any more.
        discard(&dir, &away)?;
        dir.rename(path, &dir, &away)?;
        self.moved.push((dir, path.to_owned(), away));
        Ok(())
    }

    /// Removes what was hidden. From here on nothing comes back.
    fn finish(mut self) -> Vec<String> {
        self.is_done = true;
        let mut warnings = Vec::new();
        for (dir, path, away) in &self.moved {
            if let Err(error) = discard(dir, away) {
                warnings.push(format!(
                    "`{}` is gone, but its remains `{}` stay: {error}",
                    path.display(),
                    away.display()
                ));
            }
        }
        warnings
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        for (dir, path, away) in self.moved.iter().rev() {
            // The error that led here is on its way to a person.
            let _ = dir.rename(away, dir, path);
        }
    }
}

fn discard(dir: &Dir, path: &Path) -> io::Result<()> {
    match dir.symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => dir.remove_dir_all(path),
        Ok(_) => dir.remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Moves files: copies them, and takes the originals away.
pub(super) async fn relocate(cx: &StepContext, config: &Config) -> Result<Done, StepError> {
    // What is moved away is changed where it was.
    let found = sources(cx, config, &Roots::write(cx), Operation::Move).await?;
    let Placed { work, files, value, warnings } = stage_all(cx, config, &found, Operation::Move).await?;
    let mut hidden = Hidden::default();
    for (source, (target_dir, target)) in found.files.iter().zip(&files) {
        let same = source.is_same(target_dir, target);
        if same {
            return Err(StepError::invalid(format!("`{}` would be moved onto itself", source.shown)));
        }
        let dir = source.dir.try_clone().map_err(|e| trouble("move", Path::new(&source.shown), &e))?;
        hidden
            .hide(dir, &source.path, &cx.idempotency_key())
            .map_err(|e| trouble("move", Path::new(&source.shown), &e))?;
    }
    work.commit()?;
    let mut warnings = warnings;
    warnings.extend(hidden.finish());
    Ok(Done { value, warnings })
}

/// Deletes files, links and, with `recursive`, directories.
pub(super) async fn delete(cx: &StepContext, config: &Config) -> Result<Done, StepError> {
    let texts = config.path.as_ref().ok_or_else(|| missing(Operation::Delete, "path"))?.texts();
    let roots = Roots::write(cx);
    let mut hidden = Hidden::default();
    let mut deleted = Vec::new();
    let mut warnings = Vec::new();
    for text in texts {
        let path = Path::new(text);
        let failed = |error: &io::Error| trouble("delete", path, error);
        if is_glob(text) {
            let (base, pattern) = split_glob(text);
            let recursive = pattern.contains("**") || pattern.contains('/');
            let found = walk(cx, &roots, Path::new(base), &Pattern::new(pattern)?, recursive).await?;
            warnings.extend(found.warnings);
            for (file, _) in found.files {
                let dir = found.dir.try_clone().map_err(|e| failed(&e))?;
                hidden.hide(dir, &found.base.join(&file), &cx.idempotency_key()).map_err(|e| failed(&e))?;
                deleted.push(shown(Path::new(base), &file));
            }
            continue;
        }
        let (dir, below) = open(cx, &roots, path)?;
        if below == Path::new(".") {
            return Err(StepError::new(
                ErrorKind::Denied,
                format!("`{text}` is a directory that the run works in"),
            )
            .help("delete what is in it: `DIR/**`"));
        }
        match dir.symlink_metadata(&below) {
            Ok(meta) if meta.is_dir() && !config.recursive => {
                let is_empty = dir.read_dir(&below).map_err(|e| failed(&e))?.next().is_none();
                if !is_empty {
                    return Err(StepError::invalid(format!("`{text}` is a directory with files in it"))
                        .help("delete it with all that is in it: `recursive: true`"));
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && config.missing_ok => continue,
            Err(error) => return Err(failed(&error)),
        }
        hidden.hide(dir, &below, &cx.idempotency_key()).map_err(|e| failed(&e))?;
        deleted.push(text.to_owned());
    }
    warnings.extend(hidden.finish());
    let count = deleted.len();
    let value = json!({"operation": "delete", "path": config.path, "files": deleted, "count": count});
    Ok(Done { value, warnings })
}
