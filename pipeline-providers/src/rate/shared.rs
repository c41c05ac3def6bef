//! The ledger of an account in a file that processes share.
//!
//! Owns [`Shared`]. The file is locked for the time of one change, some microseconds; a file that cannot be read begins
//! anew, one that cannot be written makes the account one of this process alone. Must not know what the numbers mean.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_core::value::Hash;

use crate::rate::ledger::Ledger;

/// How often a busy lock is tried, a fraction of a millisecond apart.
const TRIES: u32 = 40;

/// A ledger in a file.
pub(super) struct Shared {
    path: PathBuf,
    file: Option<File>,
    /// Used when there is no file.
    own: Ledger,
    is_alone: bool,
}

impl Shared {
    /// The ledger of the account `key` in `dir`.
    pub(super) fn new(dir: &Path, key: &str) -> Self {
        // The key may be any text.
        let path = dir.join(format!("{}.json", Hash::of(&key)));
        Self { path, file: None, own: Ledger::default(), is_alone: false }
    }

    /// Does something to the ledger; `None` when another process holds it.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        if !self.is_alone && self.file.is_none() {
            self.file = open(&self.path).ok();
            self.is_alone = self.file.is_none();
        }
        let Some(file) = &mut self.file else { return Some(work(&mut self.own)) };
        if !locked(file) {
            return None;
        }
        let mut ledger = read(file).unwrap_or_default();
        let before = ledger.clone();
        let result = work(&mut ledger);
        if ledger != before {
            // A file that is cut short is read as a new one.
            let _ = write(file, &ledger);
        }
        let _ = file.unlock();
        Some(result)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut builder = std::fs::DirBuilder::new();
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    if let Some(dir) = path.parent() {
        builder.recursive(true).create(dir)?;
    }
    options.read(true).write(true).create(true).truncate(false).open(path)
}

fn locked(file: &File) -> bool {
    for _ in 0..TRIES {
        if file.try_lock().is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    false
}

fn read(file: &mut File) -> Option<Ledger> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write(file: &mut File, ledger: &Ledger) -> std::io::Result<()> {
    let text = serde_json::to_vec(ledger)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
}
