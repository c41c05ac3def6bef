//! One schema for two that hold together.
//!
//! Owns the rule for each keyword. Where two cannot be put into one, the second wins; the finished value is checked
//! against the whole schema anyway. Must not know how values are made.

use serde_json::{Map, Value, json};

use crate::mock::instance::Keywords;

/// The keywords of `first` and `second` together.
pub(super) fn merge(first: &Keywords, second: &Keywords) -> Keywords {
    let mut merged = first.clone();
    for (key, new) in second {
        let value = match merged.get(key) {
            Some(old) if old != new => together(key, old, new),
            _ => new.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

fn together(key: &str, old: &Value, new: &Value) -> Value {
    match (key, old, new) {
        (
            "properties" | "patternProperties" | "dependentRequired",
            Value::Object(old),
            Value::Object(new),
        ) => Value::Object(named(key, old, new)),
        ("required" | "allOf", Value::Array(old), Value::Array(new)) => {
            let added = new.iter().filter(|n| key == "allOf" || !old.contains(n));
            Value::Array(old.iter().chain(added).cloned().collect())
        }
        ("enum", Value::Array(old), Value::Array(new)) => {
            Value::Array(old.iter().filter(|o| new.contains(o)).cloned().collect())
        }
        ("type", old, new) => common_types(old, new),
        ("items" | "additionalProperties" | "contains" | "propertyNames", old, new)
            if !old.is_array() && !new.is_array() =>
        {
            json!({ "allOf": [old, new] })
        }
        (
            "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties" | "minContains",
            Value::Number(old),
            Value::Number(new),
        ) => Value::Number(if old.as_f64() > new.as_f64() { old.clone() } else { new.clone() }),
        (
            "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties",
            Value::Number(old),
            Value::Number(new),
        ) => Value::Number(if old.as_f64() < new.as_f64() { old.clone() } else { new.clone() }),
        (_, _, new) => new.clone(),
    }
}

fn named(key: &str, old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut all = old.clone();
    for (name, schema) in new {
        let both = match all.get(name) {
            Some(before) if before != schema && key != "dependentRequired" => {
                json!({ "allOf": [before, schema] })
            }
            _ => schema.clone(),
        };
        all.insert(name.clone(), both);
    }
    all
}

/// The types that both lists allow; every integer is a number.
fn common_types(old: &Value, new: &Value) -> Value {
    let list = |types: &Value| match types {
        Value::Array(several) => several.clone(),
        one => vec![one.clone()],
    };
    let (old, new) = (list(old), list(new));
    let allows = |types: &[Value], kind: &Value| {
        types.contains(kind) || (kind == "integer" && types.contains(&Value::from("number")))
    };
    let mut common: Vec<Value> = old.iter().filter(|kind| allows(&new, kind)).cloned().collect();
    common.extend(new.iter().filter(|kind| allows(&old, kind) && !old.contains(kind)).cloned());
    Value::Array(common)
}
