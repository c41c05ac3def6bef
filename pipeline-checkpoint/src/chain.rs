//! Chained files beside the journal: sessions and tapes.
//!
//! Owns the reading and extending of a file of chained lines whose first line and first record are written together: what
//! ends in its first line was never acknowledged and is no file yet. The rules of torn and damaged are the journal's. Must not
//! know what records mean. The lines themselves: `line.rs`.

use std::path::Path;

use pipeline_core::store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk;
use crate::line::{self, HeadError, Kind};

/// Chained files have one writer at a time, which a lock keeps; lines have the journal's field all the same.
const EPOCH: u64 = 1;

/// Where the next record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    /// Bytes of good lines.
    pub(crate) length: u64,
    /// Checksum of the last good line.
    pub(crate) crc: u32,
    /// Position of the next record.
    pub(crate) seq: u64,
}

/// What was read of a chained file.
pub(crate) struct Chain<H> {
    /// Its first line.
    pub(crate) head: H,
    /// Where it ends.
    pub(crate) end: ChainEnd,
    /// Whether there are bytes after that, which were never acknowledged.
    pub(crate) is_torn: bool,
}

/// Reads a chained file and gives each record's JSON to `each`. `None` = nothing in it was ever acknowledged.
pub(crate) fn read<H: DeserializeOwned>(
    kind: Kind,
    path: &Path,
    bytes: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<Option<Chain<H>>, StoreError> {
    // A power cut can leave zeros where data was to be; JSON has none.
    let text = &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)];
    let Some(first) = text.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let (head, crc) = line::decode_first(kind, &text[..first]).map_err(|error| match error {
        HeadError::Newer(found) => StoreError::Newer { path: path.to_owned(), found, supported: kind.format },
        HeadError::Damaged(message) => disk::damaged(path, message),
    })?;
    let mut end = ChainEnd { length: 0, crc, seq: 0 };
    let mut at = first + 1;
    let broken = |at: usize, message: String| StoreError::Damaged {
        path: path.to_owned(),
        offset: at as u64,
        message,
    };
    while at < text.len() {
        let rest = &text[at..];
        let line_end = rest.iter().position(|byte| *byte == b'\n');
        let chunk = &rest[..line_end.unwrap_or(rest.len())];
        let is_last = line_end.is_none_or(|end| end + 1 == rest.len());
        let decoded = if line_end.is_some() { line::decode(chunk) } else { Err("it has no end".to_owned()) };
        match decoded {
            Ok(frame) => {
                if frame.seq != end.seq || frame.prev != end.crc {
                    return Err(broken(
                        at,
                        format!("record {} does not follow the line before it", frame.seq),
                    ));
                }
                each(frame.payload).map_err(|message| {
                    broken(at, format!("record {} is not understood: {message}", frame.seq))
                })?;
                end = ChainEnd { length: 0, crc: frame.crc, seq: frame.seq + 1 };
                at += chunk.len() + 1;
            }
            Err(_) if is_last && !line::hides_more(chunk) => break,
            Err(message) => return Err(broken(at, message)),
        }
    }
    if end.seq == 0 {
        // The first line and the first record are one write.
        return Ok(None);
    }
    end.length = at as u64;
    Ok(Some(Chain { head, end, is_torn: at < bytes.len() }))
}

/// The bytes that add a record at `end`, with `head` before it where the file is empty, and the end after them.
pub(crate) fn extend(
    kind: Kind,
    head: &impl Serialize,
    end: Option<ChainEnd>,
    payload: &[u8],
) -> Result<(Vec<u8>, ChainEnd), String> {
    let (mut bytes, end) = match end {
        Some(end) => (Vec::with_capacity(payload.len() + 64), end),
        None => {
            let (bytes, crc) = line::encode_first(kind, head).map_err(|error| error.to_string())?;
            (bytes, ChainEnd { length: 0, crc, seq: 0 })
        }
    };
    let crc = line::encode(&mut bytes, end.crc, end.seq, EPOCH, payload)
        .ok_or("a record must be smaller than 4 GiB")?;
    let length = end.length + bytes.len() as u64;
    Ok((bytes, ChainEnd { length, crc, seq: end.seq + 1 }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    const KIND: Kind = Kind { magic: "pipeline-test", format: 1 };

    /// The payloads, where the good lines end, and whether anything stands behind.
    type All = Option<(Vec<Vec<u8>>, u64, bool)>;

    fn read_all(bytes: &[u8]) -> Result<All, StoreError> {
        let mut all = Vec::new();
        let chain = read::<serde_json::Value>(KIND, Path::new("c.log"), bytes, |payload| {
            all.push(payload.to_vec());
            Ok(())
        })?;
        Ok(chain.map(|chain| (all, chain.end.length, chain.is_torn)))
    }

    #[test]
    fn only_the_last_line_can_be_torn() {
        let (mut bytes, mut end, mut starts) = (Vec::new(), None, Vec::new());
        for payload in [b"0", b"1", b"2"] {
            let (more, next) = extend(KIND, &json!({}), end, payload).unwrap();
            starts.push(bytes.len());
            bytes.extend(more);
            end = Some(next);
        }
        let length = bytes.len() as u64;
        assert_eq!(end.unwrap().length, length);
        let payloads =
            |count: usize| [b"0", b"1", b"2"][..count].iter().map(|p| p.to_vec()).collect::<Vec<_>>();
        assert_eq!(read_all(&bytes).unwrap(), Some((payloads(3), length, false)));
        let zeros = [&bytes[..], &[0; 8]].concat();
        assert_eq!(read_all(&zeros).unwrap(), Some((payloads(3), length, true)));
        let mut torn = bytes.clone();
        let last = torn.len() - 2;
        torn[last] ^= 1;
        assert_eq!(
            read_all(&torn).unwrap(),
            Some((payloads(2), starts[2] as u64, true)),
            "with its line end"
        );
        let mut damaged = bytes.clone();
        damaged[starts[2] - 2] ^= 1;
        let refused = read_all(&damaged);
        assert!(matches!(refused, Err(StoreError::Damaged { offset, .. }) if offset == starts[1] as u64));
    }
}
