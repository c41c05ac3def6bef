//! The control forms: fan-out, loops, choices, child pipelines.
//!
//! Each is opened by `begin_control`, told by `owner_told` when one of its frames has closed, and moved by `control_forward`.

mod child;
mod for_each;
mod repeat;

use std::sync::Arc;

use indexmap::IndexMap;

use crate::clock::Timestamp;
use crate::event::Progress;
use crate::fact::{AttemptEnd, RunError, Status};
use crate::path::{OpKey, OpRole};
use crate::plan::{Ask, BlockId, Body, Choose, OnFailure, Parallel, Reducer, StepPlan};
use crate::schedule::advance::Opening;
use crate::schedule::state::{Frame, FrameEnd, InstId, Owner, ParallelState, StepState, TurnDone, Work};
use crate::schedule::{Op, Question, Schedule, StepDone, values};
use crate::value::{Data, Value};

impl Schedule {
    /// Opens the control form of a ready step.
    pub(super) fn begin_control(&mut self, id: InstId, step: &StepPlan, body: &Body) {
        match body {
            Body::Break => return self.unwind(id, FrameEnd::Broke),
            Body::Continue => return self.unwind(id, FrameEnd::Continued),
            _ => {}
        }
        if let Body::Ask(ask) = body {
            return self.begin_ask(id, step, ask);
        }
        if let Some(timeout) = step.timeout {
            let inst = self.inst(id);
            let until_ms = self.elapsed_ms + u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let key = OpKey { path: inst.path.clone(), turn: inst.turn, role: OpRole::Deadline };
            self.inst_mut(id).deadline = Some(key.clone());
            self.start_op(Some(id), key, Op::Timer { until_ms });
        }
        match body {
            Body::Parallel(parallel) => self.begin_parallel(id, parallel),
            Body::ForEach(each) => self.begin_for_each(id, step, each),
            Body::While(_) => self.begin_while(id),
            Body::Choose(choose) => self.begin_choose(id, step, choose),
            Body::Child(child) => self.begin_child(id, step, child),
            Body::Leaf(_) | Body::Ask(_) | Body::Break | Body::Continue => {}
        }
    }

    /// Opens what may be opened, or concludes the form when nothing is left.
    pub(super) fn control_forward(&mut self, id: InstId) {
        let Some(inst) = self.steps.get(id.0) else { return };
        match &inst.state {
            StepState::Parallel(_) => self.parallel_forward(id),
            StepState::ForEach(_) => self.for_each_forward(id),
            StepState::While(_) => self.while_forward(id),
            _ => {}
        }
    }

    /// A frame of a control form has closed.
    pub(super) fn owner_told(&mut self, owner: Owner, frame: Frame, end: FrameEnd) {
        match owner {
            Owner::Run => {}
            Owner::Branch(id, index) => {
                self.inst_mut(id).attempts += frame.attempts;
                let is_skipped = frame.results.iter().flatten().all(|step| step.status == Status::Skipped);
                let mut done = self.turn_done(frame, &end);
                if is_skipped && done.status == Status::Ok {
                    done.status = Status::Skipped;
                }
                self.branch_closed(id, index, done);
            }
            Owner::Turn(id, index) => {
                self.inst_mut(id).attempts += frame.attempts;
                self.turn_closed(id, index, frame, &end);
            }
            Owner::Case(id) => self.case_closed(id, frame, end),
            Owner::Child(id) => self.child_closed(id, frame, end),
            Owner::OnError(id) => {
                self.inst_mut(id).attempts += frame.attempts;
                let done = self.turn_done(frame, &end);
                let status = if done.status.is_success() { Status::Degraded } else { done.status };
                let done = self.step_done(id, status, done.last, done.error);
                self.finish_step(id, done);
            }
        }
    }

    /// What a closed frame comes to: its steps' values and that of its last step.
    pub(super) fn turn_done(&self, frame: Frame, end: &FrameEnd) -> TurnDone {
        let block = self.plan.block(frame.block);
        let mut results = Vec::new();
        let mut last = Data::null();
        for (position, done) in frame.results.into_iter().enumerate() {
            if let Some(done) = done.filter(|d| d.status != Status::Skipped) {
                let name = Arc::clone(&self.plan.step(block.steps[position]).name);
                results.push((name, done.value.clone()));
                last = done.value;
            }
        }
        let (status, error) = match end {
            FrameEnd::Failed(error) => (Status::Failed, Some(error.clone())),
            FrameEnd::Stopped => (Status::Cancelled, None),
            FrameEnd::Done | FrameEnd::Broke | FrameEnd::Continued => (Status::Ok, None),
        };
        let item = frame.turn.map_or_else(Data::null, |turn| turn.item.clone());
        TurnDone { status, item, results, last, error, overlay: frame.overlay.unwrap_or_default() }
    }

    /// The end of a control form.
    pub(super) fn step_done(
        &self,
        id: InstId,
        status: Status,
        value: Data,
        error: Option<RunError>,
    ) -> StepDone {
        let inst = self.inst(id);
        StepDone {
            status,
            value,
            error,
            attempts: inst.attempts,
            started_ms: inst.ready_ms,
            ended_ms: self.elapsed_ms,
        }
    }

    /// The opening of a frame inside a step instance, in the same pipeline.
    pub(super) fn inside(&self, id: InstId, block: BlockId, owner: Owner) -> Opening {
        let inst = self.inst(id);
        let frame = self.frame(inst.frame);
        let retried = self.plan.step(inst.step).retry.max_attempts > 1;
        Opening {
            block,
            scope: frame.scope,
            owner,
            outer: Some(inst.frame),
            path: inst.path.clone(),
            turn: None,
            lane: None,
            again: frame.again || retried,
            locals: IndexMap::new(),
        }
    }

    pub(super) fn group_progress(&mut self, id: InstId, done: usize, total: Option<usize>) {
        let path = self.inst(id).path.clone();
        self.progress.push(Progress::Group { path, done, total });
    }

    /// Asks a person. The time to answer is wall time, from the recorded time at which the step was ready.
    fn begin_ask(&mut self, id: InstId, step: &StepPlan, ask: &Ask) {
        let view = self.view(id);
        let rendered = (|| {
            let text = match ask.message.render(&view)? {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let choices = ask.choices.as_ref().map(|c| c.render(&view)).transpose()?;
            let default = ask.default.as_ref().map(|d| d.render(&view)).transpose()?;
            Ok((text, choices, default))
        })();
        let (message, choices, default) = match rendered {
            Ok(rendered) => rendered,
            Err(error) => return self.settle(id, step, "the question", "", &error),
        };
        let choices = match choices {
            None => Vec::new(),
            Some(Value::Array(choices)) => choices,
            Some(other) => {
                let error =
                    crate::error::StepError::invalid(format!("`choices` must be a list, and is {other}"));
                return self.fail_control(id, step, error);
            }
        };
        let wait = step.timeout.map(|t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX));
        let until = wait.map(|ms| Timestamp(self.inst(id).ready_at.0.saturating_add(ms)));
        let question = Question { message, choices, schema: ask.schema.clone(), default, until };
        self.launch(id, Op::Ask(Box::new(question)));
    }

    fn begin_parallel(&mut self, id: InstId, parallel: &Parallel) {
        let serial = self.next_serial();
        self.inst_mut(id).state = StepState::Parallel(ParallelState {
            serial,
            next: 0,
            open: std::collections::BTreeMap::new(),
            done: std::collections::BTreeMap::new(),
            failed: None,
        });
        self.group_progress(id, 0, Some(parallel.branches.len()));
        self.work.push_back(Work::Control(id));
    }

    fn parallel_forward(&mut self, id: InstId) {
        let plan = Arc::clone(&self.plan);
        let Body::Parallel(parallel) = &plan.step(self.inst(id).step).body else { return };
        let stopping = self.inst(id).stopping.is_some();
        loop {
            let StepState::Parallel(state) = &mut self.inst_mut(id).state else { return };
            let fast = state.failed.is_some() && parallel.on_failure == OnFailure::FailFast;
            let room = state.open.len() < parallel.max_parallel.max(1);
            if stopping || fast || !room || state.next >= parallel.branches.len() {
                break;
            }
            let index = state.next;
            let serial = state.serial;
            state.next += 1;
            let (name, block) = &parallel.branches[index];
            let mut opening = self.inside(id, *block, Owner::Branch(id, index));
            // A branch of one step with the branch's own name has one address, not two.
            let steps = &plan.block(*block).steps;
            if steps.len() != 1 || plan.step(steps[0]).name != *name {
                opening.path = opening.path.child(name);
            }
            opening.lane = Some((serial, index));
            let frame = self.open(opening);
            if let StepState::Parallel(state) = &mut self.inst_mut(id).state {
                state.open.insert(index, frame);
            }
        }
        let StepState::Parallel(state) = &mut self.inst_mut(id).state else { return };
        if state.open.is_empty() {
            let done = std::mem::take(&mut state.done);
            let failed = state.failed.take();
            let ids: Vec<String> = parallel.branches.iter().map(|(name, _)| name.to_string()).collect();
            let value = values::of_parallel(&ids, &done);
            let written: Vec<_> = done.into_values().map(|t| t.overlay).collect();
            let frame = self.inst(id).frame;
            for (name, written) in written.into_iter().flatten() {
                self.assign_merged(frame, name, Reducer::Last, None, vec![written.value.clone()], written);
            }
            let status = if failed.is_some() { Status::Failed } else { Status::Ok };
            let done = self.step_done(id, status, value, failed);
            self.conclude(id, done);
        }
    }

    fn branch_closed(&mut self, id: InstId, index: usize, done: TurnDone) {
        let plan = Arc::clone(&self.plan);
        let Body::Parallel(parallel) = &plan.step(self.inst(id).step).body else { return };
        let StepState::Parallel(state) = &mut self.inst_mut(id).state else { return };
        state.open.remove(&index);
        let mut stop = Vec::new();
        if let Some(error) = &done.error
            && state.failed.is_none()
        {
            state.failed = Some(error.clone());
            if parallel.on_failure == OnFailure::FailFast {
                stop = state.open.values().copied().collect();
            }
        }
        state.done.insert(index, done);
        let count = state.done.len();
        for frame in stop {
            self.stop_frame(frame);
        }
        self.group_progress(id, count, Some(parallel.branches.len()));
        self.work.push_back(Work::Control(id));
    }

    fn begin_choose(&mut self, id: InstId, step: &StepPlan, choose: &Choose) {
        let value = match choose.on.eval(&self.view(id)) {
            Ok(value) => value,
            Err(error) => return self.settle(id, step, "expression", choose.on.source(), &error),
        };
        let case = choose.cases.iter().find(|(case, _)| same(case, &value));
        let (name, block) = match (case, choose.default) {
            (Some((case, block)), _) => (text(case), Some(*block)),
            (None, default) => ("default".to_owned(), default),
        };
        let Some(block) = block else {
            let done = self.step_done(id, Status::Ok, case_value(None, &TurnDone::none()), None);
            self.inst_mut(id).state = StepState::Choose { case: None, frame: None };
            return self.conclude(id, done);
        };
        let opening = self.inside(id, block, Owner::Case(id));
        let frame = self.open(opening);
        self.inst_mut(id).state = StepState::Choose { case: Some(name), frame: Some(frame) };
    }

    fn case_closed(&mut self, id: InstId, frame: Frame, end: FrameEnd) {
        let inst = self.inst_mut(id);
        inst.attempts += frame.attempts;
        let case = match &mut inst.state {
            StepState::Choose { case, .. } => case.take(),
            _ => None,
        };
        if matches!(end, FrameEnd::Broke | FrameEnd::Continued) && inst.stopping.is_none() {
            self.drop_deadline(id);
            return self.unwind(id, end);
        }
        let done = self.turn_done(frame, &end);
        let value = case_value(case, &done);
        let done = self.step_done(id, done.status, value, done.error);
        self.conclude(id, done);
    }

    /// Ends a control form with an error of its own, as a recorded fact.
    pub(super) fn fail_control(&mut self, id: InstId, step: &StepPlan, error: crate::error::StepError) {
        let error = self.located(step, error);
        self.launch(id, Op::Settle(Box::new(AttemptEnd::failed(error))));
    }
}

impl TurnDone {
    fn none() -> Self {
        Self {
            status: Status::Ok,
            item: Data::null(),
            results: Vec::new(),
            last: Data::null(),
            error: None,
            overlay: IndexMap::new(),
        }
    }
}

/// The value of a switch: that of the branch that ran, with the case and the results by step.
fn case_value(case: Option<String>, done: &TurnDone) -> Data {
    let mut value = match done.last.json() {
        Value::Object(fields) => fields.clone(),
        Value::Null => serde_json::Map::new(),
        other => serde_json::Map::from_iter([("result".to_owned(), other.clone())]),
    };
    value.insert("case".to_owned(), case.map_or(Value::Null, Value::String));
    let results = done.results.iter().map(|(name, value)| (name.to_string(), value.json().clone()));
    value.insert("results".to_owned(), Value::Object(results.collect()));
    Data::of_step(Value::Object(value))
}

/// Whether a case fits: equal, or equal as text (`cases` are map keys, which are text).
fn same(case: &Value, value: &Value) -> bool {
    case == value || text(case) == text(value)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
