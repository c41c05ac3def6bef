//! What a run of the CLI that ends well tells, and what an error of one may not tell.

use futures_util::StreamExt;
use pipeline_core::error::ErrorKind::*;
use pipeline_core::provider::{ModelEvent, ModelRequest, Provider};
use serde_json::json;

use super::support::{Fake, PRINT, assistant, delta, init, result};
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

#[tokio::test]
async fn data_that_is_missing_is_an_error_of_the_schema() {
    let fake = Fake::new(PRINT, &[init(), assistant("plain"), result("plain", json!({}))]);
    let request = ModelRequest { output_schema: Some(json!({"type": "object"})), ..asking("hi") };
    let error = fake.ask(&request).await.unwrap_err();
    assert_eq!(error.kind, Schema);
    assert_eq!(error.details["usage"]["input_tokens"], 1682, "what was paid is told: {error:?}");
}

#[tokio::test]
async fn no_credential_is_in_an_error() {
    let fake = Fake::new("cat >/dev/null; echo \"bad key $ANTHROPIC_API_KEY\" >&2; exit 1", &[]);
    let error = fake.ask(&asking("hi")).await.unwrap_err();
    let told = serde_json::to_string(&error).unwrap();
    assert!(told.contains("bad key ⟦secret⟧") && !told.contains("very-secret"), "{told}");
}
