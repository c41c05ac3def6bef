//! `test_echo` and `set_variable`, and the examples of every step.

use pipeline_core::error::ErrorKind;
use pipeline_core::fact::RunStatus;
use pipeline_core::plan::Body;
use serde_json::json;

use crate::plain::support::World;

#[tokio::test]
async fn every_example_runs() {
    let steps = pipeline_steps::builtin(std::sync::Arc::default());
    for step in steps.into_iter().filter(|s| s.spec().kind != "prompt") {
        let spec = step.spec();
        let world = World::new();
        world.file("a.yaml", "x: 1");
        let report = world.run(spec.example).await;
        assert_eq!(report.status, RunStatus::Ok, "{}: {:?}", spec.kind, report.error);
        assert!(!spec.summary.is_empty());
    }
}

/// Naive: a step has a deadline where somebody thought of one, so that a new step type waits for ever.
/// Figure: every step type.
#[test]
fn n15_every_step_type_has_a_deadline_unless_the_file_says_none() {
    let steps = pipeline_steps::builtin(std::sync::Arc::default());
    assert!(steps.len() > 5);
    for spec in steps.iter().map(|step| step.spec()) {
        let world = World::new();
        let plan = world.compile(spec.example).unwrap().0;
        let steps = || plan.block(plan.root().body).steps.iter().map(|id| plan.step(*id));
        let leaves = steps().filter(|step| matches!(step.body, Body::Leaf(_)));
        assert!(leaves.clone().count() > 0, "{}", spec.kind);
        for leaf in leaves {
            assert!(leaf.timeout.is_some(), "`{}` of {} may wait for ever", leaf.name, spec.kind);
        }
    }
    let text = "workflow: {name: t, steps: [{name: a, type: test_echo, timeout: none}]}";
    let plan = World::new().compile(text).unwrap().0;
    assert_eq!(plan.step(plan.block(plan.root().body).steps[0]).timeout, None);
}

#[tokio::test]
async fn an_echo_keeps_the_type_of_its_value() {
    let world = World::new();
    assert_eq!(world.value("- {name: a, type: test_echo}").await, json!("default_echo"));
    for value in [json!(3), json!([1, {"a": null}]), json!(false), json!({"x": "y"}), json!(null)] {
        let step = format!("- {{name: a, type: test_echo, value: {value}}}");
        assert_eq!(world.value(&step).await, value);
    }
    let two = "- {name: a, type: test_echo, value: {n: [1, 2]}}\n- {name: b, type: test_echo, value: '{{ steps.a.n }}'}";
    assert_eq!(world.value(two).await, json!([1, 2]));
}

#[tokio::test]
async fn an_echo_fails_when_told_to() {
    let world = World::new();
    for step in ["fail: true", "value: __FAIL__"] {
        let error = world.error(&format!("- {{name: a, type: test_echo, {step}}}")).await;
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, "test_echo was told to fail"));
    }
    let error = world.error("- {name: a, type: test_echo, fail: true, error_message: broken by 7}").await;
    assert_eq!(error.message, "broken by 7");
    let report = world.steps("- {name: a, type: test_echo, fail: true}").await;
    assert_eq!(report.status, RunStatus::Failed);
}

#[tokio::test(start_paused = true)]
async fn an_echo_takes_its_time() {
    let before = tokio::time::Instant::now();
    World::new().value("- {name: a, type: test_echo, delay_ms: 5000}").await;
    assert!(before.elapsed().as_millis() >= 5000);
}

#[tokio::test]
async fn later_variables_see_earlier_ones_and_keep_types() {
    let world = World::new();
    let steps = "\
- name: v
  type: set_variable
  variables:
    net: 40
    list: [1, '{{ state.net }}']
    gross: '{{ net * 2 }}'
    text: 'is {{ state.gross }}'
- {name: b, type: test_echo, value: ['{{ state.gross }}', '{{ list }}', '{{ steps.v.text }}']}";
    assert_eq!(world.value(steps).await, json!([80, [1, 40], "is 80"]));
}

#[tokio::test]
async fn one_variable_is_a_short_form() {
    let world = World::new();
    let value = world.value("- {name: v, type: set_variable, variable: n, value: [1]}").await;
    assert_eq!(value, json!({"n": [1]}));
}

#[tokio::test]
async fn a_loop_variable_ends_with_its_turn() {
    let world = World::new();
    let steps = "\
- {name: start, type: set_variable, variables: {seen: outside}}
- name: l
  type: for_loop
  iterator: i
  data_source: [1, 2]
  steps:
    - {name: v, type: set_variable, scope: loop, variables: {seen: '{{ loop.i }}'}}
- {name: after, type: test_echo, value: '{{ state.seen }}'}";
    assert_eq!(world.value(steps).await, json!("outside"));
}

#[test]
fn mistakes_are_found_before_the_run() {
    let world = World::new();
    let one = |step: &str| world.findings(step).join("\n");
    assert!(one("- {name: a, type: test_echo, valeu: 1}").contains("E0101"));
    assert!(
        one("- {name: a, type: test_echo, delay_ms: soon}").contains("`delay_ms` must be a whole number")
    );
    assert!(one("- {name: a, type: set_variable}").contains("needs `variables`"));
    assert!(one("- {name: a, type: set_variable, scope: planet, variables: {a: 1}}").contains("E0104"));
    assert!(one("- {name: a, type: set_variable, variables: [1]}").contains("a map of names"));
}
