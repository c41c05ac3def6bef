//! A run in text: its outputs, and how it ended.
//!
//! Owns what `run`, `resume`, `runs list` and `runs show` tell people. Must not know streams or documents.

use std::path::{Path, PathBuf};

use pipeline_core::clock::Timestamp;
use pipeline_core::engine::RunReport;
use pipeline_core::fact::{RunStatus, Status};
use pipeline_core::store::{Manifest, RunSummary};
use pipeline_core::value::{Data, Value};

use crate::console::{CYAN, DIM, GREEN, RED, YELLOW, paint, short, visible};
use crate::exit::{is_resumable, status_name};
use crate::report;

/// Most characters of an output that is shown on its line.
const WIDEST: usize = 2_000;

/// The outputs, one `name: value` a line; a text of many lines stands indented below its name.
pub fn outputs(outputs: &Data) -> String {
    let fields = outputs.fields();
    if fields.is_empty() && outputs.count().is_none() {
        return if outputs.json().is_null() { String::new() } else { format!("{}\n", cell(outputs)) };
    }
    fields.iter().map(|(name, value)| output(name, value)).collect()
}

fn output(name: &str, value: &Data) -> String {
    let name = short(name, 200);
    // A model's answer is its text; the rest of it is in `--json`.
    let text = value.get("text").filter(|_| value.get("stop_reason").is_some());
    let value = text.as_ref().unwrap_or(value);
    // A control form's own value is for programs: how many came out how says more.
    if let Some(words) = value.get("success").and_then(|_| of_many(value)) {
        return format!("{name}: {words}\n");
    }
    match value.json() {
        Value::String(text) if text.trim_end().contains('\n') => {
            let lines: Vec<String> = text.trim_end().lines().map(|l| format!("  {}", visible(l))).collect();
            format!("{name}:\n{}\n", lines.join("\n"))
        }
        _ => format!("{name}: {}\n", cell(value)),
    }
}

fn cell(value: &Data) -> String {
    match value.json() {
        Value::String(text) => visible(text.trim_end()),
        other => short(&other.to_string(), WIDEST),
    }
}

/// The value of a loop or fan-out in a few words.
fn of_many(value: &Data) -> Option<String> {
    let list = value.get("items").or_else(|| value.get("iterations"))?.count()?;
    let good = value.get("completed_items").or_else(|| value.get("succeeded"))?;
    Some(format!("{list} items, {} ok", good.json()))
}

/// How a run stands, for standard error: warnings, files, error, how to go on, and last the line that sums it up.
///
/// `resume` is the command that goes on with it.
pub fn ending(report: &RunReport, written: &[PathBuf], working: &Path, resume: &str) -> String {
    let mut lines = Vec::new();
    for warning in &report.warnings {
        lines.push(format!("{} {}", paint(YELLOW, "warning:"), visible(warning)));
    }
    for file in written {
        let shown = file.strip_prefix(working).unwrap_or(file).display();
        lines.push(format!("wrote {}", visible(&shown.to_string())));
    }
    if let Some(failed) = &report.error {
        let place = match &failed.path {
            Some(path) if !path.as_str().is_empty() => format!("step {}: ", visible(path.as_str())),
            _ => String::new(),
        };
        lines.push(format!("{} {place}{}", paint(RED, "error:"), visible(&failed.error.message)));
        if let Some(help) = &failed.error.help {
            lines.push(format!("  {} {}", paint(CYAN, "help:"), visible(help)));
        }
    }
    if report.status == RunStatus::Running {
        lines.push(format!("watch it with: pipeline runs logs {} --follow", visible(&report.run_id)));
    } else if report.status == RunStatus::Budget {
        // As it is, it may stop at once.
        lines.push(format!("go on with: {resume} --with FILE (FILE has a higher limit)"));
    } else if is_resumable(report.status) {
        lines.push(format!("go on with: {resume}"));
    }
    if let (RunStatus::Failed | RunStatus::TimedOut, Some(step)) = (report.status, failed_step(report)) {
        lines.push(format!("try it again with: {resume} --from {step} (--with FILE takes an edited file)"));
    }
    lines.push(last_line(report));
    lines.join("\n")
}

/// The top-level step that the run failed in, as a shell takes it.
fn failed_step(report: &RunReport) -> Option<String> {
    let path = report.error.as_ref().and_then(|error| error.path.as_ref());
    let named = path.and_then(|path| path.as_str().split(['/', '[']).next());
    let is_done = |step: &pipeline_core::engine::StepReport| {
        step.status.is_some_and(|status| status.is_success() || status == Status::Skipped)
    };
    // Where the run's own deadline passed, that is the first one that is not done.
    let first = report.steps.iter().find(|(_, step)| !is_done(step)).map(|(name, _)| name.as_str());
    let name = named.filter(|name| report.steps.contains_key(*name)).or(first)?;
    let is_plain = name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    Some(if is_plain { name.to_owned() } else { format!("'{}'", visible(name).replace('\'', "'\\''")) })
}

fn last_line(report: &RunReport) -> String {
    let status = paint(style(report.status), status_name(report.status));
    let mut parts = vec![format!("in {}", report::time(report.duration_ms))];
    parts.extend(report::usage(&report.usage));
    parts.push(format!("run {}", report.run_id));
    format!("{} {status} {}", visible(&report.workflow), parts.join(", "))
}

/// What a run was made from.
pub fn head(manifest: &Manifest) -> String {
    let inputs = if manifest.inputs.is_empty() {
        String::new()
    } else {
        let all: Data = manifest.inputs.clone().into_iter().collect();
        format!(" with {}", short(&all.json().to_string(), 300))
    };
    let from = manifest.settings.get("forked_from").and_then(Value::as_str);
    let from = from.map_or_else(String::new, |run| format!(", a fork of {}", short(run, 60)));
    format!(
        "{} from {}{inputs}, {} run begun {}{from}\n",
        short(&manifest.workflow, 100),
        short(&manifest.source_path, 200),
        short(&manifest.mode, 20),
        manifest.created_at
    )
}

/// How the steps of a run stand, one a line.
pub fn steps(report: &RunReport) -> String {
    let line = |(name, step): (&String, &pipeline_core::engine::StepReport)| {
        // What has not ended has no time that would mean anything.
        let Some(status) = step.status.map(Status::name) else {
            return format!("{:<9} {}\n", "-", short(name, 200));
        };
        let why = step.error.as_ref().map_or_else(String::new, |e| format!(": {}", short(&e.message, 300)));
        format!("{status:<9} {} ({}){why}\n", short(name, 200), report::time(step.duration_ms))
    };
    report.steps.iter().map(line).collect()
}

/// Runs as a table, newest first, with how long ago each began.
pub fn table(runs: &[RunSummary], now: Timestamp) -> String {
    let id = runs.iter().map(|r| r.run_id.len()).max().unwrap_or(0);
    let row = |run: &RunSummary| {
        let status = paint(style(run.status), format!("{:<11}", status_name(run.status)));
        let pid = run.pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
        let at = format!("{:>14}", ago(now.0 - run.started_at.0));
        let mode = paint(DIM, format!("{:<6}", run.mode));
        format!("{:<id$}  {status} {mode} {at}  {}{pid}\n", run.run_id, short(&run.workflow, 60))
    };
    runs.iter().map(row).collect()
}

/// How long ago something was: `just now`, `5 minutes ago`, `3 days ago`.
fn ago(ms: i64) -> String {
    let minutes = ms / 60_000;
    let (number, unit) = match minutes {
        ..1 => return "just now".to_owned(),
        1..60 => (minutes, "minute"),
        60..2_880 => (minutes / 60, "hour"),
        _ => (minutes / 1_440, "day"),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}

fn style(status: RunStatus) -> anstyle::Style {
    match status {
        RunStatus::Ok => GREEN,
        RunStatus::Failed | RunStatus::TimedOut | RunStatus::Cancelled => RED,
        RunStatus::Running => CYAN,
        RunStatus::Paused | RunStatus::Parked | RunStatus::Budget | RunStatus::Interrupted => YELLOW,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::report::json::tests::report;
    use serde_json::json;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn outputs_read_as_text() {
        let value = json!({"n": 3, "short": "one\n", "long": "a\n\u{1b}b\n", "map": {"x": [1]}});
        let expected = "n: 3\nshort: one\nlong:\n  a\n  \u{fffd}b\nmap: {\"x\":[1]}\n";
        assert_eq!(outputs(&Data::new(value)), expected);
        assert_eq!(outputs(&Data::null()), "");
    }

    #[test]
    fn a_good_run_ends_with_what_it_cost_and_where_files_are() {
        let ending = ending(
            &report(RunStatus::Ok),
            &["/w/outputs/report.md".into(), "/else/x".into()],
            Path::new("/w"),
            "pipeline resume r1",
        );
        let expected = "warning: careful\nwrote outputs/report.md\nwrote /else/x\n\
            demo ok in 12 ms, 1 call, 9 tokens, $0.2500, run r1";
        assert_eq!(plain(&ending), expected);
    }

    #[test]
    fn a_failed_run_names_the_step_and_what_to_do_and_an_interrupted_one_how_to_go_on() {
        let failed = plain(&ending(&report(RunStatus::Failed), &[], Path::new("/"), "pipeline resume r1"));
        assert!(failed.contains("error: step fan[3]/think: too many requests\n  help: wait\n"), "{failed}");
        assert!(!failed.contains("go on with"), "{failed}");
        let cut = plain(&ending(&report(RunStatus::Interrupted), &[], Path::new("/"), "pipeline resume r1"));
        assert!(cut.contains("go on with: pipeline resume r1\n"), "{cut}");
    }

    #[test]
    fn a_table_has_one_line_for_each_run() {
        let run = RunSummary {
            run_id: "r1".to_owned(),
            workflow: "demo".to_owned(),
            status: RunStatus::Running,
            started_at: Timestamp(0),
            mode: "mock".to_owned(),
            source_path: "demo.yaml".to_owned(),
            pid: Some(7),
        };
        let expected = "r1  running     mock    3 minutes ago  demo (process 7)\n";
        assert_eq!(plain(&table(&[run], Timestamp(200_000))), expected);
        assert_eq!(
            [0, 60_000, 7_200_000, 86_400_000 * 3].map(ago),
            ["just now", "1 minute ago", "2 hours ago", "3 days ago"]
        );
    }

    #[test]
    fn steps_that_were_not_reached_are_shown_so() {
        let shown = steps(&report(RunStatus::Failed));
        assert!(shown.contains("ok        list (3 ms)\n"), "{shown}");
        assert!(shown.contains("failed    fan (3 ms): too many requests\n"), "{shown}");
        assert!(shown.contains("-         last"), "{shown}");
    }
}
