//! `test_echo`: gives back what it is told, or fails when it is told to.
//!
//! Owns the step that lets a pipeline's control flow be tried without a model. Must not have effects.

use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::error::StepError;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use schemars::JsonSchema;
use serde::Deserialize;

/// The value that makes the step fail.
const FAIL: &str = "__FAIL__";

const EXAMPLE: &str = r#"workflow:
  name: echo
  steps:
    - name: greet
      type: test_echo
      value: {greeting: hello, times: 2}
    - name: repeat
      type: test_echo
      value: "{{ steps.greet.greeting }} again"
"#;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What the step gives, of any type. The text `__FAIL__` makes it fail.
    value: Value,
    /// Makes the step fail.
    fail: bool,
    /// The message of that failure.
    error_message: Option<String>,
    /// How long the step takes, in milliseconds.
    delay_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { value: "default_echo".into(), fail: false, error_message: None, delay_ms: 0 }
    }
}

/// The step type `test_echo`.
pub(crate) struct TestEcho;

#[async_trait]
impl Step for TestEcho {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "test_echo",
            summary: "Gives back its `value`, or fails when told to: for trying out control flow without a model.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with)?;
        if config.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(config.delay_ms)).await;
        }
        if config.fail || config.value == FAIL {
            let message = config.error_message.unwrap_or_else(|| "test_echo was told to fail".to_owned());
            return Err(StepError::invalid(message));
        }
        Ok(StepOutput::ok(config.value))
    }
}
