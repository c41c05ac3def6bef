//! Server-sent events, piece by piece.
//!
//! Owns [`Events`]. Its memory is bounded: whatever is over a limit is told before it is stored. Must not know what events
//! mean.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// `event:`; empty when there was none.
    pub(crate) name: String,
    /// `data:`, lines joined by newlines.
    pub(crate) data: String,
}

/// Why a body is no stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// More bytes than the limit without an event in them.
    TooLong,
    /// An event that is not UTF-8.
    NotText,
}

/// Takes bytes and gives events.
#[derive(Debug)]
pub(crate) struct Events {
    limit: usize,
    buffer: Vec<u8>,
    /// Start of the line that is being read.
    line: usize,
    /// Where the search for its end goes on.
    seen: usize,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// Bytes since the last event.
    silent: usize,
    /// The last line ended in a carriage return, so that a newline belongs to it.
    after_return: bool,
    is_first: bool,
}

impl Events {
    /// A reader that gives up after `limit` bytes without an event.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            line: 0,
            seen: 0,
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            silent: 0,
            after_return: false,
            is_first: true,
        }
    }

    /// Takes the next bytes. Call [`Events::next`] until it has no more before the next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.line > 0 {
            self.buffer.drain(..self.line);
            self.seen -= self.line;
            self.line = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event, if it is complete.
    ///
    /// # Errors
    /// [`Broken`]; nothing can be read after it.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Broken> {
        loop {
            let rest = self.buffer.get(self.seen..).unwrap_or_default();
            let Some(length) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                self.seen = self.buffer.len();
                let waiting = self.silent + (self.seen - self.line);
                return if waiting > self.limit { Err(Broken::TooLong) } else { Ok(None) };
            };
            let end = self.seen + length;
            let is_return = self.buffer.get(end) == Some(&b'\r');
            let is_second_half = self.after_return && !is_return && end == self.line;
            let start = std::mem::replace(&mut self.line, end + 1);
            self.seen = end + 1;
            self.after_return = is_return;
            self.silent += end + 1 - start;
            if is_second_half {
                continue;
            }
            if self.silent > self.limit {
                return Err(Broken::TooLong);
            }
            if end > start {
                self.field(start, end);
            } else if let Some(event) = self.dispatch()? {
                return Ok(Some(event));
            }
        }
    }

    fn field(&mut self, start: usize, end: usize) {
        let mut line = self.buffer.get(start..end).unwrap_or_default();
        if std::mem::take(&mut self.is_first) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = value.to_vec(),
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            // Comments, ids, times to reconnect, and what else there may be.
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Result<Option<Event>, Broken> {
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if !std::mem::take(&mut self.has_data) {
            return Ok(None);
        }
        self.silent = 0;
        let text = |bytes| String::from_utf8(bytes).map_err(|_| Broken::NotText);
        Ok(Some(Event { name: text(name)?, data: text(data)? }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use pipeline_core::conformance::trials::{Random, Trials};

    use super::*;
    use crate::http::fuzz::events;

    /// Naive: a buffer that is cut by positions of the piece before.
    #[test]
    fn t10_any_bytes_in_any_pieces_give_the_same_events() {
        const PARTS: [&[u8]; 12] = [
            b"data: x\n",
            b"data:",
            b"event: e\r\n",
            b"\n",
            b"\r\n",
            b"\r",
            b": c\n",
            b"data: \xff\n",
            b"id: 1\n",
            b"\xef\xbb\xbf",
            b"data: {\"a\": 1}\n\n",
            b"retry: 5\n",
        ];
        let trials = Trials::of("T10", 5_000);
        let mut random = Random::new(trials.seed());
        for _ in 0..trials.wanted() {
            let bytes: Vec<u8> =
                (0..random.below(30)).flat_map(|_| PARTS[random.below(PARTS.len())].to_vec()).collect();
            let size = 1 + random.below(9);
            trials.try_out(&format!("{bytes:?} in pieces of {size}"), || {
                let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
                assert_eq!(events(100, &pieces), events(100, &[&bytes]));
            });
        }
        let wanted = trials.wanted();
        trials.finish(format!("{wanted} streams of events, in pieces and at once: the same events"));
    }

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut events = Events::new(1000);
        let mut all = Vec::new();
        for piece in pieces {
            events.push(piece);
            while let Some(event) = events.next().unwrap() {
                all.push((event.name, event.data));
            }
        }
        all
    }

    #[test]
    fn events_are_the_same_however_they_are_cut_and_ended() {
        let plain =
            "\u{feff}event: a\ndata: one\n\n: comment\nid: 7\n\ndata:two\ndata: lines\n\nevent: named\n\n";
        let expected = [("a", "one"), ("", "two\nlines")].map(|(n, d)| (n.to_owned(), d.to_owned()));
        for ending in ["\n", "\r\n", "\r"] {
            let text = plain.replace('\n', ending);
            assert_eq!(read(&[text.as_bytes()]), expected, "{ending:?}");
            for cut in 0..text.len() {
                let (a, b) = text.as_bytes().split_at(cut);
                assert_eq!(read(&[a, b]), expected, "{ending:?} at {cut}");
            }
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(&single), expected, "{ending:?} byte by byte");
        }
    }

    #[test]
    fn what_holds_no_event_is_bounded() {
        for piece in [&b"xxxxxxxxxx"[..], b": still here\n", b"data: x\n", b"\n"] {
            let mut events = Events::new(100);
            let ended = (0..1000).find_map(|_| {
                events.push(piece);
                events.next().err()
            });
            assert_eq!(ended, Some(Broken::TooLong), "{piece:?}");
            assert!(events.buffer.len() + events.data.len() < 300);
        }
        let mut events = Events::new(100);
        events.push(b"data: \xff\n\n");
        assert_eq!(events.next(), Err(Broken::NotText));
    }

    #[test]
    fn many_events_are_no_excess() {
        let mut events = Events::new(100);
        for _ in 0..1000 {
            events.push(b"data: x\n\n");
            assert!(events.next().unwrap().is_some());
        }
    }
}
