//! The responses format, which OpenAI's newer clients and its agent CLI speak, from the other side.
//!
//! Owns the writing of its answers; requests are read leniently.

use pipeline_core::provider::{Message, ModelRequest};
use serde_json::{Value, json};

use crate::server::reply::{Asked, Figures, Reply, Wrong, over, text};
use crate::server::script::{Step, pieces};

/// Reads as much of a request as is needed to answer it.
pub(super) fn read(body: &Value) -> Result<Asked, Wrong> {
    let model = text(body, "body", "model")?.to_owned();
    let said = match body.get("input") {
        Some(Value::String(words)) => words.clone(),
        Some(other) => other.to_string(),
        None => return Err(Wrong("body.input: field required".to_owned())),
    };
    let request = ModelRequest { messages: vec![Message::user(said)], ..ModelRequest::default() };
    let is_streamed = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    Ok(Asked { model, request, is_streamed, prefix: None })
}

/// A whole answer, or its events.
pub(super) fn answer(asked: &Asked, step: &Step, figures: &Figures, id: &str) -> Reply {
    let id = &id[4..];
    let mut output = Vec::new();
    if let Some(words) = &step.text {
        output.push(
            json!({"id": format!("msg_{id}"), "type": "message", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": words, "annotations": [], "logprobs": []}]}),
        );
    }
    for (at, tool) in step.tools.iter().enumerate() {
        output.push(json!({"id": format!("fc_{at}{id}"), "type": "function_call", "status": "completed",
            "call_id": format!("call_{at}{id}"), "name": tool.name, "arguments": tool.input.to_string()}));
    }
    let used = figures.used;
    let usage = json!({"input_tokens": used.input, "output_tokens": used.output,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": used.input + used.output});
    let whole = json!({
        "id": format!("resp_{id}"), "object": "response", "created_at": 1_764_000_000, "status": "completed",
        "error": null, "incomplete_details": null, "instructions": null, "model": asked.model, "output": output,
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "metadata": {}, "temperature": 1.0, "top_p": 1.0,
        "usage": over(usage, &step.usage),
    });
    if asked.is_streamed { Reply::Events(events(&whole)) } else { Reply::json(200, &whole) }
}

fn events(whole: &Value) -> Vec<(Option<&'static str>, String)> {
    let mut all: Vec<(Option<&'static str>, String)> = Vec::new();
    let mut tell = |name: &'static str, mut data: Value| {
        data["type"] = json!(name);
        data["sequence_number"] = json!(all.len() + 1);
        all.push((Some(name), data.to_string()));
    };
    let mut begun = whole.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    tell("response.created", json!({"response": begun}));
    for (index, item) in whole["output"].as_array().into_iter().flatten().enumerate() {
        let mut opened = item.clone();
        opened["status"] = json!("in_progress");
        let at = json!({"item_id": item["id"], "output_index": index});
        let with = |more: Value| {
            let mut data = at.clone();
            if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
                data.extend(more);
            }
            data
        };
        if item["type"] == "message" {
            opened["content"] = json!([]);
            tell("response.output_item.added", json!({"output_index": index, "item": opened}));
            let mut part = item["content"][0].clone();
            let said = part["text"].as_str().unwrap_or_default().to_owned();
            let done = part.clone();
            part["text"] = json!("");
            tell("response.content_part.added", with(json!({"content_index": 0, "part": part})));
            for piece in pieces(&said, 12) {
                tell(
                    "response.output_text.delta",
                    with(json!({"content_index": 0, "delta": piece, "logprobs": []})),
                );
            }
            tell(
                "response.output_text.done",
                with(json!({"content_index": 0, "text": said, "logprobs": []})),
            );
            tell("response.content_part.done", with(json!({"content_index": 0, "part": done})));
        } else {
            opened["arguments"] = json!("");
            tell("response.output_item.added", json!({"output_index": index, "item": opened}));
            let said = item["arguments"].as_str().unwrap_or_default();
            for piece in pieces(said, 20) {
                tell("response.function_call_arguments.delta", with(json!({"delta": piece})));
            }
            let done = with(json!({"name": item["name"], "arguments": said}));
            tell("response.function_call_arguments.done", done);
        }
        tell("response.output_item.done", json!({"output_index": index, "item": item}));
    }
    tell("response.completed", json!({"response": whole}));
    all
}
