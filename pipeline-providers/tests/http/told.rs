//! What services say beside the table of faults: codes, hints, ends of streams, and what they are never asked.

use pipeline_core::error::ErrorKind::*;
use pipeline_core::provider::ModelRequest;
use serde_json::json;

use super::support::{Does, KINDS, Mock, Raw, STREAM, call, failure, first, provider};
use crate::support::asking;

#[tokio::test(flavor = "multi_thread")]
async fn codes_say_more_than_statuses() {
    let mock = Mock::start().await;
    let per_day = json!([{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
        {"retryDelay": "1.5s"}]);
    let cases = [
        ("openai", 429, json!({"code": "insufficient_quota"}), Quota),
        ("openai", 400, json!({"code": "context_length_exceeded"}), TooLarge),
        ("openai", 400, json!({"code": "content_filter"}), Refused),
        ("gemini", 429, json!({"details": per_day}), Quota),
        ("gemini", 400, json!({"details": [{"reason": "API_KEY_INVALID"}]}), Auth),
        ("gemini", 503, json!({}), Overloaded),
        ("anthropic", 400, json!({"type": "billing_error"}), Quota),
        ("anthropic", 418, json!({"type": "an_error_of_next_year"}), Invalid),
        ("openai", 503, json!({"type": "an_error_of_next_year", "code": "x"}), Overloaded),
        ("gemini", 500, json!({"type": "AN_ERROR_OF_NEXT_YEAR"}), Server),
    ];
    for (kind, status, error, expected) in cases {
        mock.script(json!([{"status": status, "error": error}])).await;
        let told = failure(&provider(kind, &mock.url)).await;
        assert_eq!(told.kind, expected, "{kind} {status} {error}: {told:?}");
    }
}

/// Attempts are the schedule's: a provider hands the server's hint on and makes no second request.
/// Naive: the client retries by itself, so that attempts multiply, and drops the server's hint.
#[tokio::test(flavor = "multi_thread")]
async fn x22_hints_are_handed_on_and_nothing_is_retried_here() {
    let mock = Mock::start().await;
    let hints = [
        (json!({"retry-after": "7"}), Some(7000)),
        (json!({"retry-after-ms": "250", "retry-after": "7"}), Some(250)),
        (
            json!({"retry-after": "Wed, 25 Nov 2026 18:00:30 GMT", "date": "Wed, 25 Nov 2026 18:00:00 GMT"}),
            Some(30_000),
        ),
        (json!({"retry-after": "soon"}), None),
        (json!({}), None),
    ];
    for kind in KINDS {
        for (headers, expected) in &hints {
            let details = json!({"details": []});
            mock.script(json!([{"status": 429, "headers": headers, "error": details, "repeat": -1}])).await;
            let error = failure(&provider(kind, &mock.url)).await;
            assert_eq!((error.kind, error.retry_after_ms), (RateLimited, *expected), "{kind} {headers}");
            assert_eq!(mock.log().await.len(), 1);
        }
    }
    mock.script(json!([{"status": 429, "error": {"retryDelay": "1.5s"}}])).await;
    assert_eq!(failure(&provider("gemini", &mock.url)).await.retry_after_ms, Some(1500));
    mock.script(json!([{"status": 500, "headers": {"x-should-retry": "false"}}])).await;
    assert!(!failure(&provider("anthropic", &mock.url)).await.kind.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_blocked_is_refused() {
    let body = json!({"promptFeedback": {"blockReason": "SAFETY"}});
    let raw = Raw::start(Does::Say(format!("{STREAM}data: {body}\n\n").into_bytes())).await;
    assert_eq!(failure(&provider("gemini", &raw.url)).await.kind, Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_its_own_end_is_truncated_however_it_ends() {
    let mock = Mock::start().await;
    for kind in KINDS {
        let it = provider(kind, &mock.url);
        // After every event but the last: a dropped connection, and a clean end.
        let events = if kind == "gemini" { 2 } else { 5 };
        for at in 0..events {
            for how in ["cut", "end"] {
                let text = "a text of three pieces or more";
                mock.script(json!([{"text": text, how: at}])).await;
                let error = failure(&it).await;
                assert_eq!(error.kind, Truncated, "{kind} {how} {at}: {error:?}");
            }
        }
        // The same as a body that only the closed connection ends: a clean 200.
        let body = format!("{STREAM}{}", first(kind));
        let raw = Raw::start(Does::Say(body.into_bytes())).await;
        assert_eq!(failure(&provider(kind, &raw.url)).await.kind, Truncated, "{kind}");
        let raw = Raw::start(Does::Say(STREAM.as_bytes().to_vec())).await;
        assert_eq!(failure(&provider(kind, &raw.url)).await.kind, Truncated, "{kind}: an empty body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_before_it_is_sent() {
    let mock = Mock::start().await;
    mock.script(json!([])).await;
    for kind in KINDS {
        let it = provider(kind, &mock.url);
        let mut session = asking("hello");
        session.session = Some("s".to_owned());
        let mut option = asking("hello");
        option.agent.insert("permission_mode".to_owned(), json!("plan"));
        for request in [session, option] {
            assert_eq!(call(&it, &request).await.unwrap_err().kind, Unsupported, "{kind}");
        }
        assert_eq!(call(&it, &ModelRequest::default()).await.unwrap_err().kind, Invalid, "{kind}");
    }
    assert!(mock.log().await.is_empty());
}
