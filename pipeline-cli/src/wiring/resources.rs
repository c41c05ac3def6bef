//! What this process holds, as the system tells it.
//!
//! Owns [`ThisProcess`]. Linux tells of memory, files and processes, every Unix of its disks; elsewhere nobody can say, and says so.

use std::path::{Path, PathBuf};

use pipeline_core::process::descendants;
use pipeline_core::resources::{Resource, ResourceProbe};

/// This process, and the disks that it writes to.
pub struct ThisProcess {
    /// Folders on them.
    pub dirs: Vec<PathBuf>,
}

impl ResourceProbe for ThisProcess {
    fn read(&self, resource: Resource) -> Result<u64, String> {
        match resource {
            Resource::Memory => memory(),
            Resource::OpenFiles => open_files(),
            Resource::Processes => descendants(),
            Resource::FreeDisk => {
                let free = self.dirs.iter().map(|dir| free_space(dir)).collect::<Result<Vec<_>, _>>()?;
                free.into_iter().min().ok_or_else(|| "no disk is known".to_owned())
            }
        }
    }
}

/// The memory that is not swapped out.
#[cfg(target_os = "linux")]
fn memory() -> Result<u64, String> {
    let status = "/proc/self/status";
    let text = std::fs::read_to_string(status).map_err(|error| format!("{status}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.and_then(|kib| kib.checked_mul(1024)).ok_or_else(|| format!("{status} does not tell"))
}

#[cfg(target_os = "linux")]
fn open_files() -> Result<u64, String> {
    let folder = "/proc/self/fd";
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    // The folder itself is open while it is read.
    u64::try_from(entries.count().saturating_sub(1)).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn memory() -> Result<u64, String> {
    Err("this system does not tell".to_owned())
}

#[cfg(not(target_os = "linux"))]
fn open_files() -> Result<u64, String> {
    Err("this system does not tell".to_owned())
}

/// Bytes that are free for us where `dir` is, or will be.
#[cfg(unix)]
pub fn free_space(dir: &Path) -> Result<u64, String> {
    let nearest = dir.ancestors().find(|above| above.exists()).unwrap_or(dir);
    let about = rustix::fs::statvfs(nearest).map_err(|error| format!("{}: {error}", nearest.display()))?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(not(unix))]
pub fn free_space(_: &Path) -> Result<u64, String> {
    Err("this system does not tell".to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_is_written_to_is_held() {
        let before = memory().unwrap();
        assert!(before > MIB as u64, "{before}");
        let block = vec![1_u8; 64 * MIB];
        let after = memory().unwrap();
        assert!(after >= before + 48 * MIB as u64, "{before} and then {after}");
        drop(block);
    }

    /// Other tests of this process open and close files meanwhile, but not a hundred.
    #[test]
    fn what_is_opened_is_open() {
        let before = open_files().unwrap();
        let files: Vec<_> = (0..200).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        let after = open_files().unwrap();
        assert!(after >= before + 100, "{before} and then {after}");
        drop(files);
    }

    #[test]
    fn what_is_free_is_that_of_the_fullest_disk_and_a_folder_need_not_be_there() {
        let there =
            ThisProcess { dirs: vec![std::env::temp_dir().join("not/made/yet"), PathBuf::from("/proc")] };
        assert_eq!(there.read(Resource::FreeDisk), Ok(0), "nothing can be written to /proc");
        let there = ThisProcess { dirs: vec![std::env::temp_dir().join("not/made/yet")] };
        assert!(there.read(Resource::FreeDisk).unwrap() > 0);
        assert!(ThisProcess { dirs: Vec::new() }.read(Resource::FreeDisk).is_err(), "and not endless space");
    }
}
