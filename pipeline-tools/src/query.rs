//! Tools for JSON.
//!
//! Owns [`ParseJson`] and [`Jq`]. A jq program runs where the run's jq host runs it. Must not know the registry.

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::Value;
use serde::Deserialize;
use serde_json::json;

use crate::decode::{decode, spec};

/// Parses JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct ParseJson;

/// Runs a jq program on a value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Jq;

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Query {
    program: String,
    input: Value,
}

#[async_trait]
impl Tool for ParseJson {
    fn spec(&self) -> ToolSpec {
        spec(
            "json",
            "Parses a JSON text and returns its value.",
            json!({"text": {"type": "string"}}),
            &["text"],
        )
    }

    async fn call(&self, arguments: Value, _cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Text { text } = decode("json", arguments)?;
        let data: Value = serde_json::from_str(&text)
            .map_err(|error| StepError::new(ErrorKind::Parse, format!("the text is not JSON: {error}")))?;
        Ok(ToolOutput { content: data.to_string(), data })
    }
}

#[async_trait]
impl Tool for Jq {
    fn spec(&self) -> ToolSpec {
        let properties = json!({
            "program": {"type": "string", "description": "For example .items[] | select(.n > 2) | .name"},
            "input": {"description": "The value that it reads"},
        });
        spec(
            "jq",
            "Runs a jq program on a value and returns its outputs as a list.",
            properties,
            &["program", "input"],
        )
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Query { program, input } = decode("jq", arguments)?;
        let host = cx.services.jq.as_ref().ok_or_else(|| {
            StepError::new(ErrorKind::Unsupported, "this program was put together without jq")
                .help("use a build with the feature `jq`")
        })?;
        let outputs = host.run(&program, &input, cx.deadline).await?;
        let lines: Vec<String> = outputs.iter().map(ToString::to_string).collect();
        Ok(ToolOutput { content: lines.join("\n"), data: Value::Array(outputs) })
    }
}
