//! The events of the Messages API.
//!
//! Owns the blocks of an answer and what its stop reasons mean. Strings that are not known here never fail: an unknown
//! event or block is passed over, an unknown stop reason is told.

use std::borrow::Cow;

use pipeline_core::error::ErrorKind;
use pipeline_core::provider::{Content, ModelEvent};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::anthropic::Anthropic;
use crate::http::failure::Fault;
use crate::http::wire::{Heard, Reader, Wire, count, cut_off};

/// Whose opaque blocks are sent back.
pub(super) const OPAQUE: &str = "anthropic";

/// Most blocks of an answer.
const MOST_BLOCKS: usize = 10_000;

/// An answer of the Messages API.
#[derive(Debug, Default)]
pub(super) struct Messages {
    heard: Heard,
    open: Vec<(u64, Block)>,
    has_stopped: bool,
    refusal: Option<String>,
    broken: Option<Fault>,
}

/// The event that has a piece of a block.
const DELTA: &str = "content_block_delta";

/// A piece of text, as it comes. What is not quite so is read as any other event.
#[derive(Deserialize)]
struct TextDelta<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    index: u64,
    #[serde(borrow)]
    delta: Piece<'a>,
}

#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Debug)]
enum Block {
    Text(String),
    Thinking { thinking: String, signature: String },
    Call { id: String, name: String, input: String },
    Other(Value),
}

impl Reader for Messages {
    fn event(&mut self, name: &str, data: &str, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        // Nearly all events are these, and a tree of values is made for none of them.
        if name == DELTA
            && let Ok(event) = serde_json::from_str::<TextDelta<'_>>(data)
            && (event.kind == DELTA && event.delta.kind == "text_delta")
        {
            return self.text_delta(event.index, &event.delta.text, told);
        }
        let event: Value = serde_json::from_str(data).map_err(|error| {
            Fault::new(ErrorKind::Parse, format!("sent an event that is no JSON: {error}"))
        })?;
        let kind = event.get("type").and_then(Value::as_str).unwrap_or(name);
        match kind {
            "message_start" => {
                let message = event.get("message").unwrap_or(&Value::Null);
                self.heard.model = text(message, "model");
                self.usage(message, told);
            }
            "content_block_start" => self.start(&event, told)?,
            DELTA => self.delta(&event, told)?,
            "content_block_stop" => self.stop(count(&event, "index")),
            "message_delta" => {
                let delta = event.get("delta").unwrap_or(&Value::Null);
                if let Some(reason) = delta.get("stop_reason").and_then(Value::as_str) {
                    reason.clone_into(&mut self.heard.stop_reason);
                }
                let details = delta.get("stop_details");
                self.refusal = details.filter(|d| !d.is_null()).map(|d| {
                    match d.get("explanation").and_then(Value::as_str) {
                        Some(words) => words.to_owned(),
                        None => d.to_string(),
                    }
                });
                self.usage(&event, told);
            }
            "message_stop" => self.has_stopped = true,
            "error" => {
                let mut fault = Anthropic.fault(200, &event);
                "ended its answer with an error".clone_into(&mut fault.what);
                if fault.kind == ErrorKind::Invalid && fault.code.is_none() {
                    fault.kind = ErrorKind::Server;
                }
                return Err(fault);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.has_stopped
    }

    fn heard(&mut self) -> &mut Heard {
        &mut self.heard
    }

    fn verdict(&mut self) -> Result<(), Fault> {
        match self.heard.stop_reason.as_str() {
            "end_turn" | "tool_use" | "stop_sequence" => {}
            "max_tokens" => return Err(cut_off("it reached the limit of tokens").code("max_tokens")),
            "model_context_window_exceeded" => {
                return Err(cut_off("the model's context is full").code("model_context_window_exceeded"));
            }
            "refusal" => {
                let words = self.refusal.take().unwrap_or_else(|| self.heard.text.clone());
                return Err(Fault::new(ErrorKind::Refused, "declined to answer").said(words).code("refusal"));
            }
            "pause_turn" | "" => {
                let what = "stopped in the middle of its turn".to_owned();
                return Err(Fault::new(ErrorKind::Truncated, what).code(self.heard.stop_reason.clone()));
            }
            other => {
                let other = other.to_owned();
                self.heard.unknown_stop(&other);
            }
        }
        if let Some(fault) = self.broken.take() {
            return Err(fault);
        }
        // A stop sequence may be the very first thing that a model says.
        if self.heard.stop_reason == "stop_sequence" { Ok(()) } else { self.heard.not_empty() }
    }
}

impl Messages {
    fn usage(&mut self, holder: &Value, told: &mut Vec<ModelEvent>) {
        let Some(usage) = holder.get("usage").filter(|u| u.is_object()) else { return };
        let used = &mut self.heard.usage;
        // Counts are of the whole answer so far; what an event leaves out stays.
        for (field, name) in [
            (&mut used.input, "input_tokens"),
            (&mut used.output, "output_tokens"),
            (&mut used.cache_read, "cache_read_input_tokens"),
            (&mut used.cache_write, "cache_creation_input_tokens"),
        ] {
            *field = usage.get(name).and_then(Value::as_u64).unwrap_or(*field);
        }
        self.heard.has_usage = true;
        told.push(ModelEvent::Usage(self.heard.usage));
    }

    fn start(&mut self, event: &Value, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        let given = event.get("content_block").unwrap_or(&Value::Null);
        let block = match given.get("type").and_then(Value::as_str).unwrap_or_default() {
            "text" => {
                let piece = text(given, "text");
                self.heard.text(&piece, told)?;
                Block::Text(piece)
            }
            "thinking" => {
                Block::Thinking { thinking: text(given, "thinking"), signature: text(given, "signature") }
            }
            "tool_use" => {
                let (id, name) = (text(given, "id"), text(given, "name"));
                told.push(ModelEvent::ToolCall { name: name.clone() });
                let input = given.get("input").filter(|i| i.as_object().is_some_and(|o| !o.is_empty()));
                Block::Call { id, name, input: input.map(Value::to_string).unwrap_or_default() }
            }
            _ => Block::Other(given.clone()),
        };
        if self.open.len() + self.heard.content.len() >= MOST_BLOCKS {
            return Err(Fault::new(
                ErrorKind::TooLarge,
                format!("gives an answer of over {MOST_BLOCKS} blocks"),
            ));
        }
        self.heard.store(given.to_string().len())?;
        self.open.push((count(event, "index"), block));
        Ok(())
    }

    fn text_delta(&mut self, index: u64, piece: &str, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        self.heard.text(piece, told)?;
        if let Some(Block::Text(text)) = block(&mut self.open, index) {
            text.push_str(piece);
        }
        Ok(())
    }

    fn delta(&mut self, event: &Value, told: &mut Vec<ModelEvent>) -> Result<(), Fault> {
        let index = count(event, "index");
        let delta = event.get("delta").unwrap_or(&Value::Null);
        let field = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default();
        if field("type") == "text_delta" {
            return self.text_delta(index, field("text"), told);
        }
        match (field("type"), block(&mut self.open, index)) {
            ("thinking_delta", Some(Block::Thinking { thinking, .. })) => {
                self.heard.thinking(field("thinking"), told)?;
                thinking.push_str(field("thinking"));
            }
            ("signature_delta", Some(Block::Thinking { signature, .. })) => {
                self.heard.store(field("signature").len())?;
                signature.push_str(field("signature"));
            }
            ("input_json_delta", Some(Block::Call { input, .. })) => {
                self.heard.store(field("partial_json").len())?;
                input.push_str(field("partial_json"));
            }
            _ => {}
        }
        Ok(())
    }

    fn stop(&mut self, index: u64) {
        let Some(place) = self.open.iter().position(|(at, _)| *at == index) else { return };
        let content = match self.open.remove(place).1 {
            Block::Text(text) if text.is_empty() => return,
            Block::Text(text) => Content::Text { text },
            Block::Thinking { thinking, signature } => {
                let block = json!({"type": "thinking", "thinking": thinking, "signature": signature});
                Content::Opaque { provider: OPAQUE.to_owned(), block }
            }
            Block::Call { id, name, input } => match self.heard.call(&id, &name, &input) {
                Ok(call) => Content::ToolCall(call),
                Err(fault) => {
                    // Arguments that end in the middle may be those of an answer that was cut off, which tells more.
                    self.broken.get_or_insert(fault);
                    return;
                }
            },
            Block::Other(block) if block.is_null() => return,
            Block::Other(block) => Content::Opaque { provider: OPAQUE.to_owned(), block },
        };
        self.heard.content.push(content);
    }
}

fn block(open: &mut [(u64, Block)], index: u64) -> Option<&mut Block> {
    open.iter_mut().find(|(at, _)| *at == index).map(|(_, block)| block)
}

fn text(object: &Value, name: &str) -> String {
    object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Naive: the quick way takes what it does not understand for nothing.
    #[test]
    fn a_piece_of_text_is_the_same_whichever_way_it_is_read() {
        let begin = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
        for data in [
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\n\u00e9 b"}}"#,
            r#"{"delta":{"text":"a","more":[1],"type":"text_delta"},"index":0,"type":"content_block_delta"}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"of another"}}"#,
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"no index"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h"}}"#,
            r#"{"type":"message_stop","index":0,"delta":{"type":"text_delta","text":"x"}}"#,
            r#"{"type":"content_block_delta","type":"x","index":0,"delta":{"type":"text_delta","text":"x"}}"#,
        ] {
            // Without a name of its own, an event is read as a tree.
            let [quick, slow] = [DELTA, ""].map(|name| {
                let (mut reader, mut told) = (Messages::default(), Vec::new());
                reader.event("", begin, &mut told).unwrap();
                reader.event(name, data, &mut told).unwrap();
                format!("{reader:?} {told:?}")
            });
            assert_eq!(quick, slow, "{data}");
        }
    }
}
