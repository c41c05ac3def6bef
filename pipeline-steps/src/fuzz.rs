//! What fuzzers start in this crate: whole pipeline files with the steps that there are, and conversions.
//!
//! Owns [`pipeline_file`] and a provider that honours everything. Only in tests, and in builds for fuzzers (`--cfg fuzzing`). Must
//! not know who makes the bytes: `fuzz/` at the top of the repository does, and its stored inputs are replayed below.

#![allow(clippy::expect_used, reason = "a fuzzer sees what is wrong by a panic")]

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use pipeline_core::catalog::Catalog;
use pipeline_core::diagnostic::Diagnostic;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::{CompileOptions, compile_with_sources};
use pipeline_core::provider::{
    Capabilities, ModelRequest, ModelStream, Price, Provider, ProviderKind, WorstCase,
};
use pipeline_core::source::{MemorySources, SourceMap, SourceRef};
use pipeline_core::step::StepContext;

pub use crate::file_ops::convert_fuzz::convert;
use crate::{FileCache, builtin};

/// What stands between the files of an input.
const NEXT_FILE: &str = "\n%%%\n";

const HONOURS: Capabilities = Capabilities {
    structured_output: true,
    functions: true,
    sampling: true,
    max_output_tokens: true,
    sessions: true,
    agent: true,
    images: true,
    documents: true,
    cache_is_unlimited: false,
    options: &["allowed_tools", "mcp_servers"],
};

/// A provider that can be asked for anything and answers nothing.
struct Silent;

#[async_trait]
impl Provider for Silent {
    fn name(&self) -> &'static str {
        "claude"
    }

    fn capabilities(&self) -> Capabilities {
        HONOURS
    }

    fn default_model(&self) -> &'static str {
        "m"
    }

    fn worst_case(&self, _request: &ModelRequest) -> WorstCase {
        WorstCase { tokens: u64::MAX, cost: Price::Unknown }
    }

    async fn start(&self, _request: &ModelRequest, _cx: &StepContext) -> Result<ModelStream, StepError> {
        Err(StepError::new(ErrorKind::Unsupported, "it answers nothing"))
    }
}

/// Made once: the schemas of all steps take longer than a small file.
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let mut catalog = Catalog::default();
    for step in builtin(Arc::new(FileCache::default())) {
        catalog.add_step(step).expect("each type of step once");
    }
    catalog.set_provider(Arc::new(Silent));
    let kind = ProviderKind { name: "openai", built_in: &["claude"], capabilities: HONOURS };
    catalog.add_kind(kind).expect("one kind");
    catalog
});

/// Any text as a pipeline file, and what follows a line `%%%` as the file `b.yaml` and the library's pipeline `b`.
///
/// # Panics
/// When it is refused without a finding, or a finding has no words or a place that is not in its text.
pub fn pipeline_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (root, other) = text.split_once(NEXT_FILE).unwrap_or((&text, "name: b\nsteps: []\n"));
    let sources =
        MemorySources::default().with("a.yaml", root).with("b.yaml", other).with_library("b", other);
    let root = SourceRef::Path("a.yaml".to_owned());
    for lenient in [false, true] {
        let options = CompileOptions { lenient };
        match compile_with_sources(&sources, &root, &CATALOG, &options) {
            Ok((plan, findings)) => check(&findings, plan.sources()),
            Err((findings, texts)) => {
                assert!(!findings.is_empty(), "refused without a finding");
                check(&findings, &texts);
            }
        }
    }
}

fn check(findings: &[Diagnostic], texts: &SourceMap) {
    for finding in findings {
        assert!(!finding.message.is_empty(), "{} has no words", finding.code);
        let places = finding.labels.iter().map(|label| label.span).chain(finding.span);
        for span in places {
            let file = texts.get(span.file).expect("a finding is about a text that was read");
            let range = span.start as usize..span.end as usize;
            assert!(
                file.text.get(range).is_some(),
                "{} is at {span:?}, which is no part of it",
                finding.code
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use pipeline_core::conformance::corpus::replay;

    /// Naive: one finding at a time, and a panic on what nobody thought of.
    #[test]
    fn t10_stored_pipeline_files_give_a_plan_or_findings() {
        replay("T10", "pipeline_file", super::pipeline_file);
    }

    /// Naive: a document that was read can be written, and comes back as it was.
    #[test]
    fn t10_stored_documents_are_converted_or_refused() {
        replay("T10", "convert", super::convert);
    }
}
