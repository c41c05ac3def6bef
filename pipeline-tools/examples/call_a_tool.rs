//! A registry of tools without a pipeline: `cargo run -p pipeline-tools --example call_a_tool`.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::catalog::Services;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSource, ToolSpec};
use pipeline_core::value::Value;
use pipeline_tools::Registry;
use serde_json::json;

struct Double;

#[async_trait]
impl Tool for Double {
    fn spec(&self) -> ToolSpec {
        let parameters = json!({ "properties": { "n": { "type": "integer" } }, "required": ["n"] });
        ToolSpec { name: "double".to_owned(), description: "Twice as much.".to_owned(), parameters }
    }

    async fn call(&self, arguments: Value, _: &StepContext) -> Result<ToolOutput, StepError> {
        let data = json!(arguments["n"].as_i64().unwrap_or(0) * 2);
        Ok(ToolOutput { content: data.to_string(), data })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::with_builtins();
    registry.register(Arc::new(Double))?;

    let cx = StepContext::detached(Services::default());
    let double = registry.get("double").ok_or("it was just registered")?;
    assert_eq!(double.call(json!({ "n": 21 }), &cx).await?.data, 42);

    // Arguments are checked against the schema before the tool sees them.
    let refused = double.call(json!({ "n": "many" }), &cx).await.err().map(|error| error.kind);
    assert_eq!(refused, Some(ErrorKind::Invalid));
    Ok(())
}
