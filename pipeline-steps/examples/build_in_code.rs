//! A pipeline without YAML, checked as a file would be: `cargo run -p pipeline-steps --example build_in_code`.

use std::sync::Arc;

use pipeline_core::builder::{Input, StepDef, Workflow};
use pipeline_core::engine::RunControl;
use pipeline_core::plan::InputKind;
use pipeline_core::runner::Runner;
use serde_json::json;

fn greetings(person: &str) -> Workflow {
    let greet = StepDef::new("greet", "test_echo").with("value", format!("hello {{{{ {person} }}}}"));
    Workflow::new("greetings")
        .input("people", Input::new(InputKind::Array))
        .step(StepDef::for_each("each", "inputs.people", [greet]).at_once(4))
        .output("greetings", "steps.each.results")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runner = Runner::default().steps(pipeline_steps::builtin(Arc::default()))?;

    let plan = runner.compile(&greetings("loop.item"))?;
    let inputs = json!({ "people": ["Ada", "Alan"] });
    let report = runner.run("greetings-1", &plan, inputs, RunControl::default()).await?;
    assert_eq!(report.outputs.json()["greetings"], json!(["hello Ada", "hello Alan"]));

    // A mistake is found before anything runs, at its place in the builder.
    let mistake = runner.compile(&greetings("loop.itme")).err().map(|f| f.to_string()).unwrap_or_default();
    assert!(mistake.starts_with("workflow.steps[0:each].steps[0:greet].value: error[E02"), "{mistake}");
    Ok(())
}
