//! Performance monitoring: the figures of a run, kept while it goes on, and what is made of them at its end.
//!
//! Owns [`Monitor`], an observer like any other: it can be slow, closed or wrong without the run noticing. Each run has
//! one of its own; nothing is looked up by name. Next: `figures.rs`, `report/prometheus.rs`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline_core::event::{Event, EventSink, Hears};

use crate::figures::Figures;
use crate::report::prometheus;
use crate::sources::reason;

/// Keeps the figures of one run. Clones see the same.
#[derive(Clone, Default)]
pub struct Monitor {
    figures: Arc<Mutex<Figures>>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Monitor {
    /// The observer that feeds it. At the run's end it writes `file`, if there is one, as a whole or not at all.
    pub fn sink(&self, file: Option<PathBuf>) -> MonitorSink {
        MonitorSink { monitor: self.clone(), file }
    }

    /// What could not be done at the end of the run.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// The figures as they are now: never waits for the run.
    pub fn figures(&self) -> Figures {
        self.figures.lock().clone()
    }
}

/// Feeds a [`Monitor`].
pub struct MonitorSink {
    monitor: Monitor,
    file: Option<PathBuf>,
}

impl EventSink for MonitorSink {
    fn name(&self) -> &'static str {
        "figures"
    }

    fn hears(&self) -> Hears {
        Hears::Facts
    }

    fn event(&mut self, event: &Event) {
        if let Event::Fact(record) = event {
            self.monitor.figures.lock().apply(record);
        }
    }

    fn finish(&mut self) {
        if let Some(file) = &self.file {
            let text = prometheus::text(&self.monitor.figures(), peak_memory());
            if let Err(error) = replace(file, &text) {
                let why =
                    format!("the figures could not be written to {}: {}", file.display(), reason(&error));
                *self.monitor.trouble.lock() = Some(why);
            }
        }
    }
}

/// Writes a file as a whole or not at all.
///
/// # Errors
/// The system's.
pub fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The most memory that this process had, in bytes; `None` where the system does not tell, never 0.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::figures::tests::{end, records, run_started, start};

    fn feed(monitor: &Monitor, run: &str, steps: u64) {
        let mut sink = monitor.sink(None);
        let mut facts = vec![(0, run_started(run))];
        for step in 0..steps {
            facts.push((step, start(&format!("s{step}"), 1)));
            facts.push((step + 1, end(&format!("s{step}"), 1, 1, None)));
        }
        for record in records(facts) {
            sink.event(&Event::Fact(Arc::new(record)));
        }
        sink.finish();
    }

    /// Naive: one monitor is kept for each workflow name, so that the second run adds to the figures of the first.
    /// Figure: 500 and 501 steps at once.
    #[test]
    fn x03_two_runs_of_one_workflow_at_once_have_figures_of_their_own() {
        let monitors = [Monitor::default(), Monitor::default()];
        std::thread::scope(|scope| {
            for (number, monitor) in monitors.iter().enumerate() {
                scope.spawn(move || feed(monitor, &format!("run-{number}"), 500 + number as u64));
            }
        });
        let all = monitors.each_ref().map(Monitor::figures);
        assert_eq!(all.each_ref().map(Figures::ended_attempts), [500, 501]);
        assert_eq!(all.each_ref().map(|f| f.run_id.as_str()), ["run-0", "run-1"]);
        assert!(all.iter().all(|f| f.workflow == "demo"));
    }

    /// Naive: a process that may be busy is asked, and whoever asks dies with it when the answer is late.
    /// Figure: 200 questions during 2,000 steps.
    #[test]
    fn x20_figures_can_be_asked_for_at_any_time() {
        let monitor = Monitor::default();
        std::thread::scope(|scope| {
            let other = monitor.clone();
            scope.spawn(move || feed(&other, "r", 2_000));
            (0..200).for_each(|_| assert!(monitor.figures().ended_attempts() <= 2_000));
        });
        assert_eq!(monitor.figures().ended_attempts(), 2_000);
    }

    /// Naive: an event about something that was not heard of before is a failure.
    /// Figure: every kind of fact first, in turn.
    #[test]
    fn x01_every_kind_of_fact_is_taken_whatever_came_before() {
        let kinds = pipeline_core::conformance::store::one_of_each("r");
        for skip in 0..kinds.len() {
            let monitor = Monitor::default();
            let mut sink = monitor.sink(None);
            let order = kinds.iter().cycle().skip(skip).take(kinds.len());
            for record in records(order.map(|fact| (1, fact.clone())).collect()) {
                sink.event(&Event::Fact(Arc::new(record)));
            }
            sink.finish();
            let figures = monitor.figures();
            assert_eq!(figures.facts, kinds.len() as u64);
            assert!(figures.to_json()["steps"].is_array() && !prometheus::text(&figures, None).is_empty());
            let _ = crate::advice::advice(&figures);
        }
    }

    /// Naive: a probe that fails gives 0, and 0 is below every limit.
    #[test]
    fn n16_memory_that_is_not_known_is_not_nothing() {
        assert_ne!(peak_memory(), Some(0));
        let text = prometheus::text(&Figures::default(), None);
        assert!(!text.contains("memory"), "{text}");
    }
}
