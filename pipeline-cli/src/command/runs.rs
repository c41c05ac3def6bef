//! `pipeline runs`: looks into past runs without touching them.

use std::path::Path;

use pipeline_core::fact::Record;
use pipeline_core::store::CheckpointStore;
use pipeline_core::value::Value;

use super::resume::inspect;
use super::work::resume_command;
use crate::app::{self, App};
use crate::args::{OneRun, Runs};
use crate::console::short;
use crate::exit::{Exit, Failure};
use crate::report::{json, summary};

/// Lists runs, or shows one.
///
/// # Errors
/// [`Failure`] when the state directory or the run cannot be read.
pub async fn runs(app: &App, args: &Runs) -> Result<Exit, Failure> {
    let state_dir = app.settings.state_dir(None);
    let store = app::store(&state_dir);
    match args {
        Runs::List => list(app, &*store, &state_dir).await?,
        Runs::Show(one) => show(app, &*store, &state_dir, one).await?,
        Runs::Events(one) => events(app, &*store, &state_dir, one).await?,
    }
    Ok(Exit::Success)
}

async fn list(app: &App, store: &dyn CheckpointStore, state_dir: &Path) -> Result<(), Failure> {
    let runs = store.list().await?;
    if app.settings.json {
        return app.console.out(&format!("{:#}\n", json::runs(&runs)));
    }
    if runs.is_empty() {
        app.console.note(&format!("there is no run in {}", state_dir.display()));
    }
    app.console.out(&summary::table(&runs))
}

async fn show(app: &App, store: &dyn CheckpointStore, state_dir: &Path, one: &OneRun) -> Result<(), Failure> {
    let id = named(store, state_dir, one).await?;
    let report = inspect(app, state_dir, &store.read(&id).await?)?;
    if app.settings.json {
        return app.console.out(&format!("{:#}\n", json::run(&report)));
    }
    let hint = resume_command(app, &id, state_dir);
    // All of it is what was asked for, so all of it is the result.
    app.console.out(&format!(
        "{}{}{}\n",
        summary::steps(&report),
        summary::outputs(report.outputs.json()),
        summary::ending(&report, &[], &app.settings.working, &hint)
    ))
}

async fn events(
    app: &App,
    store: &dyn CheckpointStore,
    state_dir: &Path,
    one: &OneRun,
) -> Result<(), Failure> {
    let id = named(store, state_dir, one).await?;
    let stored = store.read(&id).await?;
    let line =
        |record| if app.settings.json { Record::to_event(record).to_string() } else { event_line(record) };
    app.console.out(&stored.records.iter().map(|record| line(record) + "\n").collect::<String>())
}

/// The run that is named, or the newest.
async fn named(store: &dyn CheckpointStore, state_dir: &Path, one: &OneRun) -> Result<String, Failure> {
    if let Some(id) = &one.run {
        return Ok(id.clone());
    }
    store.latest().await?.ok_or_else(|| {
        Failure::environment(format!("there is no run in {}", state_dir.display()))
            .help("`pipeline run FILE` begins one; --state-dir names another directory")
    })
}

/// A fact for people: number, time, what, where, how.
fn event_line(record: &Record) -> String {
    let event = record.to_event();
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let attempt = event.get("attempt").and_then(Value::as_u64);
    let attempt = attempt.filter(|n| *n > 1).map_or_else(String::new, |n| format!("(attempt {n})"));
    let error = event.get("error").and_then(|e| e.get("message")).and_then(Value::as_str).unwrap_or("");
    let words = [text("fact"), text("path"), attempt, text("status"), text("reason"), short(error, 300)];
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    format!("{:>5} {} {}", record.index, record.at, short(&words.join(" "), 500))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_core::clock::Timestamp;
    use pipeline_core::error::StepError;
    use pipeline_core::fact::{AttemptEnd, Fact};
    use pipeline_core::value::Hash;

    #[test]
    fn a_fact_is_one_line_with_what_went_wrong() {
        let fact = Fact::AttemptEnded {
            path: "fan[1]/think".into(),
            attempt: 2,
            turn: 2,
            fingerprint: Hash::of_bytes(b""),
            end: Box::new(AttemptEnd::failed(StepError::invalid("no\nway"))),
        };
        let record = Record { index: 4, at: Timestamp(0), elapsed_ms: 9, fact };
        let expected = "    4 1970-01-01T00:00:00.000Z AttemptEnded fan[1]/think (attempt 2) failed no way";
        assert_eq!(event_line(&record), expected);
    }
}
