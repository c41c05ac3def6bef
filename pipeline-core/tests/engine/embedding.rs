//! Pipelines built and run from code: the builder writes what a file would say, and mistakes are placed by builder path.

use std::sync::Arc;
use std::time::Duration;

use pipeline_core::builder::{Input, StepDef, Workflow};
use pipeline_core::document::{Limits, parse};
use pipeline_core::engine::RunControl;
use pipeline_core::fact::RunStatus;
use pipeline_core::plan::{Backoff, Body, Budget, InputKind, Retry};
use pipeline_core::runner::{Runner, RunnerError, Transient};
use pipeline_core::source::{LoadedSource, SourceMap};
use pipeline_core::store::StoreError;
use pipeline_core::value::Value;
use serde_json::json;

use crate::support::{Probe, WorkStep};

const YAML: &str = r#"
workflow:
  name: everything
  inputs:
    people: { type: array, required: true }
    tone: { type: string, default: warm, enum: [warm, cold] }
  variables: { seen: 0 }
  budget: { max_steps: 50, max_duration: 60000ms }
  steps:
    - name: each
      type: for_loop
      data_source: inputs.people
      steps:
        - { name: greet, type: work, value: "{{ inputs.tone }} {{ loop.item }}" }
      max_parallel: 4
      parallel: true
    - name: both
      type: parallel
      steps:
        - { name: left, type: work, value: 1 }
        - { name: right, type: work, value: 2 }
    - name: count
      type: while_loop
      condition: state.seen < 3
      max_iterations: 5
      steps:
        - { name: more, type: work, set: { seen: "{{ state.seen + 1 }}" } }
    - name: pick
      type: switch
      expression: inputs.tone
      cases:
        cold: [{ name: brr, type: work, value: cold }]
      default: [{ name: mild, type: work, value: mild }]
    - name: inner
      type: pipeline
      pipeline: { name: small, steps: [{ name: only, type: work, value: "{{ inputs.n }}" }] }
      inputs: { n: 7 }
    - name: last
      type: work
      value: done
      condition: steps.both.success
      timeout: 1500ms
      retry:
        max_attempts: 2
        backoff: fixed
        base_delay: 10ms
        max_delay: 60000ms
        jitter: true
        on: [timeout, rate_limit, overloaded, server, network, truncated]
  outputs:
    greetings: steps.each.results
    picked: steps.pick.results.mild
"#;

fn built() -> Workflow {
    let work = |name: &str| StepDef::new(name, "work");
    let retry = Retry {
        max_attempts: 2,
        backoff: Backoff::Fixed,
        base_delay: Duration::from_millis(10),
        ..Retry::default()
    };
    let limits =
        Budget { max_steps: Some(50), max_duration: Some(Duration::from_secs(60)), ..Budget::default() };
    let greet = work("greet").with("value", "{{ inputs.tone }} {{ loop.item }}");
    let small = Workflow::new("small").step(work("only").with("value", "{{ inputs.n }}"));
    let seven = [("n".to_owned(), json!(7))].into_iter().collect();
    Workflow::new("everything")
        .input("people", Input::new(InputKind::Array))
        .input("tone", Input::new(InputKind::String).default("warm").one_of(["warm", "cold"]))
        .variable("seen", 0)
        .budget(&limits)
        .step(StepDef::for_each("each", "inputs.people", [greet]).at_once(4))
        .step(StepDef::parallel("both", [work("left").with("value", 1), work("right").with("value", 2)]))
        .step(StepDef::repeat_while(
            "count",
            "state.seen < 3",
            5,
            [work("more").with("set", json!({ "seen": "{{ state.seen + 1 }}" }))],
        ))
        .step(StepDef::choose(
            "pick",
            "inputs.tone",
            [("cold", vec![work("brr").with("value", "cold")])],
            [work("mild").with("value", "mild")],
        ))
        .step(StepDef::child("inner", small, seven))
        .step(
            work("last")
                .with("value", "done")
                .when("steps.both.success")
                .timeout(Duration::from_millis(1500))
                .retry(&retry),
        )
        .output("greetings", "steps.each.results")
        .output("picked", "steps.pick.results.mild")
}

fn runner() -> Runner {
    Runner::default().step(WorkStep(Arc::default())).expect("one step type")
}

/// What a text says, without its places.
fn document(text: &str) -> Value {
    let mut sources = SourceMap::default();
    let name = "x.yaml".to_owned();
    let file = sources.add(LoadedSource { display: name.clone(), canonical: name, text: text.to_owned() });
    parse(&sources, file, &Limits::default()).expect("it parses").0.to_json()
}

#[test]
fn a_builder_writes_the_document_that_the_file_is() {
    assert_eq!(built().document(), document(YAML));
}

#[tokio::test]
async fn a_built_pipeline_and_its_file_give_the_same() {
    let runner = runner();
    let inputs = json!({ "people": ["Ada", "Alan"] });
    let mut reports = Vec::new();
    for plan in [runner.compile(&built()).unwrap(), runner.compile_text("x.yaml", YAML).unwrap()] {
        let report = runner.run("run-1", &plan, inputs.clone(), RunControl::default()).await.unwrap();
        assert_eq!(report.status, RunStatus::Ok, "{:?}", report.error);
        reports.push((
            report.outputs.json().clone(),
            json!(report.steps.values().map(|s| &s.value).collect::<Vec<_>>()),
        ));
    }
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0].0["greetings"], json!(["warm Ada", "warm Alan"]));
    assert_eq!(reports[0].0["picked"], "mild");
}

#[test]
fn a_retry_reads_back_as_it_was_given() {
    let retry = Retry { max_attempts: 5, jitter: false, ..Retry::default() };
    let workflow = Workflow::new("w").step(StepDef::new("a", "work").retry(&retry));
    let plan = runner().compile(&workflow).unwrap();
    let step = plan.step(plan.block(plan.root().body).steps[0]);
    assert!(matches!(step.body, Body::Leaf(_)));
    assert_eq!(step.retry, retry);
}

#[test]
fn mistakes_are_placed_by_builder_path_and_all_told_at_once() {
    let broken = Workflow::new("broken")
        .step(StepDef::new("a", "work").with("valeu", 1))
        .step(StepDef::parallel("both", [StepDef::new("x", "work").with("value", "{{ steps.nothing }}")]))
        .step(StepDef::new("b", "wrok"))
        .output("o", "steps.b.x +");
    let findings = runner().compile(&broken).expect_err("four mistakes").to_string();
    let places: Vec<&str> = findings.lines().map(|line| line.split(": error[").next().unwrap()).collect();
    let expected = [
        "workflow.steps[0:a].valeu",
        "workflow.steps[1:both].steps[0:x].value",
        "workflow.steps[2:b].type",
        "workflow.outputs.o",
    ];
    assert_eq!(places, expected, "{findings}");
    assert!(findings.contains("did you mean `value`?"), "{findings}");
}

#[test]
fn mistakes_of_a_text_are_placed_by_line() {
    let text = "workflow:\n  name: x\n  steps:\n    - {name: a, type: wrok}\n";
    let findings = runner().compile_text("x.yaml", text).expect_err("a mistake").to_string();
    assert!(findings.starts_with("x.yaml:4:23: error["), "{findings}");
}

#[tokio::test]
async fn inputs_are_checked_before_anything_runs() {
    let probe: Arc<Probe> = Arc::default();
    let runner = Runner::default().step(WorkStep(Arc::clone(&probe))).unwrap();
    let plan = runner.compile(&built()).unwrap();
    let wrong = json!({ "people": 3, "tone": "hot", "extra": 1 });
    let Err(RunnerError::Inputs(messages)) = runner.run("r", &plan, wrong, RunControl::default()).await
    else {
        panic!("it was accepted");
    };
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(runner.run("r", &plan, json!([1]), RunControl::default()).await.is_err());
    assert!(probe.started().is_empty());
}

#[tokio::test]
async fn what_a_file_declares_and_nobody_connects_is_refused() {
    let text = "workflow: {name: x, tools: {t: {command: [ls]}}, steps: [{name: a, type: work}]}";
    let runner = runner();
    let plan = runner.compile_text("x.yaml", text).unwrap();
    let refused = runner.run("r", &plan, Value::Null, RunControl::default()).await.expect_err("refused");
    assert!(refused.to_string().contains("`tools`"), "{refused}");
}

#[tokio::test]
async fn a_transient_run_is_not_there_afterwards() {
    let lost = Runner::new(Transient).resume("run", RunControl::default()).await;
    let Err(RunnerError::Engine(error)) = lost else { panic!("nothing was kept") };
    assert_eq!(error.to_string(), StoreError::Unknown { run: "run".to_owned() }.to_string());
}
