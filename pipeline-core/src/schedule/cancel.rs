//! Stopping a subtree.
//!
//! Stopping is asked for from above and reported from below: a control form ends when everything inside it has, so nothing
//! outlives what it belongs to.

use crate::fact::Status;
use crate::schedule::state::{FrameEnd, FrameId, InstId, StepState, Stopping, Work};
use crate::schedule::{Command, Schedule, StepDone, values};
use crate::value::Data;

impl Schedule {
    /// The run's own deadline passed.
    pub(super) fn run_deadline_passed(&mut self) {
        let root = self.frames.iter().find(|(_, f)| f.is_root).map(|(id, _)| FrameId(id));
        if let Some(root) = root {
            self.stop_frame(root);
        }
    }

    /// Asks a step instance and everything below it to stop.
    pub(super) fn stop_step(&mut self, id: InstId, why: Stopping) {
        let inst = self.inst_mut(id);
        if inst.stopping.is_some() {
            return;
        }
        inst.stopping = Some(why);
        let open: Vec<FrameId> = match &inst.state {
            StepState::Ready => {
                // It waits in a queue: taken out here when that is the long one, else when its turn comes.
                if let Some(place) = self.queued.iter().position(|q| *q == id) {
                    self.queued.remove(place);
                    self.discard(id);
                }
                return;
            }
            StepState::Running => {
                let key = inst.op.clone();
                self.commands.extend(key.map(Command::Cancel));
                return;
            }
            StepState::Writing(_) | StepState::Keeping(_) => return,
            StepState::Waiting => {
                let key = inst.op.take();
                if let Some(key) = key {
                    self.ops.remove(&key);
                    self.commands.push(Command::Cancel(key));
                }
                return self.discard(id);
            }
            StepState::Parked(_) | StepState::HeldBack => {
                let key = inst.op.take();
                if let Some(key) = key {
                    self.ops.remove(&key);
                    self.commands.push(Command::Cancel(key));
                }
                self.leave_account(id);
                return self.discard(id);
            }
            StepState::Parallel(state) => state.open.values().copied().collect(),
            StepState::ForEach(state) => state.open.values().copied().collect(),
            StepState::While(state) => state.open.into_iter().collect(),
            StepState::Choose { frame, .. } => frame.iter().copied().collect(),
            StepState::Child { frame } | StepState::OnError { frame } => vec![*frame],
        };
        for frame in open {
            self.stop_frame(frame);
        }
        self.work.push_back(Work::Control(id));
    }

    /// Asks a list of steps to stop. What it was ending with already stands.
    pub(super) fn stop_frame(&mut self, id: FrameId) {
        let Some(frame) = self.frames.get_mut(id.0) else { return };
        if frame.ending.is_none() {
            frame.ending = Some(FrameEnd::Stopped);
        }
        let active: Vec<InstId> = frame.active.iter().copied().collect();
        for inst in active {
            self.stop_step(inst, Stopping::Cancelled);
        }
        self.work.push_back(Work::Frame(id));
    }

    /// Ends a step instance that was stopped before it started, or while it waited.
    pub(super) fn discard(&mut self, id: InstId) {
        let inst = self.inst(id);
        let step = self.plan.step(inst.step);
        let done = StepDone {
            status: Status::Cancelled,
            value: Data::null(),
            error: Some(super::at(&inst.path, values::stopped(Status::Cancelled, step))),
            attempts: inst.attempts,
            started_ms: inst.ready_ms,
            ended_ms: self.elapsed_ms,
        };
        self.finish_step(id, done);
    }

    /// Takes the deadline timer of a control form away.
    pub(super) fn drop_deadline(&mut self, id: InstId) {
        if let Some(key) = self.inst_mut(id).deadline.take() {
            self.ops.remove(&key);
            self.commands.push(Command::Cancel(key));
        }
    }
}
