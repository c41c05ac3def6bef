//! The contract between the engine and tools.
//!
//! Owns [`Tool`] and [`ToolSource`]. A tool is called with JSON arguments that fit its schema.
//! Must not know any tool or transport. Next: pipeline-tools, which has the registry.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::StepError;
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
pub trait ToolSource: Send + Sync {
    /// The tool of that name.
    fn get(&self, name: &str) -> Option<Arc<dyn Tool>>;

    /// Every tool's spec, ordered by name.
    fn list(&self) -> Vec<ToolSpec>;
}
