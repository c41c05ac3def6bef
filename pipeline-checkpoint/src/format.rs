//! One line of the journal.
//!
//! `SEQ EPOCH PREV CRC JSON`: the record's number, the number of the process that wrote it (counted from 1), the checksum of
//! the line before, this line's checksum over everything else, and the record. Must not know files.

/// Version of everything below a run's directory.
pub(crate) const FORMAT: u32 = 1;

/// First line of every journal.
pub(crate) const HEADER: &str = "pipeline-journal 1\n";

/// Checksum that the first record follows.
pub(crate) const FIRST: u32 = 0;

/// One line, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) seq: u64,
    pub(crate) epoch: u32,
    pub(crate) crc: u32,
    pub(crate) json: &'a str,
}

/// Writes a line; gives its checksum, which the next line names.
pub(crate) fn encode(out: &mut Vec<u8>, seq: u64, epoch: u32, prev: u32, json: &str) -> u32 {
    let crc = checksum(seq, epoch, prev, json);
    out.extend_from_slice(format!("{seq} {epoch} {prev:08x} {crc:08x} ").as_bytes());
    out.extend_from_slice(json.as_bytes());
    out.push(b'\n');
    crc
}

fn checksum(seq: u64, epoch: u32, prev: u32, json: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(format!("{seq} {epoch} {prev:08x} ").as_bytes());
    hasher.update(json.as_bytes());
    hasher.finalize()
}

/// Reads a line without its line end. It must be exactly what [`encode`] writes: a checksum alone would let through other
/// spellings of the same numbers.
pub(crate) fn decode(line: &[u8], seq: u64, prev: u32) -> Result<Line<'_>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut parts = text.splitn(5, ' ');
    let mut next = |what: &str| parts.next().ok_or_else(|| format!("it has no {what}"));
    let (seq_text, epoch, prev_text, crc) =
        (next("number")?, next("epoch")?, next("chain")?, next("checksum")?);
    let json = next("record")?;
    let epoch: u32 = epoch.parse().map_err(|_| "its epoch is no number".to_owned())?;
    let crc = u32::from_str_radix(crc, 16).map_err(|_| "its checksum is no number".to_owned())?;
    if seq_text != seq.to_string() {
        return Err(format!("it has number {seq_text} where {seq} belongs"));
    }
    if prev_text != format!("{prev:08x}") {
        return Err("it does not follow the record before it".to_owned());
    }
    let mut canonical = Vec::with_capacity(line.len() + 1);
    let computed = encode(&mut canonical, seq, epoch, prev, json);
    if computed != crc || canonical.get(..line.len()) != Some(line) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok(Line { seq, epoch, crc, json })
}
