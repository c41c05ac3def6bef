//! What fuzzers start: streams of events, and the answers that the wire formats make of them.
//!
//! Owns [`sse`] and [`answer`]. Must not connect to anything.

use pipeline_core::provider::ProviderEntry;
use serde_json::Value;

use super::settings::HttpSettings;
use super::sse::{Broken, Event, Events};
use super::wire::Wire;
use super::{anthropic, gemini, openai};

/// Most bytes of an event.
const LIMIT: usize = 1 << 12;

/// Events of at most so many bytes in a body that comes in pieces, and how it broke off.
pub fn events(limit: usize, pieces: &[&[u8]]) -> (Vec<Event>, Option<Broken>) {
    let (mut reader, mut all) = (Events::new(limit), Vec::new());
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(event)) => all.push(event),
                Ok(None) => break,
                Err(broken) => return (all, Some(broken)),
            }
        }
    }
    (all, None)
}

/// Any bytes as a stream of events: the same ones whole, byte by byte and in pieces.
///
/// # Panics
/// When they are not the same.
pub fn sse(bytes: &[u8]) {
    let whole = events(LIMIT, &[bytes]);
    let size = usize::from(bytes.first().copied().unwrap_or(0) % 13) + 2;
    for size in [1, size] {
        assert_eq!(events(LIMIT, &bytes.chunks(size).collect::<Vec<_>>()), whole, "in pieces of {size}");
    }
}

/// Any bytes as the body of an answer, in each wire format: as a stream, and as an error.
///
/// # Panics
/// When an error has no words.
pub fn answer(bytes: &[u8]) {
    let wires: [&dyn Wire; 3] = [&anthropic::Anthropic, &gemini::Gemini, &openai::OpenAi];
    let settings = HttpSettings::new(ProviderEntry { name: "p".to_owned(), ..ProviderEntry::default() });
    let (all, _) = events(LIMIT, &[bytes]);
    for wire in wires {
        let (mut reader, mut told) = (wire.reader("m"), Vec::new());
        let heard = all.iter().try_for_each(|event| reader.event(&event.name, &event.data, &mut told));
        match heard.and_then(|()| reader.verdict()) {
            Ok(()) => {
                let answer = std::mem::take(reader.heard()).into_answer(None);
                assert!(answer.usage.tokens() >= answer.usage.output, "a sum is smaller than its part");
            }
            Err(fault) => assert!(!fault.into_error(&settings).message.is_empty(), "refused without a word"),
        }
        if let Ok(body) = serde_json::from_slice::<Value>(bytes) {
            for status in [200, 400, 429, 503] {
                let error = wire.fault(status, &body).into_error(&settings);
                assert!(!error.message.is_empty(), "refused without a word");
            }
        }
    }
}
