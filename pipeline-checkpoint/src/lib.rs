//! Runs on disk: the durable journal, large values, locks, retention; and a twin in memory.
//!
//! Owns [`FileStore`] and [`MemoryStore`], both behind [`pipeline_core::store::CheckpointStore`]. Must not know steps, providers
//! or what a fact means. The format is described in docs/run-log-format.md.
//!
//! Reading order: `format.rs` (one line of the journal), `journal.rs` (the file), `run_log.rs` (the owner's log),
//! `store.rs` (directories and runs).

mod format;
mod files;
mod journal;
mod blobs;
mod sources;
mod lock;
mod run_log;
mod store;
mod memory;

pub use memory::MemoryStore;
pub use store::FileStore;
