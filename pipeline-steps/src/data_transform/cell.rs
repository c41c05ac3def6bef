//! Values inside rows: how they are found, compared and told apart.
//!
//! Owns the total order of JSON values and their identity. Must not know any operation.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

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
        (Value::Object(a), Value::Object(b)) => compare_maps(a, b),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// By their entries in the order of their names.
fn compare_maps(a: &Map<String, Value>, b: &Map<String, Value>) -> Ordering {
    let sorted = |map: &'_ Map<String, Value>| {
        let mut names: Vec<String> = map.keys().cloned().collect();
        names.sort_unstable();
        names
    };
    let (names_a, names_b) = (sorted(a), sorted(b));
    let by = |(x, y): (&String, &String)| x.cmp(y).then_with(|| compare(&a[x], &b[y]));
    let first = names_a.iter().zip(&names_b).map(by).find(|o| o.is_ne());
    first.unwrap_or_else(|| names_a.len().cmp(&names_b.len()))
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

/// A value by what it is worth, for tables of keys: the order of keys in a map does not count, and 1 is 1.0. Nothing is
/// copied for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Same<'v>(pub(super) &'v Value);

/// What stands for a value that is not there.
pub(super) static MISSING: Value = Value::Null;

impl PartialEq for Same<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_eq(),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Same(a) == Same(b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| Same(a) == Same(b)))
            }
            (a, b) => a == b,
        }
    }
}

impl Eq for Same<'_> {}

impl Hash for Same<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        rank(self.0).hash(state);
        match self.0 {
            Value::Null => {}
            Value::Bool(value) => value.hash(state),
            // Numbers that are equal are the same fraction, although not each fraction is one number.
            Value::Number(n) => (n.as_f64().unwrap_or_default() + 0.0).to_bits().hash(state),
            Value::String(text) => text.hash(state),
            Value::Array(items) => items.iter().for_each(|item| Same(item).hash(state)),
            Value::Object(fields) => fields.len().hash(state),
        }
    }
}

/// A value as a sort compares it, found once for each row.
#[derive(Debug, Clone, Copy)]
pub(super) enum SortKey<'v> {
    Whole(i128),
    Text(&'v str),
    Other(&'v Value),
    Missing,
}

impl<'v> SortKey<'v> {
    pub(super) fn of(value: Option<&'v Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Missing,
            Some(Value::String(text)) => Self::Text(text),
            Some(Value::Number(n)) if let Some(n) = whole(n) => Self::Whole(n),
            Some(other) => Self::Other(other),
        }
    }

    /// The order of [`compare`], or its reverse; what is missing comes last either way.
    pub(super) fn compare(&self, other: &Self, is_reversed: bool) -> Ordering {
        let order = match (self, other) {
            (Self::Missing, Self::Missing) => return Ordering::Equal,
            (Self::Missing, _) => return Ordering::Greater,
            (_, Self::Missing) => return Ordering::Less,
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Other(a), Self::Other(b)) => compare(a, b),
            (Self::Whole(a), Self::Other(Value::Number(b))) => {
                compare_mixed(*a, b.as_f64().unwrap_or_default())
            }
            (Self::Other(Value::Number(a)), Self::Whole(b)) => {
                compare_mixed(*b, a.as_f64().unwrap_or_default()).reverse()
            }
            (a, b) => a.rank().cmp(&b.rank()),
        };
        if is_reversed { order.reverse() } else { order }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Whole(_) => 1,
            Self::Text(_) => 2,
            Self::Other(value) => rank(value),
            Self::Missing => 5,
        }
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
