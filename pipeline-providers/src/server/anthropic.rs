//! The Messages API, from the other side.
//!
//! Owns the strict reading of its requests and the writing of its answers.

use pipeline_core::provider::{FunctionDeclaration, Message, ModelRequest};
use serde_json::{Value, json};

use crate::server::reply::{Asked, Figures, Reply, Wrong, known, list, needed, over, text, words};
use crate::server::script::{Step, pieces};

const KEYS: [&str; 19] = [
    "model",
    "max_tokens",
    "messages",
    "system",
    "stream",
    "tools",
    "tool_choice",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "thinking",
    "output_config",
    "output_format",
    "metadata",
    "service_tier",
    "container",
    "context_management",
    "mcp_servers",
];

const BLOCKS: [&str; 8] = [
    "text",
    "image",
    "document",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
    "search_result",
];

/// Reads a request as the service does.
pub(super) fn read(body: &Value) -> Result<Asked, Wrong> {
    known(body, "body", &KEYS)?;
    let model = text(body, "body", "model")?.to_owned();
    if needed(body, "body", "max_tokens")?.as_u64().is_none_or(|n| n == 0) {
        return Err(Wrong("max_tokens: greater than or equal to 1".to_owned()));
    }
    let mut request = ModelRequest::default();
    let mut open: Vec<String> = Vec::new();
    let mut marked = None;
    let system = body.get("system").unwrap_or(&Value::Null);
    if system.to_string().contains("\"cache_control\"")
        || body["tools"].to_string().contains("\"cache_control\"")
    {
        marked = Some(format!("{}{system}", body["tools"]));
    }
    let messages = list(body, "body", "messages")?;
    for (at, message) in messages.iter().enumerate() {
        let what = format!("messages.{at}");
        known(message, &what, &["role", "content"])?;
        let role = text(message, &what, "role")?;
        let mut said = String::new();
        match needed(message, &what, "content")? {
            Value::String(words) if words.is_empty() => return Err(Wrong(format!("{what}.content: empty"))),
            Value::String(words) => said.clone_from(words),
            Value::Array(blocks) => {
                if blocks.is_empty() {
                    return Err(Wrong(format!("{what}.content: at least one is required")));
                }
                for block in blocks {
                    block_of(block, &what, role, &mut open, &mut said)?;
                }
            }
            _ => return Err(Wrong(format!("{what}.content: text or a list"))),
        }
        if message.to_string().contains("\"cache_control\"") {
            let before: String = messages.iter().take(at + 1).map(Value::to_string).collect();
            marked = Some(format!("{}{system}{before}", body["tools"]));
        }
        request.messages.push(match role {
            "user" => Message::user(said),
            "assistant" => Message::assistant(said),
            other => return Err(Wrong(format!("{what}.role: `{other}` is not user or assistant"))),
        });
    }
    if let Some(id) = open.first() {
        return Err(Wrong(format!("messages: `tool_use` ids were found without `tool_result` blocks: {id}")));
    }
    for (at, tool) in body.get("tools").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let what = format!("tools.{at}");
        let parameters = needed(tool, &what, "input_schema")?.clone();
        let name = text(tool, &what, "name")?.to_owned();
        request.functions.push(FunctionDeclaration { name, description: String::new(), parameters });
    }
    let format = body.pointer("/output_config/format").or_else(|| body.get("output_format"));
    request.output_schema = format.and_then(|f| f.get("schema")).cloned();
    let is_streamed = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    Ok(Asked { model, request, is_streamed, prefix: marked })
}

fn block_of(
    block: &Value,
    what: &str,
    role: &str,
    open: &mut Vec<String>,
    said: &mut String,
) -> Result<(), Wrong> {
    let kind = text(block, what, "type")?;
    if !BLOCKS.contains(&kind) {
        return Err(Wrong(format!("{what}.content: unknown block type `{kind}`")));
    }
    match kind {
        "text" => {
            let words = text(block, what, "text")?;
            if words.is_empty() {
                return Err(Wrong(format!("{what}: text content blocks must be non-empty")));
            }
            if !said.is_empty() {
                said.push('\n');
            }
            said.push_str(words);
        }
        "tool_use" => {
            text(block, what, "name")?;
            needed(block, what, "input")?;
            open.push(text(block, what, "id")?.to_owned());
        }
        "tool_result" => {
            let id = text(block, what, "tool_use_id")?;
            let place = open.iter().position(|o| o == id).filter(|_| role == "user");
            let place = place.ok_or_else(|| Wrong(format!("{what}: unexpected `tool_use_id`: {id}")))?;
            open.remove(place);
        }
        "thinking" => {
            text(block, what, "signature")?;
            text(block, what, "thinking")?;
        }
        "image" | "document" => {
            let source = needed(block, what, "source")?;
            if source.get("type").is_some_and(|t| t == "base64") {
                text(source, what, "media_type")?;
                text(source, what, "data")?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// An error in the format's own shape.
pub(super) fn error(status: u16, step: &Step, id: &str) -> Reply {
    let name = match status {
        400 | 422 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let name = step.error.get("type").cloned().unwrap_or_else(|| json!(name));
    let error = json!({"type": name, "message": words(&step.error)});
    Reply::json(status, &json!({"type": "error", "error": error, "request_id": id}))
}

/// A whole answer, or its events.
pub(super) fn answer(asked: &Asked, step: &Step, figures: &Figures, id: &str) -> Reply {
    let mut blocks = Vec::new();
    if let Some(thinking) = &step.thinking {
        blocks.push(json!({"type": "thinking", "thinking": thinking, "signature": "bW9jay1zaWduYXR1cmU="}));
    }
    if let Some(words) = step.text.as_ref().filter(|t| !t.is_empty()) {
        blocks.push(json!({"type": "text", "text": words}));
    }
    for (at, tool) in step.tools.iter().enumerate() {
        let id = tool.id.clone().unwrap_or_else(|| format!("toolu_{at}{}", &id[4..]));
        let input = if tool.input.is_null() { json!({}) } else { tool.input.clone() };
        blocks.push(json!({"type": "tool_use", "id": id, "name": tool.name, "input": input}));
    }
    let stop = step
        .stop
        .clone()
        .unwrap_or_else(|| if step.tools.is_empty() { "end_turn" } else { "tool_use" }.to_owned());
    let used = figures.used;
    let usage = json!({
        "input_tokens": used.input,
        "cache_creation_input_tokens": used.cache_write,
        "cache_read_input_tokens": used.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": used.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": used.output,
        "service_tier": "standard",
    });
    let usage = over(usage, &step.usage);
    let message = json!({
        "id": format!("msg_{}", &id[4..]),
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": null,
        "usage": usage,
    });
    if asked.is_streamed { Reply::Events(events(&message, step, id)) } else { Reply::json(200, &message) }
}

fn events(message: &Value, step: &Step, id: &str) -> Vec<(Option<&'static str>, String)> {
    let mut all = Vec::new();
    let mut tell = |name: &'static str, data: Value| all.push((Some(name), data.to_string()));
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    tell("message_start", json!({"type": "message_start", "message": start}));
    tell("ping", json!({"type": "ping"}));
    for (index, block) in message["content"].as_array().into_iter().flatten().enumerate() {
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let kind = block["type"].as_str().unwrap_or_default();
        let mut opened = block.clone();
        let mut deltas = Vec::new();
        let field = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
        match kind {
            "thinking" => {
                opened = json!({"type": "thinking", "thinking": "", "signature": ""});
                let said = pieces(&field("thinking"), 12).into_iter();
                deltas.extend(said.map(|p| json!({"type": "thinking_delta", "thinking": p})));
                deltas.push(json!({"type": "signature_delta", "signature": field("signature")}));
            }
            "tool_use" => {
                opened["input"] = json!({});
                let said = pieces(&block["input"].to_string(), 20).into_iter();
                deltas.extend(said.map(|p| json!({"type": "input_json_delta", "partial_json": p})));
            }
            _ => {
                opened["text"] = json!("");
                deltas.extend(
                    pieces(&field("text"), 12).into_iter().map(|p| json!({"type": "text_delta", "text": p})),
                );
            }
        }
        let opened = json!({"type": "content_block_start", "index": index, "content_block": opened});
        tell("content_block_start", opened);
        for one in deltas {
            tell("content_block_delta", delta(one));
        }
        tell("content_block_stop", json!({"type": "content_block_stop", "index": index}));
    }
    if let Some(error) = &step.sse_error {
        tell("error", json!({"type": "error", "error": error, "request_id": id}));
        return all;
    }
    let mut usage = message["usage"].clone();
    if let Value::Object(fields) = &mut usage {
        fields.retain(|name, _| name.ends_with("_tokens"));
    }
    let delta = json!({"stop_reason": message["stop_reason"], "stop_sequence": null});
    tell("message_delta", json!({"type": "message_delta", "delta": delta, "usage": usage}));
    tell("message_stop", json!({"type": "message_stop"}));
    all
}
