//! Texts.

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, State, Value};

use super::support::{items, pay, printed, text, to_json, wrong};

pub(super) fn install(env: &mut Environment<'static>) {
    for name in ["lower", "toLowerCase"] {
        env.add_function(name, |state: &State, t: Value| changed(state, &t, str::to_lowercase));
    }
    for name in ["upper", "toUpperCase"] {
        env.add_function(name, |state: &State, t: Value| changed(state, &t, str::to_uppercase));
    }
    env.add_function("trim", |state: &State, t: Value| changed(state, &t, |t| t.trim().to_owned()));
    env.add_function("substring", |state: &State, t: Value, start: i64, length: Option<i64>| {
        let start = usize::try_from(start).map_err(|_| wrong("substring starts at 0 or later"))?;
        let length =
            length.map_or(Ok(usize::MAX), usize::try_from).map_err(|_| wrong("a length is 0 or more"))?;
        changed(state, &t, |t| t.chars().skip(start).take(length).collect())
    });
    env.add_function("hash", |state: &State, x: Value| {
        let json = to_json(&x)?;
        let bytes = json.as_str().map_or_else(|| json.to_string(), str::to_owned);
        pay(state, bytes.len())?;
        Ok::<_, Error>(crate::value::Hash::of_bytes(bytes.as_bytes()).to_string())
    });
    env.add_function("_join", |state: &State, parts: Rest<Value>| joined(state, &parts));
    // Jinja's own print Python's spelling of values, or escape for HTML.
    env.add_filter("string", |state: &State, value: Value| joined(state, &[value]));
    env.add_filter("join", |state: &State, list: Value, sign: Option<String>| {
        let mut out = String::new();
        for (place, item) in items(&list)?.enumerate() {
            if place > 0 {
                out.push_str(sign.as_deref().unwrap_or_default());
            }
            let item = printed(&item)?;
            state.consume_fuel(1)?;
            pay(state, item.len())?;
            out.push_str(&item);
        }
        Ok::<_, Error>(out)
    });
    env.add_filter("tojson", |state: &State, value: Value, indent: Option<Value>, options: Kwargs| {
        let indent = match indent {
            Some(indent) => Some(indent),
            None => options.get::<Option<Value>>("indent")?,
        };
        options.assert_all_used()?;
        let json = to_json(&value)?;
        let out = match indent.filter(Value::is_true) {
            Some(_) => serde_json::to_string_pretty(&json).map_err(|e| wrong(e.to_string()))?,
            None => json.to_string(),
        };
        pay(state, out.len())?;
        Ok::<_, Error>(out)
    });
}

fn changed(state: &State, value: &Value, change: impl Fn(&str) -> String) -> Result<String, Error> {
    let text = text(value)?;
    pay(state, text.len())?;
    Ok(change(text))
}

/// Values one after the other, as a template prints them.
fn joined(state: &State, parts: &[Value]) -> Result<String, Error> {
    let mut out = String::new();
    for part in parts {
        let part = printed(part)?;
        pay(state, part.len())?;
        out.push_str(&part);
    }
    Ok(out)
}
