//! The leaf steps of `pipeline`: what a pipeline can do beside control flow.
//!
//! Owns the step types and [`plain`], which lists those that need nothing but their context. Must not know the engine, the
//! compiler or any vendor. Reading order: `decode.rs`, then one file per step; `confine.rs` before `file_ops.rs`.

pub mod confine;
mod decode;
mod test_echo;
mod set_variable;
mod file_ops;
mod data_transform;

use std::sync::Arc;

use pipeline_core::step::Step;

/// The steps that need no service of their own: `test_echo`, `set_variable`, `file_ops`, `data_transform`.
pub fn plain() -> Vec<Arc<dyn Step>> {
    vec![
        Arc::new(test_echo::TestEcho),
        Arc::new(set_variable::SetVariable),
        Arc::new(file_ops::FileOps),
        Arc::new(data_transform::DataTransform),
    ]
}
