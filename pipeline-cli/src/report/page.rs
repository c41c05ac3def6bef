//! A run as one page of HTML: graph, timeline, what was asked and answered, tokens and costs.
//!
//! Owns the page. It has no script and no address, everything from the run is escaped, and a long run is shortened evenly
//! so that the page stays small. Must not know where it is written. Next: `page/steps.rs` for what was asked and answered.

mod steps;
mod timeline;

use std::fmt::Write;

use pipeline_core::engine::RunReport;
use pipeline_core::fact::Status;
use pipeline_core::store::Manifest;
use pipeline_core::value::Value;

use crate::advice;
use crate::exit::status_name;
use crate::figures::{Figures, family_of};
use crate::report::picture::{Picture, escape};
use crate::report::time;

pub use steps::Story;

const STYLE: &str = include_str!("page/page.css");

/// Bytes that prompts, outputs and errors may take together.
const TEXT: usize = 900_000;

/// Outputs that are open when the page is.
const OUTPUTS: usize = 8;

/// Longest value that stands on one line.
const LINE: usize = 120;

/// What a page is made of.
pub struct Page<'a> {
    /// How the run stands.
    pub report: &'a RunReport,
    /// What it was made from.
    pub manifest: &'a Manifest,
    /// Its figures.
    pub figures: &'a Figures,
    /// Its plan.
    pub picture: &'a Picture,
    /// What was asked and answered.
    pub story: &'a Story,
}

impl Page<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let title = escape(&self.report.workflow);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>{title} · {}</title><style>{STYLE}</style></head><body><main>\n",
            status_name(self.report.status)
        );
        self.head(&mut out);
        self.trouble(&mut out);
        Self::section(&mut out, "Advice", "note", &list(&advice::advice(self.figures)));
        Self::section(&mut out, "Outputs", "", &self.outputs());
        let graph = self.picture.svg_in_page(&|path| self.state(path));
        Self::section(&mut out, "Graph", "graph", &graph);
        Self::section(&mut out, "Timeline", "", &timeline::timeline(self.figures));
        Self::section(&mut out, "Figures", "", &self.figures_table());
        Self::section(&mut out, "Steps", "", &steps::steps(self.figures, self.story, TEXT));
        let _ok = writeln!(
            out,
            "<footer>run {} · version {} · pipeline report</footer></main></body></html>",
            escape(&self.report.run_id),
            escape(&self.manifest.program)
        );
        out
    }

    fn section(out: &mut String, title: &str, class: &str, html: &str) {
        if !html.is_empty() {
            let _ok = writeln!(out, "<h2>{title}</h2><div class=\"card {class}\">{html}</div>");
        }
    }

    fn head(&self, out: &mut String) {
        let status = status_name(self.report.status);
        let from = self.manifest.settings.get("forked_from").and_then(Value::as_str);
        let from = from.map_or_else(String::new, |run| format!(", a fork of {}", escape(run)));
        let _ok = write!(
            out,
            "<h1>{} <span class=\"badge {status}\">{status}</span></h1>\
             <p class=\"sub\">{} · {} run begun {}{from}</p><div class=\"tiles\">",
            escape(&self.report.workflow),
            escape(&self.manifest.source_path),
            escape(&self.manifest.mode),
            self.report.started_at
        );
        let usage = &self.report.usage;
        let cost = match (usage.cost_usd, usage.unpriced_calls) {
            (Some(usd), 0) => format!("${usd:.4}"),
            (Some(usd), _) => format!("≥ ${usd:.4}"),
            (None, 0) => "$0".to_owned(),
            (None, _) => "unknown".to_owned(),
        };
        let failed = advice::failed(self.figures);
        let retries: usize = self.figures.families().values().map(|f| f.retries).sum();
        let tiles = [
            (time(self.report.duration_ms), "run time"),
            (self.figures.steps.len().to_string(), "step instances"),
            (failed.to_string(), "of them failed"),
            (retries.to_string(), "retries"),
            (usage.calls.to_string(), "model calls"),
            (thousands(usage.tokens()), "tokens"),
            (cost, "cost"),
            (self.figures.most_at_once.to_string(), "most at once"),
        ];
        for (value, what) in tiles {
            let _ok = write!(out, "<div class=\"tile\"><b>{value}</b><span>{what}</span></div>");
        }
        out.push_str("</div>");
        if !self.manifest.inputs.is_empty() {
            let inputs = serde_json::to_string_pretty(&self.manifest.inputs).unwrap_or_default();
            let _ok = write!(out, "<h2>Inputs</h2><pre>{}</pre>", escape(&steps::cut(&inputs, 4_000)));
        }
    }

    fn trouble(&self, out: &mut String) {
        let mut lines = Vec::new();
        if let Some(failed) = &self.report.error {
            let path = failed.path.as_ref().map_or("", |p| p.as_str());
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            lines.push(format!("{place}{}", failed.error.message));
            lines.extend(failed.error.help.clone());
        }
        Self::section(out, "What went wrong", "trouble", &list(&lines));
        let warnings: Vec<String> = self.report.warnings.iter().take(50).cloned().collect();
        Self::section(out, "Warnings", "note", &list(&warnings));
    }

    fn outputs(&self) -> String {
        match self.report.outputs.json() {
            Value::Object(fields) if !fields.is_empty() => {
                let one = |(name, value): (&String, &Value)| {
                    let text = escape(&steps::cut(&output(value), 8_000));
                    format!("<h4>{}</h4><pre>{text}</pre>", escape(name))
                };
                let mut all: Vec<String> = fields.iter().map(one).collect();
                // A workflow that names no outputs returns every step: the first ones are enough to begin with.
                let more = all.split_off(all.len().min(OUTPUTS));
                let mut html = all.concat();
                if !more.is_empty() {
                    let (count, rest) = (more.len(), more.concat());
                    html.push_str(&format!("<details><summary>{count} more</summary>{rest}</details>"));
                }
                html
            }
            _ => String::new(),
        }
    }

    fn figures_table(&self) -> String {
        let mut out = String::from(
            "<table><tr><th>step</th><th>times</th><th>failed</th><th>retries</th><th>busy</th><th>median</th><th>longest</th><th>waited</th><th>tokens</th><th>cost</th></tr>",
        );
        for (name, family) in self.figures.families() {
            let cost = match family.usage.cost_usd {
                Some(usd) => format!("${usd:.4}"),
                None if family.usage.calls > 0 => "?".to_owned(),
                None => String::new(),
            };
            let _ok = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{cost}</td></tr>",
                escape(&name),
                family.instances,
                family.failed,
                family.retries,
                time(family.total_ms()),
                time(family.percentile(50)),
                time(family.percentile(100)),
                time(family.waited_ms),
                thousands(family.usage.tokens()),
            );
        }
        out.push_str("</table>");
        out
    }

    /// The class of a shape: the worst that happened in it.
    fn state(&self, shape: &str) -> Option<&'static str> {
        let mut worst: Option<(u8, &'static str)> = None;
        for (path, step) in &self.figures.steps {
            let place = family_of(path.as_str()).replace("[]", "");
            let is_in =
                place.strip_prefix(shape).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if is_in {
                worst = worst.max(Some(rank(step.status())));
            }
        }
        worst.map(|(_, class)| class)
    }
}

/// An output as people read it: a model's answer is its text, a small value one line.
fn output(value: &Value) -> String {
    match value.get("text") {
        Some(text) if value.get("stop_reason").is_some() => return steps::words(text),
        _ => {}
    }
    let line = value.to_string();
    if value.is_string() || line.len() > LINE { steps::words(value) } else { line }
}

fn rank(status: Option<Status>) -> (u8, &'static str) {
    match status {
        Some(Status::Skipped) => (0, "skipped"),
        Some(Status::Ok) => (1, "ok"),
        Some(Status::Cancelled) => (2, "skipped"),
        Some(Status::Degraded) => (3, "degraded"),
        None => (4, "running"),
        Some(Status::Failed | Status::TimedOut) => (5, "failed"),
    }
}

fn list(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let items: String =
        lines.iter().map(|line| format!("<li>{}</li>", escape(&steps::cut(line, 2_000)))).collect();
    format!("<ul>{items}</ul>")
}

/// `1234567` as `1 234 567`, with spaces that do not break.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_read_as_people_read_them() {
        assert_eq!(output(&serde_json::json!({"text": "Hi\nyou", "stop_reason": "end_turn"})), "Hi\nyou");
        assert_eq!(output(&serde_json::json!([1, 2])), "[1,2]");
        assert!(output(&serde_json::json!(vec!["long enough"; 20])).lines().count() > 20);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
