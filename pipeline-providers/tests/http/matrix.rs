//! Every provider, every fault: the right kind, bounded time and memory, one request and no more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline_core::error::ErrorKind::{self, *};
use pipeline_core::provider::ModelRequest;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::{Does, KEY, KINDS, Mock, Raw, STREAM, call, failure, first, patient, provider};
use super::untrusted::untrusted;
use crate::support::asking;

/// Longest time that a fault may take: the limits of these providers, and room for a busy machine.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn every_status_is_told_by_its_kind() {
    let mock = Mock::start().await;
    let cases = [
        (400, Invalid),
        (401, Auth),
        (402, Quota),
        (403, Denied),
        (404, Invalid),
        (413, TooLarge),
        (422, Invalid),
        (429, RateLimited),
        (500, Server),
        (502, Server),
        (504, Server),
        (529, Overloaded),
    ];
    for kind in KINDS {
        for (status, expected) in cases {
            let words = format!("no: {KEY}");
            mock.script(json!([{"status": status, "error": {"message": words}, "repeat": -1}])).await;
            let error = failure(&provider(kind, &mock.url)).await;
            assert_eq!(error.kind, expected, "{kind} {status}: {error:?}");
            assert!(error.message.contains("no: ⟦secret⟧"), "{error:?}");
            assert_eq!(error.details["status"], json!(status), "{error:?}");
            assert!(
                error.details["request_id"].as_str().is_some_and(|id| id.starts_with("req_")),
                "{error:?}"
            );
            assert_eq!(mock.log().await.len(), 1, "{kind} {status}: no retry");
        }
    }
}

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

/// What a provider's stop reasons are called.
fn stops(kind: &str) -> [(&'static str, ErrorKind); 2] {
    match kind {
        "anthropic" => [("max_tokens", TooLarge), ("refusal", Refused)],
        "gemini" => [("MAX_TOKENS", TooLarge), ("SAFETY", Refused)],
        _ => [("length", TooLarge), ("content_filter", Refused)],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_no_success() {
    let mock = Mock::start().await;
    for kind in KINDS {
        let it = provider(kind, &mock.url);
        for (stop, expected) in stops(kind) {
            mock.script(json!([{"text": "some of it", "stop": stop}])).await;
            let error = failure(&it).await;
            assert_eq!(error.kind, expected, "{kind} {stop}: {error:?}");
            assert!(
                error.details["usage"]["output_tokens"].as_u64().unwrap() > 0,
                "what was paid is told: {error:?}"
            );
        }
        mock.script(json!([{"text": ""}])).await;
        assert_eq!(failure(&it).await.kind, Truncated, "{kind}: nothing is no answer");
        mock.script(json!([{"text": "par", "sse_error": {"type": "overloaded_error", "message": "busy", "status": "UNAVAILABLE"}}])).await;
        let error = failure(&it).await;
        assert_eq!(error.kind, Overloaded, "{kind}: {error:?}");
        assert!(error.message.contains("busy"), "{error:?}");
        // Words of next year are no failure.
        mock.script(json!([{"text": "all of it", "stop": "a_reason_of_next_year"}])).await;
        let answer = call(&it, &asking("hello")).await.unwrap();
        assert_eq!(
            (answer.text.as_str(), answer.stop_reason.as_str()),
            ("all of it", "a_reason_of_next_year")
        );
        assert_eq!(answer.warnings.len(), 1, "{:?}", answer.warnings);
        mock.script(json!([{"text": "all of it", "fault": "unknown_event"}])).await;
        assert_eq!(call(&it, &asking("hello")).await.unwrap().text, "all of it", "{kind}");
    }
    mock.script(json!([{"raw": json!({"promptFeedback": {"blockReason": "SAFETY"}}).to_string()}])).await;
    let error = failure(&provider("gemini", &mock.url)).await;
    assert_eq!(error.kind, Parse, "a whole answer where a stream was asked for: {error:?}");
    let blocked = format!("{STREAM}data: {}\n\n", json!({"promptFeedback": {"blockReason": "SAFETY"}}));
    let raw = Raw::start(Does::Say(blocked.into_bytes())).await;
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

/// The raw faults of one provider, by name.
fn faults(kind: &str) -> Vec<(&'static str, Does, ErrorKind)> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let stream = |more: &str| bytes(&format!("{STREAM}{more}"));
    let json = |body: Value| {
        let body = body.to_string();
        bytes(&format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let half = format!("{chunked}{:x}\r\n{}", first(kind).len() + 100, first(kind));
    let drip = Duration::from_millis(20);
    // Events that every client passes over: nothing of them is stored, and yet they must end.
    let empty = match kind {
        "anthropic" => json!({"type": "ping"}),
        "gemini" => json!({"candidates": []}),
        _ => json!({"choices": []}),
    };
    let empty = format!(": {}\ndata: {empty}\n\n", "x".repeat(60_000));
    let in_body = match kind {
        "gemini" => json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "m"}}),
        _ => json!({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}),
    };
    vec![
        ("no answer", Does::Hang(Vec::new()), TimedOut),
        ("no body", Does::Hang(bytes(STREAM)), TimedOut),
        ("silence in the middle", Does::Hang(stream(&first(kind))), TimedOut),
        ("dripped head", Does::Drip(bytes("HTTP/1.1 200 OK\r\nx-a: "), bytes("a"), drip), TimedOut),
        ("dripped comments", Does::Drip(stream(&first(kind)), bytes(": here\n\n"), drip), TimedOut),
        ("dripped halves", Does::Drip(stream("data: "), bytes("x"), drip), TimedOut),
        ("half a chunk", Does::Say(half.into_bytes()), Truncated),
        ("garbage JSON", Does::Say(stream("data: {\"a\": \n\n")), Parse),
        ("not UTF-8", Does::Say([stream("data: "), vec![0xff, 0xfe], bytes("\n\n")].concat()), Parse),
        (
            "HTML",
            Does::Say(bytes("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<hi>")),
            Parse,
        ),
        ("a whole answer", Does::Say(json(json!({"text": "hello"}))), Parse),
        ("an error with status 200", Does::Say(json(in_body)), Overloaded),
        (
            "a redirect",
            Does::Say(bytes(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            )),
            Invalid,
        ),
        ("another protocol", Does::Say(bytes("SSH-2.0-OpenSSH_9.6\r\n")), Network),
        ("no word", Does::Say(Vec::new()), Network),
        ("an endless line", Does::Drip(stream("data: "), vec![b'x'; 1 << 16], Duration::ZERO), TooLarge),
        ("endless comments", Does::Drip(stream(""), b": x\n".repeat(1 << 14), Duration::ZERO), TooLarge),
        (
            "an endless text",
            Does::Drip(
                stream(""),
                first(kind).replace("\"par\"", &format!("{:?}", "long ".repeat(1000))).repeat(5).into_bytes(),
                Duration::ZERO,
            ),
            TooLarge,
        ),
        ("endless events", Does::Drip(stream(""), empty.into_bytes(), Duration::ZERO), TooLarge),
        (
            "an endless page",
            Does::Drip(bytes("HTTP/1.1 500 X\r\n\r\n"), vec![b'x'; 1 << 16], Duration::ZERO),
            Server,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn n04_every_fault_is_one_typed_error_soon_and_within_bounds() {
    // What floods a busy machine comes after what counts time.
    for (kind, floods) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let mut all = tokio::task::JoinSet::new();
        for (name, does, expected) in faults(kind).into_iter().filter(|f| f.0.contains("endless") == floods) {
            all.spawn(async move {
                let raw = Raw::start(does).await;
                let it = if floods { patient(kind, &raw.url) } else { provider(kind, &raw.url) };
                let begun = Instant::now();
                let error = failure(&it).await;
                assert_eq!(error.kind, expected, "{kind}, {name}: {error:?}");
                // An endless answer takes as long as its bytes: only that it ends is bounded by size.
                let patience = if floods { Duration::from_secs(30) } else { SOON };
                assert!(begun.elapsed() < patience, "{kind}, {name}: {:?}", begun.elapsed());
                assert_eq!(raw.connections.load(Ordering::SeqCst), 1, "{kind}, {name}: one request");
                let sent = raw.sent.load(Ordering::SeqCst);
                let most = if name == "endless events" { 96 << 20 } else { 32 << 20 };
                assert!(sent < most, "{kind}, {name}: {sent} bytes were taken");
            });
        }
        all.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let plain = Raw::start(Does::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
    let tls = plain.url.replace("http://", "https://");
    let unknown = untrusted();
    let cases = [
        (refused.as_str(), "onnect"),
        (tls.as_str(), "onnect"),
        (unknown.as_str(), "certificate"),
        ("http://no-such-host.invalid", "dns"),
    ];
    for kind in KINDS {
        for (url, told) in cases {
            let error = failure(&provider(kind, url)).await;
            assert_eq!(error.kind, Network, "{kind} {url}: {error:?}");
            assert!(format!("{error:?}").contains(told), "{kind} {url}: {error:?}");
            assert!(error.help.as_deref().is_some_and(|h| h.contains("can be reached")), "{error:?}");
        }
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
