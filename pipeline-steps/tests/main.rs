//! Integration tests of the leaf steps, each run by the real compiler and engine. They must not reach a network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod plain_support;
mod plain_echo;
mod plain_files;
mod plain_transform;
