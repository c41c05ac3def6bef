//! What an answer says as JSON, and whether it fits.
//!
//! Owns the reading of JSON from a model's text, the check against the schema, and the words that ask for a repair.
//! Must not know how models are called.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::value::Value;

/// Most violations that a person or a model is told.
const MOST_VIOLATIONS: usize = 20;

/// What is expected of an answer.
pub(super) struct Expected {
    schema: Value,
    validator: jsonschema::Validator,
}

/// Why an answer is not what was expected.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Misfit {
    /// `Parse` when it is no JSON, `Schema` when it does not fit.
    pub kind: ErrorKind,
    /// One sentence each.
    pub violations: Vec<String>,
    /// The JSON that does not fit.
    pub found: Option<Value>,
}

impl Expected {
    /// An answer that fits `schema`.
    ///
    /// # Errors
    /// `Invalid` when it is not a JSON Schema.
    pub fn new(schema: Value) -> Result<Self, StepError> {
        let validator = jsonschema::validator_for(&schema).map_err(|error| {
            StepError::invalid(format!("`output_schema` is not a valid JSON Schema: {error}"))
                .help("correct it; only references within the schema itself are followed")
        })?;
        Ok(Self { schema, validator })
    }

    /// The JSON of an answer that fits.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, text: &str) -> Result<Value, Misfit> {
        let Some(found) = any_json(text) else {
            let violations = vec![format!("the answer is not one JSON value: {}", start_of(text))];
            return Err(Misfit { kind: ErrorKind::Parse, violations, found: None });
        };
        let violations: Vec<String> = self
            .validator
            .iter_errors(&found)
            .take(MOST_VIOLATIONS)
            .map(|error| match error.instance_path().as_str() {
                "" => start_of(&error.to_string()),
                path => format!("{path}: {}", start_of(&error.to_string())),
            })
            .collect();
        if violations.is_empty() {
            return Ok(found);
        }
        Err(Misfit { kind: ErrorKind::Schema, violations, found: Some(found) })
    }

    /// Asks the model for a repair.
    pub fn repair(&self, misfit: &Misfit) -> String {
        format!(
            "Your last answer does not fit:\n{}\n\nAnswer again with nothing but one JSON value that fits this JSON \
             Schema:\n{}",
            misfit.list(),
            self.schema
        )
    }
}

impl Misfit {
    /// The violations as a list.
    pub fn list(&self) -> String {
        let lines: Vec<String> = self.violations.iter().map(|v| format!("- {v}")).collect();
        lines.join("\n")
    }

    /// The error after `repairs` repairs in vain. `usage` tells what was paid for it.
    pub fn error(&self, repairs: u64, usage: &Value) -> StepError {
        let tries = match repairs {
            0 => String::new(),
            1 => " after 1 repair".to_owned(),
            n => format!(" after {n} repairs"),
        };
        let message = format!("the answer does not fit its schema{tries}:\n{}", self.list());
        StepError::new(ErrorKind::Schema, message)
            .help("make the schema simpler, describe it in the prompt, or raise `repair_attempts`")
            .details(serde_json::json!({ "violations": self.violations, "usage": usage }))
    }
}

/// The JSON value that the whole answer is, one Markdown fence around it removed; `None` when it is anything else.
pub(super) fn json_of(text: &str) -> Option<Value> {
    let text = text.trim();
    parse(whole_fence(text).unwrap_or(text))
}

/// The JSON value that the answer is, or that stands in its only fence.
pub(super) fn any_json(text: &str) -> Option<Value> {
    json_of(text).or_else(|| only_fence(text).and_then(parse))
}

fn parse(text: &str) -> Option<Value> {
    // The error says only that it is not JSON, which is an ordinary answer.
    serde_json::from_str(text).ok()
}

/// What is inside, when the text is one fence from its beginning to its end.
fn whole_fence(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("```")?.strip_suffix("```")?;
    let (language, inside) = inside.split_once('\n')?;
    (!language.contains('`') && !inside.contains("\n```")).then_some(inside)
}

/// What is inside the only fence of a text with words around it. Only for an answer that was to be JSON.
fn only_fence(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("```")?;
    let (inside, rest) = after.split_once("\n```")?;
    let (_, inside) = inside.split_once('\n')?;
    (!rest.contains("```")).then_some(inside)
}

/// Enough of a text to recognise it.
fn start_of(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.trim().is_empty() => "it is empty".to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_answer_is_json_or_it_is_not() {
        for (text, data) in [
            ("{\"a\": 1}", Some(json!({ "a": 1 }))),
            (" [1, 2]\n", Some(json!([1, 2]))),
            ("```json\n{\"a\": 1}\n```", Some(json!({ "a": 1 }))),
            ("```\n[]\n```\n", Some(json!([]))),
            ("42", Some(json!(42))),
            ("{\"a\": \"```\"}", Some(json!({ "a": "```" }))),
            ("Here: {\"a\": 1}", None),
            ("{\"a\": 1} {\"b\": 2}", None),
            ("Here:\n```json\n{}\n```", None),
            ("```json\n{}\n```\nand\n```json\n{}\n```", None),
            ("```", None),
            ("", None),
            ("words", None),
        ] {
            assert_eq!(json_of(text), data, "{text}");
        }
    }

    #[test]
    fn what_was_to_be_json_may_have_words_around_its_only_fence() {
        let expected = Expected::new(json!({ "type": "object" })).unwrap();
        assert_eq!(expected.check("Here:\n```json\n{\"a\":1}\n```\nGood luck!"), Ok(json!({ "a": 1 })));
        let two = "```json\n{}\n```\nor\n```json\n{}\n```";
        assert_eq!(expected.check(two).unwrap_err().kind, ErrorKind::Parse);
    }

    #[test]
    fn every_violation_is_named_with_its_place() {
        let schema = json!({
            "type": "object",
            "required": ["score"],
            "properties": { "score": { "type": "integer" }, "tags": { "items": { "type": "string" } } },
        });
        let expected = Expected::new(schema).unwrap();
        let misfit = expected.check(r#"{"score": "high", "tags": ["a", 5]}"#).unwrap_err();
        assert_eq!(misfit.kind, ErrorKind::Schema);
        assert_eq!(misfit.violations.len(), 2, "{misfit:?}");
        assert!(misfit.violations.iter().any(|v| v.starts_with("/score: ")), "{misfit:?}");
        assert!(misfit.violations.iter().any(|v| v.starts_with("/tags/1: ")), "{misfit:?}");
        let repair = expected.repair(&misfit);
        assert!(repair.contains("/tags/1") && repair.contains("\"required\":[\"score\"]"), "{repair}");
    }

    #[test]
    fn a_schema_that_is_none_is_an_error() {
        let error = Expected::new(json!({ "type": "no such type" })).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("output_schema"));
    }
}
