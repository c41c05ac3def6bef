//! The ledger of an account in a file that processes share.
//!
//! Owns [`Shared`]. The file is locked for the time of one change, some microseconds; a file that cannot be read begins
//! anew, one that cannot be written makes the account one of this process alone. Must not know what the numbers mean.

use std::fs::{File, OpenOptions};
#[cfg(not(unix))]
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_core::value::Hash;

use crate::rate::ledger::Ledger;

/// How often a busy lock is tried, a fraction of a millisecond apart.
const TRIES: u32 = 40;

/// Bytes that a ledger takes, about.
const ROOM: usize = 1024;

/// Most blanks that are left behind a ledger. Its numbers have now more digits and now fewer, and a file that changes its length
/// each time costs as much as all the rest.
const BLANKS: usize = 256;

/// A ledger in a file.
pub(super) struct Shared {
    path: PathBuf,
    file: Option<File>,
    /// What the file held when it was last seen, or this process's own when there is no file.
    ledger: Ledger,
    /// The text of it in the file.
    text: Vec<u8>,
    is_alone: bool,
}

impl Shared {
    /// The ledger of the account `key` in `dir`.
    pub(super) fn new(dir: &Path, key: &str) -> Self {
        // The key may be any text.
        let path = dir.join(format!("{}.json", Hash::of(&key)));
        Self { path, file: None, ledger: Ledger::default(), text: Vec::new(), is_alone: false }
    }

    /// Does something to the ledger; `None` when another process holds it.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        if !self.is_alone && self.file.is_none() {
            self.file = open(&self.path).ok();
            self.is_alone = self.file.is_none();
        }
        let Some(file) = &self.file else { return Some(work(&mut self.ledger)) };
        if !locked(file) {
            return None;
        }
        let held = read(file).unwrap_or_default();
        if held != self.text {
            // Another process was here, or the file is new or damaged.
            self.ledger = serde_json::from_slice(&held).unwrap_or_default();
        }
        let result = work(&mut self.ledger);
        let mut text = serde_json::to_vec(&self.ledger).unwrap_or_default();
        if held.len() <= text.len() + BLANKS {
            text.resize(text.len().max(held.len()), b' ');
        }
        let is_there = text == held || write(file, &text, held.len()).is_ok();
        let _ = file.unlock();
        if is_there {
            self.text = text;
        } else {
            // What others find there is read as a new one.
            (self.file, self.is_alone) = (None, true);
        }
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

fn read(file: &File) -> std::io::Result<Vec<u8>> {
    let mut text = vec![0; ROOM];
    let mut length = 0;
    loop {
        match read_at(file, text.get_mut(length..).unwrap_or_default(), length)? {
            // Whole, when there was room for more.
            0 => break,
            read => length += read,
        }
        if length < text.len() {
            break;
        }
        text.resize(2 * length, 0);
    }
    text.truncate(length);
    Ok(text)
}

/// Writes the text in place of one that was so long.
fn write(file: &File, text: &[u8], earlier: usize) -> std::io::Result<()> {
    write_all(file, text)?;
    if text.len() < earlier {
        file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: usize) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, u64::try_from(at).unwrap_or(u64::MAX))
}

#[cfg(unix)]
fn write_all(file: &File, text: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, text, 0)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, buffer: &mut [u8], at: usize) -> std::io::Result<usize> {
    file.seek(SeekFrom::Start(u64::try_from(at).unwrap_or(u64::MAX)))?;
    file.read(buffer)
}

#[cfg(not(unix))]
fn write_all(mut file: &File, text: &[u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text)
}
