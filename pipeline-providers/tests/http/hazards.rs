//! Hazards that the providers over HTTP must make impossible.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use pipeline_core::catalog::Services;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{
    Capabilities, ModelAnswer, ModelEvent, ModelRequest, ModelStream, Price, Provider, ProviderEntry,
    WorstCase,
};
use pipeline_core::step::StepContext;
use pipeline_providers::{HttpProvider, HttpSettings, Limited, PriceTable, Transport};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::support::{Does, KINDS, Mock, Raw, STREAM, first, patient, provider};
use crate::support::{asking, at};

/// Naive: only the connection has a time limit, so that a server which never answers is waited for for ever.
#[tokio::test(flavor = "multi_thread")]
async fn n03_n15_a_provider_that_never_answers_ends_by_the_steps_deadline() {
    for kind in KINDS {
        for does in [
            Does::Hang(Vec::new()),
            Does::Hang(format!("{STREAM}{}", first(kind)).into_bytes()),
            Does::Drip(STREAM.as_bytes().to_vec(), first(kind).into_bytes(), Duration::from_millis(20)),
        ] {
            let raw = Raw::start(does.clone()).await;
            let mut cx = at("step");
            let begun = Instant::now();
            cx.deadline = begun + Duration::from_millis(300);
            let error = patient(kind, &raw.url).complete(&asking("hi"), &cx).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::TimedOut, "{kind} {does:?}: {error:?}");
            let late = begun.elapsed().saturating_sub(Duration::from_millis(300));
            assert!(late < Duration::from_millis(250), "{kind}: {late:?} late");
        }
    }
}

/// Naive: one broken answer poisons the client that others use.
#[tokio::test(flavor = "multi_thread")]
async fn n04_siblings_of_a_broken_call_are_not_touched() {
    let mock = Mock::start().await;
    let it = Arc::new(provider("anthropic", &mock.url));
    mock.script(json!([
        {"match": "break-cut", "text": "a text of some length", "cut": 3, "repeat": -1},
        {"match": "break-hang", "fault": "hang_mid_stream", "repeat": -1},
        {"match": "break-json", "fault": "garbage_json", "repeat": -1},
        {"match": "break-reset", "fault": "reset", "repeat": -1},
        {"text": "fine", "repeat": -1},
    ]))
    .await;
    let mut calls = JoinSet::new();
    for number in 0..60_usize {
        let it = Arc::clone(&it);
        calls.spawn(async move {
            let prompts = ["break-cut", "fine", "break-hang", "fine", "break-json", "break-reset"];
            let prompt = prompts[number % prompts.len()];
            let outcome = it.complete(&asking(prompt), &at(&format!("items[{number}]"))).await;
            (prompt, outcome)
        });
    }
    for (prompt, outcome) in calls.join_all().await {
        match outcome {
            Ok(answer) => assert_eq!((prompt, answer.text.as_str()), ("fine", "fine")),
            Err(error) => assert!(prompt.starts_with("break"), "{prompt}: {error:?}"),
        }
    }
}

/// Naive: the mode is asked when a call is made, so that a task of a run on mocks reaches the network.
#[tokio::test]
async fn x23_a_shut_transport_lets_no_call_through() {
    let raw = Raw::start(Does::Say(Vec::new())).await;
    for kind in KINDS {
        let entry =
            ProviderEntry { name: "it".to_owned(), kind: kind.to_owned(), ..ProviderEntry::default() };
        let mut settings = HttpSettings::new(entry);
        settings.base_url = Some(raw.url.clone());
        let prices = PriceTable::built_in().unwrap();
        let it = HttpProvider::new(settings, Arc::new(Transport::shut()), &prices).unwrap();
        let error = it.complete(&asking("hi"), &at("step")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
    }
    assert_eq!(raw.connections.load(Ordering::SeqCst), 0);
}

/// Counts how many calls go on at once.
#[derive(Default)]
struct Counting {
    now: AtomicUsize,
    peak: AtomicUsize,
}

struct Counted(Arc<Counting>);

#[async_trait]
impl Provider for Counted {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn default_model(&self) -> &'static str {
        "none"
    }

    fn worst_case(&self, _request: &ModelRequest) -> WorstCase {
        WorstCase { tokens: 0, cost: Price::AtMost(0.0) }
    }

    async fn start(&self, _request: &ModelRequest, _cx: &StepContext) -> Result<ModelStream, StepError> {
        let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.peak.fetch_max(now, Ordering::SeqCst);
        let this = Arc::clone(&self.0);
        // A call goes on until its stream has ended.
        let answer = async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            this.now.fetch_sub(1, Ordering::SeqCst);
            let answer: ModelAnswer = serde_json::from_value(
                json!({"text": "ok", "model": "m", "usage": {}, "stop_reason": "end_turn",
                "session_id": null, "function_calls": []}),
            )
            .expect("an answer");
            Ok(ModelEvent::Finished(Box::new(answer)))
        };
        Ok(Box::pin(stream::once(answer)))
    }
}

/// Naive: each run has a limit of its own, so that twenty runs of twenty branches make four hundred calls at once.
#[tokio::test(start_paused = true)]
async fn n08d_x25_one_limit_holds_over_all_runs_and_providers() {
    let counting = Arc::new(Counting::default());
    let permits = Arc::new(tokio::sync::Semaphore::new(8));
    let mut calls = JoinSet::new();
    for run in 0..20 {
        // Every run wraps for itself; the permits are the process's.
        let limited = Arc::new(Limited(Arc::new(Counted(Arc::clone(&counting)))));
        for task in 0..20 {
            let (limited, permits) = (Arc::clone(&limited), Arc::clone(&permits));
            calls.spawn(async move {
                let mut cx = at(&format!("run{run}/tasks[{task}]"));
                let mut services = Services::clone(&cx.services);
                services.calls = Some(permits);
                cx.services = Arc::new(services);
                limited.complete(&asking("hi"), &cx).await.map(|answer| answer.text)
            });
        }
    }
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|a| a.as_deref() == Ok("ok")), "nobody starves");
    assert_eq!(counting.peak.load(Ordering::SeqCst), 8);
    assert_eq!(permits.available_permits(), 8, "every permit is given back");
}

/// Naive: who waits for a permit waits without a deadline.
#[tokio::test(start_paused = true)]
async fn n15_waiting_for_others_ends_by_the_steps_deadline() {
    let limited = Limited(Arc::new(Counted(Arc::default())));
    let mut cx = at("step");
    let mut services = Services::clone(&cx.services);
    services.calls = Some(Arc::new(tokio::sync::Semaphore::new(0)));
    cx.services = Arc::new(services);
    cx.deadline = Instant::now() + Duration::from_secs(5);
    let error = limited.complete(&asking("hi"), &cx).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert!(Instant::now() <= cx.deadline + Duration::from_millis(250));
}
