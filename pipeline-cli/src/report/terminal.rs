//! A run on a terminal: lines that stay, above one line that is redrawn.
//!
//! Owns the live line. Lines that stay are written by the observer's own thread; the live line is written by a future
//! beside the run (see [`Live::redraw`]), so that a terminal that does not take text holds up neither the run nor the
//! other. Must not know what is in the lines that stay: they are `report/plain.rs`'s.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_core::event::{Event, EventSink};
use pipeline_core::fact::Fact;
use pipeline_core::path::StepPath;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::console::{DIM, paint, short};
use crate::report::plain;

/// To the left edge, and wipe the line.
const WIPE: &str = "\r\u{1b}[2K";

/// Between two drawings of the live line.
const FRAME: Duration = Duration::from_millis(100);

/// The live line of a run. Clones are the same line.
#[derive(Clone)]
pub struct Live {
    state: Arc<Mutex<State>>,
    colour: bool,
}

#[derive(Default)]
struct State {
    running: BTreeSet<StepPath>,
    done: usize,
    changed: bool,
}

impl Live {
    /// A line that nothing has happened to yet.
    pub fn new(colour: bool) -> Self {
        Self { state: Arc::default(), colour }
    }

    /// The observer that feeds the line and writes lines that stay to `out`.
    pub fn sink<W: Write + Send>(&self, out: W, verbose: bool) -> LiveSink<W> {
        LiveSink { live: self.clone(), out, verbose }
    }

    /// Draws the line whenever it has changed, at most ten times a second, for ever.
    pub async fn redraw(&self, mut out: impl AsyncWrite + Unpin, width: impl Fn() -> usize) -> Infallible {
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            frames.tick().await;
            if let Some(frame) = self.frame(width()) {
                // When the terminal is gone there is nobody left to draw for.
                let _gone = out.write_all(frame.as_bytes()).await;
                let _gone = out.flush().await;
            }
        }
    }

    /// What wipes the line.
    pub fn wipe() -> &'static str {
        WIPE
    }

    /// The bytes that draw the line anew; `None` when it is as it was.
    fn frame(&self, width: usize) -> Option<String> {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        let paths: Vec<&str> = state.running.iter().take(20).map(StepPath::as_str).collect();
        let counts = format!("running {}, done {}", state.running.len(), state.done);
        let text = if paths.is_empty() { counts } else { format!("{counts}: {}", paths.join(", ")) };
        // A line that reaches the edge would wrap, and one wipe would not take it back.
        let text = short(&text, width.saturating_sub(1).max(10));
        Some(format!("{WIPE}{}", self.styled(&paint(DIM, text))))
    }

    fn styled(&self, text: &str) -> String {
        if self.colour { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() }
    }

    fn note(&self, event: &Event) {
        let Event::Fact(record) = event else { return };
        let mut state = self.state.lock();
        match &record.fact {
            Fact::AttemptStarted { path, .. } => {
                state.running.insert(path.clone());
            }
            Fact::AttemptEnded { path, .. } => {
                state.running.remove(path);
                state.done += 1;
            }
            _ => return,
        }
        state.changed = true;
    }
}

/// Feeds a [`Live`] line, and writes what stays.
pub struct LiveSink<W> {
    live: Live,
    out: W,
    verbose: bool,
}

impl<W: Write + Send> EventSink for LiveSink<W> {
    fn event(&mut self, event: &Event) {
        self.live.note(event);
        if let Some(line) = plain::line(event, self.verbose) {
            // One write: whatever is drawn at the same time comes whole before or after it.
            let text = format!("{WIPE}{}\n", self.live.styled(&line));
            // When the terminal is gone there is nobody left to tell.
            let _gone = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
            self.live.state.lock().changed = true;
        }
    }
}

/// Columns of the terminal on standard error; 80 where it does not tell.
pub fn width() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::report::plain::tests::{Shared, ended, started};
    use pipeline_core::fact::Status;

    #[test]
    fn the_line_tells_what_runs_and_is_drawn_only_when_it_changed() {
        let live = Live::new(false);
        let mut sink = live.sink(Shared::default(), false);
        assert_eq!(live.frame(80), None);
        sink.event(&started("a"));
        sink.event(&started("fan[0]/b"));
        assert_eq!(live.frame(80), Some(format!("{WIPE}running 2, done 0: a, fan[0]/b")));
        assert_eq!(live.frame(80), None);
        sink.event(&ended("a", Status::Ok, None));
        assert_eq!(live.frame(80), Some(format!("{WIPE}running 1, done 1: fan[0]/b")));
    }

    #[test]
    fn a_narrow_terminal_gets_a_line_that_does_not_wrap() {
        let live = Live::new(false);
        live.sink(Shared::default(), false).event(&started("a-step-with-a-long-name"));
        let frame = live.frame(20).unwrap();
        assert_eq!(frame.strip_prefix(WIPE).map(|text| text.chars().count()), Some(19));
    }

    #[test]
    fn lines_that_stay_wipe_the_live_one_first_and_it_is_drawn_again() {
        let live = Live::new(false);
        let out = Shared::default();
        live.sink(out.clone(), false).event(&ended("a", Status::Ok, None));
        assert_eq!(out.text(), format!("{WIPE}ok        a (12 ms)\n"));
        assert!(live.frame(80).is_some());
    }

    #[test]
    fn colour_is_only_sent_where_it_is_wanted() {
        let live = Live::new(true);
        live.sink(Shared::default(), false).event(&started("a"));
        assert!(live.frame(80).unwrap().contains("\u{1b}[2mrunning"));
    }
}
