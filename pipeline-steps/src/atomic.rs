//! Files that are there whole, or not at all.
//!
//! Owns the one way in which this crate writes a file: a temporary file in the same directory, flushed to the disk,
//! renamed over the target, and the directory flushed. Must not know what is written or who may write where.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, OpenOptions};
use tokio::io::AsyncWriteExt;

/// Numbers temporary files of this process; uniqueness between processes comes from `create_new`.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `relative` below `dir`, making its parents. When it returns, the file is durable.
///
/// A reader sees the old file or the new one, never a part. When it fails, or its future is dropped, the old file
/// stays and the temporary one is removed.
///
/// # Errors
/// The system's; `PermissionDenied` without a number of the system when the path would leave `dir`, `InvalidInput` when
/// it names no file.
pub async fn write(dir: &Dir, relative: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = relative.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end with the name of a file")
    })?;
    let parent = match relative.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            match dir.create_dir_all(parent) {
                // A link or a file is in the way: opening it tells which, and whether it leads out.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => dir.open_dir(parent)?,
            }
        }
        _ => dir.try_clone()?,
    };
    if parent.metadata(name).is_ok_and(|m| m.is_dir()) {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "there is a directory of this name"));
    }
    let (temporary, file) = create(parent)?;
    let mut file = tokio::fs::File::from_std(file);
    file.write_all(bytes).await?;
    file.flush().await?;
    file.sync_all().await?;
    let parent = temporary.rename(Path::new(name))?;
    // The rename itself must survive a power cut too. The handle of a `Dir` is for looking up only: it cannot be
    // flushed, so the directory is opened again.
    tokio::fs::File::from_std(parent.open(".")?.into_std()).sync_all().await
}

fn create(dir: Dir) -> io::Result<(Temporary, std::fs::File)> {
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Names have a limit of 255 bytes, which a long target already uses: the temporary one does not repeat it.
        let temporary = PathBuf::from(format!(".partial-{}-{number}", std::process::id()));
        match dir.open_with(&temporary, OpenOptions::new().write(true).create_new(true)) {
            Ok(file) => return Ok((Temporary { dir: Some(dir), name: temporary }, file.into_std())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// A temporary file, removed when it is dropped before it was renamed.
struct Temporary {
    dir: Option<Dir>,
    name: PathBuf,
}

impl Temporary {
    fn rename(mut self, target: &Path) -> io::Result<Dir> {
        let Some(dir) = self.dir.take() else {
            return Err(io::Error::other("the temporary file is gone"));
        };
        if let Err(error) = dir.rename(&self.name, &dir, target) {
            self.dir = Some(dir);
            return Err(error);
        }
        Ok(dir)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            // The error that got us here is on its way to a person; a leftover is hidden and harmless.
            let _ = dir.remove_file(&self.name);
        }
    }
}
