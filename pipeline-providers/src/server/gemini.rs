//! Gemini's generateContent, from the other side.
//!
//! Owns the strict reading of its requests and the writing of its answers.

use pipeline_core::provider::{FunctionDeclaration, Message, ModelRequest};
use serde_json::{Map, Value, json};

use crate::server::reply::{Asked, Figures, Reply, Wrong, known, list, over, text, words};
use crate::server::script::{Step, pieces};

/// Reads a request as the service does: names in either of its two spellings.
pub(super) fn read(body: &Value, target: &str) -> Result<Asked, Wrong> {
    let body = camel(body);
    let keys = [
        "contents",
        "systemInstruction",
        "tools",
        "toolConfig",
        "safetySettings",
        "generationConfig",
        "cachedContent",
        "labels",
        "model",
    ];
    known(&body, "body", &keys)?;
    let path = target.split('?').next().unwrap_or_default();
    let model = path.rsplit('/').next().and_then(|m| m.split(':').next()).unwrap_or_default().to_owned();
    let mut request = ModelRequest::default();
    for (at, content) in list(&body, "body", "contents")?.iter().enumerate() {
        let what = format!("contents[{at}]");
        known(content, &what, &["role", "parts"])?;
        let mut said = Vec::new();
        for part in list(content, &what, "parts")? {
            let kinds =
                ["text", "inlineData", "functionCall", "functionResponse", "fileData", "executableCode"];
            let has = kinds.iter().filter(|k| part.get(**k).is_some()).count();
            if has != 1 {
                return Err(Wrong(format!("{what}.parts: a part has exactly one kind of data")));
            }
            if let Some(response) = part.get("functionResponse") {
                text(response, &what, "name")?;
                if !response.get("response").is_some_and(Value::is_object) {
                    return Err(Wrong(format!("{what}.functionResponse.response: an object is required")));
                }
            }
            said.extend(part.get("text").and_then(Value::as_str));
        }
        let said = said.join("\n");
        request.messages.push(match content.get("role").and_then(Value::as_str) {
            Some("user") | None => Message::user(said),
            Some("model") => Message::assistant(said),
            Some(other) => {
                return Err(Wrong(format!(
                    "{what}.role: please use a valid role: user, model; not `{other}`"
                )));
            }
        });
    }
    for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
        for f in tool.get("functionDeclarations").and_then(Value::as_array).into_iter().flatten() {
            let parameters = f.get("parametersJsonSchema").or_else(|| f.get("parameters")).cloned();
            let parameters = parameters.unwrap_or_else(|| json!({"type": "object"}));
            let name = text(f, "functionDeclarations", "name")?.to_owned();
            request.functions.push(FunctionDeclaration { name, description: String::new(), parameters });
        }
    }
    let config = body.get("generationConfig").unwrap_or(&Value::Null);
    request.output_schema = config.get("responseJsonSchema").cloned();
    let is_streamed = path.ends_with(":streamGenerateContent");
    let prefix = Some(body["systemInstruction"].to_string()).filter(|s| s.len() > 4096);
    Ok(Asked { model, request, is_streamed, prefix })
}

/// Names in camel case; what stands below a schema, arguments or a result is the user's and stays.
fn camel(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let made = fields.iter().map(|(key, value)| {
                let key = camel_name(key);
                let is_users = matches!(
                    key.as_str(),
                    "args"
                        | "response"
                        | "parametersJsonSchema"
                        | "parameters"
                        | "responseJsonSchema"
                        | "responseSchema"
                );
                let value = if is_users { value.clone() } else { camel(value) };
                (key, value)
            });
            Value::Object(made.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(camel).collect()),
        other => other.clone(),
    }
}

fn camel_name(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |made, word| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or(made.clone(), |l| format!("{made}{}{}", l.to_ascii_uppercase(), letters.as_str()))
    })
}

/// An error in the format's own shape.
pub(super) fn error(status: u16, step: &Step) -> Reply {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        500 => "INTERNAL",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNKNOWN",
    };
    let name = step.error.get("type").cloned().unwrap_or_else(|| json!(name));
    let mut error = json!({"code": status, "message": words(&step.error), "status": name});
    if let Some(details) = step.error.get("details") {
        error["details"] = details.clone();
    } else if status == 429 {
        let wait = step.error.get("retryDelay").cloned().unwrap_or_else(|| json!("2s"));
        error["details"] = json!([
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
                "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
                "quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait},
        ]);
    }
    Reply::json(status, &json!({"error": error}))
}

/// A whole answer, or its events; a streamed one without `alt=sse` is one list.
pub(super) fn answer(asked: &Asked, step: &Step, figures: &Figures, target: &str, id: &str) -> Reply {
    let mut chunks: Vec<Vec<Value>> = Vec::new();
    if let Some(thinking) = &step.thinking {
        chunks.extend(pieces(thinking, 12).into_iter().map(|p| vec![json!({"text": p, "thought": true})]));
    }
    if let Some(words) = step.text.as_ref().filter(|t| !t.is_empty()) {
        chunks.extend(pieces(words, 12).into_iter().map(|p| vec![json!({"text": p})]));
    }
    for (at, tool) in step.tools.iter().enumerate() {
        let mut call = json!({"name": tool.name, "args": tool.input});
        if let Some(id) = &tool.id {
            call["id"] = json!(id);
        }
        let mut part = json!({"functionCall": call});
        if at == 0 {
            part["thoughtSignature"] = json!("bW9jay1zaWc=");
        }
        chunks.push(vec![part]);
    }
    let used = figures.used;
    let thoughts = step.thinking.as_ref().map_or(0, |t| t.len() / 4);
    let sent = used.input + used.cache_read + used.cache_write;
    let mut usage = json!({"promptTokenCount": sent, "candidatesTokenCount": used.output});
    if thoughts > 0 {
        usage["thoughtsTokenCount"] = json!(thoughts);
    }
    if used.cache_read > 0 {
        usage["cachedContentTokenCount"] = json!(used.cache_read);
    }
    usage["totalTokenCount"] = json!(sent + used.output + u64::try_from(thoughts).unwrap_or(0));
    let usage = over(usage, &step.usage);
    let finish = step.stop.clone().unwrap_or_else(|| "STOP".to_owned());
    let object = |parts: &[Value], is_last: bool| {
        let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
        let so_far = json!({"promptTokenCount": sent, "totalTokenCount": sent});
        if is_last {
            candidate["finishReason"] = json!(finish);
        }
        let usage = if is_last { usage.clone() } else { so_far };
        json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": asked.model, "responseId": id})
    };
    if !asked.is_streamed {
        return Reply::json(200, &object(&whole(&chunks), true));
    }
    if chunks.is_empty() {
        chunks.push(Vec::new());
    }
    let last = chunks.len() - 1;
    let ends = step.sse_error.is_none();
    let objects = chunks.iter().enumerate().map(|(at, parts)| object(parts, ends && at == last));
    if !target.contains("alt=sse") {
        return Reply::json(200, &Value::Array(objects.collect()));
    }
    let mut events: Vec<_> = objects.map(|o| (None, o.to_string())).collect();
    if let Some(error) = &step.sse_error {
        events.push((None, json!({"error": error}).to_string()));
    }
    Reply::Events(events)
}

/// Pieces of one text put together again.
fn whole(chunks: &[Vec<Value>]) -> Vec<Value> {
    let mut parts: Vec<Value> = Vec::new();
    for part in chunks.iter().flatten() {
        match (parts.last_mut(), part.get("text").and_then(Value::as_str)) {
            (Some(last), Some(more))
                if last.get("text").is_some() && last.get("thought") == part.get("thought") =>
            {
                let before = last["text"].as_str().unwrap_or_default().to_owned();
                last["text"] = json!(before + more);
            }
            _ => parts.push(part.clone()),
        }
    }
    parts
}
