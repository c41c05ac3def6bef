//! `pipeline runs logs`: what the steps of a run said and made, in the order in which they did.

use std::time::Duration;

use pipeline_core::diagnostic::closest;
use pipeline_core::fact::{Fact, Record, Status};
use pipeline_core::path::StepPath;
use pipeline_core::store::CheckpointStore;
use pipeline_core::value::{Data, Value};

use super::Place;
use crate::args::Logs;
use crate::console::{DIM, GREEN, RED, YELLOW, paint, short, visible};
use crate::exit::{Failure, status_name};
use crate::report;

/// Most lines of one text, unless everything was asked for.
const LINES: usize = 40;
/// Between two looks at a run that goes on.
const PAUSE: Duration = Duration::from_millis(250);

/// Prints the log of a run.
///
/// # Errors
/// [`Failure`] when the run cannot be read.
pub(super) async fn logs(place: &Place<'_>, args: &Logs) -> Result<(), Failure> {
    let run = place.named(args.run.as_deref()).await?;
    let most = if place.app.settings.verbose { usize::MAX } else { LINES };
    let mut told = 0;
    loop {
        // Whether somebody works on it is asked first: what was written before that is then read.
        let goes_on = args.follow && is_held(place.store, &run).await?;
        let stored = place.store.read(&run).await?;
        if let Some(step) = &args.step
            && !goes_on
            && !stored.records.iter().any(|record| concerns(record, Some(step)))
        {
            return Err(unknown_step(step, &run, &stored.records));
        }
        let new = stored.records.iter().skip(told).filter(|record| concerns(record, args.step.as_deref()));
        let text: String = if place.app.settings.json {
            new.map(|record| record.to_event().to_string() + "\n").collect()
        } else {
            new.filter_map(|record| entry(record, most)).collect()
        };
        place.app.console.out(&text)?;
        told = stored.records.len();
        if !goes_on {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn unknown_step(step: &str, run: &str, records: &[Record]) -> Failure {
    let paths = records.iter().filter_map(|record| match &record.fact {
        Fact::AttemptStarted { path, .. } | Fact::StepSkipped { path, .. } => Some(path.as_str()),
        _ => None,
    });
    let help = match closest(step, paths) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("`pipeline runs show {run}` names the steps of the run"),
    };
    Failure::usage(format!("no step `{}` has run in {run}", short(step, 100))).help(help)
}

async fn is_held(store: &dyn CheckpointStore, run: &str) -> Result<bool, Failure> {
    Ok(store.list().await?.iter().any(|r| r.run_id == run && r.pid.is_some()))
}

/// True when the record is about `step` or something below it.
fn concerns(record: &Record, step: Option<&str>) -> bool {
    let Some(step) = step else { return true };
    let path = match &record.fact {
        Fact::AttemptStarted { path, .. }
        | Fact::AttemptEnded { path, .. }
        | Fact::EffectDone { path, .. }
        | Fact::StepSkipped { path, .. } => path.as_str(),
        _ => return false,
    };
    path.strip_prefix(step).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
}

/// A line of its own for what happened, and below it, indented, what was said.
fn entry(record: &Record, most: usize) -> Option<String> {
    let at = record.at.to_string();
    let at = paint(DIM, at.get(11..23).unwrap_or(&at));
    let (line, said) = match &record.fact {
        Fact::AttemptEnded { path, attempt, end, .. } => {
            let which = if *attempt > 1 { format!(" attempt {attempt}") } else { String::new() };
            let style = match end.status {
                Status::Ok => GREEN,
                Status::Failed | Status::TimedOut => RED,
                Status::Degraded | Status::Skipped | Status::Cancelled => YELLOW,
            };
            let status = paint(style, end.status.name());
            let used = report::usage(&end.usage).map_or_else(String::new, |used| format!(", {used}"));
            let time = report::time(end.duration_ms);
            let mut said = end.error.as_ref().map_or_else(|| said(&end.value), |e| e.message.clone());
            said.extend(end.warnings.iter().map(|warning| format!("\nwarning: {warning}")));
            (format!("{}{which} {status} in {time}{used}", name(path)), said)
        }
        Fact::StepSkipped { path, reason, .. } => {
            (format!("{} {}: {}", name(path), paint(YELLOW, "skipped"), short(reason, 300)), String::new())
        }
        Fact::RunStarted { workflow, mode, .. } => {
            (format!("run of {} begins, {}", short(workflow, 200), short(mode, 20)), String::new())
        }
        Fact::RunResumed { pid, version } => {
            (format!("process {pid} goes on with it (version {})", short(version, 40)), String::new())
        }
        Fact::RunPaused { .. } => ("the run stops for now".to_owned(), String::new()),
        Fact::RunEnded { status, error, .. } => {
            let why =
                error.as_ref().map_or_else(String::new, |e| format!(": {}", short(&e.error.message, 300)));
            (format!("the run ends: {}{why}", status_name(*status)), String::new())
        }
        _ => return None,
    };
    Some(format!("{at} {line}\n{}", indented(&said, most)))
}

fn name(path: &StepPath) -> String {
    short(path.as_str(), 200)
}

/// What a value says to people: the streams of a command, else the primary value.
fn said(value: &Data) -> String {
    let json = value.json();
    let stream = |field: &str| json.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    if json.get("exit_code").is_some() {
        return [stream("stdout"), stream("stderr")].into_iter().flatten().collect::<Vec<_>>().join("\n");
    }
    match stream("text").map_or_else(|| value.primary().clone(), Value::from) {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn indented(text: &str, most: usize) -> String {
    let text = visible(text.trim_end());
    let mut out: String = text.lines().take(most).map(|line| format!("    {line}\n")).collect();
    let more = text.lines().count().saturating_sub(most);
    if more > 0 {
        out.push_str(&format!("    {}\n", paint(DIM, format!("… {more} more lines: -v shows them"))));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::figures::tests::{end, records, start};
    use serde_json::json;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_step_has_a_line_and_its_text_below() {
        let facts = records(vec![(0, start("fan[3]/think", 2)), (5, end("fan[3]/think", 2, 5, None))]);
        assert_eq!(entry(&facts[0], 9), None);
        let text = plain(&entry(&facts[1], 9).unwrap());
        assert_eq!(text, "22:13:20.005 fan[3]/think attempt 2 ok in 5 ms, 1 call, 15 tokens, $0.5000\n");
        assert!(concerns(&facts[1], Some("fan")) && concerns(&facts[1], Some("fan[3]")));
        assert!(!concerns(&facts[1], Some("fa")) && !concerns(&facts[1], Some("fan[31]")));
    }

    #[test]
    fn what_a_model_or_a_command_said_cannot_steer_the_terminal() {
        assert_eq!(
            said(&Data::of_step(json!({"exit_code": 0, "stdout": "a\u{1b}[2J", "stderr": ""}))),
            "a\u{1b}[2J"
        );
        assert_eq!(
            indented("a\u{1b}[2J\nb\nc", 2),
            format!("    a\u{fffd}[2J\n    b\n    {}\n", paint(DIM, "… 1 more lines: -v shows them"))
        );
        assert_eq!(said(&Data::of_step(json!({"text": "hi", "data": {"x": 1}}))), "hi");
        assert_eq!(said(&Data::of_step(json!([1, 2]))), "[1,2]");
    }
}
