//! `shell`: runs one command.
//!
//! Owns the step and how its configuration becomes a process; what may run is the run's to say. Values of templates are
//! arguments or variables of the script, never its text: see `expr/script.rs` in pipeline-core. Must not start a process in
//! any other way than by [`pipeline_core::process`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use pipeline_core::document::Node;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::CheckContext;
use pipeline_core::process::{Finished, ended_by};
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::confine::Roots;

/// The shell of a script.
const SHELL: &str = "/bin/sh";

/// Bytes that are kept of each stream when the step does not say.
const MOST_OUTPUT: usize = 1 << 20;

/// Characters of standard error that an error carries.
const TAIL: usize = 2000;

const EXAMPLE: &str = r#"workflow:
  name: count_lines
  permissions: {shell: [sh, printf]}
  steps:
    - name: list
      type: shell
      command: [printf, "%s\n", "{{ workflow.name }}", "a; b"]
    - name: count
      type: shell
      command: wc -l | tr -d ' '
      input: "{{ steps.list.stdout }}"
"#;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// A program and its arguments as a list, or a script for `sh -c` as text. In a list, each template is one argument. In a
    /// script, each `{{ … }}` is read as a variable: one word, whatever signs its value has.
    #[schemars(extend("x-kind" = "script"))]
    command: Written,
    /// Where it runs, from the working directory; the working directory itself when it is left out.
    #[serde(default)]
    cwd: Option<String>,
    /// Further variables of its environment.
    #[serde(default)]
    env: BTreeMap<String, Value>,
    /// What it reads on standard input: text as it is, anything else as JSON.
    #[serde(default)]
    input: Value,
    /// Exit codes that are no failure, beside 0.
    #[serde(default)]
    ok_exit_codes: Vec<i32>,
    /// Bytes that are kept of standard output and of standard error, 1 MiB unless given; the rest is dropped with a warning.
    #[serde(default)]
    #[schemars(range(min = 1, max = 67_108_864))]
    max_output_bytes: Option<usize>,
}

/// A command as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Written {
    List(Vec<Argument>),
    Script(String),
    #[schemars(skip)]
    Rendered(Rendered),
}

/// One argument: text as it is, anything else as JSON.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Argument {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
    #[schemars(skip)]
    Other(Value),
}

/// A script with its values beside it, as the expression language gives it.
#[derive(Debug, Deserialize)]
struct Rendered {
    #[serde(rename = "$script")]
    script: String,
    #[serde(rename = "$values")]
    values: Vec<String>,
}

/// The step type `shell`.
pub(crate) struct Shell;

#[async_trait]
impl Step for Shell {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "shell",
            summary: "Runs a command, if `permissions.shell` allows it.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    fn check(&self, config: &Node, cx: &mut CheckContext<'_>) {
        if let Some(command) = config.get("command") {
            let is_empty = match command.as_text() {
                Some(text) => text.trim().is_empty(),
                None => command.items().is_empty() && command.entries().is_empty(),
            };
            if is_empty {
                let help = "write a script, or a list of a program and its arguments";
                cx.error("E0102", command.span, "the command is empty".to_owned(), help);
            }
        }
    }

    fn fields(&self, _config: &Node) -> Option<Vec<String>> {
        Some(["exit_code", "stdout", "stderr"].map(str::to_owned).to_vec())
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with.clone())?;
        let words = words(&config.command)?;
        allowed(cx, &words)?;
        let done = cx.effect("shell", with.json(), work(cx, &config, &words)).await?.into_json();
        let Done { exit_code, stdout, stderr, warnings } = cx.decode(done)?;
        if exit_code != 0 && !config.ok_exit_codes.contains(&exit_code) {
            return Err(failure(&words, exit_code, &stdout, &stderr));
        }
        let value = json!({ "exit_code": exit_code, "stdout": stdout, "stderr": stderr });
        Ok(StepOutput { file_text: Some(stdout), warnings, ..StepOutput::ok(value) })
    }
}

/// What came of a command, as it is recorded. A command that failed is not run again by a resume: its step is.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    exit_code: i32,
    stdout: String,
    stderr: String,
    warnings: Vec<String>,
}

/// The program and its arguments.
fn words(command: &Written) -> Result<Vec<String>, StepError> {
    let script = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let words = match command {
        Written::List(all) => all
            .iter()
            .map(|argument| match argument {
                Argument::Text(text) => text.clone(),
                Argument::Number(n) => n.to_string(),
                Argument::Bool(value) => value.to_string(),
                Argument::Other(value) => value.to_string(),
            })
            .collect(),
        Written::Script(text) => script(text),
        Written::Rendered(Rendered { script: text, values }) => {
            // One line in front, so that the shell counts lines as the file does.
            let numbers = 1..=values.len();
            let set: Vec<String> = numbers.map(|n| format!("_{n}=${{{n}}}")).collect();
            let front = if set.is_empty() { String::new() } else { format!("{}; set --; ", set.join(" ")) };
            let mut words = script(&format!("{front}{text}"));
            if !values.is_empty() {
                words.push("sh".to_owned());
                words.extend(values.iter().cloned());
            }
            words
        }
    };
    match words.first() {
        None => Err(StepError::invalid("the command is empty").help("name a program")),
        Some(program) if program.trim().is_empty() => {
            Err(StepError::invalid("the program of the command is empty")
                .help("look at what its template gives"))
        }
        Some(_) if words.iter().any(|w| w.contains('\0')) => {
            Err(StepError::invalid("an argument of the command has a NUL, which no program can be given")
                .help("give the value with `input`"))
        }
        Some(_) => Ok(words),
    }
}

fn allowed(cx: &StepContext, words: &[String]) -> Result<(), StepError> {
    if cx.run.permissions.allows_command(words) {
        return Ok(());
    }
    let (what, program) = match words {
        [program, flag, ..] if program == "sh" && flag == "-c" => ("a script", "sh"),
        [program, ..] => ("this command", program.as_str()),
        [] => ("nothing", ""),
    };
    let may = &cx.run.permissions.shell;
    let message = if may.is_empty() {
        format!("`{program}` may not run: this run may run no commands")
    } else {
        format!("`{program}` may not run: this run may run only {}", may.join(", "))
    };
    Err(StepError::new(ErrorKind::Denied, message)
        .help(format!("allow {what} with `permissions: {{shell: [{program}]}}` in the workflow, or all with --allow-shell"))
        .details(json!({ "command": words, "allowed": may })))
}

async fn work(cx: &StepContext, config: &Config, words: &[String]) -> Result<Value, StepError> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| StepError::invalid("the command is empty"))?;
    let program = if program == "sh" && matches!(config.command, Written::Script(_) | Written::Rendered(_)) {
        SHELL
    } else {
        program
    };
    let mut command = cx.command(program, arguments);
    command.cwd = Some(directory(cx, config.cwd.as_deref())?);
    command.env.extend(environment(&config.env)?);
    let input = match &config.input {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let most = config.max_output_bytes.unwrap_or(MOST_OUTPUT);
    let finished = command.run(input.as_bytes(), most, cx.deadline).await?;
    let done = done(finished, most);
    serde_json::to_value(done).map_err(|e| StepError::new(ErrorKind::Internal, e.to_string()))
}

/// The directory of the command, which this run may read.
fn directory(cx: &StepContext, cwd: Option<&str>) -> Result<PathBuf, StepError> {
    let working = &cx.run.dirs.working;
    let Some(cwd) = cwd else { return Ok(working.clone()) };
    let roots = Roots::read(cx);
    let path = Path::new(cwd);
    let (dir, below) = roots.open(path, working)?;
    let meta = dir.metadata(&below).map_err(|error| roots.failure(path, &error))?;
    if !meta.is_dir() {
        return Err(StepError::invalid(format!("`cwd: {cwd}` is not a directory")).help("name a directory"));
    }
    Ok(working.join(path))
}

fn environment(more: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, StepError> {
    let mut all = BTreeMap::new();
    for (name, value) in more {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(StepError::invalid(format!("`{name}` cannot be the name of a variable"))
                .help("use letters, digits and `_`"));
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        if text.contains('\0') {
            return Err(StepError::invalid(format!(
                "the variable `{name}` has a NUL, which no program can be given"
            ))
            .help("give the value with `input`"));
        }
        all.insert(name.clone(), text);
    }
    Ok(all)
}

fn done(finished: Finished, most: usize) -> Done {
    let Finished { status, stdout, stderr, is_cut } = finished;
    let mut warnings = Vec::new();
    if is_cut {
        warnings.push(format!("the output is over {most} bytes; the rest is dropped (`max_output_bytes`)"));
    }
    let mut text = |name: &str, bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            // A cut in the middle of a sign is no fault of the command.
            if !is_cut {
                warnings.push(format!("{name} is not UTF-8; what cannot be read is replaced"));
            }
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }
    };
    let (stdout, stderr) = (text("standard output", stdout), text("standard error", stderr));
    // As shells count: 128 and the number of the signal.
    let exit_code = status.code().or_else(|| Some(128 + ended_by(status)?)).unwrap_or(-1);
    Done { exit_code, stdout, stderr, warnings }
}

fn failure(words: &[String], exit_code: i32, stdout: &str, stderr: &str) -> StepError {
    let program = words.first().map(String::as_str).unwrap_or_default();
    let tail = |text: &str| -> String {
        let skip = text.chars().count().saturating_sub(TAIL);
        text.chars().skip(skip).collect::<String>().trim_end().to_owned()
    };
    let mut message = match exit_code {
        129..=192 => format!("`{program}` was ended by signal {}", exit_code - 128),
        _ => format!("`{program}` ended with exit code {exit_code}"),
    };
    let last = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    if let Some(last) = last {
        message.push_str(": ");
        message.extend(last.chars().take(300));
    }
    let mut details = Map::new();
    details.insert("exit_code".to_owned(), exit_code.into());
    details.insert("stderr".to_owned(), tail(stderr).into());
    details.insert("stdout".to_owned(), tail(stdout).into());
    StepError::invalid(message)
        .help(format!("if that is no failure, list it: `ok_exit_codes: [{exit_code}]`"))
        .details(Value::Object(details))
}
