//! Tells for each step where its effective values came from.
//!
//! Goes by the places of values: what stands in `defaults` came from there, whoever copied it. The normaliser places a value
//! that a preset gives at the preset's name. Must not decide anything: the step is compiled already.

use std::time::Duration;

use crate::diagnostic::Span;
use crate::document::{Entry, Node, NodeKind};
use crate::plan::compile::Compiler;
use crate::plan::{Body, Origin, Retry, Source, StepPlan};
use crate::value::Value;

/// Longest value that is kept, as JSON.
const LONGEST: usize = 160;

/// Deepest nesting of keys that are told one by one.
const DEEPEST: usize = 3;

fn contains(outer: Span, inner: Span) -> bool {
    outer.file == inner.file && outer.start <= inner.start && inner.end <= outer.end
}

fn short(value: Value) -> Option<Value> {
    let is_short = match &value {
        Value::String(text) => text.len() <= LONGEST && !text.trim_end().contains('\n'),
        Value::Array(_) | Value::Object(_) => value.to_string().len() <= LONGEST,
        _ => true,
    };
    is_short.then_some(value)
}

fn seconds(time: Option<Duration>) -> Value {
    time.map_or(Value::from("none"), |t| Value::from(t.as_secs_f64()))
}

struct Origins<'c> {
    compiler: &'c Compiler<'c>,
    preset: Option<Span>,
    all: Vec<Origin>,
}

impl Origins<'_> {
    fn source(&self, span: Span) -> Source {
        let scope = &self.compiler.scope;
        if scope.default_spans.iter().any(|outer| contains(*outer, span)) {
            Source::Defaults
        } else if scope.mode.as_ref().is_some_and(|mode| contains(mode.span, span)) {
            Source::Environment
        } else {
            Source::Step
        }
    }

    fn push(&mut self, key: &str, value: Value, said: Option<Span>) {
        let source = match said {
            None => Source::BuiltIn,
            Some(span) if self.preset == Some(span) && key != "preset" => Source::Preset,
            Some(span) => self.source(span),
        };
        self.all.push(Origin { key: key.to_owned(), value: short(value), source, span: said });
    }

    fn entry(&mut self, path: &str, entry: &Entry, depth: usize) {
        let key = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
        if let NodeKind::Map(entries) = &entry.value.kind
            && depth < DEEPEST
            && !entries.is_empty()
            && !matches!(entry.key.as_str(), "output_schema" | "parameters")
        {
            return entries.iter().for_each(|e| self.entry(&key, e, depth + 1));
        }
        self.push(&key, entry.value.to_json(), Some(entry.value.span));
    }
}

impl Compiler<'_> {
    /// The origins of a compiled step. `config` is the leaf's configuration in kernel form.
    pub(super) fn origins(&self, node: &Node, step: &StepPlan, config: &[Entry]) -> Vec<Origin> {
        let defaults = self.scope.defaults.as_ref();
        let default = |key: &str| defaults.and_then(|d| d.get(key));
        let preset = node.get("preset").or(default("claude_preset")).map(|n| n.span);
        let mut origins = Origins { compiler: self, preset, all: Vec::new() };
        let own = |keys: &[&str]| keys.iter().find_map(|k| node.get(k)).map(|n| n.span);
        let of_config = |key: &str| node.get("config").and_then(|c| c.get(key)).map(|n| n.span);
        let is_leaf = matches!(step.body, Body::Leaf(_));
        let options = node.get("claude_options").or(default("claude_options"));
        let timeout = own(&["timeout", "timeout_seconds", "timeout_ms"])
            .or(of_config("timeout_seconds"))
            .or(options.and_then(|o| o.get("timeout_ms")).map(|n| n.span))
            .or(default("timeout_seconds").filter(|_| is_leaf).map(|n| n.span))
            .or(preset);
        origins.push("timeout", seconds(step.timeout), timeout);
        self.retry_origins(node, step, &mut origins);
        let go_on = own(&["continue_on_error"])
            .or(of_config("continue_on_error"))
            .or(default("continue_on_error").map(|n| n.span));
        origins.push("continue_on_error", step.continue_on_error.into(), go_on);
        if let Some(most) = match &step.body {
            Body::Parallel(parallel) => Some(parallel.max_parallel),
            Body::ForEach(each) => each.parallel,
            _ => None,
        } {
            let batch =
                ["batch_config", "parallel_config"].iter().find_map(|k| node.get(k)?.get("max_parallel"));
            let said =
                own(&["max_parallel"]).or(batch.map(|n| n.span)).or(default("max_parallel").map(|n| n.span));
            origins.push("max_parallel", most.into(), said);
        }
        for entry in config {
            origins.entry("", entry, 0);
        }
        self.built_in(step, config, &mut origins);
        origins.all
    }

    fn retry_origins(&self, node: &Node, step: &StepPlan, origins: &mut Origins<'_>) {
        let own = node.get("retry").or(node.get("retry_config"));
        // A control form is not tried again because its steps are.
        let is_leaf = matches!(step.body, Body::Leaf(_));
        let default = self.scope.defaults.as_ref().and_then(|d| d.get("retry")).filter(|_| is_leaf);
        let by_preset = origins.preset.filter(|_| own.is_none() && default.is_none());
        let Retry { max_attempts, backoff, base_delay, max_delay, jitter, on } = &step.retry;
        let kinds: Vec<Value> = on.iter().map(|kind| kind.name().into()).collect();
        let backoff = serde_json::to_value(backoff).unwrap_or_default();
        let all: [(&str, &[&str], Value); 6] = [
            ("max_attempts", &["max_attempts", "max_retries"], (*max_attempts).into()),
            ("backoff", &["backoff", "backoff_strategy"], backoff),
            ("base_delay", &["base_delay", "base_delay_ms"], seconds(Some(*base_delay))),
            ("max_delay", &["max_delay", "max_delay_ms"], seconds(Some(*max_delay))),
            ("jitter", &["jitter"], (*jitter).into()),
            ("on", &["on", "retry_conditions", "retry_on"], kinds.into()),
        ];
        let of_config = node.get("config").and_then(|c| c.get("max_retries")).map(|n| n.span);
        for (key, spellings, value) in all {
            let within = |from: Option<&Node>| {
                let from = from?;
                // `retry: 3` is the number of tries.
                let is_count = key == "max_attempts" && from.as_u64().is_some();
                let said = spellings.iter().find_map(|s| from.get(s)).or(is_count.then_some(from));
                said.map(|n| n.span)
            };
            let said = within(own)
                .or(of_config.filter(|_| key == "max_attempts"))
                .or(within(default))
                .or(by_preset.filter(|_| matches!(key, "max_attempts" | "backoff" | "on")));
            if key == "max_attempts" || *max_attempts > 1 {
                origins.push(&format!("retry.{key}"), value, said);
            }
        }
    }

    /// What the step's kind does where nothing is said: the defaults of its schema.
    fn built_in(&self, step: &StepPlan, config: &[Entry], origins: &mut Origins<'_>) {
        let Body::Leaf(leaf) = &step.body else { return };
        let Some(spec) = self.catalog.step(&leaf.kind).map(|s| s.spec()) else { return };
        let properties = spec.schema.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            let value = schema.get("default").filter(|v| !v.is_null());
            if let Some(value) = value.filter(|_| !config.iter().any(|e| e.key == *name)) {
                origins.push(name, value.clone(), None);
            }
        }
    }
}
