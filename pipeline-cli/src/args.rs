//! The command line as data.
//!
//! Owns [`Cli`] and one struct per command. Must not know the environment (`settings.rs`) or what a command does.
//! A flag is here only when something honours it.

mod author;
mod plan;
mod runs;
mod tools;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use author::{Bench, Completions, Complexity, Generate, Init, Migrate, New, Profile, Test, Verify};
pub use plan::Plan;
pub use runs::{Collect, Diff, Fork, ListRuns, Logs, OneRun, Remove, Report, Runs};
pub use tools::{Sessions, Tools};

/// Durable, supervised AI pipelines from a YAML file.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Flags that may stand anywhere.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Heading of the flags that every command has: a command's own come first.
const EVERYWHERE: &str = "Options of every command";

/// Flags that may stand anywhere.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Directory of runs, sessions and the library [default: .pipeline]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the pipelines that `pipeline_ref` names [default: library in the state directory, then library beside the root file]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "DIR")]
    pub library: Option<PathBuf>,
    /// Print the result as JSON on standard output
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Tell nothing but errors
    #[arg(short, long, global = true, help_heading = EVERYWHERE, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Tell of every step, however deep; -vv also logs, like --log debug
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log on standard error: error, warn, info, debug or trace [default: off]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Log to this file instead, by default at level debug
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find what is wrong with pipeline files, without running them
    Check(Check),
    /// Run a pipeline
    Run(Box<Run>),
    /// Tell what a run would do: order, conditions, models, worst cost, files
    Plan(Plan),
    /// Go on with a run that stopped
    Resume(Resume),
    /// Look into past runs
    #[command(subcommand)]
    Runs(Runs),
    /// Write a run as one page: graph, timeline, prompts, outputs, tokens, cost
    Report(Report),
    /// List, show and call tools
    #[command(subcommand)]
    Tools(Tools),
    /// Look into durable conversations
    #[command(subcommand)]
    Sessions(Sessions),
    /// Draw a pipeline
    Graph(Graph),
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    /// Tell more about the code of a finding
    Explain(Explain),
    /// Run cases: inputs, mock rules or a tape, and what must come of them
    Test(Test),
    /// Kill runs of a pipeline, resume them, and compare what comes of them
    Verify(Verify),
    /// Measure what the engine costs on this machine
    Bench(Bench),
    /// Write a first pipeline, a case for it, and the schema for editors
    Init(Init),
    /// Write a pipeline from a template
    New(New),
    /// Make a pipeline with a model, or from templates with --mock
    Generate(Generate),
    /// Rewrite legacy spellings where they stand
    Migrate(Migrate),
    /// Print what a shell needs to complete commands
    Completions(Completions),
    /// Print the manual page
    Man,
    /// Look at what this machine has of what pipelines need; changes nothing
    Doctor,
    /// Serve the wire formats of the model services on this machine, for tests and trials
    #[cfg(feature = "mock-server")]
    MockServer(MockServer),
}

/// `pipeline mock-server`.
#[cfg(feature = "mock-server")]
#[derive(Debug, Args)]
pub struct MockServer {
    /// Port on 127.0.0.1; 0 takes any that is free
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub port: u16,
    /// What to answer: a file of mock rules; their steps and counts of calls follow the header `x-pipeline-step`, which
    /// this program sends to servers on this machine
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Most requests a minute; past them, status 429 with the wait
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests_per_minute: Option<u64>,
    /// Most tokens sent a minute; past them, status 429 with the wait
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens_per_minute: Option<u64>,
}

/// `pipeline check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Pipeline files, or directories to look for them in; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// How to print findings
    #[arg(long, value_enum, default_value_t = FindingFormat::Text, conflicts_with = "json")]
    pub format: FindingFormat,
    /// Unknown keys are warnings
    #[arg(long)]
    pub lenient: bool,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FindingFormat {
    /// For people
    Text,
    /// One document
    Json,
    /// Annotations of GitHub Actions
    Github,
    /// SARIF 2.1.0
    Sarif,
}

/// `pipeline run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The pipeline file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Inputs as KEY=VALUE; keys match whatever their case
    #[arg(value_name = "KEY=VALUE")]
    pub pairs: Vec<String>,
    /// An input: JSON where it parses, else text; `@FILE` takes a file
    #[arg(short, long = "input", value_name = "KEY=VALUE")]
    pub inputs: Vec<String>,
    /// A file with a map of inputs, YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub input_file: Option<PathBuf>,
    /// Which model calls are made.
    #[command(flatten)]
    pub mock: Mock,
    /// What the run may reach.
    #[command(flatten)]
    pub permissions: Permissions,
    /// Limits.
    #[command(flatten)]
    pub limits: Limits,
    /// Whether effects are taped.
    #[command(flatten)]
    pub taping: Taping,
    /// Where steps work [default: workspace]
    #[arg(long, value_name = "DIR")]
    pub workspace_dir: Option<PathBuf>,
    /// Where output files are written [default: outputs]
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// The id of the new run, letters, digits, `-` and `_` [default: a new UUID]
    #[arg(long = "run-id", value_name = "ID")]
    pub id: Option<String>,
    /// Stop after this top-level step, and return what the steps gave
    #[arg(long, value_name = "STEP")]
    pub until: Option<String>,
    /// Set a variable of the pipeline's state
    #[arg(long = "set", value_name = "VAR=VALUE")]
    pub set: Vec<String>,
    /// Do not ask before the first live run of a file that can start programs and has no budget
    #[arg(short, long)]
    pub yes: bool,
    /// Do nothing but tell what would run, like `pipeline plan`
    #[arg(long)]
    pub dry_run: bool,
    /// Start the run as a process of its own, and leave it: it goes on when the terminal is closed
    #[arg(long, conflicts_with_all = ["events", "dry_run"])]
    pub detach: bool,
    /// The disk fails at this write or flush of the journal: for `pipeline verify --faults`
    #[arg(long, hide = true, value_name = "N", conflicts_with = "detach")]
    pub disk_fails_at: Option<u64>,
    /// Print every event as a line of JSON on standard output
    #[arg(long, conflicts_with = "json")]
    pub events: bool,
    /// Write figures for Prometheus to this file when the run ends or stops
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// How to go about what waits for people and quotas.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// How to go about what waits for people and quotas.
#[derive(Debug, Clone, Default, Args)]
pub struct Waiting {
    /// Wait for an account whose quota is used up, instead of putting the run down (exit 75)
    #[arg(long)]
    pub wait: bool,
    /// Never ask on the terminal: a run that needs an answer is put down (exit 4)
    #[arg(long)]
    pub no_interactive: bool,
}

/// `pipeline resume`.
#[derive(Debug, Clone, Default, Args)]
pub struct Resume {
    /// The run [default: the last one that has not ended]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Which model calls are made: a run goes on in the mode that it began in.
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
    /// Write figures for Prometheus to this file when the run ends or stops
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// How to go about what waits for people and quotas.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Go on with this edited file in a new run: what the file asks for as before is taken over
    #[arg(long = "with", value_name = "FILE")]
    pub file: Option<String>,
    /// Run this top-level step and everything after it again, in a new run that takes over what came before
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Answer a question of the run; a value is JSON where it parses, else text
    #[arg(long = "answer", value_name = "STEP=VALUE")]
    pub answers: Vec<String>,
    /// Use accounts at once that were parked because their quota was used up
    #[arg(long, conflicts_with = "wait")]
    pub try_now: bool,
}

/// Which model calls are made.
#[derive(Debug, Clone, Default, Args)]
pub struct Mock {
    /// Answer every model call with the built-in mock
    #[arg(long)]
    pub mock: bool,
    /// Script the mock with a file of rules; implies --mock
    #[arg(long, value_name = "FILE")]
    pub mock_rules: Option<PathBuf>,
}

/// Whether effects are taped.
#[derive(Debug, Clone, Default, Args)]
pub struct Taping {
    /// Keep what comes of every effect (model calls, tools, commands) in a tape there
    #[arg(long, value_name = "DIR", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Do no effect: give back what the tape there has of each
    #[arg(long, value_name = "DIR", conflicts_with_all = ["mock", "mock_rules"])]
    pub replay: Option<PathBuf>,
}

/// What a run may reach beside what its file says.
#[derive(Debug, Clone, Default, Args)]
pub struct Permissions {
    /// Another directory that may be read
    #[arg(long, value_name = "DIR")]
    pub allow_read: Vec<PathBuf>,
    /// Another directory that may be written
    #[arg(long, value_name = "DIR")]
    pub allow_write: Vec<PathBuf>,
    /// Steps and tools may run any command
    #[arg(long)]
    pub allow_shell: bool,
    /// Whether programs have a sandbox.
    #[command(flatten)]
    pub sandboxing: Sandboxing,
}

/// Whether programs have a sandbox.
#[derive(Debug, Clone, Default, Args)]
pub struct Sandboxing {
    /// Start programs in a sandbox, whatever the file says: no network, no home, only directories of the run (Linux, by
    /// bubblewrap). Where none can be made they are not started
    #[arg(long)]
    pub sandbox: bool,
    /// Start programs without a sandbox, although the file or the configuration asks for one
    #[arg(long, conflicts_with = "sandbox")]
    pub no_sandbox: bool,
}

/// Limits from outside; the tighter of these and the file's hold.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Limits {
    /// Stop before the run costs more US dollars
    #[arg(long, value_name = "USD", value_parser = money)]
    pub max_cost_usd: Option<f64>,
    /// Most steps at once
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_parallel: Option<u32>,
    /// Stop after this time, for example 90, 90s, 15m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// `pipeline graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// The pipeline file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: String,
    /// The language to draw in
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid, conflicts_with = "json")]
    pub format: GraphFormat,
}

/// Languages to draw in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Mermaid flowchart
    Mermaid,
    /// Graphviz
    Dot,
    /// A drawing, for browsers and documents
    Svg,
    /// Nodes and edges
    Json,
}

/// `pipeline explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A code, as findings show it in brackets
    #[arg(value_name = "CODE", required_unless_present_any = ["all", "steps", "expressions"])]
    pub code: Option<String>,
    /// Every code there is
    #[arg(long)]
    pub all: bool,
    /// Every step type, its fields and an example, as Markdown
    #[arg(long, conflicts_with_all = ["code", "all"])]
    pub steps: bool,
    /// The language of expressions, as Markdown
    #[arg(long, conflicts_with_all = ["code", "all", "steps"])]
    pub expressions: bool,
}

/// Reads `90`, `1500ms`, `90s`, `15m`, `2h`; a bare number is seconds.
///
/// # Errors
/// A sentence that says what is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is not a time; write for example 90s, 15m or 2h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.parse().map_err(|_| expected())?;
    let time = Duration::try_from_secs_f64(number * scale).map_err(|_| expected())?;
    if time.is_zero() { Err("a time limit must be longer than nothing".to_owned()) } else { Ok(time) }
}

/// A number of things, at least one.
fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("`{text}` is not a number of 1 or more")),
    }
}

fn money(text: &str) -> Result<f64, String> {
    match text.trim_start_matches('$').parse::<f64>() {
        Ok(usd) if usd.is_finite() && usd >= 0.0 => Ok(usd),
        _ => Err(format!("`{text}` is not an amount of US dollars; write for example 0.50")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["pipeline"], words].concat())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        let orders: [&[&str]; 3] = [
            &["--json", "--state-dir", "s", "run", "f.yaml"],
            &["run", "--json", "f.yaml", "--state-dir", "s"],
            &["run", "f.yaml", "--state-dir", "s", "--json"],
        ];
        for words in orders {
            let cli = parse(words).unwrap();
            assert!(cli.global.json, "{words:?}");
            assert_eq!(cli.global.state_dir, Some("s".into()), "{words:?}");
        }
    }

    #[test]
    fn run_takes_pairs_after_the_file_and_flags_between_them() {
        let cli = parse(&["run", "f.yaml", "TOPIC=rust", "--mock", "n=3", "-i", "k=v"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not a run") };
        assert_eq!(run.file, "f.yaml");
        assert_eq!(run.pairs, ["TOPIC=rust", "n=3"]);
        assert_eq!(run.inputs, ["k=v"]);
        assert!(run.mock.mock);
    }

    #[test]
    fn times_have_units_and_are_not_nothing() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        for wrong in ["", "s", "5 minutes", "-3s", "0", "1e9", "..s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_command_lines_are_refused_with_code_two() {
        let wrong: [&[&str]; 7] = [
            &["check"],
            &["run", "f.yaml", "--max-parallel", "0"],
            &["run", "f.yaml", "--max-cost-usd", "lots"],
            &["run", "f.yaml", "--json", "--events"],
            &["run", "f.yaml", "-q", "-v"],
            &["check", "f.yaml", "--format", "xml"],
            &["nonsense"],
        ];
        for words in wrong {
            assert_eq!(parse(words).expect_err("must be refused").exit_code(), 2, "{words:?}");
        }
        assert_eq!(parse(&["--help"]).expect_err("help is an error to clap").exit_code(), 0);
    }
}
