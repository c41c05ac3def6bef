//! Where the effective values of a step came from.

use pipeline_core::plan::{Plan, Source, StepId};
use serde_json::{Value, json};

use super::support::World;

fn origin(plan: &Plan, step: usize, key: &str) -> Option<(Source, Option<Value>, u32)> {
    let id: StepId = plan.block(plan.root().body).steps[step];
    let found = plan.origins(id).iter().find(|o| o.key == key)?;
    let line = found.span.and_then(|s| plan.sources().locate(s)).map_or(0, |(_, p)| p.line);
    Some((found.source, found.value.clone(), line))
}

const TEXT: &str = "\
workflow:
  name: t
  defaults:
    timeout_seconds: 30
    continue_on_error: true
    max_parallel: 3
    retry: {max_attempts: 4, backoff: fixed, base_delay: 2s}
  steps:
    - {name: a, type: work, ms: 5}
    - name: b
      type: work
      timeout: 10s
      continue_on_error: false
      retry:
        max_attempts: 2
    - name: c
      type: for_loop
      data_source: [1, 2]
      parallel: true
      steps:
        - {name: d, type: work}
    - {name: e, type: work, retry: 7}
";

#[test]
fn every_value_says_who_said_it() {
    let plan = World::default().plan(TEXT);
    assert_eq!(origin(&plan, 0, "timeout"), Some((Source::Defaults, Some(json!(30.0)), 4)));
    assert_eq!(origin(&plan, 0, "ms"), Some((Source::Step, Some(json!(5)), 9)));
    assert_eq!(origin(&plan, 0, "fail_times"), Some((Source::BuiltIn, Some(json!(0)), 0)));
    assert_eq!(origin(&plan, 0, "retry.max_attempts"), Some((Source::Defaults, Some(json!(4)), 7)));
    assert_eq!(origin(&plan, 0, "retry.jitter"), Some((Source::BuiltIn, Some(json!(true)), 0)));
    assert_eq!(origin(&plan, 0, "continue_on_error"), Some((Source::Defaults, Some(json!(true)), 5)));
    assert_eq!(origin(&plan, 1, "timeout"), Some((Source::Step, Some(json!(10.0)), 12)));
    assert_eq!(origin(&plan, 1, "continue_on_error"), Some((Source::Step, Some(json!(false)), 13)));
    // Maps merge deep: the step's own count, the default's kind of delay.
    assert_eq!(origin(&plan, 1, "retry.max_attempts"), Some((Source::Step, Some(json!(2)), 15)));
    assert_eq!(origin(&plan, 1, "retry.backoff"), Some((Source::Defaults, Some(json!("fixed")), 7)));
    assert_eq!(origin(&plan, 1, "retry.base_delay"), Some((Source::Defaults, Some(json!(2.0)), 7)));
    assert_eq!(origin(&plan, 2, "max_parallel"), Some((Source::Defaults, Some(json!(3)), 6)));
    assert_eq!(origin(&plan, 2, "timeout"), Some((Source::BuiltIn, Some(json!("none")), 0)));
    assert_eq!(origin(&plan, 2, "retry.max_attempts"), Some((Source::BuiltIn, Some(json!(1)), 0)));
    assert_eq!(origin(&plan, 3, "retry.max_attempts"), Some((Source::Step, Some(json!(7)), 22)));
}

#[test]
fn without_defaults_what_is_built_in_is_told_as_such() {
    let text = "workflow:\n  name: t\n  steps:\n    - {name: a, type: work}\n";
    let plan = World::default().plan(text);
    assert_eq!(origin(&plan, 0, "timeout"), Some((Source::BuiltIn, Some(json!(300.0)), 0)));
    assert_eq!(origin(&plan, 0, "retry.max_attempts"), Some((Source::BuiltIn, Some(json!(1)), 0)));
    assert_eq!(origin(&plan, 0, "continue_on_error"), Some((Source::BuiltIn, Some(json!(false)), 0)));
}
