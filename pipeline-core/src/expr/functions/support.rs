//! What every function needs: errors with a place, conversions, and paying for work.

use std::fmt;
use std::ops::Range;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Name that marks an evaluation over rows, and lists the names that are not the row's but of the pipeline's scope.
pub(in crate::expr) const ROW: &str = "_row";

/// Name under which the time of evaluation is handed in.
pub(in crate::expr) const NOW: &str = "_now";

/// Name under which it is handed in how the steps ended whose `status` is read.
pub(in crate::expr) const ENDED: &str = "_ended";

/// Deepest nesting of a value that an expression may give: what stores and reads values takes 128.
const DEEPEST: usize = 100;

/// Bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: usize = 64;

/// The place and the help of an error, carried through the engine.
#[derive(Debug)]
pub(in crate::expr) struct Located {
    /// `None` where the error comes of a text within the text.
    pub(in crate::expr) range: Option<Range<usize>>,
    pub(in crate::expr) help: Option<String>,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}", self.range)
    }
}

impl std::error::Error for Located {}

/// An error of what was computed.
pub(in crate::expr) fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// An error of what is not there.
pub(in crate::expr) fn absent(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::UndefinedError, message)
}

/// Gives an error its place, as `write.rs` hands it in.
pub(in crate::expr) fn located(error: Error, at: u64, help: Option<String>) -> Error {
    let start = usize::try_from(at >> 16).unwrap_or_default();
    let length = usize::try_from(at & 0xffff).unwrap_or_default();
    error.with_source(Located { range: Some(start..start + length), help })
}

/// What to do about an error, where it was said.
pub(in crate::expr) fn help_of(error: &Error) -> Option<String> {
    std::error::Error::source(error).and_then(|s| s.downcast_ref::<Located>())?.help.clone()
}

/// Whether this is an evaluation over rows.
pub(in crate::expr) fn in_row(state: &State) -> bool {
    state.lookup(ROW).is_some()
}

/// Whether a name is of the pipeline's scope: what is missing there is an error, over rows too.
pub(in crate::expr) fn of_scope(state: &State, name: &str) -> bool {
    let names_it = |scope: Value| items(&scope).is_ok_and(|mut all| all.any(|n| n.as_str() == Some(name)));
    state.lookup(ROW).is_none_or(names_it)
}

/// Pays for reading or making so many bytes.
pub(in crate::expr) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)
}

/// Pays for so many items.
pub(in crate::expr) fn pay_items(state: &State, items: usize) -> Result<(), Error> {
    state.consume_fuel((items / 8) as u64)
}

/// A map, in the order given.
pub(in crate::expr) fn map_value<K: Into<Value>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    let entries = entries.into_iter().map(|(key, value)| (key.into(), value));
    Value::from(entries.collect::<indexmap::IndexMap<Value, Value>>())
}

/// What a value is, in our words.
pub(in crate::expr) fn kind_of(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "nothing",
        ValueKind::None => "null",
        ValueKind::Bool => "true/false",
        ValueKind::Number => "a number",
        ValueKind::String => "text",
        ValueKind::Map => "a map",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        _ => "something else",
    }
}

/// A value in a message: its kind, and itself where it is short.
pub(in crate::expr) fn shown(value: &Value) -> String {
    let kind = kind_of(value);
    if !matches!(value.kind(), ValueKind::Number | ValueKind::String | ValueKind::Bool) {
        return kind.to_owned();
    }
    let text = value.to_string();
    let short: String = text.chars().take(40).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    match value.as_str() {
        Some(_) => format!("the text `{short}{rest}`"),
        None => format!("`{short}`"),
    }
}

/// A number.
pub(in crate::expr) fn number(value: &Value) -> Result<f64, Error> {
    if value.is_number() {
        return f64::try_from(value.clone());
    }
    Err(wrong(format!("a number is needed, and this is {}", shown(value))))
}

/// Whole when all are whole and nothing overflows, else real.
pub(in crate::expr) fn fold(
    values: &[Value],
    whole: fn(i64, i64) -> Option<i64>,
    real: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let ints: Option<Vec<i64>> =
        values.iter().map(|v| if v.is_integer() { v.as_i64() } else { None }).collect();
    if let Some((first, rest)) = ints.as_deref().and_then(<[i64]>::split_first)
        && let Some(result) = rest.iter().try_fold(*first, |a, b| whole(a, *b))
    {
        return Ok(Value::from(result));
    }
    let mut all = values.iter().map(number);
    let first = all.next().ok_or_else(|| wrong("a number is needed"))??;
    all.try_fold(first, |a, b| Ok(real(a, b?))).map(Value::from)
}

pub(in crate::expr) fn whole_or_real(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    if value.abs() < 9.0e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// A text.
pub(in crate::expr) fn text(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| wrong(format!("a text is needed, and this is {}", shown(value))))
}

/// The items of a list.
pub(in crate::expr) fn items(value: &Value) -> Result<minijinja::value::ValueIter, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter(),
        _ => Err(wrong(format!("a list is needed, and this is {}", shown(value)))),
    }
}

/// The entries of a map, in order.
pub(in crate::expr) fn entries(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if value.kind() != ValueKind::Map {
        return Err(wrong(format!("a map is needed, and this is {}", shown(value))));
    }
    value.try_iter()?.map(|key| value.get_item(&key).map(|v| (key, v))).collect()
}

/// The value as JSON.
pub(in crate::expr) fn to_json(value: &Value) -> Result<serde_json::Value, Error> {
    json_at(value, 0)
}

fn json_at(value: &Value, depth: usize) -> Result<serde_json::Value, Error> {
    if depth > DEEPEST {
        return Err(wrong(format!("the value nests deeper than {DEEPEST} levels")));
    }
    Ok(match value.kind() {
        ValueKind::Undefined if depth == 0 => return Err(absent("the value is not there")),
        ValueKind::Undefined | ValueKind::None => serde_json::Value::Null,
        ValueKind::Seq | ValueKind::Iterable => {
            let all = value.try_iter()?.map(|item| json_at(&item, depth + 1));
            serde_json::Value::Array(all.collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let mut all = serde_json::Map::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                all.insert(name, json_at(&item, depth + 1)?);
            }
            serde_json::Value::Object(all)
        }
        ValueKind::Number => {
            let json = serde_json::to_value(value)
                .map_err(|_| wrong(format!("`{value}` is too large for a whole number of 64 bits")))?;
            // Infinity and not-a-number become null.
            if json.is_null() {
                return Err(wrong("the result is not a finite number"));
            }
            json
        }
        ValueKind::String | ValueKind::Bool => {
            serde_json::to_value(value).map_err(|e| wrong(format!("the result is no JSON value: {e}")))?
        }
        _ => return Err(wrong(format!("the result is {}, which is no JSON value", kind_of(value)))),
    })
}

/// The value as text, as a template prints it: texts as they are, null as `null`, lists and maps as JSON.
pub(in crate::expr) fn printed(value: &Value) -> Result<String, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, ValueKind::Undefined) => Err(absent("the value is not there")),
        (None, ValueKind::Number) if !f64::try_from(value.clone()).is_ok_and(f64::is_finite) => {
            Err(wrong("the result is not a finite number"))
        }
        (None, ValueKind::Number) => Ok(value.to_string()),
        _ => to_json(value).map(|json| json.to_string()),
    }
}

/// Nothing, an empty text, list or map.
pub(in crate::expr) fn is_empty(value: &Value) -> bool {
    value.is_undefined()
        || value.is_none()
        || value.as_str().is_some_and(str::is_empty)
        || matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
            && value.len() == Some(0)
}
