//! One test for each table of cases, and that no step type and no option is without a case.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::cases::{self, Case};
use super::support::Scratch;

/// A test for each table, so that they run at once and a failure says which.
macro_rules! tables {
    ($($kind:ident $test:ident)*) => {
        const TABLES: &[&str] = &[$(stringify!($kind)),*];
        $(#[test] fn $test() { cases::hold(stringify!($kind)); })*
    };
}

tables! {
    approval approval_as_its_table_says
    break break_as_its_table_says
    checkpoint checkpoint_as_its_table_says
    claude claude_as_its_table_says
    claude_batch claude_batch_as_its_table_says
    claude_extract claude_extract_as_its_table_says
    claude_robust claude_robust_as_its_table_says
    claude_session claude_session_as_its_table_says
    claude_smart claude_smart_as_its_table_says
    codebase_query codebase_query_as_its_table_says
    continue continue_as_its_table_says
    data_transform data_transform_as_its_table_says
    file_ops file_ops_as_its_table_says
    for_loop for_loop_as_its_table_says
    gemini gemini_as_its_table_says
    gemini_instructor gemini_instructor_as_its_table_says
    parallel parallel_as_its_table_says
    parallel_claude parallel_claude_as_its_table_says
    pipeline pipeline_as_its_table_says
    prompt prompt_as_its_table_says
    set_variable set_variable_as_its_table_says
    shell shell_as_its_table_says
    switch switch_as_its_table_says
    test_echo test_echo_as_its_table_says
    tool tool_as_its_table_says
    while_loop while_loop_as_its_table_says
}

/// The program's own schema is walked, so that a new step type, option or choice cannot come without a case.
#[test]
fn every_step_type_and_every_option_has_a_case() {
    let schema = Scratch::new().run(&["schema"]).json();
    let kinds = schema["$defs"]["step"]["properties"]["type"]["anyOf"][0]["oneOf"].as_array().unwrap();
    let kinds: BTreeSet<&str> = kinds.iter().map(|kind| kind["const"].as_str().unwrap()).collect();
    assert_eq!(kinds, TABLES.iter().copied().collect(), "a table for each step type, and no other");
    let mut lacks = Vec::new();
    for kind in kinds {
        let cases = cases::read(kind).cases;
        let gives = |case: &Case| {
            case.expected.error.is_none() && (case.expected.value.is_some() || case.expected.fields.is_some())
        };
        let fails = |case: &Case| case.expected.error.is_some() || case.expected.refused.is_some();
        if !cases.iter().any(gives) {
            lacks.push(format!("{kind}: a case of success with its value"));
        }
        if !cases.iter().any(fails) {
            lacks.push(format!("{kind}: a case of failure with its message"));
        }
        let forms = ["step", "form"].map(|part| schema["$defs"][format!("{part}.{kind}")].clone());
        let Some(form) = forms.iter().find(|form| !form.is_null()) else { continue };
        let mut options = BTreeMap::new();
        walk(&schema, form, "", &mut options);
        for (option, choices) in options {
            let shows = |case: &&Case| case.options.iter().any(|o| is_at(o, &option));
            if !cases.iter().any(|case| shows(&case)) {
                lacks.push(format!("{kind}: a case that shows what `{option}` does"));
            }
            let used = used(&cases, &option);
            let unused = choices.into_iter().filter(|choice| !used.contains(choice));
            lacks.extend(unused.map(|choice| format!("{kind}: a case with `{option}: {choice}`")));
        }
    }
    assert!(lacks.is_empty(), "{} are missing:\n{}", lacks.len(), lacks.join("\n"));
}

/// Options by their path, as [`is_at`] reads it, each with the words that it can be.
fn walk(schema: &Value, form: &Value, path: &str, options: &mut BTreeMap<String, BTreeSet<String>>) {
    let form = resolved(schema, form);
    for (name, option) in form["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let option = resolved(schema, option);
        let choices = option["oneOf"].as_array().into_iter().flatten();
        let choices = choices.filter_map(|c| c["const"].as_str()).map(str::to_owned);
        // The options of a question to a codebase are tested in pipeline-steps/src/codebase_query/tests.rs.
        if path.starts_with("queries.*.") && path.matches('.').count() > 2 {
            continue;
        }
        options.entry(path.clone()).or_default().extend(choices);
        walk(schema, option, &path, options);
    }
    for inner in ["anyOf", "oneOf"].iter().flat_map(|key| form[*key].as_array().into_iter().flatten()) {
        walk(schema, inner, path, options);
    }
    if form["items"].is_object() {
        walk(schema, &form["items"], path, options);
    }
    if form["additionalProperties"].is_object() {
        walk(schema, &form["additionalProperties"], &format!("{path}.*"), options);
    }
}

/// What is meant; nothing where steps stand in a step, which have tables of their own.
fn resolved<'s>(schema: &'s Value, form: &'s Value) -> &'s Value {
    match form["$ref"].as_str() {
        Some("#/$defs/steps" | "#/$defs/step" | "#/$defs/workflow") => &Value::Null,
        Some(place) => schema.pointer(place.trim_start_matches('#')).expect("a place in the schema"),
        None => form,
    }
}

/// Whether a case's path is that of the option: places in lists do not count, `*` is any name.
fn is_at(path: &str, option: &str) -> bool {
    let names: Vec<&str> = path.split('.').map(|name| name.split('[').next().unwrap_or(name)).collect();
    let wanted: Vec<&str> = option.split('.').collect();
    names.len() == wanted.len() && names.iter().zip(&wanted).all(|(n, w)| *w == "*" || n == w)
}

/// What the cases have at an option.
fn used(cases: &[Case], option: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for case in cases {
        gather(&case.step, option, &mut found);
    }
    found
}

fn gather(fields: &Map<String, Value>, option: &str, found: &mut BTreeSet<String>) {
    let (name, rest) = option.split_once('.').map_or((option, None), |(name, rest)| (name, Some(rest)));
    let values = fields.iter().filter(|(key, _)| name == "*" || name == key.as_str()).map(|(_, value)| value);
    for value in values {
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for item in items {
            match (rest, item) {
                (Some(rest), Value::Object(fields)) => gather(fields, rest, found),
                (None, Value::String(word)) => drop(found.insert(word.clone())),
                _ => {}
            }
        }
    }
}
