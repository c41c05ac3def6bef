//! Hazards that the mock must make impossible.

use std::sync::Arc;

use pipeline_core::provider::{ModelRequest, Provider};
use pipeline_providers::MockProvider;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{asking, at, claude, context};

/// Naive: stubs live in the process that set them, and a task on another thread calls the real provider.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n13_a_stub_is_honoured_on_every_worker_thread() {
    let mock = Arc::new(claude("rules: [{match: {step: asked}, text: stubbed}]"));
    let mut calls = JoinSet::new();
    for at_once in 0..64 {
        let mock = Arc::clone(&mock);
        calls.spawn(async move {
            tokio::task::yield_now().await;
            let cx = at(&format!("items[{at_once}]/asked"));
            mock.complete(&asking("hi"), &cx).await.unwrap().text
        });
    }
    assert_eq!(calls.join_all().await, vec!["stubbed"; 64]);
}

/// Naive: one script for the process: the run that was started last decides what both are told.
/// Figure: 200 calls of two scripts, mixed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n13_two_runs_with_different_scripts_never_mix() {
    let scripts = ["one", "two"].map(|text| {
        Arc::new(claude(&format!("rules: [{{match: {{call: 1}}, text: {text} first}}, {{text: {text}}}]")))
    });
    let mut calls = JoinSet::new();
    for turn in 0..200 {
        let (mock, expected) = (Arc::clone(&scripts[turn % 2]), ["one", "two"][turn % 2]);
        calls.spawn(async move {
            // The same run id and path in both: only the script differs.
            let cx = context("run", &format!("items[{}]/a", turn / 2), 1, 1);
            for expected in [format!("{expected} first"), expected.to_owned()] {
                assert_eq!(mock.complete(&asking("hi"), &cx).await.unwrap().text, expected);
                tokio::task::yield_now().await;
            }
        });
    }
    assert_eq!(calls.join_all().await.len(), 200);
}

/// Naive: ids, times and numbers of a mock are random, and differ from run to run.
/// Figure: 100 runs of 8 branches.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n13_x29_the_same_seed_gives_the_same_bytes_in_100_runs() {
    let request = Arc::new(ModelRequest {
        output_schema: Some(json!({
            "type": "object",
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "code": {"type": "string", "pattern": "^[a-z]{8}$"},
                "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
            },
        })),
        ..asking("hi")
    });
    let mut outputs = Vec::new();
    for _ in 0..100 {
        let mock = Arc::new(claude("seed: 7\nrules: [{match: {call: 2}, delay_ms: [0, 1]}]"));
        let mut calls = JoinSet::new();
        for item in 0..8 {
            let (mock, request) = (Arc::clone(&mock), Arc::clone(&request));
            calls.spawn(async move {
                let cx = at(&format!("items[{item}]"));
                let first = mock.complete(&request, &cx).await.unwrap();
                let second = mock.complete(&request, &cx).await.unwrap();
                (item, serde_json::to_string(&(first, second)).unwrap())
            });
        }
        let mut told = calls.join_all().await;
        told.sort();
        outputs.push(told);
    }
    assert!(outputs.iter().all(|told| *told == outputs[0]));
    let other = claude("seed: 8").complete(&request, &at("items[0]")).await.unwrap();
    assert!(!outputs[0][0].1.contains(&other.text), "another seed gives something else");
}

/// Whatever cannot be made is the error of that call; the next one is answered.
/// Naive: a schema that cannot be met makes the mock loop or panic.
#[tokio::test]
async fn x12_a_broken_request_is_an_error_of_its_call_only() {
    let mock = MockProvider::new("claude", Arc::default());
    let broken = [
        json!({"type": "nonsense"}),
        json!({"$ref": "#/nowhere"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"pattern": "(["}),
        json!({"type": "array", "minItems": 4_000_000_000_u64}),
        json!({"type": "string", "minLength": 4_000_000_000_u64}),
        json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        json!("not a schema"),
    ];
    for schema in broken {
        let request = ModelRequest { output_schema: Some(schema.clone()), ..asking("hi") };
        let outcome = mock.complete(&request, &at("a")).await;
        assert!(outcome.is_err(), "{schema} gave {outcome:?}");
    }
    assert!(mock.complete(&asking("hi"), &at("a")).await.is_ok());
}
