//! Compares what came of a run with what a case expects.

use std::collections::BTreeMap;
use std::path::Path;

use pipeline_core::value::Value;
use serde_json::json;

use super::case::{Expect, StepExpect};
use crate::console::short;
use crate::itself::Ended;

/// What came of a run.
pub struct Came<'a> {
    /// How the program ended.
    pub ended: &'a Ended,
    /// The facts, a line each.
    pub facts: &'a str,
    /// Where output files are.
    pub outputs: &'a Path,
}

impl Came<'_> {
    /// What a snapshot keeps: nothing that depends on time or chance.
    pub fn kept(&self) -> Value {
        let run = self.ended.json();
        let steps = run["steps"].as_object().cloned().unwrap_or_default();
        let statuses: BTreeMap<&String, &Value> =
            steps.iter().map(|(name, step)| (name, &step["status"])).collect();
        let mut files = Vec::new();
        walk(self.outputs, self.outputs, &mut files);
        files.sort();
        json!({"status": run["status"], "outputs": run["outputs"], "steps": statuses, "files": files})
    }

    fn instances(&self) -> BTreeMap<String, (Value, u64, Value)> {
        let mut all: BTreeMap<String, (Value, u64, Value)> = BTreeMap::new();
        for fact in self.facts.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let Some(path) = fact["path"].as_str() else { continue };
            match fact["fact"].as_str() {
                Some("AttemptEnded") => {
                    let one = all.entry(path.to_owned()).or_insert((Value::Null, 0, Value::Null));
                    *one = (fact["status"].clone(), one.1 + 1, fact["value"].clone());
                }
                Some("StepSkipped") => {
                    all.insert(path.to_owned(), (Value::from("skipped"), 0, Value::Null));
                }
                _ => {}
            }
        }
        all
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            walk(root, &path, found);
        } else if let Ok(name) = path.strip_prefix(root) {
            found.push(name.display().to_string());
        }
    }
}

/// Everything that is not as expected, a sentence each.
pub fn judge(expect: &Expect, came: &Came<'_>) -> Vec<String> {
    let run = came.ended.json();
    let mut problems = Vec::new();
    if let Some(exit) = expect.exit.filter(|exit| came.ended.code != Some(*exit)) {
        problems.push(format!(
            "the exit code is {}, not {exit}",
            came.ended.code.map_or("a signal's".to_owned(), |c| c.to_string())
        ));
    }
    let status = expect.status.as_deref().or(expect.exit.is_none().then_some("ok"));
    if let Some(status) = status.filter(|status| run["status"] != **status) {
        let is = run["status"].as_str().unwrap_or("no run at all");
        problems.push(format!("the run is {is}, not {status}"));
        // Why is what somebody wants to know next.
        problems
            .extend(came.ended.stderr.lines().filter(|l| l.contains("error")).take(4).map(|l| short(l, 300)));
    }
    for (name, expected) in &expect.outputs {
        problems.extend(fits(expected, &run["outputs"][name], &format!("output `{name}`")));
    }
    judge_steps(expect, came, &run, &mut problems);
    let (calls, cost) = (run["usage"]["calls"].as_u64(), run["usage"]["cost_usd"].as_f64());
    if let Some(expected) = expect.calls.filter(|n| calls != Some(*n)) {
        problems.push(format!("{} model calls were made, not {expected}", calls.unwrap_or(0)));
    }
    if let Some(most) = expect.max_calls.filter(|n| calls.unwrap_or(0) > *n) {
        problems.push(format!("{} model calls were made, more than {most}", calls.unwrap_or(0)));
    }
    if let Some(most) = expect.max_cost_usd
        && cost.is_none_or(|usd| usd > most)
    {
        problems.push(format!(
            "it cost {}, more than ${most}",
            cost.map_or("nobody knows how much".to_owned(), |c| format!("${c}"))
        ));
    }
    for (name, holds) in &expect.files {
        match (std::fs::read_to_string(came.outputs.join(name)), holds) {
            (Ok(text), Some(part)) if !text.contains(part.as_str()) => {
                problems.push(format!(
                    "the file {name} does not hold {part:?}; it begins {:?}",
                    short(&text, 80)
                ));
            }
            (Ok(_), None) => problems.push(format!("the file {name} was written")),
            (Err(_), Some(_)) => problems.push(format!("the file {name} was not written")),
            _ => {}
        }
    }
    if let Some(part) = &expect.error {
        let message = run["error"]["message"].as_str().unwrap_or(&came.ended.stderr);
        if !message.contains(part.as_str()) {
            problems.push(format!("the error does not hold {part:?}: {:?}", short(message, 200)));
        }
    }
    problems
}

fn judge_steps(expect: &Expect, came: &Came<'_>, run: &Value, problems: &mut Vec<String>) {
    let instances = came.instances();
    for (path, StepExpect { status, attempts, value }) in &expect.steps {
        // A loop or fan-out has no facts of its own; the run's document has those of the file.
        let top = &run["steps"][path];
        let found = instances.get(path).cloned().or_else(|| {
            (!top.is_null())
                .then(|| (top["status"].clone(), top["attempts"].as_u64().unwrap_or(0), top["value"].clone()))
        });
        let Some((is, times, given)) = found else {
            problems.push(format!("step `{path}` did not run"));
            continue;
        };
        if let Some(status) = status.as_ref().filter(|status| is != status.as_str()) {
            problems.push(format!("step `{path}` is {}, not {status}", is.as_str().unwrap_or("not reached")));
        }
        if let Some(attempts) = attempts.filter(|n| *n != times) {
            problems.push(format!("step `{path}` had {times} attempts, not {attempts}"));
        }
        if let Some(value) = value {
            problems.extend(fits(value, &given, &format!("the value of `{path}`")));
        }
    }
    if let Some(path) = &expect.path {
        let mut ran: Vec<String> = Vec::new();
        for fact in came.facts.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if fact["fact"] == "AttemptEnded"
                && let Some(name) = fact["path"].as_str().map(|p| p.split(['/', '[']).next().unwrap_or(p))
                && run["steps"].get(name).is_some()
            {
                ran.retain(|other| other != name);
                ran.push(name.to_owned());
            }
        }
        if *path != ran {
            problems.push(format!("the path is {}, not {}", ran.join(" → "), path.join(" → ")));
        }
    }
}

/// What does not fit: of maps only the fields that are expected count.
fn fits(expected: &Value, given: &Value, what: &str) -> Option<String> {
    match (expected, given) {
        (Value::Object(fields), Value::Object(_)) => fields
            .iter()
            .find_map(|(name, value)| fits(value, &given[name], &format!("{what}, field `{name}`"))),
        _ if expected == given => None,
        // 1 and 1.0 are one number.
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ => Some(format!(
            "{what} is {}, not {}",
            short(&given.to_string(), 200),
            short(&expected.to_string(), 200)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_expected_is_compared() {
        assert_eq!(fits(&json!({"a": 1}), &json!({"a": 1.0, "b": 2}), "x"), None);
        assert_eq!(fits(&json!([1]), &json!([1, 2]), "x").as_deref(), Some("x is [1,2], not [1]"));
        let deep = fits(&json!({"a": {"b": "c"}}), &json!({"a": {}}), "x");
        assert_eq!(deep.as_deref(), Some("x, field `a`, field `b` is null, not \"c\""));
    }
}
