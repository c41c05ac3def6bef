//! Suites that an implementation of a core trait runs in its own tests.
//!
//! Owns one suite per trait: what the trait's documentation promises, as checks; how trials are counted and told, in `trials.rs`;
//! and how stored inputs of fuzzers are tried again, in `corpus.rs`. Must not know any implementation, and nothing that only one of
//! them can do.

pub mod trials;
pub mod corpus;
pub mod session;
pub mod snapshot;
pub mod store;

pub use session::session_store;
pub use snapshot::snapshot_store;
pub use store::checkpoint_store;
