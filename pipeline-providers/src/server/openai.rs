//! Chat completions, from the other side.
//!
//! Owns the strict reading of its requests and the writing of its answers.

use pipeline_core::provider::{FunctionDeclaration, Message, ModelRequest};
use serde_json::{Value, json};

use crate::server::reply::{Asked, Figures, Reply, Wrong, known, list, needed, over, text, words};
use crate::server::script::{Step, pieces};

const KEYS: [&str; 27] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "stop",
    "seed",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "user",
    "metadata",
    "store",
    "service_tier",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "modalities",
];

/// Reads a request as the service does.
pub(super) fn read(body: &Value) -> Result<Asked, Wrong> {
    known(body, "body", &KEYS)?;
    let model = text(body, "body", "model")?.to_owned();
    let mut request = ModelRequest::default();
    let mut open: Vec<String> = Vec::new();
    for (at, message) in list(body, "body", "messages")?.iter().enumerate() {
        let what = format!("messages[{at}]");
        let said = said(message, &what)?;
        match text(message, &what, "role")? {
            "system" | "developer" => {}
            "user" => {
                needed(message, &what, "content")?;
                request.messages.push(Message::user(said));
            }
            "assistant" => {
                for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
                    let function = needed(call, &what, "function")?;
                    text(function, &what, "name")?;
                    text(function, &what, "arguments")?;
                    open.push(text(call, &what, "id")?.to_owned());
                }
                request.messages.push(Message::assistant(said));
            }
            "tool" => {
                let id = text(message, &what, "tool_call_id")?;
                let place = open.iter().position(|o| o == id);
                let place = place.ok_or_else(|| Wrong(format!("{what}: no call has the id {id}")))?;
                open.remove(place);
            }
            other => return Err(Wrong(format!("{what}.role: `{other}` is not supported"))),
        }
    }
    if let Some(id) = open.first() {
        return Err(Wrong(format!("the call {id} has no message with role `tool`")));
    }
    for (at, tool) in body.get("tools").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let what = format!("tools[{at}]");
        let function = needed(tool, &what, "function")?;
        let parameters = function.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"}));
        let name = text(function, &what, "name")?.to_owned();
        request.functions.push(FunctionDeclaration { name, description: String::new(), parameters });
    }
    if let Some(format) = body.get("response_format").filter(|f| !f.is_null()) {
        let kind = text(format, "response_format", "type")?;
        if kind == "json_schema" {
            let schema = needed(format, "response_format", "json_schema")?;
            text(schema, "response_format.json_schema", "name")?;
            request.output_schema = schema.get("schema").cloned();
        }
    }
    let is_streamed = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    let first = body["messages"].get(0).map(Value::to_string);
    Ok(Asked { model, request, is_streamed, prefix: first.filter(|f| f.len() > 4096) })
}

fn said(message: &Value, what: &str) -> Result<String, Wrong> {
    match message.get("content") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(words)) => Ok(words.clone()),
        Some(Value::Array(parts)) => {
            let mut words = Vec::new();
            for part in parts {
                match text(part, what, "type")? {
                    "text" => words.push(text(part, what, "text")?),
                    "image_url" | "file" | "input_audio" | "refusal" => {}
                    other => return Err(Wrong(format!("{what}.content: unknown part `{other}`"))),
                }
            }
            Ok(words.join("\n"))
        }
        Some(_) => Err(Wrong(format!("{what}.content: text or a list"))),
    }
}

/// An error in the format's own shape.
pub(super) fn error(status: u16, step: &Step) -> Reply {
    let field = |name: &str| step.error.get(name).cloned();
    let kind = field("type")
        .unwrap_or_else(|| json!(if status == 401 { "invalid_request_error" } else { "server_error" }));
    let code = field("code").unwrap_or(if status == 401 { json!("invalid_api_key") } else { Value::Null });
    let error = json!({"message": words(&step.error), "type": kind, "param": field("param"), "code": code});
    Reply::json(status, &json!({"error": error}))
}

/// A whole answer, or its events.
pub(super) fn answer(asked: &Asked, step: &Step, figures: &Figures, with_usage: bool, id: &str) -> Reply {
    let calls: Vec<Value> = step
        .tools
        .iter()
        .enumerate()
        .map(|(at, tool)| {
            let id = tool.id.clone().unwrap_or_else(|| format!("call_{at}{}", &id[4..]));
            let input = if tool.input.is_null() { json!({}) } else { tool.input.clone() };
            json!({"id": id, "type": "function", "function": {"name": tool.name, "arguments": input.to_string()}})
        })
        .collect();
    let default = if calls.is_empty() { "stop" } else { "tool_calls" };
    let finish = step.stop.clone().unwrap_or_else(|| default.to_owned());
    let used = figures.used;
    let sent = used.input + used.cache_read + used.cache_write;
    let usage = over(
        json!({
            "prompt_tokens": sent,
            "completion_tokens": used.output,
            "total_tokens": sent + used.output,
            "prompt_tokens_details": {"cached_tokens": used.cache_read, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        }),
        &step.usage,
    );
    let base = |object: &str| {
        json!({"id": format!("chatcmpl-{}", &id[4..]), "object": object, "created": 1_764_000_000, "model": asked.model,
            "system_fingerprint": "fp_mock", "service_tier": "default"})
    };
    if !asked.is_streamed {
        let mut message =
            json!({"role": "assistant", "content": step.text, "refusal": null, "annotations": []});
        if let Some(thinking) = &step.thinking {
            message["reasoning_content"] = json!(thinking);
        }
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        let mut whole = base("chat.completion");
        whole["choices"] =
            json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}]);
        whole["usage"] = usage;
        return Reply::json(200, &whole);
    }
    let chunk = |delta: Value, finish: Value| {
        let mut chunk = base("chat.completion.chunk");
        chunk["choices"] = json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        (None, chunk.to_string())
    };
    let mut all = vec![chunk(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)];
    for (name, said) in [("reasoning_content", &step.thinking), ("content", &step.text)] {
        let said = said.as_deref().unwrap_or_default();
        for piece in pieces(said, 12).into_iter().filter(|p| !p.is_empty()) {
            all.push(chunk(json!({ name: piece }), Value::Null));
        }
    }
    for (index, call) in calls.iter().enumerate() {
        let mut opened = call.clone();
        opened["index"] = json!(index);
        opened["function"]["arguments"] = json!("");
        all.push(chunk(json!({"tool_calls": [opened]}), Value::Null));
        for piece in pieces(call["function"]["arguments"].as_str().unwrap_or_default(), 20) {
            let more = json!({"index": index, "function": {"arguments": piece}});
            all.push(chunk(json!({"tool_calls": [more]}), Value::Null));
        }
    }
    if let Some(error) = &step.sse_error {
        all.push((None, json!({"error": error}).to_string()));
        return Reply::Events(all);
    }
    all.push(chunk(json!({}), json!(finish)));
    if with_usage {
        let mut last = base("chat.completion.chunk");
        last["choices"] = json!([]);
        last["usage"] = usage;
        all.push((None, last.to_string()));
    }
    all.push((None, "[DONE]".to_owned()));
    Reply::Events(all)
}
