//! The file of mock rules: what it may say, and what is said about mistakes.

use pipeline_core::error::ErrorKind;
use pipeline_core::provider::Provider;
use pipeline_providers::MockRules;

use crate::support::{asking, at, claude, context};

fn message_of(text: &str) -> String {
    MockRules::parse(text, "rules.yaml").unwrap_err()
}

#[test]
fn the_whole_shape_is_read() {
    let text = r#"
seed: 7
rules:
  - match: {step: analyze, prompt_contains: "secret", provider: claude, model: sonnet, call: 2}
    text: "no"
    delay_ms: 50
    usage: {input: 100, output: 20}
    files: {notes.md: "hello"}
    times: 1
  - data: {a: 1}
    delay_ms: [10, 90]
  - function_calls: [{name: f, arguments: {x: 1}}, {name: g}]
  - error: {kind: rate_limited, retry_after_ms: 100, message: busy}
"#;
    assert_ne!(MockRules::parse(text, "rules.yaml").unwrap(), MockRules::default());
}

#[test]
fn a_file_without_rules_is_the_default() {
    assert_eq!(MockRules::parse("", "rules.yaml").unwrap(), MockRules::default());
    assert_eq!(MockRules::parse("rules: []\n", "rules.yaml").unwrap(), MockRules::default());
}

#[test]
fn mistakes_are_named_with_their_place() {
    let cases = [
        ("sed: 7\n", "rules.yaml:1:1: `mock rules` has no key `sed`; did you mean `seed`?"),
        ("seed: -1\n", "rules.yaml:1:7: `seed` is a number, but must be a whole number, not negative"),
        ("rules: 3\n", "rules.yaml:1:8: `rules` is a number, but must be a list"),
        ("rules:\n  - txt: hi\n", "rules.yaml:2:5: `rules` has no key `txt`; did you mean `text`?"),
        ("rules:\n  - text: 5\n", "rules.yaml:2:11: `text` is a number, but must be text (put it in quotes)"),
        (
            "rules:\n  - match: {stepp: a}\n",
            "rules.yaml:2:13: `match` has no key `stepp`; did you mean `step`?",
        ),
        (
            "rules:\n  - error: {kind: rate_limit}\n",
            "rules.yaml:2:19: there is no error kind `rate_limit`; did you mean `rate_limited`?",
        ),
        (
            "rules:\n  - error: {message: x}\n",
            "rules.yaml:2:12: an error needs a `kind`; for example `kind: rate_limited`",
        ),
        ("rules:\n  - text: a\n    data: {}\n", "rules.yaml:2:5: a rule has `data` or `text`, not both"),
        (
            "rules:\n  - error: {kind: auth}\n    files: {}\n",
            "rules.yaml:3:5: a rule has `error` or `files`, not both",
        ),
        (
            "rules:\n  - delay_ms: [9, 1]\n",
            "rules.yaml:2:15: `delay_ms` is a list, but must be milliseconds, or [shortest, longest]",
        ),
        ("rules:\n  - times: 0\n", "rules.yaml:2:12: `times` counts from 1, so 0 never holds"),
        (
            "rules:\n  - function_calls: [{arguments: {}}]\n",
            "rules.yaml:2:22: a function call needs a `name`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(message_of(text), expected, "for {text}");
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let message = message_of("sed: 1\nrules:\n  - txt: a\n    times: x\n");
    assert_eq!(message.lines().count(), 3, "{message}");
}

#[test]
fn broken_yaml_and_a_key_given_twice_are_errors_with_a_place() {
    for text in ["rules: [", "seed: 1\nseed: 2\n"] {
        let message = message_of(text);
        assert!(message.starts_with("rules.yaml:"), "{message}");
        assert!(message.split(':').nth(1).is_some_and(|line| line.parse::<u32>().is_ok()), "{message}");
    }
}

#[tokio::test]
async fn every_error_kind_can_be_scripted() {
    let names = [
        "invalid",
        "auth",
        "denied",
        "quota",
        "rate_limited",
        "overloaded",
        "server",
        "network",
        "truncated",
        "parse",
        "schema",
        "too_large",
        "refused",
        "unsupported",
        "environment",
        "budget",
        "cancelled",
        "timed_out",
        "panicked",
        "internal",
    ];
    for name in names {
        let mock = claude(&format!("rules: [{{error: {{kind: {name}, retry_after_ms: 9}}}}]"));
        let error = mock.complete(&asking("hi"), &at("a")).await.unwrap_err();
        assert_eq!((error.kind.name(), error.retry_after_ms), (name, Some(9)));
        assert!(error.message.contains("`a`") && error.message.contains(name), "{}", error.message);
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_answers() {
    let mock = claude(
        "rules:
  - {match: {prompt_contains: secret}, text: first}
  - {match: {step: analyze}, text: second}
  - {match: {provider: gemini}, text: other provider}
  - {match: {model: opus}, text: third}
",
    );
    let opus = pipeline_core::provider::ModelRequest { model: Some("opus".to_owned()), ..asking("hi") };
    let cases = [
        (asking("a secret"), "analyze", "first"),
        (asking("hi"), "analyze", "second"),
        (asking("hi"), "review/files[3]/analyze", "second"),
        (asking("hi"), "review/files[3]/analyze[0]", "second"),
        (opus, "other", "third"),
        (asking("hi"), "reanalyze", "Mock answer of claude for step reanalyze: hi"),
        (asking("hi"), "analyze/other", "Mock answer of claude for step analyze/other: hi"),
    ];
    for (request, path, expected) in cases {
        assert_eq!(mock.complete(&request, &at(path)).await.unwrap().text, expected, "{path}");
    }
}

#[tokio::test]
async fn a_step_may_be_named_by_item_and_by_address() {
    let mock = claude(
        "rules:
  - {match: {step: 'files[3]/analyze'}, text: the fourth}
  - {match: {step: review/files/analyze}, text: any}
",
    );
    let text = async |path: &str| mock.complete(&asking("hi"), &at(path)).await.unwrap().text;
    assert_eq!(text("review/files[3]/analyze").await, "the fourth");
    assert_eq!(text("review/files[4]/analyze").await, "any");
    assert!(text("files[4]/analyze").await.starts_with("Mock answer"));
}

#[tokio::test]
async fn call_and_times_count_for_each_step() {
    let mock = claude(
        "rules:
  - {error: {kind: overloaded}, times: 2}
  - {match: {call: 4}, text: the fourth}
",
    );
    for path in ["a", "b"] {
        let mut told = Vec::new();
        for _ in 0..5 {
            told.push(match mock.complete(&asking("hi"), &at(path)).await {
                Ok(answer) if answer.text == "the fourth" => "fourth",
                Ok(_) => "built in",
                Err(error) if error.kind == ErrorKind::Overloaded => "overloaded",
                Err(_) => "other",
            });
        }
        assert_eq!(told, ["overloaded", "overloaded", "built in", "fourth", "built in"]);
    }
}

#[tokio::test]
async fn a_spent_rule_that_did_not_answer_is_not_used_up() {
    let mock = claude(
        "rules:
  - {match: {prompt_contains: secret}, text: caught, times: 1}
  - {text: plain}
",
    );
    let mut texts = Vec::new();
    for prompt in ["hi", "a secret", "a secret"] {
        texts.push(mock.complete(&asking(prompt), &at("a")).await.unwrap().text);
    }
    assert_eq!(texts, ["plain", "caught", "plain"]);
}

/// A retry is a new logical attempt, also for a process that has not seen the ones before.
#[tokio::test]
async fn a_resumed_run_goes_on_counting() {
    let script = "rules: [{error: {kind: server}, times: 2}]";
    let outcome = async |mock: &pipeline_providers::MockProvider, turn, attempt| {
        mock.complete(&asking("hi"), &context("run", "a", turn, attempt)).await.map_err(|e| e.kind)
    };
    let whole = claude(script);
    for turn in 1..=4 {
        let resumed = claude(script);
        let in_one_process = outcome(&whole, turn, turn).await;
        assert_eq!(outcome(&resumed, turn, turn).await, in_one_process, "attempt {turn}");
        assert_eq!(in_one_process.is_err(), turn <= 2, "attempt {turn}");
    }
}

#[tokio::test]
async fn an_attempt_that_runs_again_after_a_crash_gets_the_same_numbers() {
    let mock = claude("rules: [{match: {call: 1}, text: one}, {match: {call: 2}, text: two}, {text: more}]");
    let mut texts = Vec::new();
    for attempt in [1, 1, 2, 2, 2] {
        let cx = context("run", "a", 1, attempt);
        texts.push(mock.complete(&asking("hi"), &cx).await.unwrap().text);
    }
    assert_eq!(texts, ["one", "two", "one", "two", "more"]);
    // The next logical attempt goes on after the calls of the last physical one.
    let cx = context("run", "a", 2, 3);
    assert_eq!(mock.complete(&asking("hi"), &cx).await.unwrap().text, "more");
}

#[tokio::test]
async fn runs_do_not_count_together_but_providers_of_one_catalog_do() {
    let script = "rules: [{match: {call: 1}, text: one}, {match: {call: 2}, text: two}]";
    let mocks = pipeline_providers::mocks(crate::support::rules(script));
    let mut texts = Vec::new();
    for (mock, run) in [(0, "r1"), (1, "r1"), (0, "r2")] {
        let cx = context(run, "a", 1, 1);
        texts.push(mocks[mock].complete(&asking("hi"), &cx).await.unwrap().text);
    }
    assert_eq!(texts, ["one", "two", "one"]);
}
