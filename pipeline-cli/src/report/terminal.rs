//! A run on a terminal: lines that stay, above a few that are drawn again and again.
//!
//! Owns [`Live`]: what runs, folded to a few lines. There is one writer, the future of [`Live::redraw`]: observers only
//! note what happened, so a terminal that does not take text holds up nobody, and lines never mix. Only lines that changed
//! are sent, in one synchronised write. Next: `terminal/view.rs` makes the lines; `report/plain.rs` those that stay.

mod view;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_core::event::{Event, EventSink};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::report::plain;
use view::State;

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(100);
/// The longest that times on the screen may be old.
const OLDEST: Duration = Duration::from_secs(1);
/// How long the end waits for a terminal that does not take text.
const PATIENCE: Duration = Duration::from_millis(500);
/// Tells the terminal to show what follows at once, when it is complete.
const BEGIN: &str = "\u{1b}[?2026h";
const END: &str = "\u{1b}[?2026l";

/// Columns and rows.
pub type Size = (usize, usize);

/// The live part of a screen. Clones are the same.
#[derive(Clone)]
pub struct Live {
    inner: Arc<Mutex<Screen>>,
    colour: bool,
}

struct Screen {
    state: State,
    /// Lines that stay and have not been written.
    pending: Vec<String>,
    /// What is drawn now.
    drawn: Vec<String>,
    size: Size,
    drawn_at: Option<Instant>,
    changed: bool,
}

impl Live {
    /// A screen that nothing has happened on yet.
    pub fn new(colour: bool) -> Self {
        let screen = Screen {
            state: State::new(Instant::now()),
            pending: Vec::new(),
            drawn: Vec::new(),
            size: (0, 0),
            drawn_at: None,
            changed: true,
        };
        Self { inner: Arc::new(Mutex::new(screen)), colour }
    }

    /// The observer that feeds it.
    pub fn sink(&self, verbose: bool) -> LiveSink {
        LiveSink { live: self.clone(), verbose }
    }

    /// Adds a line that stays.
    pub fn say(&self, line: &str) {
        let mut screen = self.inner.lock();
        screen.pending.push(line.to_owned());
        screen.changed = true;
    }

    /// Draws whatever has changed, at most ten times a second, for ever.
    pub async fn redraw(&self, out: &mut (impl AsyncWrite + Unpin), size: impl Fn() -> Size) -> Infallible {
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            frames.tick().await;
            if let Some(frame) = self.frame(size(), Instant::now()) {
                // When the terminal is gone there is nobody left to draw for.
                let _gone = out.write_all(frame.as_bytes()).await;
                let _gone = out.flush().await;
            }
        }
    }

    /// Takes away what was drawn; lines that stay are written first.
    pub async fn close(&self, out: &mut (impl AsyncWrite + Unpin)) {
        let last = {
            let mut screen = self.inner.lock();
            let text = screen.erased(screen.size.0) + &screen.take_pending(self.colour);
            screen.drawn.clear();
            text
        };
        let write = async {
            let _gone = out.write_all(last.as_bytes()).await;
            let _gone = out.flush().await;
        };
        let _stuck = tokio::time::timeout(PATIENCE, write).await;
    }

    /// The bytes that bring the screen up to date; `None` when it is.
    fn frame(&self, size: Size, now: Instant) -> Option<String> {
        let mut screen = self.inner.lock();
        let is_old = screen.drawn_at.is_none_or(|at| now.duration_since(at) >= OLDEST);
        if !std::mem::take(&mut screen.changed) && !is_old && screen.size == size {
            return None;
        }
        let lines: Vec<String> =
            screen.state.lines(size, now).into_iter().map(|line| styled(&line, self.colour)).collect();
        screen.drawn_at = Some(now);
        let same_shape =
            screen.pending.is_empty() && screen.size == size && screen.drawn.len() == lines.len();
        if same_shape && screen.drawn == lines {
            return None;
        }
        let body = if same_shape {
            screen.changes(&lines)
        } else {
            let fresh = screen.erased(size.0) + &screen.take_pending(self.colour) + &lines.join("\r\n");
            screen.size = size;
            fresh
        };
        screen.drawn = lines;
        Some(format!("{BEGIN}{body}{END}"))
    }
}

impl Screen {
    /// Goes to the first drawn line and erases from there on. On a terminal that became narrower (it is `width` wide now)
    /// the old lines take more rows.
    fn erased(&self, width: usize) -> String {
        let width = width.max(1);
        let rows: usize = self.drawn.iter().map(|line| columns(line).div_ceil(width).max(1)).sum();
        match rows {
            0 => "\r\u{1b}[J".to_owned(),
            1 => "\r\u{1b}[2K\u{1b}[J".to_owned(),
            rows => format!("\r\u{1b}[{}A\u{1b}[J", rows - 1),
        }
    }

    fn take_pending(&mut self, colour: bool) -> String {
        self.pending.drain(..).map(|line| format!("{}\r\n", styled(&line, colour))).collect()
    }

    /// Only the lines that differ.
    fn changes(&self, lines: &[String]) -> String {
        let mut out = "\r".to_owned();
        if lines.len() > 1 {
            out.push_str(&format!("\u{1b}[{}A", lines.len() - 1));
        }
        for (number, (old, new)) in self.drawn.iter().zip(lines).enumerate() {
            if number > 0 {
                out.push_str("\r\n");
            }
            if old != new {
                out.push_str("\u{1b}[2K");
                out.push_str(new);
            }
        }
        out
    }
}

fn columns(line: &str) -> usize {
    anstream::adapter::strip_str(line).to_string().chars().count()
}

fn styled(text: &str, colour: bool) -> String {
    if colour { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() }
}

/// Feeds a [`Live`] screen.
pub struct LiveSink {
    live: Live,
    verbose: bool,
}

impl EventSink for LiveSink {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn event(&mut self, event: &Event) {
        let mut screen = self.live.inner.lock();
        screen.changed |= screen.state.note(event, Instant::now());
        if let Some(line) = plain::line(event, self.verbose) {
            screen.pending.push(line);
            screen.changed = true;
        }
    }
}

/// Columns and rows of the terminal on standard error; 80 and 24 where it does not tell.
pub fn size() -> Size {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stderr())
        && size.ws_col > 0
        && size.ws_row > 0
    {
        return (size.ws_col.into(), size.ws_row.into());
    }
    (80, 24)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::report::plain::tests::{ended, started};
    use pipeline_core::fact::Status;

    /// What a terminal of a size shows after these bytes; only what this module sends is understood.
    fn shown(bytes: &str, width: usize) -> Vec<String> {
        let (mut rows, mut row, mut column) = (vec![String::new()], 0_usize, 0_usize);
        let mut rest = bytes;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("\u{1b}[") {
                let end = after.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                match (&after[..end], &after[end..=end]) {
                    (n, "A") => row -= n.parse::<usize>().unwrap(),
                    (_, "J") => {
                        rows.truncate(row + 1);
                        rows[row].truncate(column);
                    }
                    ("2", "K") => rows[row].clear(),
                    (mode, "h" | "l") => assert_eq!(mode, "?2026"),
                    other => panic!("{other:?}"),
                }
                rest = &after[end + 1..];
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '\r' => column = 0,
                '\n' => {
                    row += 1;
                    if rows.len() <= row {
                        rows.push(String::new());
                    }
                }
                c => {
                    assert!(column < width, "a line reaches the edge");
                    let mut letters: Vec<char> = rows[row].chars().collect();
                    letters.resize(letters.len().max(column + 1), ' ');
                    letters[column] = c;
                    rows[row] = letters.into_iter().collect();
                    column += 1;
                }
            }
        }
        rows
    }

    #[test]
    fn frames_leave_on_the_screen_what_they_are_meant_to_and_send_only_changes() {
        let live = Live::new(false);
        let mut sink = live.sink(false);
        let now = Instant::now();
        sink.event(&started("a"));
        sink.event(&started("fan[0]/b"));
        let first = live.frame((80, 24), now).unwrap();
        assert_eq!(live.frame((80, 24), now), None);
        sink.event(&ended("a", Status::Ok, None));
        let second = live.frame((80, 24), now).unwrap();
        let screen = shown(&(first.clone() + &second), 80);
        assert!(screen[0].starts_with("ok        a (12 ms)"), "{screen:?}");
        assert!(screen.iter().any(|line| line.contains("fan")), "{screen:?}");
        assert!(screen.last().unwrap().contains("running 1"), "{screen:?}");
        let third = live.frame((80, 24), now + Duration::from_secs(5)).unwrap();
        assert!(!third.contains("\u{1b}[J"), "only lines that changed are sent: {third:?}");
        let used = pipeline_core::fact::Usage { input: 7, ..Default::default() };
        sink.event(&Event::Progress(pipeline_core::event::Progress::Usage {
            path: "fan[0]/b".into(),
            usage: used,
        }));
        let fourth = live.frame((80, 24), now + Duration::from_secs(5)).unwrap();
        assert_eq!(fourth.matches("\u{1b}[2K").count(), 2, "the item and the sum: {fourth:?}");
        assert!(first.starts_with(BEGIN) && first.ends_with(END));
    }

    #[test]
    fn a_narrow_terminal_gets_lines_that_do_not_wrap() {
        let live = Live::new(false);
        live.sink(false).event(&started("a-step-with-a-long-name/and-another-one"));
        for size in [(20, 5), (40, 3), (10, 1)] {
            let frame = live.frame(size, Instant::now()).unwrap();
            let rows = shown(frame.rsplit("\u{1b}[J").next().unwrap(), size.0);
            assert!(rows.len() < size.1.max(2), "{rows:?}");
        }
    }

    #[tokio::test]
    async fn the_end_writes_lines_that_stay_and_takes_the_rest_away() {
        let live = Live::new(false);
        let mut sink = live.sink(false);
        sink.event(&started("a"));
        let first = live.frame((80, 24), Instant::now()).unwrap();
        sink.event(&ended("a", Status::Ok, None));
        live.say("bye");
        let mut out = Vec::new();
        live.close(&mut out).await;
        let screen = shown(&(first + &String::from_utf8(out).unwrap()), 80);
        assert_eq!(screen, ["ok        a (12 ms)", "bye", ""]);
    }

    #[test]
    fn text_of_steps_cannot_steer_the_terminal() {
        let live = Live::new(true);
        let mut sink = live.sink(true);
        sink.event(&started("a"));
        let text = "hello \u{1b}[2J\u{7}\u{9b}31m\nworld".to_owned();
        sink.event(&Event::Progress(pipeline_core::event::Progress::Text { path: "a".into(), text }));
        let frame = live.frame((80, 24), Instant::now()).unwrap();
        assert!(frame.contains("\u{fffd}[2J") && !frame.contains("\u{1b}[2J"), "{frame:?}");
        assert!(!frame.contains('\u{7}') && !frame.contains('\u{9b}'), "{frame:?}");
    }
}
