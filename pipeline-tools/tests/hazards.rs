//! Hazards that the registry must make impossible.

use std::sync::Arc;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::tool::{Tool, ToolSource};
use pipeline_tools::Registry;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::support::{Fake, bomb, context, echo, fake};

/// Naive: a named process is looked up, and is gone or busy while another registers or a tool panics.
/// Figure: 1,000 lookups, 200 registrations and 100 panics at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n02_lookups_hold_during_registrations_and_panics() {
    const LOOKUPS: usize = 1_000;
    const REGISTRATIONS: usize = 200;
    let registry = Arc::new(Registry::with_builtins());
    let builtins = registry.list().len();
    registry.register(bomb("bomb")).unwrap();
    let start = Arc::new(Barrier::new(LOOKUPS + REGISTRATIONS));
    let mut tasks = JoinSet::new();
    for number in 0..LOOKUPS {
        let (registry, start) = (Arc::clone(&registry), Arc::clone(&start));
        tasks.spawn(async move {
            start.wait().await;
            if number % 10 == 0 {
                let error = registry.get("bomb").unwrap().call(json!({}), &context()).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Panicked);
            } else {
                let calculator = registry.get("calculator").expect("it was registered before and never left");
                let output =
                    calculator.call(json!({"expression": format!("{number} + 1")}), &context()).await;
                assert_eq!(output.unwrap().data, json!(number + 1));
            }
            true
        });
    }
    for number in 0..REGISTRATIONS {
        let (registry, start) = (Arc::clone(&registry), Arc::clone(&start));
        tasks.spawn(async move {
            start.wait().await;
            // Every name is registered by two tasks: exactly one of them gets it.
            let name = format!("tool_{}", number / 2);
            match registry.register(echo(&name)) {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.name, name);
                    false
                }
            }
        });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|ok| !**ok).count(), REGISTRATIONS / 2);
    assert_eq!(registry.list().len(), builtins + 1 + REGISTRATIONS / 2, "every registration survived");
}

/// Naive: tools are kept for the whole process, so that the run that registered last answers for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n13_each_run_has_the_tools_of_its_own_registry() {
    let registries = ["one", "two"].map(|_| Arc::new(Registry::default()));
    registries[0].register(fake("ask", |_| Ok(json!("one")))).unwrap();
    registries[1].register(fake("ask", |_| Ok(json!("two")))).unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..200 {
        let registry = Arc::clone(&registries[number % 2]);
        tasks.spawn(async move {
            tokio::task::yield_now().await;
            let output = registry.get("ask").unwrap().call(json!({}), &context()).await.unwrap();
            assert_eq!(output.data, json!(["one", "two"][number % 2]));
        });
    }
    assert_eq!(tasks.join_all().await.len(), 200);
}

/// A tool may leave between the lookup and the call: whoever holds it is answered all the same, and whoever comes too
/// late is told that there is none.
/// Naive: look the tool up by name, and by name again to call it: in between it may have gone.
/// Figure: 2,000 races between a call and a removal.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn n14_a_handle_outlives_its_registration() {
    let registry = Arc::new(Registry::default());
    for round in 0..2_000 {
        registry.register(echo("x")).unwrap();
        let start = Arc::new(Barrier::new(2));
        let mut tasks = JoinSet::new();
        let (caller, go) = (Arc::clone(&registry), Arc::clone(&start));
        tasks.spawn(async move {
            go.wait().await;
            let Some(tool) = caller.get("x") else { return };
            assert_eq!(tool.call(json!(round), &context()).await.unwrap().data, json!(round));
        });
        let (remover, go) = (Arc::clone(&registry), Arc::clone(&start));
        tasks.spawn(async move {
            go.wait().await;
            assert!(remover.unregister("x").is_some());
        });
        tasks.join_all().await;
        assert!(registry.get("x").is_none(), "round {round}");
    }

    registry.register(echo("x")).unwrap();
    let handle = registry.get("x").unwrap();
    registry.unregister("x");
    drop(registry);
    assert_eq!(handle.call(json!(1), &context()).await.unwrap().data, json!(1));
}

/// Naive: a tool that panics, or whose schema cannot be read, takes along whoever called it.
#[tokio::test]
async fn x12_every_failure_of_a_tool_is_an_error_of_its_call() {
    let registry = Registry::with_builtins();
    let refuses = |_| Err(StepError::new(ErrorKind::Denied, "not allowed"));
    let no_schema: Arc<dyn Tool> =
        Arc::new(Fake { name: "no_schema".to_owned(), parameters: json!({"type": "nonsense"}), answer: Ok });
    for tool in [bomb("bomb"), fake("refuses", refuses), no_schema] {
        registry.register(tool).unwrap();
    }
    assert!(registry.get("missing").is_none());
    let cases = [
        ("bomb", ErrorKind::Panicked, "boom"),
        ("refuses", ErrorKind::Denied, "not allowed"),
        ("no_schema", ErrorKind::Invalid, "tool `no_schema` cannot be called"),
    ];
    for (name, kind, part) in cases {
        for _ in 0..2 {
            let error = registry.get(name).unwrap().call(json!({}), &context()).await.unwrap_err();
            assert_eq!(error.kind, kind, "{name}");
            assert!(error.message.contains(part), "{name}: {error}");
        }
    }
    let works = registry.get("text_stats").unwrap().call(json!({"text": "a b"}), &context()).await.unwrap();
    assert_eq!(works.data["words"], 2);
}
