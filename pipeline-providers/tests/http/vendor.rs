//! How each vendor says things: its refusals, the pieces and the ends of its answers.

use serde_json::{Value, json};

rows! {
    /// Whose format it is.
    Vendor { Anthropic, Gemini, OpenAi }
}

/// The request id that every answer of these servers has in its head.
pub const ID: &str = "req_of_the_cell";

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As a stream of events.
    Events,
    /// As one JSON document.
    Whole,
    /// There is none.
    Nothing,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    Good,
    Limit,
    Refusal,
    /// A reason of next year.
    Unknown,
}

impl Vendor {
    /// The kind of provider that speaks it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::OpenAi => "openai",
        }
    }

    fn id_header(self) -> &'static str {
        match self {
            Self::Anthropic => "request-id",
            Self::Gemini | Self::OpenAi => "x-request-id",
        }
    }

    /// The head of an answer; `more` are further header lines.
    pub fn head(self, status: u16, content_type: &str, more: &str) -> String {
        format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\n{}: {ID}\r\nconnection: close\r\n{more}\r\n",
            self.id_header()
        )
    }

    /// A head and a whole body, in a form.
    pub fn says(self, status: u16, form: Form, more: &str, body: &Value) -> Vec<u8> {
        let (content_type, body) = match form {
            Form::Events => ("text/event-stream", format!("event: error\ndata: {body}\n\n")),
            Form::Whole => ("application/json", body.to_string()),
            Form::Nothing => panic!("nothing says nothing"),
        };
        let more = format!("content-length: {}\r\n{more}", body.len());
        format!("{}{body}", self.head(status, content_type, &more)).into_bytes()
    }

    /// The head of a stream of events that ends with the connection, and a first piece of text.
    pub fn begun(self) -> String {
        format!("{}{}", self.head(200, "text/event-stream", ""), self.piece("par"))
    }

    /// What it says where it refuses a request with a status.
    pub fn refusal(self, status: u16, words: &str) -> Value {
        match self {
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": anthropic(status), "message": words}, "request_id": ID})
            }
            Self::Gemini => {
                json!({"error": {"code": status, "status": google(status), "message": words, "details": []}})
            }
            Self::OpenAi => {
                let (kind, code) = open_ai(status);
                json!({"error": {"message": words, "type": kind, "param": null, "code": code}})
            }
        }
    }

    /// The events before the first piece of text.
    fn opening(self) -> String {
        match self {
            Self::Anthropic => {
                let usage = json!({"input_tokens": 11, "output_tokens": 1});
                let start = json!({"type": "message_start", "message": {"model": "m", "usage": usage}});
                let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
                format!("{}{}", event("message_start", &start), event("content_block_start", &block))
            }
            Self::Gemini | Self::OpenAi => String::new(),
        }
    }

    /// A piece of text.
    pub fn piece(self, text: &str) -> String {
        match self {
            Self::Anthropic => {
                let delta = json!({"type": "text_delta", "text": text});
                event(
                    "content_block_delta",
                    &json!({"type": "content_block_delta", "index": 0, "delta": delta}),
                )
            }
            Self::Gemini => {
                let content = json!({"parts": [{"text": text}], "role": "model"});
                data(&json!({"candidates": [{"content": content, "index": 0}]}))
            }
            Self::OpenAi => {
                data(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}))
            }
        }
    }

    /// An event that every client passes over.
    pub fn empty(self) -> Value {
        match self {
            Self::Anthropic => json!({"type": "ping"}),
            Self::Gemini => json!({"candidates": []}),
            Self::OpenAi => json!({"choices": []}),
        }
    }

    /// The end of an answer, with its usage: 11 tokens sent and 7 received.
    fn ending(self, stop: Stop) -> String {
        let reason = self.reason(stop);
        match self {
            Self::Anthropic => {
                let details = match stop {
                    Stop::Refusal => json!({"explanation": "that would be harmful"}),
                    Stop::Good | Stop::Limit | Stop::Unknown => Value::Null,
                };
                let delta = json!({"stop_reason": reason, "stop_details": details});
                let usage = json!({"output_tokens": 7});
                let delta = json!({"type": "message_delta", "delta": delta, "usage": usage});
                let stop = json!({"type": "message_stop"});
                format!("{}{}", event("message_delta", &delta), event("message_stop", &stop))
            }
            Self::Gemini => {
                let usage = json!({"promptTokenCount": 11, "candidatesTokenCount": 7});
                let words = matches!(stop, Stop::Refusal).then_some("that would be harmful");
                let end = json!({"finishReason": reason, "finishMessage": words, "index": 0});
                data(&json!({"candidates": [end], "usageMetadata": usage}))
            }
            Self::OpenAi => {
                let delta = match stop {
                    Stop::Refusal => json!({"refusal": "that would be harmful"}),
                    Stop::Good | Stop::Limit | Stop::Unknown => json!({}),
                };
                let end = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
                let usage = json!({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}});
                format!("{}{}data: [DONE]\n\n", data(&end), data(&usage))
            }
        }
    }

    fn reason(self, stop: Stop) -> &'static str {
        match (self, stop) {
            (Self::Anthropic, Stop::Good) => "end_turn",
            (Self::Gemini, Stop::Good) => "STOP",
            // A refusal in words has the reason of any other answer.
            (Self::OpenAi, Stop::Good | Stop::Refusal) => "stop",
            (Self::Anthropic, Stop::Limit) => "max_tokens",
            (Self::Gemini, Stop::Limit) => "MAX_TOKENS",
            (Self::OpenAi, Stop::Limit) => "length",
            (Self::Anthropic, Stop::Refusal) => "refusal",
            (Self::Gemini, Stop::Refusal) => "SAFETY",
            (_, Stop::Unknown) => "a_reason_of_next_year",
        }
    }

    /// A whole answer as a stream of events, with `more` events in its middle.
    pub fn answer(self, text: &str, more: &str, stop: Stop) -> Vec<u8> {
        let head = self.head(200, "text/event-stream", "");
        let text = if text.is_empty() { String::new() } else { self.piece(text) };
        format!("{head}{}{text}{more}{}", self.opening(), self.ending(stop)).into_bytes()
    }

    /// A gateway's error in the middle of a stream.
    pub fn error_event(self) -> Value {
        match self {
            Self::Gemini => json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}),
            Self::Anthropic | Self::OpenAi => {
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
            }
        }
    }
}

fn event(name: &str, body: &Value) -> String {
    format!("event: {name}\n{}", data(body))
}

pub fn data(body: &Value) -> String {
    format!("data: {body}\n\n")
}

fn anthropic(status: u16) -> &'static str {
    match status {
        400 | 422 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

fn google(status: u16) -> &'static str {
    match status {
        400 | 422 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        500 => "INTERNAL",
        504 => "DEADLINE_EXCEEDED",
        // What has no word of its own there.
        _ => "",
    }
}

fn open_ai(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("billing_not_active")),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("tokens", Some("rate_limit_exceeded")),
        400 | 403 | 413 | 422 => ("invalid_request_error", None),
        _ => ("server_error", None),
    }
}
