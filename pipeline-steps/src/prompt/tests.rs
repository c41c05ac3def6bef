//! The step `prompt` against a scripted provider.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use pipeline_core::catalog::Catalog;
use pipeline_core::engine::effect::{Saved, Surroundings};
use pipeline_core::error::ErrorKind;
use pipeline_core::fact::Usage;
use pipeline_core::path::{OpKey, OpRole, StepPath};
use pipeline_core::plan::{CompileOptions, compile};
use pipeline_core::provider::{Capabilities, Message, ModelAnswer, Role};
use pipeline_core::source::SourceRef;
use pipeline_core::step::EffectPort;
use pipeline_core::store::StoredSources;
use serde_json::json;

use super::*;
use crate::fixture::{Fixture, Script, answer, calling, read, service};
use pipeline_core::value::Value;

/// Runs the step with provider `test`; `with` may leave out the provider.
async fn run_in(cx: &StepContext, with: Value) -> Result<StepOutput, StepError> {
    let mut all = json!({ "provider": "test" });
    all.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    Prompt::new(Arc::default()).run(cx, all.into()).await
}

async fn run(fx: &Fixture, with: Value) -> Result<StepOutput, StepError> {
    run_in(&fx.context(), with).await
}

fn texts(answers: &[&str]) -> Fixture {
    Fixture::answering(answers.iter().map(|a| Ok(answer(a))).collect())
}

fn score() -> Value {
    json!({ "type": "object", "required": ["score"], "properties": { "score": { "type": "integer" } } })
}

#[tokio::test]
async fn the_value_has_every_field_of_a_prompt() {
    let fx = texts(&["Hello"]);
    let output = run(&fx, json!({ "prompt": "Hi" })).await.unwrap();
    let expected = json!({
        "text": "Hello", "model": "test-1", "provider": "test",
        "usage": { "input": 10, "output": 3, "cache_read": 0, "cache_write": 0 },
        "cost_usd": 0.5, "stop_reason": "end_turn", "session_id": "s1",
        "function_calls": [], "attempts": 1, "success": true,
    });
    assert_eq!(output.value, expected);
    assert_eq!(output.usage, answer("").usage);
    let requests = fx.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].messages, [Message::user("Hi")]);
}

#[tokio::test]
async fn every_parameter_reaches_the_provider() {
    let fx = texts(&["Hello"]);
    let with = json!({
        "prompt": "Hi", "model": "m", "system_prompt": "S", "append_system_prompt": { "a": 1 },
        "temperature": 0.2, "top_p": 0.9, "top_k": 40, "max_output_tokens": 100, "max_turns": 3,
        "options": { "cwd": "./x", "hooks": null }, "tools": ["shout"],
        "functions": { "f": { "description": "d", "parameters": { "type": "object" } } },
    });
    let fx = fx.able(Capabilities { options: &["cwd"], ..service() });
    run(&fx, with).await.unwrap();
    let request = &fx.requests()[0];
    assert_eq!(request.model.as_deref(), Some("m"));
    assert_eq!(request.system.as_deref(), Some("S"));
    assert_eq!(request.append_system.as_deref(), Some("{\"a\":1}"));
    assert_eq!((request.temperature, request.top_p, request.top_k), (Some(0.2), Some(0.9), Some(40)));
    assert_eq!((request.max_output_tokens, request.max_turns), (Some(100), Some(3)));
    assert_eq!(Value::Object(request.agent.clone()), json!({ "cwd": "./x" }));
    assert_eq!(request.session, None);
    let names: Vec<&str> = request.functions.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["f", "shout"]);
}

#[tokio::test]
async fn json_that_is_the_whole_answer_is_data() {
    let fx = texts(&["```json\n{\"score\": 7}\n```", "The score is {\"score\": 7}"]);
    assert_eq!(run(&fx, json!({ "prompt": "Hi" })).await.unwrap().value["data"], json!({ "score": 7 }));
    let value = run(&fx, json!({ "prompt": "Hi" })).await.unwrap().value;
    assert!(value.get("data").is_none(), "the text stays the primary value: {value}");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_repaired_and_everything_is_paid_for() {
    let fx = texts(&["seven", "{\"score\": \"7\"}", "{\"score\": 7}"]);
    let output = run(&fx, json!({ "prompt": "Rate", "output_schema": score() })).await.unwrap();
    assert_eq!(output.value["data"], json!({ "score": 7 }));
    assert_eq!(output.value["usage"]["input"], 30);
    assert_eq!((output.usage.calls, output.usage.cost_usd), (3, Some(1.5)));
    let requests = fx.requests();
    let roles: Vec<Role> = requests[2].messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User, Role::Assistant, Role::User]);
    assert!(requests[1].messages[2].text().contains("not one JSON value"));
    assert!(requests[2].messages[4].text().contains("/score"), "{}", requests[2].messages[4].text());
    assert_eq!(requests[0].output_schema, Some(score()));
}

#[tokio::test]
async fn an_answer_that_never_fits_fails_with_its_violations() {
    let fx = texts(&["{}", "{}"]);
    let with = json!({ "prompt": "Rate", "output_schema": score(), "repair_attempts": 1 });
    let error = run(&fx, with).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Schema);
    assert!(error.message.contains("after 1 repair") && error.message.contains("score"), "{}", error.message);
    assert_eq!(error.details["usage"]["calls"], 2);
    assert_eq!(error.details["violations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn loose_validation_goes_on_with_a_warning_but_not_without_json() {
    let fx = texts(&["{\"score\": \"7\"}", "seven"]);
    let with = json!({
        "prompt": "Rate", "output_schema": score(), "repair_attempts": 0, "validation_mode": "loose",
    });
    let output = run(&fx, with.clone()).await.unwrap();
    assert_eq!(output.value["data"], json!({ "score": "7" }));
    assert!(output.warnings[0].contains("/score"), "{:?}", output.warnings);
    assert_eq!(run(&fx, with).await.unwrap_err().kind, ErrorKind::Schema);
}

#[tokio::test]
async fn json_asks_for_an_object() {
    let fx = texts(&["[1]", "{\"a\": 1}"]);
    let output = run(&fx, json!({ "prompt": "List", "json": true })).await.unwrap();
    assert_eq!(output.value["data"], json!({ "a": 1 }));
    assert_eq!(fx.requests()[0].output_schema, Some(json!({ "type": "object" })));
}

#[tokio::test]
async fn tools_are_executed_and_declared_functions_are_handed_back() {
    let calls = [("shout", json!({ "text": "hi" })), ("declared", json!({ "a": 1 })), ("broken", json!({}))];
    let fx = Fixture::answering(vec![Ok(calling(&calls)), Ok(answer("done"))]);
    let with = json!({
        "prompt": "Go", "tools": ["shout", "broken"],
        "functions": [{ "name": "declared", "description": "d", "parameters": {} }],
    });
    let output = run(&fx, with).await.unwrap();
    assert_eq!(output.value["text"], "done");
    assert_eq!(
        output.value["function_calls"],
        json!([{ "id": "call_declared", "name": "declared", "arguments": { "a": 1 } }])
    );
    assert_eq!(output.usage.calls, 2);
    let called: Vec<String> = fx.tools.calls.lock().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(called, ["shout", "broken"]);
    let told = fx.requests()[1].messages[2].text();
    assert!(told.contains("HI"), "{told}");
    assert!(told.contains("invalid: the tool is broken"), "{told}");
}

#[tokio::test]
async fn a_tool_that_is_not_reached_fails_the_step_so_that_it_can_be_retried() {
    let fx = Fixture::answering(vec![Ok(calling(&[("offline", json!({}))]))]);
    let error = run(&fx, json!({ "prompt": "Go", "tools": ["offline"] })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network);
}

#[tokio::test]
async fn a_model_that_only_calls_tools_is_stopped() {
    let again = || Ok(calling(&[("shout", json!({ "text": "x" }))]));
    let fx = Fixture::answering(vec![again(), again(), again()]);
    let with = json!({ "prompt": "Go", "tools": ["shout"], "max_turns": 3 });
    let error = run(&fx, with).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Budget);
    assert!(error.message.contains("shout") && error.message.contains("3 turns"), "{}", error.message);
    assert_eq!(fx.tools.calls.lock().len(), 2);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_found_before_a_model_is_asked() {
    let fx = texts(&[]);
    for (with, name) in [
        (json!({ "prompt": "Go", "tools": ["shoot"] }), "shoot"),
        (json!({ "prompt": "Go", "provider": "tset" }), "tset"),
        (json!({ "prompt": "Go", "output_schema": { "type": 5 } }), "output_schema"),
        (json!({ "prompt": "Go", "temperature": "hot" }), "does not fit"),
    ] {
        let error = run(&fx, with).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains(name), "{}", error.message);
    }
    assert!(fx.requests().is_empty());
}

#[tokio::test]
async fn files_of_an_answer_are_written_below_the_workspace_only() {
    let with_files = |name: &str| ModelAnswer {
        files: BTreeMap::from([(name.to_owned(), "fn main() {}".to_owned())]),
        ..answer("done")
    };
    let fx = Fixture::answering(vec![Ok(with_files("src/main.rs")), Ok(with_files("../escape.rs"))]);
    run(&fx, json!({ "prompt": "Go" })).await.unwrap();
    assert_eq!(read(&fx.path("workspace/src/main.rs")), "fn main() {}");
    let error = run(&fx, json!({ "prompt": "Go" })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(!fx.path("escape.rs").exists());
}

#[tokio::test]
async fn a_call_without_a_price_makes_the_cost_unknown_not_zero() {
    let free = ModelAnswer { usage: Usage { input: 1, ..Usage::default() }, ..answer("{}") };
    let fx = Fixture::answering(vec![Ok(free), Ok(answer("{\"score\": 1}"))]);
    let output = run(&fx, json!({ "prompt": "Rate", "output_schema": score() })).await.unwrap();
    assert_eq!(output.value["cost_usd"], Value::Null);
    assert_eq!((output.usage.calls, output.usage.unpriced_calls), (2, 1));
}

/// Every finding of a pipeline that knows this crate's steps and the provider `claude`, as `code message`.
fn findings(text: &str) -> Vec<String> {
    let mut catalog = Catalog::default();
    for step in crate::builtin(Arc::default()) {
        catalog.add_step(step).unwrap();
    }
    for name in ["claude", "gemini"] {
        catalog.add_provider(Arc::new(Script::new(name, Vec::new()))).unwrap();
    }
    let files = BTreeMap::from([("p".to_owned(), ("p.yaml".to_owned(), text.to_owned()))]);
    let loader = StoredSources { root: "p".to_owned(), files, links: Vec::new() };
    let all = match compile(&loader, &SourceRef::Path("p".to_owned()), &catalog, &CompileOptions::default()) {
        Ok((_, notes)) => notes,
        Err(findings) => findings,
    };
    all.iter().map(|d| format!("{} {}", d.code, d.message)).collect()
}

#[test]
fn every_example_compiles_without_a_finding() {
    for step in crate::builtin(Arc::default()) {
        let spec = step.spec();
        assert_eq!(findings(spec.example), Vec::<String>::new(), "{}", spec.kind);
    }
}

const EVERY_KEY: &str = "
workflow:
  name: w
  inputs: { show: { type: boolean, default: true } }
  functions: { f: { description: d, parameters: { type: object } } }
  agents: { reviewer: { description: d, prompt: p, tools: [Read] } }
  steps:
    - { name: a, type: prompt, provider: claude, prompt: Hi }
    - name: b
      type: prompt
      provider: gemini
      model: m
      system_prompt: 'for {{ steps.a.text }}'
      temperature: 0.5
      top_p: '{{ 0.5 }}'
      top_k: 3
      max_output_tokens: 10
      max_turns: 2
      repair_attempts: 1
      validation_mode: loose
      json: true
      session: s
      tools: [f, other]
      fallback: [other, { provider: gemini, model: third }]
      output_schema: { type: object, properties: { a: { type: string } } }
      extraction: { format: summary, post_processing: [extract_links], max_summary_length: 10, include_metadata: true }
      expect:
        files_changed: ['*.md']
        command_ok: [make, test]
        text_matches: '{{ steps.a.text }}'
        json_schema: { type: object }
        max_diff_lines: 10
      prompt:
        - just text
        - { type: static, content: '{{ steps.a.text }}', condition: '{{ inputs.show }}' }
        - { type: file, path: 'x*.md', variables: { A: '{{ steps.a.text }}' }, inject_as: X, encoding: latin1 }
        - { type: previous_response, step: a, max_length: 10, inject_as: Y }
        - { type: previous_response, step: a, extract: 'items[*].name', strict: false, summary: true }
        - type: previous_response
          step: a
          extract_with: content_extractor
          format: structured
          post_processing: [extract_code_blocks, generate_summary]
        - { type: session_context, session_name: s, include_last_n: 3 }
        - { type: claude_continue, new_prompt: 'go on', session_id: s }
        - { type: value, value: steps.a, when: inputs.show }
    - name: c
      type: claude
      preset: analysis
      session_config: { session_name: s, persist: true, continue_on_restart: false, max_turns: 9, description: d }
      claude_options: { cwd: ./x, allowed_tools: [Read], timeout_seconds: 5, permission_mode: acceptEdits }
      memory_config: { auto_compact: true, compact_threshold: 10, max_context_length: 100 }
      prompt:
        - { type: claude_continue, new_prompt: 'go on' }
";

#[test]
fn every_key_and_part_of_the_kernel_form_is_known_to_the_schema() {
    assert_eq!(findings(EVERY_KEY), Vec::<String>::new());
}

#[test]
fn what_does_not_fit_the_schema_is_found_when_the_pipeline_is_compiled() {
    for (was, is, code) in [
        ("top_k: 3", "top_k: many", "E0103"),
        ("temperature: 0.5", "temperature: 3", "E0109"),
        ("top_k: 3", "topk: 3", "E0101"),
        ("validation_mode: loose", "validation_mode: lose", "E0104"),
        ("encoding: latin1", "encoding: utf-17", "E0104"),
        ("when: inputs.show", "when: steps.nobody", "E0202"),
    ] {
        let found = findings(&EVERY_KEY.replace(was, is));
        assert!(found.iter().any(|f| f.starts_with(code)), "{is}: {found:?}");
    }
}

/// What the journal of a first attempt would hold, collected by playing its other side.
#[tokio::test]
async fn recorded_calls_are_not_made_again() {
    let call = || Ok(calling(&[("shout", json!({ "text": "hi" }))]));
    let fx = Fixture::answering(vec![call(), Ok(answer("done"))]);
    let with = json!({ "prompt": "Go", "tools": ["shout"] });
    let key = OpKey { path: StepPath::from("step"), turn: 1, role: OpRole::Attempt };
    let (sender, mut saves) = tokio::sync::mpsc::channel::<pipeline_core::engine::effect::Save>(8);
    let cx = fx.context_with(EffectPort::new(key.clone(), 1, Vec::new(), sender, Surroundings::default()));
    let journal = async {
        let mut recorded = Vec::new();
        while let Some(save) = saves.recv().await {
            if let Saved::Effect(effect) = save.what {
                recorded.push(effect);
            }
            save.reply.send(()).unwrap();
        }
        recorded
    };
    let attempt = async {
        let output = run_in(&cx, with.clone()).await.unwrap();
        drop(cx);
        output
    };
    let (first, recorded) = tokio::join!(attempt, journal);
    let names: Vec<&str> = recorded.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["model", "tool"], "the last effect is saved with the end of the attempt");

    let again = Fixture::answering(vec![Ok(answer("done"))]);
    let (sender, _saves) = tokio::sync::mpsc::channel(8);
    let cx = again.context_with(EffectPort::new(key, 2, recorded, sender, Surroundings::default()));
    let second = run_in(&cx, with).await.unwrap();
    assert_eq!(second.value, first.value);
    assert_eq!(second.usage, first.usage);
    assert_eq!(again.requests().len(), 1, "only the call that was not recorded");
    assert!(again.tools.calls.lock().is_empty());
}
