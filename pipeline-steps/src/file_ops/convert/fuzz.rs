//! What a fuzzer starts: every conversion, over bytes in memory.
//!
//! Owns [`convert`]. Must not touch files.

#![allow(clippy::expect_used, reason = "a fuzzer sees what is wrong by a panic")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use pipeline_core::error::StepError;

use super::{Format, read, rows, whole};

const FORMATS: [Format; 4] = [Format::Csv, Format::Json, Format::Yaml, Format::Xml];

/// Any bytes as a document of each format, into each format.
///
/// # Panics
/// When a refusal has no words, or JSON, YAML and XML that were written are not read as what was written.
pub fn convert(bytes: &[u8]) {
    for from in FORMATS {
        for to in FORMATS {
            let mut out = Vec::new();
            let outcome = one(bytes, from, to, &mut out);
            match outcome {
                Err(error) => assert!(!error.message.is_empty(), "refused without a word"),
                // XML has no numbers, and CSV nothing but rows.
                Ok(_) if to == Format::Xml => drop(read(&*out, to).expect("XML that was written is read")),
                Ok(_) if from != Format::Csv && matches!(to, Format::Json | Format::Yaml) => {
                    let again = read(&*out, to).expect("a document that was written is read");
                    let before = read(bytes, from).expect("it was read before");
                    assert_eq!(again, before, "{} into {}", from.name(), to.name());
                }
                Ok(_) => {}
            }
        }
    }
}

fn one(bytes: &[u8], from: Format, to: Format, out: &mut Vec<u8>) -> Result<usize, StepError> {
    match (from, to) {
        (Format::Csv, _) => {
            let infers = bytes.len().is_multiple_of(2);
            let mut work = pin!(rows::from_csv(&|| false, bytes, to.name(), out, infers));
            // It waits for nothing but its turn.
            loop {
                if let Poll::Ready(count) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    return count;
                }
            }
        }
        (Format::Json, Format::Csv) => rows::json_to_csv(bytes, bytes, out),
        _ => read(bytes, from).and_then(|value| whole(&value, to, out)),
    }
}
