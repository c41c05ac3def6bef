//! Watching a run: `cargo run -p pipeline-steps --example subscribe_to_events`.

use std::sync::{Arc, mpsc};

use pipeline_core::builder::{StepDef, Workflow};
use pipeline_core::engine::RunControl;
use pipeline_core::event::Event;
use pipeline_core::fact::Fact;
use pipeline_core::runner::Runner;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runner = Runner::default().steps(pipeline_steps::builtin(Arc::default()))?;
    let workflow = Workflow::new("watched")
        .step(StepDef::new("first", "test_echo"))
        .step(StepDef::new("second", "test_echo").with("value", "{{ steps.first }}"));
    let plan = runner.compile(&workflow)?;

    // The observer has a queue and a thread of its own: whatever it does, the run goes on.
    let (tell, told) = mpsc::channel();
    let control = RunControl::default().watch(move |event: &Event| {
        if let Event::Fact(record) = event
            && let Fact::AttemptEnded { path, end, .. } = &record.fact
        {
            let _ = tell.send(format!("{path}: {}", end.status.name()));
        }
    });
    runner.run("watched-1", &plan, serde_json::Value::Null, control).await?;
    assert_eq!(told.iter().collect::<Vec<_>>(), ["first: ok", "second: ok"]);
    Ok(())
}
