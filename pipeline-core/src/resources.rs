//! What a process can run out of.
//!
//! Owns [`ResourceProbe`], by which the program tells how much there is, and [`ResourceLimits`]. What nobody can tell is an error,
//! never nothing. Next: `engine/watch.rs`, which asks while steps run.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// Something of which there is only so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Memory of this process that is not swapped out, in bytes.
    Memory,
    /// Files and connections that this process has open.
    OpenFiles,
    /// Living processes that this one started, and what they started.
    Processes,
    /// Bytes that are free where runs and results are written.
    FreeDisk,
}

/// Reads how much of a resource is held, or is left.
pub trait ResourceProbe: Send + Sync {
    /// How much it is now, in the resource's own unit.
    ///
    /// # Errors
    /// Why nobody can say.
    fn read(&self, resource: Resource) -> Result<u64, String>;
}

/// What the process may hold, and what the disk must have left, while a step runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// MiB of memory.
    pub max_memory_mb: Option<u64>,
    /// Open files and connections.
    pub max_open_files: Option<u64>,
    /// Living child processes, and theirs.
    pub max_processes: Option<u64>,
    /// MiB that must be free on the disk.
    pub min_free_disk_mb: Option<u64>,
    /// What happens where nobody can say how much it is.
    #[serde(alias = "on_unknown_memory")]
    pub on_unknown: Unknown,
}

/// What becomes of a limit where nobody can say how much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// The run says so once, and goes on without the limit.
    #[default]
    Warn,
    /// The run stops.
    Stop,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::OpenFiles, Self::Processes, Self::FreeDisk];

    /// The key of its limit.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory => "max_memory_mb",
            Self::OpenFiles => "max_open_files",
            Self::Processes => "max_processes",
            Self::FreeDisk => "min_free_disk_mb",
        }
    }

    /// What nobody could say, in words.
    pub(crate) fn question(self) -> &'static str {
        match self {
            Self::Memory => "how much memory the process holds",
            Self::OpenFiles => "how many files the process has open",
            Self::Processes => "how many processes this one started that live",
            Self::FreeDisk => "how much is free on the disk",
        }
    }

    /// Whether so much of it is within a limit.
    pub(crate) fn is_within(self, read: u64, limit: u64) -> bool {
        match self {
            Self::Memory => read <= limit.saturating_mul(MIB),
            Self::OpenFiles | Self::Processes => read <= limit,
            Self::FreeDisk => read >= limit.saturating_mul(MIB),
        }
    }

    /// What was read and what was allowed, in words.
    pub(crate) fn passed(self, read: u64, limit: u64) -> String {
        match self {
            Self::Memory => {
                format!("the process holds {} MiB, and {limit} are allowed", read.div_ceil(MIB))
            }
            Self::OpenFiles => format!("the process has {read} files open, and {limit} are allowed"),
            Self::Processes => {
                format!("{read} processes that this one started are alive, and {limit} are allowed")
            }
            Self::FreeDisk => {
                format!("{} MiB are free on the disk, and {limit} must stay free", read / MIB)
            }
        }
    }
}

impl ResourceLimits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        Resource::ALL.into_iter().all(|resource| self.limit(resource).is_none())
    }

    /// The limit on a resource.
    pub fn limit(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Memory => self.max_memory_mb,
            Resource::OpenFiles => self.max_open_files,
            Resource::Processes => self.max_processes,
            Resource::FreeDisk => self.min_free_disk_mb,
        }
    }

    /// What holds where both do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self {
            max_memory_mb: least(self.max_memory_mb, other.max_memory_mb),
            max_open_files: least(self.max_open_files, other.max_open_files),
            max_processes: least(self.max_processes, other.max_processes),
            min_free_disk_mb: self.min_free_disk_mb.max(other.min_free_disk_mb),
            on_unknown: self.on_unknown.max(other.on_unknown),
        }
    }

    /// These, and the others where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            max_memory_mb: self.max_memory_mb.or(other.max_memory_mb),
            max_open_files: self.max_open_files.or(other.max_open_files),
            max_processes: self.max_processes.or(other.max_processes),
            min_free_disk_mb: self.min_free_disk_mb.or(other.min_free_disk_mb),
            on_unknown: self.on_unknown.max(other.on_unknown),
        }
    }
}
