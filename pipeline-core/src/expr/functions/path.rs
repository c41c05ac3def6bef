//! What is read of a value: fields, places, the primary value of a step.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::support::{ENDED, absent, in_row, kind_of, located, map_value, number, of_scope, wrong};
use crate::diagnostic::closest;
use crate::expr::NAMESPACES;

/// Most fields that a message names.
const MOST_NAMED: usize = 12;

pub(super) fn install(env: &mut Environment<'static>) {
    env.add_function("_path", |state: &State, at: u64, name: &str, root: Value, path: Rest<Value>| {
        match strict(name, &root, &path) {
            Ok(value) => Ok(value),
            Err(_) if !of_scope(state, name) => Ok(Value::UNDEFINED),
            // Over rows, an error of what is not there would stand for a field that the row lacks.
            Err((error, help)) if in_row(state) => {
                let message = error.detail().unwrap_or_default().to_owned();
                Err(located(wrong(message), at, Some(help)))
            }
            Err((error, help)) => Err(located(error, at, Some(help))),
        }
    });
    env.add_function("_opt", |_: u64, root: &Value, path: Rest<Value>| optional(root, &path));
    env.add_function("_ending", |state: &State, value: Value, name: Value| ending(state, value, &name));
    env.add_function("_primary", |value: &Value| primary(value));
    env.add_function("_divisor", |at: u64, value: Value| match number(&value) {
        Ok(0.0) => Err(located(wrong("division by zero"), at, None)),
        Ok(_) => Ok(value),
        Err(error) => Err(located(error, at, None)),
    });
}

/// A path that must be there; else why it is not, and what to do.
fn strict(name: &str, root: &Value, path: &[Value]) -> Result<Value, (Error, String)> {
    let allow = "check the name, or allow for its absence with `| default(…)`";
    if root.is_undefined() {
        let what = if name.is_empty() { "what is read from".to_owned() } else { format!("`{name}`") };
        return Err((absent(format!("{what} has no value here")), allow.to_owned()));
    }
    let mut here = root.clone();
    for (depth, part) in path.iter().enumerate() {
        let next = here.get_item(part).unwrap_or(Value::UNDEFINED);
        if next.is_undefined() {
            return Err(missing(name, &here, part, depth, path));
        }
        here = next;
    }
    Ok(here)
}

fn missing(name: &str, here: &Value, part: &Value, depth: usize, path: &[Value]) -> (Error, String) {
    let fields = path[..depth].iter().map(ToString::to_string);
    let before: Vec<String> =
        Some(name).filter(|n| !n.is_empty()).map(str::to_owned).into_iter().chain(fields).collect();
    let owner = if before.is_empty() { String::new() } else { format!("`{}` ", before.join(".")) };
    let allow = "allow for its absence with `| default(…)`".to_owned();
    if depth == 0 && NAMESPACES.contains(&name) {
        let help = "check the name, or allow for its absence with `| default(…)`";
        return (absent(format!("`{name}.{part}` has no value here")), help.to_owned());
    }
    match here.kind() {
        ValueKind::Map => {
            let names: Vec<String> =
                here.try_iter().into_iter().flatten().map(|key| key.to_string()).collect();
            let help = match closest(&part.to_string(), names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None if names.is_empty() || depth == 0 => allow,
                None => {
                    let more = if names.len() > MOST_NAMED { ", …" } else { "" };
                    let some: Vec<&str> = names.iter().take(MOST_NAMED).map(String::as_str).collect();
                    format!("it has: {}{more}", some.join(", "))
                }
            };
            let what = if owner.is_empty() { "there is no ".to_owned() } else { format!("{owner}has no ") };
            (absent(format!("{what}`{part}`")), help)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let count = here.len().unwrap_or_default();
            let what = if owner.is_empty() { "the list ".to_owned() } else { owner };
            let message = if part.is_number() {
                format!("{what}has {count} items, and no `{part}`")
            } else {
                format!("{what}is a list, and has no field `{part}`")
            };
            (absent(message), format!("places are counted from 0; {allow}"))
        }
        _ => {
            let what = if owner.is_empty() { "it ".to_owned() } else { owner };
            (absent(format!("{what}is {}, and has no `{part}`", kind_of(here))), allow)
        }
    }
}

/// A path that may end anywhere.
fn optional(root: &Value, path: &[Value]) -> Value {
    let mut here = root.clone();
    for part in path {
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

/// What has the `status` of a step: its value where that is a map, else a map of how it ended and of the value.
fn ending(state: &State, value: Value, name: &Value) -> Value {
    if value.kind() == ValueKind::Map {
        return value;
    }
    let ended = state.lookup(ENDED).and_then(|all| all.get_item(name).ok()).filter(|s| !s.is_undefined());
    match ended {
        Some(status) => map_value([("status", status), ("result", value)]),
        None => value,
    }
}
