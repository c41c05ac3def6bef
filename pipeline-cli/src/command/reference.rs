//! `pipeline explain --steps` and `--expressions`: the reference pages, from what the steps and the language say themselves.
//!
//! Must not know any step: fields, types and defaults come from each step's own JSON Schema.

use std::fmt::Write as _;

use pipeline_core::expr::{Group, reference};
use pipeline_core::value::Value;

use crate::app::App;
use crate::exit::Failure;
use crate::settings::Mode;

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
        let fields = fields(&schema);
        // Writing into a String cannot fail.
        let _ = write!(page, "\n## {}\n\n{}\n", spec.kind, spec.summary.trim());
        if !fields.is_empty() {
            let _ = write!(page, "\n| field | type | default | what it is |\n|---|---|---|---|\n{fields}");
        }
        let _ = write!(page, "\n```yaml\n{}\n```\n", spec.example.trim_matches('\n').trim_end());
    }
    page.push_str("\n## Control forms and named prompts\n\n| type | what it does |\n|---|---|\n");
    for (kind, about) in super::schema::MORE {
        let _ = writeln!(page, "| `{kind}` | {about} |");
    }
    Ok(page)
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
fn fields(schema: &Value) -> String {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut rows = String::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let default = match field.get("default") {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(default) => code(&default.to_string()),
        };
        let about = field["description"].as_str().or_else(|| target(field, schema)?["description"].as_str());
        let about = about.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = of_type(field, schema).replace('|', "\\|");
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
            fields(&schema),
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
