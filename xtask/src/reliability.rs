//! The scorecard: eighteen properties as figures, and for each a bug that its test must find.
//!
//! Owns the run of it: the tests are built twice, as they are and with bugs that can be planted, and started one by one; each
//! prints its figure in a line `reliability: {…}`. A test whose bug is not found is a failed test. What the tests are:
//! `scorecard.rs`. Must not know how anything is tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::clock::timed;
use crate::repo::Repo;
use crate::report::{self, Verdict, row};
use crate::scorecard::{Needs, Part, TESTS, Test};

/// What is in every line with a figure.
const MARK: &str = "reliability: {";

/// The bugs are in builds with this feature, and the variable names the one that is planted.
const FEATURE: &str = "pipeline-core/planted-bugs";
const BUG: &str = "PIPELINE_PLANTED_BUG";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// All trials of the night, not those of a coffee break.
    pub full: bool,
    /// Only these tests; empty means all.
    pub only: Vec<String>,
    /// Everything random follows from it.
    pub seed: u32,
    /// Whether the figures go into `docs/reliability.json`, in place of those tests' earlier ones.
    pub record: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { full: false, only: Vec::new(), seed: 1, record: false }
    }
}

/// One build of the tests: the executables by package and target.
struct Build(BTreeMap<(String, String), PathBuf>);

/// How a test ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// It told its figure.
    Told(Value),
    /// It cannot be made here.
    Skipped(String),
    /// It ended without a figure; its last words.
    Broken(String),
}

/// Everything that is known about a test at the end.
struct Row {
    test: &'static Test,
    outcome: Outcome,
    took: Duration,
    /// What came of each bug.
    controls: Vec<Control>,
}

/// Most trials that a test makes to find a bug.
const SEARCH: u32 = 2_000;

/// Makes all tests, with their controls.
pub fn run(repo: &Repo, options: &Options) -> Result<Verdict> {
    let wanted = chosen(&options.only)?;
    let (builds, took) = timed(|| -> Result<(Build, Build)> {
        let fast = wanted.iter().any(|test| test.parts.iter().any(|part| part.needs == Needs::Speed));
        let fast = if fast { build(repo, SIMULATION)? } else { Build(BTreeMap::new()) };
        Ok((build(repo, WORKSPACE)?, fast))
    });
    let (plain, fast) = builds?;
    report::line(format!("built the tests in {:.0} s", took.as_secs_f64()))?;
    let mut rows = at_once(&wanted, |test| {
        let trials = if options.full { test.full } else { test.quick };
        let builds = |part: &Part| if part.needs == Needs::Speed { &fast } else { &plain };
        let (outcome, took) = timed(|| -> Result<Outcome> {
            let told = |part| start(repo, builds(part), test, part, trials, options.seed, None);
            Ok(together(test.parts.iter().map(told).collect::<Result<_>>()?))
        });
        let row = Row { test, outcome: outcome?, took, controls: Vec::new() };
        report::line(told(&row))?;
        Ok(row)
    })?;
    // The builds share a folder, so that only the crates of this workspace are compiled twice; what `cargo build` leaves
    // in its place is put back at the end.
    let (planted, took) = timed(|| build(repo, &[WORKSPACE, &["--features", FEATURE]].concat()));
    report::line(format!("built them with bugs to plant in {:.0} s", took.as_secs_f64()))?;
    let controlled = planted.and_then(|planted| control(repo, &planted, &mut rows, options.seed));
    build(repo, WORKSPACE)?;
    controlled?;
    keep(repo, options, &rows)?;
    finish(&rows)
}

/// Does the work on all items, two at a time: most tests wait for processes and disks.
fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(place) else { break };
                    let outcome = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(place, outcome);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// What the parts of a test told, as one.
fn together(outcomes: Vec<Outcome>) -> Outcome {
    let mut all: Option<Value> = None;
    for outcome in outcomes {
        let Outcome::Told(told) = outcome else { return outcome };
        all = Some(match all {
            None => told,
            Some(mut all) => {
                for key in ["trials", "failures"] {
                    all[key] = json!(all[key].as_u64().unwrap_or(0) + told[key].as_u64().unwrap_or(0));
                }
                let text = |told: &Value| told["figure"].as_str().unwrap_or_default().to_owned();
                all["figure"] = json!(format!("{}; {}", text(&all), text(&told)));
                all
            }
        });
    }
    all.map_or_else(|| Outcome::Broken("it has no parts".to_owned()), Outcome::Told)
}

/// The tests of those ids, in that order; all of them where there are none.
fn chosen(only: &[String]) -> Result<Vec<&'static Test>> {
    let known = || TESTS.iter().map(|test| test.id).collect::<Vec<_>>().join(", ");
    let of = |id: &String| {
        TESTS
            .iter()
            .find(|test| test.id == *id)
            .with_context(|| format!("there is no test `{id}`; the tests are {}", known()))
    };
    if only.is_empty() { Ok(TESTS.iter().collect()) } else { only.iter().map(of).collect() }
}

/// The tests of the whole workspace: with the features that `cargo test --workspace` has, so that nothing which that has built is
/// built again.
const WORKSPACE: &[&str] = &["--workspace"];

/// The simulation, which makes as many runs as it has time for.
const SIMULATION: &[&str] = &["--package", "pipeline-checkpoint", "--lib", "--profile", "simulation"];

/// Builds tests.
fn build(repo: &Repo, what: &[&str]) -> Result<Build> {
    let mut args = vec!["test", "--quiet", "--no-run", "--message-format", "json-render-diagnostics"];
    args.extend(what);
    let mut found = BTreeMap::new();
    for line in repo.output("cargo", &args)?.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if message["profile"]["test"] != true {
            continue;
        }
        let (Some(path), Some(manifest)) = (text(&message["executable"]), text(&message["manifest_path"]))
        else {
            continue;
        };
        let package =
            Path::new(&manifest).parent().and_then(Path::file_name).context("a manifest in no folder")?;
        let kind = if message["target"]["kind"] == json!(["test"]) { "tests" } else { "unit" };
        found.insert((package.to_string_lossy().into_owned(), kind.to_owned()), PathBuf::from(path));
    }
    Ok(Build(found))
}

/// Starts one part of a test and reads what it tells.
fn start(
    repo: &Repo,
    build: &Build,
    test: &Test,
    part: &Part,
    trials: u32,
    seed: u32,
    bug: Option<&str>,
) -> Result<Outcome> {
    let key = (part.package.to_owned(), part.target.to_owned());
    let program = build.0.get(&key).with_context(|| format!("no tests of {} were built", part.package))?;
    let mut command = Command::new(program);
    command.args(["--exact", part.name, "--nocapture", "--test-threads", "1"]);
    command.env("RELIABILITY_TRIALS", trials.to_string()).env("RELIABILITY_SEED", seed.to_string());
    command.env_remove(BUG).envs(bug.map(|bug| (BUG, bug)));
    if part.needs != Needs::Disk && Path::new("/dev/shm").is_dir() {
        // What is tested is the program and not the disk, and thousands of flushes take their time.
        command.env("TMPDIR", "/dev/shm");
    }
    let output = command
        .current_dir(repo.root().join(part.package))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start the tests of {}", part.package))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.find(MARK).map(|at| &line[at + MARK.len() - 1..]));
    let told: Option<Value> = line.and_then(|json| serde_json::from_str(json).ok());
    let words = || {
        let errors = String::from_utf8_lossy(&output.stderr);
        let all: Vec<&str> =
            errors.lines().chain(text.lines()).filter(|line| !line.trim().is_empty()).collect();
        let said =
            all.iter().position(|line| line.contains("panicked at")).unwrap_or(all.len().saturating_sub(6));
        all[said..].iter().take(8).copied().collect::<Vec<_>>().join("\n  ")
    };
    Ok(match told {
        Some(told) if told["id"] != test.id => bail!("{} calls itself {}", test.id, told["id"]),
        Some(told) if told["skipped"].is_string() => {
            Outcome::Skipped(told["skipped"].as_str().unwrap_or_default().to_owned())
        }
        Some(told) if (told["failures"] == 0) == output.status.success() => {
            if told["failures"] != 0 && bug.is_none() {
                report::line(format!("  {}", words()))?;
            }
            Outcome::Told(told)
        }
        _ => Outcome::Broken(words()),
    })
}

/// A bug, whether it was found, and that in words.
type Control = (&'static str, bool, String);

/// Plants each bug and has its test look for it.
fn control(repo: &Repo, planted: &Build, rows: &mut [Row], seed: u32) -> Result<()> {
    let made: Vec<(&'static Test, bool)> =
        rows.iter().map(|row| (row.test, !matches!(row.outcome, Outcome::Skipped(_)))).collect();
    let found = at_once(&made, |(test, is_made)| {
        let bugs = if *is_made { test.bugs } else { &[] };
        bugs.iter().map(|bug| look_for(repo, planted, test, bug, seed)).collect::<Result<Vec<Control>>>()
    })?;
    for (row, found) in rows.iter_mut().zip(found) {
        row.controls = found;
    }
    Ok(())
}

/// Has a test look for a bug.
fn look_for(repo: &Repo, planted: &Build, test: &Test, bug: &'static str, seed: u32) -> Result<Control> {
    let trials = test.quick.min(SEARCH);
    let (outcome, took) = timed(|| -> Result<Outcome> {
        let mut outcome = Outcome::Broken("it has no parts".to_owned());
        for part in test.parts {
            outcome = start(repo, planted, test, part, trials, seed, Some(bug))?;
            if matches!(&outcome, Outcome::Told(told) if told["failures"] != 0) {
                break;
            }
        }
        Ok(outcome)
    });
    let (is_found, words) = match outcome? {
        Outcome::Told(told) if told["failures"] != 0 => {
            (true, format!("{bug}: found in {} of {} trials", told["failures"], told["trials"]))
        }
        Outcome::Told(_) => (false, format!("{bug}: NOT FOUND: this test proves nothing")),
        Outcome::Skipped(why) => (false, format!("{bug}: skipped: {why}")),
        Outcome::Broken(words) => (false, format!("{bug}: ended without a figure: {words}")),
    };
    report::line(format!("{:<4} control {words} ({:.0} s)", test.id, took.as_secs_f64()))?;
    Ok((bug, is_found, words))
}

/// The line of a test.
fn told(row: &Row) -> String {
    let figure = match &row.outcome {
        Outcome::Told(told) => format!(
            "{} [{} trials, seed {}, {} failures, {}]",
            told["figure"].as_str().unwrap_or_default(),
            told["trials"],
            told["seed"],
            told["failures"],
            bound(told).map_or_else(|| "no bound".to_owned(), |bound| format!("95 % bound {bound:.1e}")),
        ),
        Outcome::Skipped(why) => format!("SKIPPED: {why}"),
        Outcome::Broken(words) => format!("BROKEN: {words}"),
    };
    format!("{:<4} {}: {figure} ({:.0} s)", row.test.id, row.test.about, row.took.as_secs_f64())
}

/// The rule of three: with no failure in so many trials, how often it fails at most, with 95 % confidence.
fn bound(told: &Value) -> Option<f64> {
    let (trials, failures) = (told["trials"].as_f64()?, told["failures"].as_f64()?);
    (failures == 0.0 && trials > 0.0).then(|| 3.0 / trials)
}

/// Writes the figures where they are looked for.
fn keep(repo: &Repo, options: &Options, rows: &[Row]) -> Result<()> {
    let commit = repo.output("git", &["rev-parse", "--short", "HEAD"])?.trim().to_owned();
    let mode = if options.full { "full" } else { "quick" };
    let tests: Vec<Value> = rows
        .iter()
        .map(|each| {
            let mut told = as_json(each);
            told["mode"] = json!(mode);
            told["commit"] = json!(commit);
            told
        })
        .collect();
    write(&repo.root().join("target/reliability.json"), &tests)?;
    if options.record {
        let kept = repo.root().join("docs/reliability.json");
        let earlier =
            if kept.exists() { serde_json::from_str(&fs::read_to_string(&kept)?)? } else { Value::Null };
        write(&kept, &merged(&earlier, &tests))?;
    }
    Ok(())
}

/// Shows the figures and says what is wrong.
fn finish(rows: &[Row]) -> Result<Verdict> {
    let mut table = vec![row(["test", "trials", "failures", "95 % bound", "control", "time"])];
    let mut problems = Vec::new();
    let mut skipped = Vec::new();
    for each in rows {
        let id = each.test.id;
        let (trials, failures, bound) = match &each.outcome {
            Outcome::Told(told) => {
                if told["failures"] != 0 {
                    problems.push(format!(
                        "{id} ({}): {} of {} trials failed",
                        each.test.about, told["failures"], told["trials"]
                    ));
                }
                let bound = bound(told).map_or_else(String::new, |bound| format!("{bound:.1e}"));
                (told["trials"].to_string(), told["failures"].to_string(), bound)
            }
            Outcome::Skipped(why) => {
                skipped.push(format!("{id}: {why}"));
                ("SKIPPED".to_owned(), String::new(), String::new())
            }
            Outcome::Broken(words) => {
                problems.push(format!("{id} ({}) ended without a figure:\n  {words}", each.test.about));
                ("BROKEN".to_owned(), String::new(), String::new())
            }
        };
        problems.extend(
            each.controls
                .iter()
                .filter(|control| !control.1)
                .map(|control| format!("{id}: control {}", control.2)),
        );
        let control = if each.controls.is_empty() {
            "none"
        } else if each.controls.iter().all(|c| c.1) {
            "found"
        } else {
            "NOT FOUND"
        };
        table.push(row([
            id,
            &trials,
            &failures,
            &bound,
            control,
            &format!("{:.0} s", each.took.as_secs_f64()),
        ]));
    }
    report::line(report::table(&table))?;
    for line in &skipped {
        report::line(format!("SKIPPED {line}"))?;
    }
    let note = format!("{} tests, {} skipped; figures in target/reliability.json", rows.len(), skipped.len());
    Ok(Verdict::from_problems(problems, note))
}

/// The figures as a file.
fn write(path: &Path, tests: &[Value]) -> Result<()> {
    let document = json!({ "schema": "pipeline.reliability/2", "tests": tests });
    fs::write(path, format!("{}\n", serde_json::to_string_pretty(&document)?))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What is kept when some tests were made again: their rows are new, and the others stay as they were. All trials of a night
/// need not be made in one.
fn merged(earlier: &Value, made: &[Value]) -> Vec<Value> {
    let earlier = earlier["tests"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |test: &Test| made.iter().chain(earlier).find(|row| row["id"] == test.id).cloned();
    TESTS.iter().filter_map(row).collect()
}

fn as_json(row: &Row) -> Value {
    let control = row.controls.iter().map(|control| control.2.as_str()).collect::<Vec<_>>().join("; ");
    let (id, name) = (row.test.id, row.test.about);
    match &row.outcome {
        Outcome::Told(told) => json!({
            "id": id,
            "name": name,
            "figure": told["figure"],
            "trials": told["trials"],
            "seed": told["seed"],
            "failures": told["failures"],
            "bound": bound(told),
            "control": control,
            "seconds": row.took.as_secs(),
        }),
        Outcome::Skipped(why) | Outcome::Broken(why) => json!({
            "id": id, "name": name, "figure": format!("skipped: {why}"), "trials": 0, "seed": null,
            "failures": u8::from(matches!(row.outcome, Outcome::Broken(_))), "bound": null, "control": control,
            "seconds": row.took.as_secs(),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn every_test_has_a_control_and_an_id_of_its_own() {
        for (at, test) in TESTS.iter().enumerate() {
            assert!(!test.bugs.is_empty(), "{} has no control", test.id);
            assert!(TESTS[..at].iter().all(|other| other.id != test.id), "{} is there twice", test.id);
            let number = format!("t{:0>2}_", &test.id[1..]);
            for part in test.parts {
                assert!(part.name.contains(&number), "{} is called {}", test.id, part.name);
            }
        }
    }

    #[test]
    fn every_bug_of_the_scorecard_can_be_planted() {
        let planted = Repo::find().unwrap().read("pipeline-core/src/planted.rs").unwrap();
        for bug in TESTS.iter().flat_map(|test| test.bugs) {
            assert!(planted.contains(&format!(" => \"{bug}\",")), "there is no bug `{bug}`");
        }
    }

    #[test]
    fn a_bound_follows_from_trials_without_a_failure_only() {
        assert_eq!(bound(&json!({"trials": 300, "failures": 0})), Some(0.01));
        assert_eq!(bound(&json!({"trials": 300, "failures": 1})), None);
        assert_eq!(bound(&json!({"trials": 0, "failures": 0})), None);
    }

    #[test]
    fn tests_that_were_made_again_have_new_rows_and_the_others_keep_theirs() {
        let earlier = json!({"tests": [{"id": "T2", "trials": 40}, {"id": "T9", "trials": 100}]});
        let kept = merged(&earlier, &[json!({"id": "T9", "trials": 7}), json!({"id": "T1", "trials": 1})]);
        let rows: Vec<(&Value, &Value)> = kept.iter().map(|row| (&row["id"], &row["trials"])).collect();
        assert_eq!(
            rows,
            [(&json!("T1"), &json!(1)), (&json!("T2"), &json!(40)), (&json!("T9"), &json!(7))],
            "in the order of the scorecard"
        );
        assert_eq!(merged(&Value::Null, &[json!({"id": "T3"})]).len(), 1, "there was no file");
    }

    #[test]
    fn an_unknown_test_is_refused_with_the_known_ones() {
        let refused = chosen(&["T99".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("T99") && refused.contains("T3"), "{refused}");
        assert_eq!(chosen(&[]).unwrap().len(), TESTS.len());
    }
}
