//! What processes are on this system.
//!
//! Owns the few calls that differ: groups, signals, whether a process lives. Where there are no process groups a child that is
//! killed leaves its own children behind; `docs/platforms.md` tells.

use std::io;
use std::path::Path;
use std::process::ExitStatus;

/// What a process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Save what you have, and go.
    Terminate,
    /// Gone, without a word.
    Kill,
}

#[cfg(unix)]
impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Terminate => Self::TERM,
            Signal::Kill => Self::KILL,
        }
    }
}

#[cfg(unix)]
fn pid(id: u32) -> Option<rustix::process::Pid> {
    i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw)
}

/// Makes what is started the leader of a group of its own.
#[cfg(unix)]
pub(super) fn lead(command: &mut tokio::process::Command) {
    command.process_group(0);
}

/// Makes what is started the leader of a group of its own; there are none here.
#[cfg(not(unix))]
pub(super) fn lead(_: &mut tokio::process::Command) {}

/// Sends a signal to a whole group; false where there are no groups.
#[cfg(unix)]
pub(super) fn signal_group(leader: u32, signal: Signal) -> bool {
    if let Some(group) = pid(leader) {
        // A group that is gone needs no signal.
        let _ = rustix::process::kill_process_group(group, signal.into());
    }
    true
}

/// Sends a signal to a whole group; there are none here.
#[cfg(not(unix))]
pub(super) fn signal_group(_: u32, _: Signal) -> bool {
    false
}

/// Sends a signal to a process of ours or another.
///
/// # Errors
/// The system's; `Unsupported` where there are no signals.
#[cfg(unix)]
pub fn send(process: u32, signal: Signal) -> io::Result<()> {
    let process = pid(process).ok_or_else(|| io::Error::other("its number is not known"))?;
    Ok(rustix::process::kill_process(process, signal.into())?)
}

/// Sends a signal to a process; there are none here.
///
/// # Errors
/// `Unsupported`.
#[cfg(not(unix))]
pub fn send(_: u32, _: Signal) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no signal for it"))
}

/// Whether a process lives; a number that cannot be one does not.
#[cfg(unix)]
pub fn is_alive(process: u32) -> bool {
    pid(process).is_some_and(|process| {
        // One that may not be signalled lives.
        !matches!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH))
    })
}

/// Whether a process lives. Of others it cannot be told here, and nothing may wait for one that is gone.
#[cfg(not(unix))]
pub fn is_alive(process: u32) -> bool {
    process == std::process::id()
}

/// The number of the signal that ended a process; `None` when it ended by itself, or where there are none.
#[cfg(unix)]
pub fn ended_by(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// The number of the signal that ended a process; there are none here.
#[cfg(not(unix))]
pub fn ended_by(_: ExitStatus) -> Option<i32> {
    None
}

/// Whether a file is there that this process may run.
pub fn is_executable(path: &Path) -> bool {
    #[cfg(unix)]
    let may = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    #[cfg(not(unix))]
    let may = true;
    path.is_file() && may
}
