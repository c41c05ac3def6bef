//! `file_ops`: (In work.)
use async_trait::async_trait;
use pipeline_core::error::StepError;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::Value;
pub(crate) struct FileOps;
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Config {}
#[async_trait]
impl Step for FileOps {
    fn spec(&self) -> StepSpec {
        StepSpec { kind: "file_ops", summary: "", schema: schemars::schema_for!(Config), example: "" }
    }
    async fn run(&self, cx: &StepContext, with: Value) -> Result<StepOutput, StepError> {
        let _: Config = crate::decode::decode(cx, with)?;
        Ok(StepOutput::ok(Value::Null))
    }
}
