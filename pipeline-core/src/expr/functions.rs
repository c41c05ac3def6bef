//! The functions and tests of the language.
//!
//! Owns what `install` adds to the engine and [`reference`], the table that documentation and tests are made from.
//! Integers stay integers; what cannot be computed is an error, never a made-up value.

use std::cmp::Ordering;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use crate::clock::Timestamp;

/// Name under which the time of evaluation is handed in.
pub(super) const NOW: &str = "_now";

/// Name that marks an evaluation over rows.
pub(super) const ROW: &str = "_row";

/// Longest `range`.
const LONGEST_RANGE: i64 = 100_000;

/// One function, for people.
#[derive(Debug, Clone, Copy)]
pub struct FunctionDoc {
    /// How it is called.
    pub signature: &'static str,
    /// What it gives.
    pub meaning: &'static str,
    /// An expression that uses it, and its value as JSON. Tested.
    pub example: (&'static str, &'static str),
}

/// Every function beside those of Jinja.
pub fn reference() -> &'static [FunctionDoc] {
    REFERENCE
}

const fn doc(
    signature: &'static str,
    meaning: &'static str,
    example: (&'static str, &'static str),
) -> FunctionDoc {
    FunctionDoc { signature, meaning, example }
}

static REFERENCE: &[FunctionDoc] = &[
    doc("add(a, b, …)", "The sum.", ("add(1, 2, 3)", "6")),
    doc("subtract(a, b)", "The difference.", ("subtract(5, 2)", "3")),
    doc("multiply(a, b, …)", "The product.", ("multiply(2, 3)", "6")),
    doc(
        "divide(a, b)",
        "The quotient, a real number; dividing by zero is an error.",
        ("divide(1, 4)", "0.25"),
    ),
    doc("max(a, b, …) or max(list)", "The greatest.", ("max(3, 7, 5)", "7")),
    doc("min(a, b, …) or min(list)", "The least.", ("min([3, 7, 5])", "3")),
    doc("round(x, digits = 0)", "Rounded; a whole number when digits is 0.", ("round(2.567, 1)", "2.6")),
    doc("floor(x)", "The whole number below.", ("floor(-1.5)", "-2")),
    doc("ceil(x)", "The whole number above.", ("ceil(1.2)", "2")),
    doc("abs(x)", "Without its sign.", ("abs(-3)", "3")),
    doc("sqrt(x)", "The square root; of a negative number an error.", ("sqrt(16)", "4.0")),
    doc("pow(x, y)", "x to the power of y.", ("pow(2, 10)", "1024")),
    doc("length(x)", "Characters of a text, items of a list, keys of a map.", ("length('héllo')", "5")),
    doc(
        "count(list) or count(list, 'condition')",
        "How many items (hold).",
        ("count([1, 5, 9], 'item > 3')", "2"),
    ),
    doc("sum(list)", "The sum of a list.", ("sum([1, 2, 3])", "6")),
    doc("average(list)", "The mean of a list; of an empty one an error.", ("average([1, 2])", "1.5")),
    doc(
        "any(list, 'condition')",
        "Whether it holds for at least one item.",
        ("any([1, 5], 'item > 3')", "true"),
    ),
    doc("all(list, 'condition')", "Whether it holds for every item.", ("all([1, 5], 'item > 3')", "false")),
    doc("filter(list, 'condition')", "The items for which it holds.", ("filter([1, 5], 'item > 3')", "[5]")),
    doc(
        "map(list, 'expression')",
        "Its value for every item.",
        ("map([{'a': 1}, {'a': 2}], 'a * 10')", "[10,20]"),
    ),
    doc("isEmpty(x)", "Nothing, an empty text, list or map.", ("isEmpty('')", "true")),
    doc("contains(x, part)", "Whether a text, list or map has it.", ("contains('hello', 'ell')", "true")),
    doc(
        "matches(text, regex)",
        "Whether a regular expression is found.",
        ("matches('v1.2', '^v[0-9]')", "true"),
    ),
    doc("startsWith(text, start)", "Whether it begins so.", ("startsWith('hello', 'he')", "true")),
    doc("endsWith(text, end)", "Whether it ends so.", ("endsWith('hello', 'lo')", "true")),
    doc("lower(text), toLowerCase(text)", "In small letters.", ("lower('ÀB')", "\"àb\"")),
    doc("upper(text), toUpperCase(text)", "In capitals.", ("upper('äb')", "\"ÄB\"")),
    doc("trim(text)", "Without white space around.", ("trim('  a ')", "\"a\"")),
    doc("append(list, item) or append(text, text)", "With it at the end.", ("append([1], 2)", "[1,2]")),
    doc(
        "substring(text, start, length)",
        "A part, in characters from 0.",
        ("substring('héllo', 1, 3)", "\"éll\""),
    ),
    doc("keys(map)", "Its keys, in order.", ("keys({'a': 1, 'b': 2})", "[\"a\",\"b\"]")),
    doc("values(map)", "Its values, in order.", ("values({'a': 1, 'b': 2})", "[1,2]")),
    doc("merge(map, map, …)", "All entries, later ones win.", ("merge({'a': 1}, {'a': 2})", "{\"a\":2}")),
    doc("concat(a, b, …)", "Lists or texts joined.", ("concat([1], [2, 3])", "[1,2,3]")),
    doc(
        "range(stop) or range(start, stop, step)",
        "Whole numbers; at most 100,000.",
        ("range(1, 4)", "[1,2,3]"),
    ),
    doc("hash(x)", "BLAKE3 of a text or of a value's JSON, as hex.", ("length(hash('a'))", "64")),
    doc(
        "now()",
        "Seconds since 1970 at the fact that made the step ready.",
        ("now() - days(1) < now()", "true"),
    ),
    doc(
        "date(x, format)",
        "A time as seconds; with a format, as text in UTC.",
        ("date('1970-01-02')", "86400"),
    ),
    doc("days(n), hours(n), minutes(n), seconds(n)", "A length of time in seconds.", ("hours(2)", "7200")),
];

/// A map, in the order given.
pub(super) fn map_value<K: Into<Value>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    let entries = entries.into_iter().map(|(key, value)| (key.into(), value));
    Value::from(entries.collect::<indexmap::IndexMap<Value, Value>>())
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The value as JSON.
pub(super) fn to_json(value: &Value) -> Result<serde_json::Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "the value is not there"));
    }
    if let Ok(number) = f64::try_from(value.clone())
        && !number.is_finite()
    {
        return Err(wrong("the result is not a finite number"));
    }
    serde_json::to_value(value).map_err(|e| wrong(format!("the result is no JSON value: {e}")))
}

/// Adds functions and tests to an engine.
pub(super) fn install(env: &mut Environment<'static>) {
    env.add_function("_cmp", compare);
    env.add_function("_divisor", divisor);
    env.add_function("_opt", optional);
    env.add_function("_primary", primary);
    env.add_test("containing", |state: &State, a: &Value, b: &Value| in_row(state, a, || contains(a, b)));
    env.add_test("matching", |state: &State, a: &Value, b: &Value| in_row(state, a, || matches(a, b)));
    env.add_test("starting_with", |state: &State, a: &Value, b: &Value| {
        in_row(state, a, || Ok(text(a)?.starts_with(text(b)?)))
    });
    env.add_test("ending_with", |state: &State, a: &Value, b: &Value| {
        in_row(state, a, || Ok(text(a)?.ends_with(text(b)?)))
    });
    env.add_test("empty", |value: &Value| is_empty(value));
    env.add_test("between", |state: &State, value: &Value, low: &Value, high: &Value| {
        let within = || Ok(order(value, low)? != Ordering::Less && order(value, high)? != Ordering::Greater);
        in_row(state, value, within)
    });
    numbers(env);
    texts(env);
    lists(env);
    times(env);
}

fn number(value: &Value) -> Result<f64, Error> {
    if value.is_number() {
        return f64::try_from(value.clone());
    }
    Err(wrong(format!("a number is needed, and `{value}` is {}", value.kind())))
}

/// Whole when all are whole and nothing overflows, else real.
fn fold(
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

fn whole_or_real(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    if value.abs() < 9.0e15 { Value::from(value as i64) } else { Value::from(value) }
}

fn extreme(arguments: &[Value], wanted: Ordering) -> Result<Value, Error> {
    let items: Vec<Value> = match arguments {
        [list] if !list.is_number() => list.try_iter()?.collect(),
        many => many.to_vec(),
    };
    let mut best: Option<Value> = None;
    for item in items {
        match &best {
            Some(b) if order(&item, b)? != wanted => {}
            _ => best = Some(item),
        }
    }
    best.ok_or_else(|| wrong("an empty list has no greatest or least item"))
}

fn numbers(env: &mut Environment<'static>) {
    env.add_function("add", |v: Rest<Value>| fold(&v, i64::checked_add, |a, b| a + b));
    env.add_function("subtract", |a: Value, b: Value| fold(&[a, b], i64::checked_sub, |a, b| a - b));
    env.add_function("multiply", |v: Rest<Value>| fold(&v, i64::checked_mul, |a, b| a * b));
    env.add_function("divide", |a: Value, b: Value| Ok::<_, Error>(number(&a)? / number(&divisor(b)?)?));
    env.add_function("max", |v: Rest<Value>| extreme(&v, Ordering::Greater));
    env.add_function("min", |v: Rest<Value>| extreme(&v, Ordering::Less));
    env.add_function("round", |x: Value, digits: Option<i32>| {
        let digits = digits.unwrap_or(0);
        if digits <= 0 && x.is_integer() {
            return Ok(x);
        }
        let scale = 10_f64.powi(digits);
        let rounded = (number(&x)? * scale).round() / scale;
        Ok(if digits <= 0 { whole_or_real(rounded) } else { Value::from(rounded) })
    });
    env.add_function("floor", |x: Value| Ok::<_, Error>(whole_or_real(number(&x)?.floor())));
    env.add_function("ceil", |x: Value| Ok::<_, Error>(whole_or_real(number(&x)?.ceil())));
    env.add_function("abs", |x: Value| match x.as_i64().filter(|_| x.is_integer()) {
        Some(whole) => whole.checked_abs().map(Value::from).ok_or_else(|| wrong("the number is too large")),
        None => number(&x).map(|n| Value::from(n.abs())),
    });
    env.add_function("sqrt", |x: Value| {
        let x = number(&x)?;
        if x < 0.0 { Err(wrong("a negative number has no square root")) } else { Ok(x.sqrt()) }
    });
    env.add_function("pow", |x: Value, y: Value| {
        let whole = x.as_i64().filter(|_| x.is_integer()).zip(y.as_i64().filter(|_| y.is_integer()));
        let exact = whole.and_then(|(x, y)| x.checked_pow(u32::try_from(y).ok()?));
        exact.map_or_else(
            || Ok(Value::from(number(&x)?.powf(number(&y)?))),
            |n| Ok::<_, Error>(Value::from(n)),
        )
    });
}

fn texts(env: &mut Environment<'static>) {
    env.add_function("lower", |t: &str| t.to_lowercase());
    env.add_function("toLowerCase", |t: &str| t.to_lowercase());
    env.add_function("upper", |t: &str| t.to_uppercase());
    env.add_function("toUpperCase", |t: &str| t.to_uppercase());
    env.add_function("trim", |t: &str| t.trim().to_owned());
    env.add_function("startsWith", |t: &str, s: &str| t.starts_with(s));
    env.add_function("endsWith", |t: &str, s: &str| t.ends_with(s));
    env.add_function("matches", |a: Value, b: Value| matches(&a, &b));
    env.add_function("contains", |a: Value, b: Value| contains(&a, &b));
    env.add_function("substring", |t: &str, start: i64, length: Option<i64>| {
        let start = usize::try_from(start).map_err(|_| wrong("substring starts at 0 or later"))?;
        let length =
            length.map_or(Ok(usize::MAX), usize::try_from).map_err(|_| wrong("a length is 0 or more"))?;
        Ok::<_, Error>(t.chars().skip(start).take(length).collect::<String>())
    });
    env.add_function("hash", |x: Value| {
        let hash = match x.as_str() {
            Some(text) => crate::value::Hash::of_bytes(text.as_bytes()),
            None => crate::value::Hash::of(&to_json(&x)?),
        };
        Ok::<_, Error>(hash.to_string())
    });
}

fn lists(env: &mut Environment<'static>) {
    env.add_function("length", |x: Value| match x.as_str() {
        Some(text) => Ok(text.chars().count()),
        None => x.len().ok_or_else(|| wrong(format!("{} has no length", x.kind()))),
    });
    env.add_function("isEmpty", |x: Value| is_empty(&x));
    env.add_function("sum", |x: Value| {
        let items: Vec<Value> = std::iter::once(Value::from(0)).chain(x.try_iter()?).collect();
        fold(&items, i64::checked_add, |a, b| a + b)
    });
    env.add_function("average", |x: Value| {
        let items = x.try_iter()?.map(|v| number(&v)).collect::<Result<Vec<_>, _>>()?;
        let count = items.len();
        if count == 0 {
            Err(wrong("an empty list has no average"))
        } else {
            Ok(items.iter().sum::<f64>() / count as f64)
        }
    });
    env.add_function("count", |x: Value, condition: Option<String>| match condition {
        None => x.len().ok_or_else(|| wrong(format!("{} has no items to count", x.kind()))),
        Some(text) => Ok(each(&x, &text)?.into_iter().filter(|(_, v)| v.is_true()).count()),
    });
    env.add_function("any", |x: Value, text: String| {
        Ok::<_, Error>(each(&x, &text)?.iter().any(|(_, v)| v.is_true()))
    });
    env.add_function("all", |x: Value, text: String| {
        Ok::<_, Error>(each(&x, &text)?.iter().all(|(_, v)| v.is_true()))
    });
    env.add_function("filter", |x: Value, text: String| {
        let held = each(&x, &text)?.into_iter().filter(|(_, v)| v.is_true());
        Ok::<_, Error>(held.map(|(item, _)| item).collect::<Value>())
    });
    env.add_function("map", |x: Value, text: String| {
        Ok::<_, Error>(each(&x, &text)?.into_iter().map(|(_, v)| v).collect::<Value>())
    });
    env.add_function("append", |x: Value, item: Value| match x.as_str() {
        Some(text) => Ok(Value::from(format!("{text}{item}"))),
        None => Ok::<_, Error>(x.try_iter()?.chain([item]).collect()),
    });
    env.add_function("keys", |x: Value| map_of(&x).map(|m| m.into_iter().map(|(k, _)| k).collect::<Value>()));
    env.add_function("values", |x: Value| {
        map_of(&x).map(|m| m.into_iter().map(|(_, v)| v).collect::<Value>())
    });
    env.add_function("merge", |maps: Rest<Value>| {
        let mut all: Vec<(Value, Value)> = Vec::new();
        for map in maps.iter() {
            all.extend(map_of(map)?);
        }
        Ok::<_, Error>(map_value(all))
    });
    env.add_function("concat", |parts: Rest<Value>| {
        if parts.iter().all(|p| p.as_str().is_some()) {
            return Ok(Value::from(parts.iter().map(ToString::to_string).collect::<String>()));
        }
        let mut all = Vec::new();
        for part in parts.iter() {
            if part.kind() == ValueKind::Seq || part.kind() == ValueKind::Iterable {
                all.extend(part.try_iter()?);
            } else {
                all.push(part.clone());
            }
        }
        Ok::<_, Error>(Value::from(all))
    });
    env.add_function("range", |first: i64, stop: Option<i64>, step: Option<i64>| {
        let (start, stop) = stop.map_or((0, first), |stop| (first, stop));
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(wrong("a range needs a step other than 0"));
        }
        let length = (stop.saturating_sub(start)).checked_div(step).unwrap_or(0);
        if length > LONGEST_RANGE {
            return Err(wrong(format!("a range has at most {LONGEST_RANGE} numbers")));
        }
        let next = |n: &i64| n.checked_add(step);
        let numbers = std::iter::successors(Some(start), next)
            .take_while(|n| if step > 0 { *n < stop } else { *n > stop });
        Ok(numbers.collect::<Vec<i64>>())
    });
}

fn times(env: &mut Environment<'static>) {
    env.add_function("days", |n: Value| fold(&[n, Value::from(86_400)], i64::checked_mul, |a, b| a * b));
    env.add_function("hours", |n: Value| fold(&[n, Value::from(3600)], i64::checked_mul, |a, b| a * b));
    env.add_function("minutes", |n: Value| fold(&[n, Value::from(60)], i64::checked_mul, |a, b| a * b));
    env.add_function("seconds", |n: Value| fold(&[n, Value::from(1)], i64::checked_mul, |a, b| a * b));
    env.add_function("now", |state: &State| {
        let ms =
            state.lookup(NOW).and_then(|v| v.as_i64()).ok_or_else(|| wrong("now() has no meaning here"))?;
        Ok::<_, Error>(ms.div_euclid(1000))
    });
    env.add_function("date", |x: Value, format: Option<String>| {
        let seconds = match x.as_str() {
            Some(text) => moment(text).ok_or_else(|| wrong(format!("`{text}` is not a date or time")))?,
            None => number(&x)?,
        };
        let Some(format) = format else { return Ok(whole_or_real(seconds)) };
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and far times are refused below")]
        let zoned = jiff::Timestamp::from_second(seconds as i64)
            .map_err(|e| wrong(e.to_string()))?
            .to_zoned(jiff::tz::TimeZone::UTC);
        let text = jiff::fmt::strtime::format(&format, &zoned).map_err(|e| wrong(e.to_string()))?;
        Ok::<_, Error>(Value::from(text))
    });
}

/// A time written as text, in seconds since 1970.
fn moment(text: &str) -> Option<f64> {
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp.0 as f64 / 1000.0);
    }
    let civil: jiff::civil::DateTime =
        text.parse().ok().or_else(|| text.parse::<jiff::civil::Date>().ok().map(|d| d.at(0, 0, 0, 0)))?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_second() as f64)
}

/// Every item with the value of an expression over it.
fn each(list: &Value, text: &str) -> Result<Vec<(Value, Value)>, Error> {
    let expr =
        crate::expr::Expr::compile(text, &[]).map_err(|e| wrong(format!("`{text}`: {}", e.message)))?;
    let mut all = Vec::new();
    for item in list.try_iter()? {
        let mut names: Vec<(&str, Value)> = vec![("item", item.clone()), (ROW, Value::from(true))];
        for read in expr.reads() {
            if let Ok(field) = item.get_attr(&read.root)
                && !field.is_undefined()
            {
                names.push((&read.root, field));
            }
        }
        let value = match expr.eval_context(map_value(names)) {
            Ok(value) => value,
            Err(error) if error.kind() == ErrorKind::UndefinedError => Value::from(()),
            Err(error) => return Err(wrong(format!("`{text}`: {}", expr.error(&error).message))),
        };
        all.push((item, value));
    }
    Ok(all)
}

fn map_of(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if value.kind() != ValueKind::Map {
        return Err(wrong(format!("a map is needed, and this is {}", value.kind())));
    }
    value.try_iter()?.map(|key| value.get_item(&key).map(|v| (key, v))).collect()
}

fn is_empty(value: &Value) -> bool {
    value.is_undefined()
        || value.is_none()
        || value.as_str().is_some_and(str::is_empty)
        || matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
            && value.len() == Some(0)
}

fn contains(whole: &Value, part: &Value) -> Result<bool, Error> {
    if let Some(text) = whole.as_str() {
        let part = part.as_str().ok_or_else(|| wrong("a text contains only texts"))?;
        return Ok(text.contains(part));
    }
    match whole.kind() {
        ValueKind::Map => Ok(whole.get_item(part).is_ok_and(|v| !v.is_undefined())),
        ValueKind::Seq | ValueKind::Iterable => Ok(whole.try_iter()?.any(|item| item == *part)),
        kind => Err(wrong(format!("{kind} cannot contain anything"))),
    }
}

fn matches(text: &Value, pattern: &Value) -> Result<bool, Error> {
    let (Some(text), Some(pattern)) = (text.as_str(), pattern.as_str()) else {
        return Err(wrong("`matches` needs a text and a regular expression"));
    };
    let regex = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    regex
        .map(|r| r.is_match(text))
        .map_err(|e| wrong(format!("`{pattern}` is not a regular expression: {e}")))
}

/// How two values stand to each other.
fn order(a: &Value, b: &Value) -> Result<Ordering, Error> {
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
        _ if a.kind() == b.kind() && a.kind() != ValueKind::Map => return Ok(a.cmp(b)),
        _ => {}
    }
    let shown =
        |v: &Value| if v.is_undefined() { "nothing".to_owned() } else { format!("{} ({v})", v.kind()) };
    Err(wrong(format!("{} and {} have no order", shown(a), shown(b))))
}

fn compare(state: &State, sign: &str, a: Value, b: Value, written: Value) -> Result<bool, Error> {
    for (place, value) in [&a, &b].into_iter().enumerate() {
        if value.is_undefined() {
            if state.lookup(ROW).is_some() {
                return Ok(false);
            }
            let text = written.get_item_by_index(place)?;
            return Err(Error::new(ErrorKind::UndefinedError, format!("`{text}` is not there")));
        }
    }
    let is_row = state.lookup(ROW).is_some();
    match sign {
        "==" => Ok(a == b),
        "!=" => Ok(a != b),
        _ if is_row && (a.is_none() || b.is_none()) => Ok(false),
        _ => {
            let order = order(&a, &b)?;
            Ok(match sign {
                "<" => order == Ordering::Less,
                "<=" => order != Ordering::Greater,
                ">" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
    }
}

/// What something is divided by.
fn divisor(value: Value) -> Result<Value, Error> {
    if number(&value)? == 0.0 { Err(wrong("division by zero")) } else { Ok(value) }
}

/// In an expression over rows, what a row lacks never passes.
fn in_row(state: &State, value: &Value, test: impl FnOnce() -> Result<bool, Error>) -> Result<bool, Error> {
    let is_missing = value.is_undefined() || value.is_none();
    if is_missing && state.lookup(ROW).is_some() { Ok(false) } else { test() }
}

fn text(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| wrong(format!("a text is needed, and `{value}` is {}", value.kind())))
}

/// A path that may end anywhere.
fn optional(root: &Value, path: Rest<Value>) -> Value {
    let mut here = root.clone();
    for part in path.iter() {
        match here.get_item(part) {
            Ok(next) if !next.is_undefined() => here = next,
            _ => return Value::UNDEFINED,
        }
    }
    here
}

/// The primary value of a step's value, whatever kind it has.
fn primary(value: &Value) -> Value {
    if value.kind() == ValueKind::Map {
        value.get_attr("result").ok().filter(|v| !v.is_undefined()).unwrap_or_else(|| value.clone())
    } else {
        value.clone()
    }
}
