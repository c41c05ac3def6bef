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
    template: OnceLock<minijinja::Value>,
}

impl Data {
    /// Wraps a value.
    pub fn new(json: Value) -> Self {
        Self(Arc::new(Inner { json, template: OnceLock::new() }))
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
        self.0.template.get_or_init(|| minijinja::Value::from(minijinja::value::Serde(&self.0.json))).clone()
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
