//! What a fuzzer starts in this crate: the language of templates and conditions.
//!
//! Owns [`expression`] and the values that its names have. Only in tests, and in builds for fuzzers (`--cfg fuzzing`). Must not
//! know who makes the bytes: `fuzz/` at the top of the repository does, and its stored inputs are replayed below.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::expr::{Expr, ExprError, Names, RowExpr, Script, Template, Words, rewrite_legacy};
use crate::value::Data;

/// Values of every kind under names that texts of the corpus use.
struct Stored(Value);

impl Names for Stored {
    fn get(&self, root: &str, field: Option<&str>) -> Option<Data> {
        let value = self.0.get(root)?;
        let value = field.map_or(Some(value), |field| value.get(field))?.clone();
        Some(if root == "steps" && field.is_some() { Data::of_step(value) } else { Data::new(value) })
    }

    fn now(&self) -> Timestamp {
        Timestamp(1_704_153_600_000)
    }
}

fn names() -> Stored {
    let a = json!({"score": 8, "status": "passed", "t": true, "path": "/tmp/x.ex", "ts": "2024-01-01", "items": [1, 2, 3],
        "maps": [{"severity": "low"}, {"severity": "mid"}], "text": "{\"score\": 8}", "data": {"tags": ["a", "b"]}});
    Stored(json!({
        "steps": {"a": a, "my-step": {"ok": true, "text": "hyphen"}, "nothing": null, "list": [10, 20]},
        "state": {"n": 3, "name": "Ada", "list": [3, 1, 2], "big": 9_007_199_254_740_993_i64, "half": 0.5, "deep": {"a": [{"b": 1}]}},
        "inputs": {"x": 2, "unicode": "naïve 日本語 👍", "file": "src/a b.rs"},
        "loop": {"index": 1, "item": {"id": 50, "tags": ["x"]}, "first": false},
        "run": {"id": "r1", "timestamp": "20240101T000000Z"},
        "n": 3, "name": "Ada", "list": [3, 1, 2], "empty_list": [], "map": {"k": 1, "j": [1, 2]}, "nil": null, "yes": true,
        "people": [{"age": 30, "n": "a"}, {"age": 17, "n": "b"}, {"n": "c"}], "a": {"score": 8, "items": [1]},
    }))
}

/// A refusal has words, and its place is in the text.
fn check<T>(text: &str, outcome: Result<T, ExprError>) -> Option<T> {
    outcome
        .inspect_err(|error| {
            assert!(!error.message.is_empty(), "refused without a word");
            if let Some(range) = &error.range {
                assert!(text.get(range.clone()).is_some(), "{range:?} is no part of the text");
            }
        })
        .ok()
}

/// Any text as an expression, a condition, a row's expression, a template, a script.
///
/// # Panics
/// When a refusal has no words or no place.
pub fn expression(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let names = names();
    let words = Words { names: &["my-step"], previous: Some("steps.a") };
    let _ = rewrite_legacy(text, |name| name == "a");
    if Template::is_needed(text) {
        if let Some(template) = check(text, Template::compile_among(text, &words)) {
            check(text, template.render(&names));
        }
        if let Some(script) = check(text, Script::compile(text, &words)) {
            check(text, script.render(&names));
        }
        return;
    }
    if let Some(expr) = check(text, Expr::compile_among(text, &words)) {
        check(text, expr.eval(&names));
        check(text, expr.holds(&names));
    }
    if let Some(source) = check(text, Expr::compile_data_source(text, &words)) {
        check(text, source.data(&names));
    }
    if let Some(row) = check(text, RowExpr::compile_among(text, &words)) {
        check(text, row.eval(&json!({"age": 30, "n": "a", "list": [1], "score": 0.5})));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::corpus::replay;

    /// Naive: a parser that recurses on every sign, and functions without a price.
    #[test]
    fn t10_stored_expressions_give_a_value_or_an_error() {
        replay("T10", "expression", expression);
    }
}
