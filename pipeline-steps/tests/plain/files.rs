//! `file_ops`, on real directories.

use pipeline_core::error::ErrorKind;
use pipeline_core::value::Value;
use serde_json::json;

use crate::plain::support::World;

fn step(keys: &str) -> String {
    format!("- {{name: f, type: file_ops, {keys}}}")
}

fn paths(value: &Value) -> Vec<String> {
    let files = value["files"].as_array().expect("files");
    files.iter().map(|f| f["path"].as_str().expect("a path").to_owned()).collect()
}

fn library() -> World {
    let world = World::new();
    world.file("lib/b.txt", "bb");
    world.file("lib/a.txt", "a");
    world.file("lib/c.md", "ccc");
    world.file("lib/deep/d.txt", "dddd");
    world
}

#[tokio::test]
async fn a_list_is_sorted_and_one_level_deep_unless_told() {
    let world = library();
    let value = world.value(&step("operation: list, path: lib, pattern: '*.txt'")).await;
    assert_eq!(paths(&value), ["lib/a.txt", "lib/b.txt"]);
    assert_eq!(
        (&value["count"], &value["files"][1]["size"], &value["files"][1]["name"]),
        (&json!(2), &json!(2), &json!("b.txt"))
    );
    let value = world.value(&step("operation: list, path: ./lib, recursive: true")).await;
    assert_eq!(paths(&value), ["lib/a.txt", "lib/b.txt", "lib/c.md", "lib/deep/d.txt"]);
    let value = world.value(&step("operation: list, path: lib, pattern: '**/{a,d}.*'")).await;
    assert_eq!(paths(&value), ["lib/a.txt", "lib/deep/d.txt"]);
    let value = world.value(&step("operation: list, pattern: '*.nothing'")).await;
    assert_eq!((&value["count"], &value["files"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn a_list_refuses_what_is_not_there_or_outside() {
    let world = library();
    let error = world.error(&step("operation: list, path: nowhere")).await;
    assert_eq!(error.kind, ErrorKind::Environment);
    assert!(error.message.contains("`nowhere`"), "{error}");
    for path in ["../", "/etc", "lib/../../x"] {
        let error = world.error(&step(&format!("operation: list, path: {path}"))).await;
        assert_eq!(error.kind, ErrorKind::Denied, "{path}");
        assert!(error.help.is_some_and(|h| h.contains("--allow-read")));
    }
    let error = world.error(&step("operation: list, path: lib/a.txt")).await;
    assert_eq!(error.kind, ErrorKind::Invalid);
    let error = world.error(&step("operation: list, pattern: '[z'")).await;
    assert!(error.message.contains("`[z`"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn links_do_not_lead_out() {
    let world = library();
    let outside = world.home.path().join("secret");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("s.txt"), "secret").unwrap();
    std::os::unix::fs::symlink(&outside, world.home.path().join("work/way")).unwrap();
    std::os::unix::fs::symlink(outside.join("s.txt"), world.home.path().join("work/lib/s.txt")).unwrap();
    assert_eq!(world.error(&step("operation: list, path: way")).await.kind, ErrorKind::Denied);
    let error = world.error(&step("operation: copy, source: lib/s.txt, destination: workspace/s.txt")).await;
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(world.tree("workspace").is_empty());
    let report = world.steps(&step("operation: list, path: lib, pattern: '*.txt'")).await;
    assert_eq!(paths(report.steps[0].value.json()), ["lib/a.txt", "lib/b.txt"]);
    assert!(report.warnings.iter().any(|w| w.contains("lib/s.txt")), "{:?}", report.warnings);
}

#[tokio::test]
async fn a_copy_makes_a_file_or_fills_a_directory() {
    let world = library();
    let value =
        world.value(&step("operation: copy, source: lib/a.txt, destination: workspace/new/x.txt")).await;
    assert_eq!(
        value,
        json!({"operation": "copy", "source": "lib/a.txt", "destination": "workspace/new/x.txt", "files":
            [{"source": "lib/a.txt", "destination": "workspace/new/x.txt", "size": 1}], "count": 1})
    );
    assert_eq!(world.read("workspace/new/x.txt").as_deref(), Some("a"));
    world.value(&step("operation: copy, source: [lib/c.md, 'lib/**/*.txt'], destination: outputs")).await;
    let all = ["outputs/a.txt", "outputs/b.txt", "outputs/c.md", "outputs/deep", "outputs/deep/d.txt"];
    assert_eq!(world.tree("outputs"), all);
    world.value(&step("operation: copy, source: lib, destination: workspace/all/, recursive: true")).await;
    assert_eq!(world.read("workspace/all/deep/d.txt").as_deref(), Some("dddd"));
    // Over an existing file, and nothing else is left.
    world.value(&step("operation: copy, source: lib/b.txt, destination: workspace/new/x.txt")).await;
    assert_eq!(world.read("workspace/new/x.txt").as_deref(), Some("bb"));
    assert_eq!(world.tree("workspace/new"), ["workspace/new/x.txt"]);
}

#[tokio::test]
async fn a_copy_that_fails_leaves_everything_as_it_was() {
    let world = library();
    world.file("workspace/a.txt", "old");
    // The second target is a directory.
    std::fs::create_dir_all(world.home.path().join("work/workspace/b.txt")).unwrap();
    let error = world.error(&step("operation: copy, source: 'lib/*.txt', destination: workspace")).await;
    assert!(error.message.contains("`workspace/b.txt` is a directory"), "{error}");
    assert_eq!(world.tree("workspace"), ["workspace/a.txt", "workspace/b.txt"]);
    assert_eq!(world.read("workspace/a.txt").as_deref(), Some("old"));
    // The second source is not there; the directory that was made for the first goes again.
    let error = world
        .error(&step("operation: copy, source: [lib/a.txt, lib/none.txt], destination: outputs/n/m/"))
        .await;
    assert_eq!(error.kind, ErrorKind::Environment);
    assert!(world.tree("outputs").is_empty());
    let error = world
        .error(&step("operation: copy, source: [lib/a.txt, lib/a.txt], destination: outputs/n/m/"))
        .await;
    assert!(error.message.contains("two files would become"), "{error}");
    assert!(world.tree("outputs").is_empty());
}

#[tokio::test]
async fn a_copy_stays_where_it_may_write() {
    let world = library();
    for destination in ["lib/new.txt", "../new.txt", "workspace/../../new.txt", "/tmp/new.txt"] {
        let keys = format!("operation: copy, source: lib/a.txt, destination: {destination}");
        let error = world.error(&step(&keys)).await;
        assert_eq!(error.kind, ErrorKind::Denied, "{destination}");
    }
    let error = world.error(&step("operation: copy, source: lib, destination: workspace/")).await;
    assert!(error.help.is_some_and(|h| h.contains("recursive")));
    let error = world.error(&step("operation: copy, source: 'lib/*.zip', destination: workspace/")).await;
    assert!(error.message.contains("`lib/*.zip` matches no file"), "{error}");
}

#[tokio::test]
async fn a_validation_names_everything_that_is_wrong() {
    let world = library();
    let good = "operation: validate, files: [{path: lib, must_be_dir: true}, {path: lib/c.md, must_be_file: true, min_size: 3, max_size: 3}, {path: none, must_exist: false}]";
    let value = world.value(&step(good)).await;
    assert_eq!(value["count"], 3);
    assert_eq!(
        value["files"][1],
        json!({"path": "lib/c.md", "valid": true, "exists": true, "size": 3, "problems": []})
    );
    let bad = "operation: validate, files: [{path: none}, {path: lib, must_be_file: true}, {path: lib/a.txt, must_be_dir: true, min_size: 2}, {path: lib/c.md, max_size: 2}, {path: lib/b.txt}]";
    let error = world.error(&step(bad)).await;
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(
        error.message,
        "`none` does not exist; `lib` is not a regular file; `lib/a.txt` is not a directory; `lib/a.txt` has 1 \
         bytes, and at least 2 are asked for; `lib/c.md` has 3 bytes, and at most 2 are allowed"
    );
    assert_eq!(error.details["files"][4]["valid"], json!(true));
}

#[test]
fn mistakes_are_found_before_the_run() {
    let world = World::new();
    let found = |keys: &str| world.findings(&step(keys)).join("\n");
    assert!(found("operation: shred, path: x").contains("E0104"));
    assert!(found("operation: copy, source: a").contains("the operation `copy` needs `destination`"));
    assert!(
        found("operation: list, files: []").contains("E0110 the operation `list` does nothing with `files`")
    );
    assert!(found("path: x").contains("needs `operation`"));
    assert_eq!(found("operation: validate, files: [{path: x}]"), "");
}
