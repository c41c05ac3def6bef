//! `checkpoint`, through the compiler.

use pipeline_core::error::ErrorKind;
use serde_json::json;

use crate::plain::support::World;

#[tokio::test]
async fn what_one_run_saved_another_has_as_variables() {
    let world = World::new();
    let save = "- {name: v, type: set_variable, variables: {n: 4, list: [a]}}\n- {name: half, type: checkpoint, state: '{{ state }}'}";
    assert_eq!(world.value(save).await, json!({"name": "half"}));
    let load = "- {name: l, type: checkpoint, action: load, checkpoint_name: half, state: {n: 0, list: []}}\n- {name: e, type: test_echo, value: [\"{{ state.n + 1 }}\", \"{{ state.list }}\"]}";
    assert_eq!(world.value(load).await, json!([5, ["a"]]));
    let all = "- {name: v, type: set_variable, variables: {k: 1}}\n- {name: c, type: checkpoint, checkpoint_name: whole}";
    world.value(all).await;
    assert_eq!(world.snapshots.0.lock()["whole"], json!({"state": {"k": 1}}));
}

#[tokio::test]
async fn a_missing_snapshot_fails_or_gives_the_values_that_stand_there() {
    let world = World::new();
    let error = world.error("- {name: l, type: checkpoint, action: load, checkpoint_name: none}").await;
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Environment, "there is no checkpoint `none`")
    );
    let load = "- {name: l, type: checkpoint, action: load, checkpoint_name: none, on_not_found: continue, state: {n: 7}}\n- {name: e, type: test_echo, value: \"{{ [state.n, steps.l.found] }}\"}";
    assert_eq!(world.value(load).await, json!([7, false]));
}

#[tokio::test]
async fn a_workspace_is_saved_and_comes_back_packed_or_not() {
    for compress in [false, true] {
        let world = World::new();
        world.file("workspace/a.txt", "old");
        world.file("workspace/deep/b.bin", "\u{1}\u{2}");
        std::os::unix::fs::symlink("/etc/passwd", world.home.path().join("work/workspace/link")).unwrap();
        let save = format!(
            "- {{name: c, type: checkpoint, state: {{x: 1}}, include_workspace: true, compress: {compress}}}"
        );
        assert_eq!(world.value(&save).await, json!({"name": "c", "files": 2}), "the link stays out");
        assert_eq!(world.snapshots.0.lock()["c"].get("packed").is_some(), compress);
        world.file("workspace/a.txt", "new");
        std::fs::remove_dir_all(world.home.path().join("work/workspace/deep")).unwrap();
        let load = "- {name: c, type: checkpoint, action: load, include_workspace: true}";
        assert_eq!(world.value(load).await["files"], 2);
        assert_eq!(world.read("workspace/a.txt").as_deref(), Some("old"));
        assert_eq!(world.read("workspace/deep/b.bin").as_deref(), Some("\u{1}\u{2}"));
    }
}

#[tokio::test]
async fn a_damaged_snapshot_and_one_without_files_are_told() {
    let world = World::new();
    world.snapshots.0.lock().insert("c".to_owned(), json!({"packed": "!!"}));
    let error = world.error("- {name: c, type: checkpoint, action: load}").await;
    assert!(error.message.starts_with("the checkpoint `c` cannot be read"), "{}", error.message);
    world.snapshots.0.lock().insert("c".to_owned(), json!({"state": {}}));
    let error = world.error("- {name: c, type: checkpoint, action: load, include_workspace: true}").await;
    assert!(error.message.contains("has no files"), "{}", error.message);
}
