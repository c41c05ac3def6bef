//! Workflows: the root file, and children with scopes of their own.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, FileId, Span, closest};
use crate::document::{self, Limits, Node, NodeKind};
use crate::expr::Dynamic;
use crate::normalise;
use crate::plan::compile::Compiler;
use crate::plan::compile::child::Inherits;
use crate::plan::compile::keys::{Keys, wrong};
use crate::plan::compile::names::{PipelineScope, Place};
use crate::plan::{InputKind, InputPlan, Pipeline, PipelineId, Settings};
use crate::source::{Referrer, SourceRef};
use crate::value::Data;

/// Most pipelines of one plan: a file that names two, that name two each, and so on, ends here.
const MOST_PIPELINES: usize = 1000;

impl Compiler<'_> {
    /// The root file.
    pub(super) fn root(&mut self, root: &SourceRef) {
        if let Some((node, canonical)) = self.load(root, None, None) {
            self.stack.push((canonical, PipelineId(0)));
            self.pipeline(&node, None);
        }
    }

    /// Reads and parses a file; what is wrong is reported, at `from` when a step names it.
    fn load(
        &mut self,
        reference: &SourceRef,
        from: Option<&str>,
        at: Option<Span>,
    ) -> Option<(Node, String)> {
        let root = self.sources.get(FileId(0)).map(|f| f.canonical.clone()).unwrap_or_default();
        let from = from.map(|file| Referrer { file, root: &root, read: &self.read });
        let loaded = match self.loader.load(reference, from) {
            Ok(loaded) => loaded,
            Err(error) => {
                let mut finding = Diagnostic::error("E0301", at, error.message);
                finding.help = error.help;
                self.report.push(finding);
                return None;
            }
        };
        let canonical = loaded.canonical.clone();
        if let Some(from) = from {
            let text = match reference {
                SourceRef::Path(path) => format!("path:{path}"),
                SourceRef::Library(name) => format!("library:{name}"),
            };
            self.links.push((from.file.to_owned(), text, canonical.clone()));
        }
        let known = self.sources.files().find(|(_, f)| f.canonical == canonical).map(|(id, _)| id);
        let file: FileId = known.unwrap_or_else(|| self.sources.add(loaded));
        match document::parse(&self.sources, file, &Limits::default()) {
            Ok((node, notes)) => {
                self.report.extend(notes);
                Some((node, canonical))
            }
            Err(findings) => {
                self.report.extend(findings);
                None
            }
        }
    }

    /// A child from a file or the library.
    pub(super) fn file_child(
        &mut self,
        source: &Node,
        reference: SourceRef,
        inherits: &Inherits,
    ) -> Option<PipelineId> {
        let from = self.sources.get(source.span.file).map(|f| f.canonical.clone()).unwrap_or_default();
        let (node, canonical) = self.load(&reference, Some(&from), Some(source.span))?;
        if let Some((_, id)) = self.stack.iter().find(|(c, _)| *c == canonical) {
            if matches!(reference, SourceRef::Library(_)) {
                return Some(*id);
            }
            let chain: Vec<&str> =
                self.stack.iter().map(|(c, _)| c.rsplit('/').next().unwrap_or(c)).collect();
            let message = format!(
                "pipelines call each other in a circle: {} → {}",
                chain.join(" → "),
                canonical.rsplit('/').next().unwrap_or(&canonical)
            );
            let finding = Diagnostic::error("E0302", source.span, message);
            self.report.push(
                finding.help("recursion is possible through `pipeline_ref`, within `config.max_depth`"),
            );
            return None;
        }
        let id = PipelineId(crate::source::offset(self.pipelines.len()));
        self.stack.push((canonical, id));
        let made = self.pipeline(&node, Some(inherits));
        self.stack.pop();
        made
    }

    /// A child written in place.
    pub(super) fn inline_child(&mut self, node: &Node, inherits: &Inherits) -> Option<PipelineId> {
        self.pipeline(node, Some(inherits))
    }

    /// Compiles a pipeline in a scope of its own.
    fn pipeline(&mut self, document: &Node, child: Option<&Inherits>) -> Option<PipelineId> {
        if self.pipelines.len() >= MOST_PIPELINES {
            let message = format!("over {MOST_PIPELINES} child pipelines");
            self.report.push(Diagnostic::error("E0305", document.span, message));
            return None;
        }
        let node = self.workflow_node(document)?.clone();
        let id = PipelineId(crate::source::offset(self.pipelines.len()));
        self.pipelines.push(None);
        let outer = std::mem::take(&mut self.scope);
        self.scope = inherited(&outer, child);
        let mut pipeline = self.workflow(&node);
        if let Some(inherits) = child {
            let settings = &mut pipeline.settings;
            settings.workspace_dir = settings.workspace_dir.take().or(inherits.workspace_dir.clone());
        }
        let scope = std::mem::replace(&mut self.scope, outer);
        // What a child reads of a parent whose own parent is not known must come from further up.
        let (from_above, inputs) =
            scope.inputs.into_iter().partition(|i| child.is_some() && i.name.starts_with("global_vars."));
        let from_above: Vec<InputPlan> = from_above;
        self.scope.inputs.extend(from_above);
        self.pipelines[id.0 as usize] = Some(Pipeline { inputs, ..pipeline });
        Some(id)
    }

    /// The map that has `steps`.
    fn workflow_node<'n>(&mut self, document: &'n Node) -> Option<&'n Node> {
        if let Some(workflow) = document.get("workflow") {
            for entry in document.entries().iter().filter(|e| e.key != "workflow" && !e.key.starts_with("x-"))
            {
                let finding = Diagnostic::error(
                    "E0101",
                    entry.key_span,
                    format!("`{}` stands beside `workflow`", entry.key),
                );
                self.report.push(finding.help("move it under `workflow`"));
            }
            return Some(workflow);
        }
        if document.get("steps").is_some() {
            return Some(document);
        }
        let finding = match &document.kind {
            NodeKind::Null => Diagnostic::error("E0100", document.span, "the file is empty"),
            NodeKind::Map(entries) => {
                let near = entries.iter().find(|e| closest(&e.key, ["workflow", "steps"]).is_some());
                let span = near.map_or(document.span, |e| e.key_span);
                let finding = Diagnostic::error("E0100", span, "there is no `workflow` here");
                match near.and_then(|e| closest(&e.key, ["workflow", "steps"])) {
                    Some(name) => finding.suggest(name),
                    None => finding,
                }
            }
            _ => Diagnostic::error(
                "E0100",
                document.span,
                format!("a pipeline file is a map, and this is {}", document.kind_name()),
            ),
        };
        let help = "start with `workflow:`, and under it `name:` and `steps:`";
        self.report.push(if finding.help.is_some() { finding } else { finding.help(help) });
        None
    }

    fn workflow(&mut self, node: &Node) -> Pipeline {
        let mut keys = Keys::new(node, "`workflow`", &mut self.report);
        let name = keys.text("name", &mut self.report);
        if name.is_none() && node.get("name").is_none() {
            let finding = Diagnostic::error("E0102", node.span, "the workflow needs a `name`");
            self.report.push(finding.help("add `name: …`"));
        }
        let name = name.unwrap_or("unnamed").to_owned();
        keys.know(&["description", "version"]);
        self.provider_entries(&mut keys);
        for key in normalise::OF_CLAUDE {
            if let Some(entry) = keys.entry(key) {
                self.scope.agent.retain(|e| e.key != key);
                self.scope.agent.push(entry.clone());
            }
        }
        self.defaults(&mut keys);
        for key in ["functions", "gemini_functions"] {
            for entry in keys.get(key).map(Node::entries).unwrap_or_default() {
                self.scope.functions.insert(entry.key.clone(), entry.value.clone());
            }
        }
        self.inputs(&mut keys);
        let mut settings = Settings {
            workspace_dir: keys.text("workspace_dir", &mut self.report).map(str::to_owned),
            output_dir: keys.text("output_dir", &mut self.report).map(str::to_owned),
            checkpoint_dir: keys.text("checkpoint_dir", &mut self.report).map(str::to_owned),
            ..Settings::default()
        };
        let default_dir =
            self.scope.defaults.as_ref().and_then(|d| d.get("output_dir")).and_then(Node::as_text);
        settings.output_dir = settings.output_dir.or(default_dir.map(str::to_owned));
        self.permissions(&mut keys, &mut settings);
        if self.pipelines.len() == 1 {
            self.read.clone_from(&settings.read);
        }
        for key in ["tools", "mcp_servers", "hooks"] {
            if let Some(written) = keys.get(key) {
                settings.tools.insert(key.to_owned(), written.to_json());
            }
        }
        let budget = self.workflow_budget(&mut keys);
        self.collect(node);
        let (variables, global_vars) = self.initial(&mut keys);
        let place = Place { no_previous: "it is the first step of its list", ..Place::default() };
        let body = match keys.get("steps") {
            Some(steps) => self.block(steps, &place),
            None => {
                let finding = Diagnostic::error("E0102", node.span, "the workflow needs `steps`");
                self.report.push(finding.help("add `steps:` with a list of steps"));
                self.add_block(Vec::new(), None)
            }
        };
        let mut end = place;
        let steps = node.get("steps").map(Node::items).unwrap_or_default();
        end.visible = vec![self.all_of(steps)];
        end.no_previous = "`outputs` belong to no step";
        let outputs = keys.get("outputs").map(|n| self.outputs(n, &end));
        keys.finish("`workflow`", self.options.lenient, &mut self.report);
        Pipeline {
            name: name.into(),
            inputs: Vec::new(),
            variables,
            global_vars,
            body,
            outputs,
            budget,
            env: self.scope.env.clone(),
            settings,
        }
    }

    /// `outputs`: a map of names and expressions, or a list of step names.
    fn outputs(&mut self, node: &Node, place: &Place) -> Vec<(String, Dynamic)> {
        let mut all = Vec::new();
        for entry in node.entries() {
            let value = match entry.value.as_text() {
                Some(text) if !text.contains("{{") && !text.contains("{%") => self
                    .expression(&entry.value, text, place)
                    .map_or(Dynamic::List(Vec::new()), Dynamic::Expr),
                _ => self.any_value(&entry.value, place),
            };
            all.push((entry.key.clone(), value));
        }
        if !matches!(node.kind, NodeKind::Map(_)) {
            wrong(node, "outputs", "a map of names and expressions", &mut self.report);
        }
        all
    }

    fn permissions(&mut self, keys: &mut Keys<'_>, settings: &mut Settings) {
        let Some(node) = keys.get("permissions") else { return };
        let report = &mut self.report;
        let mut inner = Keys::new(node, "`permissions`", report);
        let plain = |all: Vec<(String, Span)>| all.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        settings.read = plain(inner.texts("read", report));
        settings.write = plain(inner.texts("write", report));
        self.scope.env = plain(inner.texts("env", report));
        let allowed = &mut settings.permissions;
        // `shell: true` is what people write for "any command".
        allowed.shell = match inner.get("shell").and_then(Node::as_bool) {
            Some(true) => vec!["*".to_owned()],
            Some(false) => Vec::new(),
            None => plain(inner.texts("shell", report)),
        };
        allowed.network = plain(inner.texts("network", report));
        allowed.allowed_tools = inner.get("tools").is_some().then(|| plain(inner.texts("tools", report)));
        self.scope.allowed_tools.clone_from(&allowed.allowed_tools);
        allowed.sandbox = inner.flag("sandbox", report).unwrap_or(false);
        inner.finish("`permissions`", self.options.lenient, report);
    }

    fn inputs(&mut self, keys: &mut Keys<'_>) {
        let Some(node) = keys.get("inputs") else { return };
        self.scope.declares_inputs = true;
        if !matches!(node.kind, NodeKind::Map(_)) {
            wrong(node, "inputs", "a map of names and types", &mut self.report);
        }
        for entry in node.entries() {
            let mut input = InputPlan {
                name: entry.key.clone(),
                kind: InputKind::Any,
                required: false,
                default: None,
                choices: Vec::new(),
                description: None,
                implied: false,
                span: entry.key_span,
            };
            if matches!(entry.value.kind, NodeKind::Map(_))
                && entry.value.entries().iter().all(|e| is_input_key(&e.key))
            {
                self.declared(&entry.value, &mut input);
            } else if entry.value.kind == NodeKind::Null {
                input.required = true;
            } else {
                input.default = Some(entry.value.to_json());
            }
            self.scope.inputs.push(input);
        }
    }

    fn declared(&mut self, node: &Node, input: &mut InputPlan) {
        let report = &mut self.report;
        let mut keys = Keys::new(node, "an input", report);
        let words = ["string", "integer", "number", "boolean", "array", "object", "file", "any"];
        input.kind = keys.word("type", &words, report).unwrap_or(InputKind::Any);
        input.default = keys.entry("default").map(|e| e.value.to_json());
        input.required = keys.flag("required", report).unwrap_or(input.default.is_none());
        input.choices =
            keys.get("enum").map(Node::items).unwrap_or_default().iter().map(Node::to_json).collect();
        input.description = keys.text("description", report).map(str::to_owned);
        keys.finish("an input", self.options.lenient, report);
        if let Some(default) = input.default.clone().filter(|d| !d.is_null()) {
            match crate::plan::fit_input(input, &Data::new(default)) {
                Ok(fit) => input.default = Some(fit.into_json()),
                Err(message) => {
                    let span = node.get("default").map_or(node.span, |n| n.span);
                    self.report.push(Diagnostic::error(
                        "E0103",
                        span,
                        format!("the default does not fit: {message}"),
                    ));
                }
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "two lists of the same kind")]
    fn initial(&mut self, keys: &mut Keys<'_>) -> (Vec<(String, Dynamic)>, Vec<(String, Dynamic)>) {
        let mut all = Vec::new();
        for key in ["variables", "global_vars"] {
            let node = keys.get(key);
            if key == "global_vars" && node.is_some() {
                self.scope.knows_globals = true;
            }
            let mut place = Place { no_previous: "no step has run", ..Place::default() };
            let mut values = Vec::new();
            for entry in node.map(Node::entries).unwrap_or_default() {
                values.push((entry.key.clone(), self.any_value(&entry.value, &place)));
                place.bound.push(entry.key.clone());
                if key == "global_vars" {
                    self.scope.globals.insert(entry.key.clone());
                }
            }
            if let Some(node) = node.filter(|n| !matches!(n.kind, NodeKind::Map(_))) {
                wrong(node, key, "a map", &mut self.report);
            }
            all.push(values);
        }
        let globals = all.pop().unwrap_or_default();
        (all.pop().unwrap_or_default(), globals)
    }

    /// Names that steps anywhere in the pipeline give: step names, variables, output fields.
    fn collect(&mut self, workflow: &Node) {
        for entry in workflow.get("variables").map(Node::entries).unwrap_or_default() {
            self.scope.state.insert(entry.key.clone());
        }
        if let Some(steps) = workflow.get("steps") {
            self.collect_steps(steps);
        }
        self.scope.hyphenated = self.scope.steps.iter().filter(|n| n.contains('-')).cloned().collect();
    }

    fn collect_steps(&mut self, node: &Node) {
        match &node.kind {
            NodeKind::List(items) => {
                for item in items {
                    self.collect_step(item);
                    self.collect_steps(item);
                }
            }
            NodeKind::Map(entries) => {
                // A child has names of its own; a prompt has none.
                let inside = entries
                    .iter()
                    .filter(|e| !matches!(e.key.as_str(), "pipeline" | "prompt" | "claude_options"));
                inside.for_each(|e| self.collect_steps(&e.value));
            }
            _ => {}
        }
    }

    fn collect_step(&mut self, step: &Node) {
        let (Some(kind), Some(name)) =
            (step.get("type").and_then(Node::as_text), step.get("name").and_then(Node::as_text))
        else {
            return;
        };
        self.scope.steps.insert(name.to_owned());
        for entry in step.get("reduce").map(Node::entries).unwrap_or_default() {
            self.scope.state.insert(entry.key.clone());
        }
        if let Some(variable) =
            step.get("variable").and_then(Node::as_text).filter(|_| kind == "set_variable")
        {
            self.scope.state.insert(variable.to_owned());
        }
        if kind == "data_transform" {
            let field = step.get("output_field").and_then(Node::as_text).unwrap_or(name).to_owned();
            self.scope.transforms.insert(name.to_owned(), field.clone());
            self.scope.fields.insert(field, name.to_owned());
        }
        // What a snapshot may bring back.
        if kind == "checkpoint" && step.get("action").and_then(Node::as_text) == Some("load") {
            for entry in step.get("state").map(Node::entries).unwrap_or_default() {
                self.scope.state.insert(entry.key.clone());
            }
        }
        let kernel = if normalise::is_model(kind) { "prompt" } else { kind };
        let Some(spec) = self.catalog.step(kernel).map(|s| s.spec()) else { return };
        let properties = spec.schema.get("properties").and_then(|p| p.as_object());
        for (property, _) in
            properties.into_iter().flatten().filter(|(_, s)| s.get("x-kind").is_some_and(|k| k == "bindings"))
        {
            for entry in step.get(property).map(Node::entries).unwrap_or_default() {
                self.scope.state.insert(entry.key.clone());
            }
        }
    }
}

fn is_input_key(key: &str) -> bool {
    matches!(key, "type" | "required" | "default" | "enum" | "description") || key.starts_with("x-")
}

/// The scope that a child starts with.
fn inherited(outer: &PipelineScope, child: Option<&Inherits>) -> PipelineScope {
    let Some(inherits) = child else { return PipelineScope::default() };
    let mut scope =
        PipelineScope { knows_globals: true, functions: BTreeMap::new(), ..PipelineScope::default() };
    // What a run may do, its root says.
    scope.allowed_tools.clone_from(&outer.allowed_tools);
    if inherits.defaults {
        scope.defaults.clone_from(&outer.defaults);
        scope.retry.clone_from(&outer.retry);
        scope.default_spans.clone_from(&outer.default_spans);
        scope.mode.clone_from(&outer.mode);
        scope.providers.clone_from(&outer.providers);
        scope.agent.clone_from(&outer.agent);
    }
    if inherits.functions {
        scope.functions.clone_from(&outer.functions);
    }
    if inherits.context {
        scope.globals = outer.globals.union(&outer.state).cloned().collect();
        scope.knows_globals = outer.knows_globals;
    }
    scope
}
