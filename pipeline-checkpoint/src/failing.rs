//! A disk that fails on purpose, so that whoever has a pipeline can see what becomes of it then.
//!
//! Owns [`Failing`]: which operation of a journal fails first, and that it was met. From there on all fail, as on a disk that is
//! full. Must not know what the journal holds.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use pipeline_core::store::StoreError;
use pipeline_core::value::Hash;

use crate::disk;
use crate::journal::Sink;

/// The file in a run's directory which says that its disk has failed.
pub(crate) const MARK: &str = "disk-failed";

/// The sink of a journal whose disk fails.
pub(crate) struct Failing {
    file: File,
    /// Operations that still succeed.
    left: u64,
    mark: PathBuf,
}

impl Failing {
    /// The first operation on `file` that fails has the number `first`, from 1; the run is in `dir`.
    pub(crate) fn new(file: File, first: u64, dir: &Path) -> Self {
        Self { file, left: first.saturating_sub(1), mark: dir.join(MARK) }
    }

    /// One operation more.
    fn operate(&mut self) -> io::Result<()> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Ok(());
        }
        fs::write(&self.mark, "")?;
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl Sink for Failing {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let done = self.operate();
        // What still found room is there.
        let part = if done.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.file.write_all(part)?;
        done
    }

    fn sync(&mut self) -> io::Result<()> {
        self.operate()?;
        self.file.sync()
    }

    fn place(&mut self, dir: &Path, hash: Hash, bytes: &[u8]) -> Result<(), StoreError> {
        self.operate().map_err(|error| disk::write_error(dir, &error))?;
        self.file.place(dir, hash, bytes)
    }

    fn sync_names(&mut self, dir: &Path) -> Result<(), StoreError> {
        self.operate().map_err(|error| disk::write_error(dir, &error))?;
        self.file.sync_names(dir)
    }
}
