//! Pipelines made in code, without YAML.
//!
//! Owns [`Workflow`] and [`StepDef`], which write the same document that a file would be, so that one compiler checks both and
//! a run stores both. Keys that have no method here are set with [`StepDef::with`] and [`Workflow::with`]; the compiler
//! knows them all. Must not know what keys mean. Next: `runner.rs`, which compiles and runs it.

use std::time::Duration;

use serde_json::{Map, json};

use crate::diagnostic::Span;
use crate::document::{Entry, Node};
use crate::error::ErrorKind;
use crate::plan::{Budget, InputKind, Retry};
use crate::source::MemorySources;
use crate::value::Value;

/// What the canonical name of a text begins with that was made here.
const IN_CODE: &str = "code:";

/// A pipeline, as a file would say it. Texts with `{{ }}` are templates, as in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    name: String,
    keys: Map<String, Value>,
}

/// One step, as a file would say it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDef(Map<String, Value>);

/// One declared input.
#[derive(Debug, Clone, PartialEq)]
pub struct Input(Map<String, Value>);

impl Workflow {
    /// A pipeline without steps.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        let keys = [("name".to_owned(), Value::from(name.clone()))].into_iter().collect();
        Self { name, keys }
    }

    /// Declares an input. Once one is declared, a name that is neither input, state nor step is an error.
    #[must_use]
    pub fn input(mut self, name: &str, input: Input) -> Self {
        put_below(&mut self.keys, "inputs", name, Value::Object(input.0));
        self
    }

    /// Sets a variable before the first step.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<Value>) -> Self {
        put_below(&mut self.keys, "variables", name, value.into());
        self
    }

    /// Adds a step after those that are there.
    #[must_use]
    pub fn step(mut self, step: StepDef) -> Self {
        if let Value::Array(steps) = self.keys.entry("steps").or_insert_with(|| json!([])) {
            steps.push(Value::Object(step.0));
        }
        self
    }

    /// Names something that the run returns: an expression (`steps.x.text`), a template, or a constant. Without any, it
    /// returns the value of every step.
    #[must_use]
    pub fn output(mut self, name: &str, value: impl Into<Value>) -> Self {
        put_below(&mut self.keys, "outputs", name, value.into());
        self
    }

    /// Limits of the whole run.
    #[must_use]
    pub fn budget(self, budget: &Budget) -> Self {
        let mut keys = Map::new();
        let mut limit = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                keys.insert(key.to_owned(), value);
            }
        };
        limit("max_cost_usd", budget.max_cost_usd.map(Value::from));
        limit("max_tokens", budget.max_tokens.map(Value::from));
        limit("max_steps", budget.max_steps.map(Value::from));
        limit("max_duration", budget.max_duration.map(duration));
        limit("max_parallel", budget.max_parallel.map(Value::from));
        self.with("budget", keys)
    }

    /// Sets any key of a workflow; see the language's reference.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.insert(key.to_owned(), value.into());
        self
    }

    /// The document: what a file with this pipeline says, as JSON.
    pub fn document(&self) -> Value {
        json!({ "workflow": self.keys })
    }

    /// The document as a source of one text. Findings in it are placed by builder path; see [`crate::runner::Findings`].
    pub fn source(&self) -> (MemorySources, String) {
        let name = format!("{IN_CODE}{}", self.name.replace('/', "-"));
        (MemorySources::default().with(&name, format!("{:#}", self.document())), name)
    }
}

impl StepDef {
    /// A step of a type of the catalog.
    pub fn new(name: &str, kind: &str) -> Self {
        Self([("name".to_owned(), name.into()), ("type".to_owned(), kind.into())].into_iter().collect())
    }

    /// A body for each item of a list, which is an expression or a list. In the body the item is `loop.item`. One after the
    /// other, unless [`StepDef::at_once`] says more.
    pub fn for_each(name: &str, items: impl Into<Value>, body: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, "for_loop").with("data_source", items).with("steps", list(body))
    }

    /// A body as long as a condition holds, at most `max_turns` times.
    pub fn repeat_while(
        name: &str,
        condition: &str,
        max_turns: u64,
        body: impl IntoIterator<Item = Self>,
    ) -> Self {
        Self::new(name, "while_loop")
            .with("condition", condition)
            .with("max_iterations", max_turns)
            .with("steps", list(body))
    }

    /// Steps that run at the same time.
    pub fn parallel(name: &str, branches: impl IntoIterator<Item = Self>) -> Self {
        Self::new(name, "parallel").with("steps", list(branches))
    }

    /// One of several lists of steps, by the value of an expression.
    pub fn choose<'a>(
        name: &str,
        expression: &str,
        cases: impl IntoIterator<Item = (&'a str, Vec<Self>)>,
        default: impl IntoIterator<Item = Self>,
    ) -> Self {
        let cases: Map<String, Value> =
            cases.into_iter().map(|(value, steps)| (value.to_owned(), list(steps))).collect();
        Self::new(name, "switch")
            .with("expression", expression)
            .with("cases", cases)
            .with("default", list(default))
    }

    /// Another pipeline in a scope of its own, with its inputs.
    pub fn child(name: &str, workflow: Workflow, inputs: Map<String, Value>) -> Self {
        Self::new(name, "pipeline").with("pipeline", workflow.keys).with("inputs", inputs)
    }

    /// A question to a person: the run stops until it is answered.
    pub fn approval(name: &str, message: &str) -> Self {
        Self::new(name, "approval").with("message", message)
    }

    /// Sets any key of a step: those of its type, and those that every step has.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Runs only when this holds.
    #[must_use]
    pub fn when(self, condition: &str) -> Self {
        self.with("condition", condition)
    }

    /// Starts when these steps of the same list have ended. A list in which any step says so is a graph.
    #[must_use]
    pub fn needs<'a>(self, steps: impl IntoIterator<Item = &'a str>) -> Self {
        self.with("needs", steps.into_iter().collect::<Vec<_>>())
    }

    /// The deadline of one attempt of a leaf, or of the whole of a control form.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("timeout", duration(timeout))
    }

    /// When to try again.
    #[must_use]
    pub fn retry(self, retry: &Retry) -> Self {
        let on: Vec<&str> = retry.on.iter().copied().map(ErrorKind::name).map(retry_word).collect();
        self.with(
            "retry",
            json!({
                "max_attempts": retry.max_attempts,
                "backoff": retry.backoff,
                "base_delay": duration(retry.base_delay),
                "max_delay": duration(retry.max_delay),
                "jitter": retry.jitter,
                "on": on,
            }),
        )
    }

    /// Most branches or turns at once. A loop becomes a fan-out by it.
    #[must_use]
    pub fn at_once(self, most: usize) -> Self {
        let is_loop = self.0.get("type").is_some_and(|kind| kind == "for_loop");
        let step = self.with("max_parallel", most);
        if is_loop { step.with("parallel", true) } else { step }
    }
}

impl Input {
    /// A required input of a type.
    pub fn new(kind: InputKind) -> Self {
        Self([("type".to_owned(), json!(kind)), ("required".to_owned(), true.into())].into_iter().collect())
    }

    /// The value when a run gives none; the input is no longer required.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.0.shift_remove("required");
        self.0.insert("default".to_owned(), value.into());
        self
    }

    /// The allowed values.
    #[must_use]
    pub fn one_of<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        let values: Vec<Value> = values.into_iter().map(Into::into).collect();
        self.0.insert("enum".to_owned(), values.into());
        self
    }
}

fn put_below(keys: &mut Map<String, Value>, group: &str, name: &str, value: Value) {
    if let Value::Object(group) = keys.entry(group).or_insert_with(|| json!({})) {
        group.insert(name.to_owned(), value);
    }
}

fn list(steps: impl IntoIterator<Item = StepDef>) -> Value {
    steps.into_iter().map(|step| Value::Object(step.0)).collect()
}

/// A length of time, exact to the millisecond.
fn duration(length: Duration) -> Value {
    format!("{}ms", length.as_millis()).into()
}

/// Two kinds have another word in `retry.on`.
fn retry_word(kind: &'static str) -> &'static str {
    match kind {
        "timed_out" => "timeout",
        "rate_limited" => "rate_limit",
        other => other,
    }
}

/// Whether a text was made by a builder.
pub(crate) fn is_in_code(canonical: &str) -> bool {
    canonical.starts_with(IN_CODE)
}

/// Where a span lies in a document, as a path of keys and places: `workflow.steps[1:critique].prompt`.
pub(crate) fn path_at(node: &Node, span: Span) -> String {
    let mut path = String::new();
    let mut here = node;
    loop {
        let entry =
            here.entries().iter().find(|e| covers(e.key_span, span) || covers(e.value.extent(), span));
        let item = here.items().iter().enumerate().find(|(_, item)| covers(item.extent(), span));
        if let Some(Entry { key, value, .. }) = entry {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
            here = value;
        } else if let Some((index, item)) = item {
            let name = item.get("name").and_then(Node::as_text).map(|name| format!(":{name}"));
            path.push_str(&format!("[{index}{}]", name.unwrap_or_default()));
            here = item;
        } else {
            return path;
        }
    }
}

fn covers(outer: Span, inner: Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}
