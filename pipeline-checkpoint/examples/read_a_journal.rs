//! What a run left on disk: `cargo run -p pipeline-checkpoint --example read_a_journal`.

use pipeline_checkpoint::FileStore;
use pipeline_core::builder::{StepDef, Workflow};
use pipeline_core::engine::RunControl;
use pipeline_core::runner::Runner;
use pipeline_core::store::CheckpointStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let runner = Runner::new(FileStore::new(dir.path()));
    let plan = runner.compile(&Workflow::new("asks").step(StepDef::approval("ask", "well?")))?;
    runner.run("asks-1", &plan, serde_json::Value::Null, RunControl::default()).await?;

    // `.pipeline`, where the program `pipeline` keeps its runs, is read in the same way.
    let store = FileStore::new(dir.path());
    let newest = store.latest().await?.ok_or("there is a run")?;
    let stored = store.read(&newest).await?;
    let facts: Vec<String> =
        stored.records.iter().map(|record| serde_json::to_string(&record.fact)).collect::<Result<_, _>>()?;
    assert!(facts[0].contains("RunStarted") && facts[facts.len() - 1].contains("RunPaused"), "{facts:#?}");
    Ok(())
}
