//! `file_ops: convert`, through the compiler.

use pipeline_core::error::ErrorKind;
use serde_json::{Value, json};

use crate::plain::support::World;

const TABLE: &str =
    "id,name,note\r\n1,Ada,\"a \"\"quoted\"\", cell\"\r\n2,Bö,\"two\nlines\"\n3,short\n4,long,x,extra\n,,\n";

async fn convert(world: &World, from: &str, to: &str, more: &str) -> Value {
    let step = format!(
        "- {{name: c, type: file_ops, operation: convert, source: {from}, destination: workspace/{to}{more}}}"
    );
    world.value(&step).await
}

fn json_of(world: &World, name: &str) -> Value {
    serde_json::from_str(&world.read(&format!("workspace/{name}")).expect("a file")).expect("JSON")
}

#[tokio::test]
async fn csv_with_quotes_lines_and_ragged_rows_becomes_json_without_loss() {
    let world = World::new();
    world.file("t.csv", TABLE);
    let value = convert(&world, "t.csv", "t.json", "").await;
    assert_eq!((&value["count"], &value["format"]), (&json!(5), &json!("csv_to_json")));
    let expected = json!([
        {"id": "1", "name": "Ada", "note": "a \"quoted\", cell"},
        {"id": "2", "name": "Bö", "note": "two\nlines"},
        {"id": "3", "name": "short"},
        {"id": "4", "name": "long", "note": "x", "column_4": "extra"},
        {"id": "", "name": "", "note": ""},
    ]);
    assert_eq!(json_of(&world, "t.json"), expected);
    // And back: the same cells, in the columns of all rows.
    convert(&world, "workspace/t.json", "back.csv", "").await;
    convert(&world, "workspace/back.csv", "again.json", "").await;
    let again = json_of(&world, "again.json");
    assert_eq!(again[0], json!({"id": "1", "name": "Ada", "note": "a \"quoted\", cell", "column_4": ""}));
    assert_eq!(again[3]["column_4"], "extra");
}

#[tokio::test]
async fn values_are_inferred_only_where_their_spelling_comes_back() {
    let world = World::new();
    world.file("t.csv", "a,b,c,d\n1,1.50,007,true\n-2,x,1e5,\n");
    convert(&world, "t.csv", "t.json", ", infer_types: true").await;
    let expected = json!([
        {"a": 1, "b": "1.50", "c": "007", "d": true}, {"a": -2, "b": "x", "c": "1e5", "d": ""},
    ]);
    assert_eq!(json_of(&world, "t.json"), expected);
}

#[tokio::test]
async fn every_format_becomes_every_other() {
    let rows = json!([{"id": "1", "name": "Ada & Bo"}, {"id": "2", "name": "<x>: \"y\", #z"}]);
    for (from, through) in [
        ("csv", "json"),
        ("csv", "yaml"),
        ("csv", "xml"),
        ("json", "yaml"),
        ("json", "xml"),
        ("yaml", "xml"),
        ("yaml", "csv"),
        ("xml", "csv"),
        ("xml", "yaml"),
    ] {
        let world = World::new();
        world.file("rows.json", &rows.to_string());
        convert(&world, "rows.json", &format!("a.{from}"), "").await;
        convert(&world, &format!("workspace/a.{from}"), &format!("b.{through}"), "").await;
        let last = if through == "xml" { "csv" } else { through };
        convert(&world, &format!("workspace/b.{through}"), &format!("c.{last}"), "").await;
        convert(&world, &format!("workspace/c.{last}"), "d.json", "").await;
        let mut found = json_of(&world, "d.json");
        if let Some(inner) = found.pointer_mut("/rows/row") {
            found = inner.take();
        }
        assert_eq!(found, rows, "{from} to {through}");
    }
}

#[tokio::test]
async fn what_cannot_be_converted_leaves_the_old_file_and_says_why() {
    let world = World::new();
    world.file("workspace/out.json", "old");
    for (name, text, words) in [
        ("bad.json", "{\"a\": ", "it is not JSON"),
        ("bad.yaml", "a: [", "it is not YAML"),
        ("bad.xml", "<a>", "the XML cannot be read"),
        ("bytes.csv", "a\n\u{0}", ""),
    ] {
        world.file(name, text);
        let step = format!(
            "- {{name: c, type: file_ops, operation: convert, source: {name}, destination: workspace/out.yaml}}"
        );
        let report = world.steps(&step).await;
        let error = report.steps.last().unwrap().1.error.clone();
        if !words.is_empty() {
            let error = error.expect("it fails");
            assert_eq!(error.kind, ErrorKind::Invalid, "{name}");
            assert!(error.message.contains(words) && error.message.contains(name), "{}", error.message);
        }
    }
    world.file("scalar.json", "[1, 2]");
    let error = world.error("- {name: c, type: file_ops, operation: convert, source: scalar.json, destination: workspace/o.csv}").await;
    assert!(error.message.contains("a row is not a map"), "{}", error.message);
    let error = world.error("- {name: c, type: file_ops, operation: convert, source: scalar.json, destination: workspace/o.txt}").await;
    assert!(error.help.unwrap().contains("csv_to_json"));
    let error = world.error("- {name: c, type: file_ops, operation: convert, source: scalar.json, destination: workspace/o.txt, format: json_to_doc}").await;
    assert!(error.message.contains("is not a conversion"), "{}", error.message);
    assert_eq!(world.read("workspace/out.json").as_deref(), Some("old"));
    assert_eq!(world.tree("workspace"), ["workspace/out.json", "workspace/out.yaml"]);
}
