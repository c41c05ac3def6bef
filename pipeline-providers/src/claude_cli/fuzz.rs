//! What a fuzzer starts: the lines of the agent CLI and the verdict on them.
//!
//! Owns [`claude_stream`]. Must not start a process.

use std::process::ExitStatus;

use pipeline_core::clock::Timestamp;
use pipeline_core::fact::Usage;

use super::line::{self, Line};
use super::stream::Progress;
use super::verdict::{Ended, Told};

/// Any bytes as what the CLI printed, with each of four ends.
///
/// # Panics
/// When an error has no words, or a bill gives something back.
pub fn claude_stream(bytes: &[u8]) {
    for (code, schema) in [(0, false), (0, true), (1, false), (9, true)] {
        let (mut told, mut progress, mut torn) = (Told::default(), Progress::default(), false);
        for bytes in bytes.split(|byte| *byte == b'\n') {
            let Some(lines) = line::read(bytes) else {
                torn = true;
                continue;
            };
            for line in lines {
                if let Line::Usage { id, usage } = &line {
                    let _ = progress.hear(id.is_some(), usage).tokens();
                }
                told.hear(line);
            }
        }
        let stderr = String::from_utf8_lossy(bytes);
        let ended = Ended { status: status(code), stderr: &stderr, torn };
        match told.verdict(&ended, schema, Timestamp(1_704_153_600_000)) {
            Ok(answer) => check(&answer.usage),
            Err(error) => {
                assert!(!error.message.is_empty(), "refused without a word");
                error.usage.as_deref().into_iter().for_each(check);
            }
        }
    }
}

fn check(usage: &Usage) {
    assert!(usage.tokens() >= usage.output, "a sum is smaller than its part");
    assert!(usage.cost_usd.is_none_or(|cost| cost >= 0.0), "it costs less than nothing");
}

#[cfg(unix)]
fn status(code: i32) -> ExitStatus {
    // The low byte is a signal, the next an exit code.
    std::os::unix::process::ExitStatusExt::from_raw(if code == 9 { code } else { code << 8 })
}

#[cfg(not(unix))]
fn status(_code: i32) -> ExitStatus {
    ExitStatus::default()
}
