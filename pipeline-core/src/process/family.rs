//! Everything that a child started, wherever it went.
//!
//! A program may start others in sessions of their own (`setsid`, as agent CLIs do with their tools), so that neither its end nor
//! a signal to its process group reaches them. A child therefore carries marks in its environment, which what it starts
//! inherits; here every process with a mark is found and killed. Only where there is `/proc`. A process that empties its
//! environment *and* leaves its session at once is not found. Must not know what runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::system::{Signal, send};

/// Marks every process of one child: `<id of ours>.<when that began>.<number>`.
const CHILD: &str = "PIPELINE_CHILD";

/// Marks every process of a logical attempt, the same after a crash.
const ATTEMPT: &str = "PIPELINE_ATTEMPT";

/// Passes over the process table: a process that is being killed may have started another just before.
const PASSES: u32 = 50;

/// Numbers the children of this process.
static CHILDREN: AtomicU64 = AtomicU64::new(0);

/// Puts the marks into a child's environment and gives the one that nothing else has. What an earlier process of ours left of
/// the same attempt, when it was killed, is killed first.
pub(super) fn mark(environment: &mut BTreeMap<String, String>, attempt: &str) -> String {
    kill_orphans(&format!("{ATTEMPT}={attempt}"));
    let own = std::process::id();
    let child = format!("{own}.{}.{}", begun(own).unwrap_or(0), CHILDREN.fetch_add(1, Ordering::Relaxed));
    environment.insert(ATTEMPT.to_owned(), attempt.to_owned());
    environment.insert(CHILD.to_owned(), child.clone());
    format!("{CHILD}={child}")
}

/// Kills every process whose environment has the entry `mark` (`NAME=value`), until two passes find none.
pub(super) fn kill_marked(mark: &str) {
    kill_all(true, |environment| has(environment, mark));
}

/// Kills what has the entry `mark` and was started by a process of ours that lives no more.
fn kill_orphans(mark: &str) {
    kill_all(false, |environment| has(environment, mark) && is_orphan(environment));
}

fn entries(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    environment.split(|byte| *byte == 0)
}

fn has(environment: &[u8], entry: &str) -> bool {
    entries(environment).any(|given| given == entry.as_bytes())
}

/// Whether the process of ours that started it is gone. Its number may be another's by now, so that its beginning counts too.
fn is_orphan(environment: &[u8]) -> bool {
    let mut texts = entries(environment).filter_map(|entry| std::str::from_utf8(entry).ok());
    let Some(child) = texts.find_map(|entry| entry.strip_prefix(CHILD)?.strip_prefix('=')) else {
        return false;
    };
    let mut parts = child.split('.').map(str::parse::<u64>);
    let (Some(Ok(owner)), Some(Ok(began))) = (parts.next(), parts.next()) else { return false };
    u32::try_from(owner).map_or(true, |owner| begun(owner) != Some(began))
}

/// Asks everything in a process group to stop but its leader.
pub(super) fn terminate_inside(group: u32) {
    for pid in processes().filter(|pid| *pid != group && group_of(*pid) == Some(group)) {
        // One that has just ended needs no signal.
        let _ = send(pid, Signal::Terminate);
    }
}

/// The process group of a living process.
fn group_of(process: u32) -> Option<u32> {
    fields(process)?.split_whitespace().nth(2)?.parse().ok()
}

/// When a living process began, in ticks since the machine did.
fn begun(process: u32) -> Option<u64> {
    let fields = fields(process)?;
    let mut fields = fields.split_whitespace();
    // A zombie starts nothing more and waits for nothing.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What the system tells of a process, from its state on: the third field; when it began is the 22nd.
fn fields(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may have anything in it.
    stat.rsplit_once(')').map(|(_, fields)| fields.to_owned())
}

/// `is_new`: what is meant may have been started just now.
fn kill_all(is_new: bool, is_meant: impl Fn(&[u8]) -> bool) {
    let mut has_found = is_new;
    for _ in 0..PASSES {
        let marked = marked(&is_meant);
        // A process that becomes another program at this moment has no environment to be seen: look again.
        if marked.is_empty() && !has_found {
            return;
        }
        has_found = !marked.is_empty();
        for pid in marked {
            // One that has just ended needs no signal.
            let _ = send(pid, Signal::Kill);
        }
        std::thread::yield_now();
    }
}

/// Living processes, other than this one, whose environment is meant. That of a zombie, or of somebody else's process,
/// cannot be read.
fn marked(is_meant: impl Fn(&[u8]) -> bool) -> Vec<u32> {
    let own = std::process::id();
    let is_one =
        |pid: &u32| *pid != own && std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| is_meant(&e));
    processes().filter(is_one).collect()
}

/// All processes; none where there is no `/proc`.
fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// How many processes live that this one started, and that those started, wherever they went. What has ended and was not waited
/// for yet is none.
///
/// # Errors
/// Why nobody can say: there is no `/proc`.
pub fn descendants() -> Result<u64, String> {
    let own = std::process::id();
    let began = begun(own).ok_or("there is no /proc that tells")?;
    let mark = format!("{CHILD}={own}.{began}.");
    let parents: BTreeMap<u32, u32> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let is_below = |pid: u32| {
        let line = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
        // A process whose number is used again while this is read could make a circle.
        line.skip(1).take(parents.len()).any(|above| above == own)
    };
    let is_marked = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        entries(&environment).any(|entry| entry.starts_with(mark.as_bytes()))
    };
    let others = parents.keys().copied().filter(|pid| *pid != own);
    let living = others.filter(|pid| is_below(*pid) || is_marked(*pid)).count();
    u64::try_from(living).map_err(|error| error.to_string())
}

/// The parent of a living process.
fn parent(process: u32) -> Option<u32> {
    let fields = fields(process)?;
    let mut fields = fields.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.next()?.parse().ok()
}

/// What lives of an attempt.
#[cfg(test)]
pub(super) fn living(attempt: &str) -> Vec<u32> {
    marked(|environment| has(environment, &format!("{ATTEMPT}={attempt}")))
}
