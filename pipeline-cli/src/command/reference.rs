//! `pipeline explain --steps` and `--expressions`: the reference pages, from what the steps and the language say themselves.
//!
//! Must not know any step: fields, types and defaults come from each step's own JSON Schema.

use std::fmt::Write as _;

use pipeline_core::expr::{Group, reference};
use pipeline_core::value::Value;

use crate::app::App;
use crate::exit::Failure;
use crate::settings::Mode;

/// Step types with an example in a file of its own, beside the one on the page: type and file below `examples/`.
const EXAMPLES: [(&str, &str); 23] = [
    ("approval", "approval"),
    ("break", "loop-break"),
    ("checkpoint", "checkpoint"),
    ("claude", "review"),
    ("claude_batch", "batch"),
    ("claude_extract", "prompt-extract"),
    ("claude_robust", "prompt-robust"),
    ("claude_session", "prompt-session"),
    ("claude_smart", "prompt-smart"),
    ("codebase_query", "codebase"),
    ("continue", "loop-break"),
    ("data_transform", "data"),
    ("file_ops", "files"),
    ("for_loop", "loop-accumulate"),
    ("gemini", "prompt-functions"),
    ("gemini_instructor", "prompt-instructor"),
    ("parallel", "parallel"),
    ("parallel_claude", "parallel-claude"),
    ("pipeline", "child"),
    ("prompt", "prompt"),
    ("set_variable", "variables"),
    ("switch", "switch"),
    ("while_loop", "loop-while"),
];

/// More of them, whose files have the names of their types.
const SAME_NAME: [&str; 2] = ["shell", "tool"];

/// The example of a step type, as a link.
fn example_of(kind: &str) -> String {
    let own = SAME_NAME.iter().find(|name| **name == kind).copied();
    let file = own.or_else(|| EXAMPLES.iter().find(|(k, _)| *k == kind).map(|(_, file)| *file));
    let file = file.or((kind == "test_echo").then_some("echo"));
    file.map(|f| format!("Example: [examples/{f}.yaml](../../examples/{f}.yaml).")).unwrap_or_default()
}

/// Every step type: what it does, its fields, an example.
///
/// # Errors
/// [`Failure`] when the program is put together wrongly.
pub fn steps(app: &App) -> Result<String, Failure> {
    let mut page =
        "# Steps\n\nKeys that every step has (`name`, `condition`, `needs`, `timeout`, `retry`, …) are in \
                    [schema.json](schema.json) under `step`.\n"
            .to_owned();
    for step in app.kinds(Mode::Mock, None)?.catalog.steps() {
        let spec = step.spec();
        let schema = spec.schema.to_value();
        // Writing into a String cannot fail.
        let _ = write!(page, "\n## {}\n\n{}\n", spec.kind, spec.summary.trim());
        table(&mut page, &schema, &schema);
        for (place, inner) in nested(&schema) {
            let about = inner["description"].as_str().unwrap_or_default();
            let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = write!(page, "\n`{place}`: {about}\n");
            table(&mut page, &inner, &schema);
        }
        let _ = write!(page, "\n```yaml\n{}\n```\n", spec.example.trim_matches('\n').trim_end());
        let _ = write!(page, "\n{}\n", example_of(spec.kind));
    }
    page.push_str("\n# Control forms\n");
    for (kind, keys) in super::schema::forms::forms() {
        let about = super::schema::MORE.iter().find(|(k, _)| *k == kind).map_or("", |(_, about)| *about);
        let _ = write!(page, "\n## {kind}\n\n{about}.\n");
        if !keys.is_empty() {
            page.push_str(HEAD);
        }
        for key in keys {
            let need = if key.is_required { "required" } else { "" };
            let _ = writeln!(page, "| `{}` | {} | {need} | {} |", key.name, key.form.name(), key.about);
        }
        let _ = write!(page, "\n{}\n", example_of(kind));
    }
    page.push_str("\n# Named prompts\n\nOptions of `prompt` under names of their own.\n\n| type | what it does | example |\n|---|---|---|\n");
    let forms = super::schema::forms::forms();
    for (kind, about) in super::schema::MORE.iter().filter(|(kind, _)| forms.iter().all(|(k, _)| k != kind)) {
        let _ = writeln!(
            page,
            "| `{kind}` | {about} | {} |",
            example_of(kind).trim_start_matches("Example: ").trim_end_matches('.')
        );
    }
    Ok(page)
}

const HEAD: &str = "\n| field | type | default | what it is |\n|---|---|---|---|\n";

/// The table of a schema's fields, if it has any. References are followed in `whole`.
fn table(page: &mut String, schema: &Value, whole: &Value) {
    let rows = fields(schema, whole);
    if !rows.is_empty() {
        page.push_str(HEAD);
        page.push_str(&rows);
    }
}

/// Maps with fields of their own inside a schema, each once, with the place where it is first met.
fn nested(schema: &Value) -> Vec<(String, Value)> {
    let (mut found, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
    let mut open: Vec<(String, Value)> = members(schema, "");
    open.reverse();
    while let Some((place, field)) = open.pop() {
        let mut inner: Vec<(String, Value)> = Vec::new();
        match field["$ref"].as_str() {
            Some(name) if !seen.insert(name.to_owned()) => continue,
            Some(_) => inner.extend(target(&field, schema).map(|to| (place, to.clone()))),
            None => {
                for key in ["anyOf", "oneOf", "allOf"] {
                    let forms = field[key].as_array().into_iter().flatten();
                    inner.extend(forms.map(|form| (place.clone(), form.clone())));
                }
                if field["items"].is_object() {
                    inner.push((format!("{place}[]"), field["items"].clone()));
                }
                if field["additionalProperties"].is_object() {
                    inner.push((format!("{place}.NAME"), field["additionalProperties"].clone()));
                }
                inner.extend(members(&field, &format!("{place}.")));
                if field["properties"].as_object().is_some_and(|all| !all.is_empty()) {
                    let form = field["properties"]["type"]["const"].as_str();
                    let form = form.map(|word| format!(" ({word})")).unwrap_or_default();
                    found.push((format!("{place}{form}"), field));
                }
            }
        }
        open.extend(inner.into_iter().rev());
    }
    found
}

/// The fields of a map, with their places.
fn members(schema: &Value, prefix: &str) -> Vec<(String, Value)> {
    let all = schema["properties"].as_object().into_iter().flatten();
    all.map(|(name, field)| (format!("{prefix}{name}"), field.clone())).collect()
}

/// Every word of the expression language, with an example and what it gives.
pub fn expressions() -> String {
    let groups = [
        (Group::Operator, "Operators and values"),
        (Group::Word, "Words"),
        (Group::Function, "Functions"),
        (Group::Filter, "Filters"),
        (Group::Test, "Tests"),
    ];
    let mut page = "# Expressions\n\nWhat stands between `{{` and `}}`, in conditions, filters and data sources. A test \
                    evaluates every example.\n"
        .to_owned();
    for (group, title) in groups {
        let _ = write!(page, "\n## {title}\n\n| written | meaning | example | gives |\n|---|---|---|---|\n");
        for entry in reference().iter().filter(|entry| entry.group == group) {
            let signature = if entry.signature.contains('`') {
                entry.signature.replace('|', "\\|")
            } else {
                code(entry.signature)
            };
            let meaning = entry.meaning.replace('|', "\\|");
            let (example, value) = entry.example;
            let _ = writeln!(page, "| {signature} | {meaning} | {} | {} |", code(example), code(value));
        }
    }
    page
}

/// Text as code inside a cell of a table.
fn code(text: &str) -> String {
    let fence = if text.contains('`') { "``" } else { "`" };
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{}{space}{fence}", text.replace('|', "\\|").replace('\n', " "))
}

/// One row of the table for each field.
fn fields(schema: &Value, whole: &Value) -> String {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut rows = String::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let default = match field.get("default") {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(default) => code(&default.to_string()),
        };
        let about = field["description"].as_str().or_else(|| target(field, whole)?["description"].as_str());
        let about = about.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = of_type(field, whole).replace('|', "\\|");
        let _ = writeln!(rows, "| `{name}` | {shown} | {default} | {} |", about.replace('|', "\\|"));
    }
    rows
}

/// What a reference leads to.
fn target<'a>(field: &Value, schema: &'a Value) -> Option<&'a Value> {
    schema.pointer(field["$ref"].as_str()?.strip_prefix('#')?)
}

/// The type of a field, in words.
fn of_type(field: &Value, schema: &Value) -> String {
    if let Some(kind) = field["x-kind"].as_str().filter(|kind| *kind != "raw") {
        return kind.to_owned();
    }
    if let Some(value) = field.get("const") {
        return code(&plain(value));
    }
    if let Some(values) = field["enum"].as_array() {
        return values.iter().map(|value| code(&plain(value))).collect::<Vec<_>>().join(", ");
    }
    if let Some(inner) = target(field, schema) {
        // A definition may lead to itself; one step is enough to know what it is.
        return if inner["properties"].is_object() { "map".to_owned() } else { of_type(inner, &Value::Null) };
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(forms) = field[key].as_array() {
            let mut all: Vec<String> = forms.iter().map(|form| of_type(form, schema)).collect();
            all.retain(|form| form != "null");
            all.dedup();
            return all.join(", ");
        }
    }
    let names = match &field["type"] {
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        Value::String(name) => vec![name.as_str()],
        _ => return "any".to_owned(),
    };
    let names: Vec<String> = names.into_iter().map(|name| named(name, field, schema)).collect();
    names.join(", ")
}

fn named(name: &str, field: &Value, schema: &Value) -> String {
    match name {
        "array" if field["items"].is_object() => format!("list of {}", of_type(&field["items"], schema)),
        "array" => "list".to_owned(),
        "object" => "map".to_owned(),
        "string" => "text".to_owned(),
        other => other.to_owned(),
    }
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_a_row_with_type_default_and_text() {
        let schema = json!({
            "required": ["path"],
            "properties": {
                "path": {"type": "string", "description": "Where\nit is | was"},
                "many": {"type": ["array", "null"], "items": {"$ref": "#/$defs/Mode"}, "default": null},
                "n": {"type": "integer", "default": 3},
                "when": {"x-kind": "condition"},
            },
            "$defs": {"Mode": {"enum": ["a", "b"]}},
        });
        assert_eq!(
            fields(&schema, &schema),
            "| `path` | text | required | Where it is \\| was |\n| `many` | list of `a`, `b` |  |  |\n\
             | `n` | integer | `3` |  |\n| `when` | condition |  |  |\n"
        );
    }

    #[test]
    fn every_entry_of_the_language_is_on_the_page() {
        let page = expressions();
        assert_eq!(
            page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| written")).count(),
            reference().len()
        );
    }
}
