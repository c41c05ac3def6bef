//! Gemini's generateContent, streamed.
//!
//! Owns how a request is written for it, what its errors mean, and its events. Strings that are not known here never fail.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{Content, FunctionCall, Message, ModelEvent, Role};
use serde_json::{Map, Value, json};

use crate::http::failure::{Fault, kind_of, proto_duration, what};
use crate::http::settings::{Credential, HttpSettings};
use crate::http::wire::{self, Call, Heard, Reader, Wire, compact, count, cut_off};

/// Whose opaque blocks are sent back.
const OPAQUE: &str = "gemini";

/// Speaks generateContent.
pub(crate) struct Gemini;

impl Wire for Gemini {
    fn path(&self, base_url: &str, model: &str) -> String {
        let model = model.strip_prefix("models/").unwrap_or(model);
        let version = if base_url.ends_with("/v1beta") || base_url.ends_with("/v1") { "" } else { "/v1beta" };
        // A model's name may come from a template: whatever is in it stays one piece of the path.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let safe: String = model
            .bytes()
            .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        format!("{version}/models/{safe}:streamGenerateContent?alt=sse")
    }

    fn headers(&self, credential: &Credential) -> Vec<(String, String)> {
        match credential {
            Credential::None => Vec::new(),
            Credential::Key(key) => vec![("x-goog-api-key".to_owned(), key.expose().to_owned())],
            Credential::Token(token) => {
                vec![("authorization".to_owned(), format!("Bearer {}", token.expose()))]
            }
        }
    }

    fn body(&self, call: &Call<'_>, settings: &HttpSettings) -> Result<Value, StepError> {
        let request = call.request;
        let declared: Vec<Value> = request
            .functions
            .iter()
            .map(|f| json!({"name": f.name, "description": f.description, "parametersJsonSchema": f.parameters}))
            .collect();
        // The service binds an answer to a schema only where no function can be called instead.
        let (mime, schema, system) = match &request.output_schema {
            Some(schema) if declared.is_empty() => (json!("application/json"), schema.clone(), call.system()),
            Some(schema) => (Value::Null, Value::Null, Some(wire::told_schema(call.system(), schema))),
            None => (Value::Null, Value::Null, call.system()),
        };
        let config = compact(json!({
            "temperature": request.temperature,
            "topP": request.top_p,
            "topK": request.top_k,
            "maxOutputTokens": call.most_output,
            "stopSequences": call.option("stop_sequences"),
            "seed": call.option("seed"),
            "responseMimeType": mime,
            "responseJsonSchema": schema,
            "thinkingConfig": thinking(call)?,
        }));
        let tools =
            if declared.is_empty() { Value::Null } else { json!([{"functionDeclarations": declared}]) };
        Ok(compact(json!({
            "systemInstruction": system.map(|text| json!({"parts": [{"text": text}]})),
            "contents": contents(&request.messages, &settings.entry.name)?,
            "tools": tools,
            "safetySettings": safety(call)?,
            "generationConfig": config,
        })))
    }

    fn most_output(&self, body: &Value) -> Option<u64> {
        body.pointer("/generationConfig/maxOutputTokens").and_then(Value::as_u64)
    }

    fn reader(&self, _model: &str) -> Box<dyn Reader> {
        Box::<Chunks>::default()
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        let error = body.get("error").unwrap_or(&Value::Null);
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let status =
            error.get("code").and_then(Value::as_u64).and_then(|c| u16::try_from(c).ok()).unwrap_or(status);
        let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let kind = kind_of_error(text("status"), details).unwrap_or_else(|| kind_of(status));
        let mut fault = Fault::new(kind, what(status, kind)).said(text("message")).code(text("status"));
        fault.retry_after = details.iter().find_map(|d| proto_duration(d.get("retryDelay")?.as_str()?));
        fault
    }

    fn id_header(&self) -> &'static str {
        "x-request-id"
    }
}

/// What an error's status and details mean; `None` = a status that is not known here.
fn kind_of_error(status: &str, details: &[Value]) -> Option<ErrorKind> {
    let has_reason = |reason: &str| details.iter().any(|d| d.get("reason").is_some_and(|r| r == reason));
    if has_reason("API_KEY_INVALID") {
        return Some(ErrorKind::Auth);
    }
    Some(match status {
        "INVALID_ARGUMENT" | "NOT_FOUND" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => ErrorKind::Invalid,
        "UNAUTHENTICATED" => ErrorKind::Auth,
        "PERMISSION_DENIED" => ErrorKind::Denied,
        "RESOURCE_EXHAUSTED" => {
            let quotas = details.iter().filter_map(|d| d.get("violations")?.as_array()).flatten();
            let ids: Vec<&str> = quotas.filter_map(|v| v.get("quotaId")?.as_str()).collect();
            let is_daily =
                !ids.is_empty() && ids.iter().any(|id| id.split('-').any(|w| w.contains("PerDay")));
            if is_daily { ErrorKind::Quota } else { ErrorKind::RateLimited }
        }
        "INTERNAL" | "ABORTED" | "DEADLINE_EXCEEDED" => ErrorKind::Server,
        "UNAVAILABLE" => ErrorKind::Overloaded,
        "UNIMPLEMENTED" => ErrorKind::Unsupported,
        _ => return None,
    })
}

/// `thinking_budget`: tokens, 0 for none, or `adaptive`.
fn thinking(call: &Call<'_>) -> Result<Value, StepError> {
    let Some(option) = call.option("thinking_budget") else { return Ok(Value::Null) };
    match (option.as_u64(), option.as_str()) {
        (Some(budget), _) => Ok(json!({"thinkingBudget": budget, "includeThoughts": budget > 0})),
        (None, Some("adaptive")) => Ok(json!({"thinkingBudget": -1, "includeThoughts": true})),
        _ => Err(StepError::invalid("`thinking_budget` is a number of tokens, 0, or `adaptive`")),
    }
}

/// `safety_settings`: a map of category and threshold, or the service's own list.
fn safety(call: &Call<'_>) -> Result<Value, StepError> {
    match call.option("safety_settings") {
        None => Ok(Value::Null),
        Some(list @ Value::Array(_)) => Ok(list.clone()),
        Some(Value::Object(map)) => {
            let each =
                map.iter().map(|(category, threshold)| json!({"category": category, "threshold": threshold}));
            Ok(Value::Array(each.collect()))
        }
        Some(_) => Err(StepError::invalid("`safety_settings` is a map of category and threshold")),
    }
}

fn contents(messages: &[Message], provider: &str) -> Result<Vec<Value>, StepError> {
    let turns = wire::turns(messages);
    let made = turns.iter().map(|message| {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "model",
        };
        Ok(json!({"role": role, "parts": parts(&message.content, provider)?}))
    });
    made.collect()
}

fn parts(contents: &[Content], provider: &str) -> Result<Vec<Value>, StepError> {
    let mut all = Vec::new();
    // A signature belongs to the part that comes after it.
    let mut signature: Option<&Value> = None;
    for content in contents {
        let mut part = match content {
            Content::Opaque { provider, block } => {
                if provider == OPAQUE {
                    signature = Some(block);
                }
                continue;
            }
            Content::Text { text } => json!({"text": text}),
            Content::Media { media_type, name, data } => {
                if !wire::is_image(media_type) && media_type != "application/pdf" {
                    return Err(wire::no_media(provider, media_type, name));
                }
                json!({"inlineData": {"mimeType": media_type, "data": data}})
            }
            Content::ToolCall(call) => {
                let id = Some(&call.id).filter(|id| !id.is_empty());
                json!({"functionCall": compact(json!({"id": id, "name": call.name, "args": call.arguments}))})
            }
            Content::ToolResult { id, name, content, is_error } => {
                let id = Some(id).filter(|id| !id.is_empty());
                let value: Value = serde_json::from_str(content).unwrap_or_else(|_| content.clone().into());
                let response = json!({ if *is_error { "error" } else { "result" }: value });
                json!({"functionResponse": compact(json!({"id": id, "name": name, "response": response}))})
            }
        };
        sign(&mut part, signature.take());
        all.push(part);
    }
    if signature.is_some() {
        let mut part = json!({"text": ""});
        sign(&mut part, signature);
        all.push(part);
    }
    Ok(all)
}

fn sign(part: &mut Value, signature: Option<&Value>) {
    if let (Some(Value::Object(signed)), Value::Object(fields)) = (signature, part) {
        fields.extend(signed.clone());
    }
}

/// An answer of generateContent.
#[derive(Debug, Default)]
struct Chunks {
    heard: Heard,
    finish: Option<String>,
    finish_message: Option<String>,
    blocked: Option<String>,
}

impl Reader for Chunks {
    fn event(&mut self, _name: &str, data: &str, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        let chunk: Value = serde_json::from_str(data).map_err(|error| {
            Fault::new(ErrorKind::Parse, format!("sent an event that is no JSON: {error}"))
        })?;
        if chunk.get("error").is_some() {
            let mut fault = Gemini.fault(200, &chunk);
            "ended its answer with an error".clone_into(&mut fault.what);
            return Err(fault);
        }
        let text = |name: &str| chunk.get(name).and_then(Value::as_str);
        if let Some(model) = text("modelVersion") {
            model.clone_into(&mut self.heard.model);
        }
        if let Some(reason) = chunk.pointer("/promptFeedback/blockReason").and_then(Value::as_str) {
            self.blocked = Some(reason.to_owned());
        }
        if let Some(usage) = chunk.get("usageMetadata").filter(|u| u.is_object()) {
            self.heard.usage = usage_of(usage);
            self.heard.has_usage = true;
            told.push(ModelEvent::Usage(self.heard.usage));
        }
        let Some(candidate) = chunk.pointer("/candidates/0") else { return Ok(()) };
        let parts = candidate.pointer("/content/parts").and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            self.part(part, told)?;
        }
        let field = |name: &str| candidate.get(name).and_then(Value::as_str).map(str::to_owned);
        self.finish = field("finishReason").or(self.finish.take());
        self.finish_message = field("finishMessage").or(self.finish_message.take());
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.finish.is_some() || self.blocked.is_some()
    }

    fn heard(&mut self) -> &mut Heard {
        &mut self.heard
    }

    fn verdict(&mut self) -> Result<(), Fault> {
        if let Some(reason) = self.blocked.take() {
            let what = format!("blocked the prompt ({reason})");
            return Err(Fault::new(ErrorKind::Refused, what).code(reason));
        }
        let finish = self.finish.take().unwrap_or_default();
        let fault = |kind, what: &str| {
            Fault::new(kind, format!("{what} ({finish})"))
                .code(finish.clone())
                .said(self.finish_message.clone().unwrap_or_default())
        };
        let calls = !self.heard.calls.is_empty();
        if calls { "tool_use" } else { "end_turn" }.clone_into(&mut self.heard.stop_reason);
        match finish.as_str() {
            "STOP" => {}
            "MAX_TOKENS" => return Err(cut_off("it reached the limit of tokens").code(finish.clone())),
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "LANGUAGE"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "MODEL_ARMOR" => {
                return Err(fault(ErrorKind::Refused, "stopped its answer"));
            }
            "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "MALFORMED_RESPONSE" => {
                return Err(fault(ErrorKind::Parse, "made a call that cannot be read"));
            }
            "OTHER"
            | "FINISH_REASON_UNSPECIFIED"
            | "TOO_MANY_TOOL_CALLS"
            | "MISSING_THOUGHT_SIGNATURE"
            | "NO_IMAGE" => {
                return Err(fault(ErrorKind::Server, "stopped its answer for a reason of its own"));
            }
            other => {
                other.clone_into(&mut self.heard.stop_reason);
                self.heard.unknown_stop(other);
            }
        }
        self.heard.not_empty()
    }
}

impl Chunks {
    fn part(&mut self, part: &Value, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        let is_thought = part.get("thought").and_then(Value::as_bool) == Some(true);
        let text = part.get("text").and_then(Value::as_str).unwrap_or_default();
        if let Some(signature) = part.get("thoughtSignature").filter(|s| s.is_string()) {
            self.heard.store(signature.to_string().len())?;
            let block = json!({"thoughtSignature": signature});
            self.heard.content.push(Content::Opaque { provider: OPAQUE.to_owned(), block });
        }
        if is_thought {
            return self.heard.thinking(text, told);
        }
        if !text.is_empty() {
            self.heard.text(text, told)?;
            match self.heard.content.last_mut() {
                Some(Content::Text { text: before }) => before.push_str(text),
                _ => self.heard.content.push(Content::Text { text: text.to_owned() }),
            }
        }
        if let Some(call) = part.get("functionCall") {
            let field = |name: &str| call.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            self.heard.store(call.to_string().len())?;
            let arguments = call.get("args").cloned().unwrap_or_else(|| Value::Object(Map::new()));
            let call = FunctionCall { id: field("id"), name: field("name"), arguments };
            told.push(ModelEvent::ToolCall { name: call.name.clone() });
            self.heard.calls.push(call.clone());
            self.heard.content.push(Content::ToolCall(call));
        }
        Ok(())
    }
}

/// Its prompt count includes what came from the cache, and its candidates do not include thoughts.
fn usage_of(usage: &Value) -> Usage {
    let cached = count(usage, "cachedContentTokenCount");
    let sum = |a: &str, b: &str| count(usage, a).saturating_add(count(usage, b));
    let sent = sum("promptTokenCount", "toolUsePromptTokenCount");
    Usage {
        input: sent.saturating_sub(cached),
        cache_read: cached,
        output: sum("candidatesTokenCount", "thoughtsTokenCount"),
        ..Usage::default()
    }
}
