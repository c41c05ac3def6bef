use crate::support::write;
use pipeline_checkpoint::FileStore;
use pipeline_core::conformance::store::{effect, manifest, one_of_each};
use pipeline_core::store::{CheckpointStore, StoredSources};
use serde_json::json;
use std::fs;
use std::path::Path;
#[tokio::test]
async fn generate() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1");
    let run = "018bcfe5-687b-7c3a-9d41-5f0e2b7a6c10";
    let store = FileStore::new(golden.join("state"));
    let file = |shown: &str, text: &str| (shown.to_owned(), text.to_owned());
    let sources = StoredSources {
        root: "/somewhere/pipelines/review.yaml".into(),
        files: [
            (
                "/somewhere/pipelines/review.yaml".to_owned(),
                file("pipelines/review.yaml", "workflow:\r\n  name: review\n\tü\n"),
            ),
            ("/somewhere/pipelines/part.yaml".to_owned(), file("pipelines/part.yaml", "")),
        ]
        .into(),
        links: vec![(
            "/somewhere/pipelines/review.yaml".into(),
            "./part.yaml".into(),
            "/somewhere/pipelines/part.yaml".into(),
        )],
    };
    let mut m = manifest(run, 1_700_000_000_123);
    m.inputs = json!({"files": ["a", "b"], "limit": 0.1});
    let mut log = store.create(&m, &sources).await.unwrap();
    write(&mut *log, vec![effect(json!("long ".repeat(14_000)))]).await;
    drop(log);
    let mut log = store.open(run).await.unwrap().log;
    write(&mut *log, one_of_each(run)).await;
    drop(log);
    let read = store.read(run).await.unwrap();
    let expected = json!({"status": store.list().await.unwrap()[0].status, "manifest": read.manifest, "sources": read.sources,
        "events": read.records.iter().map(pipeline_core::fact::Record::to_event).collect::<Vec<_>>()});
    fs::write(golden.join("expected.json"), serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
}
