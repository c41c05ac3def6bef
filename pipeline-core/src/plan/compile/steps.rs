//! Lists of steps, and the keys that every step has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Report, Span, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::expr::Dynamic;
use crate::normalise::{self, Surroundings};
use crate::plan::compile::child::ChildPolicy;
use crate::plan::compile::fields::Schema;
use crate::plan::compile::keys::{COMMON, Keys};
use crate::plan::compile::names::Place;
use crate::plan::compile::policy::size;
use crate::plan::compile::{CheckContext, Compiler};
use crate::plan::{Block, BlockId, Body, Effects, Leaf, OnError, Retry, StepId, StepPlan, Workspace};
use crate::resources::ResourceLimits;
use crate::step::allows_tool;
use crate::value::Value;

/// Deadline of a leaf that has none of its own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Parts of a fan-out at once, when nothing says otherwise.
const DEFAULT_PARALLEL: usize = 5;

/// Control forms by their written type.
const CONTROL: [&str; 10] = [
    "approval",
    "parallel",
    "parallel_claude",
    "claude_batch",
    "for_loop",
    "while_loop",
    "switch",
    "pipeline",
    "break",
    "continue",
];

/// What compiling a leaf makes beside its body.
#[derive(Default)]
struct Made {
    /// Its deadline; `Some(None)` = none, written out.
    limit: Option<Option<Duration>>,
    retry: Option<Retry>,
    fallback: Vec<Leaf>,
    /// What its kind does instead of failing.
    on_error: Option<OnError>,
    is_agent: bool,
    /// Its configuration in kernel form.
    config: Vec<Entry>,
}

impl Compiler<'_> {
    /// A list of steps.
    pub(super) fn block(&mut self, list: &Node, place: &Place) -> BlockId {
        let NodeKind::List(items) = &list.kind else {
            let message = format!("`steps` must be a list, and this is {}", list.kind_name());
            let finding = Diagnostic::error("E0103", list.span, message).at(&place.path);
            self.report.push(finding.help("write each step as `- name: …`"));
            return self.add_block(Vec::new(), None);
        };
        if items.is_empty() {
            let finding = Diagnostic::error("E0108", list.span, "a list of steps is empty").at(&place.path);
            self.report.push(finding.help("add a step, or remove the list"));
        }
        let names = self.step_names(items, place);
        let needs = items.iter().any(|i| i.get("needs").is_some()).then(|| self.needs(items, &names));
        let mut steps = Vec::with_capacity(items.len());
        let mut place = place.clone();
        let own = place.visible.len();
        let shapes = self.shapes(items);
        if needs.is_none() {
            let seen = self.list_of(names.iter().cloned());
            self.lists[seen.list].shapes = Arc::clone(&shapes);
            place.visible.push(seen);
        }
        for (index, item) in items.iter().enumerate() {
            if let Some(needs) = &needs {
                let needed: Vec<_> = reach(needs, index).into_iter().map(|i| names[i].clone()).collect();
                place.visible.truncate(own);
                let count = needed.len();
                let mut seen = self.list_of(needed);
                self.lists[seen.list].shapes = Arc::clone(&shapes);
                seen.first = count;
                place.visible.push(seen);
                place.previous = None;
                place.no_previous = "a list with `needs` has no order";
            }
            steps.push(self.step(item, names[index].as_ref(), &place));
            if let (None, Some(name)) = (&needs, &names[index]) {
                place.visible[own].first = index + 1;
                place.previous = Some(Arc::clone(name));
            }
        }
        self.add_block(steps, needs)
    }

    pub(super) fn add_block(&mut self, steps: Vec<StepId>, needs: Option<Vec<Vec<usize>>>) -> BlockId {
        let max_parallel = self.default_parallel();
        self.blocks.push(Block { steps, needs, max_parallel });
        BlockId(crate::source::offset(self.blocks.len() - 1))
    }

    pub(super) fn default_parallel(&self) -> usize {
        let given = self.scope.defaults.as_ref().and_then(|d| d.get("max_parallel")).and_then(Node::as_u64);
        given.map_or(DEFAULT_PARALLEL, |n| size(n.max(1)))
    }

    /// The names of a list's steps; missing, repeated and unfit ones are reported.
    fn step_names(&mut self, items: &[Node], place: &Place) -> Vec<Option<Arc<str>>> {
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        let mut names = Vec::new();
        for item in items {
            let node = ["name", "id", "task_id"].iter().find_map(|k| item.get(k));
            let Some(name) = node.and_then(Node::as_text).filter(|n| !n.trim().is_empty()) else {
                if matches!(item.kind, NodeKind::Map(_)) {
                    let span = node.map_or(item.span, |n| n.span);
                    let finding = Diagnostic::error("E0102", span, "a step needs a `name`").at(&place.path);
                    self.report.push(finding.help("add `name: …`; results are read as `steps.NAME`"));
                }
                names.push(None);
                continue;
            };
            let span = node.map_or(item.span, |n| n.span);
            if name.contains(['/', '[', ']', '#', '\'', '"', '\n']) || name.len() > 128 {
                let message =
                    format!("`{}` cannot be a step name", name.chars().take(40).collect::<String>());
                let finding = Diagnostic::error("E0107", span, message);
                self.report
                    .push(finding.help("use letters, digits, `_`, `-`, `.` and spaces, at most 128 bytes"));
            }
            if let Some(first) = seen.get(name) {
                let finding = Diagnostic::error(
                    "E0106",
                    span,
                    format!("the step name `{name}` stands twice in this list"),
                );
                self.report
                    .push(finding.label(*first, "first here").help("give each step of a list its own name"));
            }
            seen.insert(name.to_owned(), span);
            names.push(Some(Arc::from(name)));
        }
        names
    }

    /// Positions of the steps that each step needs.
    fn needs(&mut self, items: &[Node], names: &[Option<Arc<str>>]) -> Vec<Vec<usize>> {
        let mut all: Vec<Vec<usize>> = Vec::new();
        for item in items {
            let mut keys = Keys::new(item, "a step", &mut self.report);
            let mut positions = Vec::new();
            for (name, span) in keys.texts("needs", &mut self.report) {
                match names.iter().position(|n| n.as_deref() == Some(&name)) {
                    Some(position) => positions.push(position),
                    None => {
                        let message = format!("`needs` names `{name}`, which is not in this list");
                        let finding = Diagnostic::error("E0304", span, message);
                        self.report.push(match closest(&name, names.iter().flatten().map(|n| &**n)) {
                            Some(near) => finding.suggest(near),
                            None => finding.help("a step can need steps of its own list"),
                        });
                    }
                }
            }
            all.push(positions);
        }
        for (index, item) in items.iter().enumerate() {
            if reach(&all, index).contains(&index) {
                let span = item.get("needs").map_or(item.span, |n| n.span);
                let name = names[index].as_deref().unwrap_or_default();
                let finding = Diagnostic::error(
                    "E0304",
                    span,
                    format!("`{name}` needs itself, by way of what it needs"),
                );
                self.report.push(finding.help("break the circle"));
                all[index].clear();
            }
        }
        all
    }

    /// One step.
    fn step(&mut self, node: &Node, name: Option<&Arc<str>>, place: &Place) -> StepId {
        let name = name.cloned().unwrap_or_else(|| Arc::from("unnamed"));
        let mut inside = place.inside(&name);
        inside.previous.clone_from(&place.previous);
        inside.no_previous = place.no_previous;
        let mut keys = Keys::new(node, "a step", &mut self.report);
        keys.know(&COMMON);
        let written = self.written_type(node, &mut keys);
        self.step_with(node, &name, &written, keys, &inside)
    }

    /// One step whose type is known already.
    fn step_with(
        &mut self,
        node: &Node,
        name: &Arc<str>,
        written: &str,
        mut keys: Keys<'_>,
        place: &Place,
    ) -> StepId {
        let description = keys.text("description", &mut self.report).map(str::to_owned);
        // The `condition` of a while_loop is its own; it runs or not by `when`.
        let spellings: &[&'static str] =
            if written == "while_loop" { &["when"] } else { &["condition", "when"] };
        let condition = keys.either(spellings, &mut self.report).map(|n| self.condition(n, place));
        let of_child = if written == "pipeline" { self.child_policy(node) } else { ChildPolicy::default() };
        let timeout = self.timeout(&mut keys).or(of_child.timeout);
        let default = |this: &Self, key: &str| this.scope.defaults.as_ref().and_then(|d| d.get(key)).cloned();
        let effects = keys.word("effects", &["repeatable", "once"], &mut self.report).unwrap_or_default();
        let retry = match (keys.get("retry"), keys.get("retry_config")) {
            (Some(node), _) => Some(self.retry(node)),
            (None, Some(node)) => Some(self.retry_config(node)),
            (None, None) => of_child.retry,
        };
        let continue_on_error =
            keys.flag("continue_on_error", &mut self.report).or(of_child.continue_on_error);
        let continue_on_error =
            continue_on_error.or_else(|| default(self, "continue_on_error")?.as_bool()).unwrap_or(false);
        let mut budget = keys.get("budget").map(|n| self.budget(n)).unwrap_or_default();
        let of_child_memory =
            ResourceLimits { max_memory_mb: of_child.memory_limit_mb, ..ResourceLimits::default() };
        budget.resources = budget.resources.or(of_child_memory);
        let output_to_file = keys.get("output_to_file").and_then(|n| {
            if n.as_text().is_none() {
                crate::plan::compile::keys::wrong(n, "output_to_file", "a file name", &mut self.report);
            }
            self.text_template(n, place)
        });
        let workspace = keys.word("workspace", &["own", "shared"], &mut self.report);
        // Every model call streams, to the terminal and to events.
        keys.know(&["streaming"]);
        let cache = keys.get("cache").cloned();
        let on_error = keys.get("on_error").map_or(OnError::Fail, |n| self.on_error(n, place));
        let keys_lack_on_error = keys.get("on_error").is_none();
        let is_control = CONTROL.contains(&written);
        self.check_fallback_action(node, written);
        let mut made = Made { limit: timeout.or(is_control.then_some(None)), retry, ..Made::default() };
        let body = if is_control {
            self.control(node, written, &mut keys, place)
        } else {
            self.leaf(node, written, &keys, place, &mut made)
        };
        let Made { limit, retry, fallback, on_error: instead, is_agent, config } = made;
        let limit = limit.unwrap_or_else(|| {
            let given =
                default(self, "timeout_seconds").and_then(|n| crate::plan::compile::keys::duration(&n).ok());
            given.unwrap_or(Some(DEFAULT_TIMEOUT))
        });
        // The default is for effects: a control form's own tries are only those that it asks for.
        let retry = retry.or_else(|| self.scope.retry.clone().filter(|_| !is_control));
        let mut step = StepPlan {
            name: Arc::clone(name),
            written_type: Arc::from(written),
            description,
            span: node.span,
            condition,
            timeout: limit,
            retry: retry
                .filter(|_| !matches!(effects, Effects::Once))
                .unwrap_or(Retry { max_attempts: 1, ..Retry::default() }),
            continue_on_error,
            on_error: match (on_error, instead) {
                (OnError::Fail, Some(instead)) if keys_lack_on_error => instead,
                (on_error, _) => on_error,
            },
            output_to_file,
            effects,
            fallback,
            workspace: workspace.unwrap_or(if is_agent {
                Workspace::OwnInBranches
            } else {
                Workspace::Shared
            }),
            cache: cache.and_then(|n| self.cache(&n, &body)),
            budget,
            origins: Vec::new(),
            body,
        };
        step.origins = self.origins(node, &step, &config);
        self.steps.push(step);
        StepId(crate::source::offset(self.steps.len() - 1))
    }

    fn written_type(&mut self, node: &Node, keys: &mut Keys<'_>) -> String {
        if !matches!(node.kind, NodeKind::Map(_)) {
            return String::new();
        }
        if let Some(text) = keys.text("type", &mut self.report) {
            return text.to_owned();
        }
        if node.get("type").is_none() {
            let finding = Diagnostic::error("E0102", node.span, "a step needs a `type`");
            self.report.push(finding.help(format!("it is one of {}", self.types().join(", "))));
        }
        String::new()
    }

    fn types(&self) -> Vec<&'static str> {
        let mut all: Vec<&'static str> = CONTROL.to_vec();
        all.extend(self.catalog.steps().map(|s| s.spec().kind));
        if self.catalog.step("prompt").is_some() {
            all.extend([
                "claude",
                "claude_smart",
                "claude_session",
                "claude_extract",
                "claude_robust",
                "gemini",
                "gemini_instructor",
            ]);
        }
        all.sort_unstable();
        all
    }

    fn on_error(&mut self, node: &Node, place: &Place) -> OnError {
        let is_steps = !node.items().is_empty() && node.items().iter().all(|i| i.get("type").is_some());
        let mut place = place.inside("on_error");
        place.bound.push("error".to_owned());
        if is_steps {
            OnError::Steps(self.block(node, &place))
        } else if node.as_text() == Some("fail") {
            OnError::Fail
        } else {
            OnError::Value(self.any_value(node, &place))
        }
    }

    fn leaf(&mut self, node: &Node, written: &str, keys: &Keys<'_>, place: &Place, made: &mut Made) -> Body {
        let before = self.report.len();
        let mut entries: Vec<Entry> = keys.rest(&mut self.report).into_iter().cloned().collect();
        self.mode_preset(written, &mut entries);
        let functions = std::mem::take(&mut self.scope.functions);
        let defaults = self.scope.defaults.take();
        let agent = std::mem::take(&mut self.scope.agent);
        let (catalog, own) = (self.catalog, self.scope.providers.clone());
        let able = |name: &str| match own.get(name) {
            Some(kind) => catalog.kind(kind).map(|k| k.capabilities.clone()),
            None => catalog.provider(name).map(|p| p.capabilities()),
        };
        let around = Surroundings {
            defaults: defaults.as_ref(),
            functions: &functions,
            agent: &agent,
            capabilities: &able,
        };
        let normal = normalise::leaf(written, node, entries.clone(), &around, &mut self.report);
        self.scope.functions = functions;
        self.scope.defaults = defaults;
        self.scope.agent = agent;
        let (kind, entries, overlays) = match normal {
            Some(normal) => {
                if let (None, Some(entry)) = (&made.limit, &normal.timeout) {
                    made.limit = Some(Some(self.milliseconds(&entry.value)));
                }
                if let (None, Some(entry)) = (&made.retry, &normal.retry) {
                    made.retry = Some(self.retry_config(&entry.value));
                }
                made.on_error = normal.on_error.as_ref().map(|n| self.on_error(n, place));
                (normal.kind, normal.config, normal.fallback)
            }
            None => (written, entries, Vec::new()),
        };
        let Some(step) = self.catalog.step(kind).cloned() else {
            self.unknown_type(node, written);
            return Body::Break;
        };
        let spec = step.spec();
        let schema = spec.schema.as_value();
        // `output_schema` and the like are keys of the leaf where its schema has them.
        let refs: Vec<&Entry> = entries.iter().collect();
        let with = self.config(&refs, node, Schema::new(schema), &format!("a `{written}` step"), place);
        let mut own = Report::default();
        let config = Node::new(node.span, NodeKind::Map(entries.clone()));
        step.check(&config, &mut CheckContext { report: &mut own, path: &place.path });
        self.report.extend_beside(before, own);
        self.check_writes(&entries, schema, &with, place);
        self.check_services(&entries, place);
        for overlay in overlays {
            let entries = normalise::merged(&entries, &overlay);
            let refs: Vec<&Entry> = entries.iter().collect();
            let with = self.config(&refs, node, Schema::new(schema), "a fallback", place);
            self.check_services(&entries, place);
            made.fallback.push(Leaf { kind: Arc::from(kind), with });
        }
        made.is_agent = self.is_agent(kind, &entries);
        made.config = entries;
        Body::Leaf(Leaf { kind: Arc::from(kind), with })
    }

    /// `environment.mode` is the preset of a `claude_smart` step that nothing else gives one.
    fn mode_preset(&self, written: &str, entries: &mut Vec<Entry>) {
        let has_preset = entries.iter().any(|e| e.key == "preset")
            || self.scope.defaults.as_ref().is_some_and(|d| d.get("claude_preset").is_some());
        if let Some(mode) = self.scope.mode.clone().filter(|_| written == "claude_smart" && !has_preset) {
            entries.push(Entry { key: "preset".to_owned(), key_span: mode.span, value: mode });
        }
    }

    /// Only model steps have answers that something can stand in for.
    fn check_fallback_action(&mut self, node: &Node, written: &str) {
        let within =
            ["retry_config", "retry"].into_iter().find_map(|key| node.get(key)?.entry("fallback_action"));
        let action = within.or_else(|| node.entry("fallback_action"));
        if let Some(entry) = action.filter(|_| !normalise::is_model(written)) {
            let message = format!("a `{written}` step has no `fallback_action`");
            let finding = Diagnostic::error("E0101", entry.key_span, message);
            self.report.push(finding.help("give it `on_error`: a value, or steps that run instead"));
        }
    }

    /// Whether a leaf asks an agent, which may write files by itself. Turns of a session are taken one at a time, and an
    /// agent finds its sessions only where it began them: they share the run's workspace.
    fn is_agent(&self, kind: &str, entries: &[Entry]) -> bool {
        if entries.iter().any(|e| e.key == "session") {
            return false;
        }
        let name = entries.iter().find(|e| e.key == "provider").and_then(|e| e.value.as_text());
        kind == "prompt"
            && name.and_then(|n| self.catalog.provider(n)).is_some_and(|p| p.capabilities().agent)
    }

    fn unknown_type(&mut self, node: &Node, written: &str) {
        if written.is_empty() {
            return;
        }
        let span = node.get("type").map_or(node.span, |n| n.span);
        let finding = Diagnostic::error("E0105", span, format!("there is no step type `{written}`"));
        let types = self.types();
        self.report.push(match closest(written, types.iter().copied()) {
            Some(near) => finding.suggest(near),
            None => finding.help(format!("it is one of {}", types.join(", "))),
        });
    }

    /// In a body that runs at once with others, a variable that outlives the turn needs a reducer.
    fn check_writes(&mut self, entries: &[Entry], schema: &Value, with: &Dynamic, place: &Place) {
        let Some(reduced) = &place.parallel else { return };
        let scope = entries.iter().find(|e| e.key == "scope").and_then(|e| e.value.as_text());
        if matches!(scope, Some("loop" | "local")) {
            return;
        }
        let Dynamic::Map(fields) = with else { return };
        for (name, value) in fields {
            let Dynamic::Bindings(bindings) = value else { continue };
            for (variable, _) in bindings.iter().filter(|(v, _)| !reduced.contains(v)) {
                let entry = entries.iter().find(|e| e.key == *name).and_then(|e| e.value.entry(variable));
                let span = entry.map_or_else(Span::default, |e| e.key_span);
                let message = format!("`{variable}` is written by parts that run at the same time");
                let help = format!(
                    "say how they are merged with `reduce: {{{variable}: append}}` on the loop (append, sum, merge, last, max, min), or set it with `scope: loop`"
                );
                self.report.push(Diagnostic::error("E0209", span, message).help(help).at(&place.path));
            }
        }
        let _ = schema;
    }

    /// Providers, tools and literal prompt files that a leaf names.
    fn check_services(&mut self, entries: &[Entry], place: &Place) {
        let field = |key: &str| entries.iter().find(|e| e.key == key).map(|e| &e.value);
        if let (Some(node), Some(_)) = (field("provider"), field("prompt"))
            && let Some(name) = node.as_text().filter(|n| !n.contains("{{"))
            && self.catalog.provider(name).is_none()
            && !self.scope.providers.contains_key(name)
        {
            let built_in = self.catalog.providers().map(|p| p.name());
            let known: Vec<&str> = built_in.chain(self.scope.providers.keys().map(String::as_str)).collect();
            let finding = Diagnostic::error("E0403", node.span, format!("there is no provider `{name}`"));
            let finding = match closest(name, known.iter().copied()) {
                Some(near) => finding.suggest(near),
                None => finding.help(format!("it is one of {}", known.join(", "))),
            };
            self.report.push(finding.at(&place.path));
        }
        if field("prompt").is_some() {
            self.check_abilities(entries, place);
        }
        self.check_tools(entries, place);
        for part in field("prompt").map(Node::items).unwrap_or_default() {
            let Some(path) =
                part.get("path").filter(|_| part.get("type").and_then(Node::as_text) == Some("file"))
            else {
                continue;
            };
            let literal = path.as_text().filter(|p| !p.contains("{{") && !p.contains(['*', '?', '[']));
            let from = self.sources.get(path.span.file).map(|f| f.canonical.clone()).unwrap_or_default();
            if let Some(literal) = literal
                && self.loader.data_file_exists(literal, &from) == Some(false)
            {
                let message = format!("there is no file `{literal}`");
                let help = "it is looked for beside the pipeline file, then in the working directory; the step fails without it";
                self.report.push(Diagnostic::warning("E0405", path.span, message).help(help).at(&place.path));
            }
        }
    }
}

impl Compiler<'_> {
    /// Tools that a leaf names and that `permissions.tools` does not allow: the call would be denied.
    fn check_tools(&mut self, entries: &[Entry], place: &Place) {
        let Some(allowed) = self.scope.allowed_tools.clone() else { return };
        let value = |key: &str| entries.iter().find(|e| e.key == key).map(|e| &e.value);
        let listed = value("tools").map(Node::items).unwrap_or_default();
        for node in value("tool").into_iter().chain(listed) {
            let Some(name) = node.as_text().filter(|name| !name.contains("{{")) else { continue };
            // A group is as many of its tools as are allowed.
            let group = name.trim_end_matches('*');
            if allows_tool(&allowed, name) || allowed.iter().any(|rule| rule.starts_with(group)) {
                continue;
            }
            let message = format!("`permissions.tools` does not allow the tool `{name}`");
            let finding = Diagnostic::error("E0408", node.span, message);
            self.report.push(finding.help("add it there, or do without it").at(&place.path));
        }
    }
}

/// Everything that a position needs, directly or not.
fn reach(needs: &[Vec<usize>], from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = needs.get(from).cloned().unwrap_or_default();
    while let Some(position) = open.pop() {
        if found.insert(position) {
            open.extend(needs.get(position).into_iter().flatten());
        }
    }
    found
}
