//! The figures of a run: times, waits, attempts, tokens and costs, folded from its facts.
//!
//! Owns [`Figures`], fed fact by fact, live or from a journal, with the same result. Must not know streams, clocks or
//! plans. Next: `advice.rs`, which reads them; `monitor.rs`, which keeps them while a run goes on.

use std::collections::HashMap;

use indexmap::IndexMap;
use pipeline_core::clock::Timestamp;
use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{AttemptEnd, Fact, Record, RunStatus, Status, Usage};
use pipeline_core::path::StepPath;
use pipeline_core::value::Value;
use serde_json::json;

/// One physical attempt of a step instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Number, from 1.
    pub number: u32,
    /// Wall time of its start.
    pub started_at: Timestamp,
    /// Run time when it could have started.
    pub ready_ms: u64,
    /// Run time of its start.
    pub started_ms: u64,
    /// Run time of its end; `None` = it runs, or a crash cut it off.
    pub ended_ms: Option<u64>,
    /// How it ended.
    pub status: Option<Status>,
    /// What kind of trouble it had.
    pub error: Option<(ErrorKind, String)>,
    /// Milliseconds that it worked.
    pub duration_ms: u64,
    /// What it used.
    pub usage: Usage,
}

/// One step instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepFigures {
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
    /// Why it was not run.
    pub skipped: Option<String>,
}

impl StepFigures {
    /// How it stands; `None` = it runs.
    pub fn status(&self) -> Option<Status> {
        if self.skipped.is_some() {
            return Some(Status::Skipped);
        }
        self.attempts.last().and_then(|a| a.status)
    }

    /// Milliseconds that its attempts worked, together.
    pub fn busy_ms(&self) -> u64 {
        self.attempts.iter().map(|a| a.duration_ms).sum()
    }

    /// Milliseconds that it waited for a place before its first attempt.
    pub fn waited_ms(&self) -> u64 {
        self.attempts.first().map_or(0, |a| a.started_ms.saturating_sub(a.ready_ms))
    }
}

/// Step instances of one place in the file: all turns of a loop, all items of a fan-out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Family {
    /// Instances that were started or skipped.
    pub instances: usize,
    /// Those that ended well.
    pub succeeded: usize,
    /// Those that ended badly.
    pub failed: usize,
    /// Those that were not run.
    pub skipped: usize,
    /// Attempts in all.
    pub attempts: usize,
    /// Attempts beyond the first of an instance that failed before.
    pub retries: usize,
    /// Attempts that a crash cut off.
    pub cut: usize,
    /// Working time of each instance, ascending.
    pub busy_ms: Vec<u64>,
    /// Waiting for a place, together.
    pub waited_ms: u64,
    /// The longest wait.
    pub longest_wait_ms: u64,
    /// What all attempts used.
    pub usage: Usage,
    /// What attempts used that did not succeed.
    pub wasted: Usage,
    /// Kinds of trouble, with their number.
    pub errors: IndexMap<&'static str, usize>,
    /// Most at once.
    pub at_once: usize,
}

impl Family {
    /// Working time, together.
    pub fn total_ms(&self) -> u64 {
        self.busy_ms.iter().sum()
    }

    /// The working time that `percent` of the instances did not exceed.
    pub fn percentile(&self, percent: usize) -> u64 {
        let last = self.busy_ms.len().saturating_sub(1);
        self.busy_ms.get((self.busy_ms.len() * percent / 100).min(last)).copied().unwrap_or(0)
    }
}

/// The figures of one run. Nothing in it is shared between runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// The run's id.
    pub run_id: String,
    /// The workflow's name.
    pub workflow: String,
    /// `live`, `mock`, …
    pub mode: String,
    /// Step instances, in the order in which they were first heard of.
    pub steps: IndexMap<StepPath, StepFigures>,
    /// Facts.
    pub facts: u64,
    /// Effects that were recorded.
    pub effects: u64,
    /// Processes that worked on it.
    pub processes: u64,
    /// Run time of the last fact.
    pub elapsed_ms: u64,
    /// How it ended or stopped, if it did.
    pub status: Option<RunStatus>,
    /// Attempts that run.
    pub running: usize,
    /// Most attempts at once.
    pub most_at_once: usize,
    /// What all attempts used.
    pub usage: Usage,
    places: Places,
}

/// When the things of a list could start: what is needed to tell how long they waited.
#[derive(Debug, Clone, Default, PartialEq)]
struct Places {
    /// For a scope (`fan[3]`), when its last step ended.
    ended: HashMap<String, u64>,
    /// For a loop or fan-out (`fan`), when it could start.
    opened: HashMap<String, u64>,
    /// For a loop or fan-out, its items that run: (items, most at once, the last end).
    groups: HashMap<String, Group>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    running: usize,
    at_once: usize,
    last_end: u64,
}

impl Figures {
    /// The figures of recorded facts.
    pub fn of(records: &[Record]) -> Self {
        let mut figures = Self::default();
        for record in records {
            figures.apply(record);
        }
        figures
    }

    /// Takes one more fact in.
    pub fn apply(&mut self, record: &Record) {
        self.facts += 1;
        self.elapsed_ms = self.elapsed_ms.max(record.elapsed_ms);
        match &record.fact {
            Fact::RunStarted { run_id, workflow, mode, .. } => {
                self.run_id.clone_from(run_id);
                self.workflow.clone_from(workflow);
                self.mode.clone_from(mode);
                self.processes += 1;
            }
            Fact::RunResumed { .. } => {
                self.processes += 1;
                self.status = None;
                // Whatever ran in the process before was cut off.
                self.running = 0;
                self.places.groups.values_mut().for_each(|group| group.running = 0);
            }
            Fact::AttemptStarted { path, attempt, .. } => self.started(path, *attempt, record),
            Fact::AttemptEnded { path, attempt, end, .. } => self.ended(path, *attempt, end, record),
            Fact::StepSkipped { path, reason, .. } => {
                self.places.ready(path);
                self.places.end(path, record.elapsed_ms);
                self.steps.entry(path.clone()).or_default().skipped = Some(reason.clone());
            }
            Fact::EffectDone { .. } => self.effects += 1,
            Fact::TimerFired { path, .. } => {
                // The wait before another attempt is over.
                if let Some(last) = self.steps.get_mut(path).and_then(|s| s.attempts.last_mut()) {
                    last.ended_ms = last.ended_ms.max(Some(record.elapsed_ms));
                }
            }
            Fact::RunPaused { reason } => self.status = Some(reason.status()),
            Fact::RunEnded { status, .. } => self.status = Some(*status),
            Fact::SpendReserved { .. } => {}
        }
    }

    fn started(&mut self, path: &StepPath, number: u32, record: &Record) {
        let first_ready = self.places.ready(path);
        let step = self.steps.entry(path.clone()).or_default();
        let ready_ms = step.attempts.last().map_or(first_ready, |a| a.ended_ms.unwrap_or(record.elapsed_ms));
        step.attempts.push(Attempt {
            number,
            started_at: record.at,
            ready_ms: ready_ms.min(record.elapsed_ms),
            started_ms: record.elapsed_ms,
            ended_ms: None,
            status: None,
            error: None,
            duration_ms: 0,
            usage: Usage::default(),
        });
        self.running += 1;
        self.most_at_once = self.most_at_once.max(self.running);
        self.places.start(path);
    }

    fn ended(&mut self, path: &StepPath, number: u32, end: &AttemptEnd, record: &Record) {
        let step = self.steps.entry(path.clone()).or_default();
        let began = step.attempts.iter().any(|a| a.number == number);
        if !began {
            // It ended before it could start: a template that cannot be rendered, a limit that is reached.
            let ready_ms = record.elapsed_ms;
            step.attempts.push(Attempt {
                number,
                started_at: record.at,
                ready_ms,
                started_ms: ready_ms,
                ended_ms: None,
                status: None,
                error: None,
                duration_ms: 0,
                usage: Usage::default(),
            });
        }
        if let Some(attempt) = step.attempts.iter_mut().find(|a| a.number == number) {
            attempt.ended_ms = Some(record.elapsed_ms);
            attempt.status = Some(end.status);
            attempt.error = end.error.as_ref().map(|e| (e.kind, e.message.clone()));
            attempt.duration_ms = end.duration_ms;
            attempt.usage = end.usage;
        }
        self.usage.add(&end.usage);
        if began {
            self.running = self.running.saturating_sub(1);
            self.places.stop(path);
        }
        self.places.end(path, record.elapsed_ms);
    }

    /// Attempts that have ended.
    pub fn ended_attempts(&self) -> usize {
        self.steps.values().flat_map(|s| &s.attempts).filter(|a| a.status.is_some()).count()
    }

    /// Instances by their place in the file, in the order in which places were first heard of.
    pub fn families(&self) -> IndexMap<String, Family> {
        let mut families: IndexMap<String, Family> = IndexMap::new();
        for (path, step) in &self.steps {
            families.entry(family_of(path.as_str())).or_default().take(step);
        }
        for (name, family) in &mut families {
            family.busy_ms.sort_unstable();
            let group = name.rfind("[]").map(|at| &name[..at]);
            family.at_once = group.map_or(1, |group| self.at_once(group));
        }
        families
    }

    /// Most turns or items of a loop or fan-out at once; `group` as [`family_of`] writes it.
    fn at_once(&self, group: &str) -> usize {
        let of = |(name, counts): (&String, &Group)| (family_of(name) == group).then_some(counts.at_once);
        self.places.groups.iter().filter_map(of).max().unwrap_or(1)
    }

    /// `pipeline.figures/1`: the figures as a document.
    pub fn to_json(&self) -> Value {
        let family = |(name, f): (&String, &Family)| {
            json!({
                "step": name, "instances": f.instances, "succeeded": f.succeeded, "failed": f.failed,
                "skipped": f.skipped, "attempts": f.attempts, "retries": f.retries, "cut_off": f.cut,
                "busy_ms": {"total": f.total_ms(), "median": f.percentile(50), "p95": f.percentile(95),
                    "max": f.percentile(100)},
                "waited_ms": {"total": f.waited_ms, "max": f.longest_wait_ms},
                "at_once": f.at_once, "errors": f.errors, "tokens": f.usage.tokens(),
                "cost_usd": f.usage.cost_usd, "calls": f.usage.calls,
            })
        };
        let seconds = self.elapsed_ms as f64 / 1000.0;
        let per_second = if seconds > 0.0 { self.ended_attempts() as f64 / seconds } else { 0.0 };
        json!({
            "schema": "pipeline.figures/1",
            "run_id": self.run_id,
            "elapsed_ms": self.elapsed_ms,
            "processes": self.processes,
            "facts": self.facts,
            "attempts": self.ended_attempts(),
            "attempts_per_second": (per_second * 100.0).round() / 100.0,
            "most_at_once": self.most_at_once,
            "steps": self.families().iter().map(family).collect::<Vec<_>>(),
        })
    }
}

impl Family {
    fn take(&mut self, step: &StepFigures) {
        self.instances += 1;
        match step.status() {
            Some(Status::Skipped) => self.skipped += 1,
            Some(status) if status.is_success() => self.succeeded += 1,
            Some(_) => self.failed += 1,
            None => {}
        }
        self.attempts += step.attempts.len();
        let earlier = step.attempts.split_last().map_or(&[][..], |(_, earlier)| earlier);
        self.cut += earlier.iter().filter(|a| a.status.is_none()).count();
        self.retries += earlier.iter().filter(|a| a.status.is_some()).count();
        if !step.attempts.is_empty() {
            self.busy_ms.push(step.busy_ms());
        }
        self.waited_ms += step.waited_ms();
        self.longest_wait_ms = self.longest_wait_ms.max(step.waited_ms());
        for attempt in &step.attempts {
            self.usage.add(&attempt.usage);
            if let Some((kind, _)) = &attempt.error {
                *self.errors.entry(kind.name()).or_default() += 1;
                self.wasted.add(&attempt.usage);
            }
        }
    }
}

impl Places {
    /// When the step at `path` could have started.
    fn ready(&mut self, path: &StepPath) -> u64 {
        let path = path.as_str();
        // From the outside in: each loop or fan-out on the way opens when what stood before it had ended.
        let mut ready = 0;
        for (scope, head) in scopes(path) {
            let before = self.ended.get(scope).copied();
            ready = before.map_or(ready, |ended| ended.max(ready));
            if head.len() < path.len() {
                ready = *self.opened.entry(head.to_owned()).or_insert(ready);
                // Turns that never overlapped wait for one another by their nature, not for a place.
                if let Some(group) = self.groups.get(head).filter(|g| g.at_once <= 1 && g.running == 0) {
                    ready = ready.max(group.last_end);
                }
            }
        }
        ready
    }

    fn start(&mut self, path: &StepPath) {
        for (_, head) in scopes(path.as_str()).filter(|(_, head)| head.len() < path.as_str().len()) {
            let group = self.groups.entry(head.to_owned()).or_default();
            group.running += 1;
            group.at_once = group.at_once.max(group.running);
        }
    }

    fn stop(&mut self, path: &StepPath) {
        for (_, head) in scopes(path.as_str()).filter(|(_, head)| head.len() < path.as_str().len()) {
            let group = self.groups.entry(head.to_owned()).or_default();
            group.running = group.running.saturating_sub(1);
        }
    }

    fn end(&mut self, path: &StepPath, at: u64) {
        let whole = path.as_str();
        for (scope, head) in scopes(whole) {
            if head.len() < whole.len() {
                self.groups.entry(head.to_owned()).or_default().last_end = at;
            }
            // Items of a loop that is open already do not look at this: they have the time at which it opened.
            self.ended.insert(scope.to_owned(), at);
        }
    }
}

/// The lists that a path leads through, outermost first: (the list's scope, the path of the step in it).
/// `a[1]/b/c` is ("", `a`), (`a[1]`, `a[1]/b`), (`a[1]/b`, `a[1]/b/c`).
fn scopes(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from > path.len() || path.is_empty() {
            return None;
        }
        let rest = &path[from..];
        let end = from + rest.find('/').unwrap_or(rest.len());
        let name_end = from + rest[..end - from].find('[').unwrap_or(end - from);
        let scope = path[..from].trim_end_matches('/');
        from = end + 1;
        Some((scope, &path[..name_end]))
    })
}

/// The place in the file that a path means: `fan[3]/think` is `fan[]/think`.
pub fn family_of(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => {
                inside = true;
                name.push('[');
            }
            ']' => {
                inside = false;
                name.push(']');
            }
            _ if inside => {}
            c => name.push(c),
        }
    }
    name
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use pipeline_core::error::StepError;
    use pipeline_core::value::{Data, Hash};

    /// Facts with their run times, numbered as a run numbers them.
    pub(crate) fn records(facts: Vec<(u64, Fact)>) -> Vec<Record> {
        let number = |(index, (elapsed_ms, fact)): (usize, (u64, Fact))| Record {
            index: index as u64,
            at: Timestamp(1_700_000_000_000 + i64::try_from(elapsed_ms).unwrap()),
            elapsed_ms,
            fact,
        };
        facts.into_iter().enumerate().map(number).collect()
    }

    pub(crate) fn run_started(run: &str) -> Fact {
        Fact::RunStarted {
            run_id: run.to_owned(),
            workflow: "demo".to_owned(),
            plan: Hash::of_bytes(b""),
            mode: "mock".to_owned(),
            inputs: Data::null(),
            seed: 0,
        }
    }

    pub(crate) fn start(path: &str, attempt: u32) -> Fact {
        Fact::AttemptStarted { path: path.into(), attempt, turn: attempt, fingerprint: Hash::of_bytes(b"") }
    }

    pub(crate) fn end(path: &str, attempt: u32, ms: u64, error: Option<ErrorKind>) -> Fact {
        let mut end = match error {
            None => AttemptEnd::ok(Value::Null),
            Some(kind) => AttemptEnd::failed(StepError::new(kind, "trouble")),
        };
        end.duration_ms = ms;
        end.usage = Usage { input: 10, output: 5, calls: 1, cost_usd: Some(0.5), ..Usage::default() };
        let fingerprint = Hash::of_bytes(b"");
        Fact::AttemptEnded { path: path.into(), attempt, turn: attempt, fingerprint, end: Box::new(end) }
    }

    #[test]
    fn a_path_leads_through_lists() {
        let all: Vec<_> = scopes("a[1]/b/c").collect();
        assert_eq!(all, [("", "a"), ("a[1]", "a[1]/b"), ("a[1]/b", "a[1]/b/c")]);
        assert_eq!(scopes("").count(), 0);
        assert_eq!(family_of("a[12]/b[0]/c"), "a[]/b[]/c");
    }

    #[test]
    fn waits_are_those_of_items_that_had_no_place_and_not_those_of_turns() {
        let ok = None;
        let figures = Figures::of(&records(vec![
            (0, run_started("r")),
            (0, start("list", 1)),
            (10, end("list", 1, 10, ok)),
            (10, start("fan[0]/think", 1)),
            (10, start("fan[1]/think", 1)),
            (30, end("fan[0]/think", 1, 20, ok)),
            (30, start("fan[2]/think", 1)),
            (50, end("fan[1]/think", 1, 40, ok)),
            (60, end("fan[2]/think", 1, 30, ok)),
            (60, start("turns[0]/x", 1)),
            (70, end("turns[0]/x", 1, 10, ok)),
            (71, start("turns[1]/x", 1)),
            (80, end("turns[1]/x", 1, 9, ok)),
        ]));
        let waited = |path: &str| figures.steps[&StepPath::from(path)].waited_ms();
        assert_eq!(["fan[0]/think", "fan[1]/think", "fan[2]/think"].map(waited), [0, 0, 20]);
        assert_eq!(["list", "turns[0]/x", "turns[1]/x"].map(waited), [0, 0, 1]);
        let families = figures.families();
        let fan = &families["fan[]/think"];
        assert_eq!((fan.instances, fan.at_once, fan.total_ms(), fan.percentile(100)), (3, 2, 90, 40));
        assert_eq!(families["turns[]/x"].at_once, 1);
        assert_eq!((figures.most_at_once, figures.ended_attempts()), (2, 6));
        assert_eq!(figures.usage.calls, 6);
    }

    #[test]
    fn retries_and_attempts_that_a_crash_cut_off_are_counted_apart() {
        let resumed = Fact::RunResumed { pid: 7, version: "1".to_owned() };
        let figures = Figures::of(&records(vec![
            (0, run_started("r")),
            (0, start("a", 1)),
            (5, end("a", 1, 5, Some(ErrorKind::RateLimited))),
            (25, start("a", 2)),
            (40, resumed),
            (40, start("a", 3)),
            (50, end("a", 3, 10, None)),
        ]));
        let families = figures.families();
        let a = &families["a"];
        assert_eq!((a.attempts, a.retries, a.cut, a.succeeded, a.failed), (3, 1, 1, 1, 0));
        assert_eq!(a.errors["rate_limited"], 1);
        assert_eq!(a.wasted.cost_usd, Some(0.5));
        assert_eq!((figures.processes, figures.running), (2, 0));
    }
}
