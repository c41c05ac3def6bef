//! `cargo xtask`: the repository's own chores, in Rust.
//!
//! Owns the command line; each task has its module. Must not know any crate of the workspace.
//! Next: `ci.rs` for the order of stages.

mod clock;
mod report;
mod source_text;
mod order;
mod links;
mod repo;
mod tidy;
mod licences;
mod deps;
mod hazards;
mod codegen;
mod conformance;
mod compare_code;
mod compare_tables;
mod loopback;
mod claude_tour;
mod mcp_tour;
mod referee;
mod limits;
mod publish;
mod targets;
mod scorecard;
mod reliability;
mod models;
mod fuzz;
mod ci;

use std::process::ExitCode;

use anyhow::{Result, bail};

use repo::Repo;
use report::Verdict;

const USAGE: &str = "\
Usage: cargo xtask TASK

Tasks:
  ci [--only STAGE[,STAGE…]] [--keep-going] [--fast]
                      every stage that a change must pass; --fast tests with nextest where it is installed
  tidy                house rules: headers, budgets, module order, names, links
  deps [--fix]        crate edges, forbidden packages, licences, ARCHITECTURE.md's table of dependencies; --fix renews
                      the column of crates in that table
  codegen [--check]   write docs/reference/ from the program and docs/reliability.md from the tests, or check that they
                      are current
  conformance [DIR] [--release]
                      the program against a folder of pipeline files (default: examples)
  compare-code [--release]
                      what codebase_query finds, against the parsers of Python and TypeScript and ctags; fetches sources
  compare-tables [--tables N] [--seed N]
                      what data_transform makes of random tables, against pandas; fetches it
  claude-tour [--server SCRIPT]
                      the real agent CLI, fetched from its registry, driven by the program against a fake server
  mcp-tour            servers of tools, fetched from their registry, listed and called by the program; two transports
  referee [SCRIPT]    the vendors' own Python clients judge `pipeline mock-server`; fetches them
  limits [--per-minute N] [--seconds N] [--release]
                      eight processes that share one limit of `pipeline mock-server`: what is refused, how much is used
  targets             the program compiles for macOS and Windows, where their standard libraries are installed
  reliability [--quick | --full] [--only T3[,T9…]] [--seed N] [--record]
                      eighteen properties as figures, and for each a planted bug that its test must find; --record
                      writes docs/reliability.json
  models              locks, queues and ledgers under a model checker, and naive ones that it must see through
  fuzz [--seconds N] [TARGET…]
                      every fuzzer for a while (60 s), or those that are named; needs a nightly compiler and cargo-fuzz
  stages              the stages of ci";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    Stages,
    Ci(ci::Options),
    Tidy,
    Deps { fix: bool },
    Codegen { check: bool },
    Conformance { folder: Option<String>, release: bool },
    CompareCode { release: bool },
    CompareTables(compare_tables::Options),
    ClaudeTour { server: Option<String> },
    McpTour,
    Referee { script: Option<String> },
    Limits(limits::Options),
    Targets,
    Reliability(reliability::Options),
    Models,
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match parse(&args).and_then(perform) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to tell when standard output is gone.
            let _ = report::line(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A task as it is without further words.
fn named(name: &str) -> Result<Task> {
    Ok(match name {
        "help" | "--help" | "-h" => Task::Help,
        "stages" => Task::Stages,
        "ci" => Task::Ci(ci::Options::default()),
        "tidy" => Task::Tidy,
        "deps" => Task::Deps { fix: false },
        "codegen" => Task::Codegen { check: false },
        "conformance" => Task::Conformance { folder: None, release: false },
        "compare-code" => Task::CompareCode { release: false },
        "compare-tables" => Task::CompareTables(compare_tables::Options::default()),
        "claude-tour" => Task::ClaudeTour { server: None },
        "mcp-tour" => Task::McpTour,
        "referee" => Task::Referee { script: None },
        "limits" => Task::Limits(limits::Options::default()),
        "targets" => Task::Targets,
        "reliability" => Task::Reliability(reliability::Options::default()),
        "models" => Task::Models,
        "fuzz" => Task::Fuzz(fuzz::Options::default()),
        other => bail!("there is no task `{other}`\n\n{USAGE}"),
    })
}

fn parse(args: &[String]) -> Result<Task> {
    let mut rest = args.iter().map(String::as_str);
    let Some(name) = rest.next() else { bail!("no task given\n\n{USAGE}") };
    let mut task = named(name)?;
    while let Some(arg) = rest.next() {
        match (&mut task, arg) {
            (Task::Reliability(options), "--quick") => options.full = false,
            (Task::Reliability(options), "--full") => options.full = true,
            (Task::Reliability(options), "--record") => options.record = true,
            (Task::Reliability(options), "--seed") => options.seed = number(arg, rest.next())?,
            (Task::Reliability(options), "--only") => {
                let Some(tests) = rest.next() else { bail!("--only needs the id of a test") };
                options.only.extend(tests.split(',').map(str::to_owned));
            }
            (Task::Ci(options), "--keep-going") => options.keep_going = true,
            (Task::Ci(options), "--fast") => options.fast = true,
            (Task::Ci(options), "--only") => {
                let Some(stages) = rest.next() else { bail!("--only needs the name of a stage") };
                options.only.extend(stages.split(',').map(str::to_owned));
            }
            (Task::Deps { fix }, "--fix") => *fix = true,
            (Task::ClaudeTour { server }, "--server") => *server = rest.next().map(str::to_owned),
            (Task::Codegen { check }, "--check") => *check = true,
            (Task::Conformance { release, .. } | Task::CompareCode { release }, "--release") => {
                *release = true;
            }
            (Task::CompareTables(options), "--tables") => options.tables = number(arg, rest.next())?,
            (Task::CompareTables(options), "--seed") => options.seed = number(arg, rest.next())?,
            (Task::Limits(options), "--release") => options.release = true,
            (Task::Limits(options), "--per-minute") => options.per_minute = number(arg, rest.next())?,
            (Task::Limits(options), "--seconds") => options.seconds = number(arg, rest.next())?,
            (Task::Fuzz(options), "--seconds") => options.seconds = number(arg, rest.next())?,
            (Task::Fuzz(options), name) if !name.starts_with('-') => options.only.push(name.to_owned()),
            (Task::Referee { script: script @ None }, path) if !path.starts_with('-') => {
                *script = Some(path.to_owned());
            }
            (Task::Conformance { folder: folder @ None, .. }, dir) if !dir.starts_with('-') => {
                *folder = Some(dir.to_owned());
            }
            _ => bail!("`cargo xtask {name}` does not take `{arg}`\n\n{USAGE}"),
        }
    }
    Ok(task)
}

/// The number behind a flag.
fn number(flag: &str, value: Option<&str>) -> Result<u32> {
    match value.and_then(|text| text.parse().ok()) {
        Some(number @ 1..) => Ok(number),
        _ => bail!("{flag} needs a number, 1 or more"),
    }
}

/// Does it; false when a check failed and has told why.
fn perform(task: Task) -> Result<bool> {
    let verdict = match task {
        Task::Help => {
            report::line(USAGE)?;
            return Ok(true);
        }
        Task::Stages => {
            for stage in ci::STAGES {
                report::line(format!("{:<12} {}", stage.name, stage.about))?;
            }
            return Ok(true);
        }
        Task::Ci(options) => {
            ci::run(&Repo::find()?, &options)?;
            return Ok(true);
        }
        Task::Targets => targets::run(&Repo::find()?)?,
        Task::Reliability(options) => reliability::run(&Repo::find()?, &options)?,
        Task::Models => models::run(&Repo::find()?)?,
        Task::Fuzz(options) => fuzz::run(&Repo::find()?, &options)?,
        Task::Tidy => tidy::run(&Repo::find()?)?,
        Task::Deps { fix } => deps::run(&Repo::find()?, fix)?,
        Task::Codegen { check } => codegen::run(&Repo::find()?, check)?,
        Task::Referee { script } => referee::run(&Repo::find()?, script.as_deref())?,
        Task::Conformance { folder, release } => {
            conformance::run(&Repo::find()?, folder.as_deref(), release)?
        }
        Task::ClaudeTour { server } => claude_tour::run(&Repo::find()?, server.as_deref())?,
        Task::Limits(options) => limits::run(&Repo::find()?, options)?,
        Task::McpTour => mcp_tour::run(&Repo::find()?)?,
        Task::CompareTables(options) => compare_tables::run(&Repo::find()?, &options)?,
        Task::CompareCode { release } => compare_code::run(&Repo::find()?, release)?,
    };
    match verdict {
        Verdict::Passed(note) => report::line(format!("ok: {note}"))?,
        Verdict::Skipped(why) => report::line(format!("SKIPPED: {why}"))?,
        Verdict::Failed(problems) => {
            for problem in &problems {
                report::line(format!("error: {problem}"))?;
            }
            report::line(format!("{} problems", problems.len()))?;
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn task(line: &str) -> Result<Task> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn stages_may_be_given_together_or_one_by_one() {
        let only = ["tidy", "deps", "fmt"].map(str::to_owned).to_vec();
        let wanted = Task::Ci(ci::Options { keep_going: true, only, fast: false });
        assert_eq!(task("ci --only tidy,deps --keep-going --only fmt").unwrap(), wanted);
    }

    #[test]
    fn what_a_task_does_not_take_is_refused() {
        for line in [
            "",
            "cii",
            "tidy --fix",
            "ci --only",
            "conformance a b",
            "codegen examples",
            "limits --seconds",
            "limits --per-minute 0",
            "fuzz --seconds",
            "fuzz --minutes 1",
            "compare-tables --tables 0",
        ] {
            assert!(task(line).is_err(), "`{line}` was taken");
        }
    }

    #[test]
    fn conformance_takes_a_folder_anywhere() {
        let folder = Some("plans".to_owned());
        assert_eq!(task("conformance --release plans").unwrap(), Task::Conformance { folder, release: true });
    }
}
