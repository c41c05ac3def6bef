//! `file_ops`: move, delete, wait, stream_process, through the compiler.

use pipeline_core::error::ErrorKind;
use serde_json::json;

use crate::plain::support::World;

fn ops(operation: &str, more: &str) -> String {
    format!("- {{name: f, type: file_ops, operation: {operation}, {more}}}")
}

#[tokio::test]
async fn a_move_takes_files_along_and_their_places_are_empty() {
    let world = World::new();
    for name in ["a.txt", "b.txt", "keep.md"] {
        world.file(&format!("workspace/in/{name}"), name);
    }
    let value = world.value(&ops("move", "source: 'workspace/in/*.txt', destination: workspace/out/")).await;
    assert_eq!(value["count"], 2);
    assert_eq!(
        world.tree("workspace"),
        [
            "workspace/in",
            "workspace/in/keep.md",
            "workspace/out",
            "workspace/out/a.txt",
            "workspace/out/b.txt"
        ]
    );
    assert_eq!(world.read("workspace/out/b.txt").as_deref(), Some("b.txt"));
}

#[tokio::test]
async fn a_move_that_fails_has_changed_nothing() {
    let world = World::new();
    world.file("workspace/a.txt", "a");
    world.file("workspace/b.txt", "b");
    world.file("workspace/out/b.txt/child", "a directory is in the way");
    let error = world
        .error(&ops("move", "source: [workspace/a.txt, workspace/b.txt], destination: workspace/out/"))
        .await;
    assert!(error.message.contains("is a directory"), "{}", error.message);
    let same = world.error(&ops("move", "source: workspace/a.txt, destination: workspace/a.txt")).await;
    assert!(same.message.contains("onto itself"), "{}", same.message);
    // What lies outside of the write roots is not taken away.
    world.file("mine.txt", "m");
    let denied = world.error(&ops("move", "source: mine.txt, destination: workspace/")).await;
    assert_eq!(denied.kind, ErrorKind::Denied);
    assert_eq!(
        world.tree("workspace"),
        [
            "workspace/a.txt",
            "workspace/b.txt",
            "workspace/out",
            "workspace/out/b.txt",
            "workspace/out/b.txt/child"
        ]
    );
    assert_eq!(world.read("mine.txt").as_deref(), Some("m"));
}

#[tokio::test]
async fn a_delete_takes_all_or_nothing() {
    let world = World::new();
    for name in ["a.log", "b.log", "d/x/y.txt", "keep"] {
        world.file(&format!("workspace/{name}"), "x");
    }
    let error = world.error(&ops("delete", "path: [workspace/a.log, workspace/none]")).await;
    assert_eq!(error.kind, ErrorKind::Environment);
    assert!(world.read("workspace/a.log").is_some(), "the first came back");
    let error = world.error(&ops("delete", "path: workspace/d")).await;
    assert!(error.help.unwrap().contains("recursive: true"));
    let value = world
        .value(&ops(
            "delete",
            "path: ['workspace/*.log', workspace/d, workspace/none], recursive: true, missing_ok: true",
        ))
        .await;
    assert_eq!(value["files"], json!(["workspace/a.log", "workspace/b.log", "workspace/d"]));
    assert_eq!(world.tree("workspace"), ["workspace/keep"]);
    let error = world.error(&ops("delete", "path: workspace, recursive: true")).await;
    assert_eq!(error.kind, ErrorKind::Denied);
    std::os::unix::fs::symlink("/etc", world.home.path().join("work/workspace/link")).unwrap();
    world.value(&ops("delete", "path: workspace/link, recursive: true")).await;
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert_eq!(world.tree("workspace"), ["workspace/keep"]);
}

#[tokio::test]
async fn a_wait_ends_when_files_are_there_or_says_which_is_not() {
    let world = World::new();
    world.file("a.txt", "x");
    assert_eq!(world.value(&ops("wait", "path: [a.txt, '*.txt']")).await["count"], 2);
    assert_eq!(world.value(&ops("wait", "path: b.txt, gone: true")).await["gone"], true);
    let error = world.error(&ops("wait", "path: [a.txt, b.txt], max_wait: 150ms")).await;
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::TimedOut, "`b.txt` is not there after 0.15 s")
    );
}

#[tokio::test]
async fn lines_are_processed_into_a_new_file_or_in_their_place() {
    let world = World::new();
    world.file("workspace/t.txt", " Über \r\na.b\nlast");
    for (processor, expected) in [
        ("identity", " Über \r\na.b\nlast"),
        ("uppercase", " ÜBER \r\nA.B\nLAST"),
        ("lowercase", " über \r\na.b\nlast"),
        ("trim", "Über\r\na.b\nlast"),
        ("replace, pattern: '.', replacement: 'n{{ 1 + 1 }}'", " Über \r\nan2b\nlast"),
    ] {
        let step = ops(
            "stream_process",
            &format!("source: workspace/t.txt, destination: workspace/o.txt, processor: {processor}"),
        );
        assert_eq!(world.value(&step).await["lines"], 3);
        assert_eq!(world.read("workspace/o.txt").as_deref(), Some(expected), "{processor}");
    }
    world.value(&ops("stream_process", "source: workspace/t.txt, processor: uppercase")).await;
    assert_eq!(world.read("workspace/t.txt").as_deref(), Some(" ÜBER \r\nA.B\nLAST"));
    let found = world.findings(&ops("stream_process", "source: workspace/t.txt, processor: upper"));
    assert!(found.join("\n").contains("E0104"), "{found:?}");
    let error = world.error(&ops("stream_process", "source: workspace/t.txt, processor: replace")).await;
    assert!(error.message.contains("needs `pattern`"), "{}", error.message);
}

#[tokio::test]
async fn a_stream_copy_is_a_copy() {
    let world = World::new();
    world.file("big.bin", &"x".repeat(3 << 20));
    let value = world.value(&ops("stream_copy", "source: big.bin, destination: workspace/big.bin")).await;
    assert_eq!((&value["operation"], &value["files"][0]["size"]), (&json!("stream_copy"), &json!(3 << 20)));
}
