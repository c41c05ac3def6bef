//! The script of a mock: what it answers to which call.
//!
//! Owns [`MockRules`], its file format and the choice of a rule for a call. Must not know requests' vendors, time or
//! how an answer is delivered. Next: `read.rs` reads the file, `calls.rs` counts the calls.

use std::collections::BTreeMap;

use pipeline_core::error::ErrorKind;
use pipeline_core::provider::FunctionCall;
use pipeline_core::value::Value;

use crate::mock::calls::{Answered, Past};
use crate::mock::read;

/// What a mock answers. The default has no rules: every call gets the built-in answer.
///
/// Rules are tried in the order of the file; the first that matches and is not spent answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MockRules {
    /// Everything that is invented follows from it, from the run's seed and from the step's path.
    pub(crate) seed: u64,
    /// In the order of the file.
    pub(crate) rules: Vec<Rule>,
}

/// One entry of `rules`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rule {
    pub(crate) matcher: Matcher,
    pub(crate) answer: Scripted,
    /// Shortest and longest delay, in milliseconds.
    pub(crate) delay_ms: (u64, u64),
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) files: BTreeMap<String, String>,
    /// Calls per step that it answers; `None` = any number.
    pub(crate) times: Option<u64>,
}

/// Conditions of a rule; all that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) step: Option<String>,
    pub(crate) prompt_contains: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) call: Option<u64>,
}

/// What a rule puts in the place of the built-in answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Scripted {
    /// Nothing: the built-in answer stays.
    #[default]
    BuiltIn,
    /// A text (`data` has become its JSON text) and calls.
    Answer { text: Option<String>, function_calls: Vec<FunctionCall> },
    /// A failure.
    Error { kind: ErrorKind, retry_after_ms: Option<u64>, message: Option<String> },
}

/// What of a call the conditions look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallFacts<'a> {
    pub(crate) path: &'a str,
    pub(crate) prompt: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
}

impl MockRules {
    /// Reads a file of rules; `source_name` is how messages call it. The file is YAML (or JSON):
    ///
    /// ```yaml
    /// seed: 7
    /// rules:
    ///   - match: {step: analyze, call: 1}
    ///     error: {kind: rate_limited, retry_after_ms: 100}
    ///   - match: {prompt_contains: secret}
    ///     text: I would rather not say.
    /// ```
    ///
    /// - `seed`: everything that is invented follows from it; 0 when absent.
    /// - `match`, all that are given must hold: `step` (the address of the step or the end of it; without `[…]` every item
    ///   and turn is meant), `prompt_contains` (in the last message of the user), `provider`, `model` (the step's, else the
    ///   provider's default), `call` (number of the call at its step, from 1).
    /// - The answer: `text`, or `data` (becomes JSON text), and `function_calls`; or `error` with a `kind` of
    ///   [`ErrorKind`]. With none of them the built-in answer stays.
    /// - `delay_ms`: milliseconds before the answer or error, or `[shortest, longest]`.
    /// - `usage`: tokens, in the place of what the length of the texts gives.
    /// - `files`: name → text, what an agent would have written.
    /// - `times`: calls of one step that the rule answers; then it is spent for this step.
    ///
    /// `call` and `times` count for each step path of a run, across its retries and across the providers of
    /// [`mocks`](crate::mocks). A resumed run goes on counting with the calls of the attempt that was cut off, and counts one call for
    /// each attempt that had ended before.
    ///
    /// # Errors
    /// One line per finding, `file:line:column: what is wrong, and what would be right`.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, String> {
        read::rules(text, source_name)
    }

    /// True when answers depend on how many calls went before.
    pub(crate) fn count_calls(&self) -> bool {
        self.rules.iter().any(|r| r.times.is_some() || r.matcher.call.is_some())
    }

    /// The rule that answers a call which comes after those of `past`.
    ///
    /// A past call that this process has not seen (it ran before a resume) is taken to have looked like this one.
    pub(crate) fn choose(&self, call: &CallFacts<'_>, past: &[Past]) -> Answered {
        let mut used = vec![0_u64; self.rules.len()];
        let mut number = 0;
        for earlier in past {
            number += 1;
            let answered = match earlier {
                Past::Seen(answered) => *answered,
                Past::Unseen => self.first(call, number, &used),
            };
            if let Some(count) = answered.and_then(|rule| used.get_mut(rule)) {
                *count += 1;
            }
        }
        self.first(call, number + 1, &used)
    }

    fn first(&self, call: &CallFacts<'_>, number: u64, used: &[u64]) -> Answered {
        self.rules.iter().zip(used).position(|(rule, used)| {
            rule.matcher.holds(call, number) && rule.times.is_none_or(|times| *used < times)
        })
    }
}

impl Matcher {
    fn holds(&self, call: &CallFacts<'_>, number: u64) -> bool {
        let is = |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|w| w == given);
        self.step.as_deref().is_none_or(|step| is_step(step, call.path))
            && self.prompt_contains.as_deref().is_none_or(|part| call.prompt.contains(part))
            && is(&self.provider, call.provider)
            && is(&self.model, call.model)
            && self.call.is_none_or(|wanted| wanted == number)
    }
}

/// Whether `wanted` names the step at `path`: the whole address or the end of it (`analyze` is `review/files[3]/analyze`).
/// Without `[…]` in `wanted`, every item and turn is meant.
fn is_step(wanted: &str, path: &str) -> bool {
    if wanted.contains('[') {
        return ends_with_names(path, wanted);
    }
    let names: Vec<&str> = path.split('/').map(|name| name.split('[').next().unwrap_or(name)).collect();
    ends_with_names(&names.join("/"), wanted)
}

fn ends_with_names(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// The text of `data`.
pub(crate) fn data_text(data: &Value) -> String {
    data.to_string()
}
