//! What a workflow says about all of its steps: `defaults`, `environment`, `resource_limits`, `budget`.
//!
//! The step's own value wins, maps are merged deep, lists are replaced. Old spellings of limits become the budget.
//! Must not know what a model step makes of its defaults: `normalise/model.rs` does.

use crate::diagnostic::Diagnostic;
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::merged;
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::{Keys, wrong};
use crate::plan::compile::policy::size;
use crate::plan::{Budget, Retry};

/// Keys of `defaults`.
const DEFAULTS: [&str; 14] = [
    "provider",
    "model",
    "gemini_model",
    "gemini_token_budget",
    "claude_model",
    "claude_fallback_model",
    "claude_preset",
    "claude_options",
    "claude_output_format",
    "timeout_seconds",
    "retry",
    "continue_on_error",
    "max_parallel",
    "output_dir",
];

impl Compiler<'_> {
    /// `defaults` and `environment.mode`.
    pub(super) fn defaults(&mut self, keys: &mut Keys<'_>) {
        self.environment(keys);
        let Some(own) = keys.get("defaults") else { return };
        let mut inner = Keys::new(own, "`defaults`", &mut self.report);
        inner.know(&DEFAULTS);
        let _ = inner.duration("timeout_seconds", &mut self.report);
        let _ = inner.count("max_parallel", 1, &mut self.report);
        let _ = inner.flag("continue_on_error", &mut self.report);
        for key in ["provider", "model", "gemini_model", "claude_model", "claude_preset", "output_dir"] {
            let _ = inner.text(key, &mut self.report);
        }
        for key in ["claude_options", "gemini_token_budget"] {
            if let Some(value) = inner.get(key).filter(|v| !matches!(v.kind, NodeKind::Map(_))) {
                wrong(value, key, "a map", &mut self.report);
            }
        }
        if let Some(node) = inner.get("retry") {
            let under = self.scope.retry.clone().unwrap_or_else(Retry::tried);
            self.scope.retry = Some(self.retry_over(under, node));
        }
        inner.finish("`defaults`", self.options.lenient, &mut self.report);
        self.scope.default_spans.push(own.extent());
        let outer = self.scope.defaults.as_ref().map_or(&[][..], Node::entries);
        let entries: Vec<Entry> = merged(outer, own.entries());
        self.scope.defaults = Some(Node::new(own.span, NodeKind::Map(entries)));
    }

    fn environment(&mut self, keys: &mut Keys<'_>) {
        let Some(node) = keys.get("environment") else { return };
        let report = &mut self.report;
        let mut inner = Keys::new(node, "`environment`", report);
        let modes = ["development", "production", "test"];
        if inner.word::<String>("mode", &modes, report).is_some() {
            self.scope.mode = node.get("mode").cloned();
        }
        inner.know(&["cost_alerts"]);
        for key in ["debug_level", "debug_config", "cost_limits"] {
            if let Some(entry) = inner.entry(key) {
                crate::plan::compile::keys::no_effect(entry, report);
            }
        }
        inner.finish("`environment`", self.options.lenient, report);
    }

    /// `budget`, with `resource_limits` and `environment.cost_alerts` under it.
    pub(super) fn workflow_budget(&mut self, keys: &mut Keys<'_>) -> Budget {
        let mut budget = Budget::default();
        if let Some(alerts) = keys.get("environment").and_then(|e| e.get("cost_alerts")) {
            self.cost_alerts(alerts, &mut budget);
        }
        if let Some(limits) = keys.get("resource_limits") {
            self.resource_limits(limits, &mut budget);
        }
        let Some(node) = keys.get("budget") else { return budget };
        let own = self.budget(node);
        Budget {
            max_cost_usd: own.max_cost_usd.or(budget.max_cost_usd),
            max_tokens: own.max_tokens.or(budget.max_tokens),
            max_steps: own.max_steps.or(budget.max_steps),
            max_duration: own.max_duration.or(budget.max_duration),
            max_parallel: own.max_parallel.or(budget.max_parallel),
            resources: own.resources.or(budget.resources),
        }
    }

    fn cost_alerts(&mut self, node: &Node, budget: &mut Budget) {
        let report = &mut self.report;
        let mut keys = Keys::new(node, "`cost_alerts`", report);
        let is_on = keys.flag("enabled", report).unwrap_or(true);
        let limit = keys.number("threshold_usd", report).filter(|_| is_on);
        if let (Some(limit), Some(entry)) = (limit, node.entry("threshold_usd")) {
            budget.max_cost_usd = Some(limit);
            let message = "`cost_alerts.threshold_usd` is an old spelling of `budget.max_cost_usd`: the run stops there";
            let finding = Diagnostic::note("E0111", entry.key_span, message);
            report.push(finding.help(format!("write `budget: {{max_cost_usd: {limit}}}`")));
        }
        if let Some(entry) = keys.entry("notify_on_exceed") {
            crate::plan::compile::keys::no_effect(entry, report);
        }
        keys.finish("`cost_alerts`", self.options.lenient, report);
    }

    fn resource_limits(&mut self, node: &Node, budget: &mut Budget) {
        let report = &mut self.report;
        let mut keys = Keys::new(node, "`resource_limits`", report);
        budget.max_cost_usd = keys.number("max_cost_usd", report).or(budget.max_cost_usd);
        budget.max_tokens = keys.count("max_tokens", 0, report);
        let steps = keys.count("max_total_steps", 1, report);
        budget.max_steps = steps.or(keys.count("max_steps", 1, report));
        let seconds = keys.duration("max_execution_time_s", report);
        let seconds = seconds.or(keys.duration("max_execution_time", report));
        budget.max_duration = seconds.or(keys.duration("max_duration", report)).flatten();
        let parallel = keys.count("max_concurrent_steps", 1, report);
        budget.max_parallel = parallel.or(keys.count("max_parallel", 1, report)).map(size);
        budget.resources.max_memory_mb = keys.count("max_memory_mb", 1, report);
        let finding =
            Diagnostic::note("E0111", node.span, "`resource_limits` is an old spelling of `budget`");
        report
            .push(finding.help(
                "write `budget:` with max_steps, max_duration, max_cost_usd, max_tokens, max_parallel, max_memory_mb",
            ));
        keys.finish("`resource_limits`", self.options.lenient, report);
    }
}
