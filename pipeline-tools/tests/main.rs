//! Tests of the tools through their public API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::result_large_err, reason = "as in the crate itself")]

mod support;
mod builtin;
mod registry;
mod hazards;
mod tools;
#[cfg(feature = "mcp")]
mod mcp;
#[cfg(feature = "mcp")]
mod mcp_http;
