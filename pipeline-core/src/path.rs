//! Addresses of step instances.
//!
//! Owns [`StepPath`] (`review/files[3]/analyze`: names joined by `/`, `[i]` per item or turn) and [`OpKey`], a path
//! with the number of a logical attempt. Both are stable across resume.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The structural address of one step instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepPath(Arc<str>);

impl StepPath {
    /// The address of the run itself.
    pub fn root() -> Self {
        Self("".into())
    }

    /// The address of the step `name` inside this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.into()) } else { Self(format!("{}/{name}", self.0).into()) }
    }

    /// The address of item or turn `index` of this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0).into())
    }

    /// Whether it is `place` or something below it.
    pub fn is_within(&self, place: &Self) -> bool {
        place.0.is_empty()
            || self
                .0
                .strip_prefix(&*place.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
    }

    /// Whether it is the run itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for StepPath {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of one operation: a step instance and the number of its logical attempt, from 1.
///
/// A logical attempt that a crash cut off runs again under the same key, as a new *physical* attempt: so a crash
/// never uses up `max_attempts`. Shown as `path#2`; a retry's waiting time is `path#2~wait`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpKey {
    /// Which step instance.
    pub path: StepPath,
    /// Which logical attempt, from 1.
    pub turn: u32,
    /// What the operation is for.
    pub role: OpRole,
}

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpRole {
    /// The attempt itself.
    Attempt,
    /// The wait before attempt `turn`.
    Wait,
    /// The deadline of a control form, or of the run.
    Deadline,
    /// The wait until an account may be used again.
    Park,
}

impl fmt::Display for OpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.path, self.turn)?;
        match self.role {
            OpRole::Attempt => Ok(()),
            OpRole::Wait => f.write_str("~wait"),
            OpRole::Deadline => f.write_str("~deadline"),
            OpRole::Park => f.write_str("~park"),
        }
    }
}
