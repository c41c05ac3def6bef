//! A run that outlives its process: `cargo run -p pipeline-checkpoint --example suspend_and_resume`.

use pipeline_checkpoint::FileStore;
use pipeline_core::builder::{StepDef, Workflow};
use pipeline_core::engine::RunControl;
use pipeline_core::fact::RunStatus;
use pipeline_core::runner::Runner;
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let ask = StepDef::approval("ship", "ship it?").with("choices", vec!["yes", "no"]);
    let release = Workflow::new("release").step(ask).output("decision", "steps.ship");

    let runner = Runner::new(FileStore::new(dir.path()));
    let plan = runner.compile(&release)?;
    let report = runner.run("release-7", &plan, Value::Null, RunControl::default()).await?;
    assert_eq!(report.status, RunStatus::Paused);
    drop(runner);

    // Days later, in another process: the id is all that it needs.
    let runner = Runner::new(FileStore::new(dir.path()));
    let report = runner.resume("release-7", RunControl::default().answer("ship", "yes")).await?;
    assert_eq!(report.outputs.json()["decision"], "yes");
    Ok(())
}
