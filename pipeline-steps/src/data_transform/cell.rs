//! Values inside rows: how they are found, compared and told apart.
//!
//! Owns the total order of JSON values and their identity. Must not know any operation.

use std::cmp::Ordering;

use pipeline_core::value::Value;
use serde_json::{Map, Number};

/// The value of `field` in a row. A key of exactly that name comes first, then the path that it spells (`a.b`, `a[0]`).
/// `None` when there is none, or null.
pub(super) fn get<'r>(row: &'r Value, field: &str) -> Option<&'r Value> {
    let found = row.get(field).or_else(|| {
        if !field.contains(['.', '[']) {
            return None;
        }
        let mut parts = field.split(['.', '[']).map(|p| p.trim_end_matches(']'));
        parts.try_fold(row, |at, part| match at {
            Value::Array(items) => part.parse::<usize>().ok().and_then(|i| items.get(i)),
            other => other.get(part),
        })
    });
    found.filter(|v| !v.is_null())
}

/// Text counts as it is, anything else as JSON: the spelling of a group, or of a mapping's key.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A total order: true/false, then numbers, text, lists, maps. Whole numbers and fractions compare by what they are worth.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|o| o.is_ne());
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(_), Value::Object(_)) => identity(a).cmp(&identity(b)),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Bool(_) => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// The number as a whole one, when it is.
pub(super) fn whole(n: &Number) -> Option<i128> {
    n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from))
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    let fraction = |n: &Number| n.as_f64().unwrap_or_default();
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => compare_mixed(a, fraction(b)),
        (None, Some(b)) => compare_mixed(b, fraction(a)).reverse(),
        (None, None) => fraction(a).partial_cmp(&fraction(b)).unwrap_or(Ordering::Equal),
    }
}

/// Exact, because an order that rounds is not transitive and breaks a sort.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, far outside of what `a` can be")]
fn compare_mixed(a: i128, b: f64) -> Ordering {
    let floor = b.floor();
    a.cmp(&(floor as i128)).then(if b > floor { Ordering::Less } else { Ordering::Equal })
}

/// A text that two values share exactly when they are equal: the order of keys does not count, and 1 is 1.0.
pub(super) fn identity(value: &Value) -> String {
    let mut out = String::new();
    write_identity(value, &mut out);
    out
}

fn write_identity(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_identity(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in fields {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_identity(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Number(n) => out.push_str(&number_identity(n)),
        other => out.push_str(&other.to_string()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only for fractions that are whole and small enough")]
fn number_identity(n: &Number) -> String {
    match (whole(n), n.as_f64()) {
        (None, Some(f)) if f.fract() == 0.0 && f.abs() < 1e30 => (f as i128).to_string(),
        _ => n.to_string(),
    }
}

/// Sets a field of a row, making the maps that a dotted path needs. False when something on the way is not a map.
pub(super) fn set(row: &mut Value, field: &str, value: Value) -> bool {
    let mut at = row;
    if at.get(field).is_none() && field.contains('.') {
        let mut parts: Vec<&str> = field.split('.').collect();
        let Some(last) = parts.pop() else { return false };
        for part in parts {
            let Value::Object(fields) = at else { return false };
            at = fields.entry(part).or_insert_with(|| Value::Object(Map::new()));
        }
        let Value::Object(fields) = at else { return false };
        fields.insert(last.to_owned(), value);
        return true;
    }
    let Value::Object(fields) = at else { return false };
    fields.insert(field.to_owned(), value);
    true
}
