//! The journal that is being written.
//!
//! Owns [`FileLog`]: records are made in memory and written by one `write` and one `fdatasync` for all that were appended
//! together. Any error of either ends the log for good: after a failed flush a later one proves nothing.
//! Must not know directories of runs. Reading: `scan.rs`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use pipeline_core::clock::Timestamp;
use pipeline_core::fact::{Fact, Record};
use pipeline_core::store::{RunLog, StoreError};
use pipeline_core::value::Hash;

use crate::blob;
use crate::disk;
use crate::line;
use crate::lock::RunLock;
use crate::scan::{End, EntryRef};

/// Most bytes of buffer that are kept for the next batch.
const KEPT_BUFFER: usize = 1 << 20;

/// Where a journal's bytes go. A file, except where a test lets it fail.
pub(crate) trait Sink: Send {
    fn length(&self) -> io::Result<u64>;
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The facts of one run, on disk.
pub(crate) struct FileLog {
    path: PathBuf,
    blob_dir: PathBuf,
    sink: Box<dyn Sink>,
    /// Where the next record goes, pending ones counted; `length` is of what is written.
    end: End,
    pending: Vec<u8>,
    pending_blobs: Vec<(Hash, Vec<u8>)>,
    /// The first error of writing.
    poison: Option<String>,
    lock: RunLock,
}

impl FileLog {
    /// Goes on at `end` in the journal at `path`, which `sink` appends to.
    pub(crate) fn new(
        path: PathBuf,
        blob_dir: PathBuf,
        sink: Box<dyn Sink>,
        end: End,
        lock: RunLock,
    ) -> Self {
        Self { path, blob_dir, sink, end, pending: Vec::new(), pending_blobs: Vec::new(), poison: None, lock }
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.poison {
            None => Ok(()),
            Some(first) => Err(self.refuse(format!(
                "an earlier write failed ({first}), so nothing more is written; make room or repair the disk, then resume the run"
            ))),
        }
    }

    fn refuse(&self, message: impl Into<String>) -> StoreError {
        StoreError::Write { path: self.path.clone(), message: message.into() }
    }

    fn write_out(&mut self) -> Result<(), StoreError> {
        if !self.pending_blobs.is_empty() {
            for (hash, bytes) in &self.pending_blobs {
                blob::write(&self.blob_dir, *hash, bytes)?;
            }
            disk::sync_dir(&self.blob_dir).map_err(|error| disk::write_error(&self.blob_dir, &error))?;
        }
        let path = &self.path;
        let refused = |error: io::Error| disk::write_error(path, &error);
        let found = self.sink.length().map_err(refused)?;
        if found != self.end.length {
            return Err(self.refuse(format!(
                "it has {found} bytes where this process left {}: somebody else writes to it",
                self.end.length
            )));
        }
        self.sink.write_all(&self.pending).map_err(refused)?;
        self.sink.sync().map_err(refused)
    }
}

#[async_trait]
impl RunLog for FileLog {
    fn append(
        &mut self,
        at: Timestamp,
        elapsed_ms: u64,
        facts: Vec<Fact>,
    ) -> Result<Vec<Record>, StoreError> {
        self.check()?;
        let (kept, kept_blobs, mut end) = (self.pending.len(), self.pending_blobs.len(), self.end);
        let mut records = Vec::with_capacity(facts.len());
        for fact in facts {
            let record = Record { index: end.seq, at, elapsed_ms, fact };
            match encode(&record, end, self.lock.epoch(), &mut self.pending, &mut self.pending_blobs) {
                Ok(crc) => end = End { crc, seq: end.seq + 1, ..end },
                Err(message) => {
                    // All facts of a call are appended or none.
                    self.pending.truncate(kept);
                    self.pending_blobs.truncate(kept_blobs);
                    return Err(self.refuse(format!("record {} cannot be stored: {message}", record.index)));
                }
            }
            records.push(record);
        }
        self.end = end;
        Ok(records)
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.check()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write_out() {
            self.poison = Some(error.to_string());
            self.pending = Vec::new();
            self.pending_blobs = Vec::new();
            return Err(error);
        }
        self.end.length += self.pending.len() as u64;
        self.pending.clear();
        self.pending.shrink_to(KEPT_BUFFER);
        self.pending_blobs.clear();
        Ok(())
    }
}

fn encode(
    record: &Record,
    end: End,
    epoch: u64,
    out: &mut Vec<u8>,
    blobs: &mut Vec<(Hash, Vec<u8>)>,
) -> Result<u32, String> {
    let mut stored = record.clone();
    let names = blob::take_out(&mut stored.fact, blobs)?;
    let payload = serde_json::to_vec(&EntryRef { record: &stored, blobs: &names })
        .map_err(|error| error.to_string())?;
    line::encode(out, end.crc, record.index, epoch, &payload).ok_or_else(|| "it is 4 GiB or more".to_owned())
}

/// Opens a journal for appending.
pub(crate) fn open(path: &Path) -> Result<File, StoreError> {
    File::options().append(true).open(path).map_err(|error| disk::write_error(path, &error))
}
