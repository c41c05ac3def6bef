//! `pipeline runs …` and `pipeline report` as data.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Limits, Mock, Permissions};

/// `pipeline runs`.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// List runs, newest first
    List(ListRuns),
    /// Show how a run stands; -v adds figures and advice
    Show(OneRun),
    /// Print what the steps of a run said and made
    Logs(Logs),
    /// Print every recorded fact of a run
    Events(OneRun),
    /// Compare two runs: inputs, sources, steps, values, costs
    Diff(Diff),
    /// Begin a new run that takes over what an earlier one did, up to a step
    Fork(Box<Fork>),
    /// End a run for good, whether it works or rests
    Cancel(OneRun),
    /// Check what is stored of a run, and cut off a torn end
    Repair(OneRun),
    /// Remove runs
    Rm(Remove),
    /// Remove old runs that have ended
    Gc(Collect),
}

/// A run.
#[derive(Debug, Args)]
pub struct OneRun {
    /// The run, or the first characters of its id [default: the newest]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
}

/// `pipeline runs list`.
#[derive(Debug, Args)]
pub struct ListRuns {
    /// Only runs that stand so
    #[arg(long, value_enum, value_name = "STATUS")]
    pub status: Vec<StatusName>,
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum StatusName {
    Ok,
    Failed,
    Paused,
    Parked,
    Budget,
    Cancelled,
    Interrupted,
    TimedOut,
    Running,
}

/// `pipeline runs logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The run [default: the newest]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Only this step and what is below it, for example `fan[3]`
    #[arg(long, value_name = "PATH")]
    pub step: Option<String>,
    /// Go on printing while the run goes on
    #[arg(short, long)]
    pub follow: bool,
}

/// `pipeline runs diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The one
    #[arg(value_name = "A")]
    pub left: String,
    /// The other
    #[arg(value_name = "B")]
    pub right: String,
}

/// `pipeline runs fork`.
#[derive(Debug, Args)]
pub struct Fork {
    /// The run to take over from
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Take this value for a top-level step instead of what it gave: JSON where it parses, else text; `@FILE` takes a file
    #[arg(long = "set", value_name = "STEP=VALUE")]
    pub set: Vec<String>,
    /// Run this top-level step and everything after it again [default: what follows the steps of --set]
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// The id of the new run
    #[arg(long = "run-id", value_name = "ID")]
    pub id: Option<String>,
    /// Which model calls are made: the new run works in the mode of the old one.
    #[command(flatten)]
    pub mock: Mock,
    /// What the run may reach, beside what it might before.
    #[command(flatten)]
    pub permissions: Permissions,
    /// Limits, in the place of those that the run began with.
    #[command(flatten)]
    pub limits: Limits,
    /// Print every event as a line of JSON on standard output
    #[arg(long, conflicts_with = "json")]
    pub events: bool,
}

/// `pipeline runs rm`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
    /// Remove also what could still go on
    #[arg(long)]
    pub force: bool,
}

/// `pipeline runs gc`.
#[derive(Debug, Args)]
pub struct Collect {
    /// Keep the newest N that have ended
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub keep: usize,
    /// Keep those of the last N days
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub days: u32,
    /// Only tell what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// `pipeline report`.
#[derive(Debug, Args)]
pub struct Report {
    /// The run [default: the newest]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Where to write the page; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}
