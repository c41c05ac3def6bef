//! How much memory this process holds.
//!
//! Owns [`MemoryProbe`], by which the program tells, and [`MemoryLimit`]. What nobody can tell is an error, never nothing.
//! Next: `engine/watch.rs`, which asks while steps run.

/// Reads the memory of this process.
pub trait MemoryProbe: Send + Sync {
    /// The bytes that it holds now.
    ///
    /// # Errors
    /// Why nobody can say.
    fn held(&self) -> Result<u64, String>;
}

/// The most memory that the process may hold while a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryLimit {
    /// In MiB.
    pub max_mb: u32,
    /// What happens where nobody can say how much it is.
    pub unknown: UnknownMemory,
}

/// What becomes of a limit on memory where nobody can say how much is held.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum UnknownMemory {
    /// The run says so once, and goes on without the limit.
    #[default]
    Warn,
    /// The run stops.
    Stop,
}

impl MemoryLimit {
    /// What holds where both do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { max_mb: self.max_mb.min(other.max_mb), unknown: self.unknown.max(other.unknown) }
    }
}
