//! What fuzzers start in this crate: the readers of journals, tapes and sessions.
//!
//! Owns [`journal`] and [`tape`]. A checksum keeps random bytes out, so each input is read twice: as it is, and with its lines as
//! payloads in a chain that is right. Only in tests, and in builds for fuzzers (`--cfg fuzzing`). Must not know who makes the
//! bytes: `fuzz/` at the top of the repository does, and its stored inputs are replayed below.

#![allow(clippy::expect_used, reason = "a fuzzer sees what is wrong by a panic")]

use std::path::Path;

use pipeline_core::redact::Redactor;
use pipeline_core::tape::Tape;
use pipeline_core::value::Hash;

use crate::line::{self, Head};
use crate::scan::{self, EntryRef};
use crate::session_record::Stored;
use crate::tape::FileTape;

const PATH: &str = "fuzz.log";

/// The JSON of a line: what stands behind its five fields, or all of it where there are none.
fn payload(line: &[u8]) -> &[u8] {
    let json = line.iter().position(|byte| *byte == b'{').unwrap_or(0);
    &line[json..]
}

/// Lines as a chain behind `first`, whose checksum is `crc`.
fn chained((mut bytes, mut crc): (Vec<u8>, u32), lines: &[u8]) -> Vec<u8> {
    for (seq, line) in (0..).zip(lines.split(|byte| *byte == b'\n')) {
        if let Some(next) = line::encode(&mut bytes, crc, seq, 1, payload(line)) {
            crc = next;
        }
    }
    bytes
}

/// Any bytes as a journal.
///
/// # Panics
/// When what is read is not a prefix that reads the same again, or a record is not written as it was read.
pub fn journal(bytes: &[u8]) {
    read_journal(bytes);
    let hash = Hash::of_bytes(b"");
    let head = Head { run_id: "r".to_owned(), manifest: hash, sources: hash };
    let first = line::encode_head(&head).expect("a head is JSON");
    read_journal(&chained(first, bytes));
}

fn read_journal(bytes: &[u8]) {
    let path = Path::new(PATH);
    let Ok(found) = scan::scan(path, bytes) else { return };
    let length = usize::try_from(found.end.length).expect("a journal in memory");
    assert_eq!(found.torn.is_some(), length < bytes.len(), "what is dropped is told");
    let again = scan::scan(path, &bytes[..length]).expect("what was good stays good");
    assert_eq!((again.end, again.entries.len()), (found.end, found.entries.len()));
    for entry in &found.entries {
        let written = serde_json::to_vec(&EntryRef { record: &entry.record, blobs: &entry.blobs });
        let written = written.expect("a record is JSON");
        let read: scan::Entry = serde_json::from_slice(&written).expect("a record that was written is read");
        assert_eq!((&read.record, &read.blobs), (&entry.record, &entry.blobs));
        let _ = entry.record.completion();
    }
}

/// Any bytes as a tape, and as a session.
///
/// # Panics
/// When reading does.
pub fn tape(bytes: &[u8]) {
    read_tape(bytes);
    for magic in [("pipeline-tape", 2), ("pipeline-session", 1)] {
        let kind = line::Kind { magic: magic.0, format: magic.1 };
        // The head of either kind.
        let head = serde_json::json!({"program": "0", "name": "n"});
        let first = line::encode_first(kind, &head).expect("a head is JSON");
        read_tape(&chained(first, bytes));
    }
}

fn read_tape(bytes: &[u8]) {
    let path = Path::new(PATH);
    if let Ok((tape, _)) = FileTape::of_bytes(path, bytes, Redactor::default()) {
        let moments = tape.moments();
        assert!(moments.is_sorted_by_key(|moment| moment.index), "moments are in order");
    }
    let _ = Stored::read("n", path, bytes);
}

#[cfg(test)]
mod tests {
    use pipeline_core::conformance::corpus::replay;

    /// Naive: what follows a right checksum is believed.
    #[test]
    fn t10_stored_journals_are_read_or_refused() {
        replay("T10", "journal", super::journal);
    }

    /// Naive: what follows a right checksum is believed.
    #[test]
    fn t10_stored_tapes_are_read_or_refused() {
        replay("T10", "tape", super::tape);
    }
}
