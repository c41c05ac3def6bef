//! The tools that are always there.
//!
//! Owns [`Calculator`] and [`TextStats`]. They compute and have no effects: no files, no network, no clock.
//! Must not know the registry.

use async_trait::async_trait;
use pipeline_core::clock::Timestamp;
use pipeline_core::error::StepError;
use pipeline_core::expr::{Expr, ExprError, Names};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::{Data, Value};
use serde::Deserialize;
use serde_json::{Number, json};

use crate::decode::decode;

/// Floats that are whole are shown as integers up to here (2^53), where each still has its own value.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Evaluates an arithmetic expression: `+ - * / // % **`, parentheses, and the functions of the expression language.
///
/// `data` is the number, `content` its text. A division that comes out even is a whole number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calculator;

/// Counts the lines, words and characters of a text.
///
/// `data` has `lines`, `words` (parted by white space) and `characters` (Unicode scalar values).
#[derive(Debug, Clone, Copy, Default)]
pub struct TextStats;

#[derive(Deserialize)]
struct Calculation {
    expression: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

/// A scope in which nothing has a name, and time stands still: the same call gives the same number after a resume.
struct NoNames(Timestamp);

impl Names for NoNames {
    fn get(&self, _root: &str, _field: Option<&str>) -> Option<Data> {
        None
    }

    fn now(&self) -> Timestamp {
        self.0
    }
}

#[async_trait]
impl Tool for Calculator {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "calculator".to_owned(),
            description: "Evaluates an arithmetic expression and returns a number. Operators: + - * / // % ** and parentheses."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "expression": {
                        "type": "string",
                        "description": "For example (2 + 3) * 4",
                        "minLength": 1,
                        "maxLength": 1000,
                        "examples": ["(2 + 3) * 4"],
                    },
                },
                "required": ["expression"],
                "additionalProperties": false,
            }),
        }
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Calculation { expression } = decode("calculator", arguments)?;
        let number = evaluate(&expression, &NoNames(cx.run.started_at))?;
        Ok(ToolOutput { content: number.to_string(), data: Value::Number(number) })
    }
}

#[async_trait]
impl Tool for TextStats {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "text_stats".to_owned(),
            description: "Counts the lines, words and characters of a text.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {"text": {"type": "string", "description": "The text to count"}},
                "required": ["text"],
                "additionalProperties": false,
            }),
        }
    }

    async fn call(&self, arguments: Value, _cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Text { text } = decode("text_stats", arguments)?;
        let (lines, words, characters) =
            (text.lines().count(), text.split_whitespace().count(), text.chars().count());
        Ok(ToolOutput {
            content: format!("lines: {lines}, words: {words}, characters: {characters}"),
            data: json!({ "lines": lines, "words": words, "characters": characters }),
        })
    }
}

fn evaluate(text: &str, names: &NoNames) -> Result<Number, StepError> {
    let failed = |error: ExprError| {
        let message = format!("the calculator cannot evaluate `{text}`: {}", error.message);
        StepError::invalid(message).help(error.help.unwrap_or_else(|| "for example (2 + 3) * 4".to_owned()))
    };
    let expression = Expr::compile(text, &[]).map_err(failed)?;
    if let Some(read) = expression.reads().first() {
        let message = format!("the calculator cannot evaluate `{text}`: it knows no name `{}`", read.root);
        return Err(StepError::invalid(message).help("put the number itself in the place of the name"));
    }
    let number = match expression.eval(names).map_err(failed)? {
        Value::Number(number) => Some(tidy(number)),
        Value::Null => None,
        other => {
            let message = format!("`{text}` gives {other}, which is not a number");
            return Err(StepError::invalid(message).help("for example (2 + 3) * 4"));
        }
    };
    number.ok_or_else(|| {
        let message = format!("`{text}` has no value: a division by zero, or a result out of range");
        StepError::invalid(message).help("change the expression so that its result is a finite number")
    })
}

/// A whole float as an integer: `6 / 3` is 2.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within the range that is exact")]
fn tidy(number: Number) -> Number {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
            Number::from(float as i64)
        }
        _ => number,
    }
}
