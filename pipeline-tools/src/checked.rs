//! A tool that cannot hurt its caller.
//!
//! Owns [`Checked`]: arguments are checked before the tool sees them, and a panic of the tool becomes an error. Must not
//! know where tools are kept.

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

/// Violations that one message tells.
const TOLD: usize = 5;

/// Characters of one violation: some repeat the whole value.
const LONGEST: usize = 300;

/// A tool behind its schema.
pub(crate) struct Checked {
    tool: Arc<dyn Tool>,
    spec: ToolSpec,
    /// The compiled schema; or why it is none, which every call then tells.
    validator: Result<Validator, String>,
}

impl Checked {
    /// Wraps `tool`, whose spec is asked for once, here.
    pub(crate) fn new(tool: Arc<dyn Tool>) -> Self {
        let spec = tool.spec();
        let validator = jsonschema::validator_for(&spec.parameters).map_err(|e| e.to_string());
        Self { tool, spec, validator }
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
        self.check(&arguments)?;
        // In a block of its own, so that a panic before the first await is caught too. What the tool left half done stays
        // with the tool: nothing of ours is shared with it but `cx`, whose ports keep their locks for no longer than a line.
        let call = async { self.tool.call(arguments, cx).await };
        AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|panic| {
            let message = format!("tool `{}` panicked: {}", self.spec.name, words(&*panic));
            Err(StepError::new(ErrorKind::Panicked, message).help("this is a fault of the tool's code"))
        })
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
