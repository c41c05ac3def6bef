//! Limits on what is started and spent.
//!
//! Owns the counters of attempts and the list of limits around a step. Money and tokens are reserved by the backend
//! (`engine/ledger.rs`), which alone knows what is in flight; here a limit that is reached already stops new attempts.

use std::sync::Arc;

use crate::error::{ErrorKind, StepError};
use crate::path::{OpKey, StepPath};
use crate::plan::{Body, Budget};
use crate::resources::ResourceLimits;
use crate::schedule::state::{InstId, Owner, StepState};
use crate::schedule::{BudgetAt, Schedule};

/// The tighter of two limits.
fn tighter<T: PartialOrd>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a < b { a } else { b }),
        (a, b) => a.or(b),
    }
}

impl Schedule {
    /// Most attempts at once.
    fn capacity(&self) -> usize {
        let file = self.plan.root().budget.max_parallel;
        tighter(file, self.start.limits.max_parallel).unwrap_or(usize::MAX).max(1)
    }

    /// Whether another attempt may begin beside those that run. A person who is asked holds nobody up.
    pub(super) fn has_room(&self) -> bool {
        self.running - self.asked < self.capacity()
    }

    /// Whether a limit of the run forbids another attempt; remembers which.
    pub(super) fn is_over_budget(&mut self) -> bool {
        if self.halted.is_none() && self.enforce_limits {
            let (file, outside) = (&self.plan.root().budget, &self.start.limits);
            let steps = tighter(file.max_steps, outside.max_steps);
            let tokens = tighter(file.max_tokens, outside.max_tokens);
            let cost = tighter(file.max_cost_usd, outside.max_cost_usd);
            let spent = self.usage.cost_usd.unwrap_or(0.0) + self.unsettled.cost_usd;
            let used = self.usage.tokens().saturating_add(self.unsettled.tokens);
            self.halted = if steps.is_some_and(|max| self.started_steps >= max) {
                Some(format!("max_steps: {} attempts were started", self.started_steps))
            } else if tokens.is_some_and(|max| used >= max) {
                Some(format!("max_tokens: {used} tokens were used"))
            } else if cost.is_some_and(|max| spent >= max) {
                Some(format!("max_cost_usd: {spent:.4} US dollars were spent"))
            } else {
                None
            };
        }
        self.halted.is_some()
    }

    /// The limits on money and tokens around a step instance, innermost first.
    pub(super) fn budgets(&self, id: InstId) -> Arc<[BudgetAt]> {
        let at = |path: &StepPath, budget: &Budget| {
            let (max_cost_usd, max_tokens) = (budget.max_cost_usd, budget.max_tokens);
            let path = path.clone();
            (max_cost_usd.is_some() || max_tokens.is_some()).then_some(BudgetAt {
                path,
                max_cost_usd,
                max_tokens,
            })
        };
        let mut all: Vec<BudgetAt> =
            self.places(id).into_iter().filter_map(|(path, budget)| at(path, budget)).collect();
        let (file, outside) = (&self.plan.root().budget, &self.start.limits);
        let run = Budget {
            max_cost_usd: tighter(file.max_cost_usd, outside.max_cost_usd),
            max_tokens: tighter(file.max_tokens, outside.max_tokens),
            ..Budget::default()
        };
        all.extend(at(&StepPath::root(), &run));
        all.into()
    }

    /// What the limits on resources around a step instance come to.
    pub(super) fn resource_limits(&self, id: InstId) -> ResourceLimits {
        let of_run = self.plan.root().budget.resources.and(self.start.limits.resources);
        self.places(id).into_iter().fold(of_run, |limits, (_, budget)| limits.and(budget.resources))
    }

    /// Counts an attempt at every place with a `max_steps` of its own.
    ///
    /// # Errors
    /// The first place that allows no more.
    pub(super) fn count_attempt(&mut self, id: InstId) -> Result<(), StepError> {
        if self.most_steps(id).is_some_and(|most| self.started_steps >= most) {
            return Err(Self::too_many_steps(self.started_steps));
        }
        let limited = self.places(id).into_iter().filter_map(|(path, b)| Some((path.clone(), b.max_steps?)));
        let limited: Vec<(StepPath, u64)> = limited.collect();
        let count = |path| self.steps_below.get(path).copied().unwrap_or(0);
        if let Some((path, max)) = limited.iter().find(|(path, max)| count(path) >= *max) {
            let message = format!("the budget of `{path}`: max_steps: {max} attempts were started");
            return Err(StepError::new(ErrorKind::Budget, message).help("raise the limit, or do less in it"));
        }
        // What is refused does not start, and counts nowhere.
        for (path, _) in limited {
            *self.steps_below.entry(path).or_default() += 1;
        }
        self.started_steps += 1;
        Ok(())
    }

    /// Takes an attempt back that was started in replay, where limits are not looked at, and that never began: it waits for
    /// room once more. False for what is no step's own attempt.
    pub(crate) fn take_back(&mut self, key: &OpKey) -> bool {
        let Some(id) = self.ops.get(key).and_then(|op| op.inst) else { return false };
        if !matches!(self.inst(id).state, StepState::Running) {
            return false;
        }
        self.ops.remove(key);
        self.running -= 1;
        self.started_steps -= 1;
        let limited = self.places(id).into_iter().filter(|(_, budget)| budget.max_steps.is_some());
        for path in limited.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.steps_below.entry(path).and_modify(|count| *count -= 1);
        }
        let inst = self.inst_mut(id);
        inst.op = None;
        inst.state = StepState::Ready;
        self.queued.push_front(id);
        true
    }

    /// The tightest `max_total_steps` of the child pipelines around a step instance.
    fn most_steps(&self, id: InstId) -> Option<u64> {
        let mut frame = self.frame(self.inst(id).frame);
        let mut most = None;
        // Most steps are in no child, and pay nothing for this.
        while self.scope(frame.scope).depth > 0 {
            let Some(owner) = frame.owner.inst() else { break };
            let inst = self.inst(owner);
            if let Body::Child(child) = &self.plan.step(inst.step).body {
                most = tighter(most, Some(child.max_total_steps));
            }
            frame = self.frame(inst.frame);
        }
        most
    }

    pub(super) fn too_many_steps(started: u64) -> StepError {
        StepError::invalid(format!("the run has started {started} steps already"))
            .help("raise config.max_total_steps")
    }

    /// The steps and child pipelines around a step instance, itself included, innermost first.
    fn places(&self, id: InstId) -> Vec<(&StepPath, &Budget)> {
        let mut all = Vec::new();
        let mut at = Some(id).filter(|_| self.has_inner_budgets);
        while let Some(id) = at {
            let inst = self.inst(id);
            all.push((&inst.path, &self.plan.step(inst.step).budget));
            let frame = self.frame(inst.frame);
            at = frame.owner.inst();
            if let Owner::Child(owner) = frame.owner {
                let pipeline = self.plan.pipeline(self.scope(frame.scope).pipeline);
                all.push((&self.inst(owner).path, &pipeline.budget));
            }
        }
        all
    }
}
