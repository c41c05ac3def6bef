//! Runs as documents.
//!
//! Owns `pipeline.run/1` and `pipeline.runs/1`. Their shapes are contracts with scripts. Must not know streams.

use pipeline_core::engine::{RunReport, StepReport};
use pipeline_core::error::StepError;
use pipeline_core::fact::Usage;
use pipeline_core::path::StepPath;
use pipeline_core::store::RunSummary;
use pipeline_core::value::Value;
use serde_json::{Map, json};

use crate::exit::status_name;

/// One run: what `run --json`, `resume --json` and `runs show --json` print.
pub fn run(report: &RunReport) -> Value {
    let failed_at = report.error.as_ref().and_then(|e| e.path.as_ref()).map(StepPath::as_str);
    let steps: Map<String, Value> =
        report.steps.iter().map(|(name, step)| (name.clone(), step_json(name, step, failed_at))).collect();
    let outputs = match report.outputs.json() {
        Value::Null => json!({}),
        outputs => outputs.clone(),
    };
    let mut document = json!({
        "schema": "pipeline.run/1",
        "run_id": report.run_id,
        "workflow": report.workflow,
        "status": status_name(report.status),
        "outputs": outputs,
        "steps": steps,
        "usage": usage(&report.usage),
        "started_at": report.started_at,
        "duration_ms": report.duration_ms,
        "warnings": report.warnings,
        "error": report.error.as_ref().map(|e| error(&e.error, failed_at)),
    });
    if !report.questions.is_empty() {
        document["questions"] = questions(report);
    }
    document
}

/// What a paused run asks, in the order of the paths.
fn questions(report: &RunReport) -> Value {
    let one = |(path, question): &(StepPath, pipeline_core::schedule::Question)| {
        let mut fields = json!(question);
        if let Value::Object(fields) = &mut fields {
            fields.insert("path".to_owned(), json!(path));
        }
        fields
    };
    report.questions.iter().map(one).collect()
}

/// A list of runs.
pub fn runs(list: &[RunSummary]) -> Value {
    json!({"schema": "pipeline.runs/1", "runs": list})
}

fn step_json(name: &str, step: &StepReport, failed_at: Option<&str>) -> Value {
    // The run's error knows how deep below this step it happened.
    let below = failed_at.filter(|path| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
    });
    json!({
        "status": step.status.map(pipeline_core::fact::Status::name),
        "value": step.value,
        "attempts": step.attempts,
        "duration_ms": step.duration_ms,
        "reused": step.reused,
        "error": step.error.as_ref().map(|e| error(e, below.or(Some(name)))),
    })
}

fn error(error: &StepError, path: Option<&str>) -> Value {
    json!({
        "code": error.details.get("code").filter(|code| code.is_string()),
        "kind": error.kind,
        "message": error.message,
        "step": path.map(step_of),
        "path": path,
        "help": error.help,
        "retryable": error.kind.is_transient(),
    })
}

/// The name of the step at the end of a path: `fan[3]/think` is `think`.
fn step_of(path: &str) -> &str {
    let last = path.rsplit('/').next().unwrap_or(path);
    last.split('[').next().unwrap_or(last)
}

/// A cost that is not known is null, never 0.
pub fn usage(usage: &Usage) -> Value {
    let cost = usage.cost_usd.or_else(|| (usage.unpriced_calls == 0).then_some(0.0));
    json!({
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "cost_usd": cost,
        "unpriced_calls": usage.unpriced_calls,
        "calls": usage.calls,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use pipeline_core::clock::Timestamp;
    use pipeline_core::error::ErrorKind;
    use pipeline_core::fact::{RunError, RunStatus, Status};
    use pipeline_core::value::Data;

    fn step(status: Option<Status>, error: Option<StepError>) -> StepReport {
        let value = Data::new(json!({"text": "hi"}));
        StepReport { status, value, attempts: 1, duration_ms: 3, reused: false, error }
    }

    pub(crate) fn report(status: RunStatus) -> RunReport {
        let error = StepError::new(ErrorKind::RateLimited, "too many requests").help("wait");
        let failed = status == RunStatus::Failed;
        let fan = if failed {
            step(Some(Status::Failed), Some(error.clone()))
        } else {
            step(Some(Status::Ok), None)
        };
        RunReport {
            run_id: "r1".to_owned(),
            workflow: "demo".to_owned(),
            status,
            outputs: if failed { Data::null() } else { Data::new(json!({"answer": 42})) },
            steps: [
                ("list".to_owned(), step(Some(Status::Ok), None)),
                ("fan".to_owned(), fan),
                ("last".to_owned(), StepReport { value: Data::null(), attempts: 0, ..step(None, None) }),
            ]
            .into_iter()
            .collect(),
            usage: Usage { input: 7, output: 2, calls: 1, cost_usd: Some(0.25), ..Usage::default() },
            started_at: Timestamp(1_700_000_000_000),
            duration_ms: 12,
            warnings: vec!["careful".to_owned()],
            error: failed.then(|| RunError { path: Some("fan[3]/think".into()), error }),
            questions: Vec::new(),
            services: Vec::new(),
        }
    }

    #[test]
    fn a_run_has_every_field_of_the_contract() {
        let document = run(&report(RunStatus::Ok));
        let keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "schema",
            "run_id",
            "workflow",
            "status",
            "outputs",
            "steps",
            "usage",
            "started_at",
            "duration_ms",
            "warnings",
            "error",
        ];
        assert_eq!(keys, expected);
        assert_eq!(document["started_at"], "2023-11-14T22:13:20.000Z");
        assert_eq!(document["outputs"], json!({"answer": 42}));
        assert_eq!(document["error"], Value::Null);
        let list = json!({"status": "ok", "value": {"text": "hi"}, "attempts": 1, "duration_ms": 3,
            "reused": false, "error": null});
        assert_eq!(document["steps"]["list"], list);
        assert_eq!(document["steps"]["last"]["status"], Value::Null);
    }

    #[test]
    fn an_error_names_its_step_wherever_it_is() {
        let document = run(&report(RunStatus::Failed));
        let expected = json!({"code": null, "kind": "rate_limited", "message": "too many requests",
            "step": "think", "path": "fan[3]/think", "help": "wait", "retryable": true});
        assert_eq!(document["error"], expected);
        assert_eq!(document["steps"]["fan"]["error"], expected);
        assert_eq!(document["outputs"], json!({}));
    }

    #[test]
    fn an_unknown_cost_is_not_nothing() {
        let unknown = Usage { calls: 1, unpriced_calls: 1, ..Usage::default() };
        assert_eq!(usage(&unknown)["cost_usd"], Value::Null);
        assert_eq!(usage(&Usage::default())["cost_usd"], 0.0);
    }
}
