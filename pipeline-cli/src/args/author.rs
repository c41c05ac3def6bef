//! Commands for whoever makes pipelines, as data: init, new, generate, migrate, test, verify, bench.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `pipeline init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Where
    #[arg(default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
}

/// `pipeline new`.
#[derive(Debug, Args)]
pub struct New {
    /// prompt, chain, fan-out, loop or extract
    #[arg(value_name = "TEMPLATE")]
    pub template: String,
    /// The file [default: the template's name]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `pipeline completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `pipeline migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Only tell what would be rewritten; 2 when something would
    #[arg(long)]
    pub check: bool,
}

/// `pipeline generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// What the pipeline is for
    #[arg(value_name = "REQUEST")]
    pub request: String,
    /// The file [default: made from the request]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What it is for
    #[arg(long, value_enum, default_value_t = Profile::Development)]
    pub profile: Profile,
    /// How large it may be
    #[arg(long, value_enum, default_value_t = Complexity::Medium)]
    pub complexity: Complexity,
    /// The provider that is asked [default: claude]
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// The model that is asked
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Ask nobody: choose a template by the words of the request
    #[arg(long)]
    pub mock: bool,
    /// Print the file instead of writing it
    #[arg(long)]
    pub dry_run: bool,
}

/// What a generated pipeline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Trying things out
    Development,
    /// Running unattended
    Production,
}

/// How large a generated pipeline may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Complexity {
    /// One or two steps
    Simple,
    /// Three to six steps
    Medium,
    /// As many as it needs
    Complex,
}

/// `pipeline test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Files of cases, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Only cases whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Write the verdicts as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Store what came of cases with `snapshot: true`
    #[arg(long)]
    pub update: bool,
    /// Run again whenever a file changes
    #[arg(long)]
    pub watch: bool,
}

/// `pipeline verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Kill the process at every record of its journal, resume, and compare
    #[arg(long)]
    pub crash: bool,
    /// Let the disk be full at every write and flush of the journal, make room, resume, and compare
    #[arg(long)]
    pub faults: bool,
    /// Most kills; of a longer journal so many, evenly spread. The same for faults
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub most: usize,
    /// An input: JSON where it parses, else text
    #[arg(short, long = "input", value_name = "KEY=VALUE")]
    pub inputs: Vec<String>,
    /// Script the mock with a file of rules
    #[arg(long, value_name = "FILE")]
    pub mock_rules: Option<PathBuf>,
}

/// `pipeline bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Steps of each measurement
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub steps: u32,
    /// On the disk of this directory [default: the working directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
