//! A journal from its first byte to its last good one.
//!
//! Owns the rules of what is a torn tail (dropped: it was never acknowledged) and what is damage (refused, with the
//! offset), and the chain of lines. Must not know how a run's other files look. The lines themselves: `line.rs`.

use std::path::Path;

use pipeline_core::fact::Record;
use pipeline_core::planted::{Bug, planted};
use pipeline_core::store::StoreError;
use serde::{Deserialize, Serialize};

use crate::blob::Names;
use crate::disk;
use crate::line::{self, FORMAT, Frame, Head, HeadError};

/// A record as it stands in the journal: large values are named, not there.
#[derive(Deserialize)]
pub(crate) struct Entry {
    /// The record, with null for every value that is a blob.
    #[serde(flatten)]
    pub(crate) record: Record,
    /// Where the blobs belong.
    #[serde(default)]
    pub(crate) blobs: Names,
}

/// [`Entry`], for writing.
#[derive(Serialize)]
pub(crate) struct EntryRef<'a> {
    #[serde(flatten)]
    pub(crate) record: &'a Record,
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub(crate) blobs: &'a Names,
}

/// Where the next record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Bytes of good lines: the length that the file should have.
    pub(crate) length: u64,
    /// Checksum of the last good line.
    pub(crate) crc: u32,
    /// Position of the next record.
    pub(crate) seq: u64,
    /// Largest epoch so far, 0 for none.
    pub(crate) epoch: u64,
}

/// A journal that was read.
pub(crate) struct Scan {
    pub(crate) head: Head,
    pub(crate) entries: Vec<Entry>,
    pub(crate) end: End,
    /// What is to be cut off, for people.
    pub(crate) torn: Option<String>,
}

/// Reads a whole journal.
pub(crate) fn scan(path: &Path, bytes: &[u8]) -> Result<Scan, StoreError> {
    // A power cut can leave zeros where data was to be; JSON has none.
    let text = &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)];
    let first = text.iter().position(|byte| *byte == b'\n');
    let first = first.ok_or_else(|| disk::damaged(path, "the first line has no end"))?;
    let (head, crc) = line::decode_head(&text[..first]).map_err(|error| match error {
        HeadError::Newer(found) => StoreError::Newer { path: path.to_owned(), found, supported: FORMAT },
        HeadError::Damaged(message) => disk::damaged(path, message),
    })?;
    let mut scan =
        Scan { head, entries: Vec::new(), end: End { length: 0, crc, seq: 0, epoch: 0 }, torn: None };
    let mut at = first + 1;
    while at < text.len() {
        let rest = &text[at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let chunk = &rest[..end.unwrap_or(rest.len())];
        let is_last = end.is_none_or(|end| end + 1 == rest.len());
        let decoded = if end.is_some() { line::decode(chunk) } else { Err("it has no end".to_owned()) };
        match decoded {
            Ok(frame) => {
                let entry = link(&frame, &mut scan.end).map_err(|message| broken(path, at, message))?;
                scan.entries.push(entry);
                at += chunk.len() + 1;
            }
            Err(message) if is_last && !line::hides_more(chunk) => {
                scan.torn = Some(message);
                break;
            }
            Err(message) => return Err(broken(path, at, message)),
        }
    }
    scan.end.length = at as u64;
    let dropped = bytes.len() - at;
    if dropped > 0 {
        let why = scan
            .torn
            .take()
            .map_or_else(|| "only zeros".to_owned(), |why| format!("a last record, and {why}"));
        scan.torn = Some(format!(
            "the end of {} was cut off: {dropped} bytes from byte {at} on held {why}; the run goes on from record {}",
            path.display(),
            scan.end.seq,
        ));
    }
    Ok(scan)
}

/// Checks a good line's place in the chain. A line that is whole but out of place was not torn: somebody else wrote it.
fn link(frame: &Frame<'_>, end: &mut End) -> Result<Entry, String> {
    if frame.seq != end.seq {
        return Err(format!("record {} stands where record {} should be", frame.seq, end.seq));
    }
    if frame.prev != end.crc {
        return Err(format!("record {} does not follow the line before it", frame.seq));
    }
    if frame.epoch < end.epoch && !planted(Bug::NoOwner) {
        return Err(format!("record {} was written by an owner that had lost the run", frame.seq));
    }
    let entry: Entry = serde_json::from_slice(frame.payload)
        .map_err(|error| format!("record {} is not understood: {error}", frame.seq))?;
    if entry.record.index != frame.seq {
        return Err(format!("record {} says that it is record {}", frame.seq, entry.record.index));
    }
    *end = End { length: 0, crc: frame.crc, seq: frame.seq + 1, epoch: frame.epoch };
    Ok(entry)
}

fn broken(path: &Path, at: usize, message: String) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), offset: at as u64, message }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use pipeline_core::value::Hash;

    use super::*;

    /// Good lines with these epochs and payloads.
    fn journal(lines: &[(u64, String)]) -> Vec<u8> {
        let hash = Hash::of_bytes(b"");
        let head = Head { run_id: "r".to_owned(), manifest: hash, sources: hash };
        let (mut bytes, mut crc) = line::encode_head(&head).unwrap();
        for (seq, (epoch, payload)) in (0..).zip(lines) {
            crc = line::encode(&mut bytes, crc, seq, *epoch, payload.as_bytes()).unwrap();
        }
        bytes
    }

    fn skipped(index: u64) -> String {
        format!(
            r#"{{"index":{index},"at":"2023-11-14T22:13:20.000Z","elapsed_ms":1,"fact":"StepSkipped","path":"a","turn":1,"reason":"no"}}"#
        )
    }

    fn refusal(lines: &[(u64, String)]) -> String {
        scan(Path::new("journal.log"), &journal(lines)).map(|scan| scan.end).unwrap_err().to_string()
    }

    #[test]
    fn epochs_may_rise_and_never_fall() {
        let bytes = journal(&[(1, skipped(0)), (3, skipped(1)), (3, skipped(2))]);
        let scan = scan(Path::new("journal.log"), &bytes).unwrap();
        assert_eq!((scan.end.epoch, scan.end.seq, scan.end.length), (3, 3, bytes.len() as u64));
        let fallen = refusal(&[(1, skipped(0)), (3, skipped(1)), (2, skipped(2))]);
        assert!(fallen.contains("had lost the run"), "{fallen}");
    }

    #[test]
    fn a_whole_record_that_is_not_understood_is_never_dropped_as_torn() {
        let unknown = skipped(1).replace("StepSkipped", "StepSung");
        let told = refusal(&[(1, skipped(0)), (1, unknown)]);
        assert!(told.contains("record 1 is not understood") && told.contains("StepSung"), "{told}");
        let misplaced = refusal(&[(1, skipped(0)), (1, skipped(7))]);
        assert!(misplaced.contains("record 7"), "{misplaced}");
    }

    #[test]
    fn only_the_last_line_can_be_torn() {
        let whole = journal(&[(1, skipped(0)), (1, skipped(1)), (1, skipped(2))]);
        let read = |bytes: &[u8]| scan(Path::new("journal.log"), bytes);
        // The last sign before the line end of a record.
        let changed = |record: usize| {
            let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
            let mut bytes = whole.clone();
            bytes[ends[record + 1] - 1] ^= 1;
            (bytes, ends[record] + 1)
        };
        let (bytes, start) = changed(2);
        let torn = read(&bytes).unwrap();
        assert_eq!((torn.entries.len(), torn.end.length), (2, start as u64));
        assert!(torn.torn.unwrap().contains("from byte"));
        let (bytes, start) = changed(1);
        assert!(matches!(read(&bytes), Err(StoreError::Damaged { offset, .. }) if offset == start as u64));
        assert!(read(&whole).unwrap().torn.is_none());
    }

    #[test]
    fn an_unknown_field_is_ignored() {
        let newer = skipped(0).replace("\"turn\"", "\"colour\":\"red\",\"turn\"");
        let scan = scan(Path::new("journal.log"), &journal(&[(1, newer)])).unwrap();
        assert_eq!(scan.entries.len(), 1);
    }
}
