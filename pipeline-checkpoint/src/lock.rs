//! One owner per run: an exclusive lock of the kernel's on `run.lock`, which holds the owner's process id.
//!
//! The kernel drops the lock when the process dies, however it dies. Not for network file systems.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Ownership of a run, until it is dropped.
#[derive(Debug)]
pub(crate) struct RunLock(#[expect(dead_code, reason = "held for its lock")] File);

/// What came of asking for a run.
pub(crate) enum Asked {
    Ours(RunLock),
    /// Another process has it; 0 when it has not said its id yet.
    Held(u32),
}

const NAME: &str = "run.lock";

/// Asks for a run.
pub(crate) fn acquire(run: &Path) -> io::Result<Asked> {
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(run.join(NAME))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
            Ok(Asked::Ours(RunLock(file)))
        }
        Err(TryLockError::WouldBlock) => Ok(Asked::Held(pid(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that holds a run; `None` when nobody does.
pub(crate) fn holder(run: &Path) -> Option<u32> {
    let mut file = File::open(run.join(NAME)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(pid(&mut file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn pid(file: &mut File) -> u32 {
    let mut text = String::new();
    // An unreadable id is told as 0: the lock itself is what counts.
    let _ = file.read_to_string(&mut text);
    text.trim().parse().unwrap_or(0)
}
