//! What a fuzzer starts: any words as a command line.
//!
//! Owns [`command_line`]. The fuzzer has the folder of this file as a module of its own, since the program is no library. Must not
//! do what a command line asks for.

use std::ffi::OsString;

use clap::Parser;

use super::Cli;

/// Any lines as the words of a command line.
///
/// # Panics
/// When a refusal has no words.
pub fn command_line(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == b'\n').map(word);
    if let Err(refused) = Cli::try_parse_from(std::iter::once("pipeline".into()).chain(words)) {
        assert!(!refused.render().to_string().is_empty(), "refused without a word");
    }
}

#[cfg(unix)]
fn word(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn word(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    /// Naive: arguments are text.
    #[test]
    fn t10_stored_command_lines_are_read_or_refused() {
        pipeline_core::conformance::corpus::replay("T10", "command_line", super::command_line);
    }
}
