//! Tests of the providers through their public API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;
mod instance;
mod mock;
mod rules;
mod hazards;
