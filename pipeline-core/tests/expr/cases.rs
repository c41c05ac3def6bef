//! The language by its cases: `cases.yaml` beside this file.

use pipeline_core::clock::Timestamp;
use pipeline_core::diagnostic::FileId;
use pipeline_core::document::{Limits, Node, parse};
use pipeline_core::expr::{Expr, ExprError, Names, Template, reference};
use pipeline_core::source::{LoadedSource, SourceMap};
use pipeline_core::value::{Data, Value};

/// The names of the cases.
pub(crate) struct Context(Value);

impl Context {
    /// That of `cases.yaml`.
    pub(crate) fn of_cases() -> Self {
        Self(table().get("context").unwrap().to_json())
    }
}

impl Names for Context {
    fn get(&self, root: &str, field: Option<&str>) -> Option<Data> {
        let value = self.0.get(root)?;
        let value = match field {
            Some(field) => value.get(field)?,
            None => value,
        };
        let is_step = root == "steps" && field.is_some();
        Some(if is_step { Data::of_step(value.clone()) } else { Data::new(value.clone()) })
    }

    fn now(&self) -> Timestamp {
        Timestamp(1_704_153_600_000)
    }
}

/// The table, read by the parser of pipeline files.
pub(crate) fn table() -> Node {
    let text = include_str!("cases.yaml").to_owned();
    let mut sources = SourceMap::default();
    let name = "cases.yaml".to_owned();
    let file: FileId = sources.add(LoadedSource { display: name.clone(), canonical: name, text });
    parse(&sources, file, &Limits::default()).unwrap().0
}

fn rows(key: &str) -> Vec<Vec<Value>> {
    let table = table();
    let rows = table.get(key).unwrap().items().iter();
    rows.map(|r| r.to_json().as_array().unwrap().clone()).collect()
}

fn evaluate(text: &str, names: &Context) -> Result<Value, ExprError> {
    Expr::compile(text, &["my-step"])?.eval(names)
}

fn render(text: &str, names: &Context) -> Result<Value, ExprError> {
    Template::compile(text, &["my-step"])?.render(names)
}

type Run = fn(&str, &Context) -> Result<Value, ExprError>;

fn answers(key: &str, run: Run, least: usize) {
    let names = Context::of_cases();
    let rows = rows(key);
    let mut wrong = Vec::new();
    for row in &rows {
        let text = row[0].as_str().unwrap();
        match run(text, &names) {
            // Numbers of the same value but not the same kind differ: `2` is not `2.0`.
            Ok(value) if value == row[1] => {}
            Ok(value) => wrong.push(format!("{text}: is {value}, expected {}", row[1])),
            Err(error) => wrong.push(format!("{text}: {error} at {:?}, expected {}", error.range, row[1])),
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() >= least, "only {} cases under {key}", rows.len());
}

fn refusals(key: &str, run: Run, least: usize) {
    let names = Context::of_cases();
    let rows = rows(key);
    let mut wrong = Vec::new();
    for row in &rows {
        let text = row[0].as_str().unwrap();
        match run(text, &names) {
            Ok(value) => wrong.push(format!("{text}: is {value}, expected an error")),
            Err(error) => {
                let marked = error.range.clone().and_then(|r| text.get(r));
                let says = row[1].as_str().is_some_and(|part| error.message.contains(part));
                if !says || error.message.is_empty() || row[2].as_str().is_some_and(|m| marked != Some(m)) {
                    wrong.push(format!("{text}: {error} at {marked:?}, expected {} at {}", row[1], row[2]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() >= least, "only {} cases under {key}", rows.len());
}

#[test]
fn every_case_gives_its_value() {
    answers("cases", evaluate, 300);
}

#[test]
fn every_template_gives_its_text() {
    answers("templates", render, 30);
}

#[test]
fn every_refused_case_says_why_and_where() {
    refusals("refused", evaluate, 60);
}

#[test]
fn every_refused_template_says_why_and_where() {
    refusals("refused_templates", render, 10);
}

#[test]
fn every_example_of_the_reference_gives_what_it_says() {
    let names = Context::of_cases();
    let mut wrong = Vec::new();
    for entry in reference() {
        let (text, expected) = entry.example;
        let expected: Value = serde_json::from_str(expected).unwrap();
        match evaluate(text, &names) {
            Ok(value) if value == expected => {}
            other => wrong.push(format!("{}: `{text}` is {other:?}, expected {expected}", entry.signature)),
        }
        if !entry.names.is_empty() && !entry.names.iter().any(|name| text.contains(name)) {
            wrong.push(format!("{}: the example does not use it", entry.signature));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A plain path is taken as it is; in brackets it goes through the engine. They mean the same, and fail the same.
#[test]
fn a_plain_path_means_what_it_means_in_brackets() {
    let context = Context(serde_json::json!({
        "inputs": {"n": null, "deep": {"a": {"b": [1, {"c": 2.0}], "items": 1}}, "big": 18_446_744_073_709_551_615_u64},
        "steps": {
            "one": {"text": "t", "data": {"x": 1, "text": "other"}, "usage": {"input": 3}},
            "calls": {"function_calls": [{"arguments": {"y": 2}}], "results": {"z": 3}},
        },
        "bare": {"k": [true]},
    }));
    let paths = [
        "inputs.n",
        "inputs.n.x",
        "inputs.deep",
        "inputs.deep.a",
        "inputs.deep.a.b",
        "inputs.deep.a.items",
        "inputs.deep.a.b.length",
        "inputs.big",
        "inputs.none",
        "inputs",
        "inputs.deep.none.x",
        "steps.one",
        "steps.one.text",
        "steps.one.result",
        "steps.one.x",
        "steps.one.content",
        "steps.one.usage.input",
        "steps.one.data.text",
        "steps.calls.y",
        "steps.calls.z",
        "steps.calls.nothing",
        "steps.gone",
        "steps.gone.x",
        "bare",
        "bare.k",
        "bare.none",
        "nothing",
        " bare.k ",
    ];
    let read = |text: &str| Expr::compile(text, &[]).unwrap().eval(&context).map_err(|e| e.message);
    for path in paths {
        assert_eq!(read(path), read(&format!("({path})")), "{path}");
    }
}
