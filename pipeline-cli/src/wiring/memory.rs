//! How much memory this process holds, as the system tells it.
//!
//! Owns [`ResidentSet`]: Linux's own account of the process. Elsewhere nobody can say, and says so.

use pipeline_core::memory::MemoryProbe;

/// The memory of this process that is not swapped out.
pub(super) struct ResidentSet;

impl MemoryProbe for ResidentSet {
    #[cfg(target_os = "linux")]
    fn held(&self) -> Result<u64, String> {
        let status = "/proc/self/status";
        let text = std::fs::read_to_string(status).map_err(|error| format!("{status}: {error}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.and_then(|kib| kib.checked_mul(1024)).ok_or_else(|| format!("{status} does not tell"))
    }

    #[cfg(not(target_os = "linux"))]
    fn held(&self) -> Result<u64, String> {
        Err("this system does not tell".to_owned())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_is_held() {
        const MIB: usize = 1024 * 1024;
        let before = ResidentSet.held().expect("Linux tells");
        assert!(before > MIB as u64, "{before}");
        let block = vec![1_u8; 64 * MIB];
        let after = ResidentSet.held().expect("Linux tells");
        assert!(after >= before + 48 * MIB as u64, "{before} and then {after}");
        drop(block);
    }
}
