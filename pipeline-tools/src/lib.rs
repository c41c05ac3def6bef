//! Tools that pipelines and models may call: implementations of pipeline-core's `Tool` and `ToolSource`.
//!
//! Owns the registry and the tools that are always there. Must not know steps, providers or the engine.
//! Next: `registry.rs`.

#![allow(
    clippy::result_large_err,
    reason = "the traits return StepError as it is, and a failed call is rare next to what it waits for"
)]

// Declaration order is reading order: from leaf to root.
mod checked;
mod builtin;
mod registry;

pub use builtin::{Calculator, TextStats};
pub use registry::{DuplicateTool, Registry};
