//! The journal file: reading it, telling a torn tail from damage, and adding to it.
//!
//! A torn tail is what a crash leaves of a write that was never acknowledged: an unterminated last line, zeros, or a last
//! line that does not check. Anything bad before the last line is damage, and nothing is guessed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pipeline_core::store::StoreError;

use crate::format::{FIRST, FORMAT, HEADER, decode, encode};

/// What a journal file holds.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The records' JSON, in order.
    pub(crate) records: Vec<String>,
    /// Checksum of the last line.
    pub(crate) last: u32,
    /// Epoch of the last line; 0 when there is none.
    pub(crate) epoch: u32,
    /// Bytes that are good.
    pub(crate) good: u64,
    /// What was found behind them.
    pub(crate) torn: Option<String>,
}

/// Reads a journal's bytes.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Contents, StoreError> {
    let damaged = |offset: usize, message: String| StoreError::Damaged {
        path: path.to_owned(),
        offset: offset as u64,
        message,
    };
    let start = header(path, bytes)?;
    let Some(start) = start else {
        // The process died before the first line was whole: nothing was ever acknowledged.
        let torn = (!bytes.is_empty()).then(|| format!("{} bytes of an unfinished first line", bytes.len()));
        return Ok(Contents { records: Vec::new(), last: FIRST, epoch: 0, good: 0, torn });
    };
    let mut contents =
        Contents { records: Vec::new(), last: FIRST, epoch: 0, good: start as u64, torn: None };
    let mut at = start;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            contents.torn = Some(format!("{} bytes of an unfinished record", rest.len()));
            break;
        };
        match decode(&rest[..end], contents.records.len() as u64, contents.last) {
            Ok(line) => {
                if line.epoch < contents.epoch {
                    return Err(damaged(at, "an older process wrote after a newer one".to_owned()));
                }
                contents.last = line.crc;
                contents.epoch = line.epoch;
                contents.records.push(line.json.to_owned());
                at += end + 1;
                contents.good = at as u64;
            }
            Err(message) => {
                let is_last = at + end + 1 == bytes.len();
                let is_zeros = rest.iter().all(|b| *b == 0);
                if is_last || is_zeros {
                    contents.torn = Some(format!("a last record that does not check: {message}"));
                    break;
                }
                return Err(damaged(at, message));
            }
        }
    }
    Ok(contents)
}

/// Length of the header; `None` when the file ends within it.
fn header(path: &Path, bytes: &[u8]) -> Result<Option<usize>, StoreError> {
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        let is_start = HEADER.as_bytes().starts_with(bytes) || bytes.iter().all(|b| *b == 0);
        if is_start {
            return Ok(None);
        }
        let message = "this is not a journal".to_owned();
        return Err(StoreError::Damaged { path: path.to_owned(), offset: 0, message });
    };
    let line = std::str::from_utf8(&bytes[..=end]).unwrap_or_default();
    if line == HEADER {
        return Ok(Some(HEADER.len()));
    }
    let version = line.strip_prefix("pipeline-journal ").and_then(|v| v.trim_end().parse::<u32>().ok());
    match version {
        Some(found) if found > FORMAT && line == format!("pipeline-journal {found}\n") => {
            Err(StoreError::Newer { path: path.to_owned(), found, supported: FORMAT })
        }
        _ => {
            let message = "its first line is not that of a journal".to_owned();
            Err(StoreError::Damaged { path: path.to_owned(), offset: 0, message })
        }
    }
}

/// Adds lines to a journal file.
#[derive(Debug)]
pub(crate) struct Writer<F = File> {
    file: F,
    path: PathBuf,
    epoch: u32,
    next: u64,
    last: u32,
    unwritten: Vec<u8>,
    poisoned: Option<String>,
}

/// A file as the writer needs it: tests put a faulty one here.
pub(crate) trait Sink: Send {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl<F: Sink> Writer<F> {
    pub(crate) fn new(file: F, path: PathBuf, epoch: u32, next: u64, last: u32) -> Self {
        Self { file, path, epoch, next, last, unwritten: Vec::new(), poisoned: None }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes a record; it is written by the next flush.
    pub(crate) fn append(&mut self, json: &str) -> Result<(), StoreError> {
        self.check()?;
        self.last = encode(&mut self.unwritten, self.next, self.epoch, self.last, json);
        self.next += 1;
        Ok(())
    }

    /// Writes and flushes everything taken. An error poisons the writer: a later success would prove nothing.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        self.check()?;
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.unwritten);
        let done = self.file.write_all(&bytes).and_then(|()| self.file.sync());
        done.map_err(|error| self.poison(&error))
    }

    pub(crate) fn poison(&mut self, error: &io::Error) -> StoreError {
        self.poisoned = Some(error.to_string());
        StoreError::Write { path: self.path.clone(), message: error.to_string() }
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.poisoned {
            Some(message) => Err(StoreError::Write {
                path: self.path.clone(),
                message: format!("an earlier write failed: {message}"),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
