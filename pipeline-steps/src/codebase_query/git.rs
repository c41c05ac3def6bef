//! What git says of a codebase.
//!
//! Owns the commands that are run, each with fixed arguments, a deadline and a cap on its output, and the reading of what
//! they print. A repository is somebody else's text: nothing in it may start a program, and nothing above the directory
//! that may be read is looked at.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::process::Finished;
use pipeline_core::step::StepContext;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::config::GetChangedFiles;

/// How long one command may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most that one command may print, in bytes.
const MOST: usize = 32 * 1024 * 1024;

/// How many of the last commits are told.
const COMMITS: &str = "5";

/// Settings that keep a repository from starting programs, and words from being translated.
const SAFE: &[&str] = &[
    "--no-pager",
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.quotePath=false",
    "-c",
    "status.relativePaths=true",
];

/// A repository, as a step may look at it.
pub(super) struct Git<'a> {
    cx: &'a StepContext,
    place: &'a Path,
    root: &'a Path,
}

impl<'a> Git<'a> {
    /// `place` is the codebase, `root` the directory around it that may be read.
    pub(super) fn new(cx: &'a StepContext, place: &'a Path, root: &'a Path) -> Self {
        Self { cx, place, root }
    }

    async fn run(&self, args: &[&str]) -> Result<Finished, StepError> {
        let all = SAFE.iter().chain(args).map(OsString::from);
        let mut command = self.cx.command("git", all);
        command.cwd = Some(self.place.to_path_buf());
        command.env.retain(|name, _| !name.starts_with("GIT_"));
        command.env.insert("LC_ALL".to_owned(), "C".to_owned());
        command.env.insert("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned());
        if let Some(above) = self.root.parent().and_then(Path::to_str) {
            command.env.insert("GIT_CEILING_DIRECTORIES".to_owned(), above.to_owned());
        }
        let deadline = self.cx.deadline.min(Instant::now() + DEADLINE);
        let done = Box::pin(command.run(b"", MOST, deadline)).await?;
        if done.is_cut {
            let message = format!("git has more to say than {} MiB", MOST / 1024 / 1024);
            return Err(StepError::new(ErrorKind::TooLarge, message).help("ask about a smaller directory"));
        }
        Ok(done)
    }

    /// What a command prints.
    ///
    /// # Errors
    /// `Environment` when there is no git or no repository; otherwise `Invalid` with what git says.
    async fn ask(&self, args: &[&str]) -> Result<String, StepError> {
        let done = self.run(args).await?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        let place = self.place.display();
        // The exit code is 128 for every trouble; what remains is git's own, untranslated, sentence.
        if said.contains("not a git repository") {
            let message = format!("there is no git repository in {place}");
            return Err(StepError::new(ErrorKind::Environment, message).help(
                "run `git init`, or give the directory of a repository in `path`; one above the directories that may be \
                 read does not count",
            ));
        }
        let message = format!(
            "git cannot answer for {place}: {}",
            said.lines().next().unwrap_or("it does not say why")
        );
        let kind =
            if said.contains("dubious ownership") { ErrorKind::Environment } else { ErrorKind::Invalid };
        Err(StepError::new(kind, message).details(json!({ "stderr": said, "exit_code": done.status.code() })))
    }

    /// Answers `get_git_status`.
    ///
    /// # Errors
    /// As [`Git::ask`]; `TimedOut`, `TooLarge`.
    pub(super) async fn status(&self) -> Result<Value, StepError> {
        let text = self
            .ask(&[
                "status",
                "--porcelain=v2",
                "--branch",
                "-z",
                "--untracked-files=all",
                "--ignore-submodules=all",
                "--",
                ".",
            ])
            .await?;
        let prefix = self.prefix().await?;
        let mut status = read_status(&text, &prefix);
        let commits = if status["commit"].is_null() {
            String::new()
        } else {
            self.ask(&[
                "log",
                "-z",
                "-n",
                COMMITS,
                "--no-show-signature",
                "--format=%H%x1f%an%x1f%aI%x1f%s",
                "--",
                ".",
            ])
            .await?
        };
        status["recent_commits"] = commits.split('\0').filter_map(commit).collect();
        Ok(status)
    }

    /// The directory below the top of the repository, with a `/` at its end; empty at the top.
    async fn prefix(&self) -> Result<String, StepError> {
        Ok(self.ask(&["rev-parse", "--show-prefix"]).await?.trim_end_matches('\n').to_owned())
    }

    /// Answers `get_changed_files`.
    ///
    /// # Errors
    /// As [`Git::ask`]; `Invalid` for a commit that is none.
    pub(super) async fn changed(&self, asked: &GetChangedFiles) -> Result<Value, StepError> {
        let since = asked.since.trim();
        if since.is_empty() || since.starts_with('-') {
            return Err(StepError::invalid(format!("`{since}` is not the name of a commit"))
                .help("give a commit, a branch or a tag: `main`, `HEAD~3`, `v1.2`"));
        }
        self.prefix().await?;
        let commit = format!("{since}^{{commit}}");
        let found = self.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await?;
        if !found.status.success() {
            return Err(StepError::invalid(format!("git knows no commit `{since}` here"))
                .help("give a commit, a branch or a tag; a shallow clone has only the last commits"));
        }
        let base = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let text = self
            .ask(&[
                "diff",
                "--name-status",
                "-z",
                "--no-ext-diff",
                "--no-textconv",
                "--ignore-submodules=all",
                "--find-renames",
                "--relative",
                &base,
                "--",
            ])
            .await?;
        let mut files = read_changes(&text);
        if asked.include_untracked {
            let text = self.ask(&["ls-files", "--others", "--exclude-standard", "-z", "--", "."]).await?;
            let new = text.split('\0').filter(|path| !path.is_empty());
            files.extend(new.map(|path| json!({ "path": path, "status": "untracked" })));
        }
        files.sort_by(|a, b| a["path"].as_str().cmp(&b["path"].as_str()));
        Ok(json!({ "since": since, "commit": base, "count": files.len(), "files": files }))
    }
}

fn commit(line: &str) -> Option<Value> {
    let mut parts = line.trim_start_matches('\n').split('\u{1f}');
    let id = parts.next().filter(|id| !id.is_empty())?;
    let (author, date, subject) = (parts.next()?, parts.next()?, parts.next()?);
    Some(json!({ "commit": short(id), "author": author, "date": date, "subject": subject }))
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Reads `status --porcelain=v2 --branch -z`, whose paths begin at the top of the repository.
fn read_status(text: &str, prefix: &str) -> Value {
    let (mut branch, mut id, mut upstream) = (Value::Null, Value::Null, Value::Null);
    let (mut ahead, mut behind) = (0, 0);
    let mut lists: [Vec<Value>; 5] = Default::default();
    let mut records = text.split('\0');
    while let Some(record) = records.next() {
        if let Some(header) = record.strip_prefix("# branch.") {
            match header.split_once(' ') {
                Some(("oid", value)) if value != "(initial)" => id = value.into(),
                Some(("head", value)) if value != "(detached)" => branch = value.into(),
                Some(("upstream", value)) => upstream = value.into(),
                Some(("ab", value)) => {
                    let mut counts = value
                        .split(' ')
                        .map(|n| n.trim_start_matches(['+', '-']).parse::<u64>().unwrap_or(0));
                    (ahead, behind) = (counts.next().unwrap_or(0), counts.next().unwrap_or(0));
                }
                _ => {}
            }
            continue;
        }
        let below = |path: &str| Value::from(path.strip_prefix(prefix).unwrap_or(path));
        let [staged, modified, deleted, untracked, conflicted] = &mut lists;
        // Fields before the path: see git-status, "Porcelain Format Version 2".
        let fields = match record.get(..2) {
            Some("1 ") => 8,
            Some("2 ") => 9,
            Some("u ") => 10,
            Some("? ") => 1,
            _ => continue,
        };
        let Some(path) = record.splitn(fields + 1, ' ').nth(fields) else { continue };
        let mut marks = record.get(2..4).unwrap_or_default().chars();
        match record.get(..1) {
            Some("?") => untracked.push(below(path)),
            Some("u") => conflicted.push(below(path)),
            kind => {
                let (index, disk) = (marks.next(), marks.next());
                if index != Some('.') {
                    staged.push(below(path));
                }
                match disk {
                    Some('D') => deleted.push(below(path)),
                    Some('.') | None => {}
                    Some(_) => modified.push(below(path)),
                }
                if kind == Some("2") {
                    // The old name of what was renamed is a record of its own.
                    records.next();
                }
            }
        }
    }
    let is_clean = lists.iter().all(Vec::is_empty);
    let [staged, modified, deleted, untracked, conflicted] = lists;
    json!({
        "branch": branch,
        "commit": id.as_str().map(short),
        "commit_id": id,
        "status": if is_clean { "clean" } else { "dirty" },
        "is_clean": is_clean,
        "upstream": upstream,
        "ahead": ahead,
        "behind": behind,
        "staged": staged,
        "modified": modified,
        "deleted": deleted,
        "untracked": untracked,
        "conflicted": conflicted,
    })
}

/// Reads `diff --name-status -z`.
fn read_changes(text: &str) -> Vec<Value> {
    let mut parts = text.split('\0').filter(|part| !part.is_empty());
    let mut files = Vec::new();
    while let (Some(mark), Some(path)) = (parts.next(), parts.next()) {
        let status = match mark.chars().next() {
            Some('A') => "added",
            Some('D') => "deleted",
            Some('R') => "renamed",
            Some('C') => "copied",
            Some('T') => "type_changed",
            Some('U') => "conflicted",
            _ => "modified",
        };
        match status {
            "renamed" | "copied" => {
                let Some(new) = parts.next() else { break };
                files.push(json!({ "path": new, "status": status, "old_path": path }));
            }
            _ => files.push(json!({ "path": path, "status": status })),
        }
    }
    files
}
