//! `pipeline test DIR`: runs cases on mocks or tapes and compares what came of them with what was expected.
//!
//! Owns `pipeline.test/1` and the order of a case. Next: `test/case.rs` for what a case says, `test/judge.rs` for what is
//! compared, `test/junit.rs` for build servers.

mod case;
mod judge;
mod junit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline_core::value::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::app::App;
use crate::args::Test;
use crate::console::{GREEN, RED, paint, visible};
use crate::exit::{Exit, Failure};
use crate::itself;
use crate::report::time;
use crate::sources::reason;
use case::{Case, Suite};

/// How long one case may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at the files of `--watch`.
const PAUSE: Duration = Duration::from_millis(400);

/// How a case came out.
pub struct Verdict {
    /// File of cases, as it was named.
    pub suite: String,
    /// The case.
    pub name: String,
    /// What was not as expected; empty = it passed.
    pub problems: Vec<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// Runs every case.
///
/// # Errors
/// [`Failure`] when there are none, or a file of cases cannot be read.
pub async fn test(app: &App, args: &Test) -> Result<Exit, Failure> {
    loop {
        let files = suites(app, &args.paths)?;
        let before = stamp(&files);
        let exit = once(app, args, &files).await?;
        if !args.watch {
            return Ok(exit);
        }
        app.console.note("watching: change a file to run again, Ctrl-C to end");
        while stamp(&files) == before {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn once(app: &App, args: &Test, files: &[PathBuf]) -> Result<Exit, Failure> {
    let mut verdicts = Vec::new();
    for file in files {
        let shown = file.strip_prefix(&app.settings.working).unwrap_or(file).display().to_string();
        let suite = case::read(file, &shown)?;
        for case in suite.cases.iter().filter(|c| args.filter.as_ref().is_none_or(|f| c.name.contains(f))) {
            let begun = Instant::now();
            let problems = play(app, file, &suite, case, args.update).await?;
            let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let verdict = Verdict { suite: shown.clone(), name: case.name.clone(), problems, duration_ms };
            tell(app, &verdict);
            verdicts.push(verdict);
        }
    }
    let failed = verdicts.iter().filter(|v| !v.problems.is_empty()).count();
    if let Some(path) = &args.junit {
        std::fs::write(app.settings.absolute(path), junit::text(&verdicts)).map_err(|error| {
            Failure::environment(format!("cannot write {}: {}", path.display(), reason(&error)))
        })?;
    }
    if app.settings.json {
        app.console.out(&format!("{:#}\n", document(&verdicts)))?;
    } else {
        app.console.out(&format!("{} passed, {failed} failed\n", verdicts.len() - failed))?;
    }
    if verdicts.is_empty() {
        return Err(Failure::usage("no case was run").help("the filter fits none, or the files have none"));
    }
    Ok(if failed == 0 { Exit::Success } else { Exit::Failed })
}

/// The files of cases that the paths name: themselves, or all YAML files in directories that have `cases`.
fn suites(app: &App, paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let full = app.settings.absolute(path);
        if !full.is_dir() {
            found.push(full);
            continue;
        }
        let before = found.len();
        let entries = std::fs::read_dir(&full).map_err(|error| {
            Failure::usage(format!("cannot read {}: {}", path.display(), reason(&error)))
                .help("name a file of cases, or a directory with such files; `pipeline init` writes one")
        })?;
        let mut here: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        here.sort();
        found.extend(here.into_iter().filter(|file| {
            file.extension().is_some_and(|e| e == "yaml" || e == "yml")
                && std::fs::read_to_string(file)
                    .is_ok_and(|text| text.lines().any(|line| line.starts_with("cases:")))
        }));
        if found.len() == before {
            return Err(Failure::usage(format!("there is no file of cases in {}", path.display()))
                .help("a file of cases is YAML with `pipeline:` and `cases:`; `pipeline init` writes one"));
        }
    }
    Ok(found)
}

/// When the files, and everything beside them, were changed last.
fn stamp(files: &[PathBuf]) -> Vec<Option<std::time::SystemTime>> {
    let folders = files.iter().filter_map(|file| file.parent());
    let around = folders.flat_map(|folder| [Some(folder), folder.parent()].into_iter().flatten());
    let mut all = Vec::new();
    for folder in around {
        if let Ok(entries) = std::fs::read_dir(folder) {
            let files = entries
                .filter_map(Result::ok)
                .filter(|e| e.path().extension().is_some_and(|e| e == "yaml" || e == "md"));
            all.extend(files.map(|e| e.metadata().and_then(|m| m.modified()).ok()));
        }
    }
    all
}

/// Runs one case in folders of its own.
async fn play(
    app: &App,
    file: &Path,
    suite: &Suite,
    case: &Case,
    update: bool,
) -> Result<Vec<String>, Failure> {
    let unusable =
        |error: std::io::Error| Failure::environment(format!("a case needs a temporary folder: {error}"));
    let scratch = tempfile::tempdir().map_err(unusable)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let here = |name: &str| scratch.path().join(name).display().to_string();
    let mut args =
        itself::words(&["run", &folder.join(&suite.pipeline).display().to_string(), "--json", "--yes"]);
    for (flag, name) in
        [("--state-dir", "state"), ("--output-dir", "outputs"), ("--workspace-dir", "workspace")]
    {
        args.extend([flag.to_owned(), here(name)]);
    }
    for (name, value) in &case.inputs {
        args.extend(["-i".to_owned(), format!("{name}={value}")]);
    }
    match (&case.replay, &case.mock, &case.mock_rules) {
        (Some(tape), _, _) => args.extend(["--replay".to_owned(), folder.join(tape).display().to_string()]),
        (None, Value::Null, None) => args.push("--mock".to_owned()),
        (None, Value::Null, Some(rules)) => {
            args.extend(["--mock-rules".to_owned(), folder.join(rules).display().to_string()]);
        }
        (None, rules, _) => {
            // JSON is YAML.
            std::fs::write(scratch.path().join("rules.yaml"), rules.to_string()).map_err(unusable)?;
            args.extend(["--mock-rules".to_owned(), here("rules.yaml")]);
        }
    }
    args.extend(case.args.iter().cloned());
    let ended = itself::run(app, &args, folder, PATIENCE).await?;
    let facts = match ended.json()["run_id"].as_str() {
        Some(run) => {
            let args = itself::words(&["runs", "events", run, "--json", "--state-dir", &here("state")]);
            itself::run(app, &args, folder, PATIENCE).await?.stdout
        }
        None => String::new(),
    };
    let came = judge::Came { ended: &ended, facts: &facts, outputs: &scratch.path().join("outputs") };
    let mut problems = judge::judge(&case.expect, &came);
    if case.snapshot {
        problems.extend(snapshot(file, case, &came, update)?);
    }
    Ok(problems)
}

/// Compares with the stored snapshot, or stores it.
fn snapshot(
    file: &Path,
    case: &Case,
    came: &judge::Came<'_>,
    update: bool,
) -> Result<Option<String>, Failure> {
    let plain: String = case.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let path = file.with_file_name("snapshots").join(format!("{stem}.{plain}.json"));
    let now = format!("{:#}\n", came.kept());
    let old = std::fs::read_to_string(&path).ok();
    if old.as_deref() == Some(&now) {
        return Ok(None);
    }
    let shown = path.display();
    if !update {
        return Ok(Some(match old {
            None => format!("there is no snapshot {shown}; --update writes it"),
            Some(old) => {
                let line = old.lines().zip(now.lines()).take_while(|(a, b)| a == b).count() + 1;
                format!("it differs from {shown} from line {line}; --update takes the new one")
            }
        }));
    }
    let write =
        || std::fs::create_dir_all(path.parent().unwrap_or(&path)).and_then(|()| std::fs::write(&path, &now));
    write().map_err(|error| Failure::environment(format!("cannot write {shown}: {}", reason(&error))))?;
    Ok(None)
}

fn tell(app: &App, verdict: &Verdict) {
    let word = if verdict.problems.is_empty() { paint(GREEN, "ok    ") } else { paint(RED, "FAILED") };
    let line =
        format!("{word} {}: {} ({})", verdict.suite, visible(&verdict.name), time(verdict.duration_ms));
    if verdict.problems.is_empty() {
        app.console.note(&line);
    } else {
        app.console.err(&line);
    }
    for problem in &verdict.problems {
        app.console.err(&format!("       {}", visible(problem)));
    }
}

fn document(verdicts: &[Verdict]) -> Value {
    let one = |v: &Verdict| json!({"suite": v.suite, "name": v.name, "passed": v.problems.is_empty(), "problems": v.problems, "duration_ms": v.duration_ms});
    let failed = verdicts.iter().filter(|v| !v.problems.is_empty()).count();
    json!({
        "schema": "pipeline.test/1",
        "passed": verdicts.len() - failed,
        "failed": failed,
        "cases": verdicts.iter().map(one).collect::<Vec<_>>(),
    })
}
