//! What exists: step types, providers, tools.
//!
//! Owns [`Catalog`] (what the compiler checks names against) and [`Services`] (the same, as steps use it at run time).
//! Both are values, built by the composition root; nothing here is global.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{ErrorKind, StepError};
use crate::process::sandbox::Tried;
use crate::provider::{Provider, ProviderKind};
use crate::redact::Redactor;
use crate::resources::ResourceProbe;
use crate::step::{RunInfo, Step};
use crate::store::{JqHost, OutputWriter, SessionStore, SnapshotStore};
use crate::tape::Tape;
use crate::tool::{Tool, ToolSource, ToolSpec};

/// Step types and providers by name.
#[derive(Clone, Default)]
pub struct Catalog {
    steps: BTreeMap<&'static str, Arc<dyn Step>>,
    providers: BTreeMap<String, Arc<dyn Provider>>,
    kinds: BTreeMap<&'static str, ProviderKind>,
}

/// A name that is taken already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} `{name}` is registered already")]
pub struct Duplicate {
    /// `step type`, `provider` or `kind of provider`.
    pub what: &'static str,
    /// The name.
    pub name: String,
}

impl Catalog {
    /// Adds a step type.
    ///
    /// # Errors
    /// [`Duplicate`] when the type exists.
    pub fn add_step(&mut self, step: Arc<dyn Step>) -> Result<(), Duplicate> {
        let kind = step.spec().kind;
        if self.steps.contains_key(kind) {
            return Err(Duplicate { what: "step type", name: kind.to_owned() });
        }
        self.steps.insert(kind, step);
        Ok(())
    }

    /// Adds a provider under its own name.
    ///
    /// # Errors
    /// [`Duplicate`] when the name exists.
    pub fn add_provider(&mut self, provider: Arc<dyn Provider>) -> Result<(), Duplicate> {
        let name = provider.name().to_owned();
        if self.providers.contains_key(&name) {
            return Err(Duplicate { what: "provider", name });
        }
        self.providers.insert(name, provider);
        Ok(())
    }

    /// Puts a provider in the place of the one of its name, if there is one: an entry of `providers` wins over what is
    /// built in.
    pub fn set_provider(&mut self, provider: Arc<dyn Provider>) {
        self.providers.insert(provider.name().to_owned(), provider);
    }

    /// Adds a kind that entries of `providers` may name.
    ///
    /// # Errors
    /// [`Duplicate`] when the kind exists.
    pub fn add_kind(&mut self, kind: ProviderKind) -> Result<(), Duplicate> {
        if self.kinds.contains_key(kind.name) {
            return Err(Duplicate { what: "kind of provider", name: kind.name.to_owned() });
        }
        self.kinds.insert(kind.name, kind);
        Ok(())
    }

    /// The kind `name`.
    pub fn kind(&self, name: &str) -> Option<&ProviderKind> {
        self.kinds.get(name)
    }

    /// Every kind that entries of `providers` may name, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &ProviderKind> {
        self.kinds.values()
    }

    /// The step type `kind`.
    pub fn step(&self, kind: &str) -> Option<&Arc<dyn Step>> {
        self.steps.get(kind)
    }

    /// The provider `name`.
    pub fn provider(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.providers.get(name)
    }

    /// Every step type, by name.
    pub fn steps(&self) -> impl Iterator<Item = &Arc<dyn Step>> {
        self.steps.values()
    }

    /// Every provider, by name.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.providers.values()
    }
}

/// What steps may use at run time. What is `None` was not provided: a step that needs it refuses with a clear error.
#[derive(Clone)]
#[non_exhaustive]
pub struct Services {
    /// Step types and providers.
    pub catalog: Catalog,
    /// Tools.
    pub tools: Arc<dyn ToolSource>,
    /// Output files.
    pub outputs: Arc<dyn OutputWriter>,
    /// Durable conversations.
    pub sessions: Option<Arc<dyn SessionStore>>,
    /// Named snapshots of state, and cached results.
    pub snapshots: Option<Arc<dyn SnapshotStore>>,
    /// Runs jq programs.
    pub jq: Option<Arc<dyn JqHost>>,
    /// Records or replays every effect, and the order of facts.
    pub tape: Option<Arc<dyn Tape>>,
    /// Keeps secrets out of everything that steps get from outside.
    pub redactor: Arc<Redactor>,
    /// The environment of child processes: an allow-list, never the whole.
    pub child_env: Arc<BTreeMap<String, String>>,
    /// Which sandbox was seen to work.
    pub sandbox: Tried,
    /// Most calls at once to live providers, over all runs of the process; `None` = no limit (mocks).
    pub calls: Option<Arc<tokio::sync::Semaphore>>,
    /// Tells what the process holds, for limits on it.
    pub resources: Option<Arc<dyn ResourceProbe>>,
}

impl Services {
    /// The least that an engine needs; the rest is set field by field.
    pub fn new(catalog: Catalog, tools: Arc<dyn ToolSource>, outputs: Arc<dyn OutputWriter>) -> Self {
        Self {
            catalog,
            tools,
            outputs,
            sessions: None,
            snapshots: None,
            jq: None,
            tape: None,
            redactor: Arc::default(),
            child_env: Arc::default(),
            sandbox: Tried::default(),
            calls: None,
            resources: None,
        }
    }
}

impl Default for Services {
    /// Nothing: no step types, no providers, no tools, and output files are refused.
    fn default() -> Self {
        Self::new(Catalog::default(), Arc::new(Nothing), Arc::new(Nothing))
    }
}

/// Stands where nothing was provided.
struct Nothing;

impl ToolSource for Nothing {
    fn get(&self, _: &str) -> Option<Arc<dyn Tool>> {
        None
    }

    fn list(&self) -> Vec<ToolSpec> {
        Vec::new()
    }
}

#[async_trait]
impl OutputWriter for Nothing {
    async fn write(&self, _: &RunInfo, name: &str, _: &str) -> Result<PathBuf, StepError> {
        let message = format!("the file `{name}` cannot be written: this host keeps no output files");
        Err(StepError::new(ErrorKind::Environment, message).help("provide `Services::outputs`"))
    }
}
