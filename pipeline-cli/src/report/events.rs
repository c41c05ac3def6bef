//! A run as lines of JSON, while it happens.
//!
//! Owns `run --events`. Each line is flushed, so that a reader sees it when it happened. Must not know terminals.

use std::io::Write;

use pipeline_core::event::{Event, EventSink, Progress};
use pipeline_core::value::Value;

/// Writes every event as one line.
pub struct EventLines<W> {
    out: W,
    gone: bool,
}

impl<W: Write + Send> EventLines<W> {
    /// Lines to `out`.
    pub fn new(out: W) -> Self {
        Self { out, gone: false }
    }
}

impl<W: Write + Send> EventSink for EventLines<W> {
    fn name(&self) -> &'static str {
        "events"
    }

    fn event(&mut self, event: &Event) {
        if self.gone {
            return;
        }
        let line = match event {
            Event::Fact(record) => record.to_event(),
            Event::Progress(progress) => progress_line(progress),
        };
        let written = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        // Whoever read has gone: the run goes on, and its journal has every fact.
        self.gone = written.is_err();
    }
}

fn progress_line(progress: &Progress) -> Value {
    let mut line = serde_json::Map::new();
    line.insert("schema".to_owned(), Value::from("pipeline.event/1"));
    if let Ok(Value::Object(fields)) = serde_json::to_value(progress) {
        line.extend(fields);
    }
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::report::plain::tests::{Shared, ended, group_ended};
    use pipeline_core::fact::Status;
    use serde_json::json;
    use std::io;

    #[test]
    fn each_line_is_an_object_of_its_own_with_a_schema() {
        let shared = Shared::default();
        let mut lines = EventLines::new(shared.clone());
        lines.event(&ended("fan[3]/think", Status::Ok, None));
        lines.event(&group_ended("fan", Status::Ok));
        let text = shared.text();
        let parsed: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(parsed.len(), 2);
        assert!(parsed.iter().all(|line| line["schema"] == "pipeline.event/1"));
        assert_eq!(parsed[0]["fact"], "AttemptEnded");
        assert_eq!(parsed[0]["path"], "fan[3]/think");
        let progress =
            json!({"schema": "pipeline.event/1", "progress": "group_ended", "path": "fan", "status": "ok"});
        assert_eq!(parsed[1], progress);
    }

    struct Closed(u32);

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_not_written_to_again() {
        let mut lines = EventLines::new(Closed(0));
        lines.event(&ended("a", Status::Ok, None));
        lines.event(&ended("b", Status::Ok, None));
        assert_eq!(lines.out.0, 1);
    }
}
