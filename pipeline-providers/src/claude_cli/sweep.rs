//! Finding and killing what an agent left behind.
//!
//! An agent CLI starts its tools in sessions of their own, so that neither its end nor a signal to its process group
//! reaches them. Each call therefore puts a mark of its own into the environment of what it starts, which children
//! inherit; here every process that carries the mark is found and killed. A process that empties its environment and
//! leaves its session at once is not found. Must not know which agent it is.

use pipeline_core::process::{self, Signal};

/// Passes over the process table: a process that is being killed may have started another just before.
const PASSES: u32 = 50;

/// Kills every process whose environment has the entry `mark` (`NAME=value`), until a pass finds none. Only where there is
/// `/proc`; elsewhere it does nothing.
pub(super) fn kill_marked(mark: &str) {
    kill_all(|environment| has(environment, mark));
}

/// Kills what has the entry `mark` and was started by a process of ours that lives no more: `owner` is the name of the
/// variable that begins with that process's id and a dot.
pub(super) fn kill_orphans(mark: &str, owner: &str) {
    kill_all(|environment| has(environment, mark) && is_orphan(environment, owner));
}

fn has(environment: &[u8], entry: &str) -> bool {
    environment.split(|byte| *byte == 0).any(|given| given == entry.as_bytes())
}

fn is_orphan(environment: &[u8], owner: &str) -> bool {
    let entries = environment.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let mut values = entries.filter_map(|entry| entry.strip_prefix(owner)?.strip_prefix('='));
    let pid = values.next().and_then(|value| value.split('.').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !process::is_alive(pid))
}

fn kill_all(is_meant: impl Fn(&[u8]) -> bool) {
    for _ in 0..PASSES {
        let marked = marked(&is_meant);
        if marked.is_empty() {
            return;
        }
        for pid in marked {
            // One that has just ended needs no signal.
            let _ = process::send(pid, Signal::Kill);
        }
        std::thread::yield_now();
    }
}

/// Living processes, other than this one, whose environment is meant. That of a zombie, or of somebody else's process,
/// cannot be read.
fn marked(is_meant: impl Fn(&[u8]) -> bool) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_one =
        |pid: &u32| *pid != own && std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| is_meant(&e));
    pids.filter(is_one).collect()
}
