//! The core of `pipeline`: the language, the schedule and the engine.
//!
//! Text goes in at one end, facts come out at the other:
//! YAML → [`document`] → [`normalise`] → [`plan`] → [`schedule`] ⇄ [`engine`] → [`fact`]s.
//! The crate knows no HTTP, files, vendors, terminals or environment variables: they come in through the traits of
//! [`step`], [`provider`], [`tool`], [`store`], [`source`], [`event`] and [`clock`].
//!
//! # A step type of one's own, in a run
//!
//! ```
#![doc = include_str!("../examples/define_a_step.rs")]
//! ```

// Declaration order is reading order: from leaf to root; a module uses only what stands above it.
#[doc(hidden)]
pub mod planted;
pub mod sync;
mod stack;
pub mod codes;
pub mod diagnostic;
pub mod source;
pub mod value;
pub mod usage;
pub mod error;
pub mod redact;
pub mod path;
pub mod process;
pub mod resources;
pub mod clock;
pub mod service;
pub mod document;
pub mod expr;
pub mod fact;
pub mod event;
pub mod message;
pub mod store;
pub mod tape;
pub mod step;
pub mod provider;
pub mod tool;
pub mod catalog;
pub mod normalise;
pub mod plan;
pub mod builder;
pub mod schedule;
pub mod engine;
pub mod runner;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
