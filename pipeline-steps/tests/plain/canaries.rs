//! What a model says is data in every field of every step: the fields are found in the steps' own schemas, so that a new
//! one is covered without a line here.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::plain::support::World;

const SECRET: &str = "canary-7731-value";

/// Templates, YAML, JSON, shells and terminals, all in one answer.
const ANSWER: &str = "{{ env.SECRET }} {% include 'x' %} {# c #} ${SECRET} $(touch pwned) `touch pwned` \
                      \n- a: &b [*b]\n\"}; touch pwned; ' \u{1b}[31m {SECRET} previous_response:evil {{steps.evil}}";

/// A configuration with the text in one field, where that is, and how the field is read.
struct Case {
    with: Value,
    at: String,
    kind: String,
}

/// The fields of a schema, each with the least that it needs around it.
struct Fields<'s> {
    root: &'s Value,
}

impl Fields<'_> {
    /// Follows a reference; what is written beside it stays.
    fn resolved(&self, schema: &Value) -> Value {
        let Some(name) = schema["$ref"].as_str() else { return schema.clone() };
        let mut target = self.root.pointer(&name[1..]).expect("it leads somewhere").clone();
        for (key, value) in schema.as_object().expect("a map") {
            target[key] = value.clone();
        }
        target.as_object_mut().expect("a map").remove("$ref");
        self.resolved(&target)
    }

    fn cases(&self, schema: &Value, text: &str, depth: usize) -> Vec<Case> {
        let schema = self.resolved(schema);
        let kind = schema["x-kind"].as_str().unwrap_or_default().to_owned();
        let leaf = |with: Value, at: &str| vec![Case { with, at: at.to_owned(), kind: kind.clone() }];
        if depth > 6 || schema.get("const").is_some() || schema.get("enum").is_some() {
            return Vec::new();
        }
        if !kind.is_empty() && kind != "bindings" {
            return leaf(json!(if kind == "expression" { "steps.evil.text" } else { text }), "");
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(forms) = schema[key].as_array() {
                return forms.iter().flat_map(|form| self.cases(form, text, depth + 1)).collect();
            }
        }
        let is = |name: &str| {
            schema["type"] == name || schema["type"].as_array().is_some_and(|t| t.contains(&json!(name)))
        };
        if let Some(properties) = schema["properties"].as_object() {
            return properties
                .iter()
                .flat_map(|(name, field)| {
                    self.cases(field, text, depth + 1).into_iter().map(move |c| (name, c))
                })
                .map(|(name, case)| {
                    let mut with = self.least(&schema);
                    with[name] = case.with;
                    Case { with, at: format!("/{name}{}", case.at), kind: case.kind }
                })
                .collect();
        }
        if is("array") {
            let inner = schema.get("items").cloned().unwrap_or(json!({"type": "string"}));
            let inner = self.cases(&inner, text, depth + 1).into_iter();
            return inner
                .map(|c| Case { with: json!([c.with]), at: format!("/0{}", c.at), kind: c.kind })
                .collect();
        }
        if is("object") || kind == "bindings" {
            let inner = schema.get("additionalProperties").filter(|s| s.is_object()).cloned();
            let inner = self.cases(&inner.unwrap_or(json!({"type": "string"})), text, depth + 1).into_iter();
            return inner
                .map(|c| Case { with: json!({"k": c.with}), at: format!("/k{}", c.at), kind: c.kind })
                .collect();
        }
        if is("integer") || is("number") || is("boolean") {
            return if is("string") { leaf(json!(text), "") } else { Vec::new() };
        }
        // Text, or anything at all.
        leaf(json!(text), "")
    }

    /// The least that a schema takes.
    fn least(&self, schema: &Value) -> Value {
        let schema = self.resolved(schema);
        if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
            return value.clone();
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(form) = schema[key].get(0) {
                return self.least(form);
            }
        }
        match schema["type"].as_str() {
            Some("object") => {
                let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let all = required.map(|name| (name.to_owned(), self.least(&schema["properties"][name])));
                Value::Object(all.collect::<Map<_, _>>())
            }
            Some("array") => json!([]),
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(false),
            _ => json!("x"),
        }
    }
}

fn world() -> World {
    let mut world = World::new();
    world.answers = vec![json!({"text": ANSWER, "data": {"again": ANSWER}})];
    world.env = BTreeMap::from([("SECRET".to_owned(), SECRET.to_owned())]);
    world.given = Some(Arc::new(Mutex::new(BTreeMap::new())));
    world
}

/// A step, as a file has it.
fn step(name: &str, kind: &str, with: &Value) -> Value {
    let mut step = with.clone();
    step["name"] = json!(name);
    step["type"] = json!(kind);
    step["continue_on_error"] = json!(true);
    step
}

/// A pipeline in which a model answers, and steps use the answer.
fn pipeline(steps: &[Value]) -> String {
    let evil = json!({"name": "evil", "type": "prompt", "provider": "claude", "prompt": "x"});
    let steps: Vec<&Value> = std::iter::once(&evil).chain(steps).collect();
    let permissions = json!({"env": ["SECRET"], "shell": ["*"]});
    json!({"workflow": {"name": "t", "inputs": {}, "permissions": permissions, "steps": steps}}).to_string()
}

/// What a field needs beside it that a schema does not say.
fn neighbours(kind: &str, at: &str, with: &mut Value) {
    if kind == "prompt" {
        if at != "/provider" {
            with["provider"] = json!("claude");
        }
        let prompt = with["prompt"].take();
        with["prompt"] = if prompt.is_null() { json!("x") } else { prompt };
    }
    if kind == "codebase_query" {
        let query = &mut with["queries"];
        if query.get("k").is_none() {
            *query = json!({"k": {"get_project_type": {}}});
        }
        if let Some(asked) = query["k"].get_mut("find_references") {
            let asked = if asked.is_array() { &mut asked[0] } else { asked };
            if asked.is_object() && asked.get("name").is_none() {
                asked["name"] = json!("x");
            }
        }
    }
    if kind == "shell" && !at.starts_with("/command") {
        with["command"] = json!(["true"]);
    }
    if kind != "data_transform" {
        return;
    }
    if at != "/input_source" {
        with["input_source"] = json!("[]");
    }
    let field = at.split('/').nth(3).unwrap_or_default();
    let operation = match field {
        "condition" => json!({"operation": "filter"}),
        "expression" | "mapping" => json!({"operation": "map", "field": "f"}),
        "as" | "group_by" => json!({"operation": "aggregate", "group_by": "g"}),
        "right_source" | "left_field" | "join_key" => {
            json!({"operation": "join", "right_source": "[]", "join_key": "k"})
        }
        "fields" => json!({"operation": "select"}),
        "query" => json!({"operation": "query"}),
        _ => json!({"operation": "sort"}),
    };
    if let Some(written) = with["operations"].get_mut(0).filter(|_| !field.is_empty()) {
        for (key, value) in operation.as_object().expect("a map") {
            if key == "operation" || written.get(key).is_none() {
                written[key] = value.clone();
            }
        }
    }
}

/// Whether a value has this one somewhere inside.
fn has(value: &Value, wanted: &Value) -> bool {
    value == wanted
        || match value {
            Value::Array(items) => items.iter().any(|item| has(item, wanted)),
            Value::Object(fields) => fields.values().any(|field| has(field, wanted)),
            _ => false,
        }
}

/// Parts of prompts as they are written; the schema has them as they are kept.
fn parts(text: &str) -> Vec<(Value, &'static str)> {
    vec![
        (json!([{"type": "static", "content": text}]), "/prompt/0/content"),
        (json!([{"type": "file", "path": "in.md", "variables": {"NAME": text}}]), "/prompt/0/variables/NAME"),
        (json!([{"type": "file", "path": text}]), "/prompt/0/path"),
        (json!([{"type": "previous_response", "step": "evil"}]), "/prompt/0/value/again"),
        (json!([{"type": "previous_response", "step": "evil", "extract": "data.again"}]), ""),
        (json!([{"type": "session_context", "session_name": text}]), "/prompt/0/session"),
        (json!([{"type": "claude_continue", "new_prompt": text}]), "/prompt/0/new_prompt"),
        (json!(text), "/prompt"),
    ]
}

/// Naive: a field is rendered a second time, or put together as text and parsed.
#[tokio::test]
async fn what_a_model_says_is_data_in_every_field_of_every_step() {
    let texts = ["{{ steps.evil.text }}", "a {{ steps.evil.text }} b"];
    let (mut reached, mut refused) = (0, Vec::new());
    for builtin in pipeline_steps::builtin(Arc::default()) {
        let spec = builtin.spec();
        let schema = spec.schema.to_value();
        let fields = Fields { root: &schema };
        let world = world();
        world.file("in.md", "{NAME} {{NAME}}");
        let (mut steps, mut expected) = (Vec::new(), Vec::new());
        // Every field in one of two ways, its neighbour in the other.
        for (turn, text) in texts.into_iter().enumerate() {
            let mut cases = fields.cases(&schema, text, 0);
            if spec.kind == "prompt" {
                cases.retain(|case| !case.at.starts_with("/prompt"));
                cases.extend(parts(text).into_iter().map(|(prompt, at)| {
                    Case {
                        with: json!({"prompt": prompt}),
                        at: at.to_owned(),
                        kind: if at.is_empty() || at.starts_with("/prompt/0/value/") {
                            "expression"
                        } else {
                            ""
                        }
                        .to_owned(),
                    }
                }));
            }
            for mut case in cases.into_iter().skip(turn).step_by(2) {
                neighbours(spec.kind, &case.at, &mut case.with);
                let place = format!("{}{}", spec.kind, case.at);
                let name = format!("u{}", steps.len());
                let one = step(&name, spec.kind, &case.with);
                if world.compile(&pipeline(std::slice::from_ref(&one))).is_err() {
                    refused.push(place);
                    continue;
                }
                steps.push(one);
                let wanted = match case.kind.as_str() {
                    "" | "bindings" if turn == 0 => json!(ANSWER),
                    "" | "bindings" => json!(format!("a {ANSWER} b")),
                    "expression" => json!(ANSWER),
                    _ => continue,
                };
                expected.push((name, place, wanted));
            }
        }
        let report = world.run(&pipeline(&steps)).await;
        let given = world.given.as_ref().unwrap().lock().clone();
        let told = format!("{given:?} {report:?}");
        assert!(!told.contains(SECRET), "something was expanded: {told}");
        assert!(world.tree("").iter().all(|file| !file.ends_with("pwned")), "something was executed");
        for (name, place, wanted) in expected {
            // The compiler may have put it elsewhere; it is whole all the same.
            assert!(
                given.get(&name).is_some_and(|with| has(with, &wanted)),
                "{place}: {:#?}",
                given.get(&name)
            );
            reached += 1;
        }
    }
    refused.sort();
    refused.dedup();
    // Expressions, durations and names of options: text with a template in it is none, and a check says so.
    let mut never = vec![
        "codebase_query/queries/k/get_git_status/0/k",
        "codebase_query/queries/k/get_git_status/k",
        "codebase_query/queries/k/get_project_type/0/k",
        "codebase_query/queries/k/get_project_type/k",
        "data_transform/operations/0/expression",
        "file_ops/max_wait",
        "prompt/extraction",
        "prompt/options/k",
    ];
    never.retain(|place| cfg!(feature = "code") || !place.starts_with("codebase_query"));
    assert_eq!(refused, never, "these fields take no text of a model");
    assert!(reached >= 60, "only {reached} fields were reached");
}
