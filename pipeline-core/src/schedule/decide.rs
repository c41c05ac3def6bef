//! Starting steps: conditions, limits, rendering.
//!
//! Every template is rendered here, once, in the step's own scope, just before the step starts.

use std::sync::Arc;

use crate::error::{ErrorKind, StepError};
use crate::expr::ExprError;
use crate::fact::AttemptEnd;
use crate::path::{OpKey, OpRole};
use crate::plan::{Body, Leaf, StepPlan, Workspace};
use crate::schedule::names::{View, holds};
use crate::schedule::state::{InstId, StepState};
use crate::schedule::{Op, Schedule, TaskCall, TaskWork};
use crate::value::{Hash, Value};

impl Schedule {
    /// Starts what is ready; false when there was nothing to do.
    pub(super) fn start_ready(&mut self) -> bool {
        // What waited for room may have waited until a limit was reached.
        if self.has_room()
            && !self.queued.is_empty()
            && !self.is_over_budget()
            && let Some(inst) = self.queued.pop_front()
        {
            self.begin_step(inst);
            return true;
        }
        let Some(inst) = self.ready.pop_front() else { return false };
        let is_leaf = matches!(self.plan.step(self.inst(inst).step).body, Body::Leaf(_));
        if self.inst(inst).stopping.is_some() {
            self.discard(inst);
        } else if is_leaf && (!self.has_room() || self.is_over_budget()) {
            // Nothing that is queued is overtaken: with room and a budget it was started above.
            self.queued.push_back(inst);
        } else {
            self.begin_step(inst);
        }
        true
    }

    pub(super) fn view(&self, inst: InstId) -> View<'_> {
        let step = self.inst(inst);
        View { schedule: self, frame: step.frame, looping: None, at: step.ready_at }
    }

    /// Evaluates the condition of a ready step, and starts it or records that it is skipped.
    fn begin_step(&mut self, id: InstId) {
        let plan = Arc::clone(&self.plan);
        let step = plan.step(self.inst(id).step);
        if let Some(condition) = &step.condition {
            match holds(condition, &self.view(id)) {
                Ok(true) => {}
                Ok(false) => {
                    let text = "its condition is false".to_owned();
                    return self.launch(id, Op::Skip { reason: text });
                }
                Err((expr, error)) => {
                    let source = expr.map_or(String::new(), |e| e.source().to_owned());
                    return self.settle(id, step, "condition", &source, &error);
                }
            }
        }
        match &step.body {
            Body::Leaf(leaf) => self.begin_leaf(id, step, leaf),
            control => self.begin_control(id, step, control),
        }
    }

    fn begin_leaf(&mut self, id: InstId, step: &StepPlan, leaf: &Leaf) {
        let way = self.inst(id).way;
        let leaf = if way == 0 { leaf } else { &step.fallback[way - 1] };
        let with = match leaf.with.data(&self.view(id)) {
            Ok(with) => with,
            Err(error) => {
                let place = leaf.with.culprit(&self.view(id));
                let what = place.map_or_else(|| "configuration".to_owned(), |place| format!("`{place}`"));
                return self.settle(id, step, &what, "", &error);
            }
        };
        if self.is_held_back(id, &with) {
            return;
        }
        let output_file = match self.output_file(id, step) {
            Ok(file) => file,
            Err(error) => return self.launch(id, Op::Settle(Box::new(AttemptEnd::failed(error)))),
        };
        let fingerprint = Hash::of(&(&*leaf.kind, &with, &output_file));
        let lasting = self.lasting(id, &with);
        if let Err(error) = self.count_attempt(id) {
            let error = self.located(step, error);
            return self.launch(id, Op::Settle(Box::new(AttemptEnd::failed(error))));
        }
        self.launch(
            id,
            Op::Task(Box::new(TaskCall {
                work: TaskWork::Step { kind: Arc::clone(&leaf.kind), with },
                timeout: step.timeout,
                effects: step.effects,
                output_file,
                fingerprint,
                is_fallback: way > 0,
                workspace: self.own_workspace(id, step.workspace),
                cache: step.cache,
                may_park: way >= step.fallback.len(),
                budgets: self.budgets(id),
                resources: self.resource_limits(id),
                lasting,
            })),
        );
    }

    /// The directory that a step has for itself: named by the branch that it runs in. `/` becomes `#`, which no step
    /// name can have, so that two branches never share one.
    fn own_workspace(&self, id: InstId, workspace: Workspace) -> Option<String> {
        let inst = self.inst(id);
        let mut at = Some(inst.frame);
        let branch = std::iter::from_fn(|| {
            let frame = self.frame(at?);
            at = frame.outer.or_else(|| frame.owner.inst().map(|owner| self.inst(owner).frame));
            Some(frame)
        })
        .find(|frame| frame.overlay.is_some());
        let path = match (workspace, branch) {
            (Workspace::Shared, _) | (Workspace::OwnInBranches, None) => return None,
            (Workspace::Own | Workspace::OwnInBranches, Some(frame)) => &frame.path,
            (Workspace::Own, None) => &inst.path,
        };
        Some(path.as_str().replace('/', "#"))
    }

    /// Renders `output_to_file` and refuses a file that a parallel lane writes too.
    pub(super) fn output_file(&mut self, id: InstId, step: &StepPlan) -> Result<Option<String>, StepError> {
        let Some(template) = &step.output_to_file else { return Ok(None) };
        let name = match template.render(&self.view(id)) {
            Ok(Value::String(name)) => name,
            // What a template leaves out is not written.
            Ok(Value::Null) => return Ok(None),
            Ok(other) => {
                let message = format!("output_to_file must be text, and is {other}");
                return Err(self.located(step, StepError::invalid(message)));
            }
            Err(error) => {
                return Err(self.rendering_failed(step, "output_to_file", "", &error));
            }
        };
        let inst = self.inst(id);
        let lanes = Arc::clone(&self.frame(inst.frame).lanes);
        if let Some((other, theirs)) = self.files.get(&name) {
            let at_once = lanes.iter().any(|(fan, lane)| theirs.iter().any(|(f, l)| f == fan && l != lane));
            if at_once {
                let message = format!("`{name}` is written by {other} too, which runs at the same time");
                let error = StepError::invalid(message).help("give each branch a file name of its own");
                return Err(self.located(step, error));
            }
        }
        let path = inst.path.clone();
        self.files.insert(name.clone(), (path, lanes));
        Ok(Some(name))
    }

    /// Starts the operation of a step instance.
    pub(super) fn launch(&mut self, id: InstId, op: Op) {
        self.running += 1;
        let again = self.frame(self.inst(id).frame).again;
        let inst = self.inst_mut(id);
        let key = OpKey { path: inst.path.clone(), turn: inst.turn, role: OpRole::Attempt };
        inst.op = Some(key.clone());
        if !matches!(inst.state, StepState::Writing(_) | StepState::Keeping(_)) {
            inst.state = StepState::Running;
        }
        if again {
            self.turns.insert(key.path.clone(), key.turn);
        }
        self.start_op(Some(id), key, op);
    }

    /// Ends an attempt before it starts, because something could not be rendered.
    pub(super) fn settle(
        &mut self,
        id: InstId,
        step: &StepPlan,
        what: &str,
        source: &str,
        error: &ExprError,
    ) {
        let error = self.rendering_failed(step, what, source, error);
        self.launch(id, Op::Settle(Box::new(AttemptEnd::failed(error))));
    }

    pub(super) fn rendering_failed(
        &self,
        step: &StepPlan,
        what: &str,
        source: &str,
        error: &ExprError,
    ) -> StepError {
        let shown = if source.is_empty() { String::new() } else { format!(" `{source}`") };
        let mut failed = StepError::new(ErrorKind::Invalid, format!("{what}{shown}: {}", error.message));
        failed.help.clone_from(&error.help);
        self.located(step, failed)
    }

    /// Adds the step's place in its file to the facts for machines.
    pub(super) fn located(&self, step: &StepPlan, mut error: StepError) -> StepError {
        if let Some((file, position)) = self.plan.sources().locate(step.span)
            && error.details.is_null()
        {
            error.details = serde_json::json!({
                "file": file, "line": position.line, "column": position.column,
            });
        }
        error
    }
}
