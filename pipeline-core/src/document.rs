//! What the user wrote, with the place of every value.
//!
//! Owns [`Node`]: YAML (or JSON) as data with spans. Must not know what any key means.
//! Next: `document/parse.rs` reads a text into nodes; `normalise.rs` rewrites convenience spellings.

mod parse;

pub use parse::{Limits, parse};

use crate::diagnostic::Span;
use crate::value::Value;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands. For a value that came through an alias: where it is used.
    pub span: Span,
    /// Where it was defined, when that is elsewhere (aliases, merge keys).
    pub defined: Option<Span>,
    /// The value.
    pub kind: NodeKind,
}

/// The kinds of value that a document has.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written. Keys are unique.
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// The key's place.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A node made by the program, placed where the thing it came from stands.
    pub fn new(span: Span, kind: NodeKind) -> Self {
        Self { span, defined: None, kind }
    }

    /// A text node made by the program.
    pub fn text(span: Span, text: impl Into<String>) -> Self {
        Self::new(span, NodeKind::Text(text.into()))
    }

    /// A node made from a JSON value, every part placed at `span`.
    pub fn from_json(span: Span, value: &Value) -> Self {
        let kind = match value {
            Value::Null => NodeKind::Null,
            Value::Bool(b) => NodeKind::Bool(*b),
            Value::Number(n) => NodeKind::Number(n.clone()),
            Value::String(s) => NodeKind::Text(s.clone()),
            Value::Array(items) => NodeKind::List(items.iter().map(|v| Self::from_json(span, v)).collect()),
            Value::Object(fields) => NodeKind::Map(
                fields
                    .iter()
                    .map(|(k, v)| Entry { key: k.clone(), key_span: span, value: Self::from_json(span, v) })
                    .collect(),
            ),
        };
        Self::new(span, kind)
    }

    /// The value without its places.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(b) => Value::Bool(*b),
            NodeKind::Number(n) => Value::Number(n.clone()),
            NodeKind::Text(s) => Value::String(s.clone()),
            NodeKind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            NodeKind::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect())
            }
        }
    }

    /// The value of `key`, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|e| &e.value)
    }

    /// The entry of `key`, when this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        if let NodeKind::Map(entries) = &self.kind { entries } else { &[] }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Self] {
        if let NodeKind::List(items) = &self.kind { items } else { &[] }
    }

    /// The text, when this is one.
    pub fn as_text(&self) -> Option<&str> {
        if let NodeKind::Text(text) = &self.kind { Some(text) } else { None }
    }

    /// The truth value, when this is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let NodeKind::Bool(b) = self.kind { Some(b) } else { None }
    }

    /// The whole number, when this is one that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        if let NodeKind::Number(n) = &self.kind { n.as_u64() } else { None }
    }

    /// Where it stands together with everything in it; a list or a map by itself is placed at its first token.
    pub(crate) fn extent(&self) -> Span {
        let inside = self.entries().iter().map(|e| &e.value).chain(self.items());
        inside.map(Self::extent).fold(self.span, |whole, part| {
            if part.file != whole.file {
                return whole;
            }
            Span::new(whole.file, whole.start.min(part.start), whole.end.max(part.end))
        })
    }

    /// What kind of value it is, for messages.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "true/false",
            NodeKind::Number(_) => "a number",
            NodeKind::Text(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
        }
    }
}
