//! The leaf steps of `pipeline`, and what they share: the file cache, confined paths, output files.
//!
//! Owns every step type that has an effect or computes a value. Must not know how steps are ordered, retried or
//! recorded (pipeline-core does that), nor any vendor or transport. Reading order: `test_echo.rs` (the smallest
//! step), `confine.rs` before `file_ops.rs`.
//!
//! # A pipeline without YAML
//!
//! ```
#![doc = include_str!("../examples/build_in_code.rs")]
//! ```
//!
//! # Watching a run
//!
//! ```
#![doc = include_str!("../examples/subscribe_to_events.rs")]
//! ```

pub mod atomic;
pub mod confine;
pub mod file_cache;
pub mod outputs;
mod test_echo;
mod set_variable;
mod file_ops;
mod data_transform;
#[cfg(feature = "code")]
mod codebase_query;
mod shell;
mod tool;
mod checkpoint;
pub mod prompt;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod escapes;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

use std::sync::Arc;

use pipeline_core::step::Step;

pub use file_cache::FileCache;
pub use outputs::OutputFiles;

/// Every built-in step type. `files` is shared by all steps that read files, so that a file is read once.
pub fn builtin(files: Arc<FileCache>) -> Vec<Arc<dyn Step>> {
    vec![
        Arc::new(test_echo::TestEcho),
        Arc::new(set_variable::SetVariable),
        Arc::new(file_ops::FileOps),
        Arc::new(data_transform::DataTransform),
        #[cfg(feature = "code")]
        Arc::new(codebase_query::CodebaseQuery),
        Arc::new(shell::Shell),
        Arc::new(tool::ToolStep),
        Arc::new(checkpoint::Checkpoint),
        Arc::new(prompt::Prompt::new(files)),
    ]
}
