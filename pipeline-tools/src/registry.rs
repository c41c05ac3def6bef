//! Tools by name.
//!
//! Owns [`Registry`]. It is a value, handed to whoever needs it: nothing runs in it, so nothing has to be started, and
//! nothing can die. Its lock is held to read or change the map of names and never while code of a tool runs.
//! Must not know any tool beside those that are built in.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use pipeline_core::tool::{Tool, ToolSource, ToolSpec};

use crate::builtin::{Calculator, TextStats};
use crate::checked::Checked;

/// A set of tools that many tasks may read and change at once.
///
/// What [`ToolSource::get`] returns is a handle: it stays usable when the tool is unregistered meanwhile. It checks
/// arguments against the tool's schema before each call ([`ErrorKind::Invalid`] when they do not fit) and turns a panic of
/// the tool into [`ErrorKind::Panicked`].
///
/// [`ErrorKind::Invalid`]: pipeline_core::error::ErrorKind::Invalid
/// [`ErrorKind::Panicked`]: pipeline_core::error::ErrorKind::Panicked
#[derive(Default)]
pub struct Registry {
    tools: RwLock<BTreeMap<String, Arc<Checked>>>,
}

/// A tool of that name is registered already. The one that was there stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tool named `{name}` is registered already; choose another name, or unregister that one first")]
pub struct DuplicateTool {
    /// The name.
    pub name: String,
}

impl Registry {
    /// A registry with the tools of this crate.
    pub fn with_builtins() -> Self {
        let builtins: [Arc<dyn Tool>; 2] = [Arc::new(Calculator), Arc::new(TextStats)];
        let tools = builtins.into_iter().map(|tool| {
            let checked = Checked::new(tool);
            (checked.known().name.clone(), Arc::new(checked))
        });
        Self { tools: RwLock::new(tools.collect()) }
    }

    /// Adds a tool under the name in its spec, which is asked for once.
    ///
    /// A schema that is no JSON Schema does not keep the tool out; each call then ends with an error that says so.
    ///
    /// # Errors
    /// [`DuplicateTool`] when the name is taken.
    pub fn register(&self, tool: Arc<dyn Tool>) -> Result<(), DuplicateTool> {
        // Runs code of the tool, so before the lock.
        let checked = Arc::new(Checked::new(tool));
        let name = checked.known().name.clone();
        let mut tools = self.tools.write();
        if tools.contains_key(&name) {
            return Err(DuplicateTool { name });
        }
        tools.insert(name, checked);
        Ok(())
    }

    /// Takes a tool out and returns it; `None` when there is none of that name. Calls in flight go on.
    pub fn unregister(&self, name: &str) -> Option<Arc<dyn Tool>> {
        // The lock is free again before the caller drops the tool, which may run code of it.
        let removed = self.tools.write().remove(name);
        removed.map(|tool| tool as Arc<dyn Tool>)
    }
}

impl ToolSource for Registry {
    fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        let found = self.tools.read().get(name).cloned();
        found.map(|tool| tool as Arc<dyn Tool>)
    }

    fn list(&self) -> Vec<ToolSpec> {
        self.tools.read().values().map(|tool| tool.known().clone()).collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tools.read().keys()).finish()
    }
}
