//! `pipeline runs`: looks into past runs, and keeps the state directory in order.
//!
//! Here are the commands that only look: list, show, events. The others have files of their own.

mod diff;
pub(super) mod fork;
pub(super) mod keep;
mod logs;

use std::path::Path;

use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::fact::Record;
use pipeline_core::store::{CheckpointStore, RunSummary, StoreError, StoredRun};
use pipeline_core::value::Value;

use super::resume::inspect;
use super::work::resume_command;
use crate::advice;
use crate::app::{self, App};
use crate::args::{ListRuns, OneRun, Runs};
use crate::console::short;
use crate::exit::{Exit, Failure, status_name};
use crate::figures::Figures;
use crate::health;
use crate::report::{figures as shown, json, summary};
use crate::setup::run_dir;

/// What is done to a run that is named.
///
/// # Errors
/// [`Failure`] when the state directory or the run cannot be read.
pub async fn runs(app: &App, args: &Runs) -> Result<Exit, Failure> {
    let state_dir = app.settings.state_dir(None);
    let store = app::store(&state_dir);
    let place = Place { app, store: &*store, state_dir: &state_dir };
    match args {
        Runs::List(args) => place.list(args).await?,
        Runs::Show(one) => place.show(one).await?,
        Runs::Events(one) => place.events(one).await?,
        Runs::Logs(args) => logs::logs(&place, args).await?,
        Runs::Diff(args) => return diff::diff(&place, args).await,
        Runs::Fork(args) => return Box::pin(fork::fork(&place, args)).await,
        Runs::Cancel(one) => keep::cancel(&place, one).await?,
        Runs::Repair(one) => keep::repair(&place, one).await?,
        Runs::Rm(args) => keep::remove(&place, args).await?,
        Runs::Gc(args) => keep::collect(&place, args).await?,
    }
    Ok(Exit::Success)
}

/// Where runs are, and whom to tell.
pub struct Place<'a> {
    /// The program.
    pub app: &'a App,
    /// The runs.
    pub store: &'a dyn CheckpointStore,
    /// Where the store is.
    pub state_dir: &'a Path,
}

impl Place<'_> {
    /// The run that is named by its id or by the first characters of it; the newest when none is named.
    ///
    /// # Errors
    /// [`Failure`] when there is none, or several.
    pub async fn named(&self, run: Option<&str>) -> Result<String, Failure> {
        let Some(asked) = run else {
            return self.store.latest().await?.ok_or_else(|| {
                Failure::environment(format!("there is no run in {}", self.state_dir.display()))
                    .help("`pipeline run FILE` begins one; --state-dir names another directory")
            });
        };
        let all = self.store.list().await?;
        let ids: Vec<&str> = all.iter().map(|run| run.run_id.as_str()).collect();
        match matching(asked, &ids).as_slice() {
            [one] => Ok((*one).to_owned()),
            [] => Err(StoreError::Unknown { run: asked.to_owned() }.into()),
            several => {
                Err(Failure::usage(format!("{} runs begin with `{asked}`", several.len())).help(format!(
                    "write more of the id: {}",
                    several.iter().take(3).copied().collect::<Vec<_>>().join(", ")
                )))
            }
        }
    }

    /// A run as it is stored.
    ///
    /// # Errors
    /// As [`Place::named`], and when it cannot be read.
    pub async fn read(&self, run: Option<&str>) -> Result<StoredRun, Failure> {
        Ok(self.store.read(&self.named(run).await?).await?)
    }

    async fn list(&self, args: &ListRuns) -> Result<(), Failure> {
        let wanted = |run: &RunSummary| {
            let status = status_name(run.status);
            let is_status = args.status.is_empty()
                || args.status.iter().any(|s| {
                    clap::ValueEnum::to_possible_value(s).is_some_and(|name| name.get_name() == status)
                });
            is_status && args.workflow.as_ref().is_none_or(|name| *name == run.workflow)
        };
        let mut runs = self.store.list().await?;
        let all = runs.len();
        runs.retain(wanted);
        runs.truncate(args.limit.unwrap_or(usize::MAX));
        if self.app.settings.json {
            return self.app.console.out(&format!("{:#}\n", json::runs(&runs)));
        }
        if runs.is_empty() {
            let which = if all == 0 { "no run" } else { "no such run" };
            self.app.console.note(&format!("there is {which} in {}", self.state_dir.display()));
        }
        self.app.console.out(&summary::table(&runs, SystemClock.now()))
    }

    async fn show(&self, one: &OneRun) -> Result<(), Failure> {
        let app = self.app;
        let stored = self.read(one.run.as_deref()).await?;
        let report = inspect(app, self.state_dir, &stored)?;
        let figures = Figures::of(&stored.records);
        let services = health::kept(&run_dir(self.state_dir, &report.run_id));
        if app.settings.json {
            let mut document = json::run(&report);
            if let Some(services) = &services {
                document["services"] = serde_json::json!(services);
            }
            if app.settings.verbose {
                document["figures"] = figures.to_json();
                document["advice"] = advice::advice(&figures).into();
            }
            return app.console.out(&format!("{document:#}\n"));
        }
        let hint = resume_command(app, &report.run_id, self.state_dir);
        let more = if app.settings.verbose { shown::text(&figures) } else { String::new() };
        let services =
            services.map_or_else(String::new, |all| format!("services: {}\n", health::words(&all)));
        // All of it is what was asked for, so all of it is the result.
        app.console.out(&format!(
            "{}{}{}{services}{}{more}\n",
            summary::head(&stored.manifest),
            summary::steps(&report),
            summary::outputs(&report.outputs),
            summary::ending(&report, &[], &app.settings.working, &hint)
        ))
    }

    async fn events(&self, one: &OneRun) -> Result<(), Failure> {
        let stored = self.read(one.run.as_deref()).await?;
        let as_json = self.app.settings.json;
        let line = |record| if as_json { Record::to_event(record).to_string() } else { event_line(record) };
        self.app.console.out(&stored.records.iter().map(|record| line(record) + "\n").collect::<String>())
    }
}

/// The ids that `asked` means: the one that is the same, else those that begin with it.
fn matching<'a>(asked: &str, ids: &[&'a str]) -> Vec<&'a str> {
    if let Some(same) = ids.iter().find(|id| **id == asked) {
        return vec![same];
    }
    // A few characters name a run by accident.
    if asked.len() < 4 {
        return Vec::new();
    }
    ids.iter().filter(|id| id.starts_with(asked)).copied().collect()
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

    #[test]
    fn a_run_is_named_by_its_id_or_by_enough_of_it() {
        let ids = ["0190-aa", "0190-ab", "0191-cc", "abc"];
        assert_eq!(matching("0190-aa", &ids), ["0190-aa"]);
        assert_eq!(matching("0191", &ids), ["0191-cc"]);
        assert_eq!(matching("0190", &ids).len(), 2);
        assert_eq!(matching("abc", &ids), ["abc"]);
        assert!(matching("019", &ids).is_empty() && matching("x", &ids).is_empty());
    }
}
