//! `pipeline plan` as data.

use std::path::PathBuf;

use clap::Args;

use super::{Limits, Mock};

/// `pipeline plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// The pipeline file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Tell for each step whether a run that took over from RUN would reuse it, and why
    #[arg(long, value_name = "RUN")]
    pub against: Option<String>,
    /// Which model calls would be made.
    #[command(flatten)]
    pub mock: Mock,
    /// Limits of the run.
    #[command(flatten)]
    pub limits: Limits,
    /// Whether programs would have a sandbox.
    #[command(flatten)]
    pub sandboxing: super::Sandboxing,
    /// Where steps would work [default: workspace]
    #[arg(long, value_name = "DIR")]
    pub workspace_dir: Option<PathBuf>,
    /// Where output files would be written [default: outputs]
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
}
