//! The operation `convert`: one file from one format into another.
//!
//! Owns the formats and what can become of what. CSV goes record by record, so that a file of any size takes the memory of one
//! record; JSON lists of rows do too when they become CSV. Other documents are read whole, up to [`LARGEST`] bytes.
//! Must not know how the new file is put into place (`copy.rs`). Next: `convert/rows.rs`, `convert/xml.rs`.

mod rows;
mod xml;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use serde_json::{Value, json};

use super::copy::{Transaction, open_plain};
use super::{Config, Done, Operation, missing, open, trouble};
use crate::confine::Roots;

/// Bytes of a document that is read whole.
const LARGEST: u64 = 64 << 20;

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
    Yaml,
    Xml,
}

impl Format {
    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "xml" => Some(Self::Xml),
            _ => None,
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        Path::new(path).extension().and_then(|e| e.to_str()).and_then(Self::named)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Xml => "xml",
        }
    }
}

/// The two formats: as `format` says (`csv_to_json`), else by the ends of the names.
fn formats(config: &Config, source: &str, destination: &str) -> Result<(Format, Format), StepError> {
    let written = config.format.as_deref();
    let pair = match written.map(|f| (f, f.split_once("_to_"))) {
        Some((_, Some((from, to)))) => (Format::named(from), Format::named(to)),
        Some((_, None)) => (None, None),
        None => (Format::of_path(source), Format::of_path(destination)),
    };
    match (pair, written) {
        ((Some(from), Some(to)), _) => Ok((from, to)),
        (_, Some(format)) => Err(StepError::invalid(format!("`format: {format}` is not a conversion"))
            .help("write `FROM_to_TO` with csv, json, yaml or xml, for example `csv_to_json`")),
        _ => Err(StepError::invalid(format!("the formats of `{source}` and `{destination}` are not known"))
            .help(
                "end the names in .csv, .json, .yaml or .xml, or give `format`, for example `csv_to_json`",
            )),
    }
}

/// Converts a file.
pub(super) async fn convert(cx: &StepContext, config: &Config) -> Result<Done, StepError> {
    let source = config.one_source(Operation::Convert)?;
    let destination =
        config.destination.as_deref().ok_or_else(|| missing(Operation::Convert, "destination"))?;
    let (from, to) = formats(config, source, destination)?;
    let (dir, below) = open(cx, &Roots::read(cx), Path::new(source))?;
    let again = || open_plain(&dir, &below).map_err(|e| trouble("read", Path::new(source), &e));
    let (target_dir, target) = open(cx, &Roots::write(cx), Path::new(destination))?;
    let mut work = Transaction::new(target_dir, &cx.idempotency_key());
    let mut out = BufWriter::with_capacity(1 << 16, work.begin(&target, destination)?);
    let count = match (from, to) {
        (Format::Csv, _) => {
            let is_stopped = || cx.cancel.is_cancelled();
            rows::from_csv(&is_stopped, again()?, to.name(), &mut out, config.infer_types).await
        }
        (Format::Json, Format::Csv) => rows::json_to_csv(again()?, again()?, &mut out),
        _ => read(again()?, from).and_then(|value| whole(&value, to, &mut out)),
    }
    .map_err(|mut error| {
        error.message = format!("cannot convert `{source}`: {}", error.message);
        error
    })?;
    let failed = |e: std::io::Error| trouble("write", Path::new(destination), &e);
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    work.commit()?;
    let value = json!({
        "operation": "convert", "source": source, "destination": destination,
        "format": format!("{}_to_{}", from.name(), to.name()), "count": count,
    });
    Ok(Done { value, warnings: Vec::new() })
}

/// A document as a value.
fn read(file: impl Read, format: Format) -> Result<Value, StepError> {
    let mut text = String::new();
    let mut limited = BufReader::new(file).take(LARGEST + 1);
    limited.read_to_string(&mut text).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => StepError::invalid("it is not UTF-8"),
        _ => StepError::new(ErrorKind::Environment, e.to_string()),
    })?;
    if text.len() as u64 > LARGEST {
        let message = format!("it is over {} MiB", LARGEST >> 20);
        return Err(
            StepError::new(ErrorKind::TooLarge, message).help("only CSV, and JSON into CSV, go row by row")
        );
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let bad = |e: String| StepError::invalid(format!("it is not {}: {e}", format.name().to_uppercase()));
    match format {
        Format::Json => serde_json::from_str(text).map_err(|e| bad(e.to_string())),
        Format::Yaml => serde_yaml::from_str(text).map_err(|e| bad(e.to_string())),
        Format::Xml => xml::read(text),
        Format::Csv => Err(StepError::new(ErrorKind::Internal, "CSV is read by record")),
    }
}

/// Writes a value as a document; how many rows it has, 1 when it is no list.
fn whole(value: &Value, format: Format, out: &mut impl Write) -> Result<usize, StepError> {
    let count = value.as_array().map_or(1, Vec::len);
    match format {
        Format::Json => serde_json::to_writer_pretty(&mut *out, value)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n")),
        Format::Yaml => {
            let text = serde_yaml::to_string(value)
                .map_err(|e| StepError::invalid(format!("it cannot be written as YAML: {e}")))?;
            out.write_all(text.as_bytes())
        }
        Format::Xml => xml::write(out, value),
        Format::Csv => return rows::value_to_csv(value, out),
    }
    .map_err(|e| rows::unwritten(&e))?;
    Ok(count)
}
