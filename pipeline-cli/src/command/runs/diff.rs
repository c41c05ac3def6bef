//! `pipeline runs diff A B`: what two runs have different.
//!
//! Owns `pipeline.diff/1`. Like `diff`, it gives 0 when nothing differs and 1 when something does.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use pipeline_core::fact::{Fact, Status};
use pipeline_core::store::StoredRun;
use pipeline_core::value::{Data, Hash, Value};
use serde_json::json;

use super::Place;
use crate::args::Diff;
use crate::console::{CYAN, GREEN, RED, paint, short};
use crate::exit::{Exit, Failure};
use crate::figures::Figures;
use crate::report;

/// Most differences of one value that are told.
const MOST: usize = 20;

/// One place in which two values differ; `None` = it is not there.
#[derive(Debug, PartialEq)]
struct Change {
    at: String,
    left: Option<Value>,
    right: Option<Value>,
}

/// How a step instance came out.
struct Came {
    status: Status,
    value: Data,
    fingerprint: Hash,
}

/// Prints the differences.
///
/// # Errors
/// [`Failure`] when a run cannot be read.
pub(super) async fn diff(place: &Place<'_>, args: &Diff) -> Result<Exit, Failure> {
    let (left, right) = (place.read(Some(&args.left)).await?, place.read(Some(&args.right)).await?);
    let found = Found::between(&left, &right);
    let is_same = found.is_empty();
    place.app.console.out(&if place.app.settings.json {
        format!("{:#}\n", found.json(&left, &right))
    } else {
        found.text(&left, &right)
    })?;
    if is_same {
        place.app.console.note("the two runs came out the same");
    }
    Ok(if is_same { Exit::Success } else { Exit::Failed })
}

struct Found {
    inputs: Vec<Change>,
    sources: Vec<String>,
    /// Path, words of how each came out, whether the same was asked, changes of the value.
    steps: Vec<(String, [&'static str; 2], bool, Vec<Change>)>,
    outputs: Vec<Change>,
}

impl Found {
    fn between(left: &StoredRun, right: &StoredRun) -> Self {
        let (a, b) = (came(left), came(right));
        let mut steps = Vec::new();
        let later = b.keys().filter(|path| !a.contains_key(*path));
        for path in a.keys().chain(later) {
            let (one, other) = (a.get(path), b.get(path));
            let word = |came: Option<&Came>| came.map_or("not run", |c| c.status.name());
            let value = |came: Option<&Came>| came.map_or(Value::Null, |c| c.value.json().clone());
            let changes = differences(&value(one), &value(other));
            let is_same_request = match (one, other) {
                (Some(one), Some(other)) => one.fingerprint == other.fingerprint,
                _ => true,
            };
            if word(one) != word(other) || !changes.is_empty() || !is_same_request {
                steps.push((path.clone(), [word(one), word(other)], is_same_request, changes));
            }
        }
        Self {
            inputs: differences(inputs(left).json(), inputs(right).json()),
            sources: sources(left, right),
            steps,
            outputs: differences(&outputs(left), &outputs(right)),
        }
    }

    fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.sources.is_empty() && self.steps.is_empty() && self.outputs.is_empty()
    }

    fn json(&self, left: &StoredRun, right: &StoredRun) -> Value {
        let changes = |list: &[Change]| -> Vec<Value> {
            list.iter().map(|c| json!({"at": c.at, "left": c.left, "right": c.right})).collect()
        };
        let step = |(path, words, same, list): &(String, [&str; 2], bool, Vec<Change>)| json!({"path": path, "left": words[0], "right": words[1], "same_request": same, "value": changes(list)});
        let side = |run: &StoredRun| {
            let figures = Figures::of(&run.records);
            json!({"run_id": run.manifest.run_id, "elapsed_ms": figures.elapsed_ms, "usage": report::json::usage(&figures.usage)})
        };
        json!({
            "schema": "pipeline.diff/1",
            "left": side(left),
            "right": side(right),
            "inputs": changes(&self.inputs),
            "sources": self.sources,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "outputs": changes(&self.outputs),
        })
    }

    fn text(&self, left: &StoredRun, right: &StoredRun) -> String {
        let mut out = String::new();
        let mut section = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                out.push_str(&format!("{}\n{}", paint(CYAN, title), lines.concat()));
            }
        };
        section("inputs", lines(&self.inputs, "  "));
        section(
            "sources",
            self.sources.iter().map(|name| format!("  {} differs\n", short(name, 200))).collect(),
        );
        let mut steps = Vec::new();
        for (path, [one, other], same, changes) in &self.steps {
            let words = if one == other { (*one).to_owned() } else { format!("{one} → {other}") };
            let asked = if *same { "" } else { ", asked for something else" };
            steps.push(format!("  {}: {words}{asked}\n", short(path, 200)));
            steps.extend(lines(changes, "    "));
        }
        section("steps", steps);
        section("outputs", lines(&self.outputs, "  "));
        let (a, b) = (Figures::of(&left.records), Figures::of(&right.records));
        let line = |figures: &Figures| {
            let used = report::usage(&figures.usage).map_or_else(String::new, |used| format!(", {used}"));
            format!("{}{used}", report::time(figures.elapsed_ms))
        };
        section(
            "figures",
            vec![format!(
                "  {}\n  {}\n",
                paint(RED, format!("- {}", line(&a))),
                paint(GREEN, format!("+ {}", line(&b)))
            )],
        );
        out
    }
}

fn lines(changes: &[Change], indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for change in changes.iter().take(MOST) {
        let at = if change.at.is_empty() { String::new() } else { format!("{}: ", short(&change.at, 100)) };
        let mut side = |sign: &str, style, value: &Option<Value>| {
            if let Some(value) = value {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                lines
                    .push(format!("{indent}{}\n", paint(style, format!("{sign} {at}{}", short(&text, 300)))));
            }
        };
        side("-", RED, &change.left);
        side("+", GREEN, &change.right);
    }
    if changes.len() > MOST {
        lines.push(format!("{indent}… and {} more\n", changes.len() - MOST));
    }
    lines
}

/// How every step instance came out last.
fn came(run: &StoredRun) -> IndexMap<String, Came> {
    let mut all = IndexMap::new();
    for record in &run.records {
        match &record.fact {
            Fact::AttemptEnded { path, end, fingerprint, .. } => {
                let came = Came { status: end.status, value: end.value.clone(), fingerprint: *fingerprint };
                all.insert(path.as_str().to_owned(), came);
            }
            Fact::StepSkipped { path, .. } => {
                let fingerprint = Hash::of_bytes(b"");
                let came = Came { status: Status::Skipped, value: Data::null(), fingerprint };
                all.insert(path.as_str().to_owned(), came);
            }
            _ => {}
        }
    }
    all
}

fn inputs(run: &StoredRun) -> Data {
    run.manifest.inputs.clone().into_iter().collect()
}

fn outputs(run: &StoredRun) -> Value {
    match run.records.last().map(|r| &r.fact) {
        Some(Fact::RunEnded { outputs, .. }) => outputs.json().clone(),
        _ => Value::Null,
    }
}

/// Names of the source files that are not the same.
fn sources(left: &StoredRun, right: &StoredRun) -> Vec<String> {
    let of = |run: &StoredRun| -> BTreeMap<String, String> { run.sources.files.values().cloned().collect() };
    let (a, b) = (of(left), of(right));
    let mut names: Vec<String> =
        a.keys().chain(b.keys()).filter(|n| a.get(*n) != b.get(*n)).cloned().collect();
    names.sort();
    names.dedup();
    names
}

/// The places in which two values differ, deepest first where both have the same shape.
fn differences(left: &Value, right: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(left, right, String::new(), &mut found);
    found
}

fn compare(left: &Value, right: &Value, at: String, found: &mut Vec<Change>) {
    match (left, right) {
        _ if left == right => {}
        (Value::Object(a), Value::Object(b)) => {
            let later = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(later) {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                both(a.get(key), b.get(key), at, found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                both(a.get(index), b.get(index), format!("{at}[{index}]"), found);
            }
        }
        _ => found.push(Change { at, left: Some(left.clone()), right: Some(right.clone()) }),
    }
}

fn both(left: Option<&Value>, right: Option<&Value>, at: String, found: &mut Vec<Change>) {
    match (left, right) {
        (Some(left), Some(right)) => compare(left, right, at, found),
        _ => found.push(Change { at, left: left.cloned(), right: right.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_where_they_are() {
        let left = json!({"a": 1, "list": [1, {"x": "p"}], "gone": true, "same": [1, 2]});
        let right = json!({"a": 2, "list": [1, {"x": "q"}, 3], "new": null, "same": [1, 2]});
        let found = differences(&left, &right);
        let at: Vec<&str> = found.iter().map(|c| c.at.as_str()).collect();
        assert_eq!(at, ["a", "list[1].x", "list[2]", "gone", "new"]);
        assert_eq!(found[2], Change { at: "list[2]".to_owned(), left: None, right: Some(json!(3)) });
        assert!(differences(&left, &left).is_empty());
    }
}
