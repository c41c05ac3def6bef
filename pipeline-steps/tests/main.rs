//! Integration tests of the leaf steps, each run by the real compiler and engine. They must not reach a network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod plain {
    mod support;
    mod echo;
    #[cfg(feature = "code")]
    mod code;
    mod files;
    mod transform;
    mod shell;
    mod checkpoint;
    mod convert;
    mod moves;
    mod canaries;
    mod embedding;
}
