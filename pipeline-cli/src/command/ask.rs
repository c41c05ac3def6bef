//! Questions that a run asks people, and their answers.
//!
//! Owns the reading of `--answer STEP=VALUE`, the check of answers against their schemas, and the dialogue on a terminal.
//! Must not know how a run goes on.

use std::collections::BTreeMap;

use pipeline_core::engine::RunReport;
use pipeline_core::path::StepPath;
use pipeline_core::schedule::Question;
use pipeline_core::value::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::app::App;
use crate::console::visible;
use crate::exit::Failure;
use crate::supervise::{ProcessSignals, Signals};

/// Answers by step path.
pub type Answers = BTreeMap<String, Value>;

/// Reads `STEP=VALUE`; a value is JSON where it parses, else text.
///
/// # Errors
/// A usage [`Failure`].
pub fn answers(words: &[String]) -> Result<Answers, Failure> {
    let one =
        |word: &String| match word.split_once('=') {
            Some((step, text)) if !step.trim().is_empty() => Ok((step.trim().to_owned(), value(text))),
            _ => Err(Failure::usage(format!("`{word}` is not STEP=VALUE"))
                .help("write --answer review/approve=yes")),
        };
    words.iter().map(one).collect()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// Checks answers against the schemas of their questions. Whether there is such a question is the engine's to say.
///
/// # Errors
/// A usage [`Failure`] that names every misfit.
pub fn check(answers: &Answers, questions: &[(StepPath, Question)]) -> Result<(), Failure> {
    let mut failure = Failure::usage("");
    failure.messages.clear();
    for (path, question) in questions {
        if let Some(answer) = answers.get(path.as_str()) {
            failure.messages.extend(misfits(question, answer).into_iter().map(|m| format!("`{path}`: {m}")));
        }
    }
    if failure.messages.is_empty() {
        Ok(())
    } else {
        Err(failure.help("give an answer that fits its schema"))
    }
}

fn misfits(question: &Question, answer: &Value) -> Vec<String> {
    let Some(schema) = &question.schema else { return question.fits(answer).err().into_iter().collect() };
    match jsonschema::validator_for(schema) {
        Ok(validator) => validator.iter_errors(answer).map(|e| e.to_string()).collect(),
        Err(error) => vec![format!("its `schema` is not a JSON Schema: {error}")],
    }
}

/// Asks what a paused run asks, where somebody sits at a terminal; `None` when nobody does, or when they stop answering.
pub async fn on_terminal(app: &App, report: &RunReport) -> Option<Answers> {
    if !app.settings.interactive || report.questions.is_empty() {
        return None;
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut signals = ProcessSignals::listen().ok()?;
    let mut answers = Answers::new();
    for (path, question) in &report.questions {
        loop {
            app.console.err(&asked(path, question));
            let line = tokio::select! {
                line = lines.next_line() => line.ok().flatten()?,
                _ = signals.next() => return None,
            };
            let answer = chosen(question, line.trim());
            match misfits(question, &answer) {
                misfits if misfits.is_empty() => {
                    answers.insert(path.to_string(), answer);
                    break;
                }
                misfits => misfits.iter().for_each(|m| app.console.err(&visible(m))),
            }
        }
    }
    Some(answers)
}

fn asked(path: &StepPath, question: &Question) -> String {
    let mut text = format!("{}: {}", visible(path.as_str()), visible(&question.message));
    for (index, choice) in question.choices.iter().enumerate() {
        text.push_str(&format!(
            "\n  {}. {}",
            index + 1,
            visible(&choice.as_str().map_or_else(|| choice.to_string(), str::to_owned))
        ));
    }
    text.push_str("\n> ");
    text
}

/// The number of a choice means that choice, unless the number itself is one.
fn chosen(question: &Question, line: &str) -> Value {
    let answer = value(line);
    let text = Value::from(line);
    if question.choices.is_empty() || question.choices.contains(&answer) {
        return answer;
    }
    if question.choices.contains(&text) {
        return text;
    }
    let index = line.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    index.and_then(|i| question.choices.get(i)).cloned().unwrap_or(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_json_where_it_parses() {
        let words = ["a=yes".to_owned(), "b/c[0]={\"x\": 1}".to_owned(), "d=3".to_owned()];
        let read = answers(&words).unwrap();
        assert_eq!(read["a"], "yes");
        assert_eq!(read["b/c[0]"], json!({"x": 1}));
        assert_eq!(read["d"], 3);
        assert_eq!(answers(&["yes".to_owned()]).unwrap_err().exit.code(), 2);
    }

    #[test]
    fn a_choice_is_meant_by_its_word_or_its_number() {
        let question = Question { choices: vec!["yes".into(), "no".into()], ..Question::default() };
        assert_eq!(chosen(&question, "no"), "no");
        assert_eq!(chosen(&question, "2"), "no");
        assert!(!misfits(&question, &chosen(&question, "maybe")).is_empty());
    }

    #[test]
    fn a_schema_is_checked() {
        let schema = json!({"type": "object", "required": ["ok"]});
        let question = Question { schema: Some(schema), ..Question::default() };
        assert!(misfits(&question, &json!({"ok": 1})).is_empty());
        assert!(!misfits(&question, &json!({})).is_empty());
    }
}
