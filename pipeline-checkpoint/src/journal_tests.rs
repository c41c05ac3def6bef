//! The journal against every cut, every flipped bit and failing disks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::*;

fn journal(count: u64) -> Vec<u8> {
    let mut bytes = HEADER.as_bytes().to_vec();
    let mut last = FIRST;
    for seq in 0..count {
        last = encode(&mut bytes, seq, 1, last, &format!("{{\"n\":{seq},\"text\":\"a b\"}}"));
    }
    bytes
}

fn contents(bytes: &[u8]) -> Result<Contents, StoreError> {
    read(Path::new("journal"), bytes)
}

/// Naive: a checkpoint is one JSON file, and half of it is nothing.
#[test]
fn n10_every_cut_gives_the_records_before_it() {
    let bytes = journal(5);
    for cut in 0..=bytes.len() {
        let found = contents(&bytes[..cut]).unwrap();
        let whole = bytes[..cut].split(|b| *b == b'\n').count().saturating_sub(2);
        assert_eq!(found.records.len(), whole, "cut at {cut}");
        let is_clean = cut == 0 || bytes[cut - 1] == b'\n';
        assert_eq!(found.torn.is_none(), is_clean, "cut at {cut}");
    }
}

/// Naive: a checksum that does not cover separators and the case of hex digits.
#[test]
fn n10_no_flipped_bit_changes_a_record() {
    let bytes = journal(4);
    let good = contents(&bytes).unwrap().records;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match contents(&flipped) {
            Err(StoreError::Damaged { .. } | StoreError::Newer { .. }) => {}
            Err(other) => panic!("bit {bit}: {other}"),
            Ok(found) => {
                assert!(found.torn.is_some(), "bit {bit} went unnoticed");
                assert!(found.records.len() < good.len() && good.starts_with(&found.records), "bit {bit}");
            }
        }
    }
}

#[test]
fn n10_zeros_behind_the_last_record_are_dropped_and_told() {
    let mut bytes = journal(3);
    bytes.extend([0; 4096]);
    let found = contents(&bytes).unwrap();
    assert_eq!((found.records.len(), found.torn.is_some()), (3, true));
}

#[test]
fn damage_before_the_last_record_is_refused_with_its_place() {
    let mut bytes = journal(3);
    bytes[HEADER.len() + 30] ^= 1;
    let Err(StoreError::Damaged { offset, .. }) = contents(&bytes) else { panic!("it was read") };
    assert_eq!(offset, HEADER.len() as u64);
}

#[test]
fn a_newer_journal_is_refused() {
    let Err(StoreError::Newer { found, .. }) = contents(b"pipeline-journal 2\n") else {
        panic!("it was read")
    };
    assert_eq!(found, 2);
}

/// A disk that fails at the n-th operation, and works again afterwards.
#[derive(Default)]
struct Faulty {
    written: Vec<u8>,
    operations: usize,
    fail_at: usize,
}

impl Faulty {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.operations == self.fail_at { Err(io::Error::other("no space left")) } else { Ok(()) }
    }
}

impl Sink for Faulty {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            // Half of it got there.
            self.written.extend(&bytes[..bytes.len() / 2]);
            return Err(error);
        }
        self.written.extend(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()
    }
}

/// Naive: a failed write is logged and forgotten, and a later flush acknowledges a hole.
#[test]
fn n20_a_failed_write_or_flush_poisons_the_log_and_loses_nothing_before_it() {
    for fail_at in 1..=8 {
        let disk = Faulty { written: HEADER.as_bytes().to_vec(), fail_at, ..Faulty::default() };
        let mut writer = Writer::new(disk, "journal".into(), 1, 0, FIRST);
        let mut acknowledged = 0;
        for n in 0..4 {
            let done = writer.append(&format!("{{\"n\":{n}}}")).and_then(|()| writer.flush());
            if done.is_err() {
                assert!(writer.append("{}").is_err(), "the log stays poisoned");
                assert!(writer.flush().is_err(), "the log stays poisoned");
                break;
            }
            acknowledged += 1;
        }
        assert_eq!(acknowledged, (fail_at - 1) / 2);
        let found = contents(&writer.file.written).unwrap();
        assert!(found.records.len() >= acknowledged, "an acknowledged record is lost");
    }
}
