//! What the server was asked.
//!
//! Owns [`Log`]: every request with its time, and for calls of a model what they count against the limits and whether these
//! refused them. Keys are not in it. Must not know formats.

use pipeline_core::clock::{Clock, SystemClock};
use serde_json::{Map, Value, json};

use crate::server::http1::Request;

/// Requests that are kept.
const MOST: usize = 10_000;

/// Headers that hold keys.
const KEYS: [&str; 3] = ["x-api-key", "authorization", "x-goog-api-key"];

/// Every request so far.
#[derive(Debug, Default)]
pub(super) struct Log(Vec<Value>);

/// How a call stands to the limits of the account.
pub(super) struct Counted {
    /// Tokens that it counts.
    pub(super) tokens: u64,
    /// There were not so many left.
    pub(super) is_refused: bool,
}

impl Log {
    pub(super) fn push(&mut self, request: &Request, body: &Value, counted: Option<Counted>) {
        if self.0.len() >= MOST {
            return;
        }
        let mut headers = request.headers.clone();
        for name in KEYS {
            if headers.contains_key(name) {
                headers.insert(name.to_owned(), json!("[redacted]"));
            }
        }
        let at = SystemClock.now().0 as f64 / 1000.0;
        let mut entry = Map::new();
        entry.insert("t".to_owned(), json!(at));
        entry.insert("method".to_owned(), json!(request.method));
        entry.insert("path".to_owned(), json!(request.target));
        entry.insert("headers".to_owned(), Value::Object(headers));
        entry.insert("body".to_owned(), body.clone());
        if let Some(Counted { tokens, is_refused }) = counted {
            entry.insert("tokens".to_owned(), json!(tokens));
            entry.insert("refused".to_owned(), json!(is_refused));
        }
        self.0.push(Value::Object(entry));
    }

    pub(super) fn all(&self) -> Value {
        Value::Array(self.0.clone())
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
