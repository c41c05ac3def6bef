//! Backends that answer prompts: implementations of pipeline-core's `Provider`.
//!
//! Owns the scripted mock, the stand-in for a backend without a credential, and the list that a composition root
//! registers. Must not know steps, the engine or the environment: whoever builds a provider hands in what it needs.
//! Next: `mock.rs`.
//!
//! # A provider of one's own
//!
//! ```
#![doc = include_str!("../examples/define_a_provider.rs")]
//! ```

#![allow(
    clippy::result_large_err,
    reason = "the traits return StepError as it is, and a failed call is rare next to what it waits for"
)]

// Declaration order is reading order: from leaf to root.
mod backend;
mod secret;
mod prices;
mod unavailable;
mod claude_cli;
mod rate;
mod governed;
mod broken;
mod limited;
#[cfg(feature = "http")]
mod http;
mod mock;
#[cfg(feature = "mock-server")]
mod server;
mod catalog;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

pub use backend::kinds;
pub use broken::{Broken, CircuitSettings, Circuits};
pub use catalog::{mock_for, mocks};
pub use claude_cli::{ClaudeCli, ClaudeCliSettings};
pub use governed::Governed;
#[cfg(feature = "http")]
pub use http::{BatchEntry, Credential, HttpProvider, HttpSettings, Transport, vendor_url};
pub use limited::Limited;
pub use mock::{MockProvider, MockRules};
pub use prices::PriceTable;
pub use rate::{Account, Permit, RateSignals, Rates, Want, Window};
pub use secret::Secret;
#[cfg(feature = "mock-server")]
pub use server::{MockServer, MockServerOptions};
pub use unavailable::Unavailable;
