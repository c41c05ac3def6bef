//! Tests of the providers through their public API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::result_large_err, reason = "as in the crate itself")]

#[macro_use]
mod table;
mod support;
mod instance;
mod mock;
mod rules;
mod hazards;
mod claude;
mod layers;
#[cfg(all(feature = "http", feature = "mock-server"))]
mod http;
