//! Runs of a program of one's own, kept in either store: what a runner suspended, another one goes on with.

use pipeline_checkpoint::{FileStore, MemoryStore};
use pipeline_core::builder::{Input, StepDef, Workflow};
use pipeline_core::engine::RunControl;
use pipeline_core::fact::RunStatus;
use pipeline_core::plan::InputKind;
use pipeline_core::runner::{Runner, RunnerError};
use pipeline_core::store::CheckpointStore;
use serde_json::json;

/// Asks twice; knows its input and both answers at the end.
fn asks_twice() -> Workflow {
    let ask = |name: &str| StepDef::approval(name, "which?").with("choices", vec!["a", "b"]);
    Workflow::new("asks")
        .input("who", Input::new(InputKind::String))
        .step(ask("first"))
        .step(ask("second"))
        .output("all", "{{ inputs.who }}{{ steps.first }}{{ steps.second }}")
}

async fn suspended_and_resumed<S: CheckpointStore + 'static>(store: impl Fn() -> S) {
    let runner = Runner::new(store());
    let plan = runner.compile(&asks_twice()).unwrap();
    let report = runner.run("r1", &plan, json!({ "who": "x" }), RunControl::default()).await.unwrap();
    assert_eq!(report.status, RunStatus::Paused);
    let again = runner.run("r1", &plan, json!({ "who": "y" }), RunControl::default()).await;
    assert!(again.is_err(), "an id names one run");

    let runner = Runner::new(store());
    let refused = runner.resume("r1", RunControl::default().answer("first", "c")).await;
    assert!(matches!(refused, Err(RunnerError::Engine(_))), "an answer that is no choice");
    let report = runner.resume("r1", RunControl::default().answer("first", "a")).await.unwrap();
    assert_eq!(report.status, RunStatus::Paused);
    assert!(report.steps["first"].reused || report.steps["first"].status.is_some());

    let report =
        Runner::new(store()).resume("r1", RunControl::default().answer("second", "b")).await.unwrap();
    assert_eq!((report.status, report.outputs.json()["all"].as_str()), (RunStatus::Ok, Some("xab")));
    let ended = Runner::new(store()).resume("r1", RunControl::default()).await.unwrap();
    assert_eq!(ended.outputs, report.outputs, "a run that has ended is told as it ended");
}

#[tokio::test]
async fn a_run_of_code_is_suspended_and_resumed_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    suspended_and_resumed(|| FileStore::new(dir.path())).await;
}

#[tokio::test]
async fn a_run_of_code_is_suspended_and_resumed_in_memory() {
    let store = MemoryStore::default();
    suspended_and_resumed(|| store.clone()).await;
}
