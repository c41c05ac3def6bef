//! Chat completions, as OpenAI and every compatible server speak them.
//!
//! Owns how a request is written for it, what its errors mean, and its events. Strings that are not known here never fail.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{Content, Message, ModelEvent, Role};
use serde_json::{Value, json};

use crate::http::failure::{Fault, kind_of, what};
use crate::http::schema;
use crate::http::settings::{Credential, HttpSettings};
use crate::http::wire::{self, Call, Heard, Reader, Wire, compact, count, cut_off};

/// Most calls of one answer.
const MOST_CALLS: usize = 1000;

/// Speaks chat completions.
pub(crate) struct OpenAi;

impl Wire for OpenAi {
    fn path(&self, base_url: &str, _model: &str) -> String {
        let has_path = base_url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        if has_path { "/chat/completions" } else { "/v1/chat/completions" }.to_owned()
    }

    fn headers(&self, credential: &Credential) -> Vec<(String, String)> {
        match credential {
            Credential::None => Vec::new(),
            Credential::Key(key) | Credential::Token(key) => {
                vec![("authorization".to_owned(), format!("Bearer {}", key.expose()))]
            }
        }
    }

    fn body(&self, call: &Call<'_>, settings: &HttpSettings) -> Result<Value, StepError> {
        let request = call.request;
        let (format, system) = match &request.output_schema {
            None => (Value::Null, call.system()),
            Some(schema) => match schema::bound(schema) {
                Some(bound) => (json_schema(&bound), call.system()),
                None => (any_json(schema), Some(wire::told_schema(call.system(), schema))),
            },
        };
        let mut messages = Vec::new();
        messages.extend(system.map(|text| json!({"role": "system", "content": text})));
        for message in wire::turns(&wire::with_ids(&request.messages)) {
            write(&message, &settings.entry.name, &mut messages)?;
        }
        let tools: Vec<Value> = request
            .functions
            .iter()
            .map(|f| json!({"name": f.name, "description": f.description, "parameters": f.parameters}))
            .map(|function| json!({"type": "function", "function": function}))
            .collect();
        // Only the service itself knows the newer name; every other server knows the older one.
        let is_original = settings.host() == "api.openai.com";
        let most = |named: bool| call.most_output.filter(|_| named == is_original);
        Ok(compact(json!({
            "model": call.model,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_completion_tokens": most(true),
            "max_tokens": most(false),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "tools": if tools.is_empty() { Value::Null } else { Value::Array(tools) },
            "response_format": format,
            "reasoning_effort": call.option("effort"),
            "stop": call.option("stop_sequences"),
            "seed": call.option("seed"),
        })))
    }

    fn most_output(&self, body: &Value) -> Option<u64> {
        let either = body.get("max_completion_tokens").or_else(|| body.get("max_tokens"));
        either.and_then(Value::as_u64)
    }

    fn reader(&self, _model: &str) -> Box<dyn Reader> {
        Box::<Chunks>::default()
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        let error = body.get("error").unwrap_or(&Value::Null);
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = kind_of_error(text("code")).or_else(|| kind_of_error(text("type")));
        let kind = kind.unwrap_or_else(|| if status == 200 { ErrorKind::Server } else { kind_of(status) });
        // Some servers say no more than a text.
        let words = error.as_str().or_else(|| body.get("message").and_then(Value::as_str));
        let words = Some(text("message")).filter(|w| !w.is_empty()).or(words).unwrap_or_default();
        let code = if text("code").is_empty() { text("type") } else { text("code") };
        let code = if code.is_empty() && !error.is_null() { "error" } else { code };
        Fault::new(kind, what(status, kind)).said(words).code(code)
    }

    fn id_header(&self) -> &'static str {
        "x-request-id"
    }
}

/// What an error's code or type means; `None` = one that is not known here, or that says less than the status.
fn kind_of_error(name: &str) -> Option<ErrorKind> {
    Some(match name {
        "invalid_api_key" | "authentication_error" => ErrorKind::Auth,
        "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" => ErrorKind::Quota,
        "rate_limit_exceeded" | "rate_limit_error" => ErrorKind::RateLimited,
        "context_length_exceeded" | "string_above_max_length" => ErrorKind::TooLarge,
        "content_filter" | "content_policy_violation" => ErrorKind::Refused,
        "model_not_found" => ErrorKind::Invalid,
        "overloaded_error" | "engine_overloaded" => ErrorKind::Overloaded,
        _ => return None,
    })
}

fn json_schema(bound: &Value) -> Value {
    let schema = json!({"name": "answer", "strict": schema::is_strict(bound), "schema": bound});
    json!({"type": "json_schema", "json_schema": schema})
}

/// A schema that cannot be bound is told in words; that it is an object can still be enforced.
fn any_json(schema: &Value) -> Value {
    let is_object = schema.get("type").is_some_and(|t| t == "object");
    if is_object { json!({"type": "json_object"}) } else { Value::Null }
}

/// A turn becomes several messages: each result of a tool is one.
fn write(message: &Message, provider: &str, all: &mut Vec<Value>) -> Result<(), StepError> {
    let mut parts = Vec::new();
    let mut calls = Vec::new();
    for content in &message.content {
        match content {
            Content::Text { text } => parts.push(json!({"type": "text", "text": text})),
            Content::Media { media_type, name, data } => parts.push(media(provider, media_type, name, data)?),
            Content::ToolCall(call) => {
                let function = json!({"name": call.name, "arguments": call.arguments.to_string()});
                calls.push(json!({"id": call.id, "type": "function", "function": function}));
            }
            Content::ToolResult { id, content, is_error, .. } => {
                let content = if *is_error { format!("Error: {content}") } else { content.clone() };
                all.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
            Content::Opaque { .. } => {}
        }
    }
    // Older servers take plain text only.
    let is_text = parts.iter().all(|p| p.get("type").is_some_and(|t| t == "text"));
    let content = match parts.as_slice() {
        [] => Value::Null,
        texts if is_text => {
            let texts: Vec<&str> = texts.iter().filter_map(|p| p.get("text")?.as_str()).collect();
            json!(texts.join("\n"))
        }
        _ => Value::Array(parts),
    };
    match message.role {
        Role::Assistant if calls.is_empty() => all.push(json!({"role": "assistant", "content": content})),
        Role::Assistant => all.push(json!({"role": "assistant", "content": content, "tool_calls": calls})),
        Role::User if content.is_null() => {}
        Role::User => all.push(json!({"role": "user", "content": content})),
    }
    Ok(())
}

fn media(provider: &str, media_type: &str, name: &str, data: &str) -> Result<Value, StepError> {
    let url = wire::data_url(media_type, data);
    match media_type {
        image if wire::is_image(image) => Ok(json!({"type": "image_url", "image_url": {"url": url}})),
        "application/pdf" => Ok(json!({"type": "file", "file": {"filename": name, "file_data": url}})),
        other => Err(wire::no_media(provider, other, name)),
    }
}

/// An answer of chat completions.
#[derive(Debug, Default)]
struct Chunks {
    heard: Heard,
    calls: Vec<Partial>,
    finish: Option<String>,
    refusal: String,
    is_done: bool,
}

#[derive(Debug, Default)]
struct Partial {
    index: u64,
    id: String,
    name: String,
    arguments: String,
}

impl Reader for Chunks {
    fn event(&mut self, _name: &str, data: &str, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data).map_err(|error| {
            Fault::new(ErrorKind::Parse, format!("sent an event that is no JSON: {error}"))
        })?;
        if chunk.get("error").is_some_and(|e| !e.is_null()) {
            let mut fault = OpenAi.fault(200, &chunk);
            "ended its answer with an error".clone_into(&mut fault.what);
            return Err(fault);
        }
        if let Some(model) = chunk.get("model").and_then(Value::as_str) {
            model.clone_into(&mut self.heard.model);
        }
        if let Some(usage) = chunk.get("usage").filter(|u| u.is_object()) {
            self.heard.usage = usage_of(usage);
            self.heard.has_usage = true;
            told.push(ModelEvent::Usage(self.heard.usage));
        }
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(()) };
        let delta = choice.get("delta").unwrap_or(&Value::Null);
        let field = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default();
        self.heard.text(field("content"), told)?;
        // What servers call the thinking of the models that they run.
        self.heard.thinking(field("reasoning_content"), told)?;
        self.heard.thinking(field("reasoning"), told)?;
        self.heard.store(field("refusal").len())?;
        self.refusal.push_str(field("refusal"));
        let calls = delta.get("tool_calls").and_then(Value::as_array);
        for (position, call) in calls.into_iter().flatten().enumerate() {
            self.call(position, call, told)?;
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish = Some(reason.to_owned());
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        // The reason comes before the usage: only the mark is the end.
        self.is_done
    }

    fn heard(&mut self) -> &mut Heard {
        &mut self.heard
    }

    fn verdict(&mut self) -> Result<(), Fault> {
        let Some(finish) = self.finish.take() else {
            return Err(Fault::new(ErrorKind::Truncated, "ended its answer without saying why"));
        };
        let reason = match finish.as_str() {
            "stop" => "end_turn",
            "tool_calls" | "function_call" => "tool_use",
            "length" => return Err(cut_off("it reached the limit of tokens").code(finish)),
            "content_filter" => {
                let fault = Fault::new(ErrorKind::Refused, "stopped its answer: the content filter took it");
                return Err(fault.code(finish));
            }
            other => {
                self.heard.unknown_stop(other);
                other
            }
        };
        reason.clone_into(&mut self.heard.stop_reason);
        if !self.refusal.is_empty() {
            return Err(Fault::new(ErrorKind::Refused, "declined to answer")
                .said(self.refusal.clone())
                .code("refusal"));
        }
        for call in std::mem::take(&mut self.calls) {
            self.heard.call(&call.id, &call.name, &call.arguments)?;
        }
        // Servers say `stop` also where a call ends the answer.
        if !self.heard.calls.is_empty() && reason == "end_turn" {
            "tool_use".clone_into(&mut self.heard.stop_reason);
        }
        self.heard.not_empty()
    }
}

impl Chunks {
    fn call(&mut self, position: usize, call: &Value, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        let place = u64::try_from(position).unwrap_or(u64::MAX);
        let index = call.get("index").and_then(Value::as_u64).unwrap_or(place);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, name) = (text(call.get("id")), text(call.pointer("/function/name")));
        let arguments = text(call.pointer("/function/arguments"));
        self.heard.store(id.len() + name.len() + arguments.len())?;
        let at = match self.calls.iter().position(|c| c.index == index) {
            Some(at) => at,
            None if self.calls.len() >= MOST_CALLS => {
                return Err(Fault::new(
                    ErrorKind::TooLarge,
                    format!("makes over {MOST_CALLS} calls in one answer"),
                ));
            }
            None => {
                told.push(ModelEvent::ToolCall { name: name.clone() });
                self.calls.push(Partial { index, ..Partial::default() });
                self.calls.len() - 1
            }
        };
        if let Some(known) = self.calls.get_mut(at) {
            if known.id.is_empty() {
                known.id = id;
            }
            if known.name.is_empty() {
                known.name = name;
            }
            known.arguments.push_str(&arguments);
        }
        Ok(())
    }
}

/// Its prompt count includes what came from the cache; its completion count includes reasoning.
fn usage_of(usage: &Value) -> Usage {
    let cached = usage.pointer("/prompt_tokens_details/cached_tokens").and_then(Value::as_u64).unwrap_or(0);
    Usage {
        input: count(usage, "prompt_tokens").saturating_sub(cached),
        cache_read: cached,
        output: count(usage, "completion_tokens"),
        ..Usage::default()
    }
}
