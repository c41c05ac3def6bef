//! The bars of a page: when each step instance waited and worked.

use std::fmt::Write;

use crate::figures::{Figures, StepFigures, family_of};
use crate::report::picture::escape;
use crate::report::time;

/// Most rows; of a larger run each place of the file gets as many of its instances as there is room for.
const ROWS: usize = 400;

/// The rows, below an axis.
pub(super) fn timeline(figures: &Figures) -> String {
    if figures.steps.is_empty() {
        return String::new();
    }
    let whole = figures.elapsed_ms.max(1);
    let mut out = String::from("<div class=\"row axis\"><span></span><div class=\"lane\">");
    for quarter in 0..=4_u64 {
        let _ok = write!(out, "<span style=\"left:{}%\">{}</span>", quarter * 25, time(whole * quarter / 4));
    }
    out.push_str("</div><span></span></div>");
    let places = figures.families().len().max(1);
    let room = if figures.steps.len() <= ROWS { usize::MAX } else { (ROWS / places).max(3) };
    let mut drawn = std::collections::HashMap::<String, usize>::new();
    for (path, step) in &figures.steps {
        let count = drawn.entry(family_of(path.as_str())).or_default();
        *count += 1;
        if *count <= room {
            row(&mut out, path.as_str(), step, whole);
        }
    }
    let left: usize = drawn.values().map(|count| count.saturating_sub(room)).sum();
    if left > 0 {
        let _ok = write!(out, "<p class=\"sub\">and {left} more; `pipeline runs logs` has them all</p>");
    }
    out
}

fn row(out: &mut String, path: &str, step: &StepFigures, whole: u64) {
    let percent = |ms: u64| ms as f64 * 100.0 / whole as f64;
    let name = escape(path);
    let _ok =
        write!(out, "<div class=\"row\"><a href=\"#{name}\" title=\"{name}\">{name}</a><div class=\"lane\">");
    for attempt in &step.attempts {
        let waited = attempt.started_ms.saturating_sub(attempt.ready_ms);
        if percent(waited) >= 0.2 {
            let _ok = write!(
                out,
                "<i class=\"wait\" style=\"left:{:.2}%;width:{:.2}%\" title=\"waited {}\"></i>",
                percent(attempt.ready_ms),
                percent(waited),
                time(waited)
            );
        }
        let ended = attempt.ended_ms.filter(|_| attempt.status.is_some());
        let class = attempt.status.map_or("running", pipeline_core::fact::Status::name);
        let width = percent(ended.unwrap_or(whole).saturating_sub(attempt.started_ms));
        let error = attempt.error.as_ref().map_or_else(String::new, |(kind, _)| format!(": {}", kind.name()));
        let _ok = write!(
            out,
            "<i class=\"{class}\" style=\"left:{:.2}%;width:{width:.2}%\" title=\"attempt {} {class} in {}{error}\"></i>",
            percent(attempt.started_ms),
            attempt.number,
            time(attempt.duration_ms)
        );
    }
    let told = if step.skipped.is_some() { "skipped".to_owned() } else { time(step.busy_ms()) };
    let _ok = writeln!(out, "</div><em>{told}</em></div>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{end, records, run_started, start};

    #[test]
    fn a_bar_stands_where_its_attempt_was_and_a_large_run_is_cut_evenly() {
        let facts = vec![(0, run_started("r")), (50, start("a<b>", 1)), (100, end("a<b>", 1, 50, None))];
        let html = timeline(&Figures::of(&records(facts)));
        assert!(html.contains("left:50.00%;width:50.00%") && html.contains("a&lt;b&gt;"), "{html}");
        let mut many = vec![(0, run_started("r"))];
        many.extend((0..1_000).map(|i| (i, start(&format!("fan[{i}]/x"), 1))));
        let html = timeline(&Figures::of(&records(many)));
        assert_eq!(html.matches("class=\"row\"").count(), 400);
        assert!(html.contains("and 600 more"), "");
    }
}
