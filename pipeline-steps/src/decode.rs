//! From a rendered configuration to the struct that a step works with.
//!
//! Owns [`decode`]. Must not know any step.

use pipeline_core::error::StepError;
use pipeline_core::step::StepContext;
use pipeline_core::value::Value;
use serde::de::DeserializeOwned;

/// Reads a step's rendered configuration.
///
/// # Errors
/// `Invalid` when a template gave a value that its field cannot take: constants were checked by the compiler.
pub(crate) fn decode<T: DeserializeOwned>(cx: &StepContext, with: Value) -> Result<T, StepError> {
    serde_json::from_value(with).map_err(|error| {
        StepError::invalid(format!("the configuration of `{}` does not fit: {error}", cx.key.path))
            .help("look at what the `{{ … }}` of this step give")
    })
}
