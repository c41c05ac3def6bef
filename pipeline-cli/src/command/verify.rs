//! `pipeline verify FILE --crash`: runs a file on mocks, kills the process at every record of its journal, resumes, and
//! compares with a run that was left alone.
//!
//! Owns `pipeline.verify/1`. The process is really killed: what it had in memory is gone.

use std::path::Path;
use std::time::Duration;

use pipeline_core::process::Signal;
use pipeline_core::value::Value;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::app::App;
use crate::args::Verify;
use crate::console::visible;
use crate::exit::{Exit, Failure};
use crate::itself::{self, Ended};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// One kill.
struct Cut {
    after: usize,
    problem: Option<String>,
}

/// Kills and compares.
///
/// # Errors
/// [`Failure`] when the file does not run, or the program cannot start itself.
pub async fn verify(app: &App, args: &Verify) -> Result<Exit, Failure> {
    if !args.crash {
        return Err(Failure::usage("there is nothing to verify without --crash")
            .help("write `pipeline verify FILE --crash`"));
    }
    let scratch = tempfile::tempdir()
        .map_err(|error| Failure::environment(format!("a temporary folder is needed: {error}")))?;
    let trial = Trial { app, args, place: scratch.path() };
    let whole = trial.alone().await?;
    let facts = trial.facts().await?;
    let mut cuts = Vec::new();
    for after in chosen(facts, args.most) {
        let problem = trial.cut(after, &whole).await?;
        app.console.note(&match &problem {
            None => format!("killed after record {after} of {facts}: the same came of it"),
            Some(why) => format!("killed after record {after} of {facts}: {}", visible(why)),
        });
        cuts.push(Cut { after, problem });
    }
    let bad = cuts.iter().filter(|cut| cut.problem.is_some()).count();
    if app.settings.json {
        let one = |cut: &Cut| json!({"killed_after": cut.after, "problem": cut.problem});
        let document = json!({"schema": "pipeline.verify/1", "records": facts, "failed": bad, "cuts": cuts.iter().map(one).collect::<Vec<_>>()});
        app.console.out(&format!("{document:#}\n"))?;
    } else {
        app.console
            .out(&format!("{} kills in a run of {facts} records: {bad} came out otherwise\n", cuts.len()))?;
    }
    Ok(if bad == 0 { Exit::Success } else { Exit::Failed })
}

/// The records after which to kill: all, or so many evenly spread.
fn chosen(facts: usize, most: usize) -> Vec<usize> {
    // After the last record there is nothing to resume.
    let all = facts.saturating_sub(1);
    let most = most.max(1);
    if all <= most {
        return (1..=all).collect();
    }
    let mut spread: Vec<usize> = (0..most).map(|n| 1 + n * (all - 1) / (most - 1).max(1)).collect();
    spread.dedup();
    spread
}

struct Trial<'a> {
    app: &'a App,
    args: &'a Verify,
    place: &'a Path,
}

impl Trial<'_> {
    /// The arguments of a run; every run has the same id and the same folders, so that their names are no difference.
    fn run_args(&self, how: &str) -> Vec<String> {
        let mut args = itself::words(&["run", &self.args.file, "--run-id", "verify", how]);
        args.extend(self.dirs());
        for (flag, name) in [("--output-dir", "outputs"), ("--workspace-dir", "workspace")] {
            args.extend([flag.to_owned(), self.place.join(name).display().to_string()]);
        }
        match &self.args.mock_rules {
            Some(rules) => args.extend(["--mock-rules".to_owned(), rules.display().to_string()]),
            None => args.push("--mock".to_owned()),
        }
        args.extend(self.args.inputs.iter().flat_map(|pair| ["-i".to_owned(), pair.clone()]));
        args
    }

    fn dirs(&self) -> [String; 2] {
        ["--state-dir".to_owned(), self.place.join("state").display().to_string()]
    }

    fn clean(&self) -> Result<(), Failure> {
        for name in ["state", "outputs", "workspace"] {
            match std::fs::remove_dir_all(self.place.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::environment(format!("a folder cannot be cleaned: {error}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn alone(&self) -> Result<Value, Failure> {
        let ended =
            itself::run(self.app, &self.run_args("--json"), &self.app.settings.working, PATIENCE).await?;
        let run = ended.json();
        if run["schema"] != "pipeline.run/1" {
            self.app.console.err(ended.stderr.trim_end());
            return Err(Failure::usage(format!("{} does not run on mocks", self.args.file))
                .help("put right what is told above"));
        }
        Ok(run)
    }

    async fn facts(&self) -> Result<usize, Failure> {
        let mut args = itself::words(&["runs", "events", "verify", "--json"]);
        args.extend(self.dirs());
        let ended = itself::run(self.app, &args, &self.app.settings.working, PATIENCE).await?;
        Ok(ended.stdout.lines().count())
    }

    /// Runs again, kills after a record, resumes; what differs.
    async fn cut(&self, after: usize, whole: &Value) -> Result<Option<String>, Failure> {
        self.clean()?;
        let mut child = itself::command(self.app, &self.run_args("--events"), &self.app.settings.working)?
            .spawn()
            .map_err(|error| Failure::environment(error.to_string()))?;
        let (_, stdout, _stderr) = child.streams();
        if let Some(stdout) = stdout {
            let mut lines = BufReader::new(stdout).lines();
            let mut seen = 0;
            while seen < after {
                match tokio::time::timeout(PATIENCE, lines.next_line()).await {
                    Ok(Ok(Some(line))) => seen += usize::from(line.contains("\"fact\":")),
                    _ => break,
                }
            }
        }
        // Killed without warning, and waited for: until the system has cleared it away it still owns the run.
        child.signal(Signal::Kill);
        let _ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        let mut resumed = self.resume(&[]).await?;
        // Each answer ends a question, and each question is about an attempt that this kill cut off.
        loop {
            let run = resumed.json();
            let answers = again(&run);
            if answers.is_empty() || run["status"] == whole["status"] {
                return Ok(difference(whole, &resumed));
            }
            resumed = self.resume(&answers).await?;
            if resumed.json()["questions"] == run["questions"] {
                return Ok(difference(whole, &resumed));
            }
        }
    }

    async fn resume(&self, answers: &[String]) -> Result<Ended, Failure> {
        let mut args = itself::words(&["resume", "verify", "--json"]);
        args.extend(self.dirs());
        args.extend(answers.iter().flat_map(|answer| ["--answer".to_owned(), answer.clone()]));
        itself::run(self.app, &args, &self.app.settings.working, PATIENCE).await
    }
}

/// Answers to what a run asks about attempts that were cut off and whose effects must not happen twice: a person who has
/// looked, and found that nothing had happened yet, lets them run again.
fn again(run: &Value) -> Vec<String> {
    let questions = run["questions"].as_array().into_iter().flatten();
    let once = questions.filter(|question| question["choices"] == json!(["rerun", "fail"]));
    once.filter_map(|question| Some(format!("{}=rerun", question["path"].as_str()?))).collect()
}

/// The first thing in which a resumed run differs from one that was left alone.
fn difference(whole: &Value, resumed: &Ended) -> Option<String> {
    let run = resumed.json();
    if run["schema"] != "pipeline.run/1" {
        return Some(format!(
            "it could not be resumed: {}",
            resumed.stderr.lines().next().unwrap_or("no word why")
        ));
    }
    if run["status"] != whole["status"] {
        return Some(format!("the run is {}, not {}", run["status"], whole["status"]));
    }
    if run["outputs"] != whole["outputs"] {
        return Some("the outputs differ".to_owned());
    }
    let steps = whole["steps"].as_object()?;
    steps.iter().find_map(|(name, step)| {
        let other = &run["steps"][name];
        let field = ["status", "value"].into_iter().find(|field| step[field] != other[field])?;
        Some(format!("the {field} of step `{name}` differs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_at_every_record_or_evenly_spread() {
        assert_eq!(chosen(4, 100), [1, 2, 3]);
        assert_eq!(chosen(101, 5), [1, 25, 50, 75, 100]);
        assert!(chosen(1, 5).is_empty() && chosen(0, 5).is_empty());
    }

    #[test]
    fn a_difference_is_named() {
        let whole = json!({"schema": "pipeline.run/1", "status": "ok", "outputs": {}, "steps": {"a": {"status": "ok", "value": 1}}});
        let ended = |run: Value| Ended { code: Some(0), stdout: run.to_string(), stderr: String::new() };
        assert_eq!(difference(&whole, &ended(whole.clone())), None);
        let mut other = whole.clone();
        other["steps"]["a"]["value"] = json!(2);
        assert_eq!(difference(&whole, &ended(other)).as_deref(), Some("the value of step `a` differs"));
        assert!(
            difference(&whole, &ended(Value::Null)).is_some_and(|why| why.contains("could not be resumed"))
        );
    }
}
