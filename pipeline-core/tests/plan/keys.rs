//! Keys of workflows and control forms: what becomes of them in the plan.

use std::time::Duration;

use pipeline_core::diagnostic::{Diagnostic, Severity};
use pipeline_core::plan::{Backoff, Body, CompileOptions, StepPlan, compile};
use pipeline_core::source::{MemorySources, SourceRef};

use super::support::World;

fn findings(text: &str) -> Vec<String> {
    let sources = MemorySources::default().with("t.yaml", text);
    let root = SourceRef::Path("t.yaml".to_owned());
    let found = match compile(&sources, &root, &World::default().catalog(), &CompileOptions::default()) {
        Ok((_, notes)) => notes,
        Err(findings) => findings,
    };
    let line = |d: &Diagnostic| {
        let before = d.span.map_or("", |s| &text[..s.start as usize]);
        let word = match d.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        format!("{} {word} {}: {}", before.matches('\n').count() + 1, d.code, d.message)
    };
    found.iter().map(line).collect()
}

fn with_step(text: &str, look: impl FnOnce(&StepPlan)) {
    let plan = World::default().plan(text);
    look(plan.step(plan.block(plan.root().body).steps[0]));
}

const STEPS: &str = "  steps:\n    - {name: a, type: work}\n";

#[test]
fn old_spellings_of_limits_become_the_budget() {
    let text = format!(
        "workflow:\n  name: t\n  environment: {{mode: production, cost_alerts: {{enabled: true, threshold_usd: 2.5}}}}\n  resource_limits: {{max_total_steps: 9, max_execution_time_s: 60, max_concurrent_steps: 2}}\n  budget: {{max_steps: 5}}\n{STEPS}"
    );
    let budget = World::default().plan(&text).root().budget.clone();
    assert_eq!(budget.max_cost_usd, Some(2.5));
    assert_eq!(budget.max_steps, Some(5), "`budget` wins");
    assert_eq!(budget.max_duration, Some(Duration::from_secs(60)));
    assert_eq!(budget.max_parallel, Some(2));
    let notes = findings(&text);
    assert!(notes.iter().all(|n| n.contains("note E0111")) && notes.len() == 2, "{notes:#?}");
    let off = format!(
        "workflow:\n  name: t\n  environment: {{cost_alerts: {{enabled: false, threshold_usd: 1}}}}\n{STEPS}"
    );
    assert_eq!(World::default().plan(&off).root().budget.max_cost_usd, None);
}

#[test]
fn retries_merge_with_those_of_defaults() {
    let text = "workflow:\n  name: t\n  defaults: {retry: {max_attempts: 4, backoff: fixed, base_delay: 2s}}\n  steps:\n    - {name: a, type: work, retry: {base_delay: 5s}}\n";
    with_step(text, |step| {
        assert_eq!(step.retry.max_attempts, 4);
        assert_eq!(step.retry.backoff, Backoff::Fixed);
        assert_eq!(step.retry.base_delay, Duration::from_secs(5));
    });
    let wrong = "workflow:\n  name: t\n  defaults: {retry: {backoff: fixd}}\n  steps:\n    - {name: a, type: work}\n    - {name: b, type: work}\n";
    assert_eq!(findings(wrong).len(), 1, "told once, however many steps there are: {:#?}", findings(wrong));
}

#[test]
fn config_of_a_child_is_the_steps_own() {
    let text = "workflow:\n  name: t\n  steps:\n    - name: c\n      type: pipeline\n      config: {timeout_seconds: 7, max_retries: 2, continue_on_error: true, max_depth: 4, max_total_steps: 50, workspace_dir: w, enable_tracing: true}\n      pipeline: {name: i, steps: [{name: x, type: work}]}\n";
    let plan = World::default().plan(text);
    let step = plan.step(plan.block(plan.root().body).steps[0]);
    assert_eq!(step.timeout, Some(Duration::from_secs(7)));
    assert_eq!(step.retry.max_attempts, 3);
    assert!(step.continue_on_error);
    let Body::Child(child) = &step.body else { panic!("a child") };
    assert_eq!((child.max_depth, child.max_total_steps), (4, 50));
    assert_eq!(plan.pipeline(child.pipeline).settings.workspace_dir.as_deref(), Some("w"));
    assert_eq!(findings(text).len(), 1, "{:#?}", findings(text));
}

#[test]
fn references_are_checked_with_a_suggestion() {
    let table = [
        ("steps.frist", "E0202"),
        ("steps.later", "E0203"),
        ("inputs.topik", "E0204"),
        ("state.cuont", "E0205"),
        ("loop.item", "E0206"),
        ("env.SECRET", "E0207"),
        ("run.idd", "E0201"),
        ("workflow.nam", "E0201"),
        ("topci", "E0201"),
        ("previous_response.x", "E0211"),
        ("global_vars.regoin", "E0205"),
        ("lenght([1])", "E0401"),
        ("1 +", "E0401"),
    ];
    for (expression, code) in table {
        let text = format!(
            "workflow:\n  name: t\n  inputs: {{topic: {{type: string}}}}\n  variables: {{count: 1}}\n  global_vars: {{region: eu}}\n  steps:\n    - {{name: first, type: work, value: \"{{{{ {expression} }}}}\"}}\n    - {{name: later, type: work}}\n"
        );
        let found = findings(&text);
        assert!(
            found.len() == 1 && found[0].contains(&format!("7 error {code}")),
            "{expression}: {found:#?}"
        );
    }
    for good in [
        "inputs.topic",
        "topic",
        "state.count",
        "count",
        "variables.count",
        "global_vars.region",
        "run.id",
        "timestamp",
        "workflow.name",
        "steps.nowhere exists",
    ] {
        let text = format!(
            "workflow:\n  name: t\n  inputs: {{topic: {{type: string}}}}\n  variables: {{count: 1}}\n  global_vars: {{region: eu}}\n  steps:\n    - {{name: first, type: work, value: \"{{{{ {good} }}}}\"}}\n"
        );
        assert_eq!(findings(&text), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn many_findings_are_told_at_once() {
    let text = "workflow:\n  name: t\n  nmae: x\n  steps:\n    - {name: a, type: wrok}\n    - {name: b, type: work, value: '{{ steps.z }}'}\n    - {name: b, type: for_loop}\n    - {name: c, type: while_loop, steps: [{name: d, type: break}]}\n";
    let found = findings(text);
    let codes = [
        "3 error E0101",
        "5 error E0105",
        "6 error E0202",
        "7 error E0106",
        "7 error E0102",
        "8 error E0102",
    ];
    for code in codes {
        assert!(found.iter().any(|f| f.starts_with(code)), "{code}: {found:#?}");
    }
}
