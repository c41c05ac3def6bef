//! What a server complains.
//!
//! Owns [`Tail`], the last of it, for errors; and [`follow`], which reads it all, so that a server that floods is not blocked. Must not
//! know who complains.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline_core::redact::{Flow, Redactor};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of the end that are kept.
const KEPT: usize = 4096;

/// Bytes that a log file gets.
const MOST_LOGGED: usize = 1 << 20;

/// The end of what was complained.
#[derive(Default)]
pub(crate) struct Tail(Mutex<VecDeque<u8>>);

impl Tail {
    /// As text.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.lock().iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock();
        kept.extend(bytes);
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }
}

/// Reads to the end.
pub(crate) async fn follow(
    stream: Option<impl AsyncRead + Unpin>,
    tail: Arc<Tail>,
    mut log: Option<File>,
    redactor: Arc<Redactor>,
) {
    let Some(mut stream) = stream else { return };
    let (mut buffer, mut logged, mut flow) = (vec![0; 8192], 0, Flow::default());
    // A pipe that breaks has ended.
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let text = flow.push(&redactor, &String::from_utf8_lossy(&buffer[..read]));
        tail.push(text.as_bytes());
        if let Some(file) = log.as_mut().filter(|_| logged < MOST_LOGGED) {
            logged += text.len();
            // A log that cannot be written is no reason to stop the server.
            let _ = file.write_all(text.as_bytes());
        }
    }
    let rest = flow.end();
    tail.push(rest.as_bytes());
    if let Some(mut file) = log {
        let _ = file.write_all(rest.as_bytes());
    }
}
