//! Watches what the process holds while attempts run that have a limit on it.
//!
//! Owns [`Watch`]. Beyond a limit it stops the run as a signal does: what is in flight is cut off, what has ended is recorded,
//! and a resume goes on. A probe that fails says neither "enough" nor "too much": that is told once, or stops the run, as
//! the limit wants it. Must not know how anything is measured, nor the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::path::OpKey;
use crate::resources::{Resource, ResourceLimits, ResourceProbe, Unknown};

/// How often it looks; it looks at the beginning and the end of watched attempts, too.
const EVERY: Duration = Duration::from_millis(100);

/// The watch of one run.
pub(super) struct Watch {
    probe: Option<Arc<dyn ResourceProbe>>,
    /// Watched attempts in flight, by what they may hold: many have the same limits.
    running: BTreeMap<ResourceLimits, BTreeSet<OpKey>>,
    next: Instant,
    /// What nobody can say, until it is told, which is once for each.
    warning: Option<String>,
    has_warned: BTreeSet<Resource>,
    stop: CancellationToken,
    /// Why it has stopped the run.
    why: Option<String>,
}

impl Watch {
    /// A watch that stops its run by `stop`.
    pub(super) fn new(probe: Option<Arc<dyn ResourceProbe>>, stop: CancellationToken) -> Self {
        Self {
            probe,
            running: BTreeMap::new(),
            next: Instant::now(),
            warning: None,
            has_warned: BTreeSet::new(),
            stop,
            why: None,
        }
    }

    /// Whether an attempt may begin: not where a limit is passed already.
    pub(super) fn begin(&mut self, key: &OpKey, limits: ResourceLimits) -> bool {
        if limits.is_empty() {
            return true;
        }
        let others = self.running.entry(limits).or_default();
        let is_first = others.is_empty();
        others.insert(key.clone());
        if is_first {
            self.look();
        }
        let is_fine = self.why.is_none();
        if !is_fine {
            self.leave(key, limits);
        }
        is_fine
    }

    /// An attempt has ended; gives what people should know with it.
    pub(super) fn end(&mut self, key: &OpKey, limits: ResourceLimits) -> Option<String> {
        if self.running.get(&limits).is_some_and(|keys| keys.contains(key)) {
            self.look();
            self.leave(key, limits);
        }
        self.warning.take()
    }

    fn leave(&mut self, key: &OpKey, limits: ResourceLimits) {
        if let Some(keys) = self.running.get_mut(&limits) {
            keys.remove(key);
            if keys.is_empty() {
                self.running.remove(&limits);
            }
        }
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
        self.next = Instant::now() + EVERY;
        for resource in Resource::ALL {
            self.look_at(resource);
        }
    }

    fn look_at(&mut self, resource: Resource) {
        let limits = self.running.keys().copied().reduce(ResourceLimits::and);
        let Some((limits, limit)) = limits.and_then(|limits| Some((limits, limits.limit(resource)?))) else {
            return;
        };
        let read = match &self.probe {
            Some(probe) => probe.read(resource),
            None => Err("nothing here measures it".to_owned()),
        };
        match read {
            Ok(read) if resource.is_within(read, limit) => {}
            Ok(read) => {
                let path = self.narrowest(resource, limit);
                self.halt(format!(
                    "{}: {} while `{path}` runs",
                    resource.key(),
                    resource.passed(read, limit)
                ));
            }
            Err(why) => {
                let message = format!("nobody can say {}: {why}", resource.question());
                if limits.on_unknown == Unknown::Stop {
                    self.halt(format!("{}: {limit}, and {message}", resource.key()));
                } else if self.has_warned.insert(resource) {
                    let told = format!("`{}: {limit}` is not watched, because {message}", resource.key());
                    let earlier = self.warning.take().map_or_else(String::new, |earlier| earlier + "; ");
                    self.warning = Some(earlier + &told);
                }
            }
        }
    }

    /// Who has the limit.
    fn narrowest(&self, resource: Resource, limit: u64) -> String {
        let mut groups = self.running.iter().filter(|(limits, _)| limits.limit(resource) == Some(limit));
        let key = groups.find_map(|(_, keys)| keys.first());
        key.map_or_else(String::new, |key| key.path.to_string())
    }

    fn halt(&mut self, why: String) {
        self.why.get_or_insert(why);
        self.stop.cancel();
    }
}
