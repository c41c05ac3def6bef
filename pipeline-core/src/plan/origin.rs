//! Where the effective values of a step came from.
//!
//! Owns [`Origin`]: data that the compiler writes and people read (`pipeline plan`). Nothing that runs looks at it.

use crate::diagnostic::Span;
use crate::value::Value;

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The step, or the fan-out that it is a task of.
    Step,
    /// `defaults` of the workflow, or of one around it.
    Defaults,
    /// `environment` of the workflow.
    Environment,
    /// The preset that the step or its defaults name.
    Preset,
    /// Nobody: the program's own default.
    BuiltIn,
}

impl Source {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Defaults => "defaults",
            Self::Environment => "environment",
            Self::Preset => "preset",
            Self::BuiltIn => "built-in",
        }
    }
}

/// One effective value of a step, and where it came from.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Origin {
    /// Path of the key: `timeout`, `retry.max_attempts`, `options.max_turns`.
    pub key: String,
    /// The value as written, templates unrendered; `None` when it is longer than a line.
    pub value: Option<Value>,
    /// Who said it.
    pub source: Source,
    /// Where it stands; `None` for what is built in.
    pub span: Option<Span>,
}
