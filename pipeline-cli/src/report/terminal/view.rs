//! What a live screen shows: what runs, loops and fan-outs folded to a bar, the text of one step, and a sum.
//!
//! Owns [`State`]. Must not know terminals beyond their size.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use indexmap::IndexMap;
use pipeline_core::event::{Event, Progress};
use pipeline_core::fact::{Fact, Usage};
use pipeline_core::path::StepPath;
use tokio::time::Instant;

use super::Size;
use crate::console::{CYAN, DIM, YELLOW, paint, short};
use crate::report::time;

/// Characters of a bar.
const BAR: usize = 20;
/// Bytes of a streaming text that are kept.
const TAIL: usize = 2_000;
/// Most lines of it that are shown.
const TEXT_LINES: usize = 3;
/// Most step instances below one loop or fan-out.
const BELOW: usize = 6;

/// What runs, and what has been used.
pub(super) struct State {
    begun: Instant,
    running: BTreeMap<StepPath, Running>,
    tops: IndexMap<String, Top>,
    groups: HashMap<StepPath, (usize, Option<usize>)>,
    focus: Option<(StepPath, String)>,
    done: usize,
    usage: Usage,
}

struct Running {
    since: Instant,
    attempt: u32,
    used: Usage,
}

/// A step of the file itself, with everything below it.
struct Top {
    since: Instant,
    running: usize,
    failed: usize,
    retries: usize,
    usage: Usage,
}

impl State {
    pub(super) fn new(begun: Instant) -> Self {
        Self {
            begun,
            running: BTreeMap::new(),
            tops: IndexMap::new(),
            groups: HashMap::new(),
            focus: None,
            done: 0,
            usage: Usage::default(),
        }
    }

    /// Takes an event in; true when something to be seen changed.
    pub(super) fn note(&mut self, event: &Event, now: Instant) -> bool {
        match event {
            Event::Fact(record) => self.fact(&record.fact, now),
            Event::Progress(Progress::Group { path, done, total }) => {
                self.groups.insert(path.clone(), (*done, *total));
                self.top(path, now);
                true
            }
            Event::Progress(Progress::GroupEnded { path, .. }) => {
                self.groups.remove(path);
                self.tops.shift_remove(path.as_str());
                true
            }
            Event::Progress(Progress::Text { path, text }) => self.text(path, text),
            Event::Progress(Progress::Usage { path, usage }) => {
                if let Some(running) = self.running.get_mut(path) {
                    running.used = *usage;
                }
                true
            }
            Event::Progress(Progress::Note { .. }) => false,
        }
    }

    fn fact(&mut self, fact: &Fact, now: Instant) -> bool {
        match fact {
            Fact::AttemptStarted { path, attempt, .. } => {
                let running = Running { since: now, attempt: *attempt, used: Usage::default() };
                self.running.insert(path.clone(), running);
                let top = self.top(path, now);
                top.running += 1;
                top.retries += usize::from(*attempt > 1);
                true
            }
            Fact::AttemptEnded { path, end, .. } => {
                self.done += 1;
                self.usage.add(&end.usage);
                let was_running = self.running.remove(path).is_some();
                let top = self.top(path, now);
                top.running = top.running.saturating_sub(usize::from(was_running));
                top.failed += usize::from(end.error.is_some());
                top.usage.add(&end.usage);
                if top_of(path) == path.as_str() {
                    self.tops.shift_remove(path.as_str());
                }
                if self.focus.as_ref().is_some_and(|(focus, _)| focus == path) {
                    self.focus = None;
                }
                true
            }
            _ => false,
        }
    }

    fn top(&mut self, path: &StepPath, now: Instant) -> &mut Top {
        self.tops.entry(top_of(path).to_owned()).or_insert_with(|| Top {
            since: now,
            running: 0,
            failed: 0,
            retries: 0,
            usage: Usage::default(),
        })
    }

    fn text(&mut self, path: &StepPath, text: &str) -> bool {
        // The step that speaks first is followed until it ends.
        let (focus, tail) = self.focus.get_or_insert_with(|| (path.clone(), String::new()));
        if focus != path {
            return false;
        }
        tail.push_str(text);
        if tail.len() > 2 * TAIL {
            let from =
                (tail.len() - TAIL..tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(tail.len());
            tail.drain(..from);
        }
        true
    }

    /// The lines, at most one row less than the terminal has and one column less wide.
    pub(super) fn lines(&self, (width, height): Size, now: Instant) -> Vec<String> {
        let (width, room) = (width.saturating_sub(1).max(1), height.saturating_sub(1).max(1));
        let sum = cut(&self.sum(now), width, |text| paint(DIM, text));
        let mut lines = Vec::new();
        for (name, top) in &self.tops {
            self.top_lines(name, top, now, width, &mut lines);
        }
        let text = self.text_lines(width);
        // The sum and the text have their places; steps share what is left.
        let left = room.saturating_sub(1 + text.len());
        if lines.len() > left {
            let more = lines.len() - left.saturating_sub(1);
            lines.truncate(left.saturating_sub(1));
            if left > 0 {
                lines.push(cut(&format!("… and {more} more lines"), width, |text| paint(DIM, text)));
            }
        }
        if room > 1 + text.len() {
            lines.extend(text);
        }
        lines.push(sum);
        lines
    }

    fn top_lines(&self, name: &str, top: &Top, now: Instant, width: usize, lines: &mut Vec<String>) {
        let path = StepPath::from(name);
        let used = used(&top.usage);
        let trouble = match (top.failed, top.retries) {
            (0, 0) => String::new(),
            (failed, 0) => format!(", {failed} failed"),
            (failed, retries) => format!(", {failed} failed attempts, {retries} retries"),
        };
        if let Some(running) = self.running.get(&path) {
            let which =
                if running.attempt > 1 { format!(" attempt {}", running.attempt) } else { String::new() };
            let text = format!("{name}{which} {}{}", since(now, running.since), used_of(&running.used));
            lines.push(cut(&format!("▸ {text}"), width, |text| paint(CYAN, text)));
            return;
        }
        let bar = match self.groups.get(&path) {
            Some((done, Some(total))) => format!(" {} {done}/{total}", bar(*done, *total)),
            Some((done, None)) => format!(" {done} done"),
            None => String::new(),
        };
        let style = if top.failed > 0 { YELLOW } else { CYAN };
        let text = format!("▸ {name}{bar}, {} running{trouble} {}{used}", top.running, since(now, top.since));
        lines.push(cut(&text, width, |text| paint(style, text)));
        let mut below: Vec<_> = self.running.iter().filter(|(path, _)| top_of(path) == name).collect();
        // The oldest are those that somebody may wonder about.
        below.sort_by_key(|(_, running)| running.since);
        let shown = if below.len() > BELOW { BELOW - 1 } else { BELOW };
        for (path, running) in below.iter().take(shown) {
            let inner = path.as_str().strip_prefix(name).unwrap_or(path.as_str());
            let which =
                if running.attempt > 1 { format!(" attempt {}", running.attempt) } else { String::new() };
            let text = format!("    {inner}{which} {}{}", since(now, running.since), used_of(&running.used));
            lines.push(cut(&text, width, str::to_owned));
        }
        if below.len() > shown {
            let text = format!("    and {} more", below.len() - shown);
            lines.push(cut(&text, width, |text| paint(DIM, text)));
        }
    }

    fn text_lines(&self, width: usize) -> Vec<String> {
        let Some((path, tail)) = &self.focus else { return Vec::new() };
        let mut all: Vec<String> = Vec::new();
        for line in tail.lines().filter(|line| !line.trim().is_empty()) {
            let letters: Vec<char> = crate::console::visible(line).replace('\t', " ").chars().collect();
            all.extend(
                letters.chunks(width.saturating_sub(2).max(1)).map(|piece| piece.iter().collect::<String>()),
            );
        }
        let from = all.len().saturating_sub(TEXT_LINES);
        let mut lines = vec![cut(&format!("{path} says:"), width, |text| paint(DIM, text))];
        lines.extend(all[from..].iter().map(|line| cut(&format!("  {line}"), width, str::to_owned)));
        lines
    }

    fn sum(&self, now: Instant) -> String {
        let mut usage = self.usage;
        self.running.values().for_each(|running| usage.add(&running.used));
        format!(
            "running {}, done {}, {}{}",
            self.running.len(),
            self.done,
            since(now, self.begun),
            used(&usage)
        )
    }
}

/// The name of the step of the file that a path is in.
fn top_of(path: &StepPath) -> &str {
    let text = path.as_str();
    text.split(['/', '[']).next().unwrap_or(text)
}

fn since(now: Instant, then: Instant) -> String {
    let passed: Duration = now.saturating_duration_since(then);
    // Whole seconds: a number that changes ten times a second is not read by anybody.
    match passed.as_secs() {
        0 => "0 s".to_owned(),
        seconds if seconds < 60 => format!("{seconds} s"),
        seconds => time(seconds * 1_000),
    }
}

fn used(usage: &Usage) -> String {
    if usage.calls == 0 { used_of(usage) } else { format!(", {} calls{}", usage.calls, used_of(usage)) }
}

fn used_of(usage: &Usage) -> String {
    let tokens = match usage.tokens() {
        0 => return String::new(),
        n @ 1..10_000 => format!("{n} tokens"),
        n => format!("{:.1}k tokens", n as f64 / 1_000.0),
    };
    match usage.cost_usd {
        Some(usd) => format!(", {tokens}, ${usd:.4}"),
        None => format!(", {tokens}"),
    }
}

fn bar(done: usize, total: usize) -> String {
    let full = (done * BAR).checked_div(total).unwrap_or(BAR).min(BAR);
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// A line that fits, styled after it was cut.
fn cut(text: &str, width: usize, style: impl Fn(&str) -> String) -> String {
    style(&short(text, width))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::report::plain::tests::{ended, started};
    use pipeline_core::fact::Status;

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
    }

    #[test]
    fn a_fan_out_is_folded_to_a_bar_and_its_oldest_items() {
        let now = Instant::now();
        let mut state = State::new(now);
        state.note(
            &Event::Progress(Progress::Group { path: "fan".into(), done: 250, total: Some(1_000) }),
            now,
        );
        for item in 0..300 {
            state.note(&started(&format!("fan[{item}]/think")), now + Duration::from_millis(item));
        }
        state.note(&ended("fan[7]/think", Status::Failed, Some("no")), now);
        let lines = plain(&state.lines((80, 24), now + Duration::from_secs(3)));
        assert_eq!(lines[0], "▸ fan █████░░░░░░░░░░░░░░░ 250/1000, 299 running, 1 failed 3 s");
        assert_eq!(lines[1], "    [0]/think 3 s");
        assert_eq!(lines[6], "    and 294 more");
        assert_eq!(lines[7], "running 299, done 1, 3 s");
        assert_eq!(lines.len(), 8);
    }

    #[test]
    fn a_low_terminal_keeps_the_sum() {
        let now = Instant::now();
        let mut state = State::new(now);
        (0..9).for_each(|n| _ = state.note(&started(&format!("s{n}")), now));
        let lines = plain(&state.lines((80, 5), now));
        assert_eq!(lines, ["▸ s0 0 s", "▸ s1 0 s", "… and 7 more lines", "running 9, done 0, 0 s"]);
        assert_eq!(plain(&state.lines((80, 1), now)), ["running 9, done 0, 0 s"]);
    }

    #[test]
    fn the_text_of_one_step_is_followed_to_its_end() {
        let now = Instant::now();
        let mut state = State::new(now);
        let say = |path: &str, text: &str| {
            Event::Progress(Progress::Text { path: path.into(), text: text.to_owned() })
        };
        state.note(&started("a"), now);
        state.note(&say("a", "one\ntwo\nthree\nfo"), now);
        assert!(!state.note(&say("b", "other"), now));
        state.note(&say("a", "ur"), now);
        let lines = plain(&state.lines((30, 24), now));
        assert_eq!(lines[1..5], ["a says:", "  two", "  three", "  four"]);
        state.note(&ended("a", Status::Ok, None), now);
        assert_eq!(plain(&state.lines((30, 24), now)), ["running 0, done 1, 0 s"]);
    }
}
