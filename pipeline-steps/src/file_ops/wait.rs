//! The operation `wait`: until files are there, or gone.
//!
//! Owns the polling. Must not read the files.

use std::io;
use std::path::Path;
use std::time::Duration;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use serde_json::json;

use super::select::{Pattern, is_glob, split_glob, walk};
use super::{Config, Done, Operation, missing, open, trouble};
use crate::confine::Roots;

/// How often it looks.
const POLL: Duration = Duration::from_millis(100);

/// Waits until every path is there (or gone), at most `max_wait`.
pub(super) async fn wait(cx: &StepContext, config: &Config) -> Result<Done, StepError> {
    let texts = config.path.as_ref().ok_or_else(|| missing(Operation::Wait, "path"))?.texts();
    let roots = Roots::read(cx);
    let limit = config.max_wait.map(Duration::from_secs_f64);
    let start = tokio::time::Instant::now();
    let until = limit.map_or(cx.deadline, |limit| cx.deadline.min(start + limit));
    loop {
        let mut open = Vec::new();
        for text in &texts {
            if is_there(cx, &roots, text).await? == config.gone {
                open.push(*text);
            }
        }
        if open.is_empty() {
            let count = texts.len();
            let value =
                json!({"operation": "wait", "path": config.path, "gone": config.gone, "count": count});
            return Ok(Done { value, warnings: Vec::new() });
        }
        if tokio::time::Instant::now() + POLL > until {
            let state = if config.gone { "still there" } else { "not there" };
            let given = (until.saturating_duration_since(start).as_secs_f64() * 100.0).round() / 100.0;
            let message = format!("`{}` is {state} after {given} s", open.join("`, `"));
            return Err(
                StepError::new(ErrorKind::TimedOut, message).help("give it a longer `max_wait` or `timeout`")
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn is_there(cx: &StepContext, roots: &Roots, text: &str) -> Result<bool, StepError> {
    if is_glob(text) {
        let (base, pattern) = split_glob(text);
        let recursive = pattern.contains("**") || pattern.contains('/');
        return match walk(cx, roots, Path::new(base), &Pattern::new(pattern)?, recursive).await {
            Ok(found) => Ok(!found.files.is_empty()),
            Err(error) if error.kind == ErrorKind::Environment => Ok(false),
            Err(error) => Err(error),
        };
    }
    let path = Path::new(text);
    let (dir, below) = open(cx, roots, path)?;
    match dir.metadata(below) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(trouble("look at", path, &error)),
    }
}
