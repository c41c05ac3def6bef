//! Who owns a run.
//!
//! Owns `run.lock`: the system's lock on it is ownership (it ends with the process, however that ends); its text,
//! `pid epoch`, only tells people and fences off an owner that the lock did not stop. Must not know the journal.
//!
//! Owners lock exclusively, onlookers share for a moment. So a shared lock that *can* be had means that nobody owns the run:
//! an owner-to-be that met an onlooker tries again, and one that met an owner is refused at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_core::store::StoreError;

use crate::disk::{self, Locked};

const LOCK: &str = "run.lock";
/// How often to look again at a lock, or at an owner's number that is just being written.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);
/// How often to try again where no living process is named, 0.2 s each: the lock of one that was killed lives on in a program
/// that it was just starting, until that has begun. On a busy machine this can take a while.
const ROUNDS: u32 = 25;

/// Ownership of a run, until dropped.
pub(crate) struct RunLock {
    file: Locked,
    path: PathBuf,
    epoch: u64,
}

impl RunLock {
    /// Takes the run in `dir`, or says who has it.
    pub(crate) async fn acquire(run: &str, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK);
        let mut file = open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Unknown { run: run.to_owned() },
            _ => disk::directory_error(&path, &error),
        })?;
        for _ in 0..ROUNDS {
            file = match Self::look(file, &path).await? {
                Ok(locked) => return Self::take(locked, path),
                Err(file) => file,
            };
            let pid = owner(&path).await;
            if pid != 0 {
                return Err(StoreError::Held { run: run.to_owned(), pid });
            }
        }
        Err(StoreError::Held { run: run.to_owned(), pid: 0 })
    }

    /// Takes the lock, or gives the file back because somebody owns it.
    async fn look(mut file: File, path: &Path) -> Result<Result<Locked, File>, StoreError> {
        for _ in 0..TRIES {
            file = match Locked::alone(file) {
                Ok(locked) => return Ok(Ok(locked)),
                Err((file, TryLockError::WouldBlock)) => file,
                Err((_, TryLockError::Error(error))) => return Err(disk::directory_error(path, &error)),
            };
            match file.try_lock_shared() {
                Ok(()) => file.unlock().map_err(|error| disk::directory_error(path, &error))?,
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => return Err(disk::directory_error(path, &error)),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Err(file))
    }

    /// Takes the run in `dir` if that can be done at once.
    pub(crate) fn try_acquire(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(LOCK);
        let refused = |error: &io::Error| disk::directory_error(&path, error);
        let file = match open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(&error)),
        };
        match Locked::alone(file) {
            Ok(locked) => Self::take(locked, path).map(Some),
            Err((_, TryLockError::WouldBlock)) => Ok(None),
            Err((_, TryLockError::Error(error))) => Err(refused(&error)),
        }
    }

    fn take(mut file: Locked, path: PathBuf) -> Result<Self, StoreError> {
        let mut text = String::new();
        // A text that is not ours tells nothing; the epochs in the journal still count.
        let before = match file.read_to_string(&mut text) {
            Ok(_) => parse(&text).map_or(0, |(_, epoch)| epoch),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => 0,
            Err(error) => return Err(disk::directory_error(&path, &error)),
        };
        let mut lock = Self { file, path, epoch: before };
        lock.raise_epoch(before)?;
        Ok(lock)
    }

    /// Makes the epoch larger than `seen`, the largest that the journal has, and than that of every owner before.
    pub(crate) fn raise_epoch(&mut self, seen: u64) -> Result<(), StoreError> {
        self.epoch = self.epoch.max(seen.saturating_add(1));
        self.write(std::process::id()).map_err(|error| disk::write_error(&self.path, &error))
    }

    /// The number of this taking-over of the run, from 1.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    fn write(&mut self, pid: u32) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{pid} {}\n", self.epoch).as_bytes())
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Only for people: a number left behind is as after a crash, when nobody could have taken it out either.
        let _ = self.write(0);
    }
}

/// The process that owns the run in `dir`: `None` when nobody does, 0 when it cannot be told.
pub(crate) fn holder(dir: &Path) -> Option<u32> {
    let path = dir.join(LOCK);
    // A lock that is missing or may not be read is held by nobody that could be named.
    let file = File::open(&path).ok()?;
    match Locked::shared(file) {
        Err((_, TryLockError::WouldBlock)) => Some(named(&path).unwrap_or(0)),
        Ok(_) | Err((_, TryLockError::Error(_))) => None,
    }
}

/// The owner's number. It writes it just after it got the lock: until then the file has none, or one of a dead process.
async fn owner(path: &Path) -> u32 {
    for _ in 0..TRIES {
        if let Some(pid) = named(path) {
            return pid;
        }
        tokio::time::sleep(PAUSE).await;
    }
    0
}

fn named(path: &Path) -> Option<u32> {
    let (pid, _) = parse(&std::fs::read_to_string(path).ok()?)?;
    (pid != 0 && is_alive(pid)).then_some(pid)
}

/// Whether there may be a process of that number; where that cannot be asked, there may.
fn is_alive(pid: u32) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(pid.to_string()).exists()
}

fn parse(text: &str) -> Option<(u32, u64)> {
    let (pid, epoch) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((pid.parse().ok()?, epoch.parse().ok()?))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[tokio::test]
    async fn each_owner_has_a_larger_epoch_even_when_it_wrote_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut epochs = Vec::new();
        for _ in 0..3 {
            epochs.push(RunLock::acquire("r", dir.path()).await.unwrap().epoch());
        }
        assert_eq!(epochs, [1, 2, 3]);
        let mut lock = RunLock::acquire("r", dir.path()).await.unwrap();
        lock.raise_epoch(9).unwrap();
        assert_eq!(lock.epoch(), 10);
        lock.raise_epoch(2).unwrap();
        assert_eq!(lock.epoch(), 10);
    }

    #[tokio::test]
    async fn onlookers_do_not_keep_an_owner_out() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunLock::acquire("r", dir.path()).await.unwrap());
        let onlooker = File::open(dir.path().join(LOCK)).unwrap();
        onlooker.lock_shared().unwrap();
        let look_away = async {
            tokio::task::yield_now().await;
            onlooker.unlock().unwrap();
        };
        let (lock, ()) = tokio::join!(RunLock::acquire("r", dir.path()), look_away);
        assert_eq!(lock.unwrap().epoch(), 2);
    }

    #[tokio::test]
    async fn a_copy_in_a_process_that_is_being_started_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire("r", dir.path()).await.unwrap();
        let copy = lock.file.try_clone().unwrap();
        drop(lock);
        assert_eq!(holder(dir.path()), None);
        let lock = RunLock::acquire("r", dir.path()).await.unwrap();
        drop(copy);
        assert_eq!(
            holder(dir.path()),
            Some(std::process::id()),
            "and its end takes nothing away from the next owner"
        );
        drop(lock);
    }

    /// Naive: whoever comes while a killed owner's last program is still being started is refused, and told of process 0.
    #[tokio::test(start_paused = true)]
    async fn a_copy_that_outlives_its_killed_owner_for_a_second_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let copy = open(&dir.path().join(LOCK)).unwrap();
        copy.lock().unwrap();
        std::fs::write(dir.path().join(LOCK), format!("{} 1\n", u32::MAX)).unwrap();
        let begins = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(copy);
        };
        let (lock, ()) = tokio::join!(RunLock::acquire("r", dir.path()), begins);
        assert_eq!(lock.unwrap().epoch(), 2);
    }

    #[tokio::test]
    async fn what_is_no_lock_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let unknown = RunLock::acquire("r", &missing).await.err().unwrap();
        assert!(matches!(&unknown, StoreError::Unknown { run } if run == "r"), "{unknown}");
        assert!(RunLock::try_acquire(&missing).unwrap().is_none());
        std::fs::create_dir(dir.path().join(LOCK)).unwrap();
        assert!(matches!(RunLock::acquire("r", dir.path()).await.err(), Some(StoreError::Directory { .. })));
        assert!(RunLock::try_acquire(dir.path()).is_err(), "a directory in its place is nobody's lock");
    }

    #[tokio::test]
    async fn a_text_that_is_not_ours_tells_nothing_and_an_owner_takes_its_number_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        std::fs::write(&path, b"\xff\xfe\n").unwrap();
        let lock = RunLock::acquire("r", dir.path()).await.unwrap();
        assert_eq!(lock.epoch(), 1);
        let text = || std::fs::read_to_string(&path).unwrap();
        assert_eq!(text(), format!("{} 1\n", std::process::id()));
        drop(lock);
        assert_eq!(text(), "0 1\n");
    }

    #[tokio::test]
    async fn the_number_of_a_dead_owner_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        let lock = RunLock::acquire("r", dir.path()).await.unwrap();
        assert_eq!(holder(dir.path()), Some(std::process::id()));
        std::fs::write(&path, format!("{} 1\n", u32::MAX)).unwrap();
        assert_eq!(holder(dir.path()), Some(0));
        drop(lock);
        assert_eq!(holder(dir.path()), None);
    }
}
