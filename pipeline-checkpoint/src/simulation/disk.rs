//! A disk in memory that keeps what was flushed, and of the rest what it likes.
//!
//! Owns [`Disk`]: the journal and the blobs of one run, the cut of its power, and what is left after one. Must not know what
//! the bytes mean, except through the reader of the journal.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::conformance::store::manifest;
use pipeline_core::conformance::trials::Random;
use pipeline_core::fact::Record;
use pipeline_core::store::{
    CheckpointStore, Manifest, OpenedRun, RunLog, RunSummary, StoreError, StoredRun, StoredSources,
};
use pipeline_core::value::Hash;
use tokio::sync::Notify;

use crate::journal::{FileLog, Hand, Sink};
use crate::line::{self, Head};
use crate::lock::RunLock;
use crate::scan::{self, End};
use crate::{blob, disk};

const JOURNAL: &str = "journal.log";
/// What a disk writes in one go.
const SECTOR: usize = 512;

/// The records of the journal, where it ends, and what was cut off there.
type Loaded = (Vec<Record>, End, Option<String>);

#[derive(Clone)]
pub(super) struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Told when the power goes.
    pub(super) down: Arc<Notify>,
}

struct Platter {
    random: Random,
    /// What a reader found last, while nothing has changed since.
    read: Option<Loaded>,
    journal: Vec<u8>,
    /// Bytes of the journal that were flushed.
    flushed: usize,
    /// Bytes of the journal that somebody was told are there for good.
    acknowledged: usize,
    /// With each, whether its name was flushed.
    blobs: BTreeMap<PathBuf, (Vec<u8>, bool)>,
    /// Operations until the power goes.
    left: Option<u64>,
    is_down: bool,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let platter = Platter {
            random: Random::new(seed),
            read: None,
            journal: Vec::new(),
            flushed: 0,
            acknowledged: 0,
            blobs: BTreeMap::new(),
            left: None,
            is_down: false,
        };
        Self { platter: Arc::new(Mutex::new(platter)), down: Arc::default() }
    }

    /// Switches it on, for so many operations.
    pub(super) fn power(&self, operations: Option<u64>) {
        let mut platter = self.platter.lock();
        (platter.left, platter.is_down) = (operations, false);
    }

    /// What is there after the power went: everything that was flushed, and of the rest nothing, a part, a part and zeros, or
    /// all of it. One append does not come back with a hole in it: decision 16 says why.
    pub(super) fn cut(&self, random: &mut Random) {
        let mut platter = self.platter.lock();
        let (flushed, length) = (platter.flushed, platter.journal.len());
        let torn = flushed + random.below(length - flushed + 1);
        match random.below(4) {
            0 => platter.journal.truncate(flushed),
            1 => platter.journal.truncate(torn),
            2 => {
                // The length was kept, and from a sector on not the data.
                let from = torn.next_multiple_of(SECTOR).min(length);
                platter.journal[from..].fill(0);
            }
            _ => {}
        }
        platter.flushed = platter.journal.len();
        platter.read = None;
        platter.blobs.retain(|_, (_, is_named)| *is_named || random.percent(50));
        platter.blobs.values_mut().for_each(|blob| blob.1 = true);
    }

    /// What a reader finds: everything that was acknowledged, at least.
    pub(super) fn records(&self) -> Result<Vec<Record>, String> {
        let (records, end, _) = self.load().map_err(|error| format!("refused: {error}"))?;
        let acknowledged = self.platter.lock().acknowledged;
        if end.length < acknowledged as u64 {
            return Err(format!("{acknowledged} bytes were acknowledged, and {} are there", end.length));
        }
        Ok(records)
    }

    pub(super) fn journal(&self) -> Vec<u8> {
        self.platter.lock().journal.clone()
    }

    /// Whether the run was created.
    pub(super) fn has_run(&self) -> bool {
        !self.platter.lock().journal.is_empty()
    }

    fn load(&self) -> Result<Loaded, StoreError> {
        let mut platter = self.platter.lock();
        if let Some(read) = &platter.read {
            return Ok(read.clone());
        }
        let scan = scan::scan(Path::new(JOURNAL), &platter.journal)?;
        let mut records = Vec::with_capacity(scan.entries.len());
        for mut entry in scan.entries {
            let read = |path: &Path| Ok(platter.blobs.get(path).map(|(bytes, _)| bytes.clone()));
            blob::put_back(&mut entry.record.fact, &entry.blobs, Path::new(""), read)?;
            records.push(entry.record);
        }
        let loaded = (records, scan.end, scan.torn);
        platter.read = Some(loaded.clone());
        Ok(loaded)
    }

    /// The log of a run whose lock is a real one, in `dir`.
    async fn log(&self, dir: &Path, end: End) -> Result<Box<dyn RunLog>, StoreError> {
        let mut lock = RunLock::acquire("run", dir).await?;
        lock.raise_epoch(end.epoch)?;
        let sink = Box::new(self.clone());
        Ok(Box::new(FileLog::new(JOURNAL.into(), PathBuf::new(), sink, end, lock).by(self.hand())))
    }

    /// A disk takes its time, which is that of the simulation.
    #[expect(clippy::disallowed_methods, reason = "in place of a thread that would take real time")]
    fn hand(&self) -> Hand {
        let platter = Arc::clone(&self.platter);
        Arc::new(move |work| {
            let platter = Arc::clone(&platter);
            let takes = Duration::from_micros(200 + platter.lock().random.draw() % 12_000);
            let working = tokio::spawn(async move {
                tokio::time::sleep(takes).await;
                work()?;
                let mut platter = platter.lock();
                platter.acknowledged = platter.acknowledged.max(platter.journal.len());
                Ok(())
            });
            Box::pin(async move { working.await.unwrap_or_else(|error| Err(gone(&error.to_string()))) })
        })
    }

    /// One operation; an error when the power is gone, and at the one with which it goes.
    fn operate(&self, platter: &mut Platter) -> io::Result<()> {
        if let Some(left) = &mut platter.left {
            *left = left.saturating_sub(1);
            if *left == 0 && !platter.is_down {
                platter.is_down = true;
                self.down.notify_one();
            }
        }
        platter.read = None;
        if platter.is_down { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }
}

fn gone(why: &str) -> StoreError {
    StoreError::Write { path: JOURNAL.into(), message: why.to_owned() }
}

impl Sink for Disk {
    fn length(&self) -> io::Result<u64> {
        Ok(self.platter.lock().journal.len() as u64)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.platter.lock();
        let done = self.operate(&mut platter);
        let part = if done.is_ok() { bytes.len() } else { platter.random.below(bytes.len() + 1) };
        platter.journal.extend_from_slice(&bytes[..part]);
        done
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platter = self.platter.lock();
        self.operate(&mut platter)?;
        platter.flushed = platter.journal.len();
        Ok(())
    }

    fn place(&mut self, dir: &Path, hash: Hash, bytes: &[u8]) -> Result<(), StoreError> {
        let mut platter = self.platter.lock();
        self.operate(&mut platter).map_err(|error| disk::write_error(dir, &error))?;
        platter.blobs.entry(dir.join(hash.to_string())).or_insert((bytes.to_vec(), false));
        Ok(())
    }

    fn sync_names(&mut self, dir: &Path) -> Result<(), StoreError> {
        let mut platter = self.platter.lock();
        self.operate(&mut platter).map_err(|error| disk::write_error(dir, &error))?;
        platter.blobs.values_mut().for_each(|blob| blob.1 = true);
        Ok(())
    }
}

/// Runs on a [`Disk`], of which there is one.
pub(super) struct Store {
    pub(super) disk: Disk,
    /// Where its lock is.
    pub(super) dir: PathBuf,
}

#[async_trait]
impl CheckpointStore for Store {
    async fn create(&self, manifest: &Manifest, _: &StoredSources) -> Result<Box<dyn RunLog>, StoreError> {
        let hash = Hash::of_bytes(b"");
        let head = Head { run_id: manifest.run_id.clone(), manifest: hash, sources: hash };
        let (line, crc) = line::encode_head(&head).map_err(|error| gone(&error.to_string()))?;
        {
            // The head is there in full or not at all; that is the file store's matter.
            let mut platter = self.disk.platter.lock();
            platter.journal.clone_from(&line);
            platter.flushed = line.len();
        }
        self.disk.log(&self.dir, End { length: line.len() as u64, crc, seq: 0, epoch: 0 }).await
    }

    async fn open(&self, _: &str) -> Result<OpenedRun, StoreError> {
        let (records, end, repaired) = self.disk.load()?;
        let stored =
            StoredRun { manifest: manifest("run", 1), sources: StoredSources::default(), records, pid: None };
        {
            let mut platter = self.disk.platter.lock();
            platter.journal.truncate(usize::try_from(end.length).unwrap_or(usize::MAX));
            platter.read = None;
            platter.flushed = platter.journal.len();
        }
        Ok(OpenedRun { stored, log: self.disk.log(&self.dir, end).await?, repaired })
    }

    async fn read(&self, run: &str) -> Result<StoredRun, StoreError> {
        Ok(self.open(run).await?.stored)
    }

    async fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        Ok(Vec::new())
    }

    async fn latest(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    async fn remove(&self, run: &str) -> Result<(), StoreError> {
        Err(StoreError::Unknown { run: run.to_owned() })
    }
}
