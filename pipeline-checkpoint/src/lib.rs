//! Runs, conversations, snapshots and tapes on disk, and their twins in memory.
//!
//! Owns [`FileStore`] (one directory per run: manifest, sources, an append-only journal, large values), [`FileSessions`] (one
//! append-only file per conversation), [`FileSnapshots`], [`FileTape`] with [`TapedSessions`]; [`MemoryStore`], [`MemorySessions`] and [`MemorySnapshots`] keep the
//! same promises without a disk. Both kinds pass `pipeline_core::conformance`.
//! Must not know what facts mean, apart from the few that tell a run's status. The formats are described for readers
//! in `docs/run-log-format.md` and `docs/session-format.md`; the version of a run's is [`FORMAT`].
//!
//! # A run that outlives its process
//!
//! ```
#![doc = include_str!("../examples/suspend_and_resume.rs")]
//! ```
//!
//! # What a run left on disk
//!
//! ```
#![doc = include_str!("../examples/read_a_journal.rs")]
//! ```

#![allow(
    clippy::result_large_err,
    reason = "the traits return StepError as it is, and a refusal of a store is rare next to what it waits for"
)]

// Declaration order is reading order: from leaf to root; a module uses only what stands above it.
mod disk;
mod line;
mod blob;
mod manifest;
mod lock;
mod scan;
mod journal;
mod failing;
mod summary;
mod retention;
mod file;
mod memory;
mod chain;
mod session_record;
mod session_file;
mod session_memory;
#[cfg(all(test, shuttle))]
mod session_models;
mod snapshot;
mod difference;
mod tape;
mod taped_sessions;
#[cfg(test)]
mod simulation;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

pub use file::FileStore;
pub use line::FORMAT;
pub use memory::MemoryStore;
pub use session_file::FileSessions;
pub use session_memory::MemorySessions;
pub use session_record::SESSION_FORMAT;
pub use snapshot::{FileSnapshots, MemorySnapshots, SNAPSHOT_FORMAT};
pub use tape::{FileTape, TAPE_FORMAT, TapedRun};
pub use taped_sessions::TapedSessions;
