//! A path into a value, with `[*]` for every item.
//!
//! Owns the walk. Must not know steps: the first part of a path is an expression's business, which knows where fields of a
//! step's value may hide.

use pipeline_core::error::StepError;
use pipeline_core::value::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part<'p> {
    Field(&'p str),
    Index(usize),
    Every,
}

/// What stands at `path`: a list when it has `[*]`. Where there is nothing, `is_strict` makes an error of it, and else the
/// item is left out.
///
/// # Errors
/// `Invalid`, naming what is missing and what there is.
pub(super) fn at(value: &Value, path: &str, is_strict: bool) -> Result<Value, StepError> {
    let parts = parts(path).ok_or_else(|| {
        StepError::invalid(format!("`{path}` is not a path"))
            .help("write it like `items[*].name` or `items[0]`")
    })?;
    let mut found: Vec<&Value> = vec![value];
    for (place, part) in parts.iter().enumerate() {
        let mut next = Vec::with_capacity(found.len());
        for value in found {
            let inside: Option<Vec<&Value>> = match part {
                Part::Field(name) => value.get(name).map(|v| vec![v]),
                Part::Index(index) => value.get(index).map(|v| vec![v]),
                Part::Every => match value {
                    Value::Array(items) => Some(items.iter().collect()),
                    Value::Object(fields) => Some(fields.values().collect()),
                    _ => None,
                },
            };
            match inside {
                Some(inside) => next.extend(inside),
                None if is_strict => return Err(missing(path, &parts[place], value)),
                None => {}
            }
        }
        found = next;
    }
    if parts.contains(&Part::Every) {
        return Ok(found.into_iter().cloned().collect());
    }
    Ok(found.first().map_or(Value::Null, |v| (*v).clone()))
}

fn missing(path: &str, part: &Part<'_>, value: &Value) -> StepError {
    let what = match part {
        Part::Field(name) => format!("no field `{name}`"),
        Part::Index(index) => format!("no item {index}"),
        Part::Every => "no items".to_owned(),
    };
    let there = match value {
        Value::Object(fields) => {
            let names: Vec<&str> = fields.keys().take(12).map(String::as_str).collect();
            format!(
                "a map with {}",
                if names.is_empty() { "nothing in it".to_owned() } else { names.join(", ") }
            )
        }
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Null => "nothing".to_owned(),
        other => format!("the value {}", other.to_string().chars().take(60).collect::<String>()),
    };
    StepError::invalid(format!("`extract` finds {what} at `{path}`: there is {there}"))
        .help("correct the path, or leave out what is missing with `strict: false`")
}

fn parts(path: &str) -> Option<Vec<Part<'_>>> {
    let mut all = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (index, after) = inside.split_once(']')?;
            let index = index.trim();
            all.push(match index {
                "*" => Part::Every,
                _ => match index.parse() {
                    Ok(number) => Part::Index(number),
                    Err(_) => Part::Field(index.trim_matches(['\'', '"'])),
                },
            });
            rest = after;
            continue;
        }
        let bare = rest.strip_prefix('.').unwrap_or(rest);
        let end = bare.find(['.', '[']).unwrap_or(bare.len());
        let (name, after) = bare.split_at(end);
        if name.is_empty() {
            return None;
        }
        all.push(if name == "*" { Part::Every } else { Part::Field(name) });
        rest = after;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_picks_fields_items_and_every_item() {
        let value =
            json!({ "a": [{ "n": 1, "t": ["x"] }, { "n": 2, "t": ["y", "z"] }], "m": { "p": 1, "q": 2 } });
        for (path, expected) in [
            ("a[*].n", json!([1, 2])),
            ("a[*].t[*]", json!(["x", "y", "z"])),
            ("a[1].t[0]", json!("y")),
            ("m[*]", json!([1, 2])),
            (".m.q", json!(2)),
            ("m['p']", json!(1)),
            ("a.*.n", json!([1, 2])),
        ] {
            assert_eq!(at(&value, path, true).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_missing_is_an_error_or_left_out() {
        let value = json!({ "a": [{ "n": 1 }, {}] });
        let error = at(&value, "a[*].n", true).unwrap_err();
        assert!(error.message.contains("no field `n`"), "{}", error.message);
        assert_eq!(at(&value, "a[*].n", false).unwrap(), json!([1]));
        assert_eq!(at(&value, "b.c", false).unwrap(), Value::Null);
        assert!(at(&value, "a[9]", true).unwrap_err().message.contains("a list of 2"));
        assert!(at(&value, "a[", true).unwrap_err().message.contains("not a path"));
    }
}
