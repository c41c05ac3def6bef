//! Tools that pipelines and models may call: implementations of pipeline-core's `Tool` and `ToolSource`.
//!
//! Owns the registry, the tools that are always there, commands and MCP servers as tools, and the hooks around calls. Must not know steps, providers or the engine.
//! Next: `registry.rs`.
//!
//! # A registry without a pipeline
//!
//! ```
#![doc = include_str!("../examples/call_a_tool.rs")]
//! ```

#![allow(
    clippy::result_large_err,
    reason = "the traits return StepError as it is, and a failed call is rare next to what it waits for"
)]

// Declaration order is reading order: from leaf to root.
mod written;
mod decode;
mod hook;
mod checked;
mod builtin;
mod files;
mod query;
mod command;
#[cfg(any(feature = "http", feature = "mcp"))]
mod client;
#[cfg(feature = "http")]
mod address;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "mcp")]
mod stderr;
#[cfg(feature = "mcp")]
mod mcp;
mod registry;

pub use builtin::{Calculator, TextStats};
pub use command::Shell;
pub use files::{ListFiles, ReadFile, WriteFile};
#[cfg(feature = "http")]
pub use http::{HttpGet, WanIp};
pub use query::{Jq, ParseJson};
pub use registry::{DuplicateTool, Registry};
pub use written::{Secrets, Written};
