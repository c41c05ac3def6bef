//! Finding and killing what an agent left behind.
//!
//! An agent CLI starts its tools in sessions of their own, so that neither its end nor a signal to its process group
//! reaches them. Each call therefore puts a mark of its own into the environment of what it starts, which children
//! inherit; here every process that carries the mark is found and killed. A process that empties its environment and
//! leaves its session at once is not found. Must not know which agent it is.

/// Passes over the process table: a process that is being killed may have started another just before.
const PASSES: u32 = 50;

/// Kills every process whose environment has the entry `mark` (`NAME=value`), until a pass finds none. Only where there is
/// `/proc`; elsewhere it does nothing.
pub(super) fn kill_marked(mark: &str) {
    for _ in 0..PASSES {
        let marked = marked(mark);
        if marked.is_empty() {
            return;
        }
        for pid in marked {
            // One that has just ended needs no signal.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::yield_now();
    }
}

/// Living processes, other than this one, that carry the mark.
fn marked(mark: &str) -> Vec<rustix::process::Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own && carries(*pid, mark)).filter_map(rustix::process::Pid::from_raw).collect()
}

/// Whether the environment of `pid` has the entry. That of a zombie, or of somebody else's process, cannot be read.
fn carries(pid: i32, mark: &str) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
}
