//! Which implementations this program is made of.
//!
//! Owns the choice of steps, providers, tools, output files and store: one function each, and nothing else in this
//! crate names a sibling crate. Must not know commands.
//!
//! (In work: what the sibling crates and core are still to bring stands here under the name that it will have.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::catalog::Catalog;
use pipeline_core::diagnostic::Diagnostic;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::{CompileOptions, Plan};
use pipeline_core::provider::Provider;
use pipeline_core::source::{LoadedSource, SourceError, SourceLoader, SourceMap, SourceRef};
use pipeline_core::step::{RunInfo, Step};
use pipeline_core::store::{
    CheckpointStore, Manifest, OpenedRun, OutputWriter, RunLog, RunSummary, StoreError, StoredRun,
    StoredSources,
};
use pipeline_core::tool::{Tool, ToolSource, ToolSpec};

use crate::settings::{Mode, Settings};

/// Names of the built-in providers, with the variables that give each a credential.
const BUILT_IN: [&str; 4] = ["claude", "gemini", "openai", "ollama"];

/// Every built-in step type. To be: `pipeline_steps::builtin(Arc::default())`.
pub fn steps() -> Vec<Arc<dyn Step>> {
    Vec::new()
}

/// The providers of a mode, and the names of those that have no credential. To be: `mocks(rules)` for the mock,
/// `Unavailable::new(name, variables)` for live.
pub fn providers(
    mode: Mode,
    rules: &Arc<MockRules>,
    settings: &Settings,
) -> (Vec<Arc<dyn Provider>>, Vec<&'static str>) {
    let lacking: Vec<&'static str> =
        BUILT_IN.into_iter().filter(|name| !settings.has_credential(name)).collect();
    let _ = rules;
    (Vec::new(), if mode == Mode::Live { lacking } else { Vec::new() })
}

/// The registry of tools. To be: `pipeline_tools::Registry::with_builtins()`.
pub fn tools() -> Arc<dyn ToolSource> {
    Arc::new(NoTools)
}

/// Where output files are written. To be: `pipeline_steps::OutputFiles::default()`.
pub fn outputs() -> Arc<dyn OutputWriter> {
    Arc::new(NoOutputs)
}

/// The store of a state directory. To be: `pipeline_checkpoint::FileStore::new(dir)`.
pub fn store(dir: &Path) -> Arc<dyn CheckpointStore> {
    Arc::new(NoStore(dir.to_path_buf()))
}

/// To be: `pipeline_providers::MockRules`.
#[derive(Debug, Default)]
pub struct MockRules;

impl MockRules {
    /// Reads rules; the error has one line per finding.
    pub fn parse(text: &str, name: &str) -> Result<Self, String> {
        match serde_yaml::from_str::<serde_json::Value>(text) {
            Ok(_) => Ok(Self),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }
}

/// To be: `pipeline_core::plan::compile_with_sources`.
#[expect(clippy::type_complexity, reason = "the type of the function that it stands for")]
pub fn compile_with_sources(
    loader: &dyn SourceLoader,
    root: &SourceRef,
    catalog: &Catalog,
    options: &CompileOptions,
) -> Result<(Plan, Vec<Diagnostic>), (Vec<Diagnostic>, SourceMap)> {
    pipeline_core::plan::compile(loader, root, catalog, options).map_err(|findings| {
        let mut map = SourceMap::default();
        if let Ok(source) = loader.load(root, None) {
            map.add(source);
        }
        (findings, map)
    })
}

/// To be: `Plan::stored_sources`.
pub fn stored_sources(plan: &Plan) -> StoredSources {
    let files: BTreeMap<_, _> = plan
        .sources()
        .files()
        .map(|(_, f)| (f.canonical.clone(), (f.display.clone(), f.text.to_string())))
        .collect();
    let root = plan.sources().files().next().map(|(_, f)| f.canonical.clone()).unwrap_or_default();
    StoredSources { root, files, links: Vec::new() }
}

/// A run's own sources as a loader. To be: `StoredSources` itself.
pub struct StoredLoader(pub StoredSources);

impl SourceLoader for StoredLoader {
    fn load(&self, reference: &SourceRef, from: Option<&str>) -> Result<LoadedSource, SourceError> {
        let text = match reference {
            SourceRef::Path(path) => format!("path:{path}"),
            SourceRef::Library(name) => format!("library:{name}"),
        };
        let canonical = match from {
            None => Some(&self.0.root),
            Some(from) => self.0.links.iter().find(|(f, r, _)| f == from && *r == text).map(|(_, _, to)| to),
        };
        match canonical.and_then(|c| Some((c, self.0.files.get(c)?))) {
            Some((canonical, (display, text))) => Ok(LoadedSource {
                display: display.clone(),
                canonical: canonical.clone(),
                text: text.clone(),
            }),
            None => {
                Err(SourceError { message: format!("the run has not stored the source {text}"), help: None })
            }
        }
    }

    fn data_file_exists(&self, _path: &str, _from: &str) -> Option<bool> {
        None
    }
}

/// The long form of a finding's code. To be: `pipeline_core::codes::CodeDoc`.
#[derive(Debug, Clone, Copy)]
pub struct CodeDoc {
    /// The code.
    pub code: &'static str,
    /// One line.
    pub title: &'static str,
    /// Everything.
    pub text: &'static str,
}

/// To be: `pipeline_core::codes::explain`.
pub fn explain(code: &str) -> Option<CodeDoc> {
    const DOCS: [CodeDoc; 0] = [];
    DOCS.into_iter().find(|doc| doc.code == code)
}

struct NoTools;

impl ToolSource for NoTools {
    fn get(&self, _name: &str) -> Option<Arc<dyn Tool>> {
        None
    }

    fn list(&self) -> Vec<ToolSpec> {
        Vec::new()
    }
}

struct NoOutputs;

#[async_trait]
impl OutputWriter for NoOutputs {
    async fn write(&self, _run: &RunInfo, name: &str, _text: &str) -> Result<PathBuf, StepError> {
        let message = format!("`{name}` cannot be written: output files are not connected yet");
        Err(StepError::new(ErrorKind::Unsupported, message))
    }
}

struct NoStore(PathBuf);

impl NoStore {
    fn refuse(&self) -> StoreError {
        StoreError::Directory { path: self.0.clone(), message: "the store is not connected yet".to_owned() }
    }
}

#[async_trait]
impl CheckpointStore for NoStore {
    async fn create(&self, _: &Manifest, _: &StoredSources) -> Result<Box<dyn RunLog>, StoreError> {
        Err(self.refuse())
    }

    async fn open(&self, _: &str) -> Result<OpenedRun, StoreError> {
        Err(self.refuse())
    }

    async fn read(&self, _: &str) -> Result<StoredRun, StoreError> {
        Err(self.refuse())
    }

    async fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        Err(self.refuse())
    }

    async fn latest(&self) -> Result<Option<String>, StoreError> {
        Err(self.refuse())
    }
}
