//! A run as lines for people, where there is no terminal to redraw.
//!
//! Owns the line of an event, which `report/terminal.rs` prints too. Must not know what a run is for.

use std::io::Write;

use anstyle::Style;
use pipeline_core::event::{Event, EventSink, Hears, Progress};
use pipeline_core::fact::{AttemptEnd, Fact, Record, Status};
use pipeline_core::path::StepPath;

use crate::console::{CYAN, DIM, GREEN, RED, YELLOW, paint, short};
use crate::report;

/// Most characters of a message in a line.
const LONGEST: usize = 300;

/// Prints one line for each step that ended.
pub struct Plain<W> {
    out: W,
    verbose: bool,
}

impl<W: Write + Send> Plain<W> {
    /// Lines to `out`: of top-level steps, or of every step when `verbose`.
    pub fn new(out: W, verbose: bool) -> Self {
        Self { out, verbose }
    }
}

impl<W: Write + Send> EventSink for Plain<W> {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn hears(&self) -> Hears {
        if self.verbose { Hears::All } else { Hears::Forms }
    }

    fn event(&mut self, event: &Event) {
        if let Some(line) = line(event, self.verbose) {
            // When standard error is gone there is nobody left to tell.
            let _gone = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        }
    }
}

/// The line that an event is worth, if any.
pub fn line(event: &Event, verbose: bool) -> Option<String> {
    match event {
        Event::Fact(record) => fact_line(record, verbose),
        Event::Progress(Progress::GroupEnded { path, status }) if verbose || is_top(path) => {
            Some(format!("{} {}", status_word(*status), name(path)))
        }
        Event::Progress(Progress::Note { path, text }) if verbose => {
            Some(format!("{} {}: {}", word(DIM, "note"), name(path), short(text, LONGEST)))
        }
        Event::Progress(_) => None,
    }
}

fn fact_line(record: &Record, verbose: bool) -> Option<String> {
    match &record.fact {
        Fact::AttemptStarted { path, attempt, .. } if verbose => {
            let which = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            Some(format!("{} {}{which}", word(DIM, "start"), name(path)))
        }
        Fact::AttemptEnded { path, attempt, end, .. } if verbose || is_top(path) => {
            Some(ended(path, *attempt, end))
        }
        Fact::StepSkipped { path, reason, .. } if verbose || is_top(path) => {
            Some(format!("{} {}: {}", status_word(Status::Skipped), name(path), short(reason, LONGEST)))
        }
        _ => None,
    }
}

fn ended(path: &StepPath, attempt: u32, end: &AttemptEnd) -> String {
    let time = report::time(end.duration_ms);
    let used = report::usage(&end.usage).map_or_else(String::new, |used| format!(", {used}"));
    let why = end.error.as_ref().map_or_else(String::new, |e| format!(": {}", short(&e.message, LONGEST)));
    let which = if attempt > 1 { format!("attempt {attempt}, ") } else { String::new() };
    let status = if end.put_back { word(YELLOW, "waits") } else { status_word(end.status) };
    format!("{status} {} ({which}{time}{used}){why}", name(path))
}

fn name(path: &StepPath) -> String {
    short(path.as_str(), LONGEST)
}

fn status_word(status: Status) -> String {
    let style = match status {
        Status::Ok => GREEN,
        Status::Degraded => YELLOW,
        Status::Skipped => DIM,
        Status::Cancelled => CYAN,
        Status::Failed | Status::TimedOut => RED,
    };
    word(style, status.name())
}

/// A word in a column of its own.
fn word(style: Style, text: &str) -> String {
    paint(style, format!("{text:<9}"))
}

/// True for a step of the file itself, not for one inside a loop, branch or child.
fn is_top(path: &StepPath) -> bool {
    !path.as_str().is_empty() && !path.as_str().contains(['/', '['])
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use parking_lot::Mutex;
    use pipeline_core::clock::Timestamp;
    use pipeline_core::error::{ErrorKind, StepError};
    use pipeline_core::value::Hash;
    use std::sync::Arc;

    /// A stream that can be read while somebody else holds its writing end.
    #[derive(Clone, Default)]
    pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn fact(fact: Fact) -> Event {
        Event::Fact(Arc::new(Record { index: 1, at: Timestamp(0), elapsed_ms: 5, fact }))
    }

    pub(crate) fn started(path: &str) -> Event {
        let fingerprint = Hash::of_bytes(b"");
        fact(Fact::AttemptStarted { path: path.into(), attempt: 1, turn: 1, fingerprint })
    }

    pub(crate) fn ended(path: &str, status: Status, error: Option<&str>) -> Event {
        let mut end = AttemptEnd::ok(serde_json::Value::Null);
        end.status = status;
        end.duration_ms = 12;
        end.error = error.map(|message| StepError::new(ErrorKind::Invalid, message));
        let fingerprint = Hash::of_bytes(b"");
        fact(Fact::AttemptEnded { path: path.into(), attempt: 1, turn: 1, fingerprint, end: Box::new(end) })
    }

    pub(crate) fn group_ended(path: &str, status: Status) -> Event {
        Event::Progress(Progress::GroupEnded { path: path.into(), status })
    }

    fn printed(verbose: bool, events: &[Event]) -> String {
        let shared = Shared::default();
        let mut plain = Plain::new(shared.clone(), verbose);
        for event in events {
            plain.event(event);
        }
        anstream::adapter::strip_str(&shared.text()).to_string()
    }

    fn example() -> Vec<Event> {
        let skipped =
            Fact::StepSkipped { path: "extra".into(), turn: 1, reason: "its condition is false".to_owned() };
        vec![
            started("list"),
            ended("list", Status::Ok, None),
            ended("fan[0]/think", Status::Failed, Some("bad\nanswer\u{1b}[2J")),
            group_ended("fan", Status::Failed),
            fact(skipped),
        ]
    }

    #[test]
    fn top_level_steps_have_a_line_each() {
        let expected = "ok        list (12 ms)\nfailed    fan\nskipped   extra: its condition is false\n";
        assert_eq!(printed(false, &example()), expected);
    }

    #[test]
    fn verbose_tells_of_every_leaf_on_one_line() {
        let expected = "start     list\nok        list (12 ms)\n\
            failed    fan[0]/think (12 ms): bad answer\u{fffd}[2J\nfailed    fan\n\
            skipped   extra: its condition is false\n";
        assert_eq!(printed(true, &example()), expected);
    }
}
