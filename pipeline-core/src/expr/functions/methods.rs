//! Methods of values, as Jinja templates use them: `map.items()`, `text.upper()`.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::support::{entries, kind_of, text};

/// Calls a method; most are filters under another name.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let filter = match (value.kind(), name) {
        (ValueKind::Map, "items") => "items",
        (ValueKind::Map, "keys") => return Ok(entries(value)?.into_iter().map(|(key, _)| key).collect()),
        (ValueKind::Map, "values") => return Ok(entries(value)?.into_iter().map(|(_, v)| v).collect()),
        (ValueKind::Map, "get") => {
            let found = arguments.first().and_then(|key| value.get_item(key).ok());
            let other = || arguments.get(1).cloned().unwrap_or(Value::from(()));
            return Ok(found.filter(|v| !v.is_undefined()).unwrap_or_else(other));
        }
        (ValueKind::String, "upper") => "upper",
        (ValueKind::String, "lower") => "lower",
        (ValueKind::String, "title") => "title",
        (ValueKind::String, "strip") => "trim",
        (ValueKind::String, "split") => "split",
        (ValueKind::String, "replace") => "replace",
        (ValueKind::String, "startswith" | "endswith") => {
            let (whole, part) = (text(value)?, text(arguments.first().unwrap_or(&Value::UNDEFINED))?);
            let holds = if name == "startswith" { whole.starts_with(part) } else { whole.ends_with(part) };
            return Ok(Value::from(holds));
        }
        (ValueKind::String, "join") => {
            let list = arguments.first().cloned().unwrap_or_default();
            return state.apply_filter("join", &[list, value.clone()]);
        }
        _ => {
            let message = format!("{} has no method `{name}`", kind_of(value));
            return Err(Error::new(ErrorKind::UnknownMethod, message));
        }
    };
    let all: Vec<Value> = std::iter::once(value.clone()).chain(arguments.iter().cloned()).collect();
    state.apply_filter(filter, &all)
}
