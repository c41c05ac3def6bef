//! The commands, one file each.
//!
//! A command returns how the program ends, or a [`crate::exit::Failure`] that `app.rs` tells of.
//! `work.rs` is what `run` and `resume` share.

mod ask;
mod retire;
mod reuse;
pub mod schema;
mod reference;
pub mod bench;
pub mod check;
pub mod consent;
pub mod detach;
pub mod doctor;
pub mod explain;
pub mod generate;
pub mod graph;
#[cfg(feature = "mock-server")]
pub mod mock_server;
pub mod make;
pub mod migrate;
pub mod plan;
pub mod report;
pub mod resume;
pub mod run;
pub mod runs;
pub mod sessions;
pub mod test;
pub mod tools;
pub mod verify;
pub mod work;
