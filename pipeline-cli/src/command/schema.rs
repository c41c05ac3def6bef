//! `pipeline schema`: JSON Schema of the pipeline file, for editors.
//!
//! It helps while writing; what is right is `pipeline check`'s to say. Legacy spellings are accepted there and not
//! listed here.

pub mod forms;

use pipeline_core::value::Value;
use serde_json::{Map, json};

use crate::app::App;
use crate::exit::{Exit, Failure};
use crate::settings::Mode;

/// Types that the compiler knows and the catalog does not: control forms, and spellings of `prompt`.
pub const MORE: [(&str, &str); 17] = [
    ("parallel", "Branches, or a step for each item, at once"),
    ("parallel_claude", "Claude tasks at once"),
    ("claude_batch", "A Claude task for each item of a list"),
    ("for_loop", "Steps for each item of a list"),
    ("while_loop", "Steps as long as a condition holds"),
    ("switch", "One of several lists of steps"),
    ("approval", "A question to a person, whose answer is its value"),
    ("pipeline", "Another pipeline, in a scope of its own"),
    ("break", "Ends the nearest loop"),
    ("continue", "Ends this turn of the nearest loop"),
    ("claude", "A prompt to Claude"),
    ("claude_smart", "A prompt to Claude with a preset"),
    ("claude_session", "A prompt to Claude in a durable conversation"),
    ("claude_extract", "A prompt to Claude, and what to take from its answer"),
    ("claude_robust", "A prompt to Claude with retries and a fallback"),
    ("gemini", "A prompt to Gemini"),
    ("gemini_instructor", "A prompt to Gemini whose answer fits a schema"),
];

/// Prints the schema.
///
/// # Errors
/// [`Failure`] when it cannot be written.
pub fn schema(app: &App) -> Result<Exit, Failure> {
    app.console.out(&text(app)?)?;
    Ok(Exit::Success)
}

/// The schema as a file.
///
/// # Errors
/// [`Failure`] when the program is put together wrongly.
pub fn text(app: &App) -> Result<String, Failure> {
    let kinds = app.kinds(Mode::Mock, None)?;
    let steps: Vec<StepKind> = kinds
        .catalog
        .steps()
        .map(|step| {
            let spec = step.spec();
            StepKind { kind: spec.kind, summary: spec.summary, schema: spec.schema.to_value() }
        })
        .collect();
    Ok(format!("{:#}\n", document(steps)))
}

/// What the schema tells of a step type.
struct StepKind {
    kind: &'static str,
    summary: &'static str,
    schema: Value,
}

fn document(steps: Vec<StepKind>) -> Value {
    let mut kinds: Vec<Value> =
        MORE.iter().map(|(kind, summary)| json!({"const": kind, "description": summary})).collect();
    let mut definitions = Map::new();
    let mut cases = Vec::new();
    for step in steps {
        kinds.push(json!({"const": step.kind, "description": step.summary}));
        let name = format!("step.{}", step.kind);
        cases.push(json!({
            "if": {"properties": {"type": {"const": step.kind}}, "required": ["type"]},
            "then": {"$ref": format!("#/$defs/{name}")},
        }));
        adopt(&name, step.schema, &mut definitions);
        describe(&mut definitions[&name], step.summary);
    }
    for (kind, keys) in forms::forms() {
        let name = format!("form.{kind}");
        cases.push(json!({
            "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
            "then": {"$ref": format!("#/$defs/{name}")},
        }));
        let required: Vec<&str> = keys.iter().filter(|k| k.is_required).map(|k| k.name).collect();
        let properties = forms::properties(&keys);
        let summary = MORE.iter().find(|(form, _)| *form == kind).map_or(kind, |(_, summary)| *summary);
        definitions.insert(
            name,
            json!({"type": "object", "description": summary, "properties": properties, "required": required}),
        );
    }
    // Legacy names of types are accepted, so a name that is not listed is no error here.
    let kind = json!({"anyOf": [{"oneOf": kinds}, {"type": "string"}], "description": "What the step does"});
    let mut properties = step_keys();
    properties.insert("type".to_owned(), kind);
    definitions.insert(
        "steps".to_owned(),
        json!({"type": "array", "description": "Steps, in order", "items": {"$ref": "#/$defs/step"}}),
    );
    definitions.insert(
        "step".to_owned(),
        json!({
            "type": "object",
            "description": "One step: the keys that every step has, and those of its type",
            "required": ["name"],
            "properties": properties,
            "allOf": cases,
        }),
    );
    let workflow = json!({
        "type": "object",
        "description": "A pipeline: what it is given, what it does, what it returns",
        "required": ["name", "steps"],
        "properties": workflow_keys(),
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "schema": "pipeline.schema/1",
        "title": "A pipeline file",
        // A file has the workflow at its top, or under `workflow`.
        "anyOf": [
            {"$ref": "#/$defs/workflow"},
            {"type": "object", "required": ["workflow"],
             "properties": {"workflow": {"$ref": "#/$defs/workflow", "description": "The pipeline"}}},
        ],
        "$defs": with_workflow(definitions, workflow),
    })
}

fn with_workflow(mut definitions: Map<String, Value>, workflow: Value) -> Map<String, Value> {
    definitions.insert("workflow".to_owned(), workflow);
    definitions
}

/// Takes a step's schema in under `name`: its own definitions get names of their own, so that two steps may have one
/// of the same name.
fn adopt(name: &str, mut schema: Value, definitions: &mut Map<String, Value>) {
    rename(&mut schema, name);
    entitle(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        // Keys that every step has stand beside the step's own.
        object.remove("additionalProperties");
        if let Some(Value::Object(own)) = object.remove("$defs") {
            definitions.extend(own.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
        }
    }
    definitions.insert(name.to_owned(), schema);
}

/// Says what a definition is, if it does not say so itself.
fn describe(schema: &mut Value, summary: &str) {
    if let Some(object) = schema.as_object_mut() {
        object.entry("description").or_insert_with(|| summary.into());
    }
}

/// Calls what chooses between alternatives by its value.
fn entitle(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(constant @ Value::String(_)) = fields.get("const").cloned()
                && !fields.contains_key("description")
            {
                fields.insert("title".to_owned(), constant);
            }
            fields.values_mut().for_each(entitle);
        }
        Value::Array(items) => items.iter_mut().for_each(entitle),
        _ => {}
    }
}

/// Points references to a schema's own definitions at their new names.
fn rename(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().and_then(|text| text.strip_prefix("#/$defs/")) {
                    Some(old) if key == "$ref" => *value = Value::from(format!("#/$defs/{name}.{old}")),
                    _ => rename(value, name),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, name)),
        _ => {}
    }
}

/// The keys of a workflow.
fn workflow_keys() -> Map<String, Value> {
    let directory = |what: &str| json!({"type": "string", "description": what});
    let map = |what: &str| json!({"type": "object", "description": what});
    let keys = json!({
        "name": {"type": "string", "description": "The pipeline's name"},
        "description": {"type": "string", "description": "What the pipeline is for"},
        "version": {"type": ["string", "number"], "description": "The pipeline's own version"},
        "inputs": map("Inputs by name: a type with `required`, `default`, `enum`, or a default value"),
        "variables": map("The state that a run begins with"),
        "global_vars": map("Values that children see"),
        "defaults": map("What steps have that do not say otherwise"),
        "environment": map("`mode` and cost alerts"),
        "budget": budget(),
        "permissions": permissions(),
        "providers": map("Backends by name"),
        "tools": {"description": "Tools that steps may call"},
        "mcp_servers": map("MCP servers by name"),
        "agents": map("Agents by name"),
        "hooks": {"description": "Hooks of the Claude agent"},
        "functions": map("Functions that models may call, by name"),
        "workspace_dir": directory("Where steps work"),
        "output_dir": directory("Where output files are written"),
        "checkpoint_dir": directory("Where runs are kept"),
        "steps": {"$ref": "#/$defs/steps", "description": "The steps, in order; as a graph where one has `needs`"},
        "outputs": map("What a run returns: an expression for each name"),
    });
    into_map(keys)
}

/// What a run may do.
fn permissions() -> Value {
    let names =
        |what: &str| json!({"type": ["string", "array"], "items": {"type": "string"}, "description": what});
    json!({
        "type": "object",
        "description": "What the run may read, write, start and reach",
        "properties": {
            "read": names("Directories that may be read, beside those of the run"),
            "write": names("Directories that may be written, beside workspace and output directory"),
            "shell": {
                "type": ["string", "array", "boolean"], "items": {"type": "string"},
                "description": "Programs that may start: a name, the first words of a command, or `*`",
            },
            "network": names("Hosts that tools may reach: a name, `*.name`, or `*`"),
            "env": names("Variables of the environment that expressions may read"),
            "tools": names("The tools that may be called at all: a name, `prefix*`, `mcp__SERVER`, or `*`"),
            "sandbox": {
                "type": "boolean",
                "description": "Programs start in a sandbox or not at all: no network, no home, only directories of the run",
            },
        },
    })
}

/// The keys that every step has.
fn step_keys() -> Map<String, Value> {
    let time = |what: &str| json!({"type": ["string", "number"], "description": what});
    let keys = json!({
        "name": {"type": "string", "description": "Unique among its neighbours"},
        "description": {"type": "string", "description": "What the step is for"},
        "condition": {"description": "The step runs only when this holds"},
        "when": {"description": "The same as `condition`"},
        "needs": {"type": "array", "items": {"type": "string"},
            "description": "Steps that must have ended before; makes its list a graph"},
        "timeout": time("Deadline of one attempt, for example 90s or 5m"),
        "effects": {"enum": ["repeatable", "once"],
            "description": "Whether an attempt that a crash cut off may run again"},
        "workspace": {"enum": ["own", "shared"],
            "description": "Whether the step works in a directory of its own; agents in parallel branches do by default"},
        "retry": {"type": "object", "description": "Whether and when a failed try is made again", "properties": {
            "max_attempts": {"type": "integer", "minimum": 1, "description": "The first try included"},
            "backoff": {"enum": ["fixed", "linear", "exponential"], "description": "How delays grow"},
            "base_delay": time("Delay before the second try"),
            "max_delay": time("No delay is longer"),
            "jitter": {"type": "boolean", "description": "Delays vary a little, so that many do not come back at once"},
            "on": {"type": "array", "items": {"type": "string"}, "description": "Kinds of error"},
        }},
        "continue_on_error": {"type": "boolean", "description": "What follows runs although this step failed"},
        "on_error": {"description": "A value to go on with, or steps to run instead"},
        "output_to_file": {"type": "string", "description": "File below the output directory"},
        "output_schema": {"type": "object", "description": "JSON Schema that the answer must fit"},
        "budget": budget(),
        "cache": {"type": ["boolean", "string", "number"],
            "description": "The answer to the same question is kept for later runs: true, or for how long"},
        "streaming": {"type": "boolean", "description": "Pieces of the answer are shown as they come"},
        "steps": {"$ref": "#/$defs/steps", "description": "The steps inside a control form"},
    });
    into_map(keys)
}

fn budget() -> Value {
    json!({"type": "object", "description": "Limits", "properties": {
        "max_cost_usd": {"type": "number", "minimum": 0, "description": "US dollars"},
        "max_tokens": {"type": "integer", "minimum": 0, "description": "Tokens of all kinds"},
        "max_steps": {"type": "integer", "minimum": 0, "description": "Attempts that may start"},
        "max_duration": {"type": ["string", "number"], "description": "For example 90s or 2h"},
        "max_parallel": {"type": "integer", "minimum": 1, "description": "Attempts in flight at once"},
        "max_memory_mb": {"type": "integer", "minimum": 1,
            "description": "MiB that the process may hold meanwhile; above it the run stops, and can be resumed"},
        "max_open_files": {"type": "integer", "minimum": 1,
            "description": "Files and connections that the process may have open meanwhile"},
        "max_processes": {"type": "integer", "minimum": 0,
            "description": "Processes that may live meanwhile of those that steps started, and theirs"},
        "min_free_disk_mb": {"type": "integer", "minimum": 1,
            "description": "MiB that must stay free where runs and results are written"},
        "on_unknown": {"enum": ["warn", "stop"],
            "description": "What happens where the system does not tell how much it is"},
    }})
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn example() -> Value {
        let schema = |name: &str| {
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "additionalProperties": false,
                "properties": {"mode": {"$ref": "#/$defs/Mode"}},
                "$defs": {"Mode": {"enum": [name]}},
            })
        };
        document(vec![
            StepKind { kind: "one", summary: "First", schema: schema("x") },
            StepKind { kind: "two", summary: "Second", schema: schema("y") },
        ])
    }

    /// Every reference in a schema.
    fn references<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
        match schema {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    /// Properties without a description, by where they are.
    fn untold(schema: &Value, place: &str, document: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                for (name, property) in
                    fields.get("properties").and_then(Value::as_object).into_iter().flatten()
                {
                    let told = |s: &Value| is_told(s) || s["const"].is_string() && s["title"] == s["const"];
                    let target =
                        property["$ref"].as_str().and_then(|r| document.pointer(r.strip_prefix('#')?));
                    if !told(property) && !target.is_some_and(told) {
                        found.push(format!("{place}/{name}"));
                    }
                }
                // A condition asks, and tells nothing.
                for (key, value) in
                    fields.iter().filter(|(key, _)| !["examples", "if"].contains(&key.as_str()))
                {
                    untold(value, &format!("{place}/{key}"), document, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| untold(item, place, document, found)),
            _ => {}
        }
    }

    fn is_told(schema: &Value) -> bool {
        schema["description"].as_str().is_some_and(|text| text.len() > 3)
    }

    #[test]
    fn every_property_and_definition_says_what_it_is() {
        let document = example();
        let mut found = Vec::new();
        for part in ["/anyOf", "/$defs/step", "/$defs/workflow"] {
            untold(document.pointer(part).unwrap(), part, &document, &mut found);
        }
        for (kind, _) in forms::forms() {
            untold(&document["$defs"][format!("form.{kind}")], kind, &document, &mut found);
        }
        // The whole of it, with the fields of every step: `cargo xtask codegen` keeps this file as the program prints it.
        let whole = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/schema.json");
        let whole: Value = serde_json::from_str(&std::fs::read_to_string(whole).unwrap()).unwrap();
        untold(&whole, "", &whole, &mut found);
        let definitions = whole["$defs"].as_object().unwrap();
        found.extend(definitions.iter().filter(|(_, schema)| !is_told(schema)).map(|(name, _)| name.clone()));
        assert_eq!(found, Vec::<String>::new(), "these have no description");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = example();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 6);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn definitions_of_two_steps_do_not_meet() {
        let definitions = &example()["$defs"];
        assert_eq!(definitions["step.one.Mode"], json!({"enum": ["x"]}));
        assert_eq!(definitions["step.two.Mode"], json!({"enum": ["y"]}));
        assert_eq!(definitions["step.two"]["properties"]["mode"]["$ref"], "#/$defs/step.two.Mode");
        assert_eq!(definitions["step.one"].get("additionalProperties"), None);
    }
}
