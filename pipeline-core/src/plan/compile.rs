//! The only way to a [`Plan`]: the whole tree is read, and every finding is reported at once.
//!
//! Owns [`compile`]. Reading order: `keys.rs` (maps, key by key), `names.rs` (what names mean), `text.rs` (expressions),
//! `fields.rs` (a leaf's configuration against its schema), `policy.rs` (retries, budgets),
//! `providers.rs`, `steps.rs`, `control.rs`,
//! `workflow.rs`. Must not know how a plan is run, nor any step or provider by name beyond the catalog.

mod guess;
mod keys;
mod names;
mod text;
mod fields;
mod origins;
mod policy;
mod defaults;
mod providers;
mod steps;
mod control;
mod batch;
mod child;
mod workflow;

use std::collections::BTreeMap;

use crate::catalog::Catalog;
use crate::diagnostic::{Diagnostic, Report, Span};
use crate::document::Node;
use crate::plan::{Block, Pipeline, PipelineId, Plan, StepPlan};
use crate::provider::ProviderEntry;
use crate::source::{SourceLoader, SourceMap, SourceRef};
use crate::value::Hash;

use names::PipelineScope;

/// What a compilation may be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompileOptions {
    /// Unknown keys are warnings.
    pub lenient: bool,
}

/// What a step's own check may look at and report to.
pub struct CheckContext<'a> {
    report: &'a mut Report,
    path: &'a str,
}

impl CheckContext<'_> {
    /// Reports an error at `span`.
    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: &str) {
        self.report.push(Diagnostic::error(code, span, message).help(help).at(self.path));
    }

    /// Reports at `span` that the map at `map` lacks any of these keys; not when one that is misspelled is told anyway.
    pub fn missing(&mut self, map: &Node, keys: &[&str], span: Span, message: impl Into<String>, help: &str) {
        let finding = Diagnostic::error("E0102", span, message).help(help).at(self.path);
        self.report.push(keys.iter().fold(finding, |finding, key| finding.about(map.span, *key)));
    }

    /// Reports a warning at `span`.
    pub fn warning(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: &str) {
        self.report.push(Diagnostic::warning(code, span, message).help(help).at(self.path));
    }
}

/// How references between files were resolved: (canonical name of the file, reference) to canonical name.
pub(crate) type Links = Vec<(String, String, String)>;

struct Compiler<'a> {
    loader: &'a dyn SourceLoader,
    catalog: &'a Catalog,
    options: &'a CompileOptions,
    report: Report,
    sources: SourceMap,
    links: Links,
    pipelines: Vec<Option<Pipeline>>,
    blocks: Vec<Block>,
    steps: Vec<StepPlan>,
    /// Names of lists of steps, with their places: see `names::Seen`.
    lists: Vec<names::List>,
    /// Entries of `providers` of every pipeline so far, with their places.
    providers: BTreeMap<String, (ProviderEntry, Span)>,
    /// The pipeline that is being compiled.
    scope: PipelineScope,
    /// Directories that the root file lets its children be read from.
    read: Vec<String>,
    /// Files that are being compiled, outermost first, with their pipelines.
    stack: Vec<(String, PipelineId)>,
}

/// A plan with its notes and warnings, or every finding when at least one is an error.
///
/// # Errors
/// Every finding of the whole tree, in source order.
pub fn compile(
    loader: &dyn SourceLoader,
    root: &SourceRef,
    catalog: &Catalog,
    options: &CompileOptions,
) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    compile_with_sources(loader, root, catalog, options).map_err(|(findings, _)| findings)
}

/// As [`compile`]; findings come with the texts that they point into.
///
/// # Errors
/// As [`compile`].
pub fn compile_with_sources(
    loader: &dyn SourceLoader,
    root: &SourceRef,
    catalog: &Catalog,
    options: &CompileOptions,
) -> Result<(Plan, Vec<Diagnostic>), (Vec<Diagnostic>, SourceMap)> {
    let compiler = Compiler {
        loader,
        catalog,
        options,
        report: Report::default(),
        sources: SourceMap::default(),
        links: Vec::new(),
        pipelines: Vec::new(),
        blocks: Vec::new(),
        steps: Vec::new(),
        lists: Vec::new(),
        providers: BTreeMap::new(),
        scope: PipelineScope::default(),
        read: Vec::new(),
        stack: Vec::new(),
    };
    crate::stack::with_room(|| compiler.run(root))
}

impl Compiler<'_> {
    fn run(mut self, root: &SourceRef) -> Result<(Plan, Vec<Diagnostic>), (Vec<Diagnostic>, SourceMap)> {
        self.root(root);
        if self.report.has_errors() {
            return Err((self.report.into_sorted(), self.sources));
        }
        let texts: Vec<&str> = self.sources.files().map(|(_, f)| &*f.text).collect();
        let fingerprint = Hash::of(&(1, self.options.lenient, texts));
        let mut pipelines: Vec<Pipeline> = self.pipelines.into_iter().flatten().collect();
        // All programs of a run start in one way: a child that asks for the sandbox has it, and none can do without.
        let sandbox = pipelines.iter().any(|pipeline| pipeline.settings.permissions.sandbox);
        if let Some(root) = pipelines.first_mut() {
            root.settings.permissions.sandbox = sandbox;
        }
        let plan = Plan {
            pipelines,
            blocks: self.blocks,
            steps: self.steps,
            sources: self.sources,
            providers: self.providers.into_values().map(|(entry, _)| entry).collect(),
            links: self.links,
            fingerprint,
        };
        Ok((plan, self.report.into_sorted()))
    }
}
