//! `cargo xtask fuzz`: every fuzzer for a while, one after the other.
//!
//! Owns which fuzzers there are (`fuzz/fuzz_targets`), their limits, and the reading of what they print. Stored inputs are only
//! read; what a fuzzer finds of its own stays in `target/fuzz`, so that the next time goes on from it. Must not know what a
//! fuzzer starts.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::timed;
use crate::repo::Repo;
use crate::report::{self, Verdict, row};

/// Limits of one input (seconds) and of the whole fuzzer (MiB). What takes over a second is kept, and tried again alone: on a busy
/// machine a second passes by itself.
const LIMITS: [&str; 5] =
    ["-report_slow_units=1", "-timeout=10", "-rss_limit_mb=512", "-max_len=16384", "-print_final_stats=1"];

/// Most milliseconds that one input may take.
const SLOWEST: u64 = 1000;

/// The memory checker keeps what was freed, to find its use; by default half of our limit.
const CHECKER: (&str, &str) = ("ASAN_OPTIONS", "quarantine_size_mb=16");

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// How long each fuzzer runs.
    pub seconds: u32,
    /// Only these; empty means all.
    pub only: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 60, only: Vec::new() }
    }
}

/// What a fuzzer said at its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: u64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Inputs that reach something of their own.
    inputs: u64,
    /// Where the input is that it stopped at.
    stopped_at: Option<String>,
}

/// Runs the fuzzers.
pub fn run(repo: &Repo, options: &Options) -> Result<Verdict> {
    let wanted = chosen(&targets(repo)?, &options.only)?;
    if let Some(why) = lacking() {
        return Ok(Verdict::Skipped(format!("skipped, because {why}")));
    }
    let (built, took) = timed(|| repo.run("rustup", &words(&["build"])));
    built?;
    report::line(format!("built the fuzzers in {:.0} s", took.as_secs_f64()))?;
    let mut rows = vec![row(["fuzzer", "executions", "a second", "edges", "inputs", "seconds", "verdict"])];
    let mut problems = Vec::new();
    for target in &wanted {
        forget_slow(repo, target)?;
        let log = repo.root().join("target/fuzz").join(format!("{target}.log"));
        let (is_good, took) = timed(|| start(repo, target, options.seconds, &log));
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let figures = read(&text);
        let is_good = is_good?;
        if !is_good {
            problems.push(told(target, &figures, &text, &log));
        }
        let slow = slow(repo, target)?;
        let verdict = match (is_good, slow.is_empty()) {
            (false, _) => "STOPPED",
            (true, false) => "SLOW",
            (true, true) => "ok",
        };
        problems.extend(slow);
        rows.push(line(target, &figures, took, verdict));
        report::line(format!("{target}: {} executions, {verdict}", figures.executions))?;
    }
    report::line(report::table(&rows))?;
    Ok(Verdict::from_problems(
        problems,
        format!("{} fuzzers, {} seconds each", wanted.len(), options.seconds),
    ))
}

/// The fuzzers that there are.
fn targets(repo: &Repo) -> Result<Vec<String>> {
    let folder = repo.root().join("fuzz/fuzz_targets");
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        all.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    all.sort();
    Ok(all)
}

fn chosen(all: &[String], only: &[String]) -> Result<Vec<String>> {
    if let Some(name) = only.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzzer `{name}`; the fuzzers are {}", all.join(", "));
    }
    Ok(if only.is_empty() { all.to_vec() } else { only.to_vec() })
}

/// What is not on this machine.
fn lacking() -> Option<&'static str> {
    let starts = |args: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !starts(&["run", "nightly", "rustc", "--version"]) {
        return Some(
            "there is no nightly compiler here: `rustup toolchain install nightly --profile minimal`",
        );
    }
    if !starts(&["run", "nightly", "cargo", "fuzz", "--version"]) {
        return Some("cargo-fuzz is not installed: `cargo install cargo-fuzz`");
    }
    None
}

/// The words behind `rustup` that make `cargo fuzz` do something.
fn words<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    let [verb, rest @ ..] = rest else { return Vec::new() };
    [&["run", "nightly", "cargo", "fuzz", verb, "--fuzz-dir", "fuzz"], rest].concat()
}

/// Runs one fuzzer for so long; false when it stopped at an input.
fn start(repo: &Repo, target: &str, seconds: u32, log: &Path) -> Result<bool> {
    let own = format!("target/fuzz/corpus/{target}");
    fs::create_dir_all(repo.root().join(&own))?;
    let stored = ["corpus", "regressions"].map(|kind| format!("fuzz/{kind}/{target}"));
    let stored = stored.iter().filter(|folder| repo.root().join(folder).is_dir());
    let time = format!("-max_total_time={seconds}");
    let mut rest = vec!["run", target, &own];
    rest.extend(stored.map(String::as_str));
    rest.extend(["--", &time]);
    rest.extend(LIMITS);
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new("rustup");
    command.args(words(&rest)).env(CHECKER.0, CHECKER.1).current_dir(repo.root()).stdin(Stdio::null());
    let status =
        command.stdout(output.try_clone()?).stderr(output).status().context("cannot start rustup")?;
    Ok(status.success())
}

/// Inputs of a fuzzer that took over a second.
fn kept(repo: &Repo, target: &str) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(repo.root().join("fuzz/artifacts").join(target)) else {
        return Ok(Vec::new());
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let is_slow = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slow-unit-"))
    };
    Ok(paths.into_iter().filter(is_slow).collect())
}

fn forget_slow(repo: &Repo, target: &str) -> Result<()> {
    kept(repo, target)?.iter().try_for_each(|path| Ok(fs::remove_file(path)?))
}

/// Tries what was slow again, alone and three times, and says what still is: on a busy machine the fastest time tells most.
fn slow(repo: &Repo, target: &str) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in kept(repo, target)? {
        let name = path.display().to_string();
        let mut command = Command::new("rustup");
        command
            .args(words(&["run", target, &name, &name, &name]))
            .env(CHECKER.0, CHECKER.1)
            .current_dir(repo.root());
        let output = command.stdin(Stdio::null()).output().context("cannot start rustup")?;
        match took(&String::from_utf8_lossy(&output.stderr)) {
            Some(ms) if ms <= SLOWEST => fs::remove_file(&path)?,
            took => {
                let took = took.map_or_else(|| "too long".to_owned(), |ms| format!("{ms} ms"));
                problems.push(format!("{target}: the input {name} takes {took}"));
            }
        }
    }
    Ok(problems)
}

/// The milliseconds that a fuzzer took for an input, the fastest time of those that it tells.
fn took(text: &str) -> Option<u64> {
    let times = text.lines().filter(|line| line.starts_with("Executed "));
    times.filter_map(|line| line.strip_suffix(" ms")?.rsplit_once(" in ")?.1.parse().ok()).min()
}

/// Reads what a fuzzer printed.
fn read(text: &str) -> Figures {
    let mut figures = Figures::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.split('/').next()?.parse::<u64>().ok()
        };
        if let (true, Some(edges)) = (line.starts_with('#'), after("cov:")) {
            figures.edges = edges;
            figures.inputs = after("corp:").unwrap_or(figures.inputs);
            let count = words[0].trim_start_matches('#').parse().ok();
            figures.executions = figures.executions.max(count.unwrap_or(0));
        }
        if let Some(count) = after("stat::number_of_executed_units:") {
            figures.executions = count;
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            figures.stopped_at = Some(path.trim().to_owned());
        }
    }
    figures
}

/// What a person needs to know of a fuzzer that stopped.
fn told(target: &str, figures: &Figures, text: &str, log: &Path) -> String {
    let signs = ["panicked at", "ERROR: ", "SUMMARY: "];
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| signs.iter().any(|sign| line.contains(sign)));
    let at = at.unwrap_or(lines.len().saturating_sub(4));
    let said = lines[at..].iter().take(4).copied().collect::<Vec<_>>().join("\n  ");
    let input = figures.stopped_at.as_ref().map(PathBuf::from);
    let place = match &input {
        Some(path) => format!(
            "the input is {}; mend what it shows, then keep it in fuzz/regressions/{target}",
            path.display()
        ),
        None => "it names no input".to_owned(),
    };
    format!("{target} stopped: {said}\n  {place}; all that it said is in {}", log.display())
}

fn line(target: &str, figures: &Figures, took: Duration, verdict: &str) -> Vec<String> {
    let seconds = took.as_secs().max(1);
    row([
        target,
        &figures.executions.to_string(),
        &(figures.executions / seconds).to_string(),
        &figures.edges.to_string(),
        &figures.inputs.to_string(),
        &seconds.to_string(),
        verdict,
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_fuzzer_is_built_has_inputs_and_is_replayed_by_a_test() {
        let repo = Repo::find().unwrap();
        let manifest = repo.read("fuzz/Cargo.toml").unwrap();
        let files = repo.files().unwrap();
        let sources: String = files
            .iter()
            .filter(|file| file.ends_with("fuzz.rs"))
            .map(|file| repo.read(file).unwrap())
            .collect();
        let all = targets(&repo).unwrap();
        assert!(all.len() >= 9, "{all:?}");
        for target in all {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
            let folder = format!("fuzz/corpus/{target}/");
            let stored = files.iter().filter(|file| file.starts_with(&folder)).count();
            assert!(stored >= 10, "{target} has {stored} stored inputs");
            assert!(sources.contains(&format!("replay(\"T10\", \"{target}\"")), "nothing replays {target}");
        }
    }

    #[test]
    fn figures_are_the_last_that_were_printed() {
        let text = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                    #9000\tREDUCE cov: 20 ft: 31 corp: 7/1b lim: 4 exec/s: 900 rss: 41Mb L: 2/2 MS: 1\n";
        let figures = Figures { executions: 9000, edges: 20, inputs: 7, stopped_at: None };
        assert_eq!(read(text), figures);
        let ended = format!("{text}stat::number_of_executed_units: 9500\n");
        assert_eq!(read(&ended), Figures { executions: 9500, ..figures });
        let stopped =
            "thread panicked at x\nartifact_prefix='a/'; Test unit written to fuzz/artifacts/a/crash-1\n";
        assert_eq!(read(stopped).stopped_at.unwrap(), "fuzz/artifacts/a/crash-1");
        let words = told("a", &read(stopped), stopped, Path::new("a.log"));
        assert!(words.contains("panicked at x") && words.contains("fuzz/regressions/a"), "{words}");
    }

    #[test]
    fn the_time_of_one_input_is_read() {
        assert_eq!(took("INFO: x\nExecuted a/b in c in 488 ms\n***\n"), Some(488));
        assert_eq!(took("Executed a in 2127 ms\nExecuted a in 150 ms\nExecuted a in 149 ms\n"), Some(149));
        assert_eq!(took("INFO: x\n"), None);
    }

    #[test]
    fn an_unknown_fuzzer_is_refused_with_the_known_ones() {
        let all = ["a", "b"].map(str::to_owned);
        assert!(chosen(&all, &["c".to_owned()]).unwrap_err().to_string().ends_with("are a, b"));
        assert_eq!(chosen(&all, &[]).unwrap(), all);
        assert_eq!(chosen(&all, &["b".to_owned()]).unwrap(), ["b"]);
    }
}
