//! Where the names of an expression get their values: the schedule as [`Names`].
//!
//! Scopes are parent chains: a lookup walks outwards and copies nothing.

use std::collections::HashSet;

use serde_json::json;

use crate::clock::Timestamp;
use crate::expr::{Expr, ExprError, Names};
use crate::plan::Condition;
use crate::schedule::Schedule;
use crate::schedule::state::{Frame, FrameId, InstId, Owner, StepState, Turn};
use crate::value::{Data, Name, Part, Value};

/// The names that are visible from a frame.
pub(super) struct View<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) frame: FrameId,
    /// A while loop whose condition is being read: its variables and its last turn are visible too.
    pub(super) looping: Option<InstId>,
    pub(super) at: Timestamp,
}

impl View<'_> {
    fn frames(&self) -> impl Iterator<Item = &Frame> {
        let mut next = Some(self.frame);
        std::iter::from_fn(move || {
            let frame = self.schedule.frame(next?);
            next = frame.outer;
            Some(frame)
        })
    }

    fn step(&self, name: &str) -> Option<Data> {
        if let Some(StepState::While(state)) = self.looping.map(|i| &self.schedule.inst(i).state)
            && let Some(value) = state.last.get(name)
        {
            return Some(value.clone());
        }
        self.frames().find_map(|frame| {
            let position = *self.schedule.positions.get(frame.block.0 as usize)?.get(name)?;
            let done = frame.results.get(position)?.as_ref()?;
            (done.status != crate::fact::Status::Skipped).then(|| done.value.clone())
        })
    }

    /// What [`step`](Self::step) would find, of every name.
    fn all_steps(&self) -> Data {
        let mut all: Vec<(Name, Part)> = Vec::new();
        let mut seen = HashSet::new();
        if let Some(StepState::While(state)) = self.looping.map(|i| &self.schedule.inst(i).state) {
            for (name, value) in &state.last {
                seen.insert(&**name);
                all.push((Name::clone(name), Part::from(value.clone())));
            }
        }
        for frame in self.frames() {
            let block = self.schedule.plan.block(frame.block);
            for (position, done) in frame.results.iter().enumerate() {
                let name = &self.schedule.plan.step(block.steps[position]).name;
                let done = done.as_ref().filter(|done| done.status != crate::fact::Status::Skipped);
                if let Some(done) = done.filter(|_| seen.insert(&**name)) {
                    all.push((Name::clone(name), Part::from(done.value.clone())));
                }
            }
        }
        Data::of_parts(Part::map(all))
    }

    fn variable(&self, name: &str) -> Option<Data> {
        if let Some(StepState::While(state)) = self.looping.map(|i| &self.schedule.inst(i).state)
            && let Some(value) = state.vars.get(name)
        {
            return Some(value.clone());
        }
        let local = self.frames().find_map(|frame| {
            let of_loop = match frame.owner {
                Owner::Turn(inst, _) => match &self.schedule.inst(inst).state {
                    StepState::While(state) => state.vars.get(name),
                    _ => None,
                },
                _ => None,
            };
            let written = || Some(&frame.overlay.as_ref()?.get(name)?.value);
            frame.locals.get(name).or_else(written).or(of_loop).cloned()
        });
        local.or_else(|| self.schedule.scope(self.schedule.frame(self.frame).scope).state.get(name).cloned())
    }

    fn turn(&self) -> Option<&Turn> {
        if let Some(StepState::While(state)) = self.looping.map(|i| &self.schedule.inst(i).state) {
            return state.asked.as_deref();
        }
        self.frames().find_map(|f| f.turn.as_deref())
    }

    fn run(&self, field: &str) -> Option<Data> {
        let start = &self.schedule.start;
        let text = match field {
            "id" => start.run_id.clone(),
            "dir" => start.run_dir.clone(),
            "started_at" => start.started_at.to_string(),
            "timestamp" => start.started_at.compact(),
            _ => return None,
        };
        Some(Data::new(Value::String(text)))
    }

    fn whole(&self, root: &str) -> Option<Data> {
        let scope = self.schedule.scope(self.schedule.frame(self.frame).scope);
        let object =
            |entries: Vec<(String, Value)>| Some(Data::new(Value::Object(entries.into_iter().collect())));
        match root {
            "steps" => Some(self.all_steps()),
            "inputs" => object(scope.inputs.iter().map(|(k, v)| (k.clone(), v.json().clone())).collect()),
            "state" | "variables" => {
                let mut all: serde_json::Map<String, Value> =
                    scope.state.iter().map(|(k, v)| (k.clone(), v.json().clone())).collect();
                let frames: Vec<&Frame> = self.frames().collect();
                for frame in frames.iter().rev() {
                    let written = frame.overlay.iter().flatten().map(|(k, v)| (k, &v.value));
                    let written = written.chain(&frame.locals);
                    all.extend(written.map(|(k, v)| (k.clone(), v.json().clone())));
                }
                Some(Data::new(Value::Object(all)))
            }
            "global_vars" => {
                object(scope.globals.iter().map(|(k, v)| (k.clone(), v.json().clone())).collect())
            }
            "env" => object(
                self.schedule.start.env.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect(),
            ),
            "loop" | "turn" => self.turn().map(|turn| Data::new(turn.to_json())),
            "run" => object(
                ["id", "started_at", "dir", "timestamp"]
                    .into_iter()
                    .filter_map(|f| Some((f.to_owned(), self.run(f)?.into_json())))
                    .collect(),
            ),
            "workflow" => {
                let pipeline = self.schedule.plan.pipeline(scope.pipeline);
                Some(Data::new(json!({ "name": &*pipeline.name })))
            }
            _ => None,
        }
    }
}

impl Names for View<'_> {
    fn get(&self, root: &str, field: Option<&str>) -> Option<Data> {
        let scope = self.schedule.scope(self.schedule.frame(self.frame).scope);
        match (root, field) {
            ("steps", Some(name)) => self.step(name),
            ("inputs", Some(name)) => scope.inputs.get(name).cloned(),
            ("state" | "variables", Some(name)) => self.variable(name),
            ("global_vars", Some(name)) => scope.globals.get(name).cloned(),
            ("env", Some(name)) => {
                self.schedule.start.env.get(name).map(|v| Data::new(Value::String(v.clone())))
            }
            ("loop" | "turn", Some(name)) => self.turn()?.field(name),
            ("run", Some(name)) => self.run(name),
            ("workflow", Some("name")) => {
                Some(Data::new(Value::from(&*self.schedule.plan.pipeline(scope.pipeline).name)))
            }
            (
                "steps" | "inputs" | "state" | "variables" | "global_vars" | "env" | "loop" | "turn" | "run",
                None,
            )
            | ("workflow", _) => self.whole(root),
            (name, _) => scope
                .inputs
                .get(name)
                .cloned()
                .or_else(|| self.variable(name))
                .or_else(|| self.step(name))
                .or_else(|| self.run(name)),
        }
    }

    fn now(&self) -> Timestamp {
        self.at
    }
}

impl Turn {
    fn field(&self, name: &str) -> Option<Data> {
        let plain = |value: Value| Some(Data::new(value));
        let last = self.total.map(|total| self.index + 1 == total);
        match name {
            "item" => Some(self.item.clone()),
            "index" => plain(self.index.into()),
            "total" | "length" => plain(self.total?.into()),
            "first" | "is_first" => plain((self.index == 0).into()),
            "last" | "is_last" => plain(last?.into()),
            "level" => plain(self.level.into()),
            "parent" => self.parent.as_ref().map(|parent| Data::new(parent.to_json())),
            other if self.iterator.as_deref() == Some(other) => Some(self.item.clone()),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        let names =
            ["item", "index", "total", "length", "first", "is_first", "last", "is_last", "level", "parent"];
        let all = names.into_iter().chain(self.iterator.as_deref());
        Value::Object(all.filter_map(|n| Some((n.to_owned(), self.field(n)?.into_json()))).collect())
    }
}

/// Whether a condition holds.
pub(super) fn holds(condition: &Condition, names: &dyn Names) -> Result<bool, (Option<Expr>, ExprError)> {
    match condition {
        Condition::Const(value) => Ok(*value),
        Condition::Expr(expr) => expr.holds(names).map_err(|e| (Some(expr.clone()), e)),
        Condition::Not(inner) => holds(inner, names).map(|value| !value),
        Condition::All(parts) => {
            for part in parts {
                if !holds(part, names)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Condition::Any(parts) => {
            for part in parts {
                if holds(part, names)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}
