//! The tools that are always there.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::tool::{ToolOutput, ToolSource};
use pipeline_core::value::Value;
use pipeline_tools::Registry;
use serde_json::json;

use crate::support::context;

async fn call(tool: &str, arguments: Value) -> Result<ToolOutput, StepError> {
    Registry::with_builtins().get(tool).unwrap().call(arguments, &context()).await
}

#[tokio::test]
async fn the_calculator_evaluates_arithmetic() {
    let cases = [
        ("(2 + 3) * 4", json!(20), "20"),
        ("6 / 3", json!(2), "2"),
        ("1 / 4", json!(0.25), "0.25"),
        ("7 // 2", json!(3), "3"),
        ("7 % 4", json!(3), "3"),
        ("2 ** 10", json!(1024), "1024"),
        ("-3 + 1", json!(-2), "-2"),
        ("0.5 * 4", json!(2), "2"),
    ];
    for (expression, number, text) in cases {
        let output = call("calculator", json!({"expression": expression})).await.unwrap();
        assert_eq!((output.data, output.content.as_str()), (number, text), "{expression}");
    }
}

#[tokio::test]
async fn what_is_no_number_is_an_error_that_repeats_the_expression() {
    let deep = format!("{}1{}", "(".repeat(400), ")".repeat(400));
    let cases = [
        "1 +",
        "1 / 0",
        "2 < 3",
        "'a'",
        "x + 1",
        "inputs.x",
        "9 ** 9 ** 9 ** 9",
        "[1, 2]",
        "none",
        "1e308 * 10",
        deep.as_str(),
    ];
    for expression in cases {
        let outcome = call("calculator", json!({"expression": expression})).await;
        let error = outcome.expect_err(expression);
        assert_eq!(error.kind, ErrorKind::Invalid, "{expression}: {error}");
        assert!(error.message.contains(expression), "{expression}: {error}");
        assert!(error.help.is_some(), "{expression}: {error}");
    }
    let error = call("calculator", json!({"expression": "x + 1"})).await.unwrap_err();
    assert!(error.message.ends_with("it knows no name `x`"), "{error}");
}

#[tokio::test]
async fn arguments_that_do_not_fit_never_reach_the_calculator() {
    for arguments in [json!({}), json!({"expression": 5}), json!({"expression": "1", "x": 1}), json!(null)] {
        let error = call("calculator", arguments.clone()).await.unwrap_err();
        assert!(error.message.starts_with("the arguments of tool `calculator`"), "{arguments}: {error}");
    }
}

#[tokio::test]
async fn text_stats_counts() {
    let cases = [
        ("", 0, 0, 0),
        ("one", 1, 1, 3),
        ("one two\nthree\n", 2, 3, 14),
        ("  Grüße,\t日本 ", 1, 2, 12),
        ("\n\n", 2, 0, 2),
    ];
    for (text, lines, words, characters) in cases {
        let output = call("text_stats", json!({"text": text})).await.unwrap();
        let expected = json!({"lines": lines, "words": words, "characters": characters});
        assert_eq!(output.data, expected, "{text:?}");
        assert_eq!(output.content, format!("lines: {lines}, words: {words}, characters: {characters}"));
    }
}
