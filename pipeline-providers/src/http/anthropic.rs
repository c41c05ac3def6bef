//! The Messages API.
//!
//! Owns how a request is written for it and what its errors mean. Next: `anthropic/reader.rs` (its events).

mod reader;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{Content, FunctionDeclaration, Message, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::failure::{Fault, kind_of, what};
use crate::http::schema;
use crate::http::settings::{Credential, HttpSettings};
use crate::http::wire::{self, Call, Reader, Wire, compact};

/// The version of the format.
const VERSION: &str = "2023-06-01";

/// Most tokens of an answer where neither the step nor the price table says: the format needs a number.
const DEFAULT_MOST: u64 = 8192;

/// Least bytes that are worth a place in the cache: about the 1,024 tokens that the service begins at.
const CACHE_FROM: usize = 4096;

/// Speaks the Messages API.
pub(crate) struct Anthropic;

/// One request of a message batch: `POST /v1/messages/batches` takes a list of them under `requests`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEntry {
    /// The name under which the result comes back.
    pub custom_id: String,
    /// The request, without `stream`.
    pub params: Value,
}

impl BatchEntry {
    pub(crate) fn new(custom_id: &str, mut body: Value) -> Self {
        if let Value::Object(fields) = &mut body {
            fields.shift_remove("stream");
        }
        Self { custom_id: custom_id.to_owned(), params: body }
    }
}

impl Wire for Anthropic {
    fn path(&self, base_url: &str, _model: &str) -> String {
        if base_url.ends_with("/v1") { "/messages" } else { "/v1/messages" }.to_owned()
    }

    fn headers(&self, credential: &Credential) -> Vec<(String, String)> {
        let mut all = vec![("anthropic-version".to_owned(), VERSION.to_owned())];
        match credential {
            Credential::None => {}
            Credential::Key(key) => all.push(("x-api-key".to_owned(), key.expose().to_owned())),
            Credential::Token(token) => {
                all.push(("authorization".to_owned(), format!("Bearer {}", token.expose())));
            }
        }
        all
    }

    fn body(&self, call: &Call<'_>, settings: &HttpSettings) -> Result<Value, StepError> {
        let request = call.request;
        let most = call.most_output.unwrap_or(DEFAULT_MOST);
        let thinking = thinking(call, most)?;
        let (format, system) = match &request.output_schema {
            None => (Value::Null, call.system()),
            Some(schema) => match schema::bound(schema) {
                Some(bound) => (json!({"type": "json_schema", "schema": bound}), call.system()),
                None => (Value::Null, Some(wire::told_schema(call.system(), schema))),
            },
        };
        let output = compact(json!({"effort": call.option("effort"), "format": format}));
        let tools: Vec<Value> = request.functions.iter().map(tool).collect();
        let mut messages = messages(&request.messages, &settings.entry.name)?;
        let mut system = system.map(|text| json!([{"type": "text", "text": text}]));
        let mut tools = Value::from(tools);
        if call.option("cache_prompt").is_none_or(|on| on.as_bool() != Some(false)) {
            cache(&mut system, &mut tools, &mut messages);
        }
        Ok(compact(json!({
            "model": call.model,
            "max_tokens": most,
            "stream": true,
            "system": system,
            "messages": messages,
            "tools": if tools.as_array().is_some_and(Vec::is_empty) { Value::Null } else { tools },
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": call.option("stop_sequences"),
            "thinking": thinking,
            "output_config": if output.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { output },
        })))
    }

    fn most_output(&self, body: &Value) -> Option<u64> {
        body.get("max_tokens").and_then(Value::as_u64)
    }

    fn reader(&self, _model: &str) -> Box<dyn Reader> {
        Box::<reader::Messages>::default()
    }

    fn fault(&self, status: u16, body: &Value) -> Fault {
        let error = body.get("error").unwrap_or(&Value::Null);
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = kind_of_error(text("type")).unwrap_or_else(|| kind_of(status));
        let mut fault = Fault::new(kind, what(status, kind)).said(text("message")).code(text("type"));
        fault.request_id = body.get("request_id").and_then(Value::as_str).map(str::to_owned);
        fault
    }

    fn id_header(&self) -> &'static str {
        "request-id"
    }
}

/// What an error's type means; `None` = a type that is not known here.
fn kind_of_error(name: &str) -> Option<ErrorKind> {
    Some(match name {
        "invalid_request_error" | "not_found_error" => ErrorKind::Invalid,
        "authentication_error" => ErrorKind::Auth,
        "billing_error" => ErrorKind::Quota,
        "permission_error" => ErrorKind::Denied,
        "request_too_large" => ErrorKind::TooLarge,
        "rate_limit_error" => ErrorKind::RateLimited,
        "api_error" | "timeout_error" => ErrorKind::Server,
        "overloaded_error" => ErrorKind::Overloaded,
        _ => return None,
    })
}

/// `thinking_budget`: tokens, 0 for none, or `adaptive`.
fn thinking(call: &Call<'_>, most: u64) -> Result<Value, StepError> {
    let Some(option) = call.option("thinking_budget") else { return Ok(Value::Null) };
    match (option.as_u64(), option.as_str()) {
        (Some(0), _) => Ok(json!({"type": "disabled"})),
        (Some(budget), _) if budget < most => Ok(json!({"type": "enabled", "budget_tokens": budget})),
        (Some(budget), _) => {
            let message = format!(
                "`thinking_budget` ({budget}) must be less than `max_output_tokens` ({most}), which it is part of"
            );
            Err(StepError::invalid(message).help("lower the one or raise the other"))
        }
        (None, Some("adaptive")) => Ok(json!({"type": "adaptive"})),
        _ => Err(StepError::invalid("`thinking_budget` is a number of tokens, 0, or `adaptive`")),
    }
}

fn tool(function: &FunctionDeclaration) -> Value {
    json!({"name": function.name, "description": function.description, "input_schema": function.parameters})
}

fn messages(messages: &[Message], provider: &str) -> Result<Vec<Value>, StepError> {
    let turns = wire::turns(&wire::with_ids(messages));
    turns
        .iter()
        .map(|message| {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            // Results of tools come first: the format asks for them right after the calls.
            let is_result = |c: &&Content| matches!(c, Content::ToolResult { .. });
            let (results, rest): (Vec<_>, Vec<_>) = message.content.iter().partition(is_result);
            let blocks =
                results.into_iter().chain(rest).filter_map(|content| block(content, provider).transpose());
            Ok(json!({"role": role, "content": blocks.collect::<Result<Vec<_>, _>>()?}))
        })
        .collect()
}

/// A block; `None` for what belongs to another provider.
fn block(content: &Content, provider: &str) -> Result<Option<Value>, StepError> {
    Ok(Some(match content {
        Content::Text { text } => json!({"type": "text", "text": text}),
        Content::Media { media_type, name, data } => {
            let kind = match media_type.as_str() {
                image if wire::is_image(image) => "image",
                "application/pdf" => "document",
                other => return Err(wire::no_media(provider, other, name)),
            };
            json!({"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}})
        }
        Content::ToolCall(call) => {
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})
        }
        Content::ToolResult { id, content, is_error, .. } => {
            json!({"type": "tool_result", "tool_use_id": id, "content": content, "is_error": is_error})
        }
        Content::Opaque { provider, block } if provider == reader::OPAQUE => block.clone(),
        Content::Opaque { .. } => return Ok(None),
    }))
}

/// Marks what the service should keep for the next call: the tools and the system prompt, and of a conversation that goes
/// on all of it so far. What is short is not kept by the service anyway, and what is asked once would only cost more.
fn cache(system: &mut Option<Value>, tools: &mut Value, messages: &mut [Value]) {
    let mark = json!({"type": "ephemeral"});
    let size = |value: &Value| value.to_string().len();
    let fixed = system.as_ref().map_or(0, size) + size(tools);
    if fixed >= CACHE_FROM {
        let last = match system {
            Some(Value::Array(blocks)) => blocks.last_mut(),
            _ => tools.as_array_mut().and_then(|t| t.last_mut()),
        };
        if let Some(Value::Object(block)) = last {
            block.insert("cache_control".to_owned(), mark.clone());
        }
    }
    if messages.len() > 1 && fixed + messages.iter().map(size).sum::<usize>() >= CACHE_FROM {
        let last = messages.last_mut().and_then(|m| m.get_mut("content")).and_then(Value::as_array_mut);
        // Signed thinking cannot carry the mark.
        let can = |b: &&mut Value| {
            matches!(
                b.get("type").and_then(Value::as_str),
                Some("text" | "tool_result" | "image" | "document")
            )
        };
        if let Some(Value::Object(block)) = last.and_then(|blocks| blocks.iter_mut().rev().find(can)) {
            block.insert("cache_control".to_owned(), mark);
        }
    }
}
