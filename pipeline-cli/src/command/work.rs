//! What `run` and `resume` share: watching a run, stopping it, and telling how it ended.
//!
//! Must not know how a run is begun.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::path::Path;

use pipeline_core::diagnostic::Severity;
use pipeline_core::engine::{EngineError, RunControl, RunReport};
use pipeline_core::fact::RunStatus;
use pipeline_core::service::Health;
use pipeline_core::store::Manifest;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Workshop, Written};
use crate::console::{YELLOW, paint, visible};
use crate::exit::{Exit, Failure};
use crate::monitor::Monitor;
use crate::report::events::EventLines;
use crate::report::plain::Plain;
use crate::report::terminal::{self, Live};
use crate::report::{diagnostics, github, json, summary};
use crate::settings::Settings;
use crate::supervise::{Ended, ProcessSignals, Signal, supervise};
use crate::wiring::Telemetry;
use crate::{health, logging};

/// Somebody who watches a run.
pub struct Watch {
    live: Option<Live>,
    monitor: Monitor,
    telemetry: Telemetry,
    stop: CancellationToken,
    events: bool,
}

impl Watch {
    /// Reporters of the run of `manifest` as the settings want them; `events` adds lines of JSON on standard output, and
    /// `metrics` is the file that gets the figures at the end.
    pub fn new(app: &App, manifest: &Manifest, events: bool, metrics: Option<&Path>) -> (Self, RunControl) {
        let mut control = RunControl::default();
        let mut live = None;
        let monitor = Monitor::default();
        let telemetry = Telemetry::of(&app.settings);
        control.sinks.push(Box::new(monitor.sink(metrics.map(|file| app.settings.absolute(file)))));
        control.sinks.extend(telemetry.sink(&manifest.run_id, &manifest.workflow));
        if app.settings.log_level().is_some() {
            control.sinks.push(Box::new(logging::Facts::new(&manifest.run_id)));
        }
        if events {
            control.sinks.push(Box::new(EventLines::new(std::io::stdout())));
        }
        if app.settings.live {
            let status = Live::new(app.settings.colour_err);
            control.sinks.push(Box::new(status.sink(app.settings.verbose)));
            live = Some(status);
        } else if !app.settings.quiet {
            control.sinks.push(Box::new(Plain::new(app.console.stderr(), app.settings.verbose)));
        }
        (Self { live, monitor, telemetry, stop: control.stop.clone(), events }, control)
    }

    /// Works until the run ends or stops; the first signal stops it, the second leaves it.
    ///
    /// # Errors
    /// [`Failure`] when the run could not be worked on.
    pub async fn conduct(
        &self,
        app: &App,
        resume: &str,
        work: impl Future<Output = Result<RunReport, EngineError>>,
    ) -> Result<Conducted, Failure> {
        let mut signals = ProcessSignals::listen().map_err(|error| {
            Failure::environment(format!(
                "signals cannot be handled, so a run could not be stopped safely: {error}"
            ))
        })?;
        let stopping = "stopping: the state is being saved (again to stop at once)";
        let told = |_| match &self.live {
            Some(live) => live.say(stopping),
            None => app.console.note(stopping),
        };
        let mut screen = tokio::io::stderr();
        let beside = async {
            match &self.live {
                Some(live) => live.redraw(&mut screen, terminal::size).await,
                None => pending().await,
            }
        };
        let ended = supervise(work, &self.stop, &mut signals, told, beside).await;
        // The same stream as before: what it has not written yet comes first.
        if let Some(live) = &self.live {
            live.close(&mut screen).await;
        }
        match ended {
            Ended::Work(report, signal) => Ok(Conducted::Report(Box::new(report?), signal)),
            Ended::Abandoned(signal) => {
                app.console.err(&format!("stopped at once; what was recorded is safe, go on with: {resume}"));
                Ok(Conducted::Abandoned(signal))
            }
        }
    }

    /// Keeps how the services of the run were at its end, with the run.
    pub fn keep_health(&self, app: &App, conducted: &Conducted, workshop: &Workshop, run_dir: &Path) {
        let Some(report) = conducted.report() else { return };
        let mut services = report.services.clone();
        services.extend(workshop.engine.services.tools.health());
        if let Some(trouble) = self.telemetry.trouble() {
            match services.iter_mut().find(|health| health.service == "telemetry") {
                Some(telemetry) => telemetry.down(trouble),
                None => {
                    let mut telemetry = Health::new("telemetry");
                    telemetry.down(trouble);
                    services.push(telemetry);
                }
            }
        }
        if let Err(why) = health::keep(run_dir, &services, &workshop.engine.services.redactor) {
            app.console.err(&format!("{} {}", paint(YELLOW, "warning:"), visible(&why)));
        }
    }

    /// Tells how a run ended and gives the program's exit code.
    ///
    /// # Errors
    /// [`Failure`] when the result cannot be written.
    pub fn tell(
        &self,
        app: &App,
        conducted: &Conducted,
        written: &Written,
        resume: &str,
    ) -> Result<Exit, Failure> {
        let (report, signal) = match conducted {
            Conducted::Abandoned(signal) => return Ok(signal.exit()),
            Conducted::Report(report, signal) => (report, *signal),
        };
        if app.settings.json {
            app.console.out(&format!("{:#}\n", json::run(report)))?;
        } else if !self.events {
            app.console.out(&summary::outputs(&report.outputs))?;
        }
        let exit = exit_of(report.status, signal);
        for trouble in self.monitor.trouble().into_iter().chain(self.telemetry.trouble()) {
            app.console.err(&format!("{} {}", paint(YELLOW, "warning:"), visible(&trouble)));
        }
        if app.settings.is_github()
            && let Some(line) = github::annotation(report)
        {
            app.console.err(&line);
        }
        if !app.console.quiet || exit != Exit::Success {
            let ending = summary::ending(report, &written.files(), &app.settings.working, resume);
            app.console.err(&ending);
        }
        Ok(exit)
    }
}

/// How conducted work came out.
pub enum Conducted {
    /// The run ended or stopped; the signal that asked for it, if one did.
    Report(Box<RunReport>, Option<Signal>),
    /// A second signal: nobody waited for the run.
    Abandoned(Signal),
}

impl Conducted {
    /// The report, where somebody waited for it.
    pub fn report(&self) -> Option<&RunReport> {
        match self {
            Self::Report(report, _) => Some(report),
            Self::Abandoned(_) => None,
        }
    }
}

/// A run that a signal stopped has that signal's code; one that ended anyway has its own.
fn exit_of(status: RunStatus, signal: Option<Signal>) -> Exit {
    match (status, signal) {
        (RunStatus::Interrupted, Some(signal)) => signal.exit(),
        (status, _) => Exit::of_status(status),
    }
}

/// Refuses a live run whose steps name a provider that has no credential. `messages` say what others lack.
///
/// # Errors
/// An environment [`Failure`] that names every variable that is missing.
pub fn check_credentials(
    used: &BTreeSet<String>,
    lacking: &[&'static str],
    messages: Vec<String>,
) -> Result<(), Failure> {
    let missing: Vec<&str> = lacking.iter().copied().filter(|name| used.contains(*name)).collect();
    missing_credentials(&missing, messages).map_or(Ok(()), Err)
}

fn missing_credentials(providers: &[&str], messages: Vec<String>) -> Option<Failure> {
    let sentence = |name: &&str| {
        let known = Settings::credentials().iter().find(|(provider, _)| provider == name);
        let variables = known.map_or_else(|| "its API key".to_owned(), |(_, v)| v.join(" or "));
        format!("the credential for `{name}` is missing: set {variables}")
    };
    let mut failure = Failure::environment("");
    failure.messages = providers.iter().map(sentence).chain(messages).collect();
    (!failure.messages.is_empty()).then(|| failure.help("or run with --mock, which calls nobody"))
}

/// Tells what a compilation found, for people. When the file can run, notes are for those who want to know everything,
/// and nothing is for those who want quiet.
///
/// # Errors
/// [`Failure`] when the document cannot be written.
pub fn tell_findings(app: &App, checked: &diagnostics::Checked, is_refused: bool) -> Result<(), Failure> {
    if is_refused || !app.console.quiet {
        let least = if is_refused || app.settings.verbose { Severity::Note } else { Severity::Warning };
        let text = diagnostics::text_from(checked, least);
        if !text.is_empty() {
            app.console.err(text.trim_end());
        }
    }
    if is_refused && app.settings.json {
        app.console.out(&format!("{:#}\n", diagnostics::json(std::slice::from_ref(checked))))?;
    }
    Ok(())
}

/// The command that goes on with a run.
pub fn resume_command(app: &App, run: &str, state_dir: &Path) -> String {
    match app.settings.state_flag_for(state_dir) {
        Some(dir) => format!("pipeline resume {run} --state-dir {dir}"),
        None => format!("pipeline resume {run}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_signal_decides_only_over_a_run_that_it_interrupted() {
        assert_eq!(exit_of(RunStatus::Interrupted, Some(Signal::Terminate)).code(), 143);
        assert_eq!(exit_of(RunStatus::Interrupted, Some(Signal::Interrupt)).code(), 130);
        assert_eq!(exit_of(RunStatus::Interrupted, None).code(), 130);
        assert_eq!(exit_of(RunStatus::Ok, Some(Signal::Interrupt)).code(), 0);
        assert_eq!(exit_of(RunStatus::Failed, Some(Signal::Terminate)).code(), 1);
    }

    #[test]
    fn every_missing_credential_is_named_with_its_variables_and_the_mock() {
        let failure = missing_credentials(&["claude", "gemini"], vec!["x lacks X".to_owned()]).unwrap();
        assert_eq!(failure.exit.code(), 3);
        let text = failure.to_string();
        assert!(text.contains("ANTHROPIC_API_KEY") && text.contains("GEMINI_API_KEY"), "{text}");
        assert!(failure.help.unwrap().contains("--mock"));
        assert_eq!(missing_credentials(&[], Vec::new()), None);
    }
}
