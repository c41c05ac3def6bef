//! `cargo xtask conformance [DIR] [--release]`: the built program against a folder of pipeline files.
//!
//! Owns the reading of the table of expected exit codes and the runs. Must not know what the files mean: every run is made on
//! mocks, and only exit codes are compared. Without DIR the folder is `examples/`.
//! The table is `conformance.txt` in the folder, else `xtask/conformance.txt` for `examples/` and `xtask/corpus.txt` for
//! folders whose name ends so; its own head says how it is written. A file without a row is expected to pass both `check` and `run`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::report::{self, Verdict, row};

/// How long one call may take. Mocked runs take milliseconds; this only ends a hang.
const DEADLINE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(10);

/// What is expected of one file. `None` means that the command is not run on it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    check: Option<i32>,
    run: Option<i32>,
    args: Vec<String>,
}

impl Default for Expected {
    fn default() -> Self {
        Self { check: Some(0), run: Some(0), args: Vec::new() }
    }
}

/// Runs every pipeline file of a folder and compares exit codes.
pub fn run(repo: &Repo, folder: Option<&str>, release: bool) -> Result<Verdict> {
    let shown = folder.unwrap_or("examples");
    let folder = repo.root().join(shown);
    if !folder.is_dir() {
        return Ok(Verdict::Skipped(format!("there is no folder {shown}")));
    }
    let table = table_of(repo, &folder, shown)?;
    let files = pipeline_files(&folder, &table)?;
    if files.is_empty() {
        return Ok(Verdict::Skipped(format!("no .yaml, .yml or .json file in {shown}")));
    }
    let binary = repo.build_binary(release)?;
    let scratch = repo.root().join("target/conformance");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).context("cannot empty target/conformance")?;
    }
    let suite = Suite { binary: &binary, root: repo.root(), shown, scratch: &scratch, deadline: DEADLINE };
    let (rows, problems) = suite.play(&files, &table)?;
    report::line(report::table(&rows))?;
    Ok(Verdict::from_problems(problems, format!("{} files in {shown}", files.len())))
}

/// A folder of pipeline files and the program to run over it.
struct Suite<'a> {
    binary: &'a Path,
    /// Where the program is started.
    root: &'a Path,
    /// The folder as it was given.
    shown: &'a str,
    /// Where runs leave their files.
    scratch: &'a Path,
    deadline: Duration,
}

impl Suite<'_> {
    /// Plays every file; gives the rows of the printed table, and what was not as expected.
    fn play(
        &self,
        files: &[String],
        table: &BTreeMap<String, Expected>,
    ) -> Result<(Vec<Vec<String>>, Vec<String>)> {
        let mut rows = vec![row(["file", "check", "run", "verdict"])];
        let mut problems = Vec::new();
        for name in files {
            let expected = table.get(name).cloned().unwrap_or_default();
            let (check, run) = Case { suite: self, name }.play(&expected)?;
            let wrong = [("check", expected.check, &check), ("run", expected.run, &run)]
                .into_iter()
                .filter_map(|(command, wanted, got)| wrong(self.shown, name, command, wanted, got.as_ref()))
                .collect::<Vec<_>>();
            let verdict = match (&check, &run) {
                (None, None) => "not run",
                _ if wrong.is_empty() => "ok",
                _ => "WRONG",
            };
            rows.push(row([name, &cell(check.as_ref()), &cell(run.as_ref()), verdict]));
            problems.extend(wrong);
        }
        Ok((rows, problems))
    }
}

/// How a call ended.
struct Ended {
    /// `None` when it was ended by a signal or by the deadline.
    code: Option<i32>,
    /// Last lines of what it said on standard error.
    said: String,
}

fn cell(ended: Option<&Ended>) -> String {
    match ended {
        None => "-".to_owned(),
        Some(Ended { code: Some(code), .. }) => code.to_string(),
        Some(Ended { code: None, .. }) => "killed".to_owned(),
    }
}

fn wrong(
    folder: &str,
    name: &str,
    command: &str,
    wanted: Option<i32>,
    got: Option<&Ended>,
) -> Option<String> {
    let (wanted, got) = (wanted?, got?);
    if got.code == Some(wanted) {
        return None;
    }
    let ended = cell(Some(got));
    Some(format!("{folder}/{name}: `pipeline {command}` gave {ended}, expected {wanted}\n{}", got.said))
}

struct Case<'a> {
    suite: &'a Suite<'a>,
    name: &'a str,
}

impl Case<'_> {
    fn play(&self, expected: &Expected) -> Result<(Option<Ended>, Option<Ended>)> {
        let check = match expected.check {
            Some(_) => Some(self.call("check", &[])?),
            None => None,
        };
        let run = match expected.run {
            Some(_) => {
                let mut args = vec!["--mock".to_owned()];
                // Each case has directories of its own, so that files of one run are not the input of the next.
                for flag in ["state-dir", "workspace-dir", "output-dir"] {
                    let own = self.own_folder().join(flag);
                    args.push(format!("--{flag}={}", own.display()));
                }
                args.extend(expected.args.iter().cloned());
                Some(self.call("run", &args)?)
            }
            None => None,
        };
        Ok((check, run))
    }

    fn own_folder(&self) -> PathBuf {
        self.suite.scratch.join(self.name.replace(['/', '\\'], "__"))
    }

    fn call(&self, command: &str, args: &[String]) -> Result<Ended> {
        let own = self.own_folder();
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        let (out, err) = (own.join(format!("{command}.stdout")), own.join(format!("{command}.stderr")));
        let mut child = Command::new(self.suite.binary)
            .arg(command)
            .arg(Path::new(self.suite.shown).join(self.name))
            .args(args)
            .current_dir(self.suite.root)
            .stdin(Stdio::null())
            // Files, not pipes: nobody reads while it runs, and a full pipe would hang it.
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| format!("cannot start {}", self.suite.binary.display()))?;
        let mut waited = Duration::ZERO;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if waited >= self.suite.deadline {
                child.kill()?;
                break child.wait()?;
            }
            thread::sleep(POLL);
            waited += POLL;
        };
        // `check` prints findings on standard output.
        let said = format!("{}{}", fs::read_to_string(out)?, String::from_utf8_lossy(&fs::read(err)?));
        Ok(Ended { code: status.code(), said: tail(&said) })
    }
}

/// The last lines, indented.
fn tail(text: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    last.iter().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}

fn table_of(repo: &Repo, folder: &Path, shown: &str) -> Result<BTreeMap<String, Expected>> {
    let own = folder.join("conformance.txt");
    let ours = repo.root().join("xtask/conformance.txt");
    let path = match (own.is_file(), shown.trim_end_matches('/')) {
        (true, _) => own,
        (false, "examples") => ours,
        (false, other) if other.ends_with("corpus") => repo.root().join("xtask/corpus.txt"),
        (false, _) => return Ok(BTreeMap::new()),
    };
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut table = parse(&text.replace("{folder}", shown.trim_end_matches('/')))
        .with_context(|| format!("in {}", path.display()))?;
    if path.ends_with("corpus.txt") {
        // Any part of the files may be there.
        table.retain(|name, _| folder.join(name).is_file());
    }
    Ok(table)
}

/// Reads lines of `file | check | run | arguments`.
fn parse(text: &str) -> Result<BTreeMap<String, Expected>> {
    let mut table = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, check, run, args) = match cells.as_slice() {
            [name, check, run] => (*name, *check, *run, ""),
            [name, check, run, args] => (*name, *check, *run, *args),
            _ => bail!("line {}: write `file | check | run` or `file | check | run | arguments`", i + 1),
        };
        let code = |cell: &str| match cell {
            "-" => Ok(None),
            cell => cell
                .parse()
                .map(Some)
                .with_context(|| format!("line {}: `{cell}` is neither an exit code nor `-`", i + 1)),
        };
        let args = args.split_whitespace().map(str::to_owned).collect();
        let expected = Expected { check: code(check)?, run: code(run)?, args };
        if table.insert(name.to_owned(), expected).is_some() {
            bail!("line {}: {name} has a row already", i + 1);
        }
    }
    Ok(table)
}

/// Pipeline files directly in the folder, and those further down that have a row.
fn pipeline_files(folder: &Path, table: &BTreeMap<String, Expected>) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let known = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if let (true, true, Some(name)) = (known, path.is_file(), path.file_name().and_then(|n| n.to_str())) {
            names.push(name.to_owned());
        }
    }
    for name in table.keys() {
        if !folder.join(name).is_file() {
            bail!(
                "the table of expectations names {name}, which is not in {}; remove the row",
                folder.display()
            );
        }
        names.push(name.clone());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn rows_give_codes_and_arguments_and_a_dash_means_not_run() {
        let table = parse("# head\n\na.yaml | 0 | 1 | -i topic=tea --max-parallel 2\nb.yaml|2|-\n").unwrap();
        let args = ["-i", "topic=tea", "--max-parallel", "2"].map(str::to_owned).to_vec();
        assert_eq!(table["a.yaml"], Expected { check: Some(0), run: Some(1), args });
        assert_eq!(table["b.yaml"], Expected { check: Some(2), run: None, args: Vec::new() });
    }

    #[test]
    fn a_wrong_row_is_refused_with_its_line() {
        let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(error("a.yaml | 0\n").contains("line 1"));
        assert!(error("\na.yaml | zero | 0\n").contains("line 2: `zero`"));
        assert!(error("a | 0 | 0\na | 0 | 0\n").contains("a has a row already"));
    }

    #[test]
    fn a_different_exit_code_is_told_with_what_the_program_said() {
        let got = Ended { code: Some(1), said: "      why".to_owned() };
        let text = wrong("examples", "a.yaml", "run", Some(0), Some(&got)).unwrap();
        assert!(text.contains("`pipeline run` gave 1, expected 0") && text.ends_with("why"), "{text}");
        assert_eq!(wrong("examples", "a.yaml", "run", Some(1), Some(&got)), None);
        let killed = Ended { code: None, said: String::new() };
        assert!(wrong("examples", "a.yaml", "run", Some(1), Some(&killed)).unwrap().contains("killed"));
    }

    #[test]
    fn files_are_played_as_their_rows_say_and_a_hang_is_ended() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture");
        let folder = fixture.join("plans");
        let table = parse(&fs::read_to_string(folder.join("conformance.txt")).unwrap()).unwrap();
        let files = pipeline_files(&folder, &table).unwrap();
        assert_eq!(files, ["fine.yaml", "hangs.yaml", "rules.yaml", "wrong.yaml"]);
        let scratch = tempfile::tempdir().unwrap();
        let suite = Suite {
            binary: &fixture.join("pipeline.sh"),
            root: &fixture,
            shown: "plans",
            scratch: scratch.path(),
            deadline: Duration::from_secs(1),
        };
        let (rows, problems) = suite.play(&files, &table).unwrap();
        assert_eq!(rows[1], row(["fine.yaml", "0", "0", "ok"]));
        assert_eq!(rows[2], row(["hangs.yaml", "0", "killed", "WRONG"]));
        assert_eq!(rows[3], row(["rules.yaml", "-", "-", "not run"]));
        assert_eq!(rows[4], row(["wrong.yaml", "2", "2", "ok"]));
        assert_eq!(problems.len(), 1, "{problems:?}");
        let told = fs::read_to_string(scratch.path().join("fine.yaml/run.stdout")).unwrap();
        assert!(told.contains(" --mock ") && told.trim_end().ends_with("-i topic=tea"), "{told}");
    }
}
