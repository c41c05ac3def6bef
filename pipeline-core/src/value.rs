//! Values that flow between steps.
//!
//! Owns [`Data`], an immutable JSON value shared by reference count, and the canonical hash of a value.
//! Must not know expressions beyond the one cached conversion that makes them cheap.
//! Next: `expr.rs`, which reads values; `fact.rs`, which stores them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A JSON value as a step produces and consumes it.
pub use serde_json::Value;

/// An immutable value that can be held in many places for the price of one.
///
/// Cloning is a reference count. The form that templates read is made once, on first use, so a large result that
/// a thousand branches read is converted once.
#[derive(Clone)]
pub struct Data(Arc<Inner>);

struct Inner {
    json: Value,
    shape: Shape,
    template: OnceLock<minijinja::Value>,
}

/// How a field that a value lacks is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Not at all.
    Plain,
    /// As in the value of a step.
    Step,
    /// As in the value of a child pipeline: `result` is the value itself.
    Pipeline,
}

/// The value of a step as expressions see it: a field that the object lacks is looked up in `data`, then in the
/// arguments of the first function call, then in `results`; `result` is the primary value.
#[derive(Debug)]
struct StepObject {
    plain: minijinja::Value,
    is_pipeline: bool,
}

impl minijinja::value::Object for StepObject {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        let field = |from: &minijinja::Value, key: &minijinja::Value| {
            from.get_item(key).ok().filter(|v| !v.is_undefined())
        };
        let named = |from: &minijinja::Value, name: &str| field(from, &minijinja::Value::from(name));
        field(&self.plain, key)
            .or_else(|| match key.as_str() {
                Some("result") if self.is_pipeline => Some(self.plain.clone()),
                Some("result") => Some(
                    ["data", "text"]
                        .iter()
                        .find_map(|n| named(&self.plain, n).filter(|v| !v.is_none()))
                        .unwrap_or_else(|| self.plain.clone()),
                ),
                Some("cost") => named(&self.plain, "cost_usd"),
                Some("content") => named(&self.plain, "text"),
                _ => None,
            })
            .or_else(|| field(&named(&self.plain, "data")?, key))
            .or_else(|| {
                let first = named(&self.plain, "function_calls")?.get_item_by_index(0).ok()?;
                field(&named(&first, "arguments")?, key)
            })
            .or_else(|| field(&named(&self.plain, "results")?, key))
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        match self.plain.try_iter() {
            Ok(keys) => minijinja::value::Enumerator::Values(keys.collect()),
            Err(_) => minijinja::value::Enumerator::Empty,
        }
    }
}

impl Data {
    /// Wraps a value.
    pub fn new(json: Value) -> Self {
        Self(Arc::new(Inner { json, shape: Shape::Plain, template: OnceLock::new() }))
    }

    /// Wraps the value of a step: paths on it fall back to `data`, to the first function call's arguments and to
    /// `results`, as the language page says.
    pub fn of_step(json: Value) -> Self {
        Self(Arc::new(Inner { json, shape: Shape::Step, template: OnceLock::new() }))
    }

    /// Wraps the outputs of a child pipeline: `result` is an alias of the whole.
    pub fn of_pipeline(json: Value) -> Self {
        Self(Arc::new(Inner { json, shape: Shape::Pipeline, template: OnceLock::new() }))
    }

    /// The *primary value* of a step's value: the field `result` if there is one, else `data`, else `text`, else all of it.
    pub fn primary(&self) -> &Value {
        let json = self.json();
        if self.0.shape == Shape::Pipeline {
            return json;
        }
        ["result", "data", "text"].iter().find_map(|f| json.get(f).filter(|v| !v.is_null())).unwrap_or(json)
    }

    /// JSON null.
    pub fn null() -> Self {
        Self::new(Value::Null)
    }

    /// The value.
    pub fn json(&self) -> &Value {
        &self.0.json
    }

    /// The value, without a copy when this is the only holder.
    pub fn into_json(self) -> Value {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => inner.json,
            Err(shared) => shared.json.clone(),
        }
    }

    /// The form that templates and expressions read.
    pub(crate) fn template_value(&self) -> minijinja::Value {
        let make = || {
            let plain = minijinja::Value::from(minijinja::value::Serde(&self.0.json));
            if self.0.shape != Shape::Plain && self.0.json.is_object() {
                let is_pipeline = self.0.shape == Shape::Pipeline;
                minijinja::Value::from_object(StepObject { plain, is_pipeline })
            } else {
                plain
            }
        };
        self.0.template.get_or_init(make).clone()
    }

    /// The canonical hash of the value.
    pub fn hash(&self) -> Hash {
        Hash::of(self.json())
    }
}

impl From<Value> for Data {
    fn from(json: Value) -> Self {
        Self::new(json)
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.json == other.0.json
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.json.fmt(f)
    }
}

impl Default for Data {
    fn default() -> Self {
        Self::null()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::new)
    }
}

/// BLAKE3 of canonical bytes; shown and stored as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Hash of raw bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Hash of anything that serialises to JSON, over its canonical form: keys in their given order, no spaces.
    ///
    /// A value that does not serialise (a map with non-text keys) hashes as its error text; JSON values always do.
    pub fn of(value: &impl Serialize) -> Self {
        let mut hasher = blake3::Hasher::new();
        match serde_json::to_writer(&mut hasher, value) {
            Ok(()) => Self(*hasher.finalize().as_bytes()),
            Err(error) => Self::of_bytes(error.to_string().as_bytes()),
        }
    }

    /// The first eight bytes as a number: a seed for what must be invented the same way every time.
    pub fn seed(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Hash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        blake3::Hash::from_hex(text).map(|h| Self(*h.as_bytes())).map_err(|_| ())
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("a hash is 64 hex digits"))
    }
}
