//! What a run would do at most: steps in order, models, calls, costs, files.
//!
//! Owns [`Forecast`]. A bound is told only where it holds; where there is none, the first reason is told instead.
//! Must not know how it is shown.

use pipeline_core::catalog::Catalog;
use pipeline_core::expr::Dynamic;
use pipeline_core::plan::{
    BlockId, Body, Condition, ForEach, Leaf, OnError, PipelineId, Plan, StepId, StepPlan,
};
use pipeline_core::provider::{Message, ModelRequest, Price};
use pipeline_core::schedule::LONG;
use pipeline_core::value::Value;

/// A number that is never exceeded, or why there is none.
pub type Bound = Result<f64, String>;

/// One step as it is written.
#[derive(Debug)]
pub struct Line {
    /// Which step of the plan.
    pub id: StepId,
    /// Path of names.
    pub path: String,
    /// How deep it stands.
    pub depth: usize,
    /// The type that was written.
    pub kind: String,
    /// What must hold for it to run.
    pub condition: Option<String>,
    /// Names of the steps that it needs, in a graph.
    pub needs: Vec<String>,
    /// Provider and model of a model step.
    pub model: Option<String>,
    /// How often it runs at most, within one turn of what it stands in.
    pub times: Option<Bound>,
    /// Most attempts.
    pub attempts: u32,
    /// Deadline of an attempt.
    pub timeout: Option<std::time::Duration>,
    /// The file that it writes.
    pub file: Option<String>,
}

/// A plan, looked at from outside.
#[derive(Debug)]
pub struct Forecast {
    /// Steps, in the order of the file.
    pub lines: Vec<Line>,
    /// Model calls at most.
    pub calls: Bound,
    /// US dollars at most.
    pub cost: Bound,
    /// Seconds of work at most, one step after the other. Waiting for people and for quotas is not in it.
    pub seconds: Bound,
}

struct Walk<'a> {
    plan: &'a Plan,
    catalog: &'a Catalog,
    lines: Vec<Line>,
    inside: Vec<PipelineId>,
}

/// Calls, dollars and seconds of a part.
#[derive(Clone)]
struct Most {
    calls: Bound,
    cost: Bound,
    seconds: Bound,
}

impl Most {
    fn nothing() -> Self {
        Self { calls: Ok(0.0), cost: Ok(0.0), seconds: Ok(0.0) }
    }

    fn unbounded(why: String) -> Self {
        Self { calls: Err(why.clone()), cost: Err(why.clone()), seconds: Err(why) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: both(self.calls, other.calls, |a, b| a + b),
            cost: both(self.cost, other.cost, |a, b| a + b),
            seconds: both(self.seconds, other.seconds, |a, b| a + b),
        }
    }

    /// Of two parts only one runs.
    fn or(self, other: Self) -> Self {
        Self {
            calls: both(self.calls, other.calls, f64::max),
            cost: both(self.cost, other.cost, f64::max),
            seconds: both(self.seconds, other.seconds, f64::max),
        }
    }

    fn times(self, times: &Bound) -> Self {
        let scale = |bound: Bound| match bound {
            // Nothing, however often, is nothing.
            Ok(0.0) => Ok(0.0),
            bound => both(bound, times.clone(), |a, b| a * b),
        };
        Self { calls: scale(self.calls), cost: scale(self.cost), seconds: scale(self.seconds) }
    }
}

fn both(a: Bound, b: Bound, join: fn(f64, f64) -> f64) -> Bound {
    Ok(join(a?, b?))
}

impl Forecast {
    /// Looks at a plan.
    pub fn of(plan: &Plan, catalog: &Catalog) -> Self {
        let mut walk = Walk { plan, catalog, lines: Vec::new(), inside: Vec::new() };
        let most = walk.block(plan.root().body, "", 0);
        Self { lines: walk.lines, calls: most.calls, cost: most.cost, seconds: most.seconds }
    }
}

impl Walk<'_> {
    fn block(&mut self, id: BlockId, prefix: &str, depth: usize) -> Most {
        let block = self.plan.block(id);
        let mut most = Most::nothing();
        for (at, step) in block.steps.iter().enumerate() {
            let name = |other: &usize| block.steps.get(*other).map(|s| self.plan.step(*s).name.to_string());
            let needs = block.needs.as_ref().and_then(|needs| needs.get(at));
            let needs = needs.map_or_else(Vec::new, |needs| needs.iter().filter_map(name).collect());
            most = most.plus(self.step(*step, prefix, depth, needs));
        }
        most
    }

    fn step(&mut self, id: StepId, prefix: &str, depth: usize, needs: Vec<String>) -> Most {
        let step = self.plan.step(id);
        let path = format!("{prefix}{}", step.name);
        let times = times(step, &path);
        self.lines.push(Line {
            id,
            path: path.clone(),
            depth,
            kind: step.written_type.to_string(),
            condition: step.condition.as_ref().map(words),
            needs,
            model: match &step.body {
                Body::Leaf(leaf) => model(leaf, self.catalog),
                _ => None,
            },
            times: times.clone(),
            attempts: step.retry.max_attempts,
            timeout: step.timeout,
            file: step
                .output_to_file
                .as_ref()
                .map(|file| file.source().to_owned())
                .or_else(|| destination(step)),
        });
        let below = format!("{path}/");
        let mut most = match &step.body {
            Body::Leaf(leaf) => self.leaf(leaf, step, &path),
            Body::Ask(_) | Body::Break | Body::Continue => Most::nothing(),
            Body::ForEach(form) => self.block(form.body, &below, depth + 1),
            Body::While(form) => self.block(form.body, &below, depth + 1),
            Body::Parallel(parallel) => {
                let mut all = Most::nothing();
                for (id, branch) in &parallel.branches {
                    all = all.plus(self.block(*branch, &format!("{below}{id}/"), depth + 1));
                }
                all
            }
            Body::Choose(choose) => {
                let mut most = Most::nothing();
                for (value, case) in &choose.cases {
                    let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    most = most.or(self.block(*case, &format!("{below}{name}/"), depth + 1));
                }
                match choose.default {
                    Some(default) => most.or(self.block(default, &format!("{below}default/"), depth + 1)),
                    None => most,
                }
            }
            Body::Child(child) if self.inside.contains(&child.pipeline) => Most::unbounded(format!(
                "`{path}` is the same pipeline again, up to {} deep",
                child.max_depth
            )),
            Body::Child(child) => {
                self.inside.push(child.pipeline);
                let most = self.block(self.plan.pipeline(child.pipeline).body, &below, depth + 1);
                self.inside.pop();
                most
            }
        };
        if let Some(times) = &times {
            most = most.times(times);
        }
        if let (Some(timeout), false) = (step.timeout, matches!(step.body, Body::Leaf(_))) {
            most.seconds = Ok(at_most(&most.seconds, timeout.as_secs_f64()));
        }
        for other in &step.fallback {
            most = most.plus(self.leaf(other, step, &path));
        }
        most = most.times(&Ok(f64::from(step.retry.max_attempts)));
        most.seconds = most.seconds.map(|seconds| seconds + waits(step));
        if let OnError::Steps(instead) = &step.on_error {
            most = most.plus(self.block(*instead, &format!("{below}on_error/"), depth + 1));
        }
        match step.budget.max_cost_usd {
            Some(limit) => Most { cost: Ok(at_most(&most.cost, limit)), ..most },
            None => most,
        }
    }

    /// One attempt.
    fn leaf(&self, leaf: &Leaf, step: &StepPlan, path: &str) -> Most {
        let seconds = step.timeout.map(|timeout| timeout.as_secs_f64());
        let seconds = seconds.ok_or_else(|| format!("`{path}` has no timeout"));
        if &*leaf.kind != "prompt" {
            return Most { seconds, ..Most::nothing() };
        }
        let unbounded = |why: String| Most { seconds: seconds.clone(), ..Most::unbounded(why) };
        // No tools are no turns.
        let is_empty = value(&leaf.with, "tools").and_then(Value::as_array).is_some_and(Vec::is_empty);
        if has(&leaf.with, "tools") && !is_empty {
            return unbounded(format!("`{path}` calls tools, in as many turns as its model asks for"));
        }
        let repairs = if has(&leaf.with, "output_schema") {
            1 + number(&leaf.with, "repair_attempts").unwrap_or(2)
        } else {
            1
        };
        let calls = Ok(repairs as f64);
        let cost = self.cost(leaf, path).map(|cost| cost * repairs as f64);
        Most { calls, cost, seconds }
    }

    /// US dollars of one call.
    fn cost(&self, leaf: &Leaf, path: &str) -> Bound {
        let Some(provider) = text(&leaf.with, "provider").and_then(|name| self.catalog.provider(name)) else {
            return Err(format!("the provider of `{path}` is known only when it runs"));
        };
        let prompt = value(&leaf.with, "prompt").map(Value::to_string);
        let request = ModelRequest {
            model: text(&leaf.with, "model").map(str::to_owned),
            messages: vec![Message::user(prompt.clone().unwrap_or_default())],
            max_output_tokens: number(&leaf.with, "max_output_tokens"),
            ..ModelRequest::default()
        };
        match provider.worst_case(&request).cost {
            // What costs nothing costs nothing at any length.
            Price::AtMost(0.0) => Ok(0.0),
            Price::AtMost(usd) if prompt.is_some() => Ok(usd),
            Price::AtMost(usd) => Err(format!(
                "the length of the prompt of `{path}` is known only when it runs (its answer: at most ${usd:.4})"
            )),
            Price::AsAllowed => Err(format!("`{path}` is an agent that spends what it is allowed")),
            Price::Unknown => Err(format!("the model of `{path}` has no known price")),
        }
    }
}

/// A bound with a limit of its own.
fn at_most(bound: &Bound, limit: f64) -> f64 {
    bound.as_ref().map_or(limit, |bound| bound.min(limit))
}

/// How long a step waits between its tries at most, in seconds.
fn waits(step: &StepPlan) -> f64 {
    let ways = 1.0 + step.fallback.len() as f64;
    let each = step.retry.max_delay.max(LONG).as_secs_f64();
    ways * f64::from(step.retry.max_attempts.saturating_sub(1)) * each
}

/// Where a file operation writes.
fn destination(step: &StepPlan) -> Option<String> {
    let Body::Leaf(leaf) = &step.body else { return None };
    if &*leaf.kind != "file_ops" {
        return None;
    }
    match text(&leaf.with, "destination") {
        Some(path) => Some(path.to_owned()),
        None => has(&leaf.with, "destination").then(|| "a path that a template makes".to_owned()),
    }
}

/// How often the body of a loop runs.
fn times(step: &StepPlan, path: &str) -> Option<Bound> {
    match &step.body {
        Body::ForEach(form) => Some(turns(form, path)),
        Body::While(form) => Some(Ok(form.max_iterations as f64)),
        _ => None,
    }
}

fn turns(form: &ForEach, path: &str) -> Bound {
    let most = form.max_iterations.map(|n| n as f64);
    let written = match &form.source {
        Dynamic::Const(list) => list.json().as_array().map(Vec::len),
        Dynamic::List(items) => Some(items.len()),
        _ => None,
    };
    match (written.map(|n| n as f64), most) {
        (Some(written), Some(most)) => Ok(written.min(most)),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => {
            Err(format!("the list of `{path}` is known only when it runs; `max_iterations` would bound it"))
        }
    }
}

fn model(leaf: &Leaf, catalog: &Catalog) -> Option<String> {
    if &*leaf.kind != "prompt" {
        return None;
    }
    let provider = text(&leaf.with, "provider");
    let model = match text(&leaf.with, "model") {
        Some(model) => model.to_owned(),
        None if has(&leaf.with, "model") => "a model made by a template".to_owned(),
        None => provider
            .and_then(|p| catalog.provider(p))
            .map_or("its default model", |p| p.default_model())
            .to_owned(),
    };
    Some(format!("{}/{model}", provider.unwrap_or("?")))
}

/// A condition as people write it.
pub fn words(condition: &Condition) -> String {
    let joined = |list: &[Condition], word: &str| list.iter().map(words).collect::<Vec<_>>().join(word);
    match condition {
        Condition::Const(value) => value.to_string(),
        Condition::Expr(expr) => expr.source().to_owned(),
        Condition::All(list) => joined(list, " and "),
        Condition::Any(list) => format!("({})", joined(list, " or ")),
        Condition::Not(one) => format!("not ({})", words(one)),
    }
}

/// Whether a configuration has a field.
fn has(with: &Dynamic, name: &str) -> bool {
    match with {
        Dynamic::Map(entries) => entries.iter().any(|(key, _)| key == name),
        _ => value(with, name).is_some(),
    }
}

/// A field of a configuration that is known before it runs.
fn value<'a>(with: &'a Dynamic, name: &str) -> Option<&'a Value> {
    match with {
        Dynamic::Const(whole) => whole.json().get(name),
        Dynamic::Map(entries) => match entries.iter().find(|(key, _)| key == name)? {
            (_, Dynamic::Const(value)) => Some(value.json()),
            _ => None,
        },
        _ => None,
    }
}

fn text<'a>(with: &'a Dynamic, name: &str) -> Option<&'a str> {
    value(with, name)?.as_str()
}

fn number(with: &Dynamic, name: &str) -> Option<u64> {
    value(with, name)?.as_u64()
}
