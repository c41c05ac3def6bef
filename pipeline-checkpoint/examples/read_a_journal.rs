//! What a run left on disk: `cargo run -p pipeline-checkpoint --example read_a_journal -- .pipeline`.

#![allow(clippy::print_stdout, reason = "a program that shows something")]

use pipeline_checkpoint::FileStore;
use pipeline_core::fact::Fact;
use pipeline_core::store::CheckpointStore;

/// Prints the newest run of a state directory, and tells how many facts it has.
async fn tell(state_dir: &str) -> Result<usize, Box<dyn std::error::Error>> {
    let store = FileStore::new(state_dir);
    let Some(run) = store.latest().await? else { return Ok(0) };
    let stored = store.read(&run).await?;
    println!("{} began at {}", stored.manifest.workflow, stored.manifest.created_at);
    for record in &stored.records {
        match &record.fact {
            Fact::AttemptEnded { path, end, .. } => println!("{} {path}: {}", record.at, end.status.name()),
            other => println!("{} {}", record.at, serde_json::to_string(other)?),
        }
    }
    Ok(stored.records.len())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".pipeline".to_owned());
    println!("{} facts", tell(&dir).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::tell;
    use pipeline_checkpoint::FileStore;
    use pipeline_core::builder::{StepDef, Workflow};
    use pipeline_core::engine::RunControl;
    use pipeline_core::runner::Runner;

    #[tokio::test]
    async fn it_reads_what_a_runner_wrote() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let runner = Runner::new(FileStore::new(dir.path()));
        let plan = runner.compile(&Workflow::new("asks").step(StepDef::approval("ask", "well?")))?;
        runner.run("asks-1", &plan, serde_json::Value::Null, RunControl::default()).await?;
        assert!(tell(&dir.path().display().to_string()).await? >= 2, "it began and paused");
        Ok(())
    }
}
