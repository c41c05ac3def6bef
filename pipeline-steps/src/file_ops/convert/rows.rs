//! Tables, a record at a time.
//!
//! Owns CSV: columns are named by the first record; a record that is short lacks the last fields, one that is long has fields
//! `column_N`. Must not hold more than one record.

use std::fmt;
use std::io::{self, BufReader, Read, Write};

use indexmap::IndexSet;
use pipeline_core::error::{ErrorKind, StepError};
use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::xml;

/// Records between two turns of other tasks.
const YIELD_EVERY: u64 = 1024;

/// Columns of a table that is made from rows.
const MOST_COLUMNS: usize = 16_384;

/// A write that failed: a value that the format cannot have, or the disk.
pub(super) fn unwritten(error: &io::Error) -> StepError {
    match error.kind() {
        io::ErrorKind::InvalidData => StepError::invalid(error.to_string()),
        _ => StepError::new(ErrorKind::Environment, error.to_string()),
    }
}

fn unread(error: &csv::Error) -> StepError {
    let place = error.position().map(|p| format!(" at line {}", p.line())).unwrap_or_default();
    StepError::invalid(format!("the CSV cannot be read{place}: {error}"))
}

/// Names of columns, each once; one without a name is `column_N`.
fn columns(record: &csv::StringRecord) -> Vec<String> {
    let mut names: IndexSet<String> = IndexSet::new();
    for (index, name) in record.iter().enumerate() {
        let name = if index == 0 { name.trim_start_matches('\u{feff}') } else { name };
        let plain = if name.is_empty() { format!("column_{}", index + 1) } else { name.to_owned() };
        let mut own = plain.clone();
        let mut number = 2;
        while !names.insert(own.clone()) {
            own = format!("{plain}_{number}");
            number += 1;
        }
    }
    names.into_iter().collect()
}

/// A cell: text, or what the text spells where that comes back as the same text.
fn cell(text: &str, infers: bool) -> Value {
    if infers {
        match text {
            "true" => return Value::Bool(true),
            "false" => return Value::Bool(false),
            _ => {}
        }
        if let Ok(number @ Value::Number(_)) = serde_json::from_str::<Value>(text) {
            let spelled = number.to_string();
            if spelled == text {
                return number;
            }
        }
    }
    Value::String(text.to_owned())
}

/// CSV into another format, until `is_stopped`; how many rows.
pub(super) async fn from_csv(
    is_stopped: &(dyn Fn() -> bool + Sync),
    file: impl Read,
    format: &str,
    out: &mut (impl Write + Send),
    infers: bool,
) -> Result<usize, StepError> {
    let failed = |e: io::Error| unwritten(&e);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(BufReader::new(file));
    let mut record = csv::StringRecord::new();
    let mut names: Option<Vec<String>> = None;
    let mut count = 0;
    let mut table =
        (format == "csv").then(|| csv::WriterBuilder::new().flexible(true).from_writer(Vec::new()));
    match format {
        "json" => out.write_all(b"["),
        "xml" => xml::begin(out).and_then(|()| out.write_all(b"<rows>\n")),
        _ => Ok(()),
    }
    .map_err(failed)?;
    while reader.read_record(&mut record).map_err(|e| unread(&e))? {
        if let Some(table) = &mut table {
            table.write_record(&record).map_err(|e| unread(&e))?;
            table.flush().map_err(failed)?;
            out.write_all(table.get_ref()).map_err(failed)?;
            *table = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        }
        let Some(names) = &mut names else {
            names = Some(columns(&record));
            continue;
        };
        while names.len() < record.len() {
            names.push(format!("column_{}", names.len() + 1));
        }
        let fields: Map<String, Value> =
            names.iter().zip(record.iter()).map(|(name, text)| (name.clone(), cell(text, infers))).collect();
        let row = Value::Object(fields);
        match format {
            "json" => out
                .write_all(if count == 0 { b"\n" } else { b",\n" })
                .and_then(|()| serde_json::to_writer(&mut *out, &row).map_err(io::Error::from)),
            "yaml" => {
                let text = serde_yaml::to_string(&[&row])
                    .map_err(|e| StepError::invalid(format!("a row cannot be written as YAML: {e}")))?;
                out.write_all(text.as_bytes())
            }
            "xml" => xml::row(out, &row),
            _ => Ok(()),
        }
        .map_err(failed)?;
        count += 1;
        if (count as u64).is_multiple_of(YIELD_EVERY) {
            tokio::task::yield_now().await;
            if is_stopped() {
                return Err(StepError::new(ErrorKind::Cancelled, "it was stopped"));
            }
        }
    }
    let end: &[u8] = match format {
        "json" => b"\n]\n",
        "xml" => b"</rows>\n",
        "yaml" if count == 0 => b"[]\n",
        _ => b"",
    };
    out.write_all(end).map_err(failed)?;
    Ok(count)
}

/// A JSON list of maps into CSV, read twice: first for the columns, then for the rows.
pub(super) fn json_to_csv(
    first: impl Read,
    second: impl Read,
    out: &mut impl Write,
) -> Result<usize, StepError> {
    let mut names = IndexSet::new();
    each(first, &mut |row| note(&row, &mut names))?;
    let mut table = csv::Writer::from_writer(out);
    let names: Vec<String> = names.into_iter().collect();
    head(&mut table, &names)?;
    let mut count = 0;
    each(second, &mut |row| {
        count += 1;
        record(&mut table, &names, &row)
    })?;
    table.flush().map_err(|e| unwritten(&e))?;
    Ok(count)
}

/// A value into CSV: a list of maps, or a map with one list in it.
pub(super) fn value_to_csv(value: &Value, out: &mut impl Write) -> Result<usize, StepError> {
    let rows = rows(value, 0).ok_or_else(|| {
        StepError::invalid("there is no list of rows in it").help("CSV needs a list of maps")
    })?;
    let mut names = IndexSet::new();
    rows.iter().try_for_each(|row| note(row, &mut names))?;
    let names: Vec<String> = names.into_iter().collect();
    let mut table = csv::Writer::from_writer(out);
    head(&mut table, &names)?;
    rows.iter().try_for_each(|row| record(&mut table, &names, row))?;
    table.flush().map_err(|e| unwritten(&e))?;
    Ok(rows.len())
}

/// The rows of a document: the list that it is, or that its only fields lead to.
fn rows(value: &Value, depth: usize) -> Option<&[Value]> {
    match value {
        Value::Array(rows) => Some(rows),
        Value::Object(fields) if depth < 4 => {
            let mut lists = fields.values().filter_map(|v| rows(v, depth + 1));
            let one = lists.next();
            if lists.next().is_some() { None } else { one }
        }
        _ => None,
    }
}

fn note(row: &Value, names: &mut IndexSet<String>) -> Result<(), StepError> {
    let Value::Object(fields) = row else {
        return Err(StepError::invalid(format!("a row is not a map: {}", short(row)))
            .help("CSV needs a list of maps"));
    };
    for name in fields.keys() {
        if !names.contains(name) {
            names.insert(name.clone());
        }
    }
    if names.len() > MOST_COLUMNS {
        return Err(StepError::new(
            ErrorKind::TooLarge,
            format!("the rows have over {MOST_COLUMNS} different fields"),
        ));
    }
    Ok(())
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

fn head<W: Write>(table: &mut csv::Writer<W>, names: &[String]) -> Result<(), StepError> {
    if names.is_empty() { Ok(()) } else { table.write_record(names).map_err(|e| unread(&e)) }
}

/// Nothing and null are empty cells; lists and maps are JSON.
fn record<W: Write>(table: &mut csv::Writer<W>, names: &[String], row: &Value) -> Result<(), StepError> {
    let text = |name: &String| match row.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    table.write_record(names.iter().map(text)).map_err(|e| unread(&e))
}

/// Gives each element of a JSON list to `visit`, holding one at a time.
fn each(file: impl Read, visit: &mut dyn FnMut(Value) -> Result<(), StepError>) -> Result<(), StepError> {
    struct Each<'v> {
        visit: &'v mut dyn FnMut(Value) -> Result<(), StepError>,
        trouble: &'v mut Option<StepError>,
    }
    impl<'de> Visitor<'de> for Each<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of maps")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
            while let Some(item) = items.next_element::<Value>()? {
                if let Err(error) = (self.visit)(item) {
                    *self.trouble = Some(error);
                    return Err(serde::de::Error::custom("stopped"));
                }
            }
            Ok(())
        }
    }
    impl<'de> DeserializeSeed<'de> for Each<'_> {
        type Value = ();

        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_seq(self)
        }
    }
    let mut trouble = None;
    let mut reader =
        serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 16, file).take(u64::MAX));
    let read = Each { visit, trouble: &mut trouble }.deserialize(&mut reader).and_then(|()| reader.end());
    match (trouble, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(StepError::invalid(format!("it is not a JSON list of maps: {error}"))),
        (None, Ok(())) => Ok(()),
    }
}
