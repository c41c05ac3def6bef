//! The control forms: fan-outs, loops, choices, children.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::expr::{Dynamic, Expr, Template};
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::{Keys, wrong};
use crate::plan::compile::names::Place;
use crate::plan::compile::policy::size;
use crate::plan::{
    BlockId, Body, Child, Choose, Condition, ForEach, LoopShape, OnFailure, Parallel, Reducer, While,
};
use crate::source::SourceRef;
use crate::value::Value;

/// Turns of a while_loop that says nothing.
const DEFAULT_TURNS: u64 = 100;

impl Compiler<'_> {
    pub(super) fn control(&mut self, node: &Node, written: &str, keys: &mut Keys<'_>, place: &Place) -> Body {
        let body = match written {
            "parallel" => self.parallel(node, keys, place),
            "parallel_claude" | "claude_batch" => self.batch(node, written, keys, place),
            "for_loop" => self.for_loop(node, keys, place),
            "while_loop" => self.while_loop(node, keys, place),
            "switch" => self.switch(node, keys, place),
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

    fn done(&mut self, keys: &mut Keys<'_>, written: &str) {
        let left = std::mem::replace(keys, Keys::nothing());
        left.finish(&format!("a `{written}` step"), self.options.lenient, &mut self.report);
    }

    /// The steps of a key; absent is an error.
    fn steps_of(&mut self, node: &Node, keys: &mut Keys<'_>, key: &'static str, place: &Place) -> BlockId {
        match keys.get(key) {
            Some(list) => self.block(list, place),
            None => {
                let finding = Diagnostic::error("E0102", node.span, format!("this step needs `{key}`"));
                self.report.push(finding.help(format!("add `{key}:` with a list of steps")).at(&place.path));
                self.add_block(Vec::new(), None)
            }
        }
    }

    fn max_parallel(&mut self, keys: &mut Keys<'_>) -> usize {
        keys.count("max_parallel", 1, &mut self.report).map_or_else(|| self.default_parallel(), size)
    }

    fn on_failure(&mut self, keys: &mut Keys<'_>) -> OnFailure {
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

    /// Names for branches; repeats are reported when the branches are compiled one by one.
    fn block_names(&mut self, items: &[Node], place: &Place) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for item in items {
            let name =
                ["name", "id", "task_id"].iter().find_map(|k| item.get(k)?.as_text()).unwrap_or("unnamed");
            if names.iter().any(|n| **n == *name) {
                let finding =
                    Diagnostic::error("E0106", item.span, format!("the branch `{name}` stands twice"));
                self.report.push(finding.help("give each branch its own name").at(&place.path));
            }
            names.push(Arc::from(name));
        }
        names
    }

    /// `parallel_claude` and `claude_batch`: model calls that share options.
    fn batch(&mut self, node: &Node, written: &str, keys: &mut Keys<'_>, place: &Place) -> Body {
        let config = keys.get("batch_config").cloned();
        let mut max_parallel = None;
        let mut timeout = None;
        if let Some(config) = &config {
            let mut keys = Keys::new(config, "`batch_config`", &mut self.report);
            max_parallel = keys.count("max_parallel", 1, &mut self.report).map(size);
            timeout = keys.entry("timeout_per_task").cloned();
            keys.finish("`batch_config`", self.options.lenient, &mut self.report);
        }
        timeout = timeout.or(keys.entry("timeout_per_task").cloned());
        let max_parallel = if node.get("max_parallel").is_some() || max_parallel.is_none() {
            self.max_parallel(keys)
        } else {
            max_parallel.unwrap_or(1)
        };
        let on_failure = self.on_failure(keys);
        let tasks = keys.either(&["tasks", "parallel_tasks"], &mut self.report);
        let shared: Vec<Entry> = {
            let left = keys.rest(&mut self.report);
            left.into_iter().filter(|e| e.key != "prompt").cloned().collect()
        };
        let prompt = node.get("prompt");
        keys.know(&["prompt"]);
        let known: Vec<String> = shared.iter().map(|e| e.key.clone()).collect();
        keys.forget(known);
        let mut place = place.clone();
        place.previous = None;
        place.no_previous = "branches run at the same time";
        let kind =
            if written == "claude_batch" || written == "parallel_claude" { "claude" } else { "prompt" };
        let mut branches = Vec::new();
        match tasks {
            Some(list) if !list.items().is_empty() => {
                let names = self.block_names(list.items(), &place);
                for (item, name) in list.items().iter().zip(names) {
                    let task = self.task(item, &name, kind, &shared, prompt, timeout.as_ref());
                    let one = Node::new(item.span, NodeKind::List(vec![task]));
                    branches.push((name, self.block(&one, &place)));
                }
            }
            other => {
                let span = other.map_or(node.span, |n| n.span);
                let finding =
                    Diagnostic::error("E0102", span, format!("a `{written}` step needs a list of `tasks`"));
                let help =
                    "for tasks that are computed, use a for_loop with `parallel: true` around a prompt step";
                self.report.push(finding.help(help).at(&place.path));
            }
        }
        Body::Parallel(Parallel { branches, max_parallel, on_failure })
    }

    /// One task as a step: what the batch says, then what the task says.
    fn task(
        &mut self,
        item: &Node,
        name: &str,
        kind: &str,
        shared: &[Entry],
        prompt: Option<&Node>,
        timeout: Option<&Entry>,
    ) -> Node {
        let entry = |key: &str, value: Node| Entry { key: key.to_owned(), key_span: value.span, value };
        let mut entries =
            vec![entry("name", Node::text(item.span, name)), entry("type", Node::text(item.span, kind))];
        for shared in shared.iter().filter(|s| item.get(&s.key).is_none() || s.key == "claude_options") {
            entries.push(shared.clone());
        }
        if let Some(timeout) = timeout.filter(|_| item.get("timeout").is_none()) {
            let ms = timeout.value.as_u64().filter(|n| *n > 1000);
            if ms.is_some() {
                let message = "`timeout_per_task` above 1000 is read as milliseconds";
                self.report.push(
                    Diagnostic::note("E0111", timeout.value.span, message)
                        .help("write it with its unit: `10s`"),
                );
            }
            let key = if ms.is_some() { "timeout_ms" } else { "timeout" };
            entries.push(entry(key, timeout.value.clone()));
        }
        for given in
            item.entries().iter().filter(|e| !matches!(e.key.as_str(), "id" | "task_id" | "name" | "prompt"))
        {
            match entries.iter_mut().find(|e| e.key == given.key) {
                Some(slot) => {
                    let mut all = slot.value.entries().to_vec();
                    all.retain(|e| given.value.get(&e.key).is_none());
                    all.extend(given.value.entries().iter().cloned());
                    let is_map = matches!(given.value.kind, NodeKind::Map(_));
                    slot.value = if is_map {
                        Node::new(given.value.span, NodeKind::Map(all))
                    } else {
                        given.value.clone()
                    };
                }
                None => entries.push(given.clone()),
            }
        }
        let as_parts = |node: &Node| match &node.kind {
            NodeKind::List(items) => items.clone(),
            _ => vec![node.clone()],
        };
        let parts: Vec<Node> = prompt.into_iter().chain(item.get("prompt")).flat_map(as_parts).collect();
        if !parts.is_empty() {
            let span = item.get("prompt").or(prompt).map_or(item.span, |n| n.span);
            entries.push(entry("prompt", Node::new(span, NodeKind::List(parts))));
        }
        Node::new(item.span, NodeKind::Map(entries))
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
                self.report
                    .push(finding.help("give it a list, or an expression that comes to one").at(&place.path));
                Dynamic::List(Vec::new())
            }
        };
        let is_parallel = keys.flag("parallel", &mut self.report).unwrap_or(false);
        let max_parallel = self.max_parallel(keys);
        let break_on_error = keys.flag("break_on_error", &mut self.report).unwrap_or(true);
        let max_iterations = keys.count("max_iterations", 1, &mut self.report);
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
                    finding.help("say with one of them when it goes on, or when it ends").at(&place.path),
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
                self.report
                    .push(finding.help("add `expression:`, the value that the cases are compared with"));
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
            self.report
                .push(Diagnostic::error("E0102", node.span, "a `switch` step needs `cases`").at(&place.path));
        }
        let nothing = || Expr::compile("none", &[]).ok();
        match on.or_else(nothing) {
            Some(on) => Body::Choose(Choose { on, cases, default }),
            None => Body::Break,
        }
    }

    fn child(&mut self, node: &Node, keys: &mut Keys<'_>, place: &Place) -> Body {
        let mut child = Child {
            pipeline: crate::plan::PipelineId(0),
            inputs: Vec::new(),
            outputs: None,
            inherit_context: false,
            max_depth: 10,
            max_total_steps: 1000,
        };
        let mut inherits = Inherits { context: false, defaults: true, functions: true };
        if let Some(config) = keys.get("config") {
            let report = &mut self.report;
            let mut keys = Keys::new(config, "`config`", report);
            inherits.context = keys.flag("inherit_context", report).unwrap_or(false);
            inherits.defaults = keys.flag("inherit_providers", report).unwrap_or(true);
            inherits.functions = keys.flag("inherit_functions", report).unwrap_or(true);
            child.max_depth =
                keys.count("max_depth", 1, report).map_or(10, |n| u32::try_from(n).unwrap_or(u32::MAX));
            child.max_total_steps = keys.count("max_total_steps", 1, report).unwrap_or(1000);
            for key in
                ["timeout_seconds", "max_retries", "continue_on_error", "memory_limit_mb", "workspace_dir"]
            {
                if let Some(entry) = keys.entry(key) {
                    let message = format!("`{key}` in `config` is not built yet and is ignored");
                    let help = "write `timeout`, `retry` and `continue_on_error` on the step itself";
                    report.push(Diagnostic::warning("E0112", entry.key_span, message).help(help));
                }
            }
            keys.finish("`config`", self.options.lenient, report);
        }
        child.inherit_context = inherits.context;
        if let Some(inputs) = keys.get("inputs") {
            if !matches!(inputs.kind, NodeKind::Map(_)) {
                wrong(inputs, "inputs", "a map", &mut self.report);
            }
            for entry in inputs.entries() {
                child.inputs.push((entry.key.clone(), self.any_value(&entry.value, place)));
            }
        }
        child.outputs = keys.get("outputs").map(|n| self.child_outputs(n));
        let given = [
            ("pipeline_file", keys.get("pipeline_file")),
            ("pipeline", keys.get("pipeline")),
            ("pipeline_ref", keys.get("pipeline_ref")),
        ];
        let mut given = given.into_iter().filter_map(|(key, n)| Some((key, n?)));
        let (first, second) = (given.next(), given.next());
        self.done(keys, "pipeline");
        let Some((key, source)) = first.filter(|_| second.is_none()) else {
            let finding = Diagnostic::error(
                "E0102",
                node.span,
                "a `pipeline` step needs one of `pipeline_file`, `pipeline`, `pipeline_ref`",
            );
            self.report.push(finding.at(&place.path));
            return Body::Child(child);
        };
        let found = match (key, source.as_text()) {
            ("pipeline", _) => self.inline_child(source, inherits),
            (_, None) => {
                wrong(source, key, "text", &mut self.report);
                None
            }
            (_, Some(text)) if Template::is_needed(text) => {
                let finding =
                    Diagnostic::error("E0301", source.span, format!("`{key}` cannot be a template"));
                self.report
                    .push(finding.help(
                        "children are compiled with their parent: choose between them with a `switch`",
                    ));
                None
            }
            ("pipeline_file", Some(path)) => {
                self.file_child(source, SourceRef::Path(path.to_owned()), inherits)
            }
            (_, Some(name)) => self.file_child(source, SourceRef::Library(name.to_owned()), inherits),
        };
        if let Some(pipeline) = found {
            child.pipeline = pipeline;
            self.check_child_inputs(node, pipeline, place);
        }
        Body::Child(child)
    }

    fn child_outputs(&mut self, node: &Node) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for item in node.items() {
            match (item.as_text(), item.get("path").and_then(Node::as_text)) {
                (Some(name), _) => {
                    all.push((name.to_owned(), name.rsplit('.').next().unwrap_or(name).to_owned()));
                }
                (None, Some(path)) => {
                    let name = item.get("as").and_then(Node::as_text).unwrap_or(path);
                    all.push((path.to_owned(), name.to_owned()));
                }
                _ => wrong(item, "outputs", "names, or maps with `path` and `as`", &mut self.report),
            }
        }
        all
    }

    /// What the child needs and is not given, and what it is given and does not know.
    fn check_child_inputs(&mut self, node: &Node, pipeline: crate::plan::PipelineId, place: &Place) {
        // A pipeline that is still being compiled (recursion) is checked when it runs.
        let Some(Some(child)) = self.pipelines.get(pipeline.0 as usize) else { return };
        let given = node.get("inputs").map(Node::entries).unwrap_or_default();
        let mut findings = Vec::new();
        for input in child.inputs.iter().filter(|i| i.required && i.default.is_none()) {
            if !given.iter().any(|e| e.key == input.name) {
                let message = format!("the pipeline `{}` needs the input `{}`", child.name, input.name);
                let finding =
                    Diagnostic::error("E0303", node.span, message).label(input.span, "it is asked for here");
                findings.push(
                    finding.help(format!("add `inputs: {{{}: …}}` to the step", input.name)).at(&place.path),
                );
            }
        }
        let implied = child.inputs.iter().all(|i| i.implied);
        for entry in given.iter().filter(|e| !implied && child.inputs.iter().all(|i| i.name != e.key)) {
            let message = format!("the pipeline `{}` has no input `{}`", child.name, entry.key);
            let finding = Diagnostic::error("E0303", entry.key_span, message).at(&place.path);
            findings.push(match closest(&entry.key, child.inputs.iter().map(|i| i.name.as_str())) {
                Some(near) => finding.suggest(near),
                None => finding,
            });
        }
        self.report.extend(findings);
    }
}

/// What a child takes over from its parent.
#[derive(Clone, Copy)]
pub(super) struct Inherits {
    pub(super) context: bool,
    pub(super) defaults: bool,
    pub(super) functions: bool,
}
