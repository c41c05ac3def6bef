//! The stores as their callers see them, and the bytes on disk as a crash leaves them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod embedding;
mod support;

mod conformance;
mod damage;
mod golden;
mod growth;
mod listing;
mod ownership;
#[cfg(target_os = "linux")]
mod power;
mod reliability;
mod sessions;
mod tapes;
mod torn;
