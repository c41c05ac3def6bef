//! jq programs, run where they can do no harm.
//!
//! Owns [`ChildJq`], the host's side: this binary starts itself with the hidden argument [`ARGUMENT`], an empty environment and
//! limits on memory and processor time, and ends it at the deadline. A jq program may end, overflow or occupy the process
//! that runs it, so it never runs in this one. Must not know data_transform. Next: `jq/child.rs`, the other side.

mod child;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::process::{Command, Finished, ended_by};
use pipeline_core::store::JqHost;
use pipeline_core::value::Value;
use serde_json::json;

pub use child::serve;

/// The first argument that makes this program a jq child.
pub const ARGUMENT: &str = "__jq";

/// How long a program may take when the step has no nearer deadline.
const LONGEST: Duration = Duration::from_secs(60);

/// Bytes that a program may print.
const MOST_OUTPUT: usize = 256 << 20;

/// Starts a child of this binary for each program.
pub struct ChildJq {
    program: PathBuf,
}

impl ChildJq {
    /// The host; `None` when this program cannot tell where it lies, and so cannot start itself.
    pub fn of_this_program() -> Option<Self> {
        std::env::current_exe().ok().map(|program| Self { program })
    }
}

#[async_trait]
impl JqHost for ChildJq {
    async fn run(
        &self,
        program: &str,
        input: &Value,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<Value>, StepError> {
        let deadline = deadline.min(tokio::time::Instant::now() + LONGEST);
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let seconds = left.as_secs() + 1;
        let broken = |error: serde_json::Error| StepError::new(ErrorKind::Internal, error.to_string());
        let mut request = serde_json::to_vec(program).map_err(broken)?;
        request.push(b'\n');
        serde_json::to_writer(&mut request, input).map_err(broken)?;
        #[expect(clippy::disallowed_methods, reason = "this program itself, which reaches for nothing")]
        let command = Command::new(&self.program, [ARGUMENT.to_owned(), seconds.to_string()]);
        let finished = command.run(&request, MOST_OUTPUT, deadline).await.map_err(|error| {
            if error.kind == ErrorKind::TimedOut {
                return too_long(left);
            }
            error
        })?;
        outputs(&finished, left)
    }
}

fn too_long(limit: Duration) -> StepError {
    StepError::new(ErrorKind::TimedOut, format!("the jq program did not end within {limit:.0?}"))
        .help("look for `repeat`, `range` and recursion without an end, or give it fewer rows")
}

/// What the child told, or what its end means.
fn outputs(finished: &Finished, limit: Duration) -> Result<Vec<Value>, StepError> {
    let mut values = Vec::new();
    for line in finished.stdout.split(|b| *b == b'\n') {
        let (kind, rest) = line.split_first().unwrap_or((&b' ', b""));
        match kind {
            b'v' if finished.is_cut => {}
            b'v' => values.push(serde_json::from_slice(rest).map_err(|_| {
                StepError::invalid(format!("output {} of the jq program is not JSON", values.len() + 1))
                    .help("numbers such as `nan` and `infinite` and keys that are not text cannot be stored")
            })?),
            b'e' => return Err(told(rest)),
            b'.' if !finished.is_cut => return Ok(values),
            _ => {}
        }
    }
    if finished.is_cut {
        let message = format!("the jq program gives more than {} MiB", MOST_OUTPUT >> 20);
        return Err(StepError::new(ErrorKind::TooLarge, message).help("select or limit in the program"));
    }
    Err(died(finished, limit))
}

/// An error that the child found words for.
fn told(text: &[u8]) -> StepError {
    #[derive(serde::Deserialize)]
    struct Told {
        message: String,
        offset: Option<usize>,
    }
    match serde_json::from_slice::<Told>(text) {
        Ok(told) => {
            let error = StepError::invalid(told.message);
            match told.offset {
                Some(offset) => error.details(json!({ "offset": offset })),
                None => error,
            }
        }
        Err(_) => StepError::new(ErrorKind::Internal, "the jq child spoke unclearly"),
    }
}

/// A child that ended without a last word was ended by a limit.
fn died(finished: &Finished, limit: Duration) -> StepError {
    let signal = ended_by(finished.status);
    #[cfg(unix)]
    if signal == Some(rustix::process::Signal::XCPU.as_raw()) {
        return too_long(limit);
    }
    #[cfg(not(unix))]
    let _ = limit;
    let stderr = String::from_utf8_lossy(&finished.stderr);
    let what = if stderr.contains("memory allocation") {
        format!("it needs more than {} MiB of memory", child::MOST_MEMORY >> 20)
    } else {
        "it recurses too deep or nests values too deep".to_owned()
    };
    StepError::new(ErrorKind::TooLarge, format!("the jq program was stopped: {what}"))
        .help("give it fewer rows, or do part of the work with the other operations")
        .details(json!({ "signal": signal, "exit_code": finished.status.code() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn ended(stdout: &str, raw_status: i32, is_cut: bool) -> Finished {
        let status = ExitStatus::from_raw(raw_status);
        Finished { status, stdout: stdout.into(), stderr: Vec::new(), is_cut }
    }

    #[test]
    fn only_a_last_word_makes_outputs_whole() {
        let of = |finished: &Finished| outputs(finished, LONGEST);
        assert_eq!(of(&ended("v1\nv[2]\n.\n", 0, false)).unwrap(), [json!(1), json!([2])]);
        assert_eq!(of(&ended("v1\n", 0, false)).unwrap_err().kind, ErrorKind::TooLarge);
        assert_eq!(of(&ended("v1\n", 24, false)).unwrap_err().kind, ErrorKind::TimedOut);
        assert_eq!(of(&ended("v1\nv[2", 0, true)).unwrap_err().kind, ErrorKind::TooLarge);
        assert_eq!(of(&ended("vNaN\n.\n", 0, false)).unwrap_err().kind, ErrorKind::Invalid);
    }
}
