//! Every way in which a run of the CLI can end, and the one typed error that it gives.

use std::time::Duration;

use futures_util::StreamExt;
use pipeline_core::error::ErrorKind::{self, *};
use pipeline_core::provider::{ModelEvent, ModelRequest, Provider};
use serde_json::{Value, json};

use super::support::{Fake, NOW, PRINT, assistant, delta, failure, init, result, synthetic};
use crate::support::asking;

#[tokio::test]
async fn an_answer_has_text_usage_cost_and_a_session() {
    let lines = [init(), delta("Hel"), delta("lo"), assistant("Hello"), result("Hello", json!({}))];
    let fake = Fake::new(PRINT, &lines);
    let answer = fake.ask(&asking("hi")).await.unwrap();
    assert_eq!(answer.text, "Hello");
    assert_eq!(answer.model, "claude-opus-4-8");
    assert_eq!(answer.stop_reason, "end_turn");
    assert_eq!(answer.session_id.as_deref(), Some("35e7aa49-8725-4ebe-852e-0e0907adc75b"));
    let usage = answer.usage;
    assert_eq!((usage.input, usage.output, usage.cache_read, usage.cache_write), (1682, 15, 70, 5));
    assert_eq!((usage.cost_usd, usage.calls, usage.unpriced_calls), (Some(0.0087), 1, 0));
}

#[tokio::test]
async fn pieces_tools_and_retries_are_told_while_it_runs() {
    let tool = json!({"type": "assistant", "parent_tool_use_id": null, "message": {"id": "m", "model": "c",
        "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]}});
    let subagent = json!({"type": "stream_event", "parent_tool_use_id": "t", "event": {
        "type": "content_block_delta", "delta": {"type": "text_delta", "text": "not ours"}}});
    let retry = json!({"type": "system", "subtype": "api_retry", "attempt": 1, "retry_delay_ms": 600.2,
        "error_status": 529, "error": "overloaded"});
    let fallback = json!({"type": "system", "subtype": "model_fallback", "trigger": "overloaded",
        "original_model": "opus", "fallback_model": "sonnet"});
    let unknown = json!({"type": "nobody_knows", "x": [1]});
    let lines = [init(), unknown, tool, subagent, retry, fallback, delta("done"), result("done", json!({}))];
    let fake = Fake::new(PRINT, &lines);
    let cx = fake.context();
    let mut stream = fake.provider().start(&asking("hi"), &cx).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = stream.next().await {
        told.push(match event.unwrap() {
            ModelEvent::TextDelta(text) => format!("text {text}"),
            ModelEvent::ToolCall { name } => format!("tool {name}"),
            ModelEvent::Note(note) => note,
            ModelEvent::Finished(answer) => format!("answer, {} warning", answer.warnings.len()),
            ModelEvent::ThinkingDelta(_) | ModelEvent::Usage(_) => continue,
        });
    }
    assert_eq!(
        told,
        [
            "tool Bash",
            "the agent tries its call again after 600 ms: overloaded (529)",
            "sonnet took over from opus: overloaded",
            "text done",
            "answer, 1 warning",
        ]
    );
}

#[tokio::test]
async fn the_last_result_wins() {
    let later = result("later", json!({"origin": {"kind": "task-notification"}}));
    let fake = Fake::new(PRINT, &[init(), result("first", json!({})), later]);
    assert_eq!(fake.ask(&asking("hi")).await.unwrap().text, "later");
}

#[tokio::test]
async fn data_is_the_answer_where_data_was_asked_for() {
    let lines = [init(), assistant("x"), result("some words", json!({"structured_output": {"n": 7}}))];
    let fake = Fake::new(PRINT, &lines);
    let request = ModelRequest { output_schema: Some(json!({"type": "object"})), ..asking("hi") };
    assert_eq!(fake.ask(&request).await.unwrap().text, r#"{"n":7}"#);
}

/// What it is, what is printed, the exit code, the error's kind, words in it.
type Case = (&'static str, Vec<Value>, u8, ErrorKind, &'static str);

async fn expect(cases: Vec<Case>) {
    for (case, lines, code, kind, words) in cases {
        let fake = Fake::new(&format!("{PRINT}; exit {code}"), &lines);
        let error = fake.ask(&asking("hi")).await.expect_err(case);
        assert_eq!(error.kind, kind, "{case}: {error:?}");
        assert!(error.message.contains(words), "{case}: {error:?}");
        assert_eq!(error.details["exit_code"], json!(code), "{case}: {error:?}");
    }
}

/// One typed error for each way of going wrong, whatever the exit code says.
#[tokio::test]
async fn an_agent_cannot_lie() {
    let denial = json!([{"tool_name": "Write", "tool_use_id": "t", "tool_input": {"file_path": "x"}}]);
    let refused = json!({"type": "user", "message": {"content": [{"type": "tool_result", "is_error": true,
        "content": "<tool_use_error>Error: No such tool available: Write. Use another.</tool_use_error>"}]}});
    // What it prints, how it exits, the error's kind, words in it.
    let cases: Vec<Case> = vec![
        (
            "success, exit 1",
            vec![init(), assistant("x"), result("x", json!({}))],
            1,
            Truncated,
            "exit code 1",
        ),
        ("no result", vec![init(), assistant("x")], 0, Truncated, "without a result"),
        ("nothing at all", vec![], 0, Truncated, "without a result"),
        (
            "zero turns",
            vec![init(), result("Total cost: $0", json!({"num_turns": 0}))],
            0,
            Invalid,
            "never asked",
        ),
        ("denied", vec![init(), result("end", json!({"permission_denials": denial}))], 0, Denied, "Write"),
        ("tool refused", vec![init(), refused, result("end", json!({}))], 0, Denied, "No such tool"),
        (
            "refusal",
            vec![result("API Error: no", json!({"is_error": true, "stop_reason": "refusal"}))],
            1,
            Refused,
            "no",
        ),
        ("refusal, exit 0", vec![result("no", json!({"stop_reason": "refusal"}))], 0, Refused, "no"),
        ("no is_error", vec![result("x", json!({"is_error": null}))], 0, Server, "x"),
        (
            "max turns",
            vec![failure("error_max_turns", "Reached maximum number of turns (1)", json!({}))],
            1,
            Budget,
            "(1)",
        ),
        (
            "money",
            vec![failure("error_max_budget_usd", "Reached maximum budget ($0.001)", json!({}))],
            1,
            Budget,
            "0.001",
        ),
        (
            "schema",
            vec![failure("error_max_structured_output_retries", "5 tries", json!({}))],
            1,
            Schema,
            "5 tries",
        ),
        (
            "unknown session",
            vec![failure(
                "error_during_execution",
                "No conversation found with session ID: 0",
                json!({"num_turns": 0}),
            )],
            1,
            Invalid,
            "No conversation",
        ),
        ("interrupted", vec![failure("error_during_execution", "stopped", json!({}))], 0, Server, "stopped"),
        (
            "unknown subtype",
            vec![failure("error_something_new", "new", json!({}))],
            1,
            Server,
            "error_something_new",
        ),
        ("empty", vec![init(), result("", json!({"num_turns": 2}))], 0, Truncated, "empty"),
    ];
    expect(cases).await;
}

#[tokio::test]
async fn errors_of_the_service_have_their_kinds() {
    let api = |status: Value, text: &str| result(text, json!({"is_error": true, "api_error_status": status}));
    let cases: Vec<Case> = vec![
        ("400", vec![api(json!(400), "bad request")], 1, Invalid, "bad request"),
        (
            "too long",
            vec![result(
                "Prompt is too long",
                json!({"is_error": true, "api_error_status": 400, "terminal_reason": "prompt_too_long"}),
            )],
            1,
            TooLarge,
            "too long",
        ),
        (
            "401",
            vec![synthetic("authentication_failed", "x"), api(json!(401), "Failed to authenticate")],
            1,
            Auth,
            "authenticate",
        ),
        (
            "not logged in",
            vec![api(json!(null), "Not logged in · Please run /login")],
            1,
            Auth,
            "Not logged in",
        ),
        ("403", vec![api(json!(403), "forbidden")], 1, Denied, "forbidden"),
        ("404", vec![api(json!(404), "model: nope")], 1, Invalid, "nope"),
        ("413", vec![api(json!(413), "large")], 1, TooLarge, "large"),
        (
            "429",
            vec![synthetic("rate_limit", "x"), api(json!(429), "API Error: Request rejected (429) · slow")],
            1,
            RateLimited,
            "slow",
        ),
        ("500", vec![api(json!(500), "ouch")], 1, Server, "ouch"),
        ("529", vec![api(json!(529), "ouch")], 1, Overloaded, "ouch"),
        ("529 at last", vec![api(json!(null), "Repeated 529 Overloaded errors")], 1, Overloaded, "529"),
        (
            "refused connection",
            vec![api(json!(null), "Unable to connect to API (ConnectionRefused)")],
            1,
            Network,
            "Refused",
        ),
        (
            "lost connection",
            vec![
                synthetic("server_error", "x"),
                api(json!(null), "API Error: Connection to the API was lost (ECONNRESET)."),
            ],
            1,
            Network,
            "ECONNRESET",
        ),
        (
            "output tokens",
            vec![api(json!(null), "API Error: Claude's response exceeded the 64000 output token maximum.")],
            1,
            TooLarge,
            "64000",
        ),
        (
            "credit",
            vec![synthetic("billing_error", "x"), api(json!(400), "Credit balance is too low")],
            1,
            Quota,
            "Credit",
        ),
    ];
    expect(cases).await;
}

#[tokio::test]
async fn data_that_is_missing_is_an_error_of_the_schema() {
    let fake = Fake::new(PRINT, &[init(), assistant("plain"), result("plain", json!({}))]);
    let request = ModelRequest { output_schema: Some(json!({"type": "object"})), ..asking("hi") };
    let error = fake.ask(&request).await.unwrap_err();
    assert_eq!(error.kind, Schema);
    assert_eq!(error.details["usage"]["input_tokens"], 1682, "what was paid is told: {error:?}");
}

#[tokio::test]
async fn a_used_up_account_says_when_it_is_good_again() {
    let wake = NOW / 1000 + 3600;
    let limit = |status: &str| {
        json!({"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": wake,
            "rateLimitType": "five_hour"}})
    };
    let said = |text: &str| {
        [synthetic("rate_limit", text), result(text, json!({"is_error": true, "api_error_status": 429}))]
    };
    let told = [limit("rejected")].into_iter().chain(said("You've hit your session limit · resets 3pm"));
    let written = said(&format!("Claude AI usage limit reached|{wake}"));
    for lines in [told.collect::<Vec<_>>(), written.to_vec()] {
        let error = Fake::new(&format!("{PRINT}; exit 1"), &lines).ask(&asking("hi")).await.unwrap_err();
        assert_eq!((error.kind, error.retry_after_ms), (Quota, Some(3_600_000)), "{error:?}");
    }
    let lines: Vec<_> = [limit("allowed")].into_iter().chain(said("Request rejected (429) · slow")).collect();
    let error = Fake::new(&format!("{PRINT}; exit 1"), &lines).ask(&asking("hi")).await.unwrap_err();
    assert_eq!((error.kind, error.retry_after_ms), (RateLimited, None), "{error:?}");
}

#[tokio::test]
async fn no_credential_is_in_an_error() {
    let fake = Fake::new("cat >/dev/null; echo \"bad key $ANTHROPIC_API_KEY\" >&2; exit 1", &[]);
    let error = fake.ask(&asking("hi")).await.unwrap_err();
    let told = serde_json::to_string(&error).unwrap();
    assert!(told.contains("bad key ⟦secret⟧") && !told.contains("very-secret"), "{told}");
}

/// Naive: a process that ends, dies or talks nonsense takes its caller along, or hangs it.
#[tokio::test]
async fn n04_whatever_the_child_does_is_one_typed_error() {
    let good = Fake::new(PRINT, &[init(), assistant("ok"), result("ok", json!({}))]);
    let cases = [
        ("exit 1", "cat >/dev/null; echo 'error: unknown option' >&2; exit 1", Invalid, "unknown option"),
        ("exit 101", "echo \"thread 'main' panicked at x.rs:1\" >&2; exit 101", Truncated, "panicked"),
        ("killed", "cat \"$FAKE_DIR/lines\"; kill -9 $$", Truncated, "signal 9"),
        ("garbage", "head -c 3000 /dev/urandom | base64; sleep 60", Parse, "no JSON object"),
        ("no object", "echo '[1, 2]'; sleep 60", Parse, "[1, 2]"),
        ("torn", "printf '{\"type\":\"result\",\"subt'", Truncated, "middle of a line"),
        ("closes its output", "exec >&- 2>&-; sleep 60", Truncated, "went on running"),
    ];
    for (case, script, kind, words) in cases {
        let fake = Fake::new(script, &[init()]);
        let request = asking("hi");
        let (error, sibling) = tokio::join!(fake.ask(&request), good.ask(&request));
        let error = error.expect_err(case);
        assert_eq!(error.kind, kind, "{case}: {error:?}");
        assert!(error.to_string().contains(words), "{case}: {error:?}");
        assert_eq!(sibling.unwrap().text, "ok");
    }
}

/// Naive: lines and streams of any size in memory.
#[tokio::test]
async fn n19c_a_flood_ends_at_the_limit() {
    let fake = Fake::new("head -c 100000000 /dev/zero | tr '\\0' x; sleep 60", &[]);
    let error = fake.ask(&asking("hi")).await.unwrap_err();
    assert_eq!(error.kind, TooLarge, "{error:?}");
    let complaints = "cat >/dev/null; head -c 100000000 /dev/zero | tr '\\0' x >&2; cat \"$FAKE_DIR/lines\"";
    let fake = Fake::new(complaints, &[init(), assistant("ok"), result("ok", json!({}))]);
    assert_eq!(fake.ask(&asking("hi")).await.unwrap().text, "ok");
}

#[tokio::test]
async fn x26_a_child_that_never_answers_ends_at_the_deadline() {
    let fake = Fake::new("exec sleep 300", &[]);
    let mut cx = fake.context();
    let begun = tokio::time::Instant::now();
    cx.deadline = begun + Duration::from_millis(300);
    let error = fake.provider().complete(&asking("hi"), &cx).await.unwrap_err();
    assert_eq!(error.kind, TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
