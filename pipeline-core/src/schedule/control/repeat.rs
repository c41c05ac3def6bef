//! Loops on a condition.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::{ErrorKind, StepError};
use crate::fact::Status;
use crate::plan::{Body, While};
use crate::schedule::names::{View, holds};
use crate::schedule::state::{Frame, FrameEnd, InstId, Owner, StepState, Turn, WhileState, Work};
use crate::schedule::{Schedule, at, values};
use crate::value::Data;

impl Schedule {
    pub(super) fn begin_while(&mut self, id: InstId) {
        self.inst_mut(id).state = StepState::While(WhileState {
            count: 0,
            open: None,
            broke: false,
            failed: None,
            last: IndexMap::new(),
            asked: None,
            vars: IndexMap::new(),
        });
        self.group_progress(id, 0, None);
        self.work.push_back(Work::Control(id));
    }

    pub(super) fn while_forward(&mut self, id: InstId) {
        let plan = Arc::clone(&self.plan);
        let step = plan.step(self.inst(id).step);
        let Body::While(repeat) = &step.body else { return };
        let StepState::While(state) = &self.inst(id).state else { return };
        if state.open.is_some() {
            return;
        }
        if self.inst(id).stopping.is_some() || state.failed.is_some() {
            return self.conclude_while(id, repeat, "timeout");
        }
        if state.broke {
            return self.conclude_while(id, repeat, "break");
        }
        let (count, is_first) = (state.count, state.count == 0);
        let goes_on = if is_first && repeat.test_after {
            Ok(true)
        } else {
            // `until` asks about the turn that was made, `condition` about the one that would be.
            let asked = self.while_turn(id, if repeat.test_after { count - 1 } else { count });
            if let StepState::While(state) = &mut self.inst_mut(id).state {
                state.asked = Some(asked);
            }
            let inst = self.inst(id);
            let view = View { schedule: self, frame: inst.frame, looping: Some(id), at: self.now };
            holds(&repeat.test, &view)
        };
        match goes_on {
            Err((expr, error)) => {
                let source = expr.map_or(String::new(), |e| e.source().to_owned());
                if is_first {
                    return self.settle(id, step, "condition", &source, &error);
                }
                let error = self.rendering_failed(step, "condition", &source, &error);
                let error = at(&self.inst(id).path, error);
                if let StepState::While(state) = &mut self.inst_mut(id).state {
                    state.failed = Some(error);
                }
                self.conclude_while(id, repeat, "error");
            }
            Ok(false) => self.conclude_while(id, repeat, "condition_false"),
            Ok(true) if count >= repeat.max_iterations => self.conclude_while(id, repeat, "max_iterations"),
            Ok(true) => self.open_while_turn(id, repeat, count),
        }
    }

    fn while_turn(&self, id: InstId, count: u64) -> Arc<Turn> {
        let around = self.nearest_turn(self.inst(id).frame);
        Arc::new(Turn {
            iterator: None,
            item: Data::null(),
            index: usize::try_from(count).unwrap_or(usize::MAX),
            total: None,
            level: around.as_ref().map_or(0, |t| t.level + 1),
            parent: around,
        })
    }

    fn open_while_turn(&mut self, id: InstId, repeat: &While, count: u64) {
        let turn = self.while_turn(id, count);
        let index = turn.index;
        let mut opening = self.inside(id, repeat.body, Owner::Turn(id, index));
        opening.path = opening.path.index(index);
        opening.turn = Some(turn);
        let frame = self.open(opening);
        if let StepState::While(state) = &mut self.inst_mut(id).state {
            state.open = Some(frame);
            state.count += 1;
        }
    }

    pub(super) fn while_turn_closed(&mut self, id: InstId, frame: Frame, end: &FrameEnd) {
        let block = self.plan.block(frame.block);
        let mut last = IndexMap::new();
        for (position, done) in frame.results.into_iter().enumerate() {
            if let Some(done) = done.filter(|d| d.status != Status::Skipped) {
                last.insert(Arc::clone(&self.plan.step(block.steps[position]).name), done.value);
            }
        }
        let StepState::While(state) = &mut self.inst_mut(id).state else { return };
        state.open = None;
        state.last = last;
        match end {
            FrameEnd::Broke => state.broke = true,
            FrameEnd::Failed(error) => state.failed = Some(error.clone()),
            FrameEnd::Done | FrameEnd::Continued | FrameEnd::Stopped => {}
        }
        let count = usize::try_from(state.count).unwrap_or(usize::MAX);
        self.group_progress(id, count, None);
        self.work.push_back(Work::Control(id));
    }

    fn conclude_while(&mut self, id: InstId, repeat: &While, reason: &str) {
        let StepState::While(state) = &mut self.inst_mut(id).state else { return };
        let mut failed = state.failed.take();
        if failed.is_none() && reason == "max_iterations" && !repeat.accept_max {
            let count = state.count;
            let error = StepError::new(
                ErrorKind::Invalid,
                format!("the condition still holds after {count} turns (max_iterations)"),
            )
            .help("raise `max_iterations`, or accept it with `on_max_iterations: accept`");
            failed = Some(at(&self.inst(id).path, error));
        }
        let StepState::While(state) = &self.inst(id).state else { return };
        let value = values::of_while(state.count, &state.last, reason, failed.is_none());
        let status = if failed.is_some() { Status::Failed } else { Status::Ok };
        let done = self.step_done(id, status, value, failed);
        self.conclude(id, done);
    }
}
