//! What a finished run of the CLI is worth: an answer, or one typed error.
//!
//! Owns [`Told`] (everything the CLI said) and the rules by which it is judged. Neither its exit code nor its `subtype`
//! is believed alone: an answer needs both, no error, a turn of the model, nothing denied, and the data that was asked
//! for. Must not know processes or how lines are written.

use std::collections::BTreeSet;
use std::process::ExitStatus;

use pipeline_core::clock::Timestamp;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::ModelAnswer;
use serde_json::{Value, json};

use crate::claude_cli::line::{Line, ResultLine};

/// Stop reasons of an answer that is whole.
const STOPS: [&str; 3] = ["end_turn", "tool_use", "stop_sequence"];

/// How much of what it complained on standard error is shown.
const TAIL: usize = 2000;

/// Everything that the CLI said.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub has_begun: bool,
    pub session_id: Option<String>,
    pub model: String,
    messages: BTreeSet<String>,
    refused: Vec<String>,
    warnings: Vec<String>,
    error: Option<String>,
    request_id: Option<String>,
    limit: Option<Limit>,
    result: Option<ResultLine>,
}

#[derive(Debug)]
struct Limit {
    rejected: bool,
    resets_at: Option<u64>,
}

/// How the process ended.
pub(super) struct Ended<'a> {
    pub status: ExitStatus,
    pub stderr: &'a str,
    /// Text that is no whole line, at the end of what it printed.
    pub torn: bool,
}

impl Told {
    /// Keeps what a line tells.
    pub fn hear(&mut self, line: Line) {
        self.has_begun = true;
        match line {
            Line::Init(init) => {
                self.session_id = init.session_id;
                self.model = init.model;
            }
            Line::Message { id, model } => {
                self.messages.insert(id);
                self.model = model;
            }
            Line::Trouble { error, request_id } => {
                self.error = error.or(self.error.take());
                self.request_id = request_id.or(self.request_id.take());
            }
            Line::ToolRefused(words) => self.refused.push(words),
            Line::Fallback(words) => self.warnings.push(words),
            Line::Limit { rejected, resets_at } => self.limit = Some(Limit { rejected, resets_at }),
            Line::Result(result) => self.result = Some(*result),
            Line::TextDelta(_)
            | Line::ThinkingDelta(_)
            | Line::ToolCall(_)
            | Line::Usage { .. }
            | Line::Note(_) => {}
        }
    }

    /// Whether a result was told; more may follow.
    pub fn has_result(&self) -> bool {
        self.result.is_some()
    }

    /// The verdict. `schema` = data was asked for.
    pub fn verdict(
        mut self,
        ended: &Ended<'_>,
        schema: bool,
        now: Timestamp,
    ) -> Result<ModelAnswer, StepError> {
        let Some(result) = self.result.take() else { return Err(self.without_result(ended)) };
        let error = match self.fault(&result, ended, schema) {
            Some((kind, message, help)) => {
                let error = StepError::new(kind, message);
                help.map_or(error.clone(), |help| error.help(help))
            }
            None => return Ok(self.answer(result, schema)),
        };
        let details = json!({
            "subtype": result.subtype,
            "api_error_status": result.api_error_status,
            "error": self.error,
            "request_id": self.request_id,
            "denials": result.denials,
            "refused": self.refused,
            "session_id": result.session_id,
            "usage": self.usage(&result),
        });
        let mut error = Self::with_process(error, details, ended);
        // An agent may have paid for many turns before an error whose kind is free where it is the first word.
        let used = self.usage(&result);
        if used.cost_usd.is_some() || used.tokens() > 0 {
            error = error.used(used);
        }
        if error.kind == ErrorKind::Quota {
            let until = self.limit.as_ref().and_then(|l| l.resets_at).or_else(|| epoch_in(&result.text));
            error.retry_after_ms = until.map(|until| ms_until(until, now));
        }
        Err(error)
    }

    /// What is wrong with a result: the kind, the sentence, what to do.
    fn fault(
        &self,
        result: &ResultLine,
        ended: &Ended<'_>,
        schema: bool,
    ) -> Option<(ErrorKind, String, Option<&'static str>)> {
        if result.subtype == "success" && result.is_error {
            return Some(self.api_error(result));
        }
        if result.subtype != "success" {
            return Some(by_subtype(result));
        }
        let said = |what: &str| format!("{what}: {}", shorten(&result.text));
        if let Some(denied) = self.denied(result) {
            let help = "allow it in `claude_options` (`allowed_tools`, `permission_mode`), or say in the prompt that it must not be used";
            return Some((ErrorKind::Denied, denied, Some(help)));
        }
        if result.num_turns == 0 {
            let help =
                "a prompt that is a command of the agent's never reaches the model: put words before it";
            return Some((ErrorKind::Invalid, said("the agent never asked the model"), Some(help)));
        }
        if result.stop_reason.as_deref() == Some("refusal") {
            return Some((ErrorKind::Refused, said("the model declined"), None));
        }
        if result.stop_reason.as_deref() == Some("max_tokens") {
            let help = "raise `max_output_tokens`, or ask for a shorter answer";
            return Some((ErrorKind::TooLarge, said("the answer is cut off"), Some(help)));
        }
        if !ended.status.success() {
            let what = format!("the agent claims success and ended with {}", how(ended.status));
            return Some((ErrorKind::Truncated, what, None));
        }
        if schema && result.structured.is_none() {
            let help = "say in the prompt that the answer is data, or use a stronger model";
            let what = "the agent answered without the data that `output_schema` asks for";
            return Some((ErrorKind::Schema, said(what), Some(help)));
        }
        if !schema && result.text.is_empty() && self.messages.is_empty() {
            return Some((ErrorKind::Truncated, "the agent gave an empty answer".to_owned(), None));
        }
        None
    }

    /// An error of the service, which the CLI reports as a success that is an error.
    fn api_error(&self, result: &ResultLine) -> (ErrorKind, String, Option<&'static str>) {
        let is_quota = self.limit.as_ref().is_some_and(|l| l.rejected) || speaks_of_quota(&result.text);
        let (kind, help) = match (self.error.as_deref(), result.api_error_status) {
            _ if result.stop_reason.as_deref() == Some("refusal") => (ErrorKind::Refused, None),
            _ if result.terminal_reason.as_deref() == Some("prompt_too_long") => {
                (ErrorKind::TooLarge, Some("give it less: fewer files, fewer tools, a shorter conversation"))
            }
            (Some("billing_error"), _) => {
                (ErrorKind::Quota, Some("add credit to the account, or use another provider"))
            }
            (Some("rate_limit"), _) | (_, Some(429)) if is_quota => {
                (ErrorKind::Quota, Some("wait until the limit resets, or use another provider"))
            }
            (Some("rate_limit"), _) | (_, Some(429)) => (ErrorKind::RateLimited, None),
            (Some("authentication_failed" | "oauth_org_not_allowed"), _) | (_, Some(401)) => (
                ErrorKind::Auth,
                Some(
                    "set ANTHROPIC_API_KEY where the run is started, log in with `claude /login`, or run with --mock",
                ),
            ),
            (Some("max_output_tokens"), _) => {
                (ErrorKind::TooLarge, Some("raise `max_output_tokens`, or ask for a shorter answer"))
            }
            (Some("overloaded"), _) | (_, Some(529)) => (ErrorKind::Overloaded, None),
            (Some("model_not_found"), _) | (_, Some(404)) => {
                (ErrorKind::Invalid, Some("check the name of the model"))
            }
            (_, Some(403)) => (ErrorKind::Denied, Some("see what the credential is allowed to do")),
            (_, Some(413)) => (ErrorKind::TooLarge, Some("give it less")),
            (_, Some(408)) => (ErrorKind::Network, None),
            (_, Some(500..=599)) => (ErrorKind::Server, None),
            (Some("invalid_request"), _) | (_, Some(400..=499)) => (ErrorKind::Invalid, None),
            (_, None) => by_words(&result.text),
            (_, Some(_)) => (ErrorKind::Server, None),
        };
        (kind, self.words(result), help)
    }

    /// The CLI's words, or what else is known where it has none.
    fn words(&self, result: &ResultLine) -> String {
        let words = shorten(&result.text);
        if !words.is_empty() {
            return words;
        }
        let status = result.api_error_status.map(|status| format!("status {status}"));
        let known: Vec<String> = self.error.clone().into_iter().chain(status).collect();
        let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
        format!("the agent failed and did not say why{known}")
    }

    /// Which tools were denied, or asked for in vain.
    fn denied(&self, result: &ResultLine) -> Option<String> {
        let mut names: Vec<&str> = result.denials.iter().filter_map(|d| d["tool_name"].as_str()).collect();
        names.dedup();
        match (names.as_slice(), self.refused.first()) {
            ([], None) if result.denials.is_empty() => None,
            ([], None) => Some("the agent was denied a tool".to_owned()),
            ([], Some(words)) => Some(format!("the agent was refused a tool: {}", shorten(words))),
            (names, _) => Some(format!("the agent was denied {}", names.join(", "))),
        }
    }

    /// The process ended and never told a result.
    fn without_result(&self, ended: &Ended<'_>) -> StepError {
        let tail = last_line(ended.stderr);
        let words = if tail.is_empty() { String::new() } else { format!(": {tail}") };
        let error = match (ended.status.code(), self.has_begun, ended.torn) {
            // It says what is wrong with its arguments before it begins.
            (Some(1), false, false) if !tail.is_empty() => {
                StepError::invalid(format!("the agent did not begin{words}"))
            }
            (_, _, true) => StepError::new(
                ErrorKind::Truncated,
                format!(
                    "the agent's output breaks off in the middle of a line ({}){words}",
                    how(ended.status)
                ),
            ),
            _ => StepError::new(
                ErrorKind::Truncated,
                format!("the agent ended without a result ({}){words}", how(ended.status)),
            ),
        };
        Self::with_process(error, json!({ "session_id": self.session_id }), ended)
    }

    fn with_process(error: StepError, mut details: Value, ended: &Ended<'_>) -> StepError {
        details["exit_code"] = json!(ended.status.code());
        #[cfg(unix)]
        {
            use std::os::unix::process::ExitStatusExt;
            details["signal"] = json!(ended.status.signal());
        }
        details["stderr"] = json!(tail(ended.stderr));
        error.details(details)
    }

    fn usage(&self, result: &ResultLine) -> Usage {
        let calls =
            u64::try_from(self.messages.len()).unwrap_or(u64::MAX).max(u64::from(result.num_turns > 0));
        let unpriced_calls = if result.usage.cost_usd.is_none() { calls } else { 0 };
        Usage { calls, unpriced_calls, ..result.usage }
    }

    fn answer(mut self, result: ResultLine, schema: bool) -> ModelAnswer {
        let usage = self.usage(&result);
        if let Some(reason) = result.stop_reason.as_deref().filter(|r| !STOPS.contains(r)) {
            self.warnings.push(format!("the answer ended for a reason that is not known here: `{reason}`"));
        }
        let text = match result.structured {
            Some(data) if schema => data.to_string(),
            _ => result.text,
        };
        ModelAnswer {
            text,
            model: self.model,
            usage,
            stop_reason: result.stop_reason.unwrap_or_else(|| "end_turn".to_owned()),
            session_id: result.session_id.or(self.session_id),
            function_calls: Vec::new(),
            content: Vec::new(),
            request_id: self.request_id,
            warnings: self.warnings,
            files: std::collections::BTreeMap::new(),
        }
    }
}

/// What a result is that says itself that it is none.
fn by_subtype(result: &ResultLine) -> (ErrorKind, String, Option<&'static str>) {
    let said = |what: &str| format!("{what}: {}", shorten(&result.text));
    match result.subtype.as_str() {
        "error_max_turns" => {
            let help = "raise `max_turns`, or ask for less in one step";
            (ErrorKind::Budget, said("the agent used up its turns"), Some(help))
        }
        "error_max_budget_usd" => {
            let help = "raise the budget, or ask for less in one step";
            (ErrorKind::Budget, said("the agent used up its money"), Some(help))
        }
        "error_max_structured_output_retries" => {
            let help = "make the schema simpler, or describe it in the prompt";
            let what = "the agent found no data that fits `output_schema`";
            (ErrorKind::Schema, said(what), Some(help))
        }
        _ if result.num_turns == 0 => (ErrorKind::Invalid, said("the agent did not begin"), None),
        other => (ErrorKind::Server, said(&format!("the agent failed ({other})")), None),
    }
}

/// Errors for which the CLI has no status: it never had an answer.
fn by_words(text: &str) -> (ErrorKind, Option<&'static str>) {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if has(&["not logged in", "invalid api key", "/login", "oauth token"]) {
        let help =
            "set ANTHROPIC_API_KEY where the run is started, log in with `claude /login`, or run with --mock";
        (ErrorKind::Auth, Some(help))
    } else if has(&["unable to connect", "connection", "timed out", "econnre", "socket", "certificate"]) {
        (ErrorKind::Network, None)
    } else if has(&["overloaded", "529"]) {
        (ErrorKind::Overloaded, None)
    } else if speaks_of_quota(&text) {
        (ErrorKind::Quota, Some("wait until the limit resets, or use another provider"))
    } else if has(&["output token maximum"]) {
        (ErrorKind::TooLarge, Some("raise `max_output_tokens`, or ask for a shorter answer"))
    } else {
        (ErrorKind::Server, None)
    }
}

/// Whether the CLI's words speak of an account that is used up, and not of too many requests just now.
fn speaks_of_quota(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let signs =
        ["usage limit", "limit reached", "you've hit your", "credit balance", "out of usage", "spend limit"];
    signs.iter().any(|sign| text.contains(sign))
}

/// The time in `…limit reached|1764090000`: seconds since 1970.
fn epoch_in(text: &str) -> Option<u64> {
    let (_, after) = text.rsplit_once('|')?;
    let digits: String = after.trim().chars().take_while(char::is_ascii_digit).collect();
    let number: u64 = digits.parse().ok()?;
    // Some versions give milliseconds.
    Some(if number > 100_000_000_000 { number / 1000 } else { number })
}

fn ms_until(seconds: u64, now: Timestamp) -> u64 {
    seconds.saturating_mul(1000).saturating_sub(u64::try_from(now.0).unwrap_or(0))
}

fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return format!("killed by signal {signal}");
        }
    }
    status.code().map_or_else(|| "unknown end".to_owned(), |code| format!("exit code {code}"))
}

fn last_line(text: &str) -> String {
    shorten(text.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default())
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(TAIL);
    (start..=text.len()).find_map(|at| text.get(at..)).unwrap_or_default()
}

/// Enough of the CLI's words to understand it, on one line.
fn shorten(text: &str) -> String {
    const MOST: usize = 600;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
