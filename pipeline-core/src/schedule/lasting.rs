//! Variables that outlive the run: what the schedule knows of them, and when they are kept.
//!
//! A step that sets them is told what the run last saw. When another run has set them since, the attempt is put back with
//! what is there now, and is rendered again: so a counter counts, whoever counts at the same time. What parallel turns
//! wrote is kept once, when it is merged.

use std::sync::Arc;
use std::time::Duration;

use crate::fact::{Assignment, VariableScope};
use crate::plan::{Reducer, StepPlan};
use crate::resources::ResourceLimits;
use crate::schedule::state::{FrameId, InstId, ScopeId, StepState, Written};
use crate::schedule::{Lasting, Merge, Op, Schedule, StepDone, TaskCall, TaskWork};
use crate::value::{Data, Hash};

impl Schedule {
    /// What a leaf is told of lasting variables: only one that sets some, and only where they reach the pipeline's state.
    pub(super) fn lasting(&self, id: InstId, with: &Data) -> Option<Lasting> {
        let is_session = with.get("scope").is_some_and(|scope| scope.json() == "session");
        (is_session && self.lane_of(self.inst(id).frame).is_none()).then(|| self.seen(id))
    }

    fn seen(&self, id: InstId) -> Lasting {
        let scope = self.scope(self.frame(self.inst(id).frame).scope);
        let workflow = Arc::clone(&self.plan.pipeline(scope.pipeline).name);
        let seen = self.lasting.get(&workflow).cloned().unwrap_or_default();
        Lasting { workflow, seen }
    }

    /// The nearest parallel turn or branch around a frame, in the same pipeline.
    fn lane_of(&self, from: FrameId) -> Option<FrameId> {
        let mut at = Some(from);
        while let Some(id) = at {
            let frame = self.frame(id);
            if frame.overlay.is_some() {
                return Some(id);
            }
            at = frame.outer;
        }
        None
    }

    /// Remembers what is kept of a variable.
    pub(super) fn saw(&mut self, scope: ScopeId, name: &str, value: &Data) {
        let workflow = Arc::clone(&self.plan.pipeline(self.scope(scope).pipeline).name);
        Arc::make_mut(self.lasting.entry(workflow).or_default()).insert(name.to_owned(), value.clone());
    }

    /// Takes in what another run has set, and lets the step be rendered again. No try is used up.
    pub(super) fn renew(&mut self, id: InstId, now: Vec<Assignment>) {
        let frame = self.inst(id).frame;
        for assignment in now {
            self.assign(frame, assignment);
        }
        let inst = self.inst_mut(id);
        inst.op = None;
        inst.turn += 1;
        inst.way_turn += 1;
        inst.state = StepState::Ready;
        self.ready.push_back(id);
    }

    /// Writes what turns or branches wrote of one variable to the state as seen from a frame: to the nearest lane around
    /// it, or the pipeline's state itself.
    pub(super) fn assign_merged(
        &mut self,
        from: FrameId,
        name: String,
        reducer: Reducer,
        before: Option<Data>,
        values: Vec<Data>,
        written: Written,
    ) {
        if let Some(lane) = self.lane_of(from) {
            if let Some(overlay) = &mut self.frame_mut(lane).overlay {
                overlay.insert(name, written);
            }
            return;
        }
        let scope = self.frame(from).scope;
        self.scopes[scope.0].state.insert(name.clone(), written.value);
        if written.lasts {
            self.merges.push(Merge { name, reducer, before, written: values });
        }
    }

    /// Keeps what has just been merged, before the control form ends.
    pub(super) fn keep_merges(&mut self, id: InstId, step: &StepPlan, done: StepDone) {
        let merges = std::mem::take(&mut self.merges);
        let call = TaskCall {
            fingerprint: Hash::of(&("keep", &merges)),
            work: TaskWork::Keep { merges },
            timeout: Some(Duration::from_mins(5)),
            effects: step.effects,
            output_file: None,
            is_fallback: false,
            workspace: None,
            cache: None,
            may_park: false,
            budgets: Arc::new([]),
            resources: ResourceLimits::default(),
            lasting: Some(self.seen(id)),
        };
        self.inst_mut(id).state = StepState::Keeping(Box::new(done));
        self.launch(id, Op::Task(Box::new(call)));
    }
}

impl From<(String, Data)> for Assignment {
    fn from((name, value): (String, Data)) -> Self {
        Self { scope: VariableScope::Session, name, value }
    }
}
