//! Hooks around tool calls.
//!
//! Owns [`Hooks`]: those that are built in (`log_tool_use`, `validate_bash`, `audit_tool`) and commands of the user. One that
//! refuses makes the call `Denied`; a name that no hook has is refused when the registry is put together, for a misspelled guard
//! guards nothing. Must not know any tool.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::process::Command;
use pipeline_core::step::StepContext;
use pipeline_core::tool::ToolOutput;
use pipeline_core::value::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::written::{Matcher, Words, WrittenHook, seconds};

/// How long a hook may take unless it says so.
const USUAL: Duration = Duration::from_secs(60);

/// Bytes that are kept of what a hook prints.
const MOST: usize = 64 << 10;

/// The file that `audit_tool` writes, in the run's directory.
const AUDIT: &str = "audit.jsonl";

/// What `validate_bash` refuses in a command, after spaces were made one.
const FORBIDDEN: [&str; 3] = ["rm -rf", "sudo", "chmod 777"];

/// Exit code with which a command refuses a call.
const REFUSES: i32 = 2;

/// What is asked before and told after each call.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    before: Vec<(Pattern, Hook)>,
    after: Vec<(Pattern, Hook)>,
}

#[derive(Debug)]
enum Hook {
    LogToolUse,
    ValidateBash,
    AuditTool,
    Command { words: Vec<String>, timeout: Duration },
}

/// Which tools a hook is for.
#[derive(Debug)]
struct Pattern(Vec<String>);

impl Pattern {
    fn matches(&self, tool: &str) -> bool {
        self.0.iter().any(|one| match one.strip_suffix('*') {
            Some(prefix) => tool.starts_with(prefix),
            // The agents' name of the shell is what people write.
            None => one == tool || (one == "Bash" && tool == "shell"),
        })
    }
}

impl Hooks {
    /// Reads the hooks of a workflow. Events that are an agent's own are left to the agent.
    pub(crate) fn new(written: &std::collections::BTreeMap<String, Vec<Matcher>>) -> Result<Self, String> {
        let mut hooks = Self::default();
        for (event, matchers) in written {
            let plain = event.replace('_', "").to_ascii_lowercase();
            let list = match plain.as_str() {
                "pretooluse" => &mut hooks.before,
                "posttooluse" => &mut hooks.after,
                _ => continue,
            };
            for matcher in matchers {
                for hook in &matcher.hooks {
                    let names = matcher.matcher.as_deref().unwrap_or("*").split('|');
                    let pattern = Pattern(names.map(|name| name.trim().to_owned()).collect());
                    list.push((pattern, Hook::read(hook).map_err(|why| format!("`hooks.{event}`: {why}"))?));
                }
            }
        }
        Ok(hooks)
    }

    /// Whether nobody is asked or told anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// Asks the hooks for this tool, in order.
    pub(crate) async fn before(
        &self,
        tool: &str,
        arguments: &Value,
        cx: &StepContext,
    ) -> Result<(), StepError> {
        for (pattern, hook) in &self.before {
            if pattern.matches(tool) {
                let call =
                    json!({ "hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": arguments });
                hook.ask(tool, &call, cx).await?;
            }
        }
        Ok(())
    }

    /// Tells the hooks for this tool what came of the call, in order. One that refuses keeps the result back.
    pub(crate) async fn after(
        &self,
        tool: &str,
        arguments: &Value,
        result: &Result<ToolOutput, StepError>,
        cx: &StepContext,
    ) -> Result<(), StepError> {
        for (pattern, hook) in &self.after {
            if pattern.matches(tool) {
                let told = match result {
                    Ok(output) => json!({ "content": output.content, "data": output.data }),
                    Err(error) => json!({ "error": error }),
                };
                let call = json!({
                    "hook_event_name": "PostToolUse", "tool_name": tool, "tool_input": arguments, "tool_response": told,
                });
                hook.ask(tool, &call, cx).await?;
            }
        }
        Ok(())
    }
}

impl Hook {
    fn read(written: &WrittenHook) -> Result<Self, String> {
        let (words, timeout) = match written {
            WrittenHook::Named(name) => {
                return match name.replace('-', "_").as_str() {
                    "log_tool_use" => Ok(Self::LogToolUse),
                    "validate_bash" => Ok(Self::ValidateBash),
                    "audit_tool" => Ok(Self::AuditTool),
                    _ => Err(format!(
                        "there is no hook `{name}`; there are log_tool_use, validate_bash, audit_tool, and {{command: …}}"
                    )),
                };
            }
            WrittenHook::Command(command) => (&command.command, command.timeout),
        };
        let words = match words {
            Words::Script(script) => ["sh", "-c", script].map(str::to_owned).to_vec(),
            Words::List(words) if words.is_empty() => return Err("a `command` is empty".to_owned()),
            Words::List(words) => words.clone(),
        };
        Ok(Self::Command { words, timeout: seconds(timeout, USUAL) })
    }

    async fn ask(&self, tool: &str, call: &Value, cx: &StepContext) -> Result<(), StepError> {
        match self {
            Self::LogToolUse => {
                let event = call["hook_event_name"].as_str().unwrap_or_default();
                cx.progress.note(&format!("{event} {tool}"));
                Ok(())
            }
            Self::ValidateBash => validate(tool, &call["tool_input"]),
            Self::AuditTool => audit(call, cx),
            Self::Command { words, timeout } => command(words, *timeout, tool, call, cx).await,
        }
    }
}

/// Refuses commands that destroy or take power, wherever the word stands.
fn validate(tool: &str, input: &Value) -> Result<(), StepError> {
    let command = match &input["command"] {
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => return Ok(()),
    };
    let plain = command.split_whitespace().collect::<Vec<_>>().join(" ");
    match FORBIDDEN.iter().find(|word| plain.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(denied("validate_bash", tool, &format!("the command has `{word}` in it"))),
    }
}

/// Adds a line to the run's audit file. What cannot be audited does not happen.
fn audit(call: &Value, cx: &StepContext) -> Result<(), StepError> {
    let path = cx.run.dirs.run.join(AUDIT);
    let mut line = json!({ "step": cx.key.path.as_str(), "attempt": cx.attempt, "call": call }).to_string();
    line.push('\n');
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
    written.map_err(|error| {
        StepError::new(
            ErrorKind::Environment,
            format!("the audit file {} cannot be written: {error}", path.display()),
        )
    })
}

async fn command(
    words: &[String],
    timeout: Duration,
    tool: &str,
    call: &Value,
    cx: &StepContext,
) -> Result<(), StepError> {
    let Some((program, rest)) = words.split_first() else { return Ok(()) };
    cx.run.permissions.check_program("a hook", words)?;
    let cwd = Some(cx.run.dirs.working.clone()).filter(|dir| dir.is_dir());
    let child = Command { cwd, ..cx.command(program, rest) };
    let deadline = cx.deadline.min(Instant::now() + timeout);
    let done = child.run(call.to_string().as_bytes(), MOST, deadline).await?;
    let stderr = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    match done.status.code() {
        Some(0) => {
            let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
            let decision = said["decision"].as_str().or_else(|| said["permissionDecision"].as_str());
            if matches!(decision, Some("block" | "deny")) {
                return Err(denied(program, tool, said["reason"].as_str().unwrap_or("it gave no reason")));
            }
            Ok(())
        }
        Some(REFUSES) => {
            Err(denied(program, tool, if stderr.is_empty() { "it gave no reason" } else { &stderr }))
        }
        // A guard that is broken does not let anybody through.
        code => {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
            let message =
                format!("the hook `{program}` before or after tool `{tool}` ended with {code}: {stderr}");
            Err(StepError::new(ErrorKind::Environment, message)
                .help("put the hook right; 0 allows, 2 refuses"))
        }
    }
}

fn denied(hook: &str, tool: &str, why: &str) -> StepError {
    StepError::new(ErrorKind::Denied, format!("the hook `{hook}` refuses the call of tool `{tool}`: {why}"))
}
