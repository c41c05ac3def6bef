//! Values that the mock makes for schemas: each is checked against its schema, formats included.

use pipeline_core::provider::{ModelRequest, Provider};
use pipeline_providers::MockProvider;
use serde_json::{Value, json};

use crate::support::{asking, at, rules};

async fn made(schema: &Value, seed: u64) -> Value {
    let mock = MockProvider::new("openai", rules(&format!("seed: {seed}")));
    let request = ModelRequest { output_schema: Some(schema.clone()), ..asking("hi") };
    let answer = mock.complete(&request, &at("a")).await.unwrap_or_else(|e| panic!("{schema}: {e}"));
    serde_json::from_str(&answer.text).unwrap()
}

fn scalars() -> Vec<Value> {
    vec![
        json!(true),
        json!({}),
        json!({"type": "null"}),
        json!({"type": "boolean"}),
        json!({"type": ["null", "integer"]}),
        json!({"const": {"a": [1]}}),
        json!({"enum": [3, "x", null]}),
        json!({"type": "string", "enum": [3, "x"]}),
        json!({"type": "integer", "minimum": -5, "maximum": 5}),
        json!({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 50, "maximum": 60}),
        json!({"type": "integer", "multipleOf": 1.5, "minimum": 1}),
        json!({"type": "integer", "maximum": -10}),
        json!({"type": "number", "minimum": 0, "maximum": 1}),
        json!({"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.2}),
        json!({"type": "number", "multipleOf": 0.01, "minimum": 0.1, "maximum": 0.2}),
        json!({"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 2, "exclusiveMinimum": true}),
        json!({"type": "string", "minLength": 200, "maxLength": 210}),
        json!({"type": "string", "maxLength": 3}),
        json!({"type": "string", "maxLength": 0}),
        json!({"type": "string", "pattern": "^[a-z]+$", "minLength": 20}),
        json!({"type": "string", "pattern": "^[a-z]+-[a-z]+$", "minLength": 11, "maxLength": 11}),
        json!({"type": "string", "pattern": "^\\d{3}-\\d{4}$"}),
        json!({"type": "string", "pattern": "^(?:foo|bar)_[A-Z][^a-z]?\\.\\w+$"}),
        json!({"type": "string", "pattern": "^#([0-9a-fA-F]{6})$"}),
        json!({"type": "string", "pattern": "error"}),
        json!({"type": "integer", "not": {"enum": [1, 2]}}),
    ]
}

fn structures() -> Vec<Value> {
    vec![
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"]}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3}),
        json!({"type": "object", "patternProperties": {"^x_[a-z]{4}$": {"type": "number"}}, "additionalProperties": false, "minProperties": 2}),
        json!({"type": "object", "propertyNames": {"enum": ["p", "q"]}, "minProperties": 2}),
        json!({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2, "required": ["c"]}),
        json!({"properties": {"a": {}}, "dependentRequired": {"a": ["z"]}}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 5}),
        json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
        json!({"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": true}),
        json!({"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 20, "uniqueItems": true}),
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false}),
        json!({"type": "array", "contains": {"const": 9}, "items": {"type": "integer"}, "minContains": 2}),
        json!({"anyOf": [{"type": "null"}, {"type": "string"}]}),
        json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}),
        json!({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]}, {"type": "string"}]}),
        json!({"allOf": [{"properties": {"n": {"type": "number", "minimum": 3}}}, {"properties": {"n": {"type": "integer", "maximum": 4}}, "required": ["n"]}], "type": "object"}),
        json!({"type": "object", "properties": {"kind": {"enum": ["x", "y"]}}, "if": {"properties": {"kind": {"const": "x"}}}, "then": {"required": ["only_x"]}, "else": {"required": ["only_y"]}}),
        json!({"$defs": {"item": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}}, "type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1}),
        json!({"$id": "https://example.com/tree", "type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}}, "required": ["value", "children"]}),
        json!({"$defs": {"list": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}, "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/list"}}, "required": ["next"]}}, "$ref": "#/$defs/node"}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {"type": "integer"}}, "type": "array", "items": [{"$ref": "#/definitions/n"}], "additionalItems": false, "minItems": 1}),
        json!({"type": "string", "examples": ["Paris"]}),
        json!({"type": "integer", "default": 12, "maximum": 10}),
    ]
}

const FORMATS: [&str; 13] = [
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uri-reference",
    "uuid",
    "json-pointer",
    "regex",
];

#[tokio::test]
async fn values_fit_their_schemas_whatever_the_seed() {
    let formats = FORMATS.map(|format| json!({"type": "string", "format": format}));
    for schema in scalars().into_iter().chain(structures()).chain(formats) {
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        for seed in 0..8 {
            let value = made(&schema, seed).await;
            assert!(validator.is_valid(&value), "{value} does not fit {schema}");
        }
    }
}

/// A format that the value merely ignored would pass a validator that ignores it too: the shapes are looked at.
#[tokio::test]
async fn formats_are_not_just_any_text() {
    for format in FORMATS {
        let text = made(&json!({"type": "string", "format": format}), 3).await;
        assert!(!text.as_str().unwrap().starts_with("mock"), "{format}: {text}");
    }
}

#[tokio::test]
async fn choices_are_predictable() {
    let cases = [
        (json!({"enum": ["approve", "reject"]}), json!("approve")),
        (json!({"type": "boolean"}), json!(true)),
        (json!({"type": "integer", "minimum": 1, "maximum": 9}), json!(5)),
        (json!({"type": "number", "minimum": 0, "maximum": 1}), json!(0.5)),
        (json!({"type": "string", "examples": ["Paris"]}), json!("Paris")),
        (json!({"type": ["null", "boolean"]}), json!(true)),
        (json!({"type": "array", "items": {"const": 1}}), json!([1, 1])),
    ];
    for (schema, expected) in cases {
        assert_eq!(made(&schema, 0).await, expected, "{schema}");
    }
}

/// Ten definitions that each refer to all ten have more paths than could be walked.
#[tokio::test]
async fn entangled_references_end() {
    let all: serde_json::Map<String, Value> =
        (0..10).map(|n| (format!("p{n}"), json!({"$ref": format!("#/$defs/d{n}")}))).collect();
    let definitions: serde_json::Map<String, Value> =
        (0..10).map(|n| (format!("d{n}"), json!({"type": "object", "properties": all}))).collect();
    let schema = json!({"$defs": definitions, "$ref": "#/$defs/d0"});
    let value = made(&schema, 0).await;
    assert!(value.is_object());
}

#[tokio::test]
async fn optional_properties_are_filled_at_depth() {
    let mut schema = json!({"type": "integer", "const": 7});
    for _ in 0..5 {
        schema = json!({"type": "object", "properties": {"inner": schema}});
    }
    let value = made(&schema, 0).await;
    assert_eq!(value.pointer("/inner/inner/inner/inner/inner"), Some(&json!(7)), "{value}");
}
