//! Runs that are left to themselves.

use std::time::Duration;

use tokio::time::Instant;

use super::support::Scratch;

const FILE: &str = r#"
workflow:
  name: long
  permissions: {shell: [sleep]}
  steps:
    - {name: asked, type: claude, prompt: "hello"}
    - {name: rest, type: shell, command: [sleep, "0.8"]}
"#;

/// Naive: the run is a child that ends with its terminal, or the command says that it runs before anything is on disk.
#[test]
fn a_detached_run_is_on_disk_when_the_command_ends_and_goes_on_without_it() {
    let scratch = Scratch::new();
    scratch.write("long.yaml", FILE);
    let begun = Instant::now();
    let ended = scratch.run(&["run", "long.yaml", "--mock", "--detach", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["schema"], "pipeline.detached/1");
    let id = document["run_id"].as_str().unwrap().to_owned();
    let status = || scratch.run(&["runs", "show", &id, "--json"]).json()["status"].clone();
    let first = status();
    #[cfg(target_os = "linux")]
    if first == "running" {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", document["pid"])).unwrap();
        // After the name: state, parent, process group.
        let group = stat[stat.rfind(')').unwrap()..].split(' ').nth(3);
        assert_eq!(group, Some(&*document["pid"].to_string()), "it leads its process group: {stat}");
    }
    while status() == "running" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((status(), first), ("ok".into(), "running".into()));
    let log = scratch.run_dir().join("detached.log");
    assert!(std::fs::read_to_string(log).unwrap().contains("rest"), "what it told is with the run");
    let removed = scratch.run(&["runs", "rm", &id]);
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    assert!(!scratch.path().join(".pipeline/runs").join(&id).exists());
}

/// Naive: what fails after the process was started fails unseen.
#[test]
fn a_detached_run_that_does_not_begin_fails_like_one_that_is_not_detached() {
    let scratch = Scratch::new();
    scratch.write("long.yaml", FILE);
    scratch.write("taken/tape/other", "something else");
    let attached = scratch.run(&["run", "long.yaml", "--mock", "--record", "taken/tape/other"]);
    let detached = scratch.run(&["run", "long.yaml", "--mock", "--record", "taken/tape/other", "--detach"]);
    assert!(matches!(attached.code, Some(code) if code != 0), "{}", attached.stderr);
    assert_eq!((detached.code, &detached.stderr), (attached.code, &attached.stderr));
    let state = scratch.path().join(".pipeline");
    let left = std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("detached")).collect();
    assert!(left.is_empty(), "{left:?}");
    let taken = scratch.run(&["run", "-", "--mock", "--detach"]);
    assert_eq!(taken.code, Some(2), "{}", taken.stderr);
}
