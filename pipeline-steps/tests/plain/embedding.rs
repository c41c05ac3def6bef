//! The built-in steps in a runner: the directory that it is given is where they read and write, and nothing else is allowed.

use std::sync::Arc;

use pipeline_core::builder::{StepDef, Workflow};
use pipeline_core::engine::RunControl;
use pipeline_core::fact::RunStatus;
use pipeline_core::runner::Runner;
use pipeline_core::value::Value;
use pipeline_steps::OutputFiles;

#[tokio::test]
async fn a_runner_reads_and_writes_in_its_directory_and_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "hello").unwrap();
    let runner = Runner::default()
        .steps(pipeline_steps::builtin(Arc::default()))
        .unwrap()
        .with(|services| services.outputs = Arc::new(OutputFiles))
        .in_directory(dir.path());
    let list = StepDef::new("list", "file_ops").with("operation", "list").with("path", ".");
    let names = StepDef::new("names", "test_echo")
        .with("value", "{{ steps.list.files | map(attribute='path') | join(',') }}")
        .with("output_to_file", "names.txt");
    let plan = runner.compile(&Workflow::new("files").step(list).step(names)).unwrap();
    let report = runner.run("files-1", &plan, Value::Null, RunControl::default()).await.unwrap();
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    assert_eq!(std::fs::read_to_string(dir.path().join("outputs/names.txt")).unwrap(), "a.txt");

    let shell = StepDef::new("ls", "shell").with("command", vec!["ls"]);
    // Where the command is a constant, it is refused before anything runs.
    let refused = match runner.compile(&Workflow::new("shell").step(shell)) {
        Err(findings) => findings.to_string(),
        Ok(plan) => {
            let report = runner.run("shell-1", &plan, Value::Null, RunControl::default()).await.unwrap();
            assert_eq!(report.status, RunStatus::Failed);
            report.error.unwrap().error.message
        }
    };
    assert!(refused.contains("may not run") || refused.contains("permissions.shell"), "{refused}");
}
