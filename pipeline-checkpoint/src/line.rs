//! Lines of a chained file (a journal, a session, a tape) as bytes.
//!
//! Owns the form of the head line and of a record's line, and [`FORMAT`]. A line is accepted only in the one form in which it
//! is written: the checksum finds changes in what it covers, the comparison with the written form finds the rest (an upper
//! case digit, a tab for a space). Must not know files, chains of lines or facts.

use pipeline_core::planted::{Bug, planted};
use pipeline_core::value::Hash;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of everything in a run's directory that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What the first line of a chained file says that it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// The word after the checksum.
    pub(crate) magic: &'static str,
    /// The format that is written, and the newest that is read.
    pub(crate) format: u32,
}

/// The journal of a run.
const JOURNAL: Kind = Kind { magic: "pipeline-journal", format: FORMAT };

/// What the first line of a journal says: which run it belongs to, and the hashes of the files that never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The run.
    pub(crate) run_id: String,
    /// Hash of the bytes of `manifest.json`.
    pub(crate) manifest: Hash,
    /// Hash of the bytes of `source/index.json`.
    pub(crate) sources: Hash,
}

/// Why a head line was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It is whole, and of a newer format.
    Newer(u32),
    /// It is not what was written.
    Damaged(String),
}

/// One record's line, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Checksum of this line.
    pub(crate) crc: u32,
    /// Checksum of the line before.
    pub(crate) prev: u32,
    /// Position of the record, from 0.
    pub(crate) seq: u64,
    /// Which taking-over of the run wrote it, from 1.
    pub(crate) epoch: u64,
    /// The JSON.
    pub(crate) payload: &'a [u8],
}

/// The head line with its line end, and its checksum.
pub(crate) fn encode_head(head: &Head) -> Result<(Vec<u8>, u32), serde_json::Error> {
    encode_first(JOURNAL, head)
}

/// The first line of a file of that kind with its line end, and its checksum.
pub(crate) fn encode_first(kind: Kind, head: &impl Serialize) -> Result<(Vec<u8>, u32), serde_json::Error> {
    let mut rest = format!("{} {} ", kind.magic, kind.format).into_bytes();
    serde_json::to_writer(&mut rest, head)?;
    let crc = crc32fast::hash(&rest);
    let mut line = format!("{crc:08x} ").into_bytes();
    line.append(&mut rest);
    line.push(b'\n');
    Ok((line, crc))
}

/// Reads a head line without its line end.
pub(crate) fn decode_head(line: &[u8]) -> Result<(Head, u32), HeadError> {
    decode_first(JOURNAL, line)
}

/// Reads the first line of a file of that kind without its line end.
///
/// The form `crc magic format …` is the same in all formats, so that a newer file is told from a damaged one.
pub(crate) fn decode_first<T: DeserializeOwned>(kind: Kind, line: &[u8]) -> Result<(T, u32), HeadError> {
    let damaged = |message: String| HeadError::Damaged(message);
    let (crc, rest) = checked(line, |rest| rest).map_err(HeadError::Damaged)?;
    let mut parts = rest.splitn(3, |byte| *byte == b' ');
    if parts.next() != Some(kind.magic.as_bytes()) {
        return Err(damaged(format!("this is not a file of the kind `{}`", kind.magic)));
    }
    let format: u32 =
        parts.next().and_then(number).ok_or_else(|| damaged("the format is not a number".to_owned()))?;
    if format > kind.format {
        return Err(HeadError::Newer(format));
    }
    let json = parts.next().ok_or_else(|| damaged("the first line is too short".to_owned()))?;
    let head = serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))?;
    Ok((head, crc))
}

/// Adds a record's line to `out` and returns its checksum. `None` when the payload is 4 GiB or more.
pub(crate) fn encode(out: &mut Vec<u8>, prev: u32, seq: u64, epoch: u64, payload: &[u8]) -> Option<u32> {
    let length = u32::try_from(payload.len()).ok()?;
    let start = out.len();
    out.extend_from_slice(format!("{:08x} {length:08x} {prev:08x} {seq} {epoch} ", 0).as_bytes());
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(covered(&out[start + 9..]));
    out[start..start + 8].copy_from_slice(format!("{crc:08x}").as_bytes());
    out.push(b'\n');
    Some(crc)
}

/// Reads a record's line without its line end.
pub(crate) fn decode(line: &[u8]) -> Result<Frame<'_>, String> {
    let (crc, rest) = checked(line, covered)?;
    let mut parts = rest.splitn(5, |byte| *byte == b' ');
    let mut field = || parts.next().ok_or_else(|| "the line is too short".to_owned());
    let (length, prev, seq, epoch, payload) = (field()?, field()?, field()?, field()?, field()?);
    let frame = Frame {
        crc,
        prev: hex(prev).ok_or("the checksum of the line before is unreadable")?,
        seq: number(seq).ok_or("the position is not a number")?,
        epoch: number(epoch).ok_or("the epoch is not a number")?,
        payload,
    };
    if hex(length).map(u64::from) != u64::try_from(payload.len()).ok() {
        return Err("the length does not fit".to_owned());
    }
    Ok(frame)
}

/// Whether `chunk` begins with a whole, good record and goes on after it: then a line end was lost, not a tail.
pub(crate) fn hides_more(chunk: &[u8]) -> bool {
    let fields: usize = chunk.splitn(6, |byte| *byte == b' ').take(5).map(|part| part.len() + 1).sum();
    let length = chunk.splitn(3, |byte| *byte == b' ').nth(1).and_then(hex);
    let Some(end) = length.and_then(|n| usize::try_from(n).ok()).and_then(|n| n.checked_add(fields)) else {
        return false;
    };
    chunk.len() > end + 1 && chunk.get(..end).is_some_and(|whole| decode(whole).is_ok())
}

/// What the checksum of a record covers: all that stands behind it.
fn covered(rest: &[u8]) -> &[u8] {
    if planted(Bug::SkipLastField) {
        let fields = rest.splitn(5, |byte| *byte == b' ').take(4).map(|field| field.len() + 1).sum();
        return rest.get(..fields).unwrap_or(rest);
    }
    rest
}

/// Splits off the checksum and compares it.
fn checked(line: &[u8], covered: impl FnOnce(&[u8]) -> &[u8]) -> Result<(u32, &[u8]), String> {
    let (Some(text), Some(b' '), Some(rest)) = (line.get(..8), line.get(8), line.get(9..)) else {
        return Err("the line is too short".to_owned());
    };
    let crc = hex(text).ok_or("the checksum is unreadable")?;
    if crc32fast::hash(covered(rest)) == crc {
        Ok((crc, rest))
    } else {
        Err("the checksum does not fit".to_owned())
    }
}

/// Eight lower-case hex digits, and nothing else.
fn hex(text: &[u8]) -> Option<u32> {
    let value = u32::from_str_radix(str::from_utf8(text).ok()?, 16).ok()?;
    (format!("{value:08x}").as_bytes() == text).then_some(value)
}

/// A decimal number in its shortest form.
fn number<T: std::str::FromStr + ToString>(text: &[u8]) -> Option<T> {
    let value = str::from_utf8(text).ok()?.parse::<T>().ok()?;
    (value.to_string().as_bytes() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_line_has_exactly_one_form() {
        let mut line = Vec::new();
        let crc = encode(&mut line, 0xabcd_ef01, 7, 2, br#"{"a": "b c"}"#).unwrap();
        assert_eq!(line.pop(), Some(b'\n'));
        let frame = decode(&line).unwrap();
        assert_eq!((frame.crc, frame.prev, frame.seq, frame.epoch), (crc, 0xabcd_ef01, 7, 2));
        assert_eq!(frame.payload, br#"{"a": "b c"}"#);
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut changed = line.clone();
                changed[at] ^= 1 << bit;
                assert!(decode(&changed).is_err(), "bit {bit} of byte {at}");
            }
            assert!(decode(&line[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_checksum_in_upper_case_is_refused() {
        let (line, crc) = (0..100)
            .find_map(|seq| {
                let mut line = Vec::new();
                let crc = encode(&mut line, 0, seq, 1, b"{}")?;
                format!("{crc:08x}").contains(|c: char| c.is_ascii_lowercase()).then_some((line, crc))
            })
            .unwrap();
        let mut shouted = line[..line.len() - 1].to_vec();
        shouted[..8].copy_from_slice(format!("{crc:08X}").as_bytes());
        assert!(decode(&shouted).is_err());
    }

    #[test]
    fn a_newer_head_is_told_from_a_damaged_one() {
        let rest = format!("{} 2 whatever comes then", JOURNAL.magic);
        let newer = format!("{:08x} {rest}", crc32fast::hash(rest.as_bytes()));
        assert_eq!(decode_head(newer.as_bytes()), Err(HeadError::Newer(2)));
        assert!(matches!(decode_head(newer.replace('2', "3").as_bytes()), Err(HeadError::Damaged(_))));
    }

    #[test]
    fn a_lost_line_end_is_seen() {
        let mut two = Vec::new();
        let first = encode(&mut two, 0, 0, 1, b"{}").unwrap();
        let end = two.len() - 1;
        assert!(!hides_more(&two[..end]));
        let changed = [&two[..end], b"?"].concat();
        assert!(!hides_more(&changed), "a last record whose line end is another sign hides nothing");
        encode(&mut two, first, 1, 1, b"{}").unwrap();
        two[end] = b'?';
        assert!(hides_more(&two));
        assert!(!hides_more(b""));
        assert!(!hides_more(b"a b c d e f g h"));
    }
}
