//! The control forms: fan-outs, loops, choices. Next: `batch.rs` (fan-outs of model calls), `child.rs` (child pipelines).

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, closest};
use crate::document::{Node, NodeKind};
use crate::expr::{Dynamic, Expr};
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::{Keys, wrong};
use crate::plan::compile::names::Place;
use crate::plan::compile::policy::size;
use crate::plan::{
    Ask, BlockId, Body, Choose, Condition, ForEach, LoopShape, OnFailure, Parallel, Reducer, While,
};
use crate::value::Value;

/// Turns of a while_loop that says nothing.
const DEFAULT_TURNS: u64 = 100;

impl Compiler<'_> {
    pub(super) fn control(&mut self, node: &Node, written: &str, keys: &mut Keys<'_>, place: &Place) -> Body {
        let body = match written {
            "parallel" if node.get("tasks").or(node.get("parallel_tasks")).is_none() => {
                self.parallel(node, keys, place)
            }
            "parallel" | "parallel_claude" | "claude_batch" => self.batch(node, written, keys, place),
            "for_loop" => self.for_loop(node, keys, place),
            "while_loop" => self.while_loop(node, keys, place),
            "switch" => self.switch(node, keys, place),
            "approval" => self.approval(node, keys, place),
            "pipeline" => return self.child(node, keys, place),
            _ => {
                if place.loops.is_empty() {
                    let span = node.get("type").map_or(node.span, |n| n.span);
                    let finding =
                        Diagnostic::error("E0210", span, format!("`{written}` stands outside a loop"));
                    self.report.push(
                        finding.help("it ends or skips a turn of a for_loop or while_loop").at(&place.path),
                    );
                }
                if written == "break" { Body::Break } else { Body::Continue }
            }
        };
        self.done(keys, written);
        body
    }

    /// `approval`: a question to a person.
    fn approval(&mut self, node: &Node, keys: &mut Keys<'_>, place: &Place) -> Body {
        let message = match keys.get("message") {
            Some(message) => self.any_value(message, place),
            None => {
                let finding = Diagnostic::error("E0102", node.span, "an `approval` step needs `message`");
                self.report.push(
                    finding
                        .help("add `message: …`, the question")
                        .at(&place.path)
                        .about(node.span, "message"),
                );
                Dynamic::List(Vec::new())
            }
        };
        let choices = keys.get("choices").map(|n| self.any_value(n, place));
        let schema = keys.get("schema").map(Node::to_json);
        if let (Some(node), Some(_)) = (keys.get("schema"), &choices) {
            let finding =
                Diagnostic::error("E0103", node.span, "an `approval` has `choices` or `schema`, not both");
            self.report.push(finding.help("remove one of them").at(&place.path));
        }
        let default = keys.get("default").map(|n| self.any_value(n, place));
        Body::Ask(Ask { message, choices, schema, default })
    }

    pub(super) fn done(&mut self, keys: &mut Keys<'_>, written: &str) {
        let left = std::mem::replace(keys, Keys::nothing());
        left.finish(&format!("a `{written}` step"), self.options.lenient, &mut self.report);
    }

    /// The steps of a key; absent is an error.
    pub(super) fn steps_of(
        &mut self,
        node: &Node,
        keys: &mut Keys<'_>,
        key: &'static str,
        place: &Place,
    ) -> BlockId {
        match keys.get(key) {
            Some(list) => self.block(list, place),
            None => {
                let finding = Diagnostic::error("E0102", node.span, format!("this step needs `{key}`"));
                self.report.push(
                    finding
                        .help(format!("add `{key}:` with a list of steps"))
                        .at(&place.path)
                        .about(node.span, key),
                );
                self.add_block(Vec::new(), None)
            }
        }
    }

    pub(super) fn max_parallel(&mut self, keys: &mut Keys<'_>) -> usize {
        keys.count("max_parallel", 1, &mut self.report).map_or_else(|| self.default_parallel(), size)
    }

    pub(super) fn on_failure(&mut self, keys: &mut Keys<'_>) -> OnFailure {
        keys.word("on_failure", &["fail_fast", "collect"], &mut self.report).unwrap_or_default()
    }

    /// `parallel`: steps that run at once, or named branches with steps of their own.
    fn parallel(&mut self, node: &Node, keys: &mut Keys<'_>, place: &Place) -> Body {
        let max_parallel = self.max_parallel(keys);
        let on_failure = self.on_failure(keys);
        let mut place = place.clone();
        place.previous = None;
        place.no_previous = "branches run at the same time";
        let mut branches = Vec::new();
        match keys.either(&["steps", "branches"], &mut self.report) {
            Some(list) if matches!(list.kind, NodeKind::List(_)) => {
                // Each step is a branch of its own and sees none of the others.
                let names = self.block_names(list.items(), &place);
                for (item, name) in list.items().iter().zip(names) {
                    let one = Node::new(item.span, NodeKind::List(vec![item.clone()]));
                    branches.push((name, self.block(&one, &place)));
                }
            }
            Some(map) if matches!(map.kind, NodeKind::Map(_)) => {
                for entry in map.entries() {
                    let inside = place.inside(&entry.key);
                    branches.push((Arc::from(entry.key.as_str()), self.block(&entry.value, &inside)));
                }
            }
            other => {
                let span = other.map_or(node.span, |n| n.span);
                let finding =
                    Diagnostic::error("E0102", span, "a `parallel` step needs `steps` or `branches`");
                self.report.push(
                    finding
                        .help("`steps` is a list; `branches` maps names to lists of steps")
                        .at(&place.path),
                );
            }
        }
        Body::Parallel(Parallel { branches, max_parallel, on_failure })
    }

    fn for_loop(&mut self, node: &Node, keys: &mut Keys<'_>, place: &Place) -> Body {
        let iterator = keys.text("iterator", &mut self.report).map(str::to_owned);
        let source = match keys.get("data_source") {
            Some(source) => match source.as_text() {
                Some(text) => {
                    let expr = self.expression(source, text, place);
                    expr.map_or_else(|| Dynamic::List(Vec::new()), Dynamic::Expr)
                }
                None => self.any_value(source, place),
            },
            None => {
                let finding = Diagnostic::error("E0102", node.span, "a `for_loop` step needs `data_source`");
                self.report.push(
                    finding
                        .help("give it a list, or an expression that comes to one")
                        .at(&place.path)
                        .about(node.span, "data_source"),
                );
                Dynamic::List(Vec::new())
            }
        };
        let is_parallel = keys.flag("parallel", &mut self.report).unwrap_or(false);
        let max_parallel = self.max_parallel(keys);
        let break_on_error = keys.flag("break_on_error", &mut self.report).unwrap_or(true);
        let max_iterations = keys.count("max_iterations", 1, &mut self.report);
        for key in ["batch_size", "ordered_results", "memory_limit"] {
            if let Some(entry) = keys.entry(key) {
                let message =
                    format!("`{key}` has no effect: results keep their order and memory stays flat");
                let finding = Diagnostic::note("E0110", entry.key_span, message);
                self.report.push(finding.help("remove it; `max_parallel` bounds what runs at once"));
            }
        }
        let reduce = keys.get("reduce").map_or_else(Vec::new, |n| self.reducers(n));
        let mut inside = place.clone();
        inside.previous = None;
        inside.no_previous = "it is the first step of a turn";
        inside.loops.push(iterator.clone());
        // Reducers mean the same when turns run one after the other: each writes to a lane of its own.
        let has_lanes = is_parallel || !reduce.is_empty();
        if has_lanes {
            inside.parallel = Some(reduce.iter().map(|(name, _)| name.clone()).collect());
        }
        let continue_when = keys.get("continue_condition").map(|n| self.condition(n, &inside));
        let body = self.steps_of(node, keys, "steps", &inside);
        let after = self.after_turn(node, &inside);
        let break_when = keys.get("break_condition").map(|n| self.condition(n, &after));
        Body::ForEach(ForEach {
            iterator: iterator.map(Arc::from),
            source,
            body,
            parallel: has_lanes.then_some(if is_parallel { max_parallel } else { 1 }),
            break_on_error,
            break_when,
            continue_when,
            max_iterations,
            reduce,
            shape: LoopShape::Loop,
        })
    }

    /// A place that sees the steps of a turn that has run.
    fn after_turn(&mut self, node: &Node, inside: &Place) -> Place {
        let mut after = inside.clone();
        let steps = node.get("steps").map(Node::items).unwrap_or_default();
        after.visible.push(self.all_of(steps));
        after
    }

    fn reducers(&mut self, node: &Node) -> Vec<(String, Reducer)> {
        let words = ["append", "sum", "merge", "last", "max", "min"];
        if !matches!(node.kind, NodeKind::Map(_)) {
            wrong(node, "reduce", "a map of variables and reducers", &mut self.report);
        }
        let mut all = Vec::new();
        for entry in node.entries() {
            let word = entry.value.as_text().unwrap_or_default();
            match serde_json::from_value(word.into()) {
                Ok(reducer) => all.push((entry.key.clone(), reducer)),
                Err(_) => {
                    let finding =
                        Diagnostic::error("E0104", entry.value.span, format!("there is no reducer `{word}`"));
                    self.report.push(match closest(word, words) {
                        Some(near) => finding.suggest(near),
                        None => finding.help(format!("it is one of {}", words.join(", "))),
                    });
                }
            }
        }
        all
    }

    fn while_loop(&mut self, node: &Node, keys: &mut Keys<'_>, place: &Place) -> Body {
        let mut inside = place.clone();
        inside.previous = None;
        inside.no_previous = "it is the first step of a turn";
        inside.loops.push(None);
        let body = self.steps_of(node, keys, "steps", &inside);
        let after = self.after_turn(node, &inside);
        let until = keys.get("until").map(|n| self.condition(n, &after));
        let test = node.get("condition").map(|n| self.condition(n, &after));
        let (test, test_after) = match (test, until) {
            (Some(test), None) => (test, false),
            (None, Some(until)) => (Condition::Not(Box::new(until)), true),
            (given, _) => {
                let what = if given.is_some() {
                    "both `condition` and `until`"
                } else {
                    "neither `condition` nor `until`"
                };
                let finding =
                    Diagnostic::error("E0102", node.span, format!("a `while_loop` step has {what}"));
                self.report.push(
                    finding
                        .help("say with one of them when it goes on, or when it ends")
                        .at(&place.path)
                        .about(node.span, "condition"),
                );
                (Condition::Const(false), false)
            }
        };
        let max_iterations = keys.count("max_iterations", 1, &mut self.report).unwrap_or(DEFAULT_TURNS);
        let accept: Option<Value> = keys.word("on_max_iterations", &["accept", "fail"], &mut self.report);
        let accept_max = accept.is_some_and(|a| a == "accept");
        Body::While(While { test, test_after, max_iterations, accept_max, body })
    }

    fn switch(&mut self, node: &Node, keys: &mut Keys<'_>, place: &Place) -> Body {
        let on = match keys.get("expression") {
            Some(on) => {
                let text = on.as_text().map_or_else(|| on.to_json().to_string(), str::to_owned);
                self.expression(on, &text, place)
            }
            None => {
                let finding = Diagnostic::error("E0102", node.span, "a `switch` step needs `expression`");
                self.report.push(
                    finding
                        .help("add `expression:`, the value that the cases are compared with")
                        .about(node.span, "expression"),
                );
                None
            }
        };
        let mut inside = place.clone();
        inside.previous = None;
        inside.no_previous = "it is the first step of a case";
        let mut cases = Vec::new();
        if let Some(map) = keys.get("cases") {
            if !matches!(map.kind, NodeKind::Map(_)) {
                wrong(map, "cases", "a map of values and lists of steps", &mut self.report);
            }
            for entry in map.entries() {
                cases.push((Value::String(entry.key.clone()), self.block(&entry.value, &inside)));
            }
        }
        let default = keys.get("default").map(|list| self.block(list, &inside));
        if cases.is_empty() && default.is_none() {
            self.report.push(
                Diagnostic::error("E0102", node.span, "a `switch` step needs `cases`")
                    .at(&place.path)
                    .about(node.span, "cases"),
            );
        }
        let nothing = || Expr::compile("none", &[]).ok();
        match on.or_else(nothing) {
            Some(on) => Body::Choose(Choose { on, cases, default }),
            None => Body::Break,
        }
    }
}
