//! Runs on disk, and their twin in memory.
//!
//! Owns [`FileStore`] (one directory per run: manifest, sources, an append-only journal, large values) and
//! [`MemoryStore`], which keeps the same promises without a disk. Both pass `pipeline_core::conformance`.
//! Must not know what facts mean, apart from the few that tell a run's status. The format is described for readers
//! in `docs/run-log-format.md`; its version is [`FORMAT`].

// Declaration order is reading order: from leaf to root; a module uses only what stands above it.
mod disk;
mod line;
mod blob;
mod manifest;
mod lock;
mod scan;
mod journal;
mod summary;
mod retention;
mod file;
mod memory;

pub use file::FileStore;
pub use line::FORMAT;
pub use memory::MemoryStore;
