//! What is sent is the true format, and what comes back is read in full. The mock server reads as strictly as the services.

use std::sync::Arc;
use std::time::Duration;

use pipeline_core::provider::{Content, Message, ModelRequest, Price, Provider, ProviderEntry, Role};
use pipeline_core::value::Value;
use pipeline_providers::{HttpSettings, MockServerOptions};
use serde_json::json;
use tokio::time::Instant;

use super::support::{KEY, KINDS, Mock, call, provider};
use crate::support::{asking, at, events, function};

fn schema() -> Value {
    json!({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}})
}

/// A conversation with everything in it.
fn rich() -> ModelRequest {
    let media = |media_type: &str, name: &str| Content::Media {
        media_type: media_type.to_owned(),
        name: name.to_owned(),
        data: "aGVsbG8=".to_owned(),
    };
    let text = |text: &str| Content::Text { text: text.to_owned() };
    ModelRequest {
        system: Some("be brief ".repeat(600)),
        append_system: Some("and kind".to_owned()),
        messages: vec![Message {
            role: Role::User,
            content: vec![text("look"), media("image/png", "a.png"), media("application/pdf", "b.pdf")],
        }],
        max_output_tokens: Some(4000),
        functions: vec![function("weather", schema())],
        ..ModelRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_functions_go_there_and_back_with_signed_thinking() {
    let mock = Mock::start().await;
    for kind in KINDS {
        let it = provider(kind, &mock.url);
        let mut request = rich();
        mock.script(json!([
            {"thinking": "let me see", "text": "calling", "tools": [
                {"name": "weather", "input": {"city": "Bern"}}, {"name": "weather", "input": {"city": "Rome"}}]},
            {"text": "sun and rain"},
        ]))
        .await;
        let answer = call(&it, &request).await.unwrap();
        assert_eq!((answer.text.as_str(), answer.stop_reason.as_str()), ("calling", "tool_use"), "{kind}");
        let cities: Vec<&Value> = answer.function_calls.iter().map(|c| &c.arguments["city"]).collect();
        assert_eq!(cities, ["Bern", "Rome"], "{kind}");
        // As a tape or a session keeps it.
        let kept: pipeline_core::provider::ModelAnswer =
            serde_json::from_value(serde_json::to_value(&answer).unwrap()).unwrap();
        request.messages.push(kept.to_message());
        let results = kept.function_calls.iter().zip([("12 degrees", false), ("no such city", true)]);
        let content = results
            .map(|(call, (text, is_error))| Content::ToolResult {
                id: call.id.clone(),
                name: call.name.clone(),
                content: text.to_owned(),
                is_error,
            })
            .collect();
        request.messages.push(Message { role: Role::User, content });
        let answer = call(&it, &request).await.unwrap_or_else(|e| panic!("{kind}: {e:?}"));
        assert_eq!(answer.text, "sun and rain");
        let sent = mock.log().await.pop().unwrap()["body"].clone();
        let text = sent.to_string();
        match kind {
            "anthropic" => {
                let thinking = &sent["messages"][1]["content"][0];
                assert_eq!(thinking["type"], "thinking", "{sent}");
                assert!(thinking["signature"].as_str().is_some_and(|s| !s.is_empty()), "{sent}");
                assert_eq!(sent["messages"][2]["content"][1]["is_error"], true);
                assert_eq!(
                    sent["system"][0]["cache_control"]["type"], "ephemeral",
                    "a long system prompt is kept"
                );
                assert_eq!(sent["messages"][2]["content"][1]["cache_control"]["type"], "ephemeral");
                assert_eq!(sent["max_tokens"], 4000);
                assert_eq!(sent["messages"][0]["content"][2]["type"], "document");
            }
            "gemini" => {
                let calls = &sent["contents"][1]["parts"];
                assert!(text.contains("\"thoughtSignature\":\"bW9jay1zaWc=\""), "{sent}");
                assert!(
                    calls[1]["functionCall"].is_object() && calls[1]["thoughtSignature"].is_string(),
                    "{sent}"
                );
                assert_eq!(
                    sent["contents"][2]["parts"][1]["functionResponse"]["response"]["error"],
                    "no such city"
                );
                assert_eq!(sent["generationConfig"]["maxOutputTokens"], 4000);
            }
            _ => {
                assert_eq!(
                    sent["messages"][2]["tool_calls"][1]["function"]["arguments"],
                    "{\"city\":\"Rome\"}"
                );
                assert_eq!(sent["messages"][4]["content"], "Error: no such city", "{sent}");
                assert_eq!(sent["max_tokens"], 4000, "an older server's name for it");
                assert_eq!(sent["stream_options"]["include_usage"], true);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_travels_in_its_header_and_nowhere_else() {
    let mock = Mock::start().await;
    for (kind, header) in
        [("anthropic", "x-api-key"), ("gemini", "x-goog-api-key"), ("openai", "authorization")]
    {
        mock.script(json!([])).await;
        call(&provider(kind, &mock.url), &asking("hello")).await.unwrap();
        let log = mock.log().await.pop().unwrap();
        assert!(log["headers"].get(header).is_some(), "{log}");
        assert!(!log.to_string().contains(KEY), "neither in the URL nor in the body: {log}");
        assert!(log["headers"]["user-agent"].as_str().unwrap().starts_with("pipeline/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_output_is_bound_natively_where_it_can_be() {
    let mock = Mock::start().await;
    let places = [
        ("anthropic", "/output_config/format/schema"),
        ("gemini", "/generationConfig/responseJsonSchema"),
        ("openai", "/response_format/json_schema/schema"),
    ];
    for (kind, place) in places {
        let it = provider(kind, &mock.url);
        let mut request = asking("where");
        request.output_schema = Some(schema());
        mock.script(json!([])).await;
        // The built-in answer of the server is an instance of the schema that it read.
        let answer = call(&it, &request).await.unwrap();
        let value: Value = serde_json::from_str(&answer.text).unwrap();
        assert!(value["city"].is_string(), "{kind}: {value}");
        let sent = mock.log().await.pop().unwrap()["body"].clone();
        assert!(sent.pointer(place).is_some_and(Value::is_object), "{kind}: {sent}");
        if kind != "gemini" {
            // What cannot be bound is told in words.
            request.output_schema = Some(json!({"type": "array", "items": {"type": "string"}}));
            mock.script(json!([{"text": "[]"}])).await;
            call(&it, &request).await.unwrap();
            let sent = mock.log().await.pop().unwrap()["body"].to_string();
            assert!(sent.contains("fits this JSON Schema"), "{sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_the_service() {
    let mock = Mock::start().await;
    let cases = [
        (
            "anthropic",
            json!({"thinking_budget": 1024, "effort": "low"}),
            "/thinking/budget_tokens",
            json!(1024),
        ),
        ("anthropic", json!({"thinking_budget": "adaptive"}), "/thinking/type", json!("adaptive")),
        (
            "gemini",
            json!({"thinking_budget": 0}),
            "/generationConfig/thinkingConfig/thinkingBudget",
            json!(0),
        ),
        (
            "gemini",
            json!({"safety_settings": {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"}}),
            "/safetySettings/0/threshold",
            json!("BLOCK_NONE"),
        ),
        ("openai", json!({"effort": "high", "seed": 7}), "/reasoning_effort", json!("high")),
    ];
    for (kind, options, place, expected) in cases {
        let mut request = asking("think");
        request.temperature = Some(0.5);
        request.agent = options.as_object().cloned().unwrap();
        mock.script(json!([])).await;
        call(&provider(kind, &mock.url), &request).await.unwrap();
        let sent = mock.log().await.pop().unwrap()["body"].clone();
        assert_eq!(sent.pointer(place), Some(&expected), "{kind}: {sent}");
        assert!(sent.to_string().contains("\"temperature\":0.5"), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_means_the_same_for_every_provider_and_is_told_as_it_grows() {
    let mock = Mock::start().await;
    let figures = [
        (
            "anthropic",
            "sonnet",
            json!({"input_tokens": 100, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0, "output_tokens": 30}),
        ),
        (
            "gemini",
            "gemini-2.5-flash",
            json!({"promptTokenCount": 140, "cachedContentTokenCount": 40, "candidatesTokenCount": 20, "thoughtsTokenCount": 10}),
        ),
        (
            "openai",
            "gpt-5",
            json!({"prompt_tokens": 140, "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens": 30}),
        ),
    ];
    for (kind, model, usage) in figures {
        let it = provider(kind, &mock.url);
        let request = ModelRequest { model: Some(model.to_owned()), ..asking("hello") };
        mock.script(json!([{"text": "a text of some pieces", "usage": usage}])).await;
        let (pieces, answer) = events(&it, &request, &at("step")).await;
        assert!(pieces.len() > 1 && pieces.concat() == answer.text, "{kind}: {pieces:?}");
        let used = answer.usage;
        assert_eq!((used.input, used.cache_read, used.output, used.calls), (100, 40, 30, 1), "{kind}");
        assert!(used.cost_usd.is_some_and(|c| c > 0.0) && used.unpriced_calls == 0, "{kind}: {used:?}");
        assert!(answer.request_id.is_some_and(|id| id.starts_with("req_")), "{kind}");
    }
    let unknown = ModelRequest { model: Some("nobody-knows".to_owned()), ..asking("hello") };
    mock.script(json!([])).await;
    let answer = call(&provider("openai", &mock.url), &unknown).await.unwrap();
    assert_eq!((answer.usage.cost_usd, answer.usage.unpriced_calls), (None, 1), "never a made-up 0");
}

/// Whatever a service may bill for what was sent and for an answer as long as it was allowed, the bound is not below it.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_costs_more_than_its_worst_case() {
    let mock = Mock::start().await;
    for (kind, model) in
        [("anthropic", "claude-haiku-4-5"), ("gemini", "gemini-2.5-pro"), ("openai", "gpt-4o-mini")]
    {
        let it = provider(kind, &mock.url);
        let mut requests = vec![asking("hi"), rich(), asking(&"é\"\n\u{1F600}".repeat(5000))];
        for request in &mut requests {
            request.model = Some(model.to_owned());
            let output = request.max_output_tokens.unwrap_or(8000);
            request.max_output_tokens = Some(output);
            let worst = it.worst_case(request);
            let bytes = it.body(request).unwrap().to_string().len();
            // Each byte a token, written to the cache, and every token that was allowed.
            let usage = match kind {
                "anthropic" => {
                    json!({"input_tokens": 0, "cache_creation_input_tokens": bytes, "output_tokens": output})
                }
                "gemini" => {
                    json!({"promptTokenCount": bytes, "candidatesTokenCount": 0, "thoughtsTokenCount": output})
                }
                _ => json!({"prompt_tokens": bytes, "completion_tokens": output}),
            };
            mock.script(json!([{"text": "x", "usage": usage}])).await;
            let used = call(&it, request).await.unwrap().usage;
            assert!(used.tokens() <= worst.tokens, "{kind}: {used:?} over {worst:?}");
            let Price::AtMost(most) = worst.cost else { panic!("{kind}: {worst:?}") };
            assert!(used.cost_usd.unwrap() <= most, "{kind}: {used:?} over {worst:?}");
        }
        let unknown = ModelRequest { model: Some("nobody-knows".to_owned()), ..asking("hi") };
        assert_eq!(it.worst_case(&unknown).cost, Price::Unknown, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_marked_is_written_to_the_cache_once_and_read_afterwards() {
    let mock = Mock::start().await;
    let it = provider("anthropic", &mock.url);
    let first = call(&it, &rich()).await.unwrap().usage;
    let second = call(&it, &rich()).await.unwrap().usage;
    assert!(first.cache_write > 1000 && first.cache_read == 0, "{first:?}");
    assert!(second.cache_read == first.cache_write && second.cache_write == 0, "{second:?}");
    assert!(second.cost_usd < first.cost_usd);
}

#[tokio::test]
async fn a_batch_has_the_same_requests_without_streams() {
    let it = provider("anthropic", "http://127.0.0.1:1");
    let entry = it.batch_entry("item-1", &rich()).unwrap().unwrap();
    assert_eq!(entry.custom_id, "item-1");
    assert!(entry.params.get("stream").is_none() && entry.params["max_tokens"] == 4000, "{entry:?}");
    assert!(provider("openai", "http://127.0.0.1:1").batch_entry("x", &rich()).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_an_account_are_kept_and_told() {
    let options = MockServerOptions { requests_per_minute: Some(3), ..Default::default() };
    let mock = Mock::with(options).await;
    for kind in KINDS {
        let it = provider(kind, &mock.url);
        let outcomes: Vec<_> = [call(&it, &asking("a")).await, call(&it, &asking("b")).await].into();
        if let Some(Err(error)) = outcomes.iter().find(|o| o.is_err()) {
            assert_eq!(error.kind, pipeline_core::error::ErrorKind::RateLimited);
            assert!(error.retry_after_ms.is_some_and(|ms| ms > 0 && ms <= 20_000), "{kind}: {error:?}");
        }
    }
    assert!(
        call(&provider("openai", &mock.url), &asking("c")).await.is_err(),
        "six were too many for three a minute"
    );
}

/// Naive: the server reads the text of a rule and nothing else of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_honours_steps_counts_and_delays_of_its_rules() {
    let rules = "rules:
  - {match: {step: slow}, text: late, delay_ms: [300, 310]}
  - {match: {step: draft, call: 2}, error: {kind: overloaded}}
  - {match: {step: draft}, text: first, times: 1}
  - {text: any}";
    let rules = Arc::new(pipeline_providers::MockRules::parse(rules, "rules").unwrap());
    let mock = Mock::with(MockServerOptions { rules, ..MockServerOptions::default() }).await;
    for kind in KINDS {
        let it = provider(kind, &mock.url);
        // Every kind is a step of its own: counts are per step.
        let draft = at(&format!("{kind}/draft"));
        let mut said = Vec::new();
        for _ in 0..3 {
            let answer = it.complete(&asking("hello"), &draft).await;
            said.push(answer.map_or_else(|error| error.kind.name().to_owned(), |answer| answer.text));
        }
        assert_eq!(said, ["first", "overloaded", "any"], "{kind}");
        let begun = Instant::now();
        assert_eq!(it.complete(&asking("hello"), &at("slow")).await.unwrap().text, "late");
        assert!(begun.elapsed() >= Duration::from_millis(300), "{kind}: {:?}", begun.elapsed());
    }
}

/// Naive: names of steps go to whoever is asked.
#[tokio::test]
async fn names_of_steps_stay_on_this_machine() {
    let local = |url: &str| {
        let entry =
            ProviderEntry { name: "it".to_owned(), kind: "openai".to_owned(), ..ProviderEntry::default() };
        let mut settings = HttpSettings::new(entry);
        settings.base_url = Some(url.to_owned());
        settings.is_local()
    };
    for url in ["http://127.0.0.1:1/v1", "http://localhost", "https://[::1]:7/x"] {
        assert!(local(url), "{url}");
    }
    for url in ["https://api.openai.com/v1", "http://127.0.0.1.evil.example", "http://localhost@evil.example"]
    {
        assert!(!local(url), "{url}");
    }
}
