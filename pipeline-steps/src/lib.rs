//! The built-in leaf steps, and what they share: the file cache, confined paths, output files.
//!
//! Owns every step type that has an effect or computes a value. Must not know how steps are ordered, retried or
//! recorded (pipeline-core does that), nor any vendor or transport (pipeline-providers and pipeline-tools do).

use std::sync::Arc;

use pipeline_core::step::Step;

pub mod atomic;
pub mod confine;
pub mod file_cache;
pub mod outputs;
pub mod prompt;

#[cfg(test)]
mod fixture;

pub use file_cache::FileCache;
pub use outputs::OutputFiles;

/// Every built-in step type. `files` is shared by all steps that read files, so that a file is read once.
pub fn builtin(files: Arc<FileCache>) -> Vec<Arc<dyn Step>> {
    vec![Arc::new(prompt::Prompt::new(files))]
}
