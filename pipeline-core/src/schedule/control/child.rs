//! Pipelines: the root and its children, each with a scope of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Map;

use crate::error::StepError;
use crate::expr::{Dynamic, ExprError};
use crate::fact::{RunError, RunStatus, Status};
use crate::path::{OpKey, OpRole, StepPath};
use crate::plan::{Child, Inputs, Pipeline, PipelineId, StepPlan, fit_input};
use crate::schedule::advance::Opening;
use crate::schedule::names::View;
use crate::schedule::state::{Frame, FrameEnd, FrameId, InstId, Owner, Scope, ScopeId, StepState};
use crate::schedule::{Op, Schedule, values};
use crate::value::{Data, Part, Value};

impl Schedule {
    /// Opens the root pipeline.
    pub(in crate::schedule) fn begin_run(&mut self) {
        let plan = Arc::clone(&self.plan);
        let file = plan.root().budget.max_duration;
        let limit = match (file, self.start.limits.max_duration) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(limit) = limit {
            let key = OpKey { path: StepPath::root(), turn: 1, role: OpRole::Deadline };
            let until_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            self.start_op(None, key, Op::Timer { until_ms });
        }
        let scope = Scope {
            pipeline: PipelineId(0),
            inputs: self.start.inputs.clone(),
            state: IndexMap::new(),
            globals: BTreeMap::new(),
            depth: 0,
        };
        let opening = Opening {
            block: plan.root().body,
            scope: ScopeId(self.scopes.insert(scope)),
            owner: Owner::Run,
            outer: None,
            path: StepPath::root(),
            turn: None,
            lane: None,
            again: false,
            locals: IndexMap::new(),
        };
        let (scope, frame) = (opening.scope, self.open(opening));
        if let Err(error) = self.fill_scope(scope, frame, plan.root()) {
            let error = RunError { path: None, error };
            return self.finish_run(RunStatus::Failed, Data::null(), Some(error));
        }
        let outside: Vec<_> = self.start.state.clone().into_iter().collect();
        self.scopes[scope.0].state.extend(outside);
    }

    /// Renders `global_vars` and `variables`, in order.
    fn fill_scope(&mut self, scope: ScopeId, frame: FrameId, pipeline: &Pipeline) -> Result<(), StepError> {
        let failed = |what: &str, name: &str, error: &ExprError| {
            StepError::invalid(format!("{what}.{name} of `{}`: {}", pipeline.name, error.message))
        };
        for (name, value) in &pipeline.global_vars {
            let view = View { schedule: self, frame, looping: None, at: self.now };
            let value = value.data(&view).map_err(|e| failed("global_vars", name, &e))?;
            self.scopes[scope.0].globals.insert(name.clone(), value);
        }
        for (name, value) in &pipeline.variables {
            let view = View { schedule: self, frame, looping: None, at: self.now };
            let value = value.data(&view).map_err(|e| failed("variables", name, &e))?;
            self.scopes[scope.0].state.insert(name.clone(), value);
        }
        if let Some(kept) = self.lasting.get(&pipeline.name).cloned() {
            self.scopes[scope.0].state.extend(kept.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Ok(())
    }

    pub(super) fn begin_child(&mut self, id: InstId, step: &StepPlan, child: &Child) {
        let plan = Arc::clone(&self.plan);
        let pipeline = plan.pipeline(child.pipeline);
        let outer = self.scope(self.frame(self.inst(id).frame).scope);
        let depth = outer.depth + 1;
        if depth > child.max_depth {
            let error =
                StepError::invalid(format!("child pipelines are nested deeper than {}", child.max_depth))
                    .help("end the recursion with a condition, or raise config.max_depth");
            return self.fail_control(id, step, error);
        }
        if self.started_steps >= child.max_total_steps {
            return self.fail_control(id, step, Self::too_many_steps(self.started_steps));
        }
        let mut globals = BTreeMap::new();
        if child.inherit_context {
            globals.extend(outer.globals.clone());
            globals.extend(outer.state.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        let inputs = match self.child_inputs(id, pipeline, child) {
            Ok(inputs) => inputs,
            Err(error) => return self.fail_control(id, step, error),
        };
        let scope = Scope { pipeline: child.pipeline, inputs, state: IndexMap::new(), globals, depth };
        let scope = ScopeId(self.scopes.insert(scope));
        let mut opening = self.inside(id, pipeline.body, Owner::Child(id));
        opening.scope = scope;
        opening.outer = None;
        let frame = self.open(opening);
        if let Err(error) = self.fill_scope(scope, frame, pipeline) {
            self.frames.remove(frame.0);
            self.scopes.remove(scope.0);
            return self.fail_control(id, step, error);
        }
        self.inst_mut(id).state = StepState::Child { frame };
    }

    fn child_inputs(&self, id: InstId, pipeline: &Pipeline, child: &Child) -> Result<Inputs, StepError> {
        let view = self.view(id);
        let mut inputs = Inputs::new();
        for (name, value) in &child.inputs {
            let value = value
                .data(&view)
                .map_err(|e| StepError::invalid(format!("input `{name}`: {}", e.message)))?;
            inputs.insert(name.clone(), value);
        }
        for declared in &pipeline.inputs {
            match inputs.get(&declared.name) {
                Some(given) => {
                    let fit = fit_input(declared, given)
                        .map_err(|m| StepError::invalid(format!("pipeline `{}`: {m}", pipeline.name)))?;
                    inputs.insert(declared.name.clone(), fit);
                }
                None => match &declared.default {
                    Some(default) => {
                        inputs.insert(declared.name.clone(), Data::new(default.clone()));
                    }
                    None if declared.required => {
                        let message =
                            format!("pipeline `{}` needs the input `{}`", pipeline.name, declared.name);
                        return Err(StepError::invalid(message).help("give it under `inputs` of the step"));
                    }
                    None => {}
                },
            }
        }
        Ok(inputs)
    }

    pub(super) fn child_closed(&mut self, id: InstId, frame: Frame, end: FrameEnd) {
        let plan = Arc::clone(&self.plan);
        let step = plan.step(self.inst(id).step);
        let crate::plan::Body::Child(child) = &step.body else { return };
        let scope = frame.scope;
        self.inst_mut(id).attempts += frame.attempts;
        let (status, value, error) = match end {
            FrameEnd::Failed(error) => (Status::Failed, Data::null(), Some(error)),
            FrameEnd::Stopped => (Status::Cancelled, Data::null(), None),
            FrameEnd::Done | FrameEnd::Broke | FrameEnd::Continued => {
                let kept = FrameId(self.frames.insert(frame));
                let outputs = self.outputs(kept, plan.pipeline(child.pipeline));
                self.frames.remove(kept.0);
                match outputs.and_then(|outputs| select(child, outputs)) {
                    Ok(value) => (Status::Ok, value.into_pipeline(), None),
                    Err(error) => {
                        let error = self.located(step, error);
                        (Status::Failed, Data::null(), Some(super::super::at(&self.inst(id).path, error)))
                    }
                }
            }
        };
        self.scopes.remove(scope.0);
        let done = self.step_done(id, status, value, error);
        self.conclude(id, done);
    }

    /// What a pipeline returns: its `outputs`, or every top-level step's value. A run that was told to stop before its last step
    /// returns the values that there are: its `outputs` may read what has not run.
    pub(in crate::schedule) fn outputs(
        &self,
        frame: FrameId,
        pipeline: &Pipeline,
    ) -> Result<Data, StepError> {
        let at = self.frame(frame);
        let is_cut_short = at.is_root && self.start.until.is_some() && at.results.iter().any(Option::is_none);
        let Some(outputs) = pipeline.outputs.as_ref().filter(|_| !is_cut_short) else {
            let block = self.plan.block(at.block);
            let values = at.results.iter().zip(&block.steps).filter_map(|(done, step)| {
                let done = done.as_ref().filter(|d| d.status != Status::Skipped)?;
                Some((Arc::clone(&self.plan.step(*step).name), done.value.clone().into()))
            });
            return Ok(Data::of_parts(Part::map(values)));
        };
        let view = View { schedule: self, frame, looping: None, at: self.now };
        let output = |(name, value): &(String, Dynamic)| {
            let value = value.data(&view).map_err(|e| {
                let error = StepError::invalid(format!("outputs.{name}: {}", e.message));
                StepError { help: e.help, ..error }
            })?;
            Ok((name.clone(), value))
        };
        outputs.iter().map(output).collect()
    }
}

/// Takes the outputs that a `pipeline` step names.
fn select(child: &Child, outputs: Data) -> Result<Data, StepError> {
    let Some(wanted) = &child.outputs else { return Ok(outputs) };
    let outputs = outputs.json();
    let mut taken = Map::new();
    for (path, name) in wanted {
        let value = values::at_path(outputs, path).ok_or_else(|| {
            let known: Vec<&str> =
                outputs.as_object().into_iter().flat_map(|o| o.keys().map(String::as_str)).collect();
            StepError::invalid(format!("the child pipeline has no output `{path}`"))
                .help(format!("it has: {}", known.join(", ")))
        })?;
        taken.insert(name.clone(), value.clone());
    }
    Ok(Data::new(Value::Object(taken)))
}
