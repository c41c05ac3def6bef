//! What the names in an expression mean: every namespace whole and by its fields, at every depth.

use std::collections::BTreeMap;

use pipeline_core::fact::RunStatus;
use pipeline_core::value::{Data, Value};
use serde_json::json;

use super::support::World;

/// What each expression is in the second of three turns of a loop in a loop, beside a variable that its own turn has set.
async fn in_a_turn(expressions: &[&str]) -> Vec<Value> {
    let fields: Vec<String> =
        expressions.iter().enumerate().map(|(at, text)| format!("e{at}: \"{{{{ {text} }}}}\"")).collect();
    let text = format!(
        "workflow:
  name: town
  inputs: {{who: {{type: string}}}}
  variables: {{n: 1, kept: true}}
  global_vars: {{g: 2}}
  permissions: {{env: [PLACE]}}
  steps:
    - {{name: first, type: work, value: {{text: seven}}}}
    - name: rows
      type: for_loop
      iterator: row
      data_source: [a]
      steps:
        - name: cells
          type: for_loop
          iterator: cell
          data_source: [x, y, z]
          parallel: true
          reduce: {{n: last}}
          steps:
            - {{name: set, type: work, value: here, set: {{n: '{{{{ loop.index }}}}'}}}}
            - {{name: look, type: work, value: {{{}}}}}
",
        fields.join(", ")
    );
    let mut world = World::default();
    world.inputs.insert("who".to_owned(), Data::new(json!("me")));
    let report = world
        .run_as(&text, |setup| {
            setup.env = BTreeMap::from([("PLACE".to_owned(), "here".to_owned())]);
            setup.info.dirs.run = "runs/run".into();
        })
        .await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    let seen = &report.outputs.json()["rows"]["results"][0]["results"][1];
    (0..expressions.len()).map(|at| seen[format!("e{at}")].clone()).collect()
}

/// Naive: a namespace can be read by its fields, and is nothing as a whole; or a field of it was forgotten.
#[tokio::test(start_paused = true)]
async fn every_namespace_has_all_its_names_whole_and_by_field() {
    let run = json!({
        "id": "run", "started_at": "2023-11-14T22:13:20.000Z", "dir": "runs/run", "timestamp": "20231114T221320Z",
    });
    let row = json!({
        "item": "a", "index": 0, "total": 1, "length": 1, "first": true, "is_first": true, "last": true,
        "is_last": true, "level": 0, "row": "a",
    });
    let cell = json!({
        "item": "y", "index": 1, "total": 3, "length": 3, "first": false, "is_first": false, "last": false,
        "is_last": false, "level": 1, "parent": row, "cell": "y",
    });
    let table = [
        ("run", run.clone()),
        ("loop", cell.clone()),
        ("turn", cell.clone()),
        ("inputs", json!({"who": "me"})),
        ("state", json!({"n": 1, "kept": true})),
        ("variables", json!({"n": 1, "kept": true})),
        ("global_vars", json!({"g": 2})),
        ("env", json!({"PLACE": "here"})),
        ("workflow", json!({"name": "town"})),
    ];
    let mut all: Vec<(String, Value)> = Vec::new();
    for (root, whole) in table {
        for (field, value) in whole.as_object().into_iter().flatten() {
            all.push((format!("{root}.{field}"), value.clone()));
        }
        all.push((root.to_owned(), whole));
    }
    all.push(("loop.other | default('none')".to_owned(), json!("none")));
    all.push(("'first' in steps and 'set' in steps".to_owned(), json!(true)));
    all.push(("steps.first.text ~ steps.set".to_owned(), json!("sevenhere")));
    for (bare, value) in [("who", json!("me")), ("n", json!(1)), ("set", json!("here"))] {
        all.push((bare.to_owned(), value));
    }
    all.push(("timestamp".to_owned(), run["timestamp"].clone()));
    let texts: Vec<&str> = all.iter().map(|(text, _)| text.as_str()).collect();
    for ((text, expected), seen) in all.iter().zip(in_a_turn(&texts).await) {
        assert_eq!(&seen, expected, "{text}");
    }
}

/// Naive: variables of a loop are those of its turn, or of the pipeline; and a loop in a loop counts its level from 0.
#[tokio::test(start_paused = true)]
async fn variables_of_a_while_loop_live_as_long_as_the_loop() {
    let text = "workflow:
  name: t
  steps:
    - name: each
      type: for_loop
      data_source: [1, 2]
      steps:
        - name: w
          type: while_loop
          until: state.n == 2
          steps:
            - {name: up, type: work, scope: loop, set: {n: '{{ state.n | default(0) + 1 }}'}}
            - {name: look, type: work, value: '{{ [state.n, loop.index, loop.level, loop.parent.item] }}'}
        - {name: after, type: work, value: '{{ [steps.w.iterations, steps.w.last.look, state.n | default(none)] }}'}
";
    let report = World::default().run(text).await;
    assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
    let results = &report.outputs.json()["each"]["results"];
    assert_eq!(results, &json!([[2, [2, 1, 1, 1], null], [2, [2, 1, 1, 2], null]]));
}
