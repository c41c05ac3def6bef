//! Every way in which a run of the agent CLI can go wrong: one typed error or an answer, soon and within bounds.
//!
//! The same table as that of the providers over HTTP, for what a child process can do: each member of [`Row`] has its
//! cell, or this does not compile.

use std::time::Duration;

use pipeline_core::error::ErrorKind::*;
use pipeline_core::provider::Provider;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::support::{Fake, NOW, PRINT, assistant, failure, init, result, synthetic};
use crate::support::asking;
use crate::table::{Bill, Told, again, ends};

/// Longest that a cell may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The deadline of the cells that are about silence.
const SILENCE: Duration = Duration::from_millis(500);

rows! {
    /// What goes wrong.
    Row {
        // The service said no, and the CLI says so.
        BadRequest, PromptTooLong, Unauthorized, NotLoggedIn, Unpaid, Forbidden, NotFound, RequestTooLarge, TooMany,
        UsedUp, UsedUpInWords, NotUsedUp, Failed, Overloaded, RepeatedlyOverloaded, ConnectRefused, ConnectionLost,
        // Silence.
        HangBeforeOutput, HangInTheMiddle, HangAfterTheResult,
        // Broken off.
        NothingAtAll, NoResult, TornLine, ClosesItsOutput, Killed,
        // Nonsense, and what has no end.
        Garbage, NoObject, EndlessLine, EndlessComplaints,
        // Exit codes.
        UsageError, Crash, FailsAfterSuccess,
        // Answers that are none, and answers with something unknown in them.
        Empty, ZeroTurns, ToolDenied, ToolRefused, Refusal, RefusalWithoutError, NoVerdict, MaxTokens,
        MaxTokensWithoutError, MaxTurns, MaxMoney, SchemaRetries, UnknownSession, Interrupted, UnknownSubtype,
        UnknownStop, UnknownLine,
    }
}

/// One cell.
struct Cell {
    script: String,
    lines: Vec<Value>,
    told: Told,
    /// How the process ends, where it ends by itself.
    exit: Option<u8>,
    /// How long the step may take, where the cell is about that.
    limit: Option<Duration>,
}

impl Cell {
    /// Prints lines and exits.
    fn prints(lines: Vec<Value>, exit: u8, told: Told) -> Self {
        Self { script: format!("{PRINT}; exit {exit}"), lines, told, exit: Some(exit), limit: None }
    }

    /// Does something of its own.
    fn does(script: &str, told: Told) -> Self {
        Self { script: script.to_owned(), lines: vec![init()], told, exit: None, limit: None }
    }

    /// Is silent until the deadline.
    fn silent(self) -> Self {
        Self { limit: Some(SILENCE), ..self }
    }
}

fn cell(row: Row) -> Cell {
    match row {
        Row::BadRequest
        | Row::PromptTooLong
        | Row::Unauthorized
        | Row::NotLoggedIn
        | Row::Unpaid
        | Row::Forbidden
        | Row::NotFound
        | Row::RequestTooLarge
        | Row::TooMany
        | Row::UsedUp
        | Row::UsedUpInWords
        | Row::NotUsedUp
        | Row::Failed
        | Row::Overloaded
        | Row::RepeatedlyOverloaded
        | Row::ConnectRefused
        | Row::ConnectionLost
        | Row::MaxTokens => refused(row),
        Row::HangBeforeOutput
        | Row::HangInTheMiddle
        | Row::HangAfterTheResult
        | Row::NothingAtAll
        | Row::NoResult
        | Row::TornLine
        | Row::ClosesItsOutput
        | Row::Killed
        | Row::Garbage
        | Row::NoObject
        | Row::EndlessLine
        | Row::EndlessComplaints
        | Row::UsageError
        | Row::Crash
        | Row::FailsAfterSuccess => misbehaves(row),
        Row::Empty
        | Row::ZeroTurns
        | Row::ToolDenied
        | Row::ToolRefused
        | Row::Refusal
        | Row::RefusalWithoutError
        | Row::NoVerdict
        | Row::MaxTokensWithoutError
        | Row::MaxTurns
        | Row::MaxMoney
        | Row::SchemaRetries
        | Row::UnknownSession
        | Row::Interrupted
        | Row::UnknownSubtype
        | Row::UnknownStop
        | Row::UnknownLine => ended(row),
    }
}

/// An error of the service, as the CLI tells it: a success that is an error.
fn api(status: Value, text: &str) -> Value {
    result(text, json!({"is_error": true, "api_error_status": status}))
}

fn refused(row: Row) -> Cell {
    let wake = NOW / 1000 + 3600;
    let limit = |status: &str| {
        json!({"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": wake,
            "rateLimitType": "five_hour"}})
    };
    let too_many = "API Error: Request rejected (429) · slow";
    let (lines, told) = match row {
        Row::BadRequest => (vec![api(json!(400), "bad request")], ends(Invalid, "bad request")),
        Row::PromptTooLong => {
            let other =
                json!({"is_error": true, "api_error_status": 400, "terminal_reason": "prompt_too_long"});
            (vec![result("Prompt is too long", other)], ends(TooLarge, "too long"))
        }
        Row::Unauthorized => {
            let lines =
                vec![synthetic("authentication_failed", "x"), api(json!(401), "Failed to authenticate")];
            (lines, ends(Auth, "authenticate"))
        }
        Row::NotLoggedIn => {
            (vec![api(json!(null), "Not logged in · Please run /login")], ends(Auth, "Not logged in"))
        }
        Row::Unpaid => {
            let lines = vec![synthetic("billing_error", "x"), api(json!(400), "Credit balance is too low")];
            (lines, ends(Quota, "Credit"))
        }
        Row::Forbidden => (vec![api(json!(403), "forbidden")], ends(Denied, "forbidden")),
        Row::NotFound => (vec![api(json!(404), "model: nope")], ends(Invalid, "nope")),
        Row::RequestTooLarge => (vec![api(json!(413), "large")], ends(TooLarge, "large")),
        Row::TooMany => {
            (vec![synthetic("rate_limit", "x"), api(json!(429), too_many)], again(RateLimited, "slow"))
        }
        Row::UsedUp => {
            let text = "You've hit your session limit · resets 3pm";
            let lines = vec![limit("rejected"), synthetic("rate_limit", text), api(json!(429), text)];
            (lines, ends(Quota, "session limit").after(3_600_000))
        }
        Row::UsedUpInWords => {
            let text = format!("Claude AI usage limit reached|{wake}");
            let lines = vec![synthetic("rate_limit", &text), api(json!(429), &text)];
            (lines, ends(Quota, "usage limit").after(3_600_000))
        }
        Row::NotUsedUp => {
            let lines = vec![limit("allowed"), synthetic("rate_limit", "x"), api(json!(429), too_many)];
            (lines, again(RateLimited, "slow"))
        }
        Row::Failed => (vec![api(json!(500), "ouch")], again(Server, "ouch")),
        Row::Overloaded => (vec![api(json!(529), "ouch")], again(Overloaded, "ouch")),
        Row::RepeatedlyOverloaded => {
            (vec![api(json!(null), "Repeated 529 Overloaded errors")], again(Overloaded, "529"))
        }
        Row::ConnectRefused => {
            let text = "Unable to connect to API (ConnectionRefused)";
            (vec![api(json!(null), text)], again(Network, "Refused"))
        }
        Row::ConnectionLost => {
            let text = "API Error: Connection to the API was lost (ECONNRESET).";
            (vec![synthetic("server_error", "x"), api(json!(null), text)], again(Network, "ECONNRESET"))
        }
        Row::MaxTokens => {
            let text = "API Error: Claude's response exceeded the 64000 output token maximum.";
            (vec![api(json!(null), text)], ends(TooLarge, "64000"))
        }
        other => panic!("{other:?} is not told by the service"),
    };
    Cell::prints(lines, 1, told.billed(Bill::Told))
}

fn misbehaves(row: Row) -> Cell {
    let late = again(TimedOut, "before its deadline");
    let good = || vec![init(), assistant("ok"), result("ok", json!({}))];
    match row {
        Row::HangBeforeOutput => Cell::does("exec sleep 300", late).silent(),
        Row::HangInTheMiddle => Cell::does("cat \"$FAKE_DIR/lines\"; exec sleep 300", late).silent(),
        Row::HangAfterTheResult => {
            Cell { lines: good(), ..Cell::does("cat \"$FAKE_DIR/lines\"; exec sleep 300", late).silent() }
        }
        Row::NothingAtAll => Cell::prints(vec![], 0, again(Truncated, "without a result")),
        Row::NoResult => Cell::prints(vec![init(), assistant("x")], 0, again(Truncated, "without a result")),
        Row::TornLine => {
            Cell::does("printf '{\"type\":\"result\",\"subt'", again(Truncated, "middle of a line"))
        }
        Row::ClosesItsOutput => {
            Cell::does("exec >&- 2>&-; exec sleep 60", again(Truncated, "went on running"))
        }
        Row::Killed => Cell::does("cat \"$FAKE_DIR/lines\"; kill -9 $$", again(Truncated, "signal 9")),
        Row::Garbage => {
            Cell::does("head -c 3000 /dev/urandom | base64; exec sleep 60", ends(Parse, "no JSON object"))
        }
        Row::NoObject => Cell::does("echo '[1, 2]'; exec sleep 60", ends(Parse, "[1, 2]")),
        Row::EndlessLine => {
            let told = ends(TooLarge, "a line of over").billed(Bill::InFull);
            Cell::does("tr '\\0' x </dev/zero", told)
        }
        Row::EndlessComplaints => {
            let script =
                "cat >/dev/null; head -c 100000000 /dev/zero | tr '\\0' x >&2; cat \"$FAKE_DIR/lines\"";
            Cell { lines: good(), ..Cell::does(script, Told::Answer("ok", 0)) }
        }
        Row::UsageError => {
            let script = "cat >/dev/null; echo 'error: unknown option' >&2; exit 1";
            Cell { exit: Some(1), ..Cell::does(script, ends(Invalid, "unknown option")) }
        }
        Row::Crash => {
            let script = "echo \"thread 'main' panicked at x.rs:1\" >&2; exit 101";
            Cell { exit: Some(101), ..Cell::does(script, again(Truncated, "panicked")) }
        }
        Row::FailsAfterSuccess => Cell::prints(good(), 1, again(Truncated, "exit code 1").billed(Bill::Told)),
        other => panic!("{other:?} is not about the process"),
    }
}

fn ended(row: Row) -> Cell {
    let good = |other: Value| vec![init(), assistant("x"), result("x", other)];
    let bad = |subtype: &str, words: &str| vec![failure(subtype, words, json!({}))];
    let (lines, exit, told) = match row {
        Row::Empty => {
            (vec![init(), result("", json!({"num_turns": 2}))], 0, again(Truncated, "an empty answer"))
        }
        Row::ZeroTurns => {
            let free = json!({"num_turns": 0, "modelUsage": {}, "usage": {}, "total_cost_usd": 0});
            let lines = vec![init(), result("Total cost: $0", free)];
            (lines, 0, ends(Invalid, "never asked"))
        }
        Row::ToolDenied => {
            let denial =
                json!([{"tool_name": "Write", "tool_use_id": "t", "tool_input": {"file_path": "x"}}]);
            (good(json!({"permission_denials": denial})), 0, ends(Denied, "Write"))
        }
        Row::ToolRefused => {
            let words = "<tool_use_error>Error: No such tool available: Write. Use another.</tool_use_error>";
            let refused = json!({"type": "tool_result", "is_error": true, "content": words});
            let refused = json!({"type": "user", "message": {"content": [refused]}});
            (vec![init(), refused, result("end", json!({}))], 0, ends(Denied, "No such tool"))
        }
        Row::Refusal => (good(json!({"is_error": true, "stop_reason": "refusal"})), 1, ends(Refused, "x")),
        Row::RefusalWithoutError => (good(json!({"stop_reason": "refusal"})), 0, ends(Refused, "declined")),
        Row::NoVerdict => (good(json!({"is_error": null})), 0, again(Server, "x")),
        Row::MaxTokensWithoutError => {
            (good(json!({"stop_reason": "max_tokens"})), 0, ends(TooLarge, "cut off"))
        }
        Row::MaxTurns => {
            (bad("error_max_turns", "Reached maximum number of turns (1)"), 1, ends(Budget, "(1)"))
        }
        Row::MaxMoney => {
            (bad("error_max_budget_usd", "Reached maximum budget ($0.001)"), 1, ends(Budget, "0.001"))
        }
        Row::SchemaRetries => {
            (bad("error_max_structured_output_retries", "5 tries"), 1, ends(Schema, "5 tries"))
        }
        Row::UnknownSession => {
            let words = "No conversation found with session ID: 0";
            let lines = vec![failure("error_during_execution", words, json!({"num_turns": 0}))];
            (lines, 1, ends(Invalid, "No conversation"))
        }
        Row::Interrupted => (bad("error_during_execution", "stopped"), 0, again(Server, "stopped")),
        Row::UnknownSubtype => (bad("error_something_new", "new"), 1, again(Server, "error_something_new")),
        Row::UnknownStop => {
            let lines = good(json!({"stop_reason": "a_reason_of_next_year"}));
            return Cell::prints(lines, 0, Told::Answer("x", 1));
        }
        Row::UnknownLine => {
            let mut lines = good(json!({}));
            lines.insert(1, json!({"type": "weather", "sun": true}));
            return Cell::prints(lines, 0, Told::Answer("x", 0));
        }
        other => panic!("{other:?} is no end"),
    };
    Cell::prints(lines, exit, told.billed(Bill::Told))
}

/// Goes through one cell.
async fn prove(row: Row) {
    let name = format!("{row:?} × claude CLI");
    let Cell { script, lines, told, exit, limit } = cell(row);
    let fake = Fake::new(&script, &lines);
    let mut cx = fake.context();
    let begun = Instant::now();
    cx.deadline = begun + limit.unwrap_or(SOON * 2);
    let (provider, request) = (fake.provider(), asking("hi"));
    let came = timeout(SOON, provider.complete(&request, &cx)).await;
    let came = came.unwrap_or_else(|_| panic!("{name}: it goes on after {:?}", begun.elapsed()));
    if let Some(error) = told.check(&name, came)
        && let Some(exit) = exit
    {
        assert_eq!(error.details["exit_code"], json!(exit), "{name}: {error:?}");
        let id = lines.iter().rev().find_map(|line| line["request_id"].as_str());
        // What the service called the request, where the CLI told it with an error.
        if id == Some("req_2") {
            assert_eq!(error.details["request_id"], json!(id), "{name}: {error:?}");
        }
    }
}

/// Naive: a process that ends, dies, hangs or talks without end takes its caller along.
#[tokio::test(flavor = "multi_thread")]
async fn n04_n19c_x26_every_fault_of_the_agent_is_told_by_its_kind() {
    let mut running = JoinSet::new();
    for &row in Row::ALL {
        if running.len() >= 6 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(prove(row));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    // Somebody who does well is not touched by any of them.
    let lines = [init(), assistant("ok"), result("ok", json!({}))];
    assert_eq!(Fake::new(PRINT, &lines).ask(&asking("hi")).await.unwrap().text, "ok");
}
