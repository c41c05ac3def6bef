//! What must be true after an answer.
//!
//! Owns `expect`: an agent may say that it is done, and this looks. Every failure has the kind `schema` (what came is not
//! what was asked for) and names the expectation in its details. Must not know how the answer was got.
//! Next: `expect/watch.rs` (which files changed).

mod watch;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::value::Value;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::prompt::answer::Expected;
use crate::prompt::part::Text;

pub(super) use watch::Before;

/// Most bytes of a command's output that are kept.
const OUTPUT: usize = 64 * 1024;

/// Characters of a command's output that an error shows.
const SHOWN: usize = 2000;

/// What must be true after the answer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// Files of the workspace that must have changed: `true` = at least one, `false` = none, or patterns of which each must
    /// match a changed file.
    #[serde(default)]
    pub files_changed: Option<FilesChanged>,
    /// A command that must end with 0 in the workspace: a list of words, or text for `sh -c`. `permissions.shell` must
    /// allow it.
    #[serde(default)]
    pub command_ok: Option<Line>,
    /// JSON Schema that the answer's JSON must fit.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>", extend("x-kind" = "raw"))]
    pub json_schema: Option<Value>,
    /// Regular expressions that the answer's text must match.
    #[serde(default)]
    pub text_matches: Option<Patterns>,
    /// Most lines that the changes of the workspace may add and remove together.
    #[serde(default)]
    pub max_diff_lines: Option<u64>,
}

/// Which files must have changed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum FilesChanged {
    /// Any, or none.
    Any(bool),
    /// Files or patterns.
    Patterns(Vec<Text>),
    /// One file or pattern.
    Pattern(String),
}

/// A command.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Line {
    /// A program and its arguments.
    Words(Vec<Text>),
    /// A line for `sh -c`.
    Text(String),
}

/// One or several regular expressions.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Patterns {
    /// All of them must match.
    Many(Vec<Text>),
    /// One.
    One(String),
}

/// An answer that is looked at.
pub(super) struct Looked<'a> {
    pub text: &'a str,
    pub data: Option<&'a Value>,
}

impl Expect {
    /// Looks at the workspace before anything is asked, where that will be needed.
    ///
    /// # Errors
    /// `TooLarge`, `Environment`.
    pub async fn before(&self, cx: &StepContext) -> Result<Option<Before>, StepError> {
        let with_lines = self.max_diff_lines.is_some();
        if self.files_changed.is_none() && !with_lines {
            return Ok(None);
        }
        Box::pin(Before::look(cx, with_lines)).await.map(Some)
    }

    /// Refuses what cannot be looked at, before anything is paid for.
    ///
    /// # Errors
    /// `Invalid` for a pattern or schema that is none, `Denied` for a command that is not allowed.
    pub fn check(&self, cx: &StepContext) -> Result<(), StepError> {
        self.regexes()?;
        if let Some(schema) = &self.json_schema {
            Expected::new(schema.clone())?;
        }
        for pattern in self.files().unwrap_or_default() {
            watch::matcher(&pattern)?;
        }
        if let Some(line) = &self.command_ok {
            line.check_allowed(&cx.run.permissions.shell)?;
        }
        Ok(())
    }

    fn files(&self) -> Option<Vec<String>> {
        match self.files_changed.as_ref()? {
            FilesChanged::Any(_) => None,
            FilesChanged::Patterns(all) => Some(all.iter().map(|t| t.0.clone()).collect()),
            FilesChanged::Pattern(one) => Some(vec![one.clone()]),
        }
    }

    fn regexes(&self) -> Result<Vec<Regex>, StepError> {
        let all: Vec<&str> = match &self.text_matches {
            None => Vec::new(),
            Some(Patterns::One(one)) => vec![one],
            Some(Patterns::Many(many)) => many.iter().map(|t| t.0.as_str()).collect(),
        };
        let regex = |text: &str| {
            Regex::new(text).map_err(|error| {
                StepError::invalid(format!("`expect.text_matches` is not a regular expression: {error}"))
            })
        };
        all.into_iter().map(regex).collect()
    }

    /// Looks at the answer and at the workspace.
    ///
    /// # Errors
    /// `Schema` for the first expectation that is not met.
    pub async fn hold(
        &self,
        cx: &StepContext,
        looked: &Looked<'_>,
        before: Option<&Before>,
    ) -> Result<(), StepError> {
        for regex in self.regexes()? {
            if !regex.is_match(looked.text) {
                let message = format!("the answer does not match `{regex}`");
                return Err(unmet("text_matches", message, json!({ "pattern": regex.as_str() })));
            }
        }
        if let Some(schema) = &self.json_schema {
            let json = looked.data.map_or_else(|| looked.text.to_owned(), Value::to_string);
            if let Err(misfit) = Expected::new(schema.clone())?.check(&json) {
                let message = format!("the answer does not fit `expect.json_schema`:\n{}", misfit.list());
                return Err(unmet("json_schema", message, json!({ "violations": misfit.violations })));
            }
        }
        if let Some(before) = before {
            Box::pin(self.hold_files(cx, before)).await?;
        }
        match &self.command_ok {
            Some(line) => Box::pin(line.hold(cx)).await,
            None => Ok(()),
        }
    }

    async fn hold_files(&self, cx: &StepContext, before: &Before) -> Result<(), StepError> {
        let changes = before.changes(cx, self.max_diff_lines.is_some()).await?;
        let details = json!({ "changed": changes.files, "lines": changes.lines });
        let wanted = self.files();
        match (&self.files_changed, &wanted) {
            (Some(FilesChanged::Any(true)), _) if changes.files.is_empty() => {
                return Err(unmet("files_changed", "no file of the workspace has changed", details));
            }
            (Some(FilesChanged::Any(false)), _) if !changes.files.is_empty() => {
                let message = format!("files of the workspace have changed: {}", changes.files.join(", "));
                return Err(unmet("files_changed", message, details));
            }
            (_, Some(patterns)) => {
                for pattern in patterns {
                    let matcher = watch::matcher(pattern)?;
                    if !changes.files.iter().any(|f| matcher.is_match(f)) {
                        let changed = if changes.files.is_empty() {
                            "nothing has".to_owned()
                        } else {
                            format!("what has: {}", changes.files.join(", "))
                        };
                        let message = format!("no file that matches `{pattern}` has changed; {changed}");
                        return Err(unmet("files_changed", message, details));
                    }
                }
            }
            _ => {}
        }
        match self.max_diff_lines.filter(|most| changes.lines > *most) {
            Some(most) => {
                let message = format!("{} lines have changed, and `max_diff_lines` is {most}", changes.lines);
                Err(unmet("max_diff_lines", message, details))
            }
            None => Ok(()),
        }
    }
}

fn unmet(expectation: &str, message: impl Into<String>, mut details: Value) -> StepError {
    details["expectation"] = expectation.into();
    StepError::new(ErrorKind::Schema, message)
        .help(format!(
            "see what was done, or change `expect.{expectation}`; `retry.on: [schema]` tries again"
        ))
        .details(details)
}

impl Line {
    fn shown(&self) -> String {
        match self {
            Self::Words(words) => words.iter().map(|w| w.0.as_str()).collect::<Vec<_>>().join(" "),
            Self::Text(text) => text.clone(),
        }
    }

    /// Whether `permissions.shell` has it: `*`, a prefix of its words, or for a line with signs of the shell the whole line.
    fn check_allowed(&self, allowed: &[String]) -> Result<(), StepError> {
        let shown = self.shown();
        let is_plain = match self {
            Self::Words(_) => true,
            Self::Text(text) => {
                !text.contains([';', '&', '|', '`', '$', '<', '>', '(', ')', '{', '}', '\n', '\\'])
            }
        };
        let words: Vec<&str> = match self {
            Self::Words(words) => words.iter().map(|w| w.0.as_str()).collect(),
            Self::Text(text) => text.split_whitespace().collect(),
        };
        let allows = |rule: &String| {
            let prefix: Vec<&str> = rule.split_whitespace().collect();
            rule == "*" || *rule == shown || is_plain && !prefix.is_empty() && words.starts_with(&prefix)
        };
        if allowed.iter().any(allows) {
            return Ok(());
        }
        Err(StepError::new(ErrorKind::Denied, format!("`expect.command_ok` may not run `{shown}`"))
            .help("allow it with `permissions: {shell: [\"…\"]}` or `--allow-shell`"))
    }

    async fn hold(&self, cx: &StepContext) -> Result<(), StepError> {
        let mut command = match self {
            Self::Words(words) => match words.split_first() {
                Some((program, args)) => cx.command(&program.0, args.iter().map(|a| &a.0)),
                None => return Err(StepError::invalid("`expect.command_ok` is empty")),
            },
            Self::Text(text) => cx.command("/bin/sh", ["-c", text.as_str()]),
        };
        command.cwd = Some(cx.workspace.clone());
        let shown = self.shown();
        let work = async {
            // Nothing else may have needed it yet.
            tokio::fs::create_dir_all(&cx.workspace).await.map_err(|error| {
                let message = format!("cannot make `{}`: {error}", cx.workspace.display());
                StepError::new(ErrorKind::Environment, message)
            })?;
            let done = command.run(b"", OUTPUT, cx.deadline).await?;
            let text = |bytes: &[u8]| {
                let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
                let skipped = text.chars().count().saturating_sub(SHOWN);
                text.chars().skip(skipped).collect::<String>()
            };
            Ok(json!({
                "ok": done.status.success(), "exit_code": done.status.code(),
                "stdout": text(&done.stdout), "stderr": text(&done.stderr),
            }))
        };
        let done = cx.effect("expect", &json!({ "command": shown }), work).await?.into_json();
        if done["ok"] == true {
            return Ok(());
        }
        let said = ["stderr", "stdout"].iter().find_map(|s| done[s].as_str().filter(|t| !t.is_empty()));
        let how = done["exit_code"]
            .as_i64()
            .map_or("by a signal".to_owned(), |code| format!("with exit code {code}"));
        let message = format!("`{shown}` ended {how}{}", said.map_or(String::new(), |s| format!(":\n{s}")));
        Err(unmet("command_ok", message, done))
    }
}
