//! What the tools of this crate share: arguments as structs, and specs.

use pipeline_core::error::StepError;
use pipeline_core::tool::ToolSpec;
use pipeline_core::value::Value;
use serde::de::DeserializeOwned;
use serde_json::json;

/// The registry has checked the arguments; a tool that is called without it still answers with an error.
pub(crate) fn decode<T: DeserializeOwned>(tool: &str, arguments: Value) -> Result<T, StepError> {
    serde_json::from_value(arguments)
        .map_err(|e| StepError::invalid(format!("the arguments of tool `{tool}` do not fit: {e}")))
}

/// A spec whose arguments are an object with these properties and no others.
pub(crate) fn spec(name: &str, description: &str, properties: Value, required: &[&str]) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        }),
    }
}
