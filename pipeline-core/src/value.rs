//! Values that flow between steps.
//!
//! Owns [`Data`], an immutable JSON value shared by reference count, and the canonical hash of a value.
//! Must not know expressions beyond the one cached conversion that makes them cheap.
//! Next: `value/part.rs` for values made of values; `expr.rs`, which reads values; `fact.rs`, which stores them.

mod part;
mod shape;

use std::fmt;
use std::io::{BufWriter, Write};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use part::{Name, Part};
pub(crate) use shape::Shape;

/// A JSON value as a step produces and consumes it.
pub use serde_json::Value;

/// An immutable value that can be held in many places for the price of one.
///
/// Cloning is a reference count. A value may be made of parts that are shared with other values (the value of a loop and
/// those of its turns): it is put together only when somebody asks for it whole. The form that templates read is made
/// once, on first use, so a large result that a thousand branches read is converted once.
#[derive(Clone)]
pub struct Data(Arc<Inner>);

struct Inner {
    form: Form,
    shape: Shape,
    template: OnceLock<minijinja::Value>,
}

enum Form {
    Json(Value),
    /// With the whole, once somebody has asked for it.
    Parts(Part, OnceLock<Box<Value>>),
}

impl Data {
    fn make(form: Form, shape: Shape) -> Self {
        Self(Arc::new(Inner { form, shape, template: OnceLock::new() }))
    }

    /// Wraps a value.
    pub fn new(json: Value) -> Self {
        Self::make(Form::Json(json), Shape::Plain)
    }

    /// Wraps the value of a step: paths on it fall back to `data`, to the first function call's arguments and to
    /// `results`, as the language page says.
    pub fn of_step(json: Value) -> Self {
        Self::make(Form::Json(json), Shape::Step)
    }

    /// A value of parts, which stay where they are.
    pub(crate) fn of_parts(part: Part) -> Self {
        Self::make(Form::Parts(part, OnceLock::new()), Shape::Plain)
    }

    /// The same value, read as the value of a step.
    pub(crate) fn into_step(self) -> Self {
        self.shaped(Shape::Step)
    }

    /// The same value, read as the outputs of a child pipeline: `result` is an alias of the whole.
    pub(crate) fn into_pipeline(self) -> Self {
        self.shaped(Shape::Pipeline)
    }

    /// The value of a step in whose place a declared fallback answered: its `status` reads so.
    #[must_use]
    pub fn degraded(self) -> Self {
        self.shaped(Shape::Degraded)
    }

    /// How expressions read it.
    pub(crate) fn shape(&self) -> Shape {
        self.0.shape
    }

    /// The same value, read in another way.
    pub(crate) fn shaped(self, shape: Shape) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Self::make(inner.form, shape),
            Err(shared) => Self::make(Form::Parts(Part::Shared(Self(shared)), OnceLock::new()), shape),
        }
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
        match &self.0.form {
            Form::Json(json) => json,
            Form::Parts(Part::Shared(data), _) => data.json(),
            Form::Parts(part, whole) => whole.get_or_init(|| Box::new(part.to_json())),
        }
    }

    /// The value, without a copy when this is the only holder.
    pub fn into_json(self) -> Value {
        match Arc::try_unwrap(self.0) {
            Ok(Inner { form: Form::Json(json), .. }) => json,
            Ok(Inner { form: Form::Parts(part, whole), .. }) => {
                whole.into_inner().map_or_else(|| part.to_json(), |whole| *whole)
            }
            Err(shared) => Self(shared).json().clone(),
        }
    }

    /// A field of a map, without putting the rest together.
    pub fn get(&self, name: &str) -> Option<Self> {
        match &self.0.form {
            Form::Json(json) => json.get(name).cloned().map(Self::new),
            Form::Parts(part, _) => part.get(name),
        }
    }

    /// The fields of a map, in their order; none for anything else.
    pub fn fields(&self) -> Vec<(String, Self)> {
        match &self.0.form {
            Form::Json(Value::Object(fields)) => {
                fields.iter().map(|(name, value)| (name.clone(), Self::new(value.clone()))).collect()
            }
            Form::Json(_) => Vec::new(),
            Form::Parts(part, _) => part.fields(),
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> Vec<Self> {
        match &self.0.form {
            Form::Json(Value::Array(items)) => items.iter().cloned().map(Self::new).collect(),
            Form::Json(_) => Vec::new(),
            Form::Parts(part, _) => part.items(),
        }
    }

    /// How many items a list has, or fields a map.
    pub fn count(&self) -> Option<usize> {
        match &self.0.form {
            Form::Json(Value::Array(items)) => Some(items.len()),
            Form::Json(Value::Object(fields)) => Some(fields.len()),
            Form::Json(_) => None,
            Form::Parts(part, _) => part.count(),
        }
    }

    /// What stands at the end of a path of fields; nothing where a field is missing or there is no map.
    pub(crate) fn at(&self, path: &[String]) -> Option<Self> {
        if path.is_empty() {
            // What a path gave is read as the JSON that it is.
            let is_plain = self.0.shape == Shape::Plain;
            return Some(if is_plain { self.clone() } else { Self::of_parts(Part::Shared(self.clone())) });
        }
        match &self.0.form {
            Form::Json(json) => at(json, path).cloned().map(Self::new),
            Form::Parts(part, _) => part.at(path),
        }
    }

    /// Whether it has at most so many levels of lists and maps. Stops at the limit, so a value of any depth is safe to
    /// ask about.
    pub fn is_within(&self, levels: usize) -> bool {
        match &self.0.form {
            Form::Json(json) => is_within(json, levels),
            Form::Parts(part, _) => part.is_within(levels),
        }
    }

    /// The form that templates and expressions read.
    pub(crate) fn template_value(&self) -> minijinja::Value {
        self.0.shape.shaped(self.plain_template())
    }

    /// How the step ended whose value this is, if it was let end so: what failed has its status in its value.
    pub(crate) fn status(&self) -> Option<&'static str> {
        self.0.shape.status()
    }

    /// The same, without the look-ups that the values of steps have.
    fn plain_template(&self) -> minijinja::Value {
        let make = || match &self.0.form {
            Form::Json(json) => minijinja::Value::from(minijinja::value::Serde(json)),
            Form::Parts(part, _) => part.template(),
        };
        self.0.template.get_or_init(make).clone()
    }

    /// The canonical hash of the value.
    pub fn hash(&self) -> Hash {
        Hash::of(self)
    }
}

/// A map of shared values.
impl FromIterator<(String, Self)> for Data {
    fn from_iter<I: IntoIterator<Item = (String, Self)>>(fields: I) -> Self {
        Self::of_parts(Part::map(fields.into_iter().map(|(name, value)| (name.into(), value.into()))))
    }
}

impl From<Value> for Data {
    fn from(json: Value) -> Self {
        Self::new(json)
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.json() == other.json()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.json().fmt(f)
    }
}

impl Default for Data {
    fn default() -> Self {
        Self::null()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.form {
            Form::Json(json) => json.serialize(serializer),
            Form::Parts(part, _) => part.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::new)
    }
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.as_object()?.get(name))
}

/// Whether a value has at most so many levels of nesting.
fn is_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| is_within(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|field| is_within(field, levels - 1)),
        _ => true,
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
    pub fn of(value: &(impl Serialize + ?Sized)) -> Self {
        // Serialisation writes a few bytes at a time, which the hasher is not made for.
        let mut hashed = BufWriter::with_capacity(1024, blake3::Hasher::new());
        if let Err(error) = serde_json::to_writer(&mut hashed, value) {
            return Self::of_bytes(error.to_string().as_bytes());
        }
        match hashed.flush() {
            Ok(()) => Self(*hashed.get_ref().finalize().as_bytes()),
            // A hasher takes everything.
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
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
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
