//! Runs that were written by the first version that had each format. Their files are never edited: a change here means
//! that people's runs cannot be read any more.

use std::fs;
use std::path::Path;

use pipeline_checkpoint::{FORMAT, FileStore};
use pipeline_core::conformance::store::effect;
use pipeline_core::store::CheckpointStore;
use serde_json::{Value, json};

use crate::support::{copy, write};

/// Whether `found` says all that `expected` says; newer versions may say more.
fn says(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| says(found, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, value)| says(found, value))
        }
        _ => found == expected,
    }
}

#[tokio::test]
async fn runs_of_format_1_load_and_go_on() {
    assert_eq!(FORMAT, 1, "a new format needs golden files of its own, beside these");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1");
    let expected: Value =
        serde_json::from_str(&fs::read_to_string(golden.join("expected.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    copy(&golden.join("state"), dir.path());
    let store = FileStore::new(dir.path());

    let run = store.latest().await.unwrap().unwrap();
    let mut opened = store.open(&run).await.unwrap();
    assert_eq!(opened.repaired, None);
    let found = json!({
        "manifest": opened.stored.manifest,
        "sources": opened.stored.sources,
        "events": opened.stored.records.iter().map(pipeline_core::fact::Record::to_event).collect::<Vec<_>>(),
        "list": store.list().await.unwrap(),
    });
    for part in ["manifest", "sources", "events"] {
        assert!(says(&found[part], &expected[part]), "{part}: {:#}", found[part]);
    }
    assert_eq!(found["list"][0]["status"], expected["status"]);
    let written = write(&mut *opened.log, vec![effect(json!("more"))]).await;
    assert_eq!(written[0].index, opened.stored.records.len() as u64);
    drop(opened.log);
    assert_eq!(store.read(&run).await.unwrap().records.last(), written.last());
}

#[test]
fn the_examples_in_the_format_page_are_real_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runs = root.join("tests/golden/format-1/state/runs");
    let run = fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    let journal = fs::read_to_string(run.join("journal.log")).unwrap();
    let page = fs::read_to_string(root.join("../docs/run-log-format.md")).unwrap();
    for line in [0, 3] {
        assert!(page.contains(journal.lines().nth(line).unwrap()), "line {line} of {}", run.display());
    }
}
