//! The few file operations everything here is made of.
//!
//! Owns private directories and files (0700, 0600), the atomic replacement of a file, and the words for an error of the
//! system. Must not know what the files mean.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use pipeline_core::planted::{Bug, planted};
use pipeline_core::store::StoreError;

/// Prefix of files that are being written; whatever bears it may be deleted when nobody holds the run.
const UNFINISHED: &str = ".tmp-";

/// An error of writing `path`.
pub(crate) fn write_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Write { path: path.to_owned(), message: error.to_string() }
}

/// An error of using the directory `path`.
pub(crate) fn directory_error(path: &Path, error: &io::Error) -> StoreError {
    // The number of the error is for programs.
    let message = error.to_string();
    let message = message.split(" (os error").next().unwrap_or_default();
    StoreError::Directory { path: path.to_owned(), message: message.to_owned() }
}

/// What is wrong with a file as a whole.
pub(crate) fn damaged(path: &Path, message: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), offset: 0, message: message.into() }
}

/// A file whose lock is given back when this is dropped.
///
/// Closing the file is not enough: a process that another thread is just starting has a copy of every open file until its
/// program begins, and the system's lock stays until the last copy is closed.
pub(crate) struct Locked(File);

impl Locked {
    /// Locks `file` for one alone.
    pub(crate) fn alone(file: File) -> Result<Self, (File, TryLockError)> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(_) if planted(Bug::NoOwner) => Ok(Self(file)),
            Err(error) => Err((file, error)),
        }
    }

    /// Locks `file` together with others that share it.
    pub(crate) fn shared(file: File) -> Result<Self, (File, TryLockError)> {
        match file.try_lock_shared() {
            Ok(()) => Ok(Self(file)),
            Err(error) => Err((file, error)),
        }
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // What cannot be unlocked is unlocked when it is closed.
        let _ = self.0.unlock();
    }
}

/// Makes one directory that its owner alone can read, durably. Fails when there is anything of that name.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no modes to set"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    sync_dir(parent(path))
}

/// Makes `path` and every directory above it that is missing. Many processes may do so at once.
pub(crate) fn create_shared_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if above != path && !above.is_dir() {
        create_shared_dir(above)?;
    }
    match create_dir(path) {
        // Somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

/// Makes the names in a directory durable: a renamed file is there after a power cut only if its directory is.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a file so that it is there in full or not at all: unique temporary name, fsync, rename. The directory itself is
/// not yet synced, so that many files can share one [`sync_dir`].
pub(crate) fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Created with mode 0600 and removed again on every way out but the last.
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(parent(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|refused| refused.error)?;
    Ok(())
}

/// [`place`], and durable under its name.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    place(path, bytes)?;
    sync_dir(parent(path))
}

/// The whole file, or `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(directory_error(path, &error)),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_file_that_cannot_be_placed_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_is_missing_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("missing")).unwrap().is_none());
        assert!(read(dir.path()).is_err(), "a directory has no bytes");
        assert!(sync_dir(&dir.path().join("missing")).is_err());
        assert!(sync_dir(dir.path()).is_ok());
    }

    #[test]
    fn a_bare_name_is_in_the_current_directory() {
        assert_eq!(parent(Path::new("name")), Path::new("."));
        assert_eq!(parent(Path::new("a/name")), Path::new("a"));
        assert_eq!(parent(Path::new("/")), Path::new("/"));
        assert!(
            create_shared_dir(Path::new("")).is_err(),
            "no name at all is an error, and not a search without end"
        );
    }

    #[test]
    fn shared_directories_may_exist_but_a_file_in_their_place_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_shared_dir(&deep).unwrap();
        create_shared_dir(&deep).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(create_shared_dir(&file).is_err());
        assert!(create_dir(&deep).is_err());
    }
}
