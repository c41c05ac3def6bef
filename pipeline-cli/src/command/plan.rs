//! `pipeline plan`: what a run would do, without doing it.
//!
//! Owns `pipeline.plan/1`. Next: `plan/forecast.rs` for bounds, `reuse.rs` for what would be reused.

mod forecast;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use pipeline_core::plan::{CompileOptions, Origin, Plan, Source};
use pipeline_core::value::Value;
use serde_json::{Map, json};

use super::reuse::{Verdicts, reuse};
use super::run::read_rules;
use super::runs::Place;
use super::work::tell_findings;
use crate::app::{self, App};
use crate::args;
use crate::console::{CYAN, DIM, GREEN, YELLOW, paint, short};
use crate::exit::{Exit, Failure};
use crate::report::time;
use crate::setup::{Kept, run_dir};
use forecast::{Bound, Forecast, Line};

/// Prints what would run.
///
/// # Errors
/// [`Failure`] when the run of `--against` cannot be read.
pub async fn plan(app: &App, args: &args::Plan) -> Result<Exit, Failure> {
    let rules = read_rules(app, &args.mock)?;
    let mode = app.settings.mode(args.mock.mock || rules.is_some())?;
    let kinds = app.kinds(mode, rules.as_ref())?;
    let loader = app.sources(&app.settings.state_dir(None));
    let plan = match app::compile(&loader, &args.file, &kinds.catalog, &CompileOptions::default()) {
        Ok((plan, checked)) => {
            tell_findings(app, &checked, false)?;
            Arc::new(plan)
        }
        Err(checked) => {
            tell_findings(app, &checked, true)?;
            return Ok(Exit::Usage);
        }
    };
    let verdicts = match &args.against {
        Some(run) => Some(compared(app, &plan, run).await?),
        None => None,
    };
    let mut forecast = Forecast::of(&plan, &kinds.catalog);
    let budget = [
        app.settings.limits(&args.limits, &plan.root().budget).max_cost_usd,
        plan.root().budget.max_cost_usd,
    ]
    .into_iter()
    .flatten()
    .reduce(f64::min);
    let limit = limited(&mut forecast.cost, budget);
    let timeout = app.settings.limits(&args.limits, &plan.root().budget).timeout;
    let longest = [timeout, plan.root().budget.max_duration].into_iter().flatten().min();
    let cut = limited(&mut forecast.seconds, longest.map(|longest| longest.as_secs_f64()));
    let shown = Shown { app, args, plan: &plan, mode: mode.name(), forecast, limit, cut, verdicts };
    app.console.out(&if app.settings.json { format!("{:#}\n", shown.json()) } else { shown.text() })?;
    Ok(Exit::Success)
}

/// A budget bounds what nothing else bounds: a call that could exceed it is not made.
fn limited(cost: &mut Bound, budget: Option<f64>) -> Option<&'static str> {
    let limit = budget?;
    if cost.as_ref().is_ok_and(|cost| *cost <= limit) {
        return None;
    }
    *cost = Ok(limit);
    Some("the budget")
}

async fn compared(app: &App, plan: &Arc<Plan>, run: &str) -> Result<Verdicts, Failure> {
    let state_dir = app.settings.state_dir(None);
    let store = app::store(&state_dir);
    let place = Place { app, store: &*store, state_dir: &state_dir };
    let stored = place.read(Some(run)).await?;
    let kept = Kept::of(&stored.manifest)?;
    let mut setup = kept.setup(&stored.manifest, run_dir(&state_dir, &stored.manifest.run_id));
    let gone = kept.reveal_some(&mut setup, &app.settings).join(", ");
    if !gone.is_empty() {
        app.console
            .note(&format!("{gone} is not set: a step that uses it is shown as if its value had changed"));
    }
    Ok(reuse(plan, &setup, &stored.records, &BTreeSet::new()).verdicts)
}

struct Shown<'a> {
    app: &'a App,
    args: &'a args::Plan,
    plan: &'a Plan,
    mode: &'static str,
    forecast: Forecast,
    /// What bounds the cost, if it is not the steps.
    limit: Option<&'static str>,
    /// The same of the time.
    cut: Option<&'static str>,
    verdicts: Option<Verdicts>,
}

impl Shown<'_> {
    /// Names of directories, where each is, and who says so.
    fn directories(&self) -> Vec<(&'static str, String, &'static str)> {
        let (settings, file) = (&self.app.settings, &self.plan.root().settings);
        let said = |flag: bool, variable: &str, written: &Option<String>| match (flag, written) {
            (true, _) => "flag",
            _ if settings.variable(variable).is_some() => "environment",
            (_, Some(_)) => "file",
            _ => "default",
        };
        let workspace = settings.workspace_dir(self.args.workspace_dir.as_deref(), file);
        let output = settings.output_dir(self.args.output_dir.as_deref(), file);
        vec![
            (
                "workspace",
                workspace.display().to_string(),
                said(self.args.workspace_dir.is_some(), "PIPELINE_WORKSPACE_DIR", &file.workspace_dir),
            ),
            (
                "outputs",
                output.display().to_string(),
                said(self.args.output_dir.is_some(), "PIPELINE_OUTPUT_DIR", &file.output_dir),
            ),
            (
                "runs",
                settings.state_dir(Some(file)).display().to_string(),
                said(settings.has_state_flag(), "PIPELINE_CHECKPOINT_DIR", &file.checkpoint_dir),
            ),
        ]
    }

    /// Whether programs would have a sandbox.
    fn has_sandbox(&self) -> bool {
        let file = &self.plan.root().settings;
        self.app.settings.sandbox(file.permissions.sandbox, &self.args.sandboxing)
    }

    fn text(&self) -> String {
        let mut out = format!("{} ({})\n", paint(CYAN, short(&self.plan.root().name, 100)), self.mode);
        for input in &self.plan.root().inputs {
            let what = match (&input.default, input.required) {
                (Some(default), _) => format!("default {}", short(&default.to_string(), 80)),
                (None, true) => "required".to_owned(),
                (None, false) => "optional".to_owned(),
            };
            let _ok = writeln!(out, "input {}: {what}", short(&input.name, 80));
        }
        for (number, line) in self.forecast.lines.iter().enumerate() {
            let verdict = (line.depth == 0).then(|| self.verdicts.as_ref()?.get(&line.path)).flatten();
            let _ok =
                writeln!(out, "{:>3}. {}{}", number + 1, "  ".repeat(line.depth), step_text(line, verdict));
            self.origins_text(&mut out, line);
        }
        for (name, path, by) in self.directories() {
            let _ok = writeln!(out, "{name}: {} {}", short(&path, 200), paint(DIM, format!("({by})")));
        }
        if self.has_sandbox() {
            out.push_str("sandbox: around every program, without network but for agent CLIs; without a sandbox none starts\n");
        }
        let bound = |bound: &Bound, show: fn(f64) -> String| match bound {
            Ok(most) => format!("at most {}", show(*most)),
            Err(why) => format!("{} {}", paint(YELLOW, "unbounded:"), short(why, 300)),
        };
        let _ok = writeln!(out, "model calls: {}", bound(&self.forecast.calls, |n| format!("{n}")));
        let by = |limit: Option<&str>| limit.map_or_else(String::new, |by| format!(", by {by}"));
        let spent = bound(&self.forecast.seconds, |seconds| {
            let spent = std::time::Duration::try_from_secs_f64(seconds).unwrap_or(std::time::Duration::MAX);
            time(u64::try_from(spent.as_millis()).unwrap_or(u64::MAX))
        });
        let how = if self.cut.is_none() && self.forecast.seconds.is_ok() {
            ", one step after the other"
        } else {
            ""
        };
        let _ok = writeln!(out, "time: {spent}{how}{}", by(self.cut));
        let _ok = writeln!(
            out,
            "cost: {}{}",
            bound(&self.forecast.cost, |usd| format!("${usd:.4}")),
            by(self.limit)
        );
        out
    }

    /// What the step itself does not say, and who does; everything with -v.
    fn origins_text(&self, out: &mut String, line: &Line) {
        let indent = "  ".repeat(line.depth + 3);
        let origins = self.plan.origins(line.id);
        if self.app.settings.verbose {
            for origin in origins {
                let said = format!("({})", self.said(origin));
                let value = short(&told(origin), 80);
                let _ok = writeln!(out, "{indent}{}: {value} {}", short(&origin.key, 60), paint(DIM, said));
            }
            return;
        }
        for source in [Source::Defaults, Source::Environment, Source::Preset] {
            let of_it = origins.iter().filter(|origin| origin.source == source);
            let values: Vec<String> = of_it.map(|o| format!("{} {}", o.key, short(&told(o), 40))).collect();
            if !values.is_empty() {
                let text = format!("{indent}by {}: {}", source.name(), short(&values.join(", "), 300));
                let _ok = writeln!(out, "{}", paint(DIM, text));
            }
        }
    }

    /// Who said a value, and where.
    fn said(&self, origin: &Origin) -> String {
        match origin.span.and_then(|span| self.plan.sources().locate(span)) {
            Some((file, at)) => format!("{}, {}:{}", origin.source.name(), short(file, 120), at.line),
            None => origin.source.name().to_owned(),
        }
    }

    fn origin_json(&self, origin: &Origin) -> Value {
        let at = origin.span.and_then(|span| self.plan.sources().locate(span));
        json!({
            "key": origin.key, "value": origin.value, "from": origin.source.name(),
            "file": at.map(|(file, _)| file), "line": at.map(|(_, at)| at.line),
        })
    }

    fn json(&self) -> Value {
        let bound = |bound: &Bound| match bound {
            Ok(most) => json!({"at_most": most}),
            Err(why) => json!({"unbounded": why}),
        };
        let step = |line: &Line| {
            let verdict = (line.depth == 0).then(|| self.verdicts.as_ref()?.get(&line.path)).flatten();
            json!({
                "path": line.path, "type": line.kind, "condition": line.condition, "needs": line.needs,
                "model": line.model, "times": line.times.as_ref().map(bound), "max_attempts": line.attempts,
                "timeout_ms": line.timeout.map(|t| t.as_millis()), "file": line.file,
                "values": self.plan.origins(line.id).iter().map(|o| self.origin_json(o)).collect::<Vec<_>>(),
                "against": verdict.map(|v| match v {
                    Ok(attempts) => json!({"verdict": "reuse", "attempts": attempts}),
                    Err(why) => json!({"verdict": "run", "why": why}),
                }),
            })
        };
        let directories = self.directories().into_iter();
        let directories: Map<String, Value> = directories
            .map(|(name, path, by)| (name.to_owned(), json!({"path": path, "from": by})))
            .collect();
        json!({
            "schema": "pipeline.plan/1",
            "workflow": self.plan.root().name,
            "mode": self.mode,
            "inputs": self.plan.root().inputs.iter().map(|input| json!({
                "name": input.name, "required": input.required, "default": input.default,
            })).collect::<Vec<_>>(),
            "fingerprint": self.plan.fingerprint(),
            "steps": self.forecast.lines.iter().map(step).collect::<Vec<_>>(),
            "directories": directories,
            "sandbox": self.has_sandbox(),
            "time_s": bound(&self.forecast.seconds),
            "model_calls": bound(&self.forecast.calls),
            "cost_usd": bound(&self.forecast.cost),
            "bounded_by": self.limit,
        })
    }
}

/// A value as it is written; one that is longer than a line is only named.
fn told(origin: &Origin) -> String {
    match &origin.value {
        None => "…".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn step_text(line: &Line, verdict: Option<&Result<usize, String>>) -> String {
    let name = line.path.rsplit('/').next().unwrap_or(&line.path);
    let mut text = match verdict {
        Some(Ok(_)) => paint(GREEN, "REUSE "),
        Some(Err(_)) => paint(YELLOW, "RUN   "),
        None => String::new(),
    };
    text.push_str(&format!("{} {}", short(name, 60), paint(DIM, format!("({})", line.kind))));
    if let Some(model) = &line.model {
        text.push_str(&format!(" {}", short(model, 60)));
    }
    match &line.times {
        Some(Ok(times)) => text.push_str(&format!(", up to {times} times")),
        Some(Err(_)) => text.push_str(", as often as its list is long"),
        None => {}
    }
    if !line.needs.is_empty() {
        text.push_str(&format!(", after {}", short(&line.needs.join(", "), 120)));
    }
    if let Some(condition) = &line.condition {
        text.push_str(&format!(", if {}", short(condition, 120)));
    }
    if line.attempts > 1 {
        text.push_str(&format!(", up to {} attempts", line.attempts));
    }
    if let Some(timeout) = line.timeout {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        text.push_str(&format!(", within {}", time(ms)));
    }
    if let Some(file) = &line.file {
        text.push_str(&format!(", writes {}", short(file, 100)));
    }
    if let Some(Err(why)) = verdict {
        text.push_str(&format!(": {}", short(why, 200)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_bounds_what_nothing_else_does() {
        let mut cost: Bound = Err("a list".to_owned());
        assert_eq!(limited(&mut cost, None), None);
        assert_eq!(limited(&mut cost, Some(2.0)), Some("the budget"));
        assert_eq!(cost, Ok(2.0));
        let mut cheap: Bound = Ok(0.5);
        assert_eq!(limited(&mut cheap, Some(2.0)), None);
        assert_eq!(cheap, Ok(0.5));
    }
}
