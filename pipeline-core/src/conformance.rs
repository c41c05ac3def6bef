//! Suites that an implementation of a core trait runs in its own tests.
//!
//! Owns one suite per trait: what the trait's documentation promises, as checks. Must not know any implementation, and
//! nothing that only one of them can do.

pub mod store;

pub use store::checkpoint_store;
