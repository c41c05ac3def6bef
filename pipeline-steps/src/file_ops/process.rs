//! The operation `stream_process`: a text file changed line by line.
//!
//! Owns what each processor does. A file of any size takes the memory of one line. Must not leave a half-changed file.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::copy::{Transaction, open_plain};
use super::{Config, Done, Operation, missing, open, trouble};
use crate::confine::Roots;

/// Bytes of the longest line.
const LONGEST: u64 = 16 << 20;

/// What becomes of each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Processor {
    /// Nothing.
    Identity,
    /// Capitals.
    Uppercase,
    /// Small letters.
    Lowercase,
    /// White space at both ends goes.
    Trim,
    /// Every `pattern` becomes `replacement`.
    Replace,
}

/// Changes a file, in its place or into `destination`.
pub(super) async fn process(cx: &StepContext, config: &Config) -> Result<Done, StepError> {
    let source = config.one_source(Operation::StreamProcess)?;
    let processor = config.processor.ok_or_else(|| missing(Operation::StreamProcess, "processor"))?;
    let pattern = match (processor, &config.pattern) {
        (Processor::Replace, Some(pattern)) if !pattern.is_empty() => pattern.as_str(),
        (Processor::Replace, _) => return Err(missing(Operation::StreamProcess, "pattern")),
        _ => "",
    };
    let replacement = config.replacement.as_deref().unwrap_or_default();
    let destination = config.destination.as_deref().unwrap_or(source);
    // A file that is changed in its place must be one that may be written.
    let roots = if config.destination.is_some() { Roots::read(cx) } else { Roots::write(cx) };
    let (from, below) = open(cx, &roots, Path::new(source))?;
    let file = open_plain(&from, &below).map_err(|e| trouble("read", Path::new(source), &e))?;
    let (dir, target) = open(cx, &Roots::write(cx), Path::new(destination))?;
    let mut work = Transaction::new(dir, &cx.idempotency_key());
    let mut out = BufWriter::new(work.begin(&target, destination)?);
    let mut reader = BufReader::new(file);
    let (mut lines, mut line) = (0_u64, Vec::new());
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LONGEST + 1).read_until(b'\n', &mut line);
        if read.map_err(|e| trouble("read", Path::new(source), &e))? == 0 {
            break;
        }
        if line.len() as u64 > LONGEST {
            let message = format!("line {} of `{source}` is over {} MiB", lines + 1, LONGEST >> 20);
            return Err(StepError::new(ErrorKind::TooLarge, message));
        }
        let text = std::str::from_utf8(&line)
            .map_err(|_| StepError::invalid(format!("line {} of `{source}` is not UTF-8", lines + 1)))?;
        let (text, end) = match text.strip_suffix('\n') {
            Some(rest) => rest.strip_suffix('\r').map_or((rest, "\n"), |rest| (rest, "\r\n")),
            None => (text, ""),
        };
        let changed = match processor {
            Processor::Identity => text.to_owned(),
            Processor::Uppercase => text.to_uppercase(),
            Processor::Lowercase => text.to_lowercase(),
            Processor::Trim => text.trim().to_owned(),
            Processor::Replace => text.replace(pattern, replacement),
        };
        let failed = |e: std::io::Error| trouble("write", Path::new(destination), &e);
        out.write_all(changed.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).map_err(failed)?;
        lines += 1;
        if lines.is_multiple_of(4096) {
            tokio::task::yield_now().await;
        }
    }
    let failed = |e: std::io::Error| trouble("write", Path::new(destination), &e);
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    work.commit()?;
    let value = json!({
        "operation": "stream_process", "source": source, "destination": destination, "processed_path": destination,
        "processor": processor, "lines": lines, "count": 1,
    });
    Ok(Done { value, warnings: Vec::new() })
}
