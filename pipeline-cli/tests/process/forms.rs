//! Control forms and examples, against what the compiler knows of them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::support::Scratch;

fn schema(scratch: &Scratch) -> Value {
    scratch.run(&["schema"]).json()
}

/// Naive: a table of keys that is written by hand, and forgotten when the compiler learns another.
#[test]
fn the_compiler_knows_every_key_of_a_control_form_and_no_other() {
    let scratch = Scratch::new();
    scratch.write("child.yaml", "workflow:\n  name: c\n  steps: [{name: s, type: test_echo}]\n");
    scratch.write(
        ".pipeline/library/child.yaml",
        "workflow:\n  name: c\n  steps: [{name: s, type: test_echo}]\n",
    );
    let schema = schema(&scratch);
    let mut checked = 0;
    let forms = schema["$defs"].as_object().unwrap().iter();
    for (name, form) in forms.filter_map(|(name, form)| Some((name.strip_prefix("form.")?, form))) {
        let example = |key: &str| form["properties"][key]["examples"][0].clone();
        let required = form["required"].as_array().unwrap().iter().map(|k| k.as_str().unwrap());
        let required: Vec<&str> = required.collect();
        for key in form["properties"].as_object().unwrap().keys() {
            let mut step = json!({"name": "form", "type": name});
            // One of these is needed, and two of them are too many.
            let one_of: &[&str] = match name {
                "parallel" => &["steps", "branches"],
                "while_loop" => &["condition", "until"],
                "pipeline" => &["pipeline", "pipeline_file", "pipeline_ref"],
                _ => &[],
            };
            for needed in required.iter().copied().chain([key.as_str()]) {
                step[needed] = example(needed);
            }
            if !one_of.is_empty() && !one_of.contains(&key.as_str()) {
                step[one_of[0]] = example(one_of[0]);
            }
            let file = json!({"workflow": {"name": "t", "steps": [step]}});
            scratch.write("form.json", &file.to_string());
            let found = scratch.run(&["check", "form.json", "--json"]);
            assert_eq!(found.code, Some(0), "{name}.{key}: {}", found.stdout);
            checked += 1;
        }
        let mut step = json!({"name": "form", "type": name, "no_such_key": 1});
        for key in &required {
            step[*key] = example(key);
        }
        let file = json!({"workflow": {"name": "t", "steps": [step]}});
        scratch.write("form.json", &file.to_string());
        let found = scratch.run(&["check", "form.json", "--json"]);
        assert!(found.stdout.contains("no_such_key"), "{name}: {}", found.stdout);
    }
    assert!(checked > 40, "only {checked} keys");
}

/// Every step type has an example file, and every example says where its schema is.
#[test]
fn every_step_type_has_an_example_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/reference/steps.md")).unwrap();
    let mut used = BTreeSet::new();
    for name in page.split("(../../examples/").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(root.join("examples").join(name).is_file(), "{name} is named, and is not there");
        used.insert(name.to_owned());
    }
    assert!(used.len() >= 20, "{used:?}");
    let scratch = Scratch::new();
    let kinds = schema(&scratch)["$defs"]["step"]["properties"]["type"]["anyOf"][0]["oneOf"].clone();
    for kind in kinds.as_array().unwrap().iter().map(|k| k["const"].as_str().unwrap()) {
        let text = format!("type: {kind}");
        let shows = |file: &String| {
            let all = std::fs::read_to_string(root.join("examples").join(file)).unwrap();
            all.lines().any(|line| {
                line.trim_start_matches([' ', '-', '{']).split(',').any(|part| part.trim() == text)
            })
        };
        assert!(used.iter().any(shows), "no example of the page shows `{kind}`");
    }
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
            assert!(first.starts_with("# yaml-language-server: $schema="), "{}", path.display());
        }
    }
}

/// Naive: tasks that an expression gives lose what they say beside their prompt.
#[test]
fn a_computed_task_has_keys_of_its_own() {
    let scratch = Scratch::new();
    let text = r#"workflow:
  name: computed
  steps:
    - name: ask
      type: claude_batch
      model: haiku
      tasks: '[{"id": "a", "prompt": "x", "model": "opus", "output_to_file": "a.txt"}, {"id": "b", "prompt": "y", "system_prompt": "short"}, "z"]'
"#;
    scratch.write("computed.yaml", text);
    let rules = json!({"rules": [
        {"match": {"model": "opus"}, "text": "by opus"},
        {"match": {"model": "haiku"}, "text": "by haiku"},
    ]});
    scratch.write("rules.json", &rules.to_string());
    let ended = scratch.run(&["run", "computed.yaml", "--mock-rules", "rules.json", "--json"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let items = &ended.json()["steps"]["ask"]["value"]["items"];
    let texts: Vec<&str> = (0..3).map(|n| items[n]["value"]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["by opus", "by haiku", "by haiku"]);
    let files: Vec<_> = std::fs::read_dir(scratch.path().join("outputs")).unwrap().collect();
    assert_eq!(files.len(), 1, "only the first task names a file");
    assert_eq!(std::fs::read_to_string(scratch.path().join("outputs/a.txt")).unwrap(), "by opus");
}

/// Every value has `status`, whatever the step gave; `fallback_action` may stand where a reader would put it.
#[test]
fn the_status_of_a_step_can_be_read() {
    let scratch = Scratch::new();
    let text = "workflow:
  name: status
  steps:
    - {name: good, type: test_echo, value: {x: 1}}
    - {name: bad, type: test_echo, fail: true, continue_on_error: true}
    - {name: instead, type: test_echo, fail: true, on_error: {y: 2}}
    - {name: bare, type: claude_robust, prompt: x, fallback_action: emergency_response}
    - {name: short, type: claude_robust, prompt: x, retry: {max_attempts: 1, fallback_action: emergency_response}}
    - {name: number, type: test_echo, value: 7}
    - {name: whole, type: test_echo, value: {data: {limit: 2}}}
    - name: rows
      type: data_transform
      input_source: '{{ [{\"id\": 1}, {\"id\": 2}] }}'
      operations:
        - {operation: filter, condition: \"steps.number.status == 'ok' and steps.instead.status == 'degraded'\"}
        - {operation: filter, condition: \"id == steps.whole.limit and id == steps.whole.result.limit\"}
        - {operation: filter, condition: \"steps['number'] == 7 and steps.number.result == 7\"}
  outputs:
    all: '{{ [steps.good.status, steps.bad.status, steps.instead.status, steps.bare.status, steps.short.status] }}'
    rows: '{{ steps.rows.rows }}'
";
    scratch.write("status.yaml", text);
    let rules = json!({"rules": [{"error": {"kind": "server", "message": "down"}}]});
    scratch.write("rules.json", &rules.to_string());
    let ended = scratch.run(&["run", "status.yaml", "--mock-rules", "rules.json", "--json"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.json()["outputs"]["all"], json!(["ok", "failed", "degraded", "degraded", "degraded"]));
    assert_eq!(ended.json()["outputs"]["rows"], json!([{"id": 2}]));
}
