//! Tools by name.
//!
//! Owns [`Registry`]. It is a value, handed to whoever needs it: nothing runs in it, so nothing has to be started, and
//! nothing can die. Its lock is held to read or change the map of names and never while code of a tool runs.
//! Must not know any tool beside those that are built in, nor how servers are spoken to (`mcp.rs`).

#[cfg(all(test, shuttle))]
mod models;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::error::StepError;
#[cfg(feature = "mcp")]
use pipeline_core::service::Health;
use pipeline_core::step::StepContext;
use pipeline_core::sync::RwLock;
use pipeline_core::tool::{Tool, ToolSource, ToolSpec, unknown};

use crate::builtin::{Calculator, TextStats};
use crate::checked::Checked;
use crate::command::{Custom, Shell};
use crate::files::{ListFiles, ReadFile, WriteFile};
use crate::hook::Hooks;
use crate::query::{Jq, ParseJson};
use crate::written::{Secrets, Written};

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
    hooks: Arc<Hooks>,
    #[cfg(feature = "mcp")]
    servers: crate::mcp::Servers,
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
        Self { tools: RwLock::new(checked(builtins(), &Arc::default())), ..Self::default() }
    }

    /// A registry with the tools of this crate and what a workflow declares: commands, servers, hooks.
    ///
    /// # Errors
    /// A sentence for people: a name that is taken, a hook that does not exist, a server that is neither a command nor a URL.
    pub fn declared(written: &Written, secrets: &Secrets) -> Result<Self, String> {
        let hooks = Arc::new(Hooks::new(&written.hooks)?);
        let registry = Self {
            tools: RwLock::new(checked(builtins(), &hooks)),
            hooks: Arc::clone(&hooks),
            #[cfg(feature = "mcp")]
            servers: crate::mcp::Servers::new(&written.mcp_servers, secrets, &hooks)?,
        };
        #[cfg(not(feature = "mcp"))]
        if let Some(name) = written.mcp_servers.keys().next() {
            return Err(format!(
                "this program was put together without MCP, which the server `{name}` needs"
            ));
        }
        for (name, tool) in &written.tools {
            if tool.command.is_empty() {
                return Err(format!("`tools.{name}` has an empty `command`"));
            }
            registry
                .register(Arc::new(Custom::new(name, tool, secrets)))
                .map_err(|error| error.to_string())?;
        }
        Ok(registry)
    }

    /// Adds a tool under the name in its spec, which is asked for once.
    ///
    /// A schema that is no JSON Schema does not keep the tool out; each call then ends with an error that says so.
    ///
    /// # Errors
    /// [`DuplicateTool`] when the name is taken.
    pub fn register(&self, tool: Arc<dyn Tool>) -> Result<(), DuplicateTool> {
        // Runs code of the tool, so before the lock.
        let checked = Arc::new(Checked::new(tool, Arc::clone(&self.hooks)));
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

fn builtins() -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(Calculator),
        Arc::new(TextStats),
        Arc::new(ReadFile),
        Arc::new(WriteFile),
        Arc::new(ListFiles),
        Arc::new(Shell),
        Arc::new(ParseJson),
        Arc::new(Jq),
        #[cfg(feature = "http")]
        Arc::new(crate::http::HttpGet),
        #[cfg(feature = "http")]
        Arc::new(crate::http::WanIp::named("wan_ip")),
        // What the original calls it.
        #[cfg(feature = "http")]
        Arc::new(crate::http::WanIp::named("get_wan_ip")),
    ]
}

fn checked(tools: Vec<Arc<dyn Tool>>, hooks: &Arc<Hooks>) -> BTreeMap<String, Arc<Checked>> {
    let behind = |tool| Arc::new(Checked::new(tool, Arc::clone(hooks)));
    tools.into_iter().map(behind).map(|tool| (tool.known().name.clone(), tool)).collect()
}

#[async_trait]
impl ToolSource for Registry {
    fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        let found = self.tools.read().get(name).cloned();
        found.map(|tool| tool as Arc<dyn Tool>)
    }

    fn list(&self) -> Vec<ToolSpec> {
        self.tools.read().values().map(|tool| tool.known().clone()).collect()
    }

    async fn open(&self, name: &str, cx: &StepContext) -> Result<Vec<Arc<dyn Tool>>, StepError> {
        let permissions = &cx.run.permissions;
        let rules = permissions.allowed_tools.iter().flatten();
        // No server is started for what is denied anyway.
        if !rules.clone().any(|rule| rule.starts_with(name.trim_end_matches('*'))) {
            permissions.check_tool(name)?;
        }
        if let Some(tool) = self.get(name) {
            return Ok(vec![tool]);
        }
        #[cfg(feature = "mcp")]
        if let Some(mut tools) = self.servers.open(name, cx).await? {
            // A group is as many of its tools as are allowed.
            tools.retain(|tool| permissions.check_tool(&tool.spec().name).is_ok());
            return Ok(tools);
        }
        let _ = cx;
        Err(unknown(name, &self.list()))
    }

    #[cfg(feature = "mcp")]
    fn health(&self) -> Vec<Health> {
        self.servers.health()
    }

    async fn close(&self) {
        #[cfg(feature = "mcp")]
        self.servers.close().await;
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tools.read().keys()).finish()
    }
}
