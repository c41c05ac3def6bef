//! Values that are too large for the journal: where they are, who may read them, and when they go.

use std::path::{Path, PathBuf};

use super::support::{Scratch, finish};

const FILE: &str = "\
workflow:
  name: w
  inputs: {text: {type: string}}
  steps:
    - {name: big, type: test_echo, value: '{{ inputs.text ~ inputs.text }}'}
    - {name: wait, type: approval, message: well}
    - {name: later, type: test_echo, value: '{{ [steps.big | length, steps.big[-3:]] }}'}
  outputs: {later: steps.later, big: steps.big}
";

/// Every file below a folder, with its length.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(about) = entry.metadata() {
            found.push((path, about.len()));
        }
    }
    found
}

/// Naive: large results go to a shared temporary directory under names that anybody can guess; nobody removes them, and a
/// later process has only the reference.
/// Figure: a value of 400 kB, read by two later processes.
#[test]
fn x15_a_large_value_lives_in_its_run_is_read_after_a_resume_and_goes_with_it() {
    let scratch = Scratch::new();
    let temporary = scratch.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    scratch.write("w.yaml", FILE);
    let text = "0123456789".repeat(20_000);
    scratch.write("text.txt", &text);
    let run = |arguments: &[&str]| {
        finish(
            scratch
                .command(arguments)
                .env("TMPDIR", &temporary)
                .env("PIPELINE_KEEP_DAYS", "0")
                .spawn()
                .unwrap(),
        )
    };
    let paused = run(&["run", "w.yaml", "--mock", "--run-id", "one", "-i", "text=@text.txt"]);
    assert_eq!(paused.code, Some(4), "{}", paused.stderr);
    let state = scratch.path().join(".pipeline");
    let of_run = state.join("runs/one");
    let large =
        |folder: &Path| files(folder).into_iter().filter(|(_, length)| *length > 300_000).collect::<Vec<_>>();
    assert_eq!(large(&state).len(), 1, "it is stored once: {:?}", large(&state));
    assert_eq!(large(&of_run), large(&state), "and in its run");
    assert_eq!(files(&temporary), [], "nothing is in the directory that all share");
    #[cfg(unix)]
    for (path, _) in files(&of_run.join("blobs")) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for its owner only: {mode:o}", path.display());
    }

    let resumed = run(&["resume", "one", "--answer", "wait=true", "--json"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(resumed.json()["outputs"]["later"], serde_json::json!([400_000, "789"]));
    let shown = run(&["runs", "show", "one", "--json"]).json();
    assert_eq!(shown["outputs"]["big"].as_str().map(str::len), Some(400_000), "a later process reads it");

    // The retention policy removes the run and what belongs to it.
    scratch.write("small.yaml", "workflow: {name: s, steps: [{name: a, type: test_echo}]}");
    let mut command = scratch.command(&["run", "small.yaml", "--mock", "--run-id", "two"]);
    command.env("PIPELINE_KEEP_DAYS", "0").env("PIPELINE_KEEP_RUNS", "1");
    let next = finish(command.spawn().unwrap());
    assert_eq!(next.code, Some(0), "{}", next.stderr);
    assert!(!of_run.exists(), "{}", next.stderr);
    assert_eq!(large(&state), []);
}
