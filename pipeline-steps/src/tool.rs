//! `tool`: calls one tool, without a model.
//!
//! Owns the step. Which tools there are, and what each may do, is the registry's. Must not know any tool.

use async_trait::async_trait;
use pipeline_core::error::StepError;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, json};

const EXAMPLE: &str = r#"workflow:
  name: one_tool
  steps:
    - name: price
      type: tool
      tool: calculator
      arguments: {expression: "3 * 19.5"}
    - name: show
      type: test_echo
      value: "{{ steps.price.data }}"
"#;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The tool's name, as `pipeline tools list` shows it.
    tool: String,
    /// Its arguments, as its schema wants them.
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// The step type `tool`.
pub(crate) struct ToolStep;

#[async_trait]
impl Step for ToolStep {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "tool",
            summary: "Calls one registered tool or one tool of an MCP server, without a model.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with.clone())?;
        let name = &config.tool;
        let mut found = cx.services.tools.open(name, cx).await?;
        let Some(tool) = found.pop().filter(|_| found.is_empty()) else {
            let names: Vec<String> = found.iter().map(|tool| tool.spec().name).collect();
            return Err(StepError::invalid(format!(
                "`{name}` stands for several tools, and this step calls one"
            ))
            .help(format!("name one of them, for example {}", names.join(", "))));
        };
        let call = async {
            let output = tool.call(Value::Object(config.arguments.clone()), cx).await?;
            Ok(json!({ "content": output.content, "data": output.data }))
        };
        let value = cx.effect(&format!("tool:{name}"), with.json(), call).await?.into_json();
        let file_text = match &value["data"] {
            Value::Null => value["content"].as_str().map(str::to_owned),
            _ => None,
        };
        Ok(StepOutput { file_text, ..StepOutput::ok(value) })
    }
}
