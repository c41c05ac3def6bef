//! `cargo xtask ci`: every stage that a change must pass, in one command.
//!
//! Owns the list of stages and their order. Must not know how a stage does its work. The build server runs exactly this.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::repo::{Repo, is_installed};
use crate::report::{self, Verdict, row};
use crate::{clock, codegen, conformance, deps, publish, reliability, tidy};

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on after a stage that failed.
    pub keep_going: bool,
    /// Run these stages only, in the order of [`STAGES`]; empty means all.
    pub only: Vec<String>,
    /// Run tests with nextest when it is installed, which is faster than the README's command.
    pub fast: bool,
}

/// One stage.
pub struct Stage {
    /// The name for `--only`.
    pub name: &'static str,
    /// What it checks.
    pub about: &'static str,
    run: fn(&Repo, &Options) -> Result<Verdict>,
}

/// All stages: cheap ones that fail often come first.
pub const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "formatting", run: fmt },
    Stage {
        name: "tidy",
        about: "house rules: headers, budgets, module order, links",
        run: |repo, _| tidy::run(repo),
    },
    Stage {
        name: "deps",
        about: "crate edges, packages and their licences",
        run: |repo, _| deps::run(repo, false),
    },
    Stage { name: "clippy", about: "lints, warnings are errors", run: clippy },
    Stage { name: "test", about: "the test command of README.md", run: test },
    Stage { name: "doctests", about: "examples in the documentation", run: doctests },
    Stage { name: "rustdoc", about: "documentation without warnings", run: |repo, _| publish::rustdoc(repo) },
    Stage { name: "crates", about: "each library crate builds alone, with each feature", run: crates },
    Stage { name: "package", about: "each crate can be published", run: |repo, _| publish::package(repo) },
    Stage { name: "msrv", about: "the oldest compiler named builds it", run: |repo, _| publish::msrv(repo) },
    Stage { name: "semver", about: "no breaking change unannounced", run: |repo, _| publish::semver(repo) },
    Stage { name: "codegen", about: "reference pages are current", run: |repo, _| codegen::run(repo, true) },
    Stage {
        name: "conformance",
        about: "the program against examples/",
        run: |repo, _| conformance::run(repo, None, false),
    },
    Stage {
        name: "reliability",
        about: "the scorecard, with a bug planted for each test",
        run: |repo, _| reliability::run(repo, &reliability::Options::default()),
    },
];

/// Runs the stages and prints a summary; an error when one failed.
pub fn run(repo: &Repo, options: &Options) -> Result<()> {
    let mut rows = vec![row(["stage", "verdict", "time", "note"])];
    let mut failed = Vec::new();
    for stage in chosen(&options.only)? {
        report::line(format!("== {}: {}", stage.name, stage.about))?;
        let (verdict, took) = clock::timed(|| (stage.run)(repo, options));
        let (mark, note) = settle(verdict)?;
        let took = seconds(took);
        report::line(format!("== {}: {mark} in {took}: {note}\n", stage.name))?;
        rows.push(row([stage.name, mark, &took, &note]));
        if mark == "FAILED" {
            failed.push(stage.name);
            if !options.keep_going {
                break;
            }
        }
    }
    report::line(report::table(&rows))?;
    if !failed.is_empty() {
        let again = failed.join(",");
        bail!("failed: {}. Run only this again with `cargo xtask ci --only {again}`", failed.join(", "));
    }
    Ok(())
}

/// The stages to run; an unknown name is an error that lists the known ones.
fn chosen(only: &[String]) -> Result<Vec<&'static Stage>> {
    let known = || STAGES.iter().map(|stage| stage.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = only.iter().find(|name| STAGES.iter().all(|stage| stage.name != **name)) {
        bail!("there is no stage `{name}`; the stages are {}", known());
    }
    Ok(STAGES.iter().filter(|stage| only.is_empty() || only.iter().any(|name| name == stage.name)).collect())
}

/// Prints what went wrong and gives the words for the summary.
fn settle(verdict: Result<Verdict>) -> Result<(&'static str, String)> {
    Ok(match verdict {
        Ok(Verdict::Passed(note)) => ("ok", note),
        Ok(Verdict::Skipped(why)) => ("SKIPPED", why),
        Ok(Verdict::Failed(problems)) => {
            for problem in &problems {
                report::line(format!("error: {problem}"))?;
            }
            ("FAILED", format!("{} problems", problems.len()))
        }
        Err(error) => ("FAILED", format!("{error:#}")),
    })
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

fn fmt(repo: &Repo, _: &Options) -> Result<Verdict> {
    repo.run("cargo", &["fmt", "--all", "--check"]).context("run `cargo fmt --all`")?;
    Ok(Verdict::Passed("all crates".to_owned()))
}

fn clippy(repo: &Repo, _: &Options) -> Result<Verdict> {
    repo.run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    Ok(Verdict::Passed("all crates, all targets".to_owned()))
}

fn test(repo: &Repo, options: &Options) -> Result<Verdict> {
    let readme = repo.read("README.md")?;
    let command = readme_test_command(&readme)?;
    if options.fast && is_installed("cargo-nextest") {
        repo.run("cargo", &["nextest", "run", "--workspace"])?;
        return Ok(Verdict::Passed("by nextest, in place of the README's command".to_owned()));
    }
    let mut words = command.split_whitespace();
    let program = words.next().context("README.md has an empty test command")?;
    repo.run(program, &words.collect::<Vec<_>>())?;
    Ok(Verdict::Passed(format!("`{command}`")))
}

/// The test command that README.md gives to its readers: what they are told to run is what is run here.
fn readme_test_command(readme: &str) -> Result<&str> {
    const COMMAND: &str = "cargo test --workspace";
    readme.lines().map(str::trim).find(|line| *line == COMMAND).with_context(|| {
        format!("README.md has no line `{COMMAND}`; readers need it, and this stage runs it")
    })
}

fn doctests(repo: &Repo, _: &Options) -> Result<Verdict> {
    repo.run("cargo", &["test", "--doc", "--workspace"])?;
    Ok(Verdict::Passed("all library crates".to_owned()))
}

fn crates(repo: &Repo, _: &Options) -> Result<Verdict> {
    let builds = library_builds(&repo.metadata()?)?;
    for (name, feature) in &builds {
        let mut args = vec!["check", "--quiet", "--package", name];
        if let Some(feature) = feature {
            args.extend(["--features", feature]);
        }
        repo.run("cargo", &args)?;
    }
    Ok(Verdict::Passed(format!("{} builds", builds.len())))
}

/// Every library crate by itself, then with each of its features.
fn library_builds(metadata: &Value) -> Result<Vec<(String, Option<String>)>> {
    let members = metadata["workspace_members"].as_array().context("cargo metadata lists no members")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut builds = Vec::new();
    for package in packages.iter().filter(|package| members.contains(&package["id"])) {
        let is_library = package["targets"]
            .as_array()
            .is_some_and(|targets| targets.iter().any(|target| target["kind"] == serde_json::json!(["lib"])));
        let (true, Some(name)) = (is_library, package["name"].as_str()) else { continue };
        builds.push((name.to_owned(), None));
        let features = package["features"].as_object().into_iter().flat_map(serde_json::Map::keys);
        let features = features.filter(|feature| *feature != "default");
        builds.extend(features.map(|feature| (name.to_owned(), Some(feature.clone()))));
    }
    Ok(builds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn stages_are_chosen_by_name_and_an_unknown_one_is_refused() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            chosen(&only).map(|stages| stages.iter().map(|stage| stage.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["deps", "tidy"]).unwrap(), ["tidy", "deps"]);
        assert_eq!(names(&[]).unwrap().len(), STAGES.len());
        assert!(names(&["lint"]).unwrap_err().to_string().contains("the stages are fmt, tidy"));
    }

    #[test]
    fn the_test_command_must_stand_alone_on_a_line_of_the_readme() {
        assert_eq!(readme_test_command("a\n  cargo test --workspace  \n").unwrap(), "cargo test --workspace");
        assert!(readme_test_command("run `cargo test --workspace` now\n").is_err());
    }

    #[test]
    fn library_crates_are_built_alone_and_with_each_feature() {
        let metadata = json!({"workspace_members": ["a", "b"], "packages": [
            {"id": "a", "name": "a", "targets": [{"kind": ["lib"]}], "features": {"default": [], "extra": []}},
            {"id": "b", "name": "b", "targets": [{"kind": ["bin"]}], "features": {}},
            {"id": "c", "name": "c", "targets": [{"kind": ["lib"]}], "features": {}},
        ]});
        let builds = library_builds(&metadata).unwrap();
        assert_eq!(builds, [("a".to_owned(), None), ("a".to_owned(), Some("extra".to_owned()))]);
    }

    #[test]
    fn the_readme_of_this_repository_has_its_test_command() {
        let readme = Repo::find().unwrap().read("README.md").unwrap();
        assert!(readme_test_command(&readme).is_ok());
    }
}
