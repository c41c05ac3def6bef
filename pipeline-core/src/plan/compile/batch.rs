//! Fan-outs of model calls: `parallel_claude`, `claude_batch`, and `parallel` with `tasks`.
//!
//! A list of tasks becomes branches that are steps; tasks that are computed become turns of one step that reads
//! `loop.item`. What the batch says is shared, what a task says wins.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::document::{Entry, Node, NodeKind};
use crate::expr::{Dynamic, Expr};
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::Keys;
use crate::plan::compile::names::Place;
use crate::plan::compile::policy::size;
use crate::plan::{Body, Condition, ForEach, LoopShape, OnFailure, Parallel};

/// What all tasks share.
struct Shared<'n> {
    /// Type of a task that names none.
    kind: &'static str,
    /// Keys of the batch that are keys of its tasks.
    entries: Vec<Entry>,
    prompt: Option<&'n Node>,
    timeout: Option<Entry>,
}

/// Keys that a computed task may have of its own, beside those that make its prompt.
const OF_TASK: [&str; 3] = ["model", "system_prompt", "output_to_file"];

/// What a computed task says at `key`, else what all tasks share there. `None` where the shared value has templates of its
/// own: it stays as it is.
fn own_or_shared(key: &str, shared: Option<&Node>, span: Span) -> Option<Node> {
    let otherwise = match shared.map(Node::as_text) {
        None => "none".to_owned(),
        Some(Some(text)) if !text.contains("{{") && !text.contains("{%") => {
            serde_json::Value::from(text).to_string()
        }
        Some(_) => return None,
    };
    Some(Node::text(span, format!("{{{{ loop.item.{key} | default({otherwise}) }}}}")))
}

fn entry(key: &str, value: Node) -> Entry {
    Entry { key: key.to_owned(), key_span: value.span, value }
}

fn lacks_tasks(span: Span, written: &str) -> Diagnostic {
    let key = if written == "parallel_claude" { "parallel_tasks" } else { "tasks" };
    Diagnostic::error("E0102", span, format!("a `{written}` step needs a list of `{key}`"))
        .help("write each task with `id` and `prompt`, or give an expression that comes to such a list")
}

/// A part of a prompt that reads a file.
fn file_part(span: Span, path: Node, condition: Option<&str>) -> Node {
    let mut entries = vec![entry("type", Node::text(span, "file")), entry("path", path)];
    entries.extend(condition.map(|text| entry("condition", Node::text(span, text))));
    Node::new(span, NodeKind::Map(entries))
}

/// Keys of a batch that are not options of its tasks.
const OWN: [&str; 8] = [
    "tasks",
    "parallel_tasks",
    "max_parallel",
    "timeout_per_task",
    "on_failure",
    "batch_config",
    "parallel_config",
    "prompt",
];

impl Compiler<'_> {
    /// Names for branches; repeats are reported when the branches are compiled one by one.
    pub(super) fn block_names(&mut self, items: &[Node], place: &Place) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let given = ["name", "id", "task_id"].iter().find_map(|k| item.get(k));
            let name = match given.map(Node::to_json) {
                Some(serde_json::Value::String(text)) => text,
                Some(other) => other.to_string(),
                None => format!("task_{}", index + 1),
            };
            if names.iter().any(|n| **n == *name) {
                let finding =
                    Diagnostic::error("E0106", item.span, format!("the branch `{name}` stands twice"));
                self.report.push(finding.help("give each branch its own name").at(&place.path));
            }
            names.push(Arc::from(name));
        }
        names
    }

    /// Whether a key that stands beside tasks is a misspelled one of the batch: all others are options of its tasks.
    fn is_meant_for_batch(&self, key: &str) -> bool {
        let is_option = self.catalog.step("prompt").is_some_and(|step| {
            let schema = step.spec().schema;
            schema.as_value()["properties"].get(key).is_some()
        });
        !is_option && nearest(key, OWN).is_some_and(|(distance, _)| distance <= 2)
    }

    /// Model calls that share options.
    pub(super) fn batch(&mut self, node: &Node, written: &str, keys: &mut Keys<'_>, place: &Place) -> Body {
        let config = ["batch_config", "parallel_config"].iter().find_map(|key| keys.get(key));
        let mut max_parallel = None;
        let mut timeout = None;
        if let Some(config) = config {
            let mut keys = Keys::new(config, "`batch_config`", &mut self.report);
            max_parallel = keys.count("max_parallel", 1, &mut self.report).map(size);
            timeout = keys.entry("timeout_per_task").cloned();
            keys.finish("`batch_config`", self.options.lenient, &mut self.report);
        }
        let timeout = keys.entry("timeout_per_task").cloned().or(timeout);
        let max_parallel = match max_parallel {
            Some(given) if node.get("max_parallel").is_none() => {
                keys.know(&["max_parallel"]);
                given
            }
            _ => self.max_parallel(keys),
        };
        let on_failure = self.on_failure(keys);
        let tasks = keys.either(&["tasks", "parallel_tasks"], &mut self.report);
        let left = keys.rest(&mut self.report).into_iter().filter(|e| e.key != "prompt").cloned();
        let (own, entries): (Vec<Entry>, Vec<Entry>) = left.partition(|e| self.is_meant_for_batch(&e.key));
        for entry in own {
            let what = format!("a `{written}` step");
            let lenient = self.options.lenient;
            crate::plan::compile::keys::unknown(&entry, &what, node.span, &OWN, lenient, &mut self.report);
            keys.forget(vec![entry.key]);
        }
        keys.know(&["prompt"]);
        keys.forget(entries.iter().map(|e| e.key.clone()).collect());
        let kind = match written {
            "parallel" => "prompt",
            // Its tasks have the preset that a smart step has.
            "claude_batch" => "claude_smart",
            _ => "claude",
        };
        let shared = Shared { kind, entries, prompt: node.get("prompt"), timeout };
        let mut place = place.clone();
        place.previous = None;
        place.no_previous = "branches run at the same time";
        match tasks {
            Some(list) if !list.items().is_empty() => {
                let names = self.block_names(list.items(), &place);
                let mut branches = Vec::new();
                for (item, name) in list.items().iter().zip(names) {
                    let task = self.task(item, &name, &shared);
                    let one = Node::new(item.span, NodeKind::List(vec![task]));
                    branches.push((name, self.block(&one, &place)));
                }
                Body::Parallel(Parallel { branches, max_parallel, on_failure })
            }
            Some(source) if source.as_text().is_some() => {
                self.computed_batch(source, &shared, max_parallel, on_failure, &place)
            }
            other => {
                let span = other.map_or(node.span, |n| n.span);
                let finding = lacks_tasks(span, written).at(&place.path);
                let finding = finding.about(node.span, "tasks").about(node.span, "parallel_tasks");
                self.report.push(finding);
                Body::Parallel(Parallel { branches: Vec::new(), max_parallel, on_failure })
            }
        }
    }

    /// Tasks that an expression gives: texts, or maps with `prompt` and perhaps `id`, `file`, `condition` and [`OF_TASK`].
    fn computed_batch(
        &mut self,
        source: &Node,
        shared: &Shared<'_>,
        max_parallel: usize,
        on_failure: OnFailure,
        place: &Place,
    ) -> Body {
        let span = source.span;
        let list = source.as_text().and_then(|text| self.expression(source, text, place));
        let mut inside = place.clone();
        inside.loops.push(Some("task".to_owned()));
        inside.parallel = Some(Vec::new());
        let item = Node::new(span, NodeKind::Map(Vec::new()));
        let mut task = self.task(&item, "task", shared);
        let own = "{{ loop.item if loop.item is string else (loop.item.prompt | default('')) }}";
        let content =
            vec![entry("type", Node::text(span, "static")), entry("content", Node::text(span, own))];
        let mut parts = task.get("prompt").map(Node::items).unwrap_or_default().to_vec();
        parts.push(Node::new(span, NodeKind::Map(content)));
        let path = Node::text(span, "{{ loop.item.file | default('') }}");
        parts.push(file_part(span, path, Some("loop.item.file exists and loop.item.file is string")));
        if let NodeKind::Map(entries) = &mut task.kind {
            for key in OF_TASK {
                let shared = entries.iter().find(|e| e.key == key).map(|e| &e.value);
                if let Some(value) = own_or_shared(key, shared, span) {
                    entries.retain(|e| e.key != key);
                    entries.push(entry(key, value));
                }
            }
            entries.retain(|e| e.key != "prompt");
            entries.push(entry("prompt", Node::new(span, NodeKind::List(parts))));
        }
        let body = self.block(&Node::new(span, NodeKind::List(vec![task])), &inside);
        let fixed = |text: &str| Expr::compile(text, &[]).ok();
        let id = fixed("loop.item.id | default(loop.item.task_id | default(none))");
        let skipped = fixed("loop.item.condition exists and not loop.item.condition");
        Body::ForEach(ForEach {
            iterator: Some(Arc::from("task")),
            source: list.map_or_else(|| Dynamic::List(Vec::new()), Dynamic::Expr),
            body,
            parallel: Some(max_parallel),
            break_on_error: matches!(on_failure, OnFailure::FailFast),
            break_when: None,
            continue_when: skipped.map(Condition::Expr),
            max_iterations: None,
            reduce: Vec::new(),
            shape: LoopShape::Batch { id: id.map(Dynamic::Expr) },
        })
    }

    /// One task as a step: what the batch says, then what the task says.
    fn task(&mut self, item: &Node, name: &str, batch: &Shared<'_>) -> Node {
        let Shared { kind, entries: shared, prompt, timeout } = batch;
        let mut entries =
            vec![entry("name", Node::text(item.span, name)), entry("type", Node::text(item.span, *kind))];
        for shared in shared.iter().filter(|s| item.get(&s.key).is_none() || s.key == "claude_options") {
            entries.push(shared.clone());
        }
        if let Some(timeout) = timeout.as_ref().filter(|_| item.get("timeout").is_none()) {
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
        let own = ["id", "task_id", "name", "prompt", "file"];
        for given in item.entries().iter().filter(|e| !own.contains(&e.key.as_str())) {
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
        let text = Some(item).filter(|item| item.as_text().is_some());
        let mut parts: Vec<Node> =
            (*prompt).into_iter().chain(item.get("prompt")).chain(text).flat_map(as_parts).collect();
        parts.extend(item.get("file").map(|path| file_part(path.span, path.clone(), None)));
        if !parts.is_empty() {
            let span = item.get("prompt").or(*prompt).map_or(item.span, |n| n.span);
            entries.push(entry("prompt", Node::new(span, NodeKind::List(parts))));
        }
        Node::new(item.span, NodeKind::Map(entries))
    }
}
