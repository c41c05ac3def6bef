//! Tools that are commands.
//!
//! Owns [`Shell`], which runs what `permissions.shell` allows, and [`Custom`], a command that the workflow declares under `tools`.
//! Must not know the registry.

use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::process::{Command, Finished};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::Value;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::decode::{decode, spec};
use crate::written::{CommandTool, Secrets, seconds};

/// Bytes that are kept of each stream.
const MOST: usize = 256 << 10;

/// How long a declared command may take unless it says so.
const USUAL: Duration = Duration::from_secs(60);

/// Runs a command in the step's workspace.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shell;

/// A command that the workflow declares.
pub(crate) struct Custom {
    name: String,
    written: CommandTool,
    secrets: Secrets,
}

#[derive(Deserialize)]
struct Words {
    command: Vec<String>,
    #[serde(default)]
    input: String,
}

#[async_trait]
impl Tool for Shell {
    fn spec(&self) -> ToolSpec {
        let properties = json!({
            "command": {
                "type": "array", "items": {"type": "string"}, "minItems": 1,
                "description": "Program and arguments; there is no shell around them",
            },
            "input": {"type": "string", "description": "What it reads on standard input"},
        });
        spec(
            "shell",
            "Runs a command in the workspace, if the pipeline's permissions allow it.",
            properties,
            &["command"],
        )
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Words { command, input } = decode("shell", arguments)?;
        let permissions = &cx.run.permissions;
        let Some((program, rest)) = command.split_first().filter(|_| permissions.allows_command(&command))
        else {
            let program = command.first().map_or("", String::as_str);
            let message = format!("`{program}` may not run: `permissions.shell` does not allow it");
            return Err(StepError::new(ErrorKind::Denied, message)
                .help(format!("allow it with `permissions: {{shell: [{program}]}}`"))
                .details(json!({ "command": command, "allowed": permissions.shell })));
        };
        let done = run(cx, program, rest, (*cx.services.child_env).clone(), &input, cx.deadline).await?;
        let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
        let code = done.status.code().unwrap_or(-1);
        let content = format!(
            "exit code {code}\n{stdout}{}",
            if stderr.is_empty() { String::new() } else { format!("\nstderr:\n{stderr}") }
        );
        Ok(ToolOutput {
            content,
            data: json!({ "exit_code": code, "stdout": stdout, "stderr": stderr, "is_cut": done.is_cut }),
        })
    }
}

impl Custom {
    pub(crate) fn new(name: &str, written: &CommandTool, secrets: &Secrets) -> Self {
        Self { name: name.to_owned(), written: written.clone(), secrets: secrets.clone() }
    }
}

#[async_trait]
impl Tool for Custom {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.clone(),
            description: self.written.description.clone(),
            parameters: self.written.parameters.clone(),
        }
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let place = format!("tool `{}`", self.name);
        cx.run.permissions.check_program(&place, &self.written.command)?;
        let mut words = Vec::new();
        for word in &self.written.command {
            words.push(filled(&self.secrets.expand(word, &place)?, &arguments));
        }
        let Some((program, rest)) = words.split_first() else {
            return Err(StepError::invalid(format!("{place} has an empty `command`")));
        };
        let mut env = (*cx.services.child_env).clone();
        env.extend(self.secrets.expand_all(&self.written.env, &place)?);
        let deadline = cx.deadline.min(Instant::now() + seconds(self.written.timeout_seconds, USUAL));
        let done = run(cx, program, rest, env, &arguments.to_string(), deadline).await?;
        let stdout = text(&done.stdout);
        if !done.status.success() {
            let code = done.status.code().unwrap_or(-1);
            let message = format!("{place} failed: `{program}` ended with code {code}");
            return Err(StepError::new(ErrorKind::Refused, message)
                .details(json!({ "exit_code": code, "stdout": stdout, "stderr": text(&done.stderr) })));
        }
        let data = serde_json::from_str(&stdout).unwrap_or_else(|_| Value::from(stdout.trim_end()));
        Ok(ToolOutput { content: stdout, data })
    }
}

/// A word with `{name}` in the place of that argument. It stays one word, whatever the value has in it.
fn filled(word: &str, arguments: &Value) -> String {
    let mut out = word.to_owned();
    for (name, value) in arguments.as_object().into_iter().flatten() {
        let mark = format!("{{{name}}}");
        if out.contains(&mark) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out = out.replace(&mark, &value);
        }
    }
    out
}

async fn run(
    cx: &StepContext,
    program: &str,
    arguments: &[String],
    env: std::collections::BTreeMap<String, String>,
    input: &str,
    deadline: Instant,
) -> Result<Finished, StepError> {
    let cwd = [&cx.workspace, &cx.run.dirs.working].into_iter().find(|dir| dir.is_dir()).cloned();
    let command = Command { cwd, env, ..cx.command(program, arguments) };
    command.run(input.as_bytes(), MOST, deadline).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
