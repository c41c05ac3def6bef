//! Comparisons, and the words between values.
//!
//! What is not there is an error, never true or false; over rows it never passes. Texts and numbers have no order, but a
//! date or time as text stands in time against a number of seconds.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};
use parking_lot::Mutex;

use super::support::{absent, in_row, is_empty, located, pay, pay_items, shown, text, wrong};
use super::times::moment;

/// Regular expressions that were used lately.
static PATTERNS: LazyLock<Mutex<HashMap<String, regex::Regex>>> = LazyLock::new(Mutex::default);

/// How many of them are kept.
const MOST_PATTERNS: usize = 128;

/// Bytes that a compiled regular expression may take.
const LARGEST_PATTERN: usize = 1 << 18;

/// What looking for a regular expression costs.
const PATTERN_FUEL: u64 = 40;

pub(super) fn install(env: &mut Environment<'static>) {
    env.add_function("_compare", |state: &State, at: u64, first: Value, rest: Rest<Value>| {
        chain(state, first, &rest).map_err(|e| located(e, at, None))
    });
    env.add_function("_between", |state: &State, at: u64, value: Value, low: Value, high: Value| {
        between(state, &value, &low, &high).map_err(|e| located(e, at, None))
    });
    env.add_test("empty", |value: &Value| is_empty(value));
    env.add_function("isEmpty", |value: Value| is_empty(&value));
    for (name, sign) in [
        ("contains", "contains"),
        ("matches", "matches"),
        ("startsWith", "starts_with"),
        ("endsWith", "ends_with"),
    ] {
        env.add_function(name, move |state: &State, a: Value, b: Value| holds(state, &a, sign, &b));
    }
}

fn chain(state: &State, first: Value, rest: &[Value]) -> Result<bool, Error> {
    let mut left = first;
    for pair in rest.chunks(2) {
        let [sign, right] = pair else { return Err(wrong("a comparison without its value")) };
        if !holds(state, &left, sign.as_str().unwrap_or_default(), right)? {
            return Ok(false);
        }
        left = right.clone();
    }
    Ok(true)
}

fn holds(state: &State, a: &Value, sign: &str, b: &Value) -> Result<bool, Error> {
    let is_row = in_row(state);
    if a.is_undefined() || b.is_undefined() {
        return if is_row { Ok(false) } else { Err(absent("a value that is compared is not there")) };
    }
    let is_null = a.is_none() || b.is_none();
    match sign {
        "==" => same(state, a, b),
        "!=" => same(state, a, b).map(|same| !same),
        _ if is_row && is_null => Ok(false),
        "in" => contains(state, b, a),
        "contains" => contains(state, a, b),
        "matches" => matches(state, a, b),
        "starts_with" => Ok(text(a)?.starts_with(text(b)?)),
        "ends_with" => Ok(text(a)?.ends_with(text(b)?)),
        _ => {
            let order = order(a, b)?;
            Ok(match sign {
                "<" => order == Ordering::Less,
                "<=" => order != Ordering::Greater,
                ">" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
    }
}

fn between(state: &State, value: &Value, low: &Value, high: &Value) -> Result<bool, Error> {
    Ok(holds(state, value, ">=", low)? && holds(state, value, "<=", high)?)
}

/// Equality as in JSON, but 1 is 1.0; true is not 1.
fn same(state: &State, a: &Value, b: &Value) -> Result<bool, Error> {
    let is_bool = |v: &Value| v.kind() == ValueKind::Bool;
    if is_bool(a) != is_bool(b) {
        return Ok(false);
    }
    pay(state, a.as_str().map_or(0, str::len))?;
    pay_items(state, a.len().unwrap_or_default())?;
    Ok(a == b)
}

fn contains(state: &State, whole: &Value, part: &Value) -> Result<bool, Error> {
    if let Some(text) = whole.as_str() {
        let Some(part) = part.as_str() else {
            return Err(wrong(format!("a text contains only texts, and this is {}", shown(part))));
        };
        pay(state, text.len())?;
        return Ok(text.contains(part));
    }
    match whole.kind() {
        ValueKind::Map => Ok(whole.get_item(part).is_ok_and(|v| !v.is_undefined())),
        ValueKind::Seq | ValueKind::Iterable => {
            for item in whole.try_iter()? {
                state.consume_fuel(1)?;
                if same(state, &item, part)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(wrong(format!("{} cannot contain anything", shown(whole)))),
    }
}

fn matches(state: &State, whole: &Value, pattern: &Value) -> Result<bool, Error> {
    let (Some(whole), Some(pattern)) = (whole.as_str(), pattern.as_str()) else {
        let other = if whole.as_str().is_some() { pattern } else { whole };
        return Err(wrong(format!(
            "`matches` needs a text and a regular expression, and this is {}",
            shown(other)
        )));
    };
    state.consume_fuel(PATTERN_FUEL)?;
    pay(state, whole.len() + pattern.len())?;
    if let Some(known) = PATTERNS.lock().get(pattern) {
        return Ok(known.is_match(whole));
    }
    let regex = regex::RegexBuilder::new(pattern)
        .size_limit(LARGEST_PATTERN)
        .build()
        .map_err(|e| wrong(format!("`{pattern}` is not a regular expression: {}", last_line(&e))))?;
    let found = regex.is_match(whole);
    let mut patterns = PATTERNS.lock();
    if patterns.len() >= MOST_PATTERNS {
        patterns.clear();
    }
    patterns.insert(pattern.to_owned(), regex);
    Ok(found)
}

/// The reason is the last line of what the parser says; the lines before draw the place.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// How two values stand to each other.
pub(super) fn order(a: &Value, b: &Value) -> Result<Ordering, Error> {
    let in_time =
        |text: &Value, number: &Value| Some((moment(text.as_str()?)?, f64::try_from(number.clone()).ok()?));
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => return Ok(a.cmp(b)),
        _ if a.is_number() && b.is_number() => return Ok(a.cmp(b)),
        (Some(_), None) if b.is_number() => {
            if let Some((a, b)) = in_time(a, b) {
                return Ok(a.total_cmp(&b));
            }
        }
        (None, Some(_)) if a.is_number() => {
            if let Some((b, a)) = in_time(b, a) {
                return Ok(a.total_cmp(&b));
            }
        }
        _ if a.kind() == ValueKind::Bool && b.kind() == ValueKind::Bool => return Ok(a.cmp(b)),
        _ if a.kind() == ValueKind::Seq && b.kind() == ValueKind::Seq => return Ok(a.cmp(b)),
        _ => {}
    }
    Err(wrong(format!("{} and {} have no order", shown(a), shown(b))))
}
