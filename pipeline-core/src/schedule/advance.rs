//! Moving on: what follows when an attempt, a step or a list of steps ends.
//!
//! The chain is always the same: attempt → step instance → frame → owner of the frame.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::error::{ErrorKind, StepError};
use crate::event::Progress;
use crate::expr::Bound;
use crate::fact::{Assignment, AttemptEnd, RunStatus, Status, VariableScope};
use crate::path::{OpKey, OpRole, StepPath};
use crate::plan::{BlockId, Body, OnError, StepPlan};
use crate::planted::{Bug, planted};
use crate::resources::ResourceLimits;
use crate::schedule::state::{
    Frame, FrameEnd, FrameId, InstId, Owner, ScopeId, StepInst, StepState, Stopping, Turn, Work, Written,
};
use crate::schedule::{Op, Schedule, StepDone, TaskCall, TaskWork, asks_to_park, at, retry, values};
use crate::value::{Data, Hash};

/// Most warnings that a run keeps.
const WARNINGS: usize = 100;

/// What a new frame is given.
pub(super) struct Opening {
    pub(super) block: BlockId,
    pub(super) scope: ScopeId,
    pub(super) owner: Owner,
    pub(super) outer: Option<FrameId>,
    pub(super) path: StepPath,
    pub(super) turn: Option<Arc<Turn>>,
    /// The fan-out and the lane that this frame is one of.
    pub(super) lane: Option<(u64, usize)>,
    /// Inside something that may be tried again.
    pub(super) again: bool,
    pub(super) locals: IndexMap<String, Data>,
}

impl Schedule {
    /// One piece of work.
    pub(super) fn go_on(&mut self, work: Work) {
        match work {
            Work::Begin => self.begin_run(),
            Work::Frame(frame) => self.frame_forward(frame),
            Work::Control(inst) => self.control_forward(inst),
        }
    }

    /// Opens a list of steps.
    pub(super) fn open(&mut self, opening: Opening) -> FrameId {
        let length = self.plan.block(opening.block).steps.len();
        let mut lanes: Arc<[(u64, usize)]> = match opening.owner.inst() {
            Some(inst) => Arc::clone(&self.frame(self.inst(inst).frame).lanes),
            None => Arc::new([]),
        };
        if let Some(lane) = opening.lane {
            lanes = lanes.iter().copied().chain([lane]).collect();
        }
        let frame = Frame {
            block: opening.block,
            scope: opening.scope,
            is_root: matches!(opening.owner, Owner::Run),
            owner: opening.owner,
            outer: opening.outer,
            path: opening.path,
            results: vec![None; length],
            next: 0,
            started: vec![false; length],
            active: BTreeSet::new(),
            locals: opening.locals,
            overlay: opening.lane.map(|_| IndexMap::new()),
            turn: opening.turn,
            lanes,
            again: opening.again,
            ending: None,
            attempts: 0,
        };
        let id = FrameId(self.frames.insert(frame));
        self.work.push_back(Work::Frame(id));
        id
    }

    fn frame_forward(&mut self, id: FrameId) {
        let Some(frame) = self.frames.get(id.0) else { return };
        if let Some(end) = &frame.ending {
            if frame.active.is_empty() {
                let end = end.clone();
                self.frame_closed(id, end);
            }
            return;
        }
        if frame.is_root && self.is_until_reached(frame) {
            return self.frame_closed(id, FrameEnd::Done);
        }
        let plan = Arc::clone(&self.plan);
        let block = plan.block(frame.block);
        match &block.needs {
            None => {
                if frame.active.is_empty() && frame.next < block.steps.len() {
                    let position = frame.next;
                    self.frame_mut(id).next += 1;
                    self.step_ready(id, position);
                }
            }
            Some(needs) => {
                for (position, needed) in needs.iter().enumerate() {
                    let frame = self.frame(id);
                    let is_free = frame.active.len() < block.max_parallel.max(1);
                    if is_free
                        && !frame.started[position]
                        && needed
                            .iter()
                            .skip(usize::from(planted(Bug::ReadySet)))
                            .all(|n| frame.results[*n].is_some())
                    {
                        self.step_ready(id, position);
                    }
                }
            }
        }
        // Whatever could be started is: when nothing is under way, nothing is left.
        if self.frame(id).active.is_empty() {
            self.frame_closed(id, FrameEnd::Done);
        }
    }

    /// Whether the step that the run was told to stop after has ended, and nothing else runs.
    fn is_until_reached(&self, frame: &Frame) -> bool {
        let Some(until) = &self.start.until else { return false };
        let position = self.positions[frame.block.0 as usize].get(until.as_str());
        frame.active.is_empty() && position.is_some_and(|p| frame.results[*p].is_some())
    }

    fn step_ready(&mut self, frame_id: FrameId, position: usize) {
        let frame = self.frame(frame_id);
        let step = self.plan.block(frame.block).steps[position];
        let path = frame.path.child(&self.plan.step(step).name);
        let first_turn = if frame.again { self.turns.get(&path).copied().unwrap_or(0) + 1 } else { 1 };
        let inst = StepInst {
            frame: frame_id,
            position,
            step,
            path,
            state: StepState::Ready,
            ready_at: self.now,
            ready_ms: self.elapsed_ms,
            turn: first_turn,
            way: 0,
            way_turn: first_turn,
            account: None,
            attempts: 0,
            op: None,
            deadline: None,
            stopping: None,
        };
        let id = InstId(self.steps.insert(inst));
        let frame = self.frame_mut(frame_id);
        frame.started[position] = true;
        frame.active.insert(id);
        self.ready.push_back(id);
    }

    pub(super) fn attempt_ended(&mut self, id: InstId, end: AttemptEnd) {
        self.running -= 1;
        self.usage.add(&end.usage);
        self.unsettled.add(&end.unsettled);
        if end.put_back && self.inst(id).stopping.is_none() {
            if !end.set.is_empty() {
                return self.renew(id, end.set);
            }
            return self.put_back(id, end.error.as_ref());
        }
        let room = WARNINGS.saturating_sub(self.warnings.len());
        self.warnings.extend(end.warnings.iter().take(room).cloned());
        let (frame, elapsed) = (self.inst(id).frame, self.elapsed_ms);
        if end.status.is_success() {
            for assignment in end.set {
                self.assign(frame, assignment);
            }
        }
        let inst = self.inst_mut(id);
        inst.op = None;
        inst.attempts += 1;
        let path = inst.path.clone();
        let done = StepDone {
            status: end.status,
            value: end.value,
            error: end.error.map(|e| at(&path, e)),
            attempts: inst.attempts,
            started_ms: inst.ready_ms,
            ended_ms: elapsed,
        };
        match std::mem::replace(&mut inst.state, StepState::Running) {
            StepState::Keeping(value) if done.status.is_success() => {
                // Whatever follows under this address is told apart from it.
                inst.turn += 1;
                inst.way_turn += 1;
                self.conclude(id, StepDone { ended_ms: elapsed, ..*value });
            }
            StepState::Writing(value) if done.status.is_success() => {
                self.finish_step(id, StepDone { ended_ms: elapsed, ..*value });
            }
            _ => self.conclude(id, done),
        }
    }

    /// The attempt did not take place, because of a limit of the run or of an account: no try is used up. Under a limit, it is
    /// the first to start when the run goes on.
    fn put_back(&mut self, id: InstId, error: Option<&StepError>) {
        let inst = self.inst_mut(id);
        inst.op = None;
        inst.turn += 1;
        inst.way_turn += 1;
        if let Some(error) = error.filter(|e| asks_to_park(e).is_some()) {
            return self.park(id, error);
        }
        if self.enforce_limits && self.halted.is_none() {
            self.halted = Some(error.map_or_else(String::new, |e| e.message.clone()));
        }
        let inst = self.inst_mut(id);
        inst.state = StepState::Ready;
        self.queued.push_front(id);
    }

    pub(super) fn step_skipped(&mut self, id: InstId) {
        self.running -= 1;
        let inst = self.inst(id);
        let done = StepDone {
            status: Status::Skipped,
            value: Data::null(),
            error: None,
            attempts: inst.attempts,
            started_ms: inst.ready_ms,
            ended_ms: self.elapsed_ms,
        };
        self.finish_step(id, done);
    }

    pub(super) fn timer_fired(&mut self, id: InstId, key: &OpKey) {
        match key.role {
            OpRole::Deadline => {
                self.inst_mut(id).deadline = None;
                self.stop_step(id, Stopping::TimedOut);
            }
            OpRole::Wait | OpRole::Attempt | OpRole::Park => {
                self.unpark(id);
                let now = self.now;
                let inst = self.inst_mut(id);
                inst.op = None;
                inst.turn = key.turn;
                inst.state = StepState::Ready;
                inst.ready_at = now;
                self.ready.push_back(id);
            }
        }
    }

    /// What follows when the work of a step has ended: another try, `on_error`, its output file, or its end.
    pub(super) fn conclude(&mut self, id: InstId, mut done: StepDone) {
        let plan = Arc::clone(&self.plan);
        let step = plan.step(self.inst(id).step);
        if let Some(stopping) = self.inst(id).stopping {
            self.merges.clear();
            if !done.status.is_success() || !matches!(step.body, Body::Leaf(_)) {
                done.status = match stopping {
                    Stopping::Cancelled => Status::Cancelled,
                    Stopping::TimedOut => Status::TimedOut,
                };
                done.value = Data::null();
                done.error = Some(at(&self.inst(id).path, values::stopped(done.status, step)));
            }
            if stopping == Stopping::Cancelled {
                return self.finish_step(id, done);
            }
        }
        if !self.merges.is_empty() {
            return self.keep_merges(id, step, done);
        }
        if !done.status.is_success() {
            if let Some(error) = &done.error
                && self.try_again(id, step, &error.error)
            {
                return;
            }
            return self.recover(id, step, done);
        }
        if !matches!(step.body, Body::Leaf(_)) {
            match self.output_file(id, step) {
                Ok(None) => {}
                Ok(Some(file)) => return self.write_output(id, step, file, done),
                Err(error) => {
                    done.status = Status::Failed;
                    done.error = Some(at(&self.inst(id).path, error));
                }
            }
        }
        self.finish_step(id, done);
    }

    fn write_output(&mut self, id: InstId, step: &StepPlan, file: String, done: StepDone) {
        let value = Data::new(done.value.primary().clone());
        let call = TaskCall {
            fingerprint: Hash::of(&("output", &value, &file)),
            work: TaskWork::WriteOutput { value },
            timeout: Some(Duration::from_mins(5)),
            effects: step.effects,
            output_file: Some(file),
            is_fallback: false,
            workspace: None,
            cache: None,
            may_park: false,
            budgets: Arc::new([]),
            resources: ResourceLimits::default(),
            lasting: None,
        };
        self.inst_mut(id).state = StepState::Writing(Box::new(done));
        self.launch(id, Op::Task(Box::new(call)));
    }

    fn try_again(&mut self, id: InstId, step: &StepPlan, error: &StepError) -> bool {
        let inst = self.inst(id);
        let tries = inst.turn + 1 - inst.way_turn;
        let Some(delay) = retry::delay(&step.retry, tries, error, &inst.path, self.start.seed) else {
            return self.fall_back(id, step, error);
        };
        let until_ms = self.elapsed_ms + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let key = OpKey { path: inst.path.clone(), turn: inst.turn + 1, role: OpRole::Wait };
        let inst = self.inst_mut(id);
        inst.state = StepState::Waiting;
        inst.stopping = None;
        inst.op = Some(key.clone());
        self.drop_deadline(id);
        self.start_op(Some(id), key, Op::Timer { until_ms });
        true
    }

    /// Takes the next way to do a step whose tries are used up.
    fn fall_back(&mut self, id: InstId, step: &StepPlan, error: &StepError) -> bool {
        let now = self.now;
        let inst = self.inst_mut(id);
        let is_over = matches!(error.kind, ErrorKind::Cancelled | ErrorKind::Budget);
        if is_over || inst.way >= step.fallback.len() {
            return false;
        }
        inst.way += 1;
        inst.turn += 1;
        inst.way_turn = inst.turn;
        inst.stopping = None;
        inst.state = StepState::Ready;
        inst.ready_at = now;
        self.ready.push_back(id);
        true
    }

    fn recover(&mut self, id: InstId, step: &StepPlan, mut done: StepDone) {
        match &step.on_error {
            OnError::Fail => {}
            OnError::Value(value) => {
                let error = serde_json::to_value(done.error.as_ref().map(|e| &e.error)).unwrap_or_default();
                let over = vec![("error".to_owned(), Data::new(error))];
                match value.render(&Bound { under: &self.view(id), over }) {
                    Ok(value) => {
                        done.status = Status::Degraded;
                        done.value = Data::of_step(value);
                    }
                    Err(error) => {
                        let error = self.rendering_failed(step, "on_error", "", &error);
                        done.error = Some(at(&self.inst(id).path, error));
                    }
                }
            }
            OnError::Steps(block) => {
                self.drop_deadline(id);
                let inst = self.inst(id);
                let error = serde_json::to_value(done.error.as_ref().map(|e| &e.error)).unwrap_or_default();
                let frame = self.frame(inst.frame);
                let opening = Opening {
                    block: *block,
                    scope: frame.scope,
                    owner: Owner::OnError(id),
                    outer: Some(inst.frame),
                    path: inst.path.child("on_error"),
                    turn: None,
                    lane: None,
                    again: frame.again,
                    locals: IndexMap::from([("error".to_owned(), Data::new(error))]),
                };
                let frame = self.open(opening);
                let inst = self.inst_mut(id);
                inst.stopping = None;
                inst.state = StepState::OnError { frame };
                return;
            }
        }
        self.finish_step(id, done);
    }

    /// Records how a step ended in its frame, and lets the frame go on.
    pub(super) fn finish_step(&mut self, id: InstId, mut done: StepDone) {
        self.drop_deadline(id);
        let inst = self.steps.remove(id.0);
        let step = self.plan.step(inst.step);
        let continue_on_error = step.continue_on_error;
        if !matches!(step.body, Body::Leaf(_) | Body::Ask(_)) {
            self.progress.push(Progress::GroupEnded { path: inst.path.clone(), status: done.status });
        }
        let failed = !done.status.is_success() && done.status != Status::Skipped;
        if failed {
            let error =
                done.error.clone().unwrap_or_else(|| at(&inst.path, values::stopped(done.status, step)));
            if done.value.json().is_null() {
                done.value = values::of_failure(done.status, &error.error);
            }
            done.error = Some(error);
        }
        if done.status == Status::Degraded {
            done.value = done.value.degraded();
        }
        let error = done.error.clone();
        let frame = self.frame_mut(inst.frame);
        frame.active.remove(&id);
        frame.attempts += done.attempts;
        frame.results[inst.position] = Some(done);
        if failed
            && !continue_on_error
            && frame.ending.is_none()
            && let Some(error) = error
        {
            frame.ending = Some(FrameEnd::Failed(error));
        }
        self.work.push_back(Work::Frame(inst.frame));
    }

    /// Ends the frames around a `break` or `continue` up to the nearest loop's turn.
    pub(super) fn unwind(&mut self, id: InstId, end: FrameEnd) {
        let inst = self.steps.remove(id.0);
        let frame = self.frame_mut(inst.frame);
        frame.active.remove(&id);
        frame.started[inst.position] = true;
        frame.ending = Some(end);
        let others: Vec<InstId> = frame.active.iter().copied().collect();
        for other in others {
            self.stop_step(other, Stopping::Cancelled);
        }
        self.work.push_back(Work::Frame(inst.frame));
    }

    fn frame_closed(&mut self, id: FrameId, end: FrameEnd) {
        match self.frame(id).owner {
            Owner::Run => self.root_closed(id, end),
            owner => {
                let frame = self.frames.remove(id.0);
                self.owner_told(owner, frame, end);
            }
        }
    }

    fn root_closed(&mut self, id: FrameId, end: FrameEnd) {
        match end {
            FrameEnd::Failed(error) => self.finish_run(RunStatus::Failed, Data::null(), Some(error)),
            FrameEnd::Stopped => {
                let error = StepError::new(ErrorKind::TimedOut, "the run's deadline passed")
                    .help("give it more time with --timeout or budget.max_duration");
                let error = crate::fact::RunError { path: None, error };
                self.finish_run(RunStatus::TimedOut, Data::null(), Some(error));
            }
            FrameEnd::Done | FrameEnd::Broke | FrameEnd::Continued => {
                let plan = Arc::clone(&self.plan);
                match self.outputs(id, plan.root()) {
                    Ok(outputs) => self.finish_run(RunStatus::Ok, outputs, None),
                    Err(error) => {
                        let error = crate::fact::RunError { path: None, error };
                        self.finish_run(RunStatus::Failed, Data::null(), Some(error));
                    }
                }
            }
        }
    }

    /// Sets a variable in the scope that it names, as seen from a frame.
    pub(super) fn assign(&mut self, from: FrameId, assignment: Assignment) {
        let Assignment { scope, name, value } = assignment;
        let mut at = Some(from);
        while let Some(id) = at {
            let frame = self.frame(id);
            let (owner, outer, pipeline) = (frame.owner, frame.outer, frame.scope);
            match scope {
                VariableScope::Local => {
                    self.frame_mut(id).locals.insert(name, value);
                    return;
                }
                VariableScope::Loop => {
                    if let Owner::Turn(inst, _) = owner {
                        if let StepState::While(state) = &mut self.inst_mut(inst).state {
                            state.vars.insert(name, value);
                        } else {
                            self.frame_mut(id).locals.insert(name, value);
                        }
                        return;
                    }
                }
                VariableScope::Global | VariableScope::Session => {
                    if let Some(overlay) = &mut self.frame_mut(id).overlay {
                        overlay.insert(name, Written { value, lasts: scope == VariableScope::Session });
                        return;
                    }
                }
            }
            if outer.is_none() {
                if scope == VariableScope::Session {
                    self.saw(pipeline, &name, &value);
                }
                self.scopes[pipeline.0].state.insert(name, value);
                return;
            }
            at = outer;
        }
    }
}
