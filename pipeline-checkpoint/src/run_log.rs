//! The owner's log of one run: records in, lines and blobs out.

use std::path::PathBuf;

use async_trait::async_trait;
use pipeline_core::clock::Timestamp;
use pipeline_core::fact::{Fact, Record};
use pipeline_core::store::{RunLog, StoreError};

use crate::blobs::{self, Blob};
use crate::journal::Writer;
use crate::lock::RunLock;

/// See [`RunLog`]. A flush is one write and one fdatasync, made on the calling thread: it is what the caller waits for.
pub(crate) struct FileLog {
    pub(crate) writer: Writer,
    pub(crate) blobs: PathBuf,
    pub(crate) pending: Vec<Blob>,
    pub(crate) _lock: RunLock,
}

#[async_trait]
impl RunLog for FileLog {
    fn append(
        &mut self,
        at: Timestamp,
        elapsed_ms: u64,
        facts: Vec<Fact>,
    ) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::with_capacity(facts.len());
        for fact in facts {
            let record = Record { index: self.writer.next(), at, elapsed_ms, fact };
            let json = serde_json::to_string(&record).map_err(|e| self.writer.poison(&e.into()))?;
            let (json, large) = blobs::split(json);
            self.pending.extend(large);
            self.writer.append(&json)?;
            records.push(record);
        }
        Ok(records)
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        for blob in std::mem::take(&mut self.pending) {
            blobs::write(&self.blobs, &blob).map_err(|e| self.writer.poison(&e))?;
        }
        self.writer.flush()
    }
}
