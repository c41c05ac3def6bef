//! Logs, for whoever looks for a fault: off unless asked for, and never on standard output.
//!
//! Owns where they go and how much is told ([`start`]), and [`Facts`], the observer that tells every fact. Each line carries
//! the run, and where it is about a step its path and attempt, so that lines of parallel work can be told apart.

use std::fs::OpenOptions;
use std::sync::Arc;

use pipeline_core::event::{Event, EventSink, Hears};
use pipeline_core::fact::{Fact, Record};
use tracing::{debug, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::{Failure, status_name};
use crate::settings::Settings;
use crate::sources::reason;

/// Begins to log, where logging is asked for. True when log lines go to standard error.
///
/// # Errors
/// [`Failure`] for a level that there is not, or a file that cannot be written.
pub fn start(settings: &Settings) -> Result<bool, Failure> {
    let Some(level) = settings.log_level() else { return Ok(false) };
    let level: LevelFilter = level.parse().map_err(|_| {
        Failure::usage(format!("`{level}` is not a level of logs")).help(
            "it is one of error, warn, info, debug, trace and off; --log and PIPELINE_LOG_LEVEL take it",
        )
    })?;
    if level == LevelFilter::OFF {
        return Ok(false);
    }
    // Libraries tell secrets at the finest level: headers, whole requests.
    let libraries = level.min(LevelFilter::WARN);
    let ours = Targets::new().with_default(libraries);
    let ours = [
        "pipeline",
        "pipeline_core",
        "pipeline_providers",
        "pipeline_steps",
        "pipeline_tools",
        "pipeline_checkpoint",
    ]
    .into_iter()
    .fold(ours, |targets, name| targets.with_target(name, level));
    let layer =
        tracing_subscriber::fmt::layer().with_ansi(settings.colour_err && settings.log_file().is_none());
    let registry = tracing_subscriber::registry().with(ours);
    // Only one can be installed, and this is the only place that does.
    let _installed = match settings.log_file() {
        None => registry.with(layer.with_writer(std::io::stderr)).try_init(),
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| {
                Failure::environment(format!("cannot write logs to {}: {}", path.display(), reason(&error)))
                    .help("name another file with --log-file")
            })?;
            registry.with(layer.with_writer(Arc::new(file))).try_init()
        }
    };
    Ok(settings.log_file().is_none())
}

/// Tells every fact of a run.
pub struct Facts {
    run: String,
}

impl Facts {
    /// For a run that begins or goes on.
    pub fn new(run: &str) -> Self {
        Self { run: run.to_owned() }
    }

    fn tell(&self, record: &Record) {
        let run = self.run.as_str();
        match &record.fact {
            Fact::RunStarted { workflow, mode, .. } => info!(run, workflow, mode, "the run begins"),
            Fact::RunResumed { pid, .. } => info!(run, pid, "the run goes on"),
            Fact::RunPaused { reason } => info!(run, status = status_name(reason.status()), "the run stops"),
            Fact::RunEnded { status, .. } => {
                info!(run, status = status_name(*status), elapsed_ms = record.elapsed_ms, "the run ends");
            }
            Fact::StepSkipped { path, reason, .. } => debug!(run, step = %path, reason, "skipped"),
            Fact::AttemptStarted { path, attempt, .. } => debug!(run, step = %path, attempt, "begins"),
            Fact::EffectDone { path, attempt, name, .. } => {
                debug!(run, step = %path, attempt, effect = name, "effect done");
            }
            Fact::SpendReserved { path, attempt, spend, .. } => {
                debug!(run, step = %path, attempt, usd = spend.cost_usd, "reserved");
            }
            Fact::TimerFired { path, .. } => debug!(run, step = %path, "a wait or a deadline is over"),
            Fact::AttemptEnded { path, attempt, end, .. } => {
                let (status, took_ms) = (end.status.name(), end.duration_ms);
                match &end.error {
                    Some(error) => {
                        let kind = error.kind.name();
                        warn!(run, step = %path, attempt, status, kind, took_ms, "{}", error.message);
                    }
                    None => debug!(run, step = %path, attempt, status, took_ms, "ends"),
                }
            }
        }
    }
}

impl EventSink for Facts {
    fn name(&self) -> &'static str {
        "log"
    }

    fn hears(&self) -> Hears {
        Hears::Facts
    }

    fn event(&mut self, event: &Event) {
        if let Event::Fact(record) = event {
            self.tell(record);
        }
    }
}
