//! Watches the memory of the process while attempts run that have a limit on it.
//!
//! Owns [`Watch`]. Above the limit it stops the run as a signal does: what is in flight is cut off, what has ended is recorded,
//! and a resume goes on. A probe that fails says neither "enough" nor "too much": that is told once, or stops the run, as
//! the limit wants it. Must not know how memory is measured, nor the journal.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::memory::{MemoryLimit, MemoryProbe, UnknownMemory};
use crate::path::OpKey;

/// How often it looks; it looks at the beginning and the end of watched attempts, too.
const EVERY: Duration = Duration::from_millis(100);

const MIB: u64 = 1024 * 1024;

/// The watch of one run.
pub(super) struct Watch {
    probe: Option<Arc<dyn MemoryProbe>>,
    /// Watched attempts in flight, the tightest limit first.
    running: BTreeSet<(MemoryLimit, OpKey)>,
    next: Instant,
    /// That nobody can say how much is held, until it is told, which is once.
    warning: Option<String>,
    has_warned: bool,
    stop: CancellationToken,
    /// Why it has stopped the run.
    why: Option<String>,
}

impl Watch {
    /// A watch that stops its run by `stop`.
    pub(super) fn new(probe: Option<Arc<dyn MemoryProbe>>, stop: CancellationToken) -> Self {
        let (running, next) = (BTreeSet::new(), Instant::now());
        Self { probe, running, next, warning: None, has_warned: false, stop, why: None }
    }

    /// Whether an attempt may begin: not where its limit is passed already.
    pub(super) fn begin(&mut self, key: &OpKey, limit: Option<MemoryLimit>) -> bool {
        let Some(limit) = limit else { return true };
        let watched = (limit, key.clone());
        self.running.insert(watched.clone());
        if self.running.first() == Some(&watched) {
            self.look();
        }
        let is_fine = self.why.is_none();
        if !is_fine {
            self.running.remove(&watched);
        }
        is_fine
    }

    /// An attempt has ended; gives what people should know with it.
    pub(super) fn end(&mut self, key: &OpKey, limit: Option<MemoryLimit>) -> Option<String> {
        let watched = (limit?, key.clone());
        if self.running.contains(&watched) {
            self.look();
            self.running.remove(&watched);
        }
        self.warning.take()
    }

    /// When to look next.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.running.is_empty() && self.why.is_none()).then_some(self.next)
    }

    /// Looks, if it is time to.
    pub(super) fn look_when_due(&mut self) {
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.look();
        }
    }

    /// Why the run was stopped, if it was by this watch.
    pub(super) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    fn look(&mut self) {
        let Some((limit, key)) = self.running.first() else { return };
        self.next = Instant::now() + EVERY;
        let held = self.probe.as_ref().ok_or_else(|| "nothing here measures it".to_owned());
        let (most, path) = (limit.max_mb, &key.path);
        match held.and_then(|probe| probe.held()) {
            Ok(held) if held <= u64::from(most) * MIB => {}
            Ok(held) => {
                let held = held.div_ceil(MIB);
                self.halt(format!(
                    "max_memory_mb: the process holds {held} MiB, and {most} are allowed while `{path}` runs"
                ));
            }
            Err(why) => {
                let message = format!("nobody can say how much memory the process holds: {why}");
                if self.running.iter().any(|(limit, _)| limit.unknown == UnknownMemory::Stop) {
                    self.halt(format!("max_memory_mb: {most} MiB are allowed, and {message}"));
                } else if !self.has_warned {
                    self.has_warned = true;
                    self.warning = Some(format!("the limit of {most} MiB is not watched, because {message}"));
                }
            }
        }
    }

    fn halt(&mut self, why: String) {
        self.why.get_or_insert(why);
        self.stop.cancel();
    }
}
