//! One trial of `pipeline verify`: a run, what happens to it, its resume, and in what the two differ.
//!
//! Owns [`Trial`], and [`Whole`], what a run that was left alone gives: its status, outputs and steps, and the files it leaves.
//! Two of those are made, and in what they differ nothing can be asked of a third. Must not know what is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use pipeline_core::process::Signal;
use pipeline_core::value::{Hash, Value};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::app::App;
use crate::args::Verify;
use crate::exit::{Exit, Failure};
use crate::itself::{self, Ended};
use crate::wiring;

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The id of every run: names that are made from it are no difference.
const RUN: &str = "verify";

/// Folders of a run, below the place of the trial.
const FOLDERS: [&str; 2] = ["outputs", "workspace"];

/// In what a run differs from one that was left alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The program ended in a way that it should not.
    Ended(String),
    /// It cannot be resumed.
    Refused(String),
    /// An attempt has two ends in the journal.
    Twice(String),
    /// Something has another value.
    Differs(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(how) => write!(f, "{how}"),
            Self::Refused(why) => write!(f, "it could not be resumed: {why}"),
            Self::Twice(path) => write!(f, "an attempt of step `{path}` ended twice"),
            Self::Differs(what) => write!(f, "{what} differs"),
        }
    }
}

/// What a run gives.
type Gives = BTreeMap<String, Value>;

/// What came of a run that was left alone.
pub(super) struct Whole {
    gives: Gives,
    /// Records of its journal.
    pub(super) records: usize,
    /// In what two such runs differ.
    pub(super) unsteady: Vec<String>,
}

/// A file, and where it is tried.
pub(super) struct Trial<'a> {
    pub(super) app: &'a App,
    pub(super) args: &'a Verify,
    pub(super) place: &'a Path,
}

impl Trial<'_> {
    /// Two runs that nothing happens to.
    pub(super) async fn alone(&self) -> Result<Whole, Failure> {
        let first = self.undisturbed().await?;
        let second = self.undisturbed().await?;
        let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
        let unsteady: Vec<String> =
            names.into_iter().filter(|name| first.get(*name) != second.get(*name)).cloned().collect();
        let records = self.events().await?.len();
        Ok(Whole { gives: second, records, unsteady })
    }

    /// Runs, kills after a record, resumes; in what it differs.
    pub(super) async fn cut(&self, after: usize, whole: &Whole) -> Result<Option<Found>, Failure> {
        self.clean()?;
        let mut child = itself::command(self.app, &self.run_args(&["--events"]), &self.app.settings.working)?
            .spawn()
            .await
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
        self.go_on(whole).await
    }

    /// Operations on the disk that a run of so many records makes at most: each is written and flushed, with a blob or none.
    pub(super) async fn operations(&self, records: usize) -> Result<usize, Failure> {
        // The first number that no run comes to.
        let mut most = records * 4 + 1;
        let mut least = 0;
        while least + 1 < most {
            let middle = least.midpoint(most);
            if self.broken(middle).await?.is_some() {
                least = middle;
            } else {
                most = middle;
            }
        }
        Ok(least)
    }

    /// Runs while the disk is full from that operation on, makes room, resumes; in what it differs. `None` when the run did not
    /// come so far.
    pub(super) async fn fault(&self, at: usize, whole: &Whole) -> Result<Option<Option<Found>>, Failure> {
        let Some(ended) = self.broken(at).await? else { return Ok(None) };
        if ended.code != Some(i32::from(Exit::Journal.code())) {
            let code = ended.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            return Ok(Some(Some(Found::Ended(format!(
                "it ends with {code} although its disk was full, and not with {}",
                Exit::Journal.code()
            )))));
        }
        self.go_on(whole).await.map(Some)
    }

    /// How a run ends whose disk fails; `None` when it does not come so far.
    async fn broken(&self, at: usize) -> Result<Option<Ended>, Failure> {
        self.clean()?;
        let at = at.to_string();
        let args = self.run_args(&["--json", "--disk-fails-at", &at]);
        let ended = itself::run(self.app, &args, &self.app.settings.working, PATIENCE).await?;
        Ok(wiring::has_failed(&self.place.join("state"), RUN).then_some(ended))
    }

    /// Resumes what has stopped, and compares.
    async fn go_on(&self, whole: &Whole) -> Result<Option<Found>, Failure> {
        let mut resumed = self.resume(&[]).await?;
        // Each answer ends a question, and each question is about an attempt that was cut off.
        loop {
            let run = resumed.json();
            let answers = again(&run);
            if answers.is_empty() || whole.gives.get("the status") == Some(&run["status"]) {
                break;
            }
            resumed = self.resume(&answers).await?;
            if resumed.json()["questions"] == run["questions"] {
                break;
            }
        }
        if resumed.json()["schema"] != "pipeline.run/1" {
            let why = resumed.stderr.lines().next().unwrap_or("no word why").to_owned();
            return Ok(Some(Found::Refused(why)));
        }
        if let Some(path) = twice(&self.events().await?) {
            return Ok(Some(Found::Twice(path)));
        }
        Ok(difference(whole, &self.gives(&resumed.json())?).map(Found::Differs))
    }

    async fn undisturbed(&self) -> Result<Gives, Failure> {
        self.clean()?;
        let args = self.run_args(&["--json"]);
        let ended = itself::run(self.app, &args, &self.app.settings.working, PATIENCE).await?;
        let run = ended.json();
        if run["schema"] != "pipeline.run/1" {
            self.app.console.err(ended.stderr.trim_end());
            return Err(Failure::usage(format!("{} does not run on mocks", self.args.file))
                .help("put right what is told above"));
        }
        self.gives(&run)
    }

    /// What a run gives: itself, and its files.
    fn gives(&self, run: &Value) -> Result<Gives, Failure> {
        let mut gives = Gives::from([
            ("the status".to_owned(), run["status"].clone()),
            ("the output".to_owned(), run["outputs"].clone()),
        ]);
        for (name, step) in run["steps"].as_object().into_iter().flatten() {
            for field in ["status", "value"] {
                gives.insert(format!("the {field} of step `{name}`"), step[field].clone());
            }
        }
        for folder in FOLDERS {
            files(&self.place.join(folder), folder, &mut gives)
                .map_err(|error| Failure::environment(format!("what was written cannot be read: {error}")))?;
        }
        Ok(gives)
    }

    /// The arguments of a run; every run has the same id and the same folders, so that their names are no difference.
    fn run_args(&self, how: &[&str]) -> Vec<String> {
        let mut args = itself::words(&["run", &self.args.file, "--run-id", RUN]);
        args.extend(itself::words(how));
        args.extend(self.dirs());
        for (flag, name) in ["--output-dir", "--workspace-dir"].into_iter().zip(FOLDERS) {
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
        for name in ["state"].into_iter().chain(FOLDERS) {
            match std::fs::remove_dir_all(self.place.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Failure::environment(format!("a folder cannot be cleaned: {error}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn events(&self) -> Result<Vec<Value>, Failure> {
        let mut args = itself::words(&["runs", "events", RUN, "--json"]);
        args.extend(self.dirs());
        let ended = itself::run(self.app, &args, &self.app.settings.working, PATIENCE).await?;
        Ok(ended.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    async fn resume(&self, answers: &[String]) -> Result<Ended, Failure> {
        let mut args = itself::words(&["resume", RUN, "--json"]);
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

/// The step of which an attempt has two ends.
fn twice(events: &[Value]) -> Option<String> {
    let mut ended = BTreeSet::new();
    let ends = events.iter().filter(|event| event["fact"] == "AttemptEnded");
    ends.map(|event| (event["path"].to_string(), event["turn"].to_string()))
        .find(|attempt| !ended.insert(attempt.clone()))
        .map(|(path, _)| path.trim_matches('"').to_owned())
}

/// The first thing in which a run differs from those that were left alone, and they do not from each other.
fn difference(whole: &Whole, gives: &Gives) -> Option<String> {
    let names: BTreeSet<&String> = whole.gives.keys().chain(gives.keys()).collect();
    let mut other = names.into_iter().filter(|name| whole.gives.get(*name) != gives.get(*name));
    other.find(|name| !whole.unsteady.contains(name)).cloned()
}

/// The files below a folder, by the hash of what is in them.
fn files(folder: &Path, name: &str, gives: &mut Gives) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), &name, gives)?;
        } else if kind.is_file() {
            let content = Hash::of_bytes(&std::fs::read(entry.path())?);
            gives.insert(format!("the file {name}"), json!(content));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gives(value: i32) -> Gives {
        [("the status", json!("ok")), ("the value of step `a`", json!(value))]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    #[test]
    fn a_difference_is_named_unless_nobody_can_tell() {
        let mut whole = Whole { gives: gives(1), records: 0, unsteady: Vec::new() };
        assert_eq!(difference(&whole, &gives(1)), None);
        assert_eq!(difference(&whole, &gives(2)).as_deref(), Some("the value of step `a`"));
        let mut more = gives(1);
        more.insert("the file outputs/a".to_owned(), Value::Null);
        assert_eq!(difference(&whole, &more).as_deref(), Some("the file outputs/a"));
        whole.unsteady = vec!["the value of step `a`".to_owned()];
        assert_eq!(difference(&whole, &gives(2)), None);
    }

    #[test]
    fn an_attempt_ends_once() {
        let end = |path: &str, turn: u32| json!({"fact": "AttemptEnded", "path": path, "turn": turn});
        assert_eq!(twice(&[end("a", 1), end("a", 2), end("b", 1)]), None);
        assert_eq!(twice(&[end("a", 1), end("b", 1), end("a", 1)]).as_deref(), Some("a"));
    }
}
