//! The circuit breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{ModelRequest, Provider};
use pipeline_providers::{Broken, CircuitSettings, Circuits};

use super::support::{Scripted, answer};
use crate::support::{asking, at};

const COOL_DOWN: Duration = Duration::from_secs(30);

/// A provider that fails while `down`, after a while.
fn fragile(down: &Arc<AtomicBool>, kind: ErrorKind) -> Arc<Scripted> {
    let down = Arc::clone(down);
    Scripted::new(move |_| {
        let down = Arc::clone(&down);
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if down.load(SeqCst) { Err(StepError::new(kind, "down")) } else { Ok(answer(1, 1)) }
        }
    })
}

/// Naive: every caller goes on calling what is down, and all at once when it might be up.
/// Figure: 1 of 100 callers.
#[tokio::test(start_paused = true)]
async fn n18_an_open_circuit_calls_nobody_and_lets_one_of_a_hundred_try() {
    let down = Arc::new(AtomicBool::new(true));
    let inner = fragile(&down, ErrorKind::Server);
    let outer = Arc::new(Broken::new(Arc::clone(&inner), Arc::default()));
    let ask = || async { outer.complete(&asking("hi"), &at("a")).await };
    for _ in 0..5 {
        assert_eq!(ask().await.unwrap_err().kind, ErrorKind::Server);
    }
    // Nobody is called until the pause is over, and everybody is told how long it is.
    for second in 0..29 {
        let error = ask().await.unwrap_err();
        assert_eq!((error.kind, &error.details["circuit"]), (ErrorKind::Overloaded, &"open".into()));
        let left = error.retry_after_ms.unwrap();
        assert!(left <= 30_000 - second * 1000 && left > 0, "{second}: {left}");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(inner.calls(), 5);
    tokio::time::advance(Duration::from_secs(1)).await;
    // Down still: one tries, and it opens again.
    let told = join_all((0..100).map(|_| ask())).await;
    assert_eq!(inner.calls(), 6);
    assert_eq!(told.iter().filter(|t| t.as_ref().unwrap_err().kind == ErrorKind::Server).count(), 1);
    assert!(ask().await.is_err());
    assert_eq!(inner.calls(), 6);
    // Up again: one tries, and it closes.
    down.store(false, SeqCst);
    tokio::time::advance(COOL_DOWN).await;
    let told = join_all((0..100).map(|_| ask())).await;
    assert_eq!((inner.calls(), told.iter().filter(|t| t.is_ok()).count()), (7, 1));
    let told = join_all((0..100).map(|_| ask())).await;
    assert_eq!((inner.calls(), told.iter().filter(|t| t.is_ok()).count()), (107, 100));
}

/// Naive: the one probe of a half-open circuit is given away, and whoever dropped it never gives it back.
#[tokio::test(start_paused = true)]
async fn n18_a_try_that_is_dropped_leaves_the_next_one_to_try() {
    let down = Arc::new(AtomicBool::new(true));
    let inner = fragile(&down, ErrorKind::Network);
    let outer = Broken::new(Arc::clone(&inner), Arc::default());
    for _ in 0..5 {
        outer.complete(&asking("hi"), &at("a")).await.unwrap_err();
    }
    down.store(false, SeqCst);
    tokio::time::advance(COOL_DOWN).await;
    let cx = at("a");
    drop(outer.start(&asking("hi"), &cx).await.unwrap());
    outer.complete(&asking("hi"), &at("a")).await.unwrap();
    assert_eq!(inner.calls(), 7);
}

/// Naive: only errors count, so that a service that hangs is called for ever.
#[tokio::test(start_paused = true)]
async fn n18_calls_that_hang_until_their_deadline_are_failures() {
    let inner = Scripted::new(|_| std::future::pending());
    let outer = Broken::new(Arc::clone(&inner), Arc::default());
    for _ in 0..5 {
        let mut cx = at("a");
        cx.deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        let request = asking("hi");
        let call = tokio::time::timeout_at(cx.deadline, outer.complete(&request, &cx));
        assert!(call.await.is_err());
    }
    let error = outer.complete(&asking("hi"), &at("a")).await.unwrap_err();
    assert_eq!((error.kind, inner.calls()), (ErrorKind::Overloaded, 5));
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_question_and_old_failures_open_nothing() {
    for kind in [ErrorKind::Invalid, ErrorKind::Auth, ErrorKind::RateLimited, ErrorKind::Schema] {
        let inner = Scripted::failing(kind);
        let outer = Broken::new(Arc::clone(&inner), Arc::default());
        for _ in 0..50 {
            assert_eq!(outer.complete(&asking("hi"), &at("a")).await.unwrap_err().kind, kind);
        }
        assert_eq!(inner.calls(), 50);
    }
    let inner = Scripted::failing(ErrorKind::Server);
    let outer = Broken::new(Arc::clone(&inner), Arc::default());
    for _ in 0..50 {
        // Four in each window, never five.
        outer.complete(&asking("hi"), &at("a")).await.unwrap_err();
        tokio::time::advance(Duration::from_secs(16)).await;
    }
    assert_eq!(inner.calls(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_of_one_provider_and_model_and_shared_by_its_layers() {
    let settings = CircuitSettings { threshold: 2, ..CircuitSettings::default() };
    let circuits = Arc::new(Circuits::new(settings));
    let inner = Scripted::failing(ErrorKind::Server);
    let layers = [(); 2].map(|()| Broken::new(Arc::clone(&inner), Arc::clone(&circuits)));
    for outer in &layers {
        outer.complete(&asking("hi"), &at("a")).await.unwrap_err();
    }
    layers[0].complete(&asking("hi"), &at("a")).await.unwrap_err();
    assert_eq!(inner.calls(), 2, "two failures by two layers opened it");
    let other = ModelRequest { model: Some("small".to_owned()), ..asking("hi") };
    layers[0].complete(&other, &at("a")).await.unwrap_err();
    assert_eq!(inner.calls(), 3, "another model is called");
}
