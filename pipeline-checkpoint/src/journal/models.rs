//! Group commit under a model checker: `cargo xtask models`.
//!
//! Owns models of commits whose writes are done by as many threads at once, on a disk that fails or not, and of a naive writer
//! that the checker must see through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use pipeline_core::conformance::store::effect;
use pipeline_core::sync::models::{check, is_seen_through};
use serde_json::json;
use shuttle::future::block_on;
use shuttle::thread;

use super::*;
use crate::line::{self, Head};
use crate::scan;

/// Commits that are on their way at once.
const COMMITS: u64 = 3;

/// A disk in memory: what was written, how much of it was flushed, how many flushes work.
#[derive(Default)]
struct Platter {
    bytes: Vec<u8>,
    flushed: usize,
    good_syncs: usize,
}

/// No lock of the checker: the code under test must make sure that nobody else writes meanwhile.
struct Disk(Arc<parking_lot::Mutex<Platter>>);

impl Sink for Disk {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for half in bytes.chunks(bytes.len().div_ceil(2)) {
            self.0.lock().bytes.extend_from_slice(half);
            thread::yield_now();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let length = self.0.lock().bytes.len();
        thread::yield_now();
        let mut platter = self.0.lock();
        platter.good_syncs = platter.good_syncs.checked_sub(1).ok_or_else(|| io::Error::other("EIO"))?;
        platter.flushed = length;
        Ok(())
    }
}

/// A log on that disk, whose writes are each done by a thread of the checker.
fn log(dir: &Path, good_syncs: usize) -> (FileLog, Arc<parking_lot::Mutex<Platter>>) {
    let hash = Hash::of_bytes(b"");
    let (line, crc) =
        line::encode_head(&Head { run_id: "r".to_owned(), manifest: hash, sources: hash }).unwrap();
    let platter = Platter { flushed: line.len(), bytes: line, good_syncs };
    let end = End { length: platter.bytes.len() as u64, crc, seq: 0, epoch: 0 };
    let platter = Arc::new(parking_lot::Mutex::new(platter));
    let lock = RunLock::try_acquire(dir).unwrap().expect("nobody has it");
    let sink = Box::new(Disk(Arc::clone(&platter)));
    let log = FileLog::new(dir.join("journal.log"), dir.join("blobs"), sink, end, lock);
    let hand: Hand = Arc::new(|work| {
        let (told, hears) = tokio::sync::oneshot::channel();
        thread::spawn(move || told.send(work()).is_ok());
        Box::pin(async { hears.await.expect("the write has an outcome") })
    });
    (log.by(hand), platter)
}

fn values(bytes: &[u8]) -> Vec<u64> {
    let scan = scan::scan(Path::new("journal.log"), bytes).unwrap();
    scan.entries.into_iter().map(|entry| entry.record.index).collect()
}

/// Naive: whoever writes takes what is queued before it is its turn, or says "done" of what another is still writing.
#[test]
fn n10_what_a_commit_acknowledges_is_on_the_disk_in_order_whoever_wrote_it() {
    for good_syncs in [0, 1, 2, usize::MAX] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("run.lock"), "").unwrap();
        let dir = Arc::new(dir);
        check(move || {
            let (mut log, platter) = log(dir.path(), good_syncs);
            let commits: Vec<(u64, Commit)> = (0..COMMITS)
                .map(|value| {
                    // After a failure nothing is accepted, and what is not accepted is not told as done.
                    let accepted = log.append(Timestamp(1), 1, vec![effect(json!(value))]);
                    (accepted.map_or(0, |_| value + 1), log.commit())
                })
                .collect();
            for (records, commit) in commits {
                if block_on(commit).is_ok() {
                    let platter = platter.lock();
                    let flushed = values(&platter.bytes[..platter.flushed]).len() as u64;
                    assert!(flushed >= records, "{flushed} of {records} are there");
                }
            }
            let all = values(&platter.lock().bytes);
            assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>());
            assert!(good_syncs < usize::MAX || all.len() as u64 == COMMITS);
        });
    }
}

/// A writer as somebody in a hurry writes it.
#[derive(Default)]
struct Naive {
    queue: Mutex<Vec<u64>>,
    disk: Mutex<Vec<u64>>,
}

#[test]
fn the_checker_sees_through_a_writer_that_takes_what_is_queued_before_its_turn() {
    assert!(is_seen_through(|| {
        let writer = Arc::new(Naive::default());
        let writes: Vec<_> = (0..COMMITS)
            .map(|value| {
                writer.queue.lock().push(value);
                let writer = Arc::clone(&writer);
                thread::spawn(move || {
                    let records = std::mem::take(&mut *writer.queue.lock());
                    writer.disk.lock().extend(records);
                })
            })
            .collect();
        for write in writes {
            write.join().unwrap();
        }
        assert!(writer.disk.lock().is_sorted());
    }));
}
