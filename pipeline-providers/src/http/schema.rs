//! Schemas in the part of JSON Schema that services can bind an answer to.
//!
//! Owns [`bound`]: what a service enforces may be wider than what was asked for, never narrower in a way that would make
//! right answers wrong; the answer is checked in full afterwards anyway. Must not know vendors.

use serde_json::{Map, Value, json};

/// Words that bind values in ways services do not enforce; the full check comes after the answer.
const UNENFORCED: [&str; 16] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "$schema",
    "$id",
    "default",
];

/// Words that are understood by those who bind answers; with any other the schema is told in words.
const UNDERSTOOD: [&str; 15] = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "anyOf",
    "$ref",
    "$defs",
    "definitions",
    "description",
    "title",
    "format",
    "additionalProperties",
    "examples",
];

/// The schema with every object closed and without what is not enforced; `None` when it cannot be bound that way: a map
/// of any keys, a word that is not understood, a root that is no object.
pub(crate) fn bound(schema: &Value) -> Option<Value> {
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return None;
    }
    closed(schema)
}

/// Whether every property of every object is required, which strict services ask for.
pub(crate) fn is_strict(schema: &Value) -> bool {
    let own = match (
        schema.get("properties").and_then(Value::as_object),
        schema.get("required").and_then(Value::as_array),
    ) {
        (Some(properties), Some(required)) => {
            properties.keys().all(|k| required.iter().any(|r| r == k.as_str()))
        }
        (Some(properties), None) => properties.is_empty(),
        (None, _) => true,
    };
    own && match schema {
        Value::Object(fields) => fields.values().all(is_strict),
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

fn closed(schema: &Value) -> Option<Value> {
    let Value::Object(fields) = schema else { return None };
    let mut made = Map::new();
    for (key, value) in fields {
        let value = match key.as_str() {
            key if UNENFORCED.contains(&key) => continue,
            key if !UNDERSTOOD.contains(&key) => return None,
            "properties" | "$defs" | "definitions" => {
                let each =
                    value.as_object()?.iter().map(|(name, schema)| Some((name.clone(), closed(schema)?)));
                Value::Object(each.collect::<Option<Map<_, _>>>()?)
            }
            "items" => closed(value)?,
            "anyOf" => Value::Array(value.as_array()?.iter().map(closed).collect::<Option<_>>()?),
            // A map of any keys cannot be closed.
            "additionalProperties" if *value != Value::Bool(false) => return None,
            _ => value.clone(),
        };
        made.insert(key.clone(), value);
    }
    if made.contains_key("properties") {
        made.insert("additionalProperties".to_owned(), json!(false));
    } else if made.get("type").is_some_and(|t| t == "object") {
        return None;
    }
    Some(Value::Object(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_and_what_is_not_enforced_is_left_to_the_check() {
        let schema = json!({"type": "object", "required": ["n"], "properties": {
            "n": {"type": "integer", "minimum": 1},
            "list": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        }});
        let expected = json!({"type": "object", "required": ["n"], "properties": {
            "n": {"type": "integer"},
            "list": {"type": "array", "items":
                {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false}},
        }, "additionalProperties": false});
        assert_eq!(bound(&schema), Some(expected));
        assert!(!is_strict(&schema));
        assert!(is_strict(&json!({"type": "object", "properties": {"a": {}}, "required": ["a"]})));
    }

    #[test]
    fn what_cannot_be_closed_is_told_in_words() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "object", "properties": {"a": {"type": "object"}}}),
            json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}),
            json!(true),
        ] {
            assert_eq!(bound(&schema), None, "{schema}");
        }
    }
}
