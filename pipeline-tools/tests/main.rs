//! Tests of the tools through their public API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;
mod builtin;
mod registry;
mod hazards;
