//! Child pipelines: from a file, from the library, or written in place.

use std::time::Duration;

use crate::diagnostic::{Diagnostic, closest};
use crate::document::{Node, NodeKind};
use crate::expr::Template;
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::{Keys, duration, no_effect, wrong};
use crate::plan::compile::names::Place;
use crate::plan::{Body, Child, Retry};
use crate::source::SourceRef;

/// Keys of `config` that the original accepted, and that have no effect because it is always so, or never was.
const NO_EFFECT: [&str; 21] = [
    "enable_tracing",
    "trace_metadata",
    "trace_level",
    "collect_metrics",
    "metrics",
    "workspace_enabled",
    "cleanup_on_error",
    "cleanup_on_success",
    "auto_cleanup",
    "checkpoint_enabled",
    "checkpoint_frequency",
    "checkpoint_dir",
    "capture_errors",
    "lazy_load",
    "memory_warning_mb",
    "warn_at_depth",
    "on_timeout",
    "cache_results",
    "cache_ttl",
    "retry_on",
    "fallback_value",
];

/// What `config` says about the step that runs the child.
#[derive(Default)]
pub(super) struct ChildPolicy {
    pub(super) timeout: Option<Option<Duration>>,
    pub(super) retry: Option<Retry>,
    pub(super) continue_on_error: Option<bool>,
    pub(super) memory_limit_mb: Option<u64>,
}

impl Compiler<'_> {
    /// Reads from `config` what the step's own keys say better.
    pub(super) fn child_policy(&self, node: &Node) -> ChildPolicy {
        let Some(config) = node.get("config") else { return ChildPolicy::default() };
        let retries = config.get("max_retries").and_then(Node::as_u64);
        ChildPolicy {
            timeout: config.get("timeout_seconds").and_then(|n| duration(n).ok()),
            retry: retries.map(|n| Retry {
                max_attempts: u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1),
                ..self.scope.retry.clone().unwrap_or_default()
            }),
            continue_on_error: config.get("continue_on_error").and_then(Node::as_bool),
            memory_limit_mb: config.get("memory_limit_mb").and_then(Node::as_u64),
        }
    }

    pub(super) fn child(&mut self, node: &Node, keys: &mut Keys<'_>, place: &Place) -> Body {
        let mut child = Child {
            pipeline: crate::plan::PipelineId(0),
            inputs: Vec::new(),
            outputs: None,
            inherit_context: false,
            max_depth: 10,
            max_total_steps: 1000,
        };
        let mut inherits = Inherits { context: false, defaults: true, functions: true, workspace_dir: None };
        if let Some(config) = keys.get("config") {
            let report = &mut self.report;
            let mut keys = Keys::new(config, "`config`", report);
            inherits.context = keys.flag("inherit_context", report).unwrap_or(false);
            inherits.defaults = keys.flag("inherit_providers", report).unwrap_or(true);
            inherits.functions = keys.flag("inherit_functions", report).unwrap_or(true);
            child.max_depth =
                keys.count("max_depth", 1, report).map_or(10, |n| u32::try_from(n).unwrap_or(u32::MAX));
            child.max_total_steps = keys.count("max_total_steps", 1, report).unwrap_or(1000);
            // These are the step's own, and read with its keys.
            let _ = keys.duration("timeout_seconds", report);
            let _ = keys.count("max_retries", 0, report);
            let _ = keys.flag("continue_on_error", report);
            inherits.workspace_dir = keys.text("workspace_dir", report).map(str::to_owned);
            let _ = keys.count("memory_limit_mb", 1, report);
            for key in NO_EFFECT {
                if let Some(entry) = keys.entry(key) {
                    no_effect(entry, report);
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
            ("pipeline", _) => self.inline_child(source, &inherits),
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
                self.file_child(source, SourceRef::Path(path.to_owned()), &inherits)
            }
            (_, Some(name)) => self.file_child(source, SourceRef::Library(name.to_owned()), &inherits),
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
#[derive(Clone)]
pub(super) struct Inherits {
    pub(super) context: bool,
    pub(super) defaults: bool,
    pub(super) functions: bool,
    /// Where the child works, unless it says so itself.
    pub(super) workspace_dir: Option<String>,
}
