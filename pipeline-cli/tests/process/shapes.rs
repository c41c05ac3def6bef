//! The shape of every document that a script may read: names and types, as a snapshot, so that a change is noticed.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::support::Scratch;

const FILE: &str = "workflow:
  name: w
  inputs: {topic: {type: string, default: tea}}
  defaults: {timeout_seconds: 60}
  steps:
    - {name: a, type: test_echo, value: [1, 2], output_to_file: a.json}
    - name: fan
      type: for_loop
      data_source: steps.a
      steps: [{name: think, type: claude, prompt: 'Think of {{ loop.item }}', session: s}]
    - {name: bad, type: test_echo, fail: true, continue_on_error: true}
    - {name: skipped, type: test_echo, when: 'false'}
  outputs: {said: steps.fan}
";

/// Document name, and the command line that prints it.
const DOCUMENTS: &[(&str, &[&str])] = &[
    ("check", &["check", "wrong.yaml"]),
    ("run", &["run", "w.yaml", "--mock", "--run-id", "one"]),
    ("resume", &["resume", "one"]),
    ("paused", &["run", "asks.yaml", "--mock", "--run-id", "asks"]),
    ("plan", &["plan", "w.yaml", "--mock"]),
    ("plan against", &["plan", "w.yaml", "--mock", "--against", "one"]),
    ("runs list", &["runs", "list"]),
    ("runs show -v", &["runs", "show", "one", "-v"]),
    ("runs fork", &["runs", "fork", "one", "--from", "bad", "--run-id", "two"]),
    ("runs diff", &["runs", "diff", "one", "two"]),
    ("runs cancel", &["runs", "cancel", "asks"]),
    ("runs repair", &["runs", "repair", "one"]),
    ("runs gc", &["runs", "gc", "--dry-run"]),
    ("graph", &["graph", "w.yaml"]),
    ("doctor", &["doctor"]),
    ("tools list", &["tools", "list"]),
    ("tools show", &["tools", "show", "read_file"]),
    ("tools call", &["tools", "call", "text_stats", r#"{"text": "one"}"#]),
    ("sessions list", &["sessions", "list"]),
    ("sessions show", &["sessions", "show", "runs/one/s"]),
    ("test", &["test", "cases"]),
    ("verify", &["verify", "cases/w.yaml", "--crash", "--faults"]),
    ("bench", &["bench", "--steps", "5"]),
    ("run --detach", &["run", "w.yaml", "--mock", "--detach"]),
    ("runs rm", &["runs", "rm", "two"]),
    ("error", &["runs", "show", "nowhere"]),
];

/// Names and types. Of a list, everything that its elements have; values that stand for names of the user's are one.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "text".into(),
        Value::Array(list) => Value::Array(list.iter().map(shape).reduce(joined).into_iter().collect()),
        Value::Object(fields) => {
            let one = |(name, value): (&String, &Value)| match name.as_str() {
                // What a step gives, what a run returns, what a tool takes: theirs, not ours.
                "value" | "outputs" | "parameters" => (name.clone(), "any".into()),
                _ => (name.clone(), shape(value)),
            };
            fields.iter().map(one).collect()
        }
    }
}

fn joined(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Object(mut a), Value::Object(b)) => {
            for (name, value) in b {
                let both = match a.remove(&name) {
                    Some(known) => joined(known, value),
                    None => value,
                };
                a.insert(name, both);
            }
            Value::Object(a)
        }
        (Value::Array(a), Value::Array(b)) => {
            Value::Array(a.into_iter().chain(b).reduce(joined).into_iter().collect())
        }
        (a, b) if a == b => a,
        (Value::String(a), Value::String(b)) => {
            let mut words: Vec<&str> = a.split(" | ").chain(b.split(" | ")).collect();
            words.sort_unstable();
            words.dedup();
            words.join(" | ").into()
        }
        // Something that is only sometimes there.
        (Value::String(_), other) | (other, _) => other,
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> =
                fields.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            fields.into_iter().collect()
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn documents_keep_their_shapes() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    scratch.write("wrong.yaml", "workflow:\n  name: w\n  steps:\n    - {name: a, type: test_ecko}\n");
    scratch.write("asks.yaml", "workflow:\n  name: w\n  steps:\n    - {name: well, type: approval, message: 'Go on?', choices: ['yes', 'no']}\n");
    scratch.write(
        "cases/w.yaml",
        "workflow:\n  name: w\n  steps:\n    - {name: a, type: test_echo, value: 1}\n",
    );
    scratch.write("cases/c.test.yaml", "pipeline: w.yaml\ncases:\n  - {name: one, expect: {outputs: {a: 1}}}\n  - {name: two, expect: {outputs: {a: 2}}}\n");
    let mut all = String::new();
    for (name, arguments) in DOCUMENTS {
        let ended = scratch.run(&[arguments, &["--json"][..]].concat());
        let document = ended.json();
        let schema =
            document["schema"].as_str().unwrap_or_else(|| panic!("{name} has no schema: {document}"));
        assert!(schema.starts_with("pipeline.") && schema.ends_with("/1"), "{name}: {schema}");
        let _ok = writeln!(all, "{name} {schema}\n{:#}\n", sorted(&shape(&document)));
    }
    let events = scratch.run(&["runs", "events", "one", "--json"]).stdout;
    let mut facts: BTreeMap<String, Value> = BTreeMap::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["schema"], "pipeline.event/1");
        let (fact, shape) = (event["fact"].as_str().unwrap().to_owned(), shape(&event));
        let both = match facts.remove(&fact) {
            Some(known) => joined(known, shape),
            None => shape,
        };
        facts.insert(fact, both);
    }
    for (fact, shape) in facts {
        let _ok = writeln!(all, "event {fact}\n{:#}\n", sorted(&shape));
    }
    insta::assert_snapshot!("documents", all);
}
