//! What no layer may change. A new layer is added to the list, and to nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures_util::StreamExt;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{ModelRequest, Price, Provider, ProviderLimits, WorstCase};
use pipeline_providers::{Broken, Circuits, Governed, Rates};
use serde_json::json;

use super::support::{Scripted, answer};
use crate::support::{asking, at};

fn layers(inner: &Arc<Scripted>) -> Vec<(&'static str, Arc<dyn Provider>)> {
    let limits = ProviderLimits {
        requests_per_minute: Some(6_000_000),
        max_parallel: Some(64),
        ..ProviderLimits::default()
    };
    let governed = || Governed::new(Arc::clone(inner), Rates::of_process().account("a", "k", &limits));
    let both = Broken::new(Arc::new(governed()), Arc::default());
    vec![
        ("governed", Arc::new(governed())),
        ("broken", Arc::new(Broken::new(Arc::clone(inner), Arc::new(Circuits::default())))),
        ("both", Arc::new(both)),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_layer_says_of_itself_what_the_inner_one_says() {
    let inner = Scripted::slow(0);
    for (layer, outer) in layers(&inner) {
        assert_eq!(outer.name(), "scripted", "{layer}");
        assert_eq!(outer.default_model(), "big", "{layer}");
        assert_eq!(outer.capabilities(), inner.capabilities(), "{layer}");
        let request = ModelRequest { max_output_tokens: Some(99), ..asking("hi") };
        let worst = WorstCase { tokens: 99, cost: Price::AtMost(0.5) };
        assert_eq!(outer.worst_case(&request), worst, "{layer}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_answers_and_errors_pass_unchanged_and_nothing_is_tried_again() {
    let inner = Scripted::slow(10);
    for (layer, outer) in layers(&inner) {
        let before = inner.calls();
        let cx = at("a");
        let of = |provider: Arc<dyn Provider>| {
            let cx = cx.clone();
            async move {
                let events: Vec<_> = provider.start(&asking("hi"), &cx).await.unwrap().collect().await;
                format!("{events:?}")
            }
        };
        let (told, direct) = (of(outer).await, of(Arc::<Scripted>::clone(&inner)).await);
        assert_eq!(told, direct, "{layer}");
        assert_eq!(inner.calls(), before + 2, "{layer}");
    }
    for kind in [ErrorKind::Overloaded, ErrorKind::RateLimited, ErrorKind::Quota, ErrorKind::Invalid] {
        let inner = Scripted::new(move |_| async move {
            let mut error = StepError::new(kind, "words").help("help").details(json!({ "status": 1 }));
            error.retry_after_ms = Some(5);
            Err(error)
        });
        for (layer, outer) in layers(&inner) {
            let before = inner.calls();
            let direct = inner.complete(&asking("hi"), &at("a")).await.unwrap_err();
            assert_eq!(outer.complete(&asking("hi"), &at("a")).await.unwrap_err(), direct, "{layer}");
            assert_eq!(inner.calls(), before + 2, "{layer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_drops_the_call_and_leaves_the_layer_usable() {
    let inner = Scripted::slow(1000);
    for (layer, outer) in layers(&inner) {
        for _ in 0..200 {
            let cx = at("a");
            let mut stream = outer.start(&asking("hi"), &cx).await.unwrap();
            stream.next().await.unwrap().unwrap();
            assert_eq!(inner.open.load(SeqCst), 1, "{layer}");
            drop(stream);
            assert_eq!(inner.open.load(SeqCst), 0, "{layer}");
        }
        assert_eq!(outer.complete(&asking("hi"), &at("a")).await.unwrap(), answer(10, 5), "{layer}");
    }
}

/// Naive: a layer that waits for its inner call without an end.
#[tokio::test(start_paused = true)]
async fn n03_a_provider_that_never_answers_is_left_at_the_deadline() {
    let inner = Scripted::new(|_| std::future::pending());
    for (layer, outer) in layers(&inner) {
        let mut cx = at("a");
        let begun = tokio::time::Instant::now();
        cx.deadline = begun + Duration::from_secs(3);
        let request = asking("hi");
        let call = tokio::time::timeout_at(cx.deadline, outer.complete(&request, &cx));
        assert!(call.await.is_err(), "{layer}");
        assert!(begun.elapsed() <= Duration::from_millis(3250), "{layer}");
        assert_eq!(inner.open.load(SeqCst), 0, "{layer}");
    }
}
