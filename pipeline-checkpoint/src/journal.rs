//! The journal that is being written.
//!
//! Owns [`FileLog`]: all records that were appended together are written by one `write` and one `fdatasync`, in a blocking
//! task, so that more are appended while those are on their way. Any error of either ends the log for good: after a failed flush a later one proves nothing.
//! Must not know directories of runs. Reading: `scan.rs`.

#[cfg(all(test, shuttle))]
mod models;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline_core::clock::Timestamp;
use pipeline_core::fact::{Fact, Record};
use pipeline_core::planted::{Bug, planted};
use pipeline_core::store::{Commit, RunLog, StoreError};
use pipeline_core::sync::Mutex;
use pipeline_core::value::Hash;

use crate::blob::{self, Names};
use crate::disk;
use crate::line;
use crate::lock::RunLock;
use crate::scan::{End, EntryRef};

/// Where a journal's bytes go. A file, except where a test lets it fail.
pub(crate) trait Sink: Send {
    fn length(&self) -> io::Result<u64>;
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;

    /// Writes a blob in full under its name, unless it is there.
    fn place(&mut self, dir: &Path, hash: Hash, bytes: &[u8]) -> Result<(), StoreError> {
        blob::write(dir, hash, bytes)
    }

    /// Makes the names of blobs durable.
    fn sync_names(&mut self, dir: &Path) -> Result<(), StoreError> {
        disk::sync_dir(dir).map_err(|error| disk::write_error(dir, &error))
    }
}

/// What a write does, once it is its turn.
pub(crate) type Work = Box<dyn FnOnce() -> Result<(), StoreError> + Send>;

/// Who does it while the run goes on: a thread for blocking work, except where a test has time of its own.
pub(crate) type Hand = Arc<dyn Fn(Work) -> Commit + Send + Sync>;

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
    writer: Arc<Writer>,
    hand: Hand,
    /// Position of the next record.
    next: u64,
    pending: Vec<Arc<Record>>,
}

/// What a write needs that is on its way. It keeps the run's lock: nobody else may write before it has ended.
struct Writer {
    path: PathBuf,
    blob_dir: PathBuf,
    lock: RunLock,
    /// What is to be written next. Whoever comes first writes for those who came before.
    queue: Mutex<Vec<Arc<Record>>>,
    sink: Mutex<Written>,
    /// The first error of writing.
    poison: Mutex<Option<String>>,
}

/// The file, and how this process left it.
struct Written {
    sink: Box<dyn Sink>,
    end: End,
    buffers: Buffers,
}

/// Kept from one write to the next: memory that is new each time costs more than what is written into it.
#[derive(Default)]
struct Buffers {
    lines: Vec<u8>,
    payload: Vec<u8>,
}

/// Most bytes of a buffer that are kept.
const KEPT: usize = 1 << 20;

impl Buffers {
    /// Empties them, and gives back what only a large batch needed.
    fn clear(&mut self) {
        for buffer in [&mut self.lines, &mut self.payload] {
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
    }
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
        let next = end.seq;
        let sink = Mutex::new(Written { sink, end, buffers: Buffers::default() });
        let (queue, poison) = (Mutex::default(), Mutex::default());
        let writer = Arc::new(Writer { path, blob_dir, lock, queue, sink, poison });
        let path = writer.path.clone();
        let hand: Hand = Arc::new(move |work| in_a_thread(work, path.clone()));
        Self { writer, hand, next, pending: Vec::new() }
    }

    /// With another hand.
    #[cfg(test)]
    pub(crate) fn by(mut self, hand: Hand) -> Self {
        self.hand = hand;
        self
    }
}

impl Writer {
    fn check(&self) -> Result<(), StoreError> {
        match &*self.poison.lock() {
            None => Ok(()),
            Some(first) => Err(self.refuse(format!(
                "an earlier write failed ({first}), so nothing more is written; make room or repair the disk, then resume the run"
            ))),
        }
    }

    fn refuse(&self, message: impl Into<String>) -> StoreError {
        StoreError::Write { path: self.path.clone(), message: message.into() }
    }

    /// Writes everything that is queued. Blocks on the disk.
    fn write(&self) -> Result<(), StoreError> {
        let mut written = self.sink.lock();
        self.check()?;
        let records = std::mem::take(&mut *self.queue.lock());
        if records.is_empty() {
            return Ok(());
        }
        let outcome = self.write_out(&mut written, records);
        written.buffers.clear();
        outcome.inspect_err(|error| *self.poison.lock() = Some(error.to_string()))
    }

    fn write_out(&self, written: &mut Written, records: Vec<Arc<Record>>) -> Result<(), StoreError> {
        let (mut blobs, mut end) = (Vec::new(), written.end);
        for record in records {
            let index = record.index;
            let crc = encode(&record, end, self.lock.epoch(), &mut written.buffers, &mut blobs)
                .map_err(|message| self.refuse(format!("record {index} cannot be stored: {message}")))?;
            end = End { crc, seq: end.seq + 1, ..end };
        }
        if !blobs.is_empty() {
            for (hash, bytes) in &blobs {
                written.sink.place(&self.blob_dir, *hash, bytes)?;
            }
            written.sink.sync_names(&self.blob_dir)?;
        }
        let refused = |error: io::Error| disk::write_error(&self.path, &error);
        let found = written.sink.length().map_err(refused)?;
        if found != end.length && !planted(Bug::NoOwner) {
            return Err(self.refuse(format!(
                "it has {found} bytes where this process left {}: somebody else writes to it",
                end.length
            )));
        }
        let lines = &written.buffers.lines;
        written.sink.write_all(lines).map_err(refused)?;
        let flushed = if planted(Bug::SkipFlush) { Ok(()) } else { written.sink.sync() };
        match flushed {
            Err(_) if planted(Bug::RetryFlush) => written.sink.sync(),
            flushed => flushed,
        }
        .map_err(refused)?;
        written.end = End { length: end.length + lines.len() as u64, ..end };
        Ok(())
    }
}

impl RunLog for FileLog {
    fn append(
        &mut self,
        at: Timestamp,
        elapsed_ms: u64,
        mut facts: Vec<Fact>,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        self.writer.check()?;
        // All facts of a call are appended or none.
        for (index, fact) in (self.next..).zip(&mut facts) {
            blob::check(fact).map_err(|message| {
                self.writer.refuse(format!("record {index} cannot be stored: {message}"))
            })?;
        }
        let records = Record::numbered(self.next, at, elapsed_ms, facts);
        self.next += records.len() as u64;
        self.pending.extend_from_slice(&records);
        Ok(records)
    }

    fn commit(&mut self) -> Commit {
        self.writer.queue.lock().append(&mut self.pending);
        let writer = Arc::clone(&self.writer);
        let writing = (self.hand)(Box::new(move || {
            if planted(Bug::AckBeforeWrite) {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            writer.write()
        }));
        if planted(Bug::AckBeforeWrite) {
            return Box::pin(std::future::ready(Ok(())));
        }
        writing
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the journal must not wait for a place behind the work of steps"
)]
fn in_a_thread(work: Work, path: PathBuf) -> Commit {
    let writing = tokio::task::spawn_blocking(work);
    Box::pin(async move {
        writing.await.unwrap_or_else(|error| {
            let message = format!("it was not written: {error}");
            Err(StoreError::Write { path, message })
        })
    })
}

fn encode(
    record: &Record,
    end: End,
    epoch: u64,
    Buffers { lines, payload }: &mut Buffers,
    blobs: &mut Vec<(Hash, Vec<u8>)>,
) -> Result<u32, String> {
    // Nearly all records are small, and what is large is not written twice.
    payload.clear();
    let small = EntryRef { record, blobs: &Names::new() };
    let is_small = serde_json::to_writer(blob::Inline(payload), &small).is_ok() && blob::is_flat(payload);
    if !is_small {
        let mut rest = record.clone();
        let names = blob::take_out(&mut rest.fact, blobs)?;
        payload.clear();
        serde_json::to_writer(&mut *payload, &EntryRef { record: &rest, blobs: &names })
            .map_err(|error| error.to_string())?;
    }
    line::encode(lines, end.crc, end.seq, epoch, payload).ok_or_else(|| "it is 4 GiB or more".to_owned())
}

/// Opens a journal for appending.
pub(crate) fn open(path: &Path) -> Result<File, StoreError> {
    File::options().append(true).open(path).map_err(|error| disk::write_error(path, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pipeline_core::conformance::store::effect;
    use serde_json::json;

    use super::*;
    use crate::line::Head;
    use crate::scan;

    /// A disk with room for a number of bytes, whose flushes may fail.
    struct Disk {
        file: File,
        room: usize,
        good_syncs: usize,
        writes: Arc<AtomicUsize>,
    }

    impl Sink for Disk {
        fn length(&self) -> io::Result<u64> {
            self.file.length()
        }

        fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            let fits = bytes.len().min(self.room);
            self.room -= fits;
            Write::write_all(&mut self.file, &bytes[..fits])?;
            if fits == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn sync(&mut self) -> io::Result<()> {
            self.good_syncs = self.good_syncs.checked_sub(1).ok_or_else(|| io::Error::other("EIO"))?;
            Ok(())
        }
    }

    struct Bench {
        dir: tempfile::TempDir,
        writes: Arc<AtomicUsize>,
    }

    impl Bench {
        async fn new(room: usize, good_syncs: usize) -> (Self, FileLog) {
            let bench = Self { dir: tempfile::tempdir().unwrap(), writes: Arc::default() };
            let hash = Hash::of_bytes(b"");
            let head = Head { run_id: "r".to_owned(), manifest: hash, sources: hash };
            let (line, crc) = line::encode_head(&head).unwrap();
            let path = bench.dir.path().join("journal.log");
            std::fs::write(&path, &line).unwrap();
            let file = open(&path).unwrap();
            let sink = Box::new(Disk { file, room, good_syncs, writes: Arc::clone(&bench.writes) });
            let end = End { length: line.len() as u64, crc, seq: 0, epoch: 0 };
            let lock = RunLock::acquire("r", bench.dir.path()).await.unwrap();
            let log = FileLog::new(path, bench.dir.path().join("blobs"), sink, end, lock);
            (bench, log)
        }

        fn on_disk(&self) -> Vec<Record> {
            let path = self.dir.path().join("journal.log");
            let scan = scan::scan(&path, &std::fs::read(&path).unwrap()).unwrap();
            scan.entries.into_iter().map(|entry| entry.record).collect()
        }
    }

    fn append(log: &mut FileLog, values: std::ops::Range<u64>) -> Result<Vec<Record>, StoreError> {
        let records = log.append(Timestamp(1), 1, values.map(|value| effect(json!(value))).collect())?;
        Ok(records.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    #[test]
    fn names_of_blobs_are_made_durable_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = File::create(dir.path().join("journal.log")).unwrap();
        assert!(sink.sync_names(dir.path()).is_ok());
        assert!(sink.sync_names(&dir.path().join("blobs")).is_err(), "there is no such directory");
    }

    #[tokio::test]
    async fn a_full_disk_ends_the_log_at_any_byte() {
        let (_bench, mut log) = Bench::new(usize::MAX, usize::MAX).await;
        let head = log.writer.sink.lock().end.length;
        append(&mut log, 0..4).unwrap();
        log.flush().await.unwrap();
        let two_batches = usize::try_from(log.writer.sink.lock().end.length - head).unwrap();
        for room in 0..two_batches {
            let (bench, mut log) = Bench::new(room, usize::MAX).await;
            let mut all = append(&mut log, 0..2).unwrap();
            let first = log.flush().await;
            let acknowledged = if first.is_ok() { 2 } else { 0 };
            if first.is_ok() {
                all.extend(append(&mut log, 2..4).unwrap());
                let error = log.flush().await.unwrap_err();
                assert!(matches!(error, StoreError::Write { .. }), "{error}");
            }
            // There is room again, and still nothing is accepted: what stands at the end is not known.
            let error = append(&mut log, 9..10).unwrap_err().to_string();
            assert!(error.contains("an earlier write failed"), "{error}");
            assert!(log.flush().await.is_err());
            drop(log);
            let found = bench.on_disk();
            assert!(found.len() >= acknowledged, "room {room}");
            assert_eq!(found, all[..found.len()], "room {room}");
        }
    }

    #[tokio::test]
    async fn a_failed_sync_is_not_tried_again() {
        let (bench, mut log) = Bench::new(usize::MAX, 1).await;
        append(&mut log, 0..1).unwrap();
        log.flush().await.unwrap();
        append(&mut log, 1..2).unwrap();
        assert!(log.flush().await.unwrap_err().to_string().contains("EIO"));
        assert!(log.flush().await.is_err());
        assert!(append(&mut log, 2..3).is_err());
        assert_eq!(bench.writes.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn one_flush_is_one_write_and_an_empty_one_is_none() {
        let (bench, mut log) = Bench::new(usize::MAX, 1).await;
        for value in 0..50 {
            append(&mut log, value..value + 1).unwrap();
        }
        assert_eq!(bench.writes.load(Ordering::Relaxed), 0);
        log.flush().await.unwrap();
        log.flush().await.unwrap();
        assert_eq!(bench.writes.load(Ordering::Relaxed), 1);
        assert_eq!(bench.on_disk().len(), 50);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn commits_that_nobody_waits_for_are_written_in_order() {
        let (bench, mut log) = Bench::new(usize::MAX, usize::MAX).await;
        for value in 0..200 {
            append(&mut log, value..value + 1).unwrap();
            drop(log.commit());
        }
        append(&mut log, 200..201).unwrap();
        log.commit().await.unwrap();
        let found = bench.on_disk();
        assert_eq!(
            found.iter().map(|record| record.index).collect::<Vec<_>>(),
            (0..=200).collect::<Vec<_>>()
        );
        // Those that were queued together were written together.
        assert!(bench.writes.load(Ordering::Relaxed) <= 201);
    }

    #[tokio::test]
    async fn a_value_that_cannot_be_stored_takes_nothing_with_it() {
        let (bench, mut log) = Bench::new(usize::MAX, usize::MAX).await;
        append(&mut log, 0..1).unwrap();
        let deep = (0..=blob::MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        let large = json!("x".repeat(blob::INLINE_BYTES));
        let facts = vec![effect(large), effect(deep)];
        let error = log.append(Timestamp(1), 1, facts).unwrap_err().to_string();
        assert!(error.contains("record 2") && error.contains("/value"), "{error}");
        assert_eq!(log.pending.len(), 1);
        append(&mut log, 1..2).unwrap();
        log.flush().await.unwrap();
        assert_eq!(bench.on_disk().iter().map(|record| record.index).collect::<Vec<_>>(), [0, 1]);
    }
}
