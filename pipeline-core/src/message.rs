//! What is said to a model and by it.
//!
//! Owns [`Message`] and its [`Content`]: one shape for every provider, for sessions and for tapes. Must not know how any
//! provider writes it on the wire. Next: `provider.rs`.

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// A function call that a model made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The provider's id of this call; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name of the declared function.
    pub name: String,
    /// Arguments, as the model gave them.
    pub arguments: Value,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The one who asks; also the results of tools.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What, in order.
    pub content: Vec<Content>,
}

impl Message {
    /// Plain text of the user.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, content: vec![Content::Text { text: text.into() }] }
    }

    /// Plain text of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: vec![Content::Text { text: text.into() }] }
    }

    /// The text in it: text blocks and results of tools, joined by newlines.
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter_map(|c| match c {
            Content::Text { text } | Content::ToolResult { content: text, .. } => Some(text.as_str()),
            Content::Media { .. } | Content::ToolCall(_) | Content::Opaque { .. } => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// A piece of a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image or a document.
    Media {
        /// Such as `image/png` or `application/pdf`.
        media_type: String,
        /// Name for people.
        name: String,
        /// The bytes, base64.
        data: String,
    },
    /// The model's call of a function.
    ToolCall(FunctionCall),
    /// What came of a call.
    ToolResult {
        /// [`FunctionCall::id`] of the call.
        id: String,
        /// Name of the function.
        name: String,
        /// The result, as text.
        content: String,
        /// Whether it failed.
        is_error: bool,
    },
    /// A block that only its provider understands (signed thinking), sent back as it came.
    Opaque {
        /// The provider's name.
        provider: String,
        /// The block.
        block: Value,
    },
}
