//! Reading a map key by key, so that nothing in it is overlooked.
//!
//! Owns [`Keys`]: what was not asked for is an unknown key, reported with a suggestion. Next: the forms that use it.

use std::time::Duration;

use crate::diagnostic::{Diagnostic, Report, Severity, Span, nearest};
use crate::document::{Entry, Node, NodeKind};
use crate::plan::compile::guess;

/// Keys of the original that never had an effect: accepted with a note.
const NO_EFFECT: [&str; 22] = [
    "environment_aware",
    "print",
    "pass_through_streaming",
    "role",
    "author",
    "tags",
    "metadata",
    "verbose",
    "debug_mode",
    "telemetry_enabled",
    "cost_tracking",
    "checkpoint_enabled",
    "checkpoint_frequency",
    "enable_tracing",
    "include_metadata",
    "use_content_extractor",
    "consolidate_results",
    "recipe",
    "icon",
    "owner",
    "priority",
    "labels",
];

/// Keys that every step may have.
pub(super) const COMMON: [&str; 21] = [
    "name",
    "type",
    "description",
    "condition",
    "when",
    "needs",
    "timeout",
    "timeout_seconds",
    "timeout_ms",
    "effects",
    "workspace",
    "retry",
    "retry_config",
    "continue_on_error",
    "on_error",
    "output_to_file",
    "budget",
    "cache",
    "streaming",
    "id",
    "task_id",
];

/// A map that is being read.
pub(super) struct Keys<'n> {
    node: &'n Node,
    asked: Vec<&'static str>,
    elsewhere: Vec<String>,
}

impl<'n> Keys<'n> {
    /// Starts reading; anything but a map is reported and read as an empty one.
    pub(super) fn new(node: &'n Node, what: &str, report: &mut Report) -> Self {
        if !matches!(node.kind, NodeKind::Map(_)) {
            let message = format!("{what} must be a map, and this is {}", node.kind_name());
            report
                .push(Diagnostic::error("E0103", node.span, message).help("write it as `key: value` lines"));
        }
        Self { node, asked: Vec::new(), elsewhere: Vec::new() }
    }

    /// The entry of a key.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.asked.push(key);
        self.node.entry(key)
    }

    /// The value of a key; null counts as absent.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|e| &e.value).filter(|v| v.kind != NodeKind::Null)
    }

    /// The value of the first of several spellings that stands there; two at once are an error.
    pub(super) fn either(&mut self, keys: &[&'static str], report: &mut Report) -> Option<&'n Node> {
        let mut found: Option<(&'static str, &'n Node)> = None;
        for key in keys {
            let Some(value) = self.get(key) else { continue };
            match found {
                Some((first, _)) => {
                    let message = format!("`{key}` and `{first}` say the same thing");
                    report.push(
                        Diagnostic::error("E0113", value.span, message).help(format!("keep `{first}`")),
                    );
                }
                None => found = Some((key, value)),
            }
        }
        found.map(|(_, value)| value)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str, report: &mut Report) -> Option<&'n str> {
        let value = self.get(key)?;
        if value.as_text().is_none() {
            wrong(value, key, "text", report);
        }
        value.as_text()
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, report: &mut Report) -> Option<bool> {
        let value = self.get(key)?;
        if value.as_bool().is_none() {
            wrong(value, key, "true or false", report);
        }
        value.as_bool()
    }

    /// A whole number of at least `least`.
    pub(super) fn count(&mut self, key: &'static str, least: u64, report: &mut Report) -> Option<u64> {
        let value = self.get(key)?;
        let number = value.as_u64().filter(|n| *n >= least);
        if number.is_none() {
            wrong(value, key, &format!("a whole number of at least {least}"), report);
        }
        number
    }

    /// A number that is not negative.
    pub(super) fn number(&mut self, key: &'static str, report: &mut Report) -> Option<f64> {
        let value = self.get(key)?;
        let number = match &value.kind {
            NodeKind::Number(n) => n.as_f64().filter(|n| *n >= 0.0),
            _ => None,
        };
        if number.is_none() {
            wrong(value, key, "a number that is not negative", report);
        }
        number
    }

    /// A list of texts; one text counts as a list of one.
    pub(super) fn texts(&mut self, key: &'static str, report: &mut Report) -> Vec<(String, Span)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        if let Some(text) = value.as_text() {
            return vec![(text.to_owned(), value.span)];
        }
        if !matches!(value.kind, NodeKind::List(_)) {
            wrong(value, key, "a list of names", report);
        }
        let mut all = Vec::new();
        for item in value.items() {
            match item.as_text() {
                Some(text) => all.push((text.to_owned(), item.span)),
                None => wrong(item, key, "a name", report),
            }
        }
        all
    }

    /// One of a few words.
    pub(super) fn word<T: serde::de::DeserializeOwned>(
        &mut self,
        key: &'static str,
        words: &[&str],
        report: &mut Report,
    ) -> Option<T> {
        let value = self.get(key)?;
        let word = value.as_text().filter(|t| words.contains(t));
        let Some(word) = word else {
            let given = value.as_text().unwrap_or_default();
            let message = format!("`{key}` must be one of {}", words.join(", "));
            let finding = Diagnostic::error("E0104", value.span, message);
            report.push(match meant(given, words) {
                Some(near) => finding.suggest(near),
                None => finding,
            });
            return None;
        };
        serde_json::from_value(word.into()).ok()
    }

    /// A length of time: `90s`, `5m`, `250ms`, `1h30m`, or a number of seconds. `Some(None)` = `none`.
    pub(super) fn duration(&mut self, key: &'static str, report: &mut Report) -> Option<Option<Duration>> {
        let value = self.get(key)?;
        match duration(value) {
            Ok(duration) => Some(duration),
            Err(finding) => {
                report.push(*finding);
                None
            }
        }
    }

    /// A map that has been read.
    pub(super) fn nothing() -> Self {
        static NOTHING: Node =
            Node { span: Span::new(crate::diagnostic::FileId(0), 0, 0), defined: None, kind: NodeKind::Null };
        Self { node: &NOTHING, asked: Vec::new(), elsewhere: Vec::new() }
    }

    /// Marks keys as read elsewhere.
    pub(super) fn forget(&mut self, keys: Vec<String>) {
        self.elsewhere.extend(keys);
    }

    /// Marks keys as known without reading them.
    pub(super) fn know(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
    }

    /// The entries that were not asked for, without `x-` keys and, with a note, those that have no effect.
    pub(super) fn rest(&self, report: &mut Report) -> Vec<&'n Entry> {
        let left = self.node.entries().iter().filter(|e| {
            !self.asked.contains(&e.key.as_str())
                && !e.key.starts_with("x-")
                && !self.elsewhere.contains(&e.key)
        });
        let (none, rest): (Vec<_>, Vec<_>) = left.partition(|e| NO_EFFECT.contains(&e.key.as_str()));
        for entry in none {
            no_effect(entry, report);
        }
        rest
    }

    /// Reports everything that was not asked for.
    pub(super) fn finish(self, what: &str, lenient: bool, report: &mut Report) {
        for entry in self.rest(report) {
            unknown(entry, what, self.node.span, &self.asked, lenient, report);
        }
    }
}

/// Notes a key that the original accepted and never used.
pub(super) fn no_effect(entry: &Entry, report: &mut Report) {
    let message = format!("`{}` has no effect", entry.key);
    report.push(
        Diagnostic::note("E0110", entry.key_span, message).help("remove it, or name it with `x-` in front"),
    );
}

/// Whether the original accepted a key and never used it.
pub(super) fn has_no_effect(key: &str) -> bool {
    NO_EFFECT.contains(&key)
}

/// Reports an unknown key of the map at `map`.
pub(super) fn unknown(
    entry: &Entry,
    what: &str,
    map: Span,
    known: &[&str],
    lenient: bool,
    report: &mut Report,
) {
    let message = format!("{what} has no key `{}`", entry.key);
    let mut finding = Diagnostic::error("E0101", entry.key_span, message);
    if lenient {
        finding.severity = Severity::Warning;
    }
    if let Some(parent) = guess::below(&entry.key).filter(|_| what == "`workflow`") {
        report.push(finding.help(format!("it belongs under `{parent}`: see `{parent}` in the reference")));
        return;
    }
    if let Some(near) = meant(&entry.key, known) {
        report.push(finding.suggest(near).about(map, near));
        return;
    }
    let is_step = what.ends_with(" step");
    let own: Vec<&str> = known.iter().copied().filter(|key| !(is_step && COMMON.contains(key))).collect();
    let all = match (own.len(), is_step) {
        (0, _) => "it has only the keys that every step has".to_owned(),
        (25.., _) => "see the reference for its keys; keys that start with `x-` are free".to_owned(),
        (_, true) => format!("it has: {}; and the keys that every step has", sorted(&own)),
        (_, false) => format!("it has: {}", sorted(&own)),
    };
    report.push(finding.help(all));
}

/// The key, or one of a few words, that was probably meant: what other tools call by that word, or what is spelled nearly so.
fn meant<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = guess::meant(given, known);
    let spelled = nearest(given, known.iter().copied());
    match (word, spelled) {
        // `input` for `inputs` is no word of another tool.
        (Some((0, word)), Some((1, key))) => {
            let is_plural = key.strip_suffix('s') == Some(given) || given.strip_suffix('s') == Some(key);
            Some(if is_plural { key } else { word })
        }
        (Some((far, word)), Some((distance, _))) if far < distance => Some(word),
        (word, spelled) => spelled.or(word).map(|(_, key)| key),
    }
}

fn sorted(known: &[&str]) -> String {
    let mut known: Vec<&str> = known.to_vec();
    known.sort_unstable();
    known.dedup();
    known.join(", ")
}

/// Reports a value of the wrong kind.
pub(super) fn wrong(value: &Node, key: &str, expected: &str, report: &mut Report) {
    let message = format!("`{key}` must be {expected}, and this is {}", value.kind_name());
    report.push(Diagnostic::error("E0103", value.span, message));
}

/// Reads a length of time.
pub(super) fn duration(value: &Node) -> Result<Option<Duration>, Box<Diagnostic>> {
    let refused = || {
        let message = "this is not a length of time".to_owned();
        let finding = Diagnostic::error("E0402", value.span, message);
        Box::new(finding.help("write `90s`, `5m`, `250ms`, `1h30m`, a number of seconds, or `none`"))
    };
    match &value.kind {
        NodeKind::Number(n) => {
            n.as_f64().and_then(|n| Duration::try_from_secs_f64(n).ok()).map(Some).ok_or_else(refused)
        }
        NodeKind::Text(text) if text.trim() == "none" => Ok(None),
        NodeKind::Text(text) => parse_duration(text.trim()).map(Some).ok_or_else(refused),
        _ => Err(refused()),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = rest[end..].trim_start();
    }
    (!text.is_empty()).then_some(total)
}
