//! What fuzzers start in this crate: the readers of what services and agents say.
//!
//! Owns the list of them. Only in tests, and in builds for fuzzers (`--cfg fuzzing`). Must not know who makes the bytes: `fuzz/` at the top
//! of the repository does, and its stored inputs are replayed below.

pub use crate::claude_cli::fuzz::claude_stream;
#[cfg(feature = "http")]
pub use crate::http::fuzz::{answer, sse};

#[cfg(test)]
mod tests {
    use pipeline_core::conformance::corpus::replay;

    /// Naive: an agent prints what its page says.
    #[test]
    fn t10_stored_lines_of_agents_give_an_answer_or_an_error() {
        replay("T10", "claude_stream", super::claude_stream);
    }

    /// Naive: a buffer that is cut by positions of the piece before.
    #[cfg(feature = "http")]
    #[test]
    fn t10_stored_streams_give_the_same_events_in_any_pieces() {
        replay("T10", "sse", super::sse);
    }

    /// Naive: a service sends what its page says.
    #[cfg(feature = "http")]
    #[test]
    fn t10_stored_answers_of_services_are_read_or_refused() {
        replay("T10", "answer", super::answer);
    }
}
