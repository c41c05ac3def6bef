//! `cargo xtask codegen [--check]`: reference pages written by the program itself.
//!
//! Owns the table of pages and how each is made. Must not know what is in them: the binary says it.
//! A page whose command the binary does not have is skipped while no such page exists; once it exists, that is a failure,
//! because nothing keeps the page true any more.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::hazards;
use crate::repo::Repo;
use crate::report::{self, Verdict};

/// A generated page.
struct Page {
    /// Where it goes.
    path: &'static str,
    /// The command that must exist, and that prints it (after `heading`).
    args: &'static [&'static str],
    /// Text before what the command prints.
    heading: &'static str,
    make: fn(&Binary, &Page) -> Result<Made>,
}

const PAGES: &[Page] = &[
    Page { path: "docs/reference/schema.json", args: &["schema"], heading: "", make: printed },
    Page {
        path: "docs/reference/cli.md",
        args: &[],
        heading: "# Command line reference\n\nWritten by `cargo xtask codegen` from the program's own help; do not edit.\n",
        make: help_of_all,
    },
    Page {
        path: "docs/reference/codes.md",
        args: &["explain", "--all"],
        heading: "<!-- Written by `cargo xtask codegen` from `pipeline explain --all`; do not edit. -->\n\n",
        make: printed,
    },
    Page {
        path: "docs/reference/steps.md",
        args: &["explain", "--steps"],
        heading: "<!-- Written by `cargo xtask codegen` from `pipeline explain --steps`; do not edit. -->\n\n",
        make: printed,
    },
    Page {
        path: "docs/reference/expressions.md",
        args: &["explain", "--expressions"],
        heading: "<!-- Written by `cargo xtask codegen` from `pipeline explain --expressions`; do not edit. -->\n\n",
        make: printed,
    },
];

/// What came out of making a page.
enum Made {
    Text(String),
    /// The binary cannot make it yet; why.
    NotYet(String),
}

/// The built program.
struct Binary {
    path: PathBuf,
}

/// How one call ended.
struct Called {
    ok: bool,
    stdout: String,
    stderr: String,
}

impl Binary {
    /// Runs the program in an empty environment, so that help texts do not show this machine's variables.
    fn call(&self, args: &[&str]) -> Result<Called> {
        let output = Command::new(&self.path)
            .args(args)
            .env_clear()
            .envs([("NO_COLOR", "1"), ("COLUMNS", "100")])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        Ok(Called {
            ok: output.status.success(),
            stdout: String::from_utf8(output.stdout)
                .context("the program printed something that is not UTF-8")?,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn help(&self, command: &[String]) -> Result<String> {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        args.push("--help");
        Ok(self.call(&args)?.stdout)
    }
}

/// Writes the pages, or with `check` compares them with what would be written.
pub fn run(repo: &Repo, check: bool) -> Result<Verdict> {
    let (text, mut problems) = hazards::page(repo)?;
    settle(hazards::PAGE, &repo.root().join(hazards::PAGE), &text, check, &mut problems)?;
    match generate(&Binary { path: repo.build_binary(false)? }, repo.root(), check)? {
        Verdict::Failed(more) => problems.extend(more),
        other if problems.is_empty() => return Ok(other),
        _ => {}
    }
    Ok(Verdict::Failed(problems))
}

fn generate(binary: &Binary, root: &Path, check: bool) -> Result<Verdict> {
    let mut problems = Vec::new();
    let mut made = 0;
    for page in PAGES {
        let target = root.join(page.path);
        match (page.make)(binary, page)? {
            Made::Text(text) => {
                made += 1;
                settle(page.path, &target, &text, check, &mut problems)?;
            }
            Made::NotYet(why) if target.exists() => {
                problems.push(format!("{}: it exists, and the program cannot make it: {why}", page.path));
            }
            Made::NotYet(why) => report::line(format!("skipped {}: {why}", page.path))?,
        }
    }
    if made == 0 && problems.is_empty() {
        return Ok(Verdict::Skipped("the program cannot make any reference page yet".to_owned()));
    }
    Ok(Verdict::from_problems(problems, format!("{made} of {} pages", PAGES.len())))
}

fn settle(page: &str, target: &Path, text: &str, check: bool, problems: &mut Vec<String>) -> Result<()> {
    let old = match fs::read_to_string(target) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {page}")),
    };
    if old.as_deref() == Some(text) {
        return Ok(());
    }
    if check {
        let what = match &old {
            None => "is missing".to_owned(),
            Some(old) => format!("is out of date from line {}", first_difference(old, text)),
        };
        problems.push(format!("{page} {what}; run `cargo xtask codegen` and commit what it writes"));
        return Ok(());
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(target, text).with_context(|| format!("cannot write {page}"))?;
    report::line(format!("wrote {page}"))?;
    Ok(())
}

/// The first line, from 1, in which two texts differ.
fn first_difference(old: &str, new: &str) -> usize {
    old.lines().zip(new.lines()).take_while(|(a, b)| a == b).count() + 1
}

/// What the page's command prints.
fn printed(binary: &Binary, page: &Page) -> Result<Made> {
    let shown = format!("pipeline {}", page.args.join(" "));
    let top = commands(&binary.help(&[])?);
    if let Some(command) = page.args.first()
        && !top.iter().any(|known| known == command)
    {
        return Ok(Made::NotYet(format!("there is no command `pipeline {command}`")));
    }
    let called = binary.call(page.args)?;
    if called.ok && !called.stdout.trim().is_empty() {
        return Ok(Made::Text(format!("{}{}\n", page.heading, called.stdout.trim_end())));
    }
    let said = called.stderr.lines().next().unwrap_or("it printed nothing").to_owned();
    if called.ok || called.stderr.contains("unexpected argument") {
        return Ok(Made::NotYet(format!("`{shown}`: {said}")));
    }
    anyhow::bail!("`{shown}` failed: {said}")
}

/// The help of the program and of each command below it, in the order in which the help lists them.
fn help_of_all(binary: &Binary, page: &Page) -> Result<Made> {
    let top = binary.help(&[])?;
    if commands(&top).is_empty() {
        return Ok(Made::NotYet("`pipeline --help` lists no commands".to_owned()));
    }
    let mut text = page.heading.to_owned();
    let mut todo: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = todo.pop() {
        let help = binary.help(&command)?;
        let mut name = vec!["pipeline".to_owned()];
        name.extend(command.iter().cloned());
        let body: Vec<&str> = help.trim().lines().map(str::trim_end).collect();
        // Writing into a String cannot fail.
        let _ = write!(text, "\n## {}\n\n```text\n{}\n```\n", name.join(" "), body.join("\n"));
        let below = commands(&help).into_iter().rev();
        todo.extend(below.map(|next| [command.as_slice(), &[next]].concat()));
    }
    Ok(Made::Text(text))
}

/// Names under "Commands:" in a help text, without `help` itself.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| line.trim() != "Commands:")
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        // A name stands two spaces in; the lines of a wrapped description stand further in.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn commands_are_read_from_help() {
        let help = "Durable pipelines\n\nUsage: pipeline <COMMAND>\n\nCommands:\n  check   Find every\n          mistake\n  \
                    run     Run\n  help    Print this\n\nOptions:\n  -q, --quiet\n";
        assert_eq!(commands(help), ["check", "run"]);
        assert_eq!(commands("Usage: pipeline check FILE\n\nOptions:\n  -h\n"), Vec::<String>::new());
    }

    #[test]
    fn drift_is_named_by_its_first_line() {
        assert_eq!(first_difference("a\nb\nc\n", "a\nx\nc\n"), 2);
        assert_eq!(first_difference("a\n", "a\nb\n"), 2);
    }

    /// A script that knows `check` and `schema`, and no `explain`.
    fn script() -> Binary {
        Binary { path: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/pipeline.sh") }
    }

    #[test]
    fn pages_are_written_once_and_then_found_current() {
        let root = tempfile::tempdir().unwrap();
        let missing = generate(&script(), root.path(), true).unwrap();
        assert!(matches!(&missing, Verdict::Failed(all) if all.len() == 2), "{missing:?}");
        let written = Verdict::Passed("2 of 5 pages".into());
        assert_eq!(generate(&script(), root.path(), false).unwrap(), written);
        assert_eq!(generate(&script(), root.path(), true).unwrap(), written);
        let schema = fs::read_to_string(root.path().join("docs/reference/schema.json")).unwrap();
        assert_eq!(schema, "{}\n");
        let cli = fs::read_to_string(root.path().join("docs/reference/cli.md")).unwrap();
        assert!(cli.contains("\n## pipeline check\n\n```text\nAbout check\n"), "{cli}");
        assert!(cli.find("## pipeline check") < cli.find("## pipeline schema"), "{cli}");
    }

    #[test]
    fn an_edited_page_is_out_of_date() {
        let root = tempfile::tempdir().unwrap();
        generate(&script(), root.path(), false).unwrap();
        fs::write(root.path().join("docs/reference/schema.json"), "[]\n").unwrap();
        let Verdict::Failed(problems) = generate(&script(), root.path(), true).unwrap() else {
            panic!("the edit was not found")
        };
        assert!(
            problems[0].starts_with("docs/reference/schema.json is out of date from line 1"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_page_that_the_program_can_no_longer_make_is_a_failure() {
        let root = tempfile::tempdir().unwrap();
        generate(&script(), root.path(), false).unwrap();
        fs::write(root.path().join("docs/reference/codes.md"), "old").unwrap();
        let Verdict::Failed(problems) = generate(&script(), root.path(), true).unwrap() else {
            panic!("the orphan was not found")
        };
        assert!(problems[0].contains("there is no command `pipeline explain`"), "{problems:?}");
    }
}
