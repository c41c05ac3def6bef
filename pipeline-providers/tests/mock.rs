//! What a mock answers, and the stand-in for a missing credential.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline_core::error::ErrorKind;
use pipeline_core::provider::{FunctionCall, ModelRequest, Price, Provider};
use pipeline_providers::{MockProvider, MockRules, Unavailable, mocks};
use serde_json::{Value, json};

use crate::support::{asking, at, claude, events, function, message};

#[tokio::test]
async fn the_built_in_answer_says_that_it_is_a_mock() {
    let prompt = "Summarise the following text for me, in three sentences, without any jargon.";
    let (pieces, answer) = events(&claude(""), &asking(prompt), &at("review/sum")).await;
    let expected = "Mock answer of claude for step review/sum: Summarise the following text for me, in three sentences, wit";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.model, "sonnet");
    assert_eq!(answer.stop_reason, "end_turn");
    assert!((1..=3).contains(&pieces.len()));
    assert_eq!(pieces.concat(), answer.text);
}

#[tokio::test]
async fn mock_calls_are_counted_and_cost_nothing() {
    let request = ModelRequest { system: Some("abcde".to_owned()), ..asking("abcd") };
    let answer = claude("rules: [{text: 'äöüäö'}]").complete(&request, &at("a")).await.unwrap();
    let usage = answer.usage;
    assert_eq!((usage.input, usage.output, usage.calls), (3, 2, 1));
    assert_eq!((usage.cost_usd, usage.unpriced_calls), (Some(0.0), 0));
    let scripted = claude("rules: [{usage: {input: 100}}]").complete(&request, &at("a")).await.unwrap();
    assert_eq!(scripted.usage.input, 100);
    assert_eq!(scripted.usage.output, u64::try_from(scripted.text.len().div_ceil(4)).unwrap());
}

#[tokio::test]
async fn a_schema_gets_json_that_fits() {
    let schema = json!({
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}, "why": {"type": "string"}},
        "required": ["score"],
    });
    let request = ModelRequest { output_schema: Some(schema.clone()), ..asking("rate it") };
    let answer = claude("").complete(&request, &at("a")).await.unwrap();
    let value: Value = serde_json::from_str(&answer.text).unwrap();
    assert!(jsonschema::is_valid(&schema, &value), "{value}");
    assert_eq!(value["score"], 5);
    assert!(value["why"].as_str().unwrap().starts_with("mock why "), "optional properties are filled");
}

#[tokio::test]
async fn a_schema_that_nothing_fits_is_refused_with_a_way_out() {
    let schema = json!({"type": "object", "required": ["a"], "properties": {"a": false}});
    let request = ModelRequest { output_schema: Some(schema), ..asking("hi") };
    let error = claude("").complete(&request, &at("a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("`output_schema` of step `a`"), "{}", error.message);
    assert!(error.help.unwrap().contains("--mock-rules"));
}

#[tokio::test]
async fn a_declared_function_is_called_once() {
    let parameters = json!({"type": "object", "properties": {"city": {"enum": ["Oslo", "Bonn"]}}});
    let mut request = asking("use get_weather, please");
    request.functions = vec![function("get_time", json!({})), function("get_weather", parameters)];
    let (pieces, answer) = events(&claude(""), &request, &at("a")).await;
    let call = FunctionCall {
        id: answer.function_calls[0].id.clone(),
        name: "get_weather".to_owned(),
        arguments: json!({"city": "Oslo"}),
    };
    assert_eq!(answer.function_calls, [call]);
    assert_eq!(answer.stop_reason, "tool_use");
    assert!(answer.text.is_empty() && pieces.is_empty());

    request.messages = vec![message("user", "anything")];
    let first = claude("").complete(&request, &at("a")).await.unwrap();
    assert_eq!(first.function_calls[0].name, "get_time", "the first, where the prompt names none");

    request.messages.push(message("assistant", "called get_time"));
    request.messages.push(message("user", "it is noon"));
    let last = claude("").complete(&request, &at("a")).await.unwrap();
    assert!(last.function_calls.is_empty(), "an agent's loop comes to its end");
    assert!(last.text.ends_with("it is noon"));
}

#[tokio::test]
async fn rules_replace_the_answer_and_leave_the_rest() {
    let mock = claude(
        "rules:
  - {match: {call: 1}, data: {a: [1, true]}, files: {notes.md: hello}}
  - {match: {call: 2}, function_calls: [{name: f, arguments: {x: 1}}]}
  - {match: {call: 3}, files: {b.md: there}}
",
    );
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(mock.complete(&asking("hi"), &at("a")).await.unwrap());
    }
    assert_eq!(answers[0].text, r#"{"a":[1,true]}"#);
    assert_eq!(answers[0].files, BTreeMap::from([("notes.md".to_owned(), "hello".to_owned())]));
    assert_eq!(answers[1].function_calls[0].arguments, json!({"x": 1}));
    assert_eq!(answers[1].stop_reason, "tool_use");
    assert!(
        answers[2].text.starts_with("Mock answer of claude"),
        "a rule without an answer keeps the built-in one"
    );
    assert_eq!(answers[2].files.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn delays_pass_on_the_runtime_s_clock() {
    let mock = claude("rules: [{match: {step: exact}, delay_ms: 50}, {delay_ms: [10000, 20000]}]");
    let mut spent = Vec::new();
    for path in ["exact", "range", "range"] {
        let before = tokio::time::Instant::now();
        mock.complete(&asking("hi"), &at(path)).await.unwrap();
        spent.push(before.elapsed());
    }
    assert_eq!(spent[0], Duration::from_millis(50));
    assert!((Duration::from_secs(10)..=Duration::from_secs(20)).contains(&spent[1]), "{spent:?}");
    assert_eq!(spent[1], spent[2], "the same call waits the same");
    let before = tokio::time::Instant::now();
    let reseeded = claude("seed: 5\nrules: [{delay_ms: [10000, 20000]}]");
    reseeded.complete(&asking("hi"), &at("range")).await.unwrap();
    assert_ne!(before.elapsed(), spent[1], "another seed waits differently");
}

#[tokio::test]
async fn sessions_are_named_by_the_seed_and_the_path() {
    let session = async |script: &str, path: &str| {
        claude(script).complete(&asking("hi"), &at(path)).await.unwrap().session_id.unwrap()
    };
    assert_eq!(session("", "a").await, session("", "a").await);
    assert_ne!(session("", "a").await, session("", "b").await);
    assert_ne!(session("", "a").await, session("seed: 1", "a").await);
    let going_on = ModelRequest { session: Some("mine".to_owned()), ..asking("hi") };
    let answer = claude("").complete(&going_on, &at("a")).await.unwrap();
    assert_eq!(answer.session_id.as_deref(), Some("mine"));
    let gemini = MockProvider::new("gemini", Arc::default());
    assert_eq!(gemini.complete(&asking("hi"), &at("a")).await.unwrap().session_id, None);
}

#[test]
fn a_mock_reports_what_the_live_backend_honours() {
    let all = mocks(Arc::new(MockRules::default()));
    let models: Vec<_> = all.iter().map(|p| (p.name(), p.default_model())).collect();
    let expected = [
        ("claude", "sonnet"),
        ("gemini", "gemini-2.5-flash"),
        ("openai", "gpt-5-mini"),
        ("ollama", "llama3.2"),
    ];
    assert_eq!(models, expected);
    for provider in &all {
        let can = provider.capabilities();
        let is_agent = provider.name() == "claude";
        assert!(can.structured_output && can.max_output_tokens);
        assert_eq!((can.agent, can.sessions), (is_agent, is_agent));
        assert_eq!((can.sampling, can.functions), (!is_agent, !is_agent));
        assert_eq!(can.options.contains(&"permission_mode"), is_agent);
        assert_eq!(can, Unavailable::new(provider.name(), &[]).capabilities());
    }
}

#[tokio::test]
async fn a_missing_credential_is_one_clear_error() {
    let claude = Unavailable::new("claude", &["ANTHROPIC_API_KEY"]);
    let error = claude.complete(&asking("hi"), &at("a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
    assert_eq!(error.message, "the credential for `claude` is missing: set ANTHROPIC_API_KEY");
    assert!(error.help.unwrap().contains("--mock"));
    let gemini = Unavailable::new("gemini", &["GEMINI_API_KEY", "GOOGLE_API_KEY"]);
    let error = gemini.complete(&asking("hi"), &at("a")).await.unwrap_err();
    assert!(error.message.ends_with("set GEMINI_API_KEY or GOOGLE_API_KEY"), "{}", error.message);
}

#[test]
fn what_a_plan_costs_is_told_before_there_is_a_credential() {
    let cost = |name: &str, model: Option<&str>| {
        let request = ModelRequest { model: model.map(str::to_owned), ..asking("hi") };
        Unavailable::new(name, &[]).worst_case(&request).cost
    };
    assert_eq!(cost("claude", None), Price::AsAllowed, "an agent spends what it is allowed");
    assert!(matches!(cost("gemini", None), Price::AtMost(usd) if usd > 0.0));
    assert_eq!(cost("gemini", Some("a-model-of-tomorrow")), Price::Unknown);
}
