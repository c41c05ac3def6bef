//! A schedule in one's hands: what it asks for when attempts end in a given order, with no engine and no time between.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pipeline_core::catalog::Catalog;
use pipeline_core::clock::Timestamp;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::{AttemptEnd, OpResult, Outcome, RunStatus, Status};
use pipeline_core::path::{OpKey, OpRole};
use pipeline_core::plan::{CompileOptions, Inputs, compile};
use pipeline_core::schedule::{Command, Op, Schedule, Start, StepDone, TaskCall, TaskWork};
use pipeline_core::source::{MemorySources, SourceRef};
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use serde_json::json;

use super::support::World;

/// A model step that takes any key and is never run: what it is asked is looked at instead.
struct Prompt;

#[async_trait]
impl Step for Prompt {
    fn spec(&self) -> StepSpec {
        let schema = serde_json::from_value(json!({"type": "object"})).unwrap();
        StepSpec { kind: "prompt", summary: "Scripted.", schema, example: "" }
    }

    async fn run(&self, _: &StepContext, _: Data) -> Result<StepOutput, StepError> {
        Ok(StepOutput::ok(Value::Null))
    }
}

fn catalog() -> Catalog {
    let mut catalog = World::default().catalog();
    catalog.add_step(std::sync::Arc::new(Prompt)).expect("one of each");
    catalog
}

/// A workflow of these steps, each in flow style without its braces; `head` has the other keys, each a line.
pub fn workflow(head: &str, steps: &[&str]) -> String {
    let head: String = head.lines().map(|line| format!("  {line}\n")).collect();
    let steps: String = steps.iter().map(|step| format!("    - {{{step}}}\n")).collect();
    format!("workflow:\n  name: t\n{head}  steps:\n{steps}")
}

/// A schedule, what it has asked for and has not been told of, and the time that it knows.
pub struct Hand {
    pub schedule: Schedule,
    asked: BTreeMap<String, (OpKey, Op)>,
    pub elapsed_ms: u64,
}

impl Hand {
    pub fn new(head: &str, steps: &[&str]) -> Self {
        Self::with(head, steps, |_| {})
    }

    /// After a change to what the run begins with. Limits may stop it.
    pub fn with(head: &str, steps: &[&str], change: impl FnOnce(&mut Start)) -> Self {
        let mut hand = Self::replaying(head, steps, change);
        hand.schedule.enforce_limits();
        hand
    }

    /// As a replay drives it: what was started was started, whatever the limits are.
    pub fn replaying(head: &str, steps: &[&str], change: impl FnOnce(&mut Start)) -> Self {
        let sources = MemorySources::default().with("t.yaml", workflow(head, steps));
        let root = SourceRef::Path("t.yaml".to_owned());
        let plan = match compile(&sources, &root, &catalog(), &CompileOptions::default()) {
            Ok((plan, _)) => plan,
            Err(findings) => panic!("{findings:#?}"),
        };
        let mut start = Start {
            inputs: Inputs::new(),
            env: BTreeMap::new(),
            state: BTreeMap::new(),
            lasting: BTreeMap::new(),
            limits: pipeline_core::plan::Budget::default(),
            until: None,
            run_id: "run".to_owned(),
            run_dir: String::new(),
            started_at: Timestamp(0),
            seed: 7,
        };
        change(&mut start);
        let schedule = Schedule::new(std::sync::Arc::new(plan), start);
        Self { schedule, asked: BTreeMap::new(), elapsed_ms: 0 }
    }

    /// What it asks for now, in order: `path#turn` is begun, `-path#turn` is to stop, `~wait` and the like are timers. What is
    /// only recorded says so: `skip:path#turn`, `fail:path#turn`.
    pub fn decides(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let commands = self.schedule.decide();
            if commands.is_empty() {
                return lines.join(" ");
            }
            for command in commands {
                match command {
                    Command::Start(key, op) => {
                        let what = match &op {
                            Op::Skip { .. } => "skip:",
                            Op::Settle(_) => "fail:",
                            Op::Ask(_) => "ask:",
                            Op::Task(_) | Op::Timer { .. } | Op::Park { .. } => "",
                        };
                        lines.push(format!("{what}{key}"));
                        let before = self.asked.insert(key.to_string(), (key, op));
                        assert!(before.is_none(), "begun twice: {lines:?}");
                    }
                    Command::Cancel(key) => {
                        lines.push(format!("-{key}"));
                        if key.role != OpRole::Attempt {
                            self.asked.remove(&key.to_string());
                        }
                    }
                }
            }
        }
    }

    fn comes(&mut self, key: &str, result: OpResult) -> String {
        let (key, _) = self.asked.remove(key).unwrap_or_else(|| panic!("{key} is not under way"));
        let at = Timestamp(i64::try_from(self.elapsed_ms).unwrap());
        let outcome = Outcome { at, elapsed_ms: self.elapsed_ms, result };
        self.schedule.apply(&key, outcome).expect("it was asked for");
        self.decides()
    }

    pub fn ends(&mut self, key: &str, end: AttemptEnd) -> String {
        self.comes(key, OpResult::Ended(Box::new(end)))
    }

    /// It ends well; its value is where it stands.
    pub fn ok(&mut self, key: &str) -> String {
        self.ends(key, AttemptEnd::ok(json!(key)))
    }

    pub fn fails(&mut self, key: &str, kind: ErrorKind) -> String {
        self.ends(key, AttemptEnd::failed(StepError::new(kind, "scripted")))
    }

    /// The skip of a step is recorded, or its end without an attempt, with its error.
    pub fn settles(&mut self, key: &str) -> String {
        let result = match &self.asked[key].1 {
            Op::Skip { .. } => OpResult::Skipped,
            Op::Settle(end) => OpResult::Ended(end.clone()),
            other => panic!("{other:?}"),
        };
        self.comes(key, result)
    }

    /// A timer fires, at its time.
    pub fn fires(&mut self, key: &str) -> String {
        if let (_, Op::Timer { until_ms }) = &self.asked[key] {
            self.elapsed_ms = self.elapsed_ms.max(*until_ms);
        }
        self.comes(key, OpResult::Fired)
    }

    /// What was asked under this address.
    pub fn op(&self, key: &str) -> &Op {
        &self.asked[key].1
    }

    pub fn call(&self, key: &str) -> &TaskCall {
        match self.op(key) {
            Op::Task(call) => call,
            other => panic!("{other:?}"),
        }
    }

    /// The configuration that a step is begun with.
    pub fn config(&self, key: &str) -> Value {
        match &self.call(key).work {
            TaskWork::Step { with, .. } => with.json().clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Why a step ends that is not begun.
    pub fn why(&self, key: &str) -> String {
        match self.op(key) {
            Op::Settle(end) => end.error.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }

    /// How the run ended, if it has.
    pub fn ended(&self) -> Option<RunStatus> {
        self.schedule.ended().map(|end| end.status)
    }

    pub fn outputs(&self) -> Value {
        self.schedule.ended().expect("it has ended").outputs.json().clone()
    }

    /// A top-level step that has ended.
    pub fn done(&self, name: &str) -> StepDone {
        self.schedule.top_level()[name].clone().unwrap_or_else(|| panic!("{name} has not ended"))
    }

    pub fn status(&self, name: &str) -> Status {
        self.done(name).status
    }
}
