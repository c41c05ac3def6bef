//! What a fuzzer starts: every conversion, over bytes in memory.
//!
//! Owns [`convert`]. Must not touch files.

#![allow(clippy::expect_used, reason = "a fuzzer sees what is wrong by a panic")]

use std::pin::pin;
use std::task::{Context, Waker};

use pipeline_core::error::StepError;

use super::{Format, read, rows, whole};

const FORMATS: [Format; 4] = [Format::Csv, Format::Json, Format::Yaml, Format::Xml];

/// Any bytes as a document of each format, into each format.
///
/// # Panics
/// When a refusal has no words, or JSON, YAML and XML that were written are not read as what was written.
pub fn convert(bytes: &[u8]) {
    for from in [Format::Json, Format::Yaml, Format::Xml] {
        let Some(before) = check(read(bytes, from)) else { continue };
        for to in FORMATS {
            let mut out = Vec::new();
            let written = check(whole(&before, to, &mut out)).is_some();
            match to {
                Format::Json | Format::Yaml if written => {
                    let again = read(&*out, to).expect("a document that was written is read");
                    assert_eq!(again, before, "{} into {}", from.name(), to.name());
                }
                // XML has no numbers, and CSV nothing but rows.
                Format::Xml if written => drop(read(&*out, to).expect("XML that was written is read")),
                _ => {}
            }
        }
    }
    check(rows::json_to_csv(bytes, bytes, &mut Vec::new()));
    for to in FORMATS {
        check(from_csv(bytes, to));
    }
}

fn check<T>(outcome: Result<T, StepError>) -> Option<T> {
    outcome.inspect_err(|error| assert!(!error.message.is_empty(), "refused without a word")).ok()
}

fn from_csv(bytes: &[u8], to: Format) -> Result<(), StepError> {
    let (infers, mut out) = (bytes.len().is_multiple_of(2), Vec::new());
    {
        let mut work = pin!(rows::from_csv(&|| false, bytes, to.name(), &mut out, infers));
        // It waits for nothing but its turn.
        while work.as_mut().poll(&mut Context::from_waker(Waker::noop()))?.is_pending() {}
    }
    if to != Format::Csv {
        read(&*out, to).expect("rows that were written are read");
    }
    Ok(())
}
