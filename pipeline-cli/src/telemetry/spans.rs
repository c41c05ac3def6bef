//! Facts become spans: the run, its loops and branches, every attempt of a step, every model call.
//!
//! Owns [`Spans`], plain data without time or IO of its own. The trace follows from the run's id, so that a resume adds to
//! the same one. No prompt, answer or error text is in a span. Next: `otlp.rs`, which writes them.

use std::collections::HashMap;

use pipeline_core::clock::Timestamp;
use pipeline_core::fact::{AttemptEnd, Fact, Record, RunStatus, Usage};
use pipeline_core::path::StepPath;
use pipeline_core::value::{Hash, Value};
use serde_json::json;

use super::semconv::{self, ours};
use crate::exit::status_name;

/// Loops, branches and items that have a span of their own; what is below others hangs on the nearest that has.
const MOST_GROUPS: usize = 20_000;

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its id, 16 hexadecimal digits.
    pub id: String,
    /// What it is part of.
    pub parent: Option<String>,
    /// What it is.
    pub name: String,
    /// It is a call to somewhere else.
    pub is_call: bool,
    /// When it began, Unix milliseconds.
    pub start: i64,
    /// When it ended.
    pub end: i64,
    /// It did not succeed.
    pub is_error: bool,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
}

/// An attempt that has begun.
struct Open {
    start: i64,
    /// End of the last thing that is known to have ended in it.
    since: i64,
    calls: u64,
    used: Usage,
}

struct Group {
    parent: String,
    start: i64,
    end: i64,
}

/// The spans of one process that works on a run.
pub struct Spans {
    run: String,
    workflow: String,
    root: String,
    start: Option<i64>,
    open: HashMap<(StepPath, u32), Open>,
    groups: HashMap<String, Group>,
    is_over: bool,
}

/// The trace that a run belongs to, 32 hexadecimal digits.
pub fn trace_of(run: &str) -> String {
    digits(&format!("trace {run}"), 32)
}

fn digits(of: &str, count: usize) -> String {
    Hash::of_bytes(of.as_bytes()).to_string().chars().filter(char::is_ascii_hexdigit).take(count).collect()
}

impl Spans {
    /// For a run that begins or goes on.
    pub fn new(run: &str, workflow: &str) -> Self {
        Self {
            run: run.to_owned(),
            workflow: workflow.to_owned(),
            root: String::new(),
            start: None,
            open: HashMap::new(),
            groups: HashMap::new(),
            is_over: false,
        }
    }

    /// What has ended with this fact.
    pub fn apply(&mut self, record: &Record) -> Vec<Span> {
        let at = record.at.0;
        if self.start.is_none() {
            self.start = Some(at);
            // Each process that works on the run has a root of its own in the same trace.
            self.root = digits(&format!("root {} {}", self.run, record.index), 16);
        }
        match &record.fact {
            Fact::AttemptStarted { path, attempt, .. } => {
                let open = Open { start: at, since: at, calls: 0, used: Usage::default() };
                self.open.insert((path.clone(), *attempt), open);
                Vec::new()
            }
            Fact::EffectDone { path, attempt, usage, value, .. } => {
                self.effect(path, *attempt, usage.as_ref(), value.json(), at).into_iter().collect()
            }
            Fact::AttemptEnded { path, attempt, end, .. } => self.ended(path, *attempt, end, at),
            Fact::RunPaused { reason } => self.over(reason.status(), at),
            Fact::RunEnded { status, .. } => self.over(*status, at),
            _ => Vec::new(),
        }
    }

    fn effect(
        &mut self,
        path: &StepPath,
        attempt: u32,
        usage: Option<&Usage>,
        value: &Value,
        at: i64,
    ) -> Option<Span> {
        let parent = self.id(path, attempt);
        let open = self.open.get_mut(&(path.clone(), attempt))?;
        let since = std::mem::replace(&mut open.since, at);
        let usage = usage.filter(|usage| usage.calls > 0)?;
        open.calls += usage.calls;
        open.used.add(usage);
        let number = open.calls;
        Some(call(&parent, number, value, usage, since, at))
    }

    fn ended(&mut self, path: &StepPath, attempt: u32, end: &AttemptEnd, at: i64) -> Vec<Span> {
        let id = self.id(path, attempt);
        let length = i64::try_from(end.duration_ms).unwrap_or(0);
        // What began before this process took over has no beginning here.
        let open = self.open.remove(&(path.clone(), attempt)).unwrap_or(Open {
            start: at - length,
            since: at - length,
            calls: 0,
            used: Usage::default(),
        });
        let mut all = Vec::new();
        // The last effect of an attempt has no fact of its own.
        if end.usage.calls > open.calls {
            let rest = Usage {
                input: end.usage.input.saturating_sub(open.used.input),
                output: end.usage.output.saturating_sub(open.used.output),
                calls: end.usage.calls - open.calls,
                ..Usage::default()
            };
            let mut last = call(&id, end.usage.calls, end.value.json(), &rest, open.since, at);
            last.is_error = !end.status.is_success();
            all.push(last);
        }
        let parent = self.parent(path.as_str(), open.start, at);
        let mut attributes = vec![
            (ours::RUN, json!(self.run)),
            (ours::PATH, json!(path)),
            (ours::ATTEMPT, json!(attempt)),
            (ours::STATUS, json!(end.status.name())),
        ];
        if let Some(error) = &end.error {
            attributes.push((semconv::ERROR_TYPE, json!(error.kind.name())));
        }
        if let Some(cost) = end.usage.cost_usd {
            attributes.push((ours::COST, json!(cost)));
        }
        let name = path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let is_error = !end.status.is_success();
        all.push(Span {
            id,
            parent: Some(parent),
            name,
            is_call: false,
            start: open.start,
            end: at,
            is_error,
            attributes,
        });
        all
    }

    fn over(&mut self, status: RunStatus, at: i64) -> Vec<Span> {
        if std::mem::replace(&mut self.is_over, true) {
            return Vec::new();
        }
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut all: Vec<Span> = self
            .groups
            .drain()
            .map(|(path, group)| Span {
                id: group_id(&self.root, &path),
                parent: Some(group.parent),
                name: name(&path),
                is_call: false,
                start: group.start,
                end: group.end,
                is_error: false,
                attributes: vec![(ours::RUN, json!(self.run)), (ours::PATH, json!(path))],
            })
            .collect();
        all.push(Span {
            id: self.root.clone(),
            parent: None,
            name: format!("run {}", self.workflow),
            is_call: false,
            start: self.start.unwrap_or(at),
            end: at,
            is_error: matches!(status, RunStatus::Failed | RunStatus::TimedOut | RunStatus::Cancelled),
            attributes: vec![
                (ours::RUN, json!(self.run)),
                (ours::WORKFLOW, json!(self.workflow)),
                (ours::STATUS, json!(status_name(status))),
            ],
        });
        all
    }

    fn id(&self, path: &StepPath, attempt: u32) -> String {
        digits(&format!("attempt {} {path} {attempt}", self.root), 16)
    }

    /// The span around something: the nearest loop, branch or item that has one, which now lasts at least as long.
    fn parent(&mut self, path: &str, start: i64, end: i64) -> String {
        let mut parent = self.root.clone();
        for (at, c) in path.char_indices() {
            // `fan[3]/think` stands in `fan` and in `fan[3]`.
            if c != '/' && c != '[' {
                continue;
            }
            let Some(prefix) = path.get(..at) else { break };
            if !self.groups.contains_key(prefix) && self.groups.len() >= MOST_GROUPS {
                break;
            }
            let group =
                self.groups.entry(prefix.to_owned()).or_insert(Group { parent: parent.clone(), start, end });
            group.start = group.start.min(start);
            group.end = group.end.max(end);
            parent = group_id(&self.root, prefix);
        }
        parent
    }
}

fn group_id(root: &str, path: &str) -> String {
    digits(&format!("group {root} {path}"), 16)
}

/// A model call. `value` is what came of it, or of the attempt that it was the last of.
fn call(parent: &str, number: u64, value: &Value, usage: &Usage, start: i64, end: i64) -> Span {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let mut attributes = vec![
        (semconv::OPERATION, json!("chat")),
        (semconv::INPUT_TOKENS, json!(usage.input)),
        (semconv::OUTPUT_TOKENS, json!(usage.output)),
    ];
    if let Some(provider) = text("provider") {
        attributes.push((semconv::PROVIDER, json!(semconv::provider(provider))));
    }
    let name = match text("model") {
        Some(model) => {
            attributes.push((semconv::MODEL, json!(model)));
            format!("chat {model}")
        }
        None => "chat".to_owned(),
    };
    let id = digits(&format!("call {parent} {number}"), 16);
    Span { id, parent: Some(parent.to_owned()), name, is_call: true, start, end, is_error: false, attributes }
}

/// When something was, as the wire has it.
pub fn nanoseconds(at: i64) -> String {
    Timestamp(at).0.max(0).saturating_mul(1_000_000).to_string()
}
