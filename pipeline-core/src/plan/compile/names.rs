//! What names mean while compiling: the scope of a pipeline and the place of a step in it.
//!
//! Owns [`PipelineScope`], [`Place`] and the check of everything that an expression reads. The same rules as
//! `schedule/names.rs` follows at run time. Next: `text.rs`, which compiles expressions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span, closest};
use crate::document::{Entry, Node};
use crate::expr::Read;
use crate::plan::compile::Compiler;
use crate::plan::{InputKind, InputPlan, Retry};

/// Fields of `run`.
const RUN: [&str; 4] = ["id", "started_at", "dir", "timestamp"];

/// Names that are objects of the scope.
const NAMESPACES: [&str; 8] = ["steps", "inputs", "state", "global_vars", "loop", "workflow", "run", "env"];

/// Fields of `loop`.
const LOOP: [&str; 10] =
    ["item", "index", "total", "length", "first", "is_first", "last", "is_last", "level", "parent"];

/// What is known of a pipeline as a whole.
#[derive(Debug, Default)]
pub(super) struct PipelineScope {
    /// Declared and implied inputs.
    pub(super) inputs: Vec<InputPlan>,
    /// Whether there is an `inputs` key, so that nothing is implied.
    pub(super) declares_inputs: bool,
    /// Variables that something in the pipeline sets.
    pub(super) state: BTreeSet<String>,
    /// Names under `global_vars`.
    pub(super) globals: BTreeSet<String>,
    /// Whether all of them are known.
    pub(super) knows_globals: bool,
    /// `permissions.env`.
    pub(super) env: Vec<String>,
    /// `permissions.tools`, where there is one.
    pub(super) allowed_tools: Option<Vec<String>>,
    /// Step names with hyphens.
    pub(super) hyphenated: Vec<String>,
    /// Every step name in the pipeline.
    pub(super) steps: BTreeSet<String>,
    /// `output_field`s of data_transform steps, with their steps.
    pub(super) fields: BTreeMap<String, String>,
    /// data_transform steps, with their `output_field`s.
    pub(super) transforms: BTreeMap<String, String>,
    /// `functions`.
    pub(super) functions: BTreeMap<String, Node>,
    /// `providers`: name and kind.
    pub(super) providers: BTreeMap<String, String>,
    /// `defaults`.
    pub(super) defaults: Option<Node>,
    /// Where `defaults` stand: the pipeline's own and those around it.
    pub(super) default_spans: Vec<Span>,
    /// `defaults.retry`.
    pub(super) retry: Option<Retry>,
    /// `environment.mode`.
    pub(super) mode: Option<Node>,
    /// Keys of the workflow that reach its Claude steps.
    pub(super) agent: Vec<Entry>,
}

/// The first steps of a list: those whose values can be read from a place. A prefix costs the same for every step of a
/// long list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) list: usize,
    pub(super) first: usize,
}

/// A list of steps, as references find it.
#[derive(Debug, Default)]
pub(super) struct List {
    /// Where each step is.
    pub(super) names: HashMap<Arc<str>, usize>,
    /// The fields of the values of those of which all are known.
    pub(super) shapes: Arc<HashMap<Arc<str>, Vec<String>>>,
}

/// Where a step stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Path of the enclosing step.
    pub(super) path: String,
    /// Steps whose values can be read.
    pub(super) visible: Vec<Seen>,
    /// The step just before in the same list.
    pub(super) previous: Option<Arc<str>>,
    /// Why there is none.
    pub(super) no_previous: &'static str,
    /// Iterators of the enclosing loops, outermost first.
    pub(super) loops: Vec<Option<String>>,
    /// Variables with a reducer, when the nearest loop or fan-out runs its parts at once.
    pub(super) parallel: Option<Vec<String>>,
    /// Names that are bound just here.
    pub(super) bound: Vec<String>,
}

impl Place {
    pub(super) fn inside(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        Self { path, previous: None, no_previous: "it is the first step of its list", ..self.clone() }
    }
}

impl Compiler<'_> {
    /// Remembers the names of a list; at first none of them is seen.
    pub(super) fn list_of(&mut self, names: impl IntoIterator<Item = Option<Arc<str>>>) -> Seen {
        let names = names.into_iter().enumerate().filter_map(|(place, name)| Some((name?, place))).collect();
        self.lists.push(List { names, ..List::default() });
        Seen { list: self.lists.len() - 1, first: 0 }
    }

    /// All steps of a list that has run.
    pub(super) fn all_of(&mut self, steps: &[Node]) -> Seen {
        let names = steps.iter().map(|s| s.get("name").and_then(Node::as_text).map(Arc::from));
        let seen = self.list_of(names);
        self.lists[seen.list].shapes = self.shapes(steps);
        Seen { first: steps.len(), ..seen }
    }

    /// What the values of a list's steps look like, where that is known.
    pub(super) fn shapes(&self, steps: &[Node]) -> Arc<HashMap<Arc<str>, Vec<String>>> {
        let shapes = steps.iter().filter_map(|step| {
            let name = step.get("name").and_then(Node::as_text)?;
            Some((Arc::from(name), self.shape_of(step)?))
        });
        Arc::new(shapes.collect())
    }

    /// The fields of a step's value, where they are all known.
    fn shape_of(&self, step: &Node) -> Option<Vec<String>> {
        let kind = step.get("type").and_then(Node::as_text)?;
        if step.get("on_error").is_some() {
            return None;
        }
        let mut fields = match kind {
            "for_loop" => {
                owned(&["iterations", "results", "total_items", "completed_items", "failed_items", "success"])
            }
            "while_loop" => owned(&["iterations", "last", "stop_reason", "success"]),
            // A path that a value lacks goes on in these, which may have anything inside.
            _ => self
                .catalog
                .step(kind)?
                .fields(step)
                .filter(|all| !all.iter().any(|f| f == "data" || f == "results"))?,
        };
        // Every value has these, or has them when it failed and what follows runs all the same.
        fields.extend(owned(&["result", "status", "success", "error"]));
        Some(fields)
    }

    /// A field that the value of a step cannot have.
    fn check_field(&mut self, read: &Read, name: &str, span: Span, place: &Place) {
        let Some(field) = read.path.get(1).cloned() else { return };
        let is_in = |seen: &&Seen| self.lists[seen.list].names.get(name).is_some_and(|at| *at < seen.first);
        // The innermost list that has the name is the one that is read.
        let Some(seen) = place.visible.iter().rev().find(is_in) else { return };
        let Some(fields) = self.lists[seen.list].shapes.get(name) else { return };
        if fields.contains(&field) {
            return;
        }
        let known = fields.clone();
        self.unknown("E0212", &format!("the value of `{name}` has no field `{field}`"), &field, &known, span);
    }

    fn sees(&self, place: &Place, name: &str) -> bool {
        let is_in = |seen: &Seen| self.lists[seen.list].names.get(name).is_some_and(|at| *at < seen.first);
        place.visible.iter().any(is_in)
    }

    fn seen(&self, place: &Place) -> Vec<String> {
        let names = |seen: &Seen| {
            let first = seen.first;
            self.lists[seen.list]
                .names
                .iter()
                .filter(move |(_, at)| **at < first)
                .map(|(name, _)| name.to_string())
        };
        place.visible.iter().flat_map(names).collect()
    }

    /// Checks everything that a text reads. `span` tells where a part of the text stands.
    pub(super) fn check_reads(&mut self, reads: &[Read], place: &Place, span: impl Fn(&Read) -> Span) {
        for read in reads {
            let guarded = reads.iter().any(|r| r.optional && r.root == read.root && r.field == read.field);
            if !guarded {
                self.check_read(read, span(read), place);
            }
        }
    }

    fn check_read(&mut self, read: &Read, span: Span, place: &Place) {
        match (read.root.as_str(), read.field.as_deref()) {
            ("steps", Some(name)) if !self.sees(place, name) => self.unseen_step(name, span, place),
            ("steps", Some(name)) => self.check_field(read, name, span, place),
            ("inputs", Some(name)) => self.check_input(name, span),
            ("state" | "variables", Some(name)) => {
                let is_known = self.scope.state.contains(name) || place.bound.iter().any(|b| b == name);
                if !is_known {
                    let known: Vec<String> = self.scope.state.iter().cloned().collect();
                    self.unknown(
                        "E0205",
                        &format!("nothing in this pipeline sets `{}.{name}`", read.root),
                        name,
                        &known,
                        span,
                    );
                }
            }
            ("global_vars", Some(name)) => self.check_global(name, span),
            ("env", Some(name)) if !self.scope.env.iter().any(|e| e == name) => {
                let message = format!("`env.{name}` is not allowed");
                let help = format!("list it under `permissions: {{env: [{name}]}}`");
                self.report.push(Diagnostic::error("E0207", span, message).help(help).at(&place.path));
            }
            ("run", Some(name)) if !RUN.contains(&name) => {
                self.unknown("E0201", &format!("`run` has no field `{name}`"), name, &owned(&RUN), span);
            }
            ("workflow", Some(name)) if name != "name" => {
                self.unknown(
                    "E0201",
                    &format!("`workflow` has no field `{name}`"),
                    name,
                    &owned(&["name"]),
                    span,
                );
            }
            ("previous_response", _) => {
                let message = format!("there is no previous response here: {}", place.no_previous);
                let finding = Diagnostic::error("E0211", span, message);
                self.report.push(finding.help("name the step: `steps.NAME`").at(&place.path));
            }
            ("loop" | "turn", field) => self.check_loop(field, span, place),
            ("steps" | "state" | "variables" | "env" | "run" | "workflow" | "global_vars", _)
            | ("inputs", None) => {}
            (name, field) => self.check_bare(name, field.is_some(), span, place),
        }
    }

    fn check_loop(&mut self, field: Option<&str>, span: Span, place: &Place) {
        let Some(iterator) = place.loops.last() else {
            let finding = Diagnostic::error("E0206", span, "`loop` is read outside a loop");
            let help = "it is there in the `steps` of a for_loop or while_loop";
            return self.report.push(finding.help(help).at(&place.path));
        };
        let Some(name) = field else { return };
        if !LOOP.contains(&name) && iterator.as_deref() != Some(name) {
            let mut known = owned(&LOOP);
            known.extend(iterator.clone());
            self.unknown("E0201", &format!("`loop` has no field `{name}`"), name, &known, span);
        }
    }

    fn check_input(&mut self, name: &str, span: Span) {
        if self.scope.inputs.iter().any(|i| i.name == name) {
            return;
        }
        if self.scope.declares_inputs {
            let known: Vec<String> = self.scope.inputs.iter().map(|i| i.name.clone()).collect();
            return self.unknown("E0204", &format!("there is no input `{name}`"), name, &known, span);
        }
        self.imply(name, span, None);
    }

    fn check_global(&mut self, name: &str, span: Span) {
        if self.scope.globals.contains(name) {
            return;
        }
        if self.scope.knows_globals {
            let known: Vec<String> = self.scope.globals.iter().cloned().collect();
            return self.unknown("E0205", &format!("there is no `global_vars.{name}`"), name, &known, span);
        }
        self.imply(&format!("global_vars.{name}"), span, None);
    }

    fn check_bare(&mut self, name: &str, has_field: bool, span: Span, place: &Place) {
        let is_known = self.scope.inputs.iter().any(|i| i.name == name)
            || self.scope.state.contains(name)
            || place.bound.iter().any(|b| b == name)
            || self.sees(place, name)
            || RUN.contains(&name);
        if is_known {
            return;
        }
        if self.scope.steps.contains(name) {
            return self.unseen_step(name, span, place);
        }
        let mut known: Vec<String> = self.scope.inputs.iter().map(|i| i.name.clone()).collect();
        known.extend(self.scope.state.iter().cloned());
        known.extend(self.seen(place));
        known.extend(owned(&NAMESPACES));
        // `stpes.a` is a slip, not an input.
        let is_slip = has_field && closest(name, NAMESPACES).is_some();
        if !self.scope.declares_inputs && !is_slip {
            let is_item = |i: &Option<String>| i.as_deref().unwrap_or("item") == name;
            let item = place.loops.iter().any(is_item);
            let item = item.then(|| format!("the current item of the loop is `loop.{name}`"));
            let near = closest(name, known.iter().map(String::as_str));
            let near = near.map(|near| format!("declare it under `inputs`, or did you mean `{near}`?"));
            return self.imply(name, span, item.or(near));
        }
        self.unknown("E0201", &format!("`{name}` is not a name that is known here"), name, &known, span);
    }

    /// Without an `inputs` key, a name that nothing else can be is a required input.
    fn imply(&mut self, name: &str, span: Span, help: Option<String>) {
        if self.scope.inputs.iter().any(|i| i.name == name) {
            return;
        }
        let what =
            if name.starts_with("global_vars.") { "must come from a parent" } else { "is a required input" };
        let message = format!("`{name}` {what}");
        let help = help.unwrap_or_else(|| {
            "declare it under `inputs` to give it a type, a default and a description".to_owned()
        });
        self.report.push(Diagnostic::note("E0208", span, message).help(help));
        self.scope.inputs.push(InputPlan {
            name: name.to_owned(),
            kind: InputKind::Any,
            required: true,
            default: None,
            choices: Vec::new(),
            description: None,
            implied: true,
            span,
        });
    }

    pub(super) fn unseen_step(&mut self, name: &str, span: Span, place: &Place) {
        if self.scope.steps.contains(name) {
            let message = format!("the value of `{name}` is not there yet");
            let help = if place.previous.is_none() && self.seen(place).is_empty() {
                "it runs later, or at the same time; only steps that have run before can be read"
            } else {
                "only steps before this one can be read: in the same list, or in a list around it; in a list with \
                 `needs`, only those that it needs"
            };
            let finding = Diagnostic::error("E0203", span, message).help(help);
            return self.report.push(finding.at(&place.path));
        }
        let known = self.seen(place);
        self.unknown("E0202", &format!("there is no step `{name}`"), name, &known, span);
    }

    fn unknown(&mut self, code: &'static str, message: &str, name: &str, known: &[String], span: Span) {
        let finding = Diagnostic::error(code, span, message);
        self.report.push(match closest(name, known.iter().map(String::as_str)) {
            Some(near) => finding.suggest(near),
            None if known.is_empty() => finding,
            None => {
                let some: Vec<&str> = known.iter().take(12).map(String::as_str).collect();
                finding.help(format!("known here: {}", some.join(", ")))
            }
        });
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}
