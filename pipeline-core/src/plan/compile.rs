//! The only way to a [`Plan`]. (In work.)

use crate::catalog::Catalog;
use crate::diagnostic::Diagnostic;
use crate::plan::Plan;
use crate::source::{SourceLoader, SourceRef};

/// What a compilation may be told.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// Unknown keys are warnings.
    pub lenient: bool,
}

/// What a step's own check may look at and report to.
pub struct CheckContext<'a> {
    _report: &'a mut crate::diagnostic::Report,
}

/// A plan with its notes and warnings, or every finding.
pub fn compile(
    loader: &dyn SourceLoader,
    root: &SourceRef,
    catalog: &Catalog,
    options: &CompileOptions,
) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let _ = (loader, root, catalog, options);
    Err(Vec::new())
}
