//! A step type of one's own, in a pipeline: `cargo run -p pipeline-core --example define_a_step`.

use async_trait::async_trait;
use pipeline_core::engine::RunControl;
use pipeline_core::error::StepError;
use pipeline_core::runner::Runner;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::Data;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Config {
    text: String,
}

struct Shout;

#[async_trait]
impl Step for Shout {
    fn spec(&self) -> StepSpec {
        StepSpec::of::<Config>("shout", "Says it loudly.")
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with)?;
        Ok(StepOutput::ok(config.text.to_uppercase().into()))
    }
}

const PIPELINE: &str = r#"
workflow: { name: greet, steps: [{ name: loud, type: shout, text: "hello {{ inputs.name }}" }] }
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runner = Runner::default().step(Shout)?;
    let plan = runner.compile_text("greet.yaml", PIPELINE)?;
    let inputs = serde_json::json!({ "name": "you" });
    let report = runner.run("greet-1", &plan, inputs, RunControl::default()).await?;
    assert_eq!(report.outputs.json()["loud"], "HELLO YOU");
    Ok(())
}
