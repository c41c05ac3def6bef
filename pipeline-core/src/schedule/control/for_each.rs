//! Loops over items, one after the other or bounded in parallel. Their meaning is the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::StepError;
use crate::fact::{RunError, Status};
use crate::plan::{Body, ForEach, LoopShape, StepPlan};
use crate::schedule::names::{View, holds};
use crate::schedule::state::{
    ForEachState, Frame, FrameEnd, FrameId, InstId, Owner, StepState, Turn, TurnDone, Work, Written,
};
use crate::schedule::{Schedule, at, values};
use crate::value::{Data, Value};

impl Schedule {
    pub(super) fn begin_for_each(&mut self, id: InstId, step: &StepPlan, each: &ForEach) {
        let items = match each.source.data(&self.view(id)) {
            Ok(items) if items.json().is_array() => items,
            Ok(nothing) if nothing.json().is_null() => Data::new(Value::Array(Vec::new())),
            Ok(other) => {
                let kind = crate::document::Node::from_json(step.span, other.json()).kind_name();
                let error =
                    StepError::invalid(format!("the data source of `{}` is {kind}, not a list", step.name))
                        .help("a data_source must give a list; `keys(x)` and `values(x)` make one of a map");
                return self.fail_control(id, step, error);
            }
            Err(error) => return self.settle(id, step, "data_source", "", &error),
        };
        let length = items.count().unwrap_or(0);
        let most = each.max_iterations.map_or(usize::MAX, |m| usize::try_from(m).unwrap_or(usize::MAX));
        let total = length.min(most);
        let serial = self.next_serial();
        self.inst_mut(id).state = StepState::ForEach(ForEachState {
            serial,
            items,
            total,
            next: 0,
            open: BTreeMap::new(),
            done: BTreeMap::new(),
            failed: None,
            broke: false,
        });
        self.group_progress(id, 0, Some(total));
        self.work.push_back(Work::Control(id));
    }

    pub(super) fn for_each_forward(&mut self, id: InstId) {
        let plan = Arc::clone(&self.plan);
        let step = plan.step(self.inst(id).step);
        let Body::ForEach(each) = &step.body else { return };
        let room = each.parallel.unwrap_or(1).max(1);
        while let Some(index) = self.next_turn(id, room) {
            self.open_turn(id, each, index);
        }
        let StepState::ForEach(state) = &self.inst(id).state else { return };
        if state.open.is_empty() {
            self.conclude_for_each(id, step, each);
        }
    }

    fn next_turn(&mut self, id: InstId, room: usize) -> Option<usize> {
        let stopping = self.inst(id).stopping.is_some();
        let StepState::ForEach(state) = &mut self.inst_mut(id).state else { return None };
        if stopping
            || state.failed.is_some()
            || state.broke
            || state.next >= state.total
            || state.open.len() >= room
        {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn open_turn(&mut self, id: InstId, each: &ForEach, index: usize) {
        let frame = self.inst(id).frame;
        let around = self.nearest_turn(frame);
        let StepState::ForEach(state) = &self.inst(id).state else { return };
        let item = Data::new(state.items.json().get(index).cloned().unwrap_or_default());
        let turn = Turn {
            iterator: each.iterator.clone(),
            item: item.clone(),
            index,
            total: Some(state.total),
            level: around.as_ref().map_or(0, |t| t.level + 1),
            parent: around,
        };
        let serial = state.serial;
        let mut opening = self.inside(id, each.body, Owner::Turn(id, index));
        opening.path = opening.path.index(index);
        opening.turn = Some(Arc::new(turn));
        opening.lane = each.parallel.map(|_| (serial, index));
        let frame = self.open(opening);
        let skip = match &each.continue_when {
            None => Ok(false),
            Some(condition) => {
                let view = View { schedule: self, frame, looping: None, at: self.now };
                holds(condition, &view)
            }
        };
        let path = self.frame(frame).path.clone();
        let StepState::ForEach(state) = &mut self.inst_mut(id).state else { return };
        let (status, error) = match skip {
            Ok(false) => {
                state.open.insert(index, frame);
                return;
            }
            Ok(true) => (Status::Skipped, None),
            Err((_, error)) => {
                let error = at(&path, StepError::invalid(format!("continue_condition: {}", error.message)));
                if each.break_on_error {
                    state.failed = Some(error.clone());
                }
                (Status::Failed, Some(error))
            }
        };
        let done = TurnDone { status, item, error, ..TurnDone::none() };
        state.done.insert(index, done);
        self.frames.remove(frame.0);
    }

    pub(super) fn nearest_turn(&self, frame: FrameId) -> Option<Arc<Turn>> {
        let mut next = Some(frame);
        while let Some(id) = next {
            let frame = self.frame(id);
            if let Some(turn) = &frame.turn {
                return Some(Arc::clone(turn));
            }
            next = frame.outer;
        }
        None
    }

    /// A turn of a loop has closed.
    pub(super) fn turn_closed(&mut self, id: InstId, index: usize, frame: Frame, end: &FrameEnd) {
        let plan = Arc::clone(&self.plan);
        let Body::ForEach(each) = &plan.step(self.inst(id).step).body else {
            return self.while_turn_closed(id, frame, end);
        };
        let mut broke = matches!(end, FrameEnd::Broke);
        let mut failed = None;
        if let (Some(condition), FrameEnd::Done | FrameEnd::Continued) = (&each.break_when, end) {
            let path = frame.path.clone();
            match self.in_closed_frame(frame, |view| holds(condition, view)) {
                (frame, Ok(holds)) => {
                    broke = holds;
                    return self.turn_recorded(id, each, index, frame, end, broke, failed);
                }
                (frame, Err((_, error))) => {
                    failed =
                        Some(at(&path, StepError::invalid(format!("break_condition: {}", error.message))));
                    return self.turn_recorded(id, each, index, frame, end, broke, failed);
                }
            }
        }
        self.turn_recorded(id, each, index, frame, end, broke, failed);
    }

    /// Reads names from a frame that has been taken out: puts it back for as long as that takes.
    pub(super) fn in_closed_frame<T>(
        &mut self,
        frame: Frame,
        read: impl FnOnce(&View<'_>) -> T,
    ) -> (Frame, T) {
        let id = FrameId(self.frames.insert(frame));
        let result = read(&View { schedule: self, frame: id, looping: None, at: self.now });
        (self.frames.remove(id.0), result)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; they are the parts of one ended turn")]
    fn turn_recorded(
        &mut self,
        id: InstId,
        each: &ForEach,
        index: usize,
        frame: Frame,
        end: &FrameEnd,
        broke: bool,
        failed: Option<RunError>,
    ) {
        let mut done = self.turn_done(frame, end);
        if let Some(error) = failed {
            done.status = Status::Failed;
            done.error = Some(error);
        }
        let StepState::ForEach(state) = &mut self.inst_mut(id).state else { return };
        state.open.remove(&index);
        let mut stop = Vec::new();
        if broke {
            // Later turns would not have run one after the other: they do not count in parallel either.
            state.broke = true;
            stop.extend(state.open.range(index..).map(|(_, f)| *f));
        }
        if let Some(error) = &done.error
            && each.break_on_error
            && state.failed.is_none()
        {
            state.failed = Some(error.clone());
            stop.extend(state.open.values().copied());
        }
        state.done.insert(index, done);
        if broke {
            state.total = state.total.min(index + 1);
            drop(state.done.split_off(&state.total));
        } else if index >= state.total {
            state.done.remove(&index);
        }
        let (count, total) = (state.done.len(), state.total);
        for frame in stop {
            self.stop_frame(frame);
        }
        self.group_progress(id, count, Some(total));
        self.work.push_back(Work::Control(id));
    }

    fn conclude_for_each(&mut self, id: InstId, step: &StepPlan, each: &ForEach) {
        let StepState::ForEach(state) = &mut self.inst_mut(id).state else { return };
        let done = std::mem::take(&mut state.done);
        let mut failed = state.failed.take();
        let items = state.items.clone();
        let list = items.json().as_array().map_or(&[][..], Vec::as_slice);
        let value = match &each.shape {
            LoopShape::Loop => values::of_for_loop(list.len(), &done),
            LoopShape::Batch { id: name } => {
                let ids = self.batch_ids(id, each, name.as_ref(), list);
                values::of_parallel(&ids, &done)
            }
        };
        if matches!(each.shape, LoopShape::Batch { .. }) && failed.is_none() {
            failed = done.values().find_map(|t| t.error.clone());
        }
        if each.parallel.is_some()
            && let Err(message) = self.merge(id, each, done)
        {
            let error = self.located(step, StepError::invalid(message));
            failed = Some(at(&self.inst(id).path, error));
        }
        let status = if failed.is_some() { Status::Failed } else { Status::Ok };
        let done = self.step_done(id, status, value, failed);
        self.conclude(id, done);
    }

    fn batch_ids(
        &mut self,
        id: InstId,
        each: &ForEach,
        name: Option<&crate::expr::Dynamic>,
        items: &[Value],
    ) -> Vec<String> {
        let mut ids = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let given = name.and_then(|name| {
                let mut opening = self.inside(id, each.body, Owner::Turn(id, index));
                opening.turn = Some(Arc::new(Turn {
                    iterator: each.iterator.clone(),
                    item: Data::new(item.clone()),
                    index,
                    total: Some(items.len()),
                    level: 0,
                    parent: None,
                }));
                let frame = self.open(opening);
                let view = View { schedule: self, frame, looping: None, at: self.now };
                let rendered = name.render(&view).ok();
                self.frames.remove(frame.0);
                rendered.filter(|v| !v.is_null())
            });
            ids.push(match given {
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
                None => format!("task_{}", index + 1),
            });
        }
        ids
    }

    /// Merges what parallel turns wrote, in item order, by the declared reducers.
    fn merge(&mut self, id: InstId, each: &ForEach, done: BTreeMap<usize, TurnDone>) -> Result<(), String> {
        let mut written: IndexMap<String, (Vec<Data>, bool)> = IndexMap::new();
        for (name, one) in done.into_values().flat_map(|t| t.overlay) {
            let (values, lasts) = written.entry(name).or_default();
            values.push(one.value);
            *lasts |= one.lasts;
        }
        let frame = self.inst(id).frame;
        for (name, (values, lasts)) in written {
            let reducer = each.reduce.iter().find(|(n, _)| *n == name).map(|(_, r)| *r);
            let Some(reducer) = reducer else {
                return Err(format!(
                    "`{name}` is written in parallel turns, and `reduce` does not say how to merge it"
                ));
            };
            let before = {
                let view = View { schedule: self, frame, looping: None, at: self.now };
                crate::expr::Names::get(&view, "state", Some(&name))
            };
            let value = values::reduce(reducer, before.as_ref(), &values)
                .map_err(|message| format!("reduce `{name}`: {message}"))?;
            self.assign_merged(frame, name, reducer, before, values, Written { value, lasts });
        }
        Ok(())
    }
}
