//! A tool that cannot hurt its caller.
//!
//! Owns [`Checked`]: arguments are checked before the tool sees them, hooks are asked before and told after, a call ends at its
//! deadline, what it hands back has a limit, and a panic of the tool becomes an error. Must not know where tools are kept.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use jsonschema::Validator;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::Value;
use serde_json::json;

use crate::hook::Hooks;

/// Violations that one message tells.
const TOLD: usize = 5;

/// Characters of one violation: some repeat the whole value.
const LONGEST: usize = 300;

/// Bytes that a call may hand back as text; what is over is cut off, and the text says so.
const MOST_TEXT: usize = 1 << 20;

/// Bytes of JSON that a call may hand back for programs. Half a value is none: what is over is an error.
const MOST_DATA: usize = 8 << 20;

/// A tool behind its schema.
pub(crate) struct Checked {
    tool: Arc<dyn Tool>,
    hooks: Arc<Hooks>,
    spec: ToolSpec,
    /// The compiled schema; or why it is none, which every call then tells.
    validator: Result<Validator, String>,
}

impl Checked {
    /// Wraps `tool`, whose spec is asked for once, here.
    pub(crate) fn new(tool: Arc<dyn Tool>, hooks: Arc<Hooks>) -> Self {
        let spec = tool.spec();
        let validator = jsonschema::validator_for(&spec.parameters).map_err(|e| e.to_string());
        Self { tool, hooks, spec, validator }
    }

    /// What is known of the tool, without calling into it.
    pub(crate) fn known(&self) -> &ToolSpec {
        &self.spec
    }

    fn check(&self, arguments: &Value) -> Result<(), StepError> {
        let name = &self.spec.name;
        let validator = self.validator.as_ref().map_err(|reason| {
            let message =
                format!("tool `{name}` cannot be called: its schema is not a JSON Schema ({reason})");
            StepError::invalid(message).help("correct the `parameters` that the tool declares")
        })?;
        let violations: Vec<(String, String)> = validator
            .iter_errors(arguments)
            .take(TOLD)
            .map(|e| (e.instance_path().to_string(), e.to_string().chars().take(LONGEST).collect()))
            .collect();
        if violations.is_empty() {
            return Ok(());
        }
        let sentences: Vec<String> = violations
            .iter()
            .map(
                |(path, message)| {
                    if path.is_empty() { message.clone() } else { format!("at `{path}`: {message}") }
                },
            )
            .collect();
        let details: Vec<Value> =
            violations.iter().map(|(path, message)| json!({ "path": path, "message": message })).collect();
        let message =
            format!("the arguments of tool `{name}` do not fit its schema: {}", sentences.join("; "));
        Err(StepError::invalid(message)
            .help("call it again with arguments that fit its `parameters`")
            .details(json!({ "tool": name, "violations": details })))
    }
}

#[async_trait]
impl Tool for Checked {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let name = &self.spec.name;
        cx.run.permissions.check_tool(name)?;
        self.check(&arguments)?;
        let deadline = cx.deadline;
        let result = match tokio::time::timeout_at(deadline, self.guarded(arguments, cx)).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("tool `{name}` did not end before the step's deadline");
                Err(StepError::new(ErrorKind::TimedOut, message)
                    .help("give the step a longer `timeout`, or see why it hangs"))
            }
        };
        result.and_then(|output| limited(name, output))
    }
}

impl Checked {
    async fn guarded(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let name = &self.spec.name;
        self.hooks.before(name, &arguments, cx).await?;
        if self.hooks.is_empty() {
            return self.unguarded(arguments, cx).await;
        }
        let result = self.unguarded(arguments.clone(), cx).await;
        self.hooks.after(name, &arguments, &result, cx).await?;
        result
    }

    async fn unguarded(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        // In a block of its own, so that a panic before the first await is caught too. What the tool left half done stays
        // with the tool: nothing of ours is shared with it but `cx`, whose ports keep their locks for no longer than a line.
        let call = async { self.tool.call(arguments, cx).await };
        AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|panic| {
            let message = format!("tool `{}` panicked: {}", self.spec.name, words(&*panic));
            Err(StepError::new(ErrorKind::Panicked, message).help("this is a fault of the tool's code"))
        })
    }
}

/// A result within its limits.
fn limited(name: &str, mut output: ToolOutput) -> Result<ToolOutput, StepError> {
    if output.content.len() > MOST_TEXT {
        let end = (0..=MOST_TEXT).rev().find(|at| output.content.is_char_boundary(*at)).unwrap_or(0);
        let left = output.content.len() - end;
        output.content.truncate(end);
        output.content.push_str(&format!("\n[cut off: {left} more bytes]"));
    }
    let mut counted = Counted(0);
    // Counting fails only where the value is too large.
    if serde_json::to_writer(&mut counted, &output.data).is_err() {
        let message = format!("tool `{name}` handed back more than {} MiB", MOST_DATA >> 20);
        return Err(StepError::new(ErrorKind::TooLarge, message).help("ask it for less at a time"));
    }
    Ok(output)
}

/// Counts bytes and stops at the limit.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        if self.0 > MOST_DATA { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it gave no reason")
}
