//! `set_variable`: names values for later steps.
//!
//! Owns the step; the schedule does the assigning. Must not know how variables are stored or how scopes nest.

use async_trait::async_trait;
use pipeline_core::document::Node;
use pipeline_core::error::StepError;
use pipeline_core::fact::{Assignment, VariableScope};
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;

const EXAMPLE: &str = r#"workflow:
  name: variables
  steps:
    - name: prices
      type: set_variable
      variables:
        net: 40
        gross: "{{ state.net * 1.25 }}"
    - name: show
      type: test_echo
      value: "{{ state.gross }}"
"#;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Names and their values, of any type. They are set in order: a later value may read an earlier name.
    #[schemars(extend("x-kind" = "bindings"))]
    variables: Map<String, Value>,
    /// Where the names live: `global` for the whole pipeline, `session` beyond the run: the next run of the workflow begins with it, `loop` for this turn of the loop,
    /// `local` for this list of steps.
    #[serde(default)]
    scope: VariableScope,
}

/// The step type `set_variable`.
pub(crate) struct SetVariable;

#[async_trait]
impl Step for SetVariable {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "set_variable",
            summary: "Sets variables, keeping the types of their values.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    fn fields(&self, config: &Node) -> Option<Vec<String>> {
        let one = config.get("variable").and_then(Node::as_text).map(str::to_owned);
        let many = config.get("variables").map(Node::entries).unwrap_or_default();
        Some(many.iter().map(|entry| entry.key.clone()).chain(one).collect())
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with)?;
        let scope = config.scope;
        let set = config.variables.iter().map(|(name, value)| Assignment {
            scope,
            name: name.clone(),
            value: Data::new(value.clone()),
        });
        let set = set.collect();
        Ok(StepOutput { set, ..StepOutput::ok(Value::Object(config.variables)) })
    }
}
