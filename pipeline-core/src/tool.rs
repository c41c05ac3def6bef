//! The contract between the engine and tools.
//!
//! Owns [`Tool`] and [`ToolSource`]. A tool is called with JSON arguments that fit its schema.
//! Must not know any tool or transport. Next: pipeline-tools, which has the registry.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::diagnostic::closest;
use crate::error::StepError;
use crate::service::Health;
use crate::step::StepContext;
use crate::value::Value;

/// Something a pipeline or a model may call.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Name, description, schema.
    fn spec(&self) -> ToolSpec;

    /// Calls it. `arguments` fit [`ToolSpec::parameters`]: the registry has checked.
    ///
    /// # Errors
    /// A typed error. A panic is caught by the caller and becomes one.
    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError>;
}

/// What is known of a tool without calling it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// Name, unique in its source.
    pub name: String,
    /// What it does, for people and models.
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: Value,
}

/// What a tool hands back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// For people and models.
    pub content: String,
    /// For programs.
    pub data: Value,
}

/// Where tools are looked up by name.
#[async_trait]
pub trait ToolSource: Send + Sync {
    /// The tool of that name, if it is known without waiting for anybody.
    fn get(&self, name: &str) -> Option<Arc<dyn Tool>>;

    /// Every tool's spec that is known without waiting for anybody, ordered by name.
    fn list(&self) -> Vec<ToolSpec>;

    /// What a step means by a name: one tool, or all tools of a server. A server that has them is started first, once.
    ///
    /// # Errors
    /// `Invalid` when nothing has that name; the server's, when it cannot be started.
    async fn open(&self, name: &str, cx: &StepContext) -> Result<Vec<Arc<dyn Tool>>, StepError> {
        let _ = cx;
        self.get(name).map(|tool| vec![tool]).ok_or_else(|| unknown(name, &self.list()))
    }

    /// How the services are that were started for tools, ordered by name.
    fn health(&self) -> Vec<Health> {
        Vec::new()
    }

    /// Ends what was started for the tools. A source that starts nothing has nothing to end.
    async fn close(&self) {}
}

/// The error for a name that no tool has.
pub fn unknown(name: &str, known: &[ToolSpec]) -> StepError {
    let names: Vec<&str> = known.iter().map(|tool| tool.name.as_str()).collect();
    let help = match closest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => {
            "no tool is registered; declare it under `tools` or `mcp_servers`".to_owned()
        }
        None => format!("it is one of: {}", names.join(", ")),
    };
    StepError::invalid(format!("there is no tool `{name}`")).help(help)
}
