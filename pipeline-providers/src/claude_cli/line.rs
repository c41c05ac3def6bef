//! The lines that the CLI prints (`stream-json`), as what they mean.
//!
//! Owns [`Line`] and its reader. Unknown kinds of lines are nothing; a line that is no JSON object is an error of whoever
//! reads. Must not judge: what a result is worth is decided in `verdict.rs`.

use pipeline_core::fact::Usage;
use serde_json::Value;

/// One thing that a line tells. A line may tell several.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// The CLI is up.
    Init(Init),
    /// A piece of the answer's text.
    TextDelta(String),
    /// A piece of thinking.
    ThinkingDelta(String),
    /// The agent calls a tool.
    ToolCall(String),
    /// A tool that the agent asked for does not exist or is not allowed to it.
    ToolRefused(String),
    /// A message of the model is complete: its id, its model.
    Message { id: String, model: String },
    /// The CLI itself speaks in place of the model: its own name for the error, and the request's id.
    Trouble { error: Option<String>, request_id: Option<String> },
    /// Usage of the message that is being received.
    Usage { id: Option<String>, usage: Usage },
    /// A word for people.
    Note(String),
    /// Another model took over.
    Fallback(String),
    /// The account's limit: whether calls are refused, and until when (seconds since 1970).
    Limit { rejected: bool, resets_at: Option<u64> },
    /// A result; the last one counts.
    Result(Box<ResultLine>),
}

/// What the CLI says of itself when it is up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Init {
    pub session_id: Option<String>,
    pub model: String,
    /// MCP servers with their status.
    pub servers: Vec<(String, String)>,
}

/// A result line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ResultLine {
    pub subtype: String,
    pub is_error: bool,
    pub api_error_status: Option<u64>,
    pub num_turns: u64,
    /// The answer, or the CLI's words on what went wrong.
    pub text: String,
    pub stop_reason: Option<String>,
    pub terminal_reason: Option<String>,
    pub session_id: Option<String>,
    pub structured: Option<Value>,
    /// Tools that were denied, each with its input.
    pub denials: Vec<Value>,
    /// Tokens and cost of the whole process.
    pub usage: Usage,
}

/// What a line tells; `None` when it is no JSON object.
pub(super) fn read(line: &[u8]) -> Option<Vec<Line>> {
    let value: Value = serde_json::from_slice(line).ok()?;
    value.is_object().then(|| match text(&value, "type") {
        "system" => system(&value),
        // What subagents say is not the answer.
        "assistant" | "stream_event" if value["parent_tool_use_id"].is_string() => called(&value),
        "assistant" => assistant(&value),
        "stream_event" => delta(&value["event"]),
        "user" => refused(&value),
        "rate_limit_event" => vec![Line::Limit {
            rejected: value["rate_limit_info"]["status"] == "rejected",
            resets_at: value["rate_limit_info"]["resetsAt"].as_u64(),
        }],
        "result" => vec![Line::Result(Box::new(result(&value)))],
        _ => Vec::new(),
    })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn owned(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn system(value: &Value) -> Vec<Line> {
    match text(value, "subtype") {
        "init" => {
            let server = |s: &Value| (text(s, "name").to_owned(), text(s, "status").to_owned());
            vec![Line::Init(Init {
                session_id: owned(&value["session_id"]),
                model: text(value, "model").to_owned(),
                servers: items(&value["mcp_servers"]).iter().map(server).collect(),
            })]
        }
        "api_retry" => {
            let status = value["error_status"].as_u64().map(|s| format!(" ({s})")).unwrap_or_default();
            let wait = value["retry_delay_ms"].as_f64().unwrap_or_default();
            vec![Line::Note(format!(
                "the agent tries its call again after {wait:.0} ms: {}{status}",
                text(value, "error")
            ))]
        }
        "model_fallback" => {
            let (from, to) = (text(value, "original_model"), text(value, "fallback_model"));
            vec![Line::Fallback(format!("{to} took over from {from}: {}", text(value, "trigger")))]
        }
        _ => Vec::new(),
    }
}

fn assistant(value: &Value) -> Vec<Line> {
    let message = &value["message"];
    if message["model"] == "<synthetic>" {
        return vec![Line::Trouble {
            error: owned(&value["error"]),
            request_id: owned(&value["request_id"]),
        }];
    }
    let (id, model) = (text(message, "id").to_owned(), text(message, "model").to_owned());
    let mut lines = vec![Line::Message { id, model }];
    lines.extend(called(value));
    lines
}

/// Tools that a message calls.
fn called(value: &Value) -> Vec<Line> {
    let blocks = items(&value["message"]["content"]).iter();
    blocks.filter(|b| b["type"] == "tool_use").map(|b| Line::ToolCall(text(b, "name").to_owned())).collect()
}

fn delta(event: &Value) -> Vec<Line> {
    let delta = &event["delta"];
    match (text(event, "type"), text(delta, "type")) {
        ("content_block_delta", "text_delta") => vec![Line::TextDelta(text(delta, "text").to_owned())],
        ("content_block_delta", "thinking_delta") => {
            vec![Line::ThinkingDelta(text(delta, "thinking").to_owned())]
        }
        ("message_start", _) => {
            let message = &event["message"];
            vec![Line::Usage { id: owned(&message["id"]), usage: api_usage(&message["usage"]) }]
        }
        ("message_delta", _) => vec![Line::Usage { id: None, usage: api_usage(&event["usage"]) }],
        _ => Vec::new(),
    }
}

fn api_usage(usage: &Value) -> Usage {
    let count = |key: &str| usage[key].as_u64().unwrap_or(0);
    Usage {
        input: count("input_tokens"),
        output: count("output_tokens"),
        cache_read: count("cache_read_input_tokens"),
        cache_write: count("cache_creation_input_tokens"),
        ..Usage::default()
    }
}

/// Tools that were called and do not exist for this agent. What is denied otherwise is told by the result.
fn refused(value: &Value) -> Vec<Line> {
    let results = items(&value["message"]["content"]).iter();
    let words = results.filter(|r| r["type"] == "tool_result" && r["is_error"] == true).filter_map(|r| {
        let words = r["content"].as_str()?;
        let words = words.strip_prefix("<tool_use_error>").unwrap_or(words);
        let words = words.strip_suffix("</tool_use_error>").unwrap_or(words);
        words.trim_start_matches("Error: ").starts_with("No such tool available").then(|| words.to_owned())
    });
    words.map(Line::ToolRefused).collect()
}

fn result(value: &Value) -> ResultLine {
    let errors: Vec<&str> = items(&value["errors"]).iter().filter_map(Value::as_str).collect();
    let words = value["result"].as_str().map_or_else(|| errors.join("; "), str::to_owned);
    ResultLine {
        subtype: text(value, "subtype").to_owned(),
        // What does not say that it is no error is one.
        is_error: value["is_error"] != false,
        api_error_status: value["api_error_status"].as_u64(),
        num_turns: value["num_turns"].as_u64().unwrap_or(0),
        text: words,
        stop_reason: owned(&value["stop_reason"]),
        terminal_reason: owned(&value["terminal_reason"]),
        session_id: owned(&value["session_id"]),
        structured: value.get("structured_output").filter(|v| !v.is_null()).cloned(),
        denials: items(&value["permission_denials"]).to_vec(),
        usage: total(value),
    }
}

/// Usage of the whole process: `usage` is that of the last prompt only.
fn total(value: &Value) -> Usage {
    // What is no price leaves the call without one: it counts as what was reserved for it.
    let cost_usd = value["total_cost_usd"].as_f64().filter(|cost| *cost >= 0.0);
    let mut usage = Usage { cost_usd, ..Usage::default() };
    for model in value["modelUsage"].as_object().into_iter().flat_map(|models| models.values()) {
        let count = |key: &str| model[key].as_u64().unwrap_or(0);
        usage.add(&Usage {
            input: count("inputTokens"),
            output: count("outputTokens"),
            cache_read: count("cacheReadInputTokens"),
            cache_write: count("cacheCreationInputTokens"),
            cost_usd: None,
            ..Usage::default()
        });
    }
    usage
}
