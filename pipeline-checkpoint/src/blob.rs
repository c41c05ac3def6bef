//! Large values beside the journal.
//!
//! Owns which values of a fact may live in a file of their own, when they do ([`INLINE_BYTES`], [`INLINE_DEPTH`]), and how they
//! are written and put back. A record names its blobs outside the fact, by JSON pointer, so that no value a step
//! can make is ever mistaken for a reference. Must not know the journal.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use pipeline_core::error::StepError;
use pipeline_core::fact::Fact;
use pipeline_core::store::StoreError;
use pipeline_core::value::{Data, Hash, Value};
use serde::Deserialize;

use crate::disk;

/// Most bytes of JSON that a value may have inside a record.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;
/// Most levels of nesting that a value may have inside a record: the whole record stays far below the 128 levels at which
/// JSON parsers give up, ours among them.
pub(crate) const INLINE_DEPTH: usize = 64;
/// Most levels of nesting that can be stored at all: reading them back needs stack.
pub(crate) const MAX_DEPTH: usize = 512;

/// Blobs that a record names: JSON pointer into the record to hash.
pub(crate) type Names = BTreeMap<String, Hash>;

/// A place in a fact that holds a value.
enum Slot<'a> {
    /// A shared value; `true` when it is the value of a step.
    Data(&'a mut Data, bool),
    /// Plain JSON.
    Json(&'a mut Value),
}

impl Slot<'_> {
    fn is_within(&self, levels: usize) -> bool {
        match self {
            Self::Data(data, _) => data.is_within(levels),
            Self::Json(json) => is_within(json, levels),
        }
    }

    fn write_to(&self, out: impl Write) -> serde_json::Result<()> {
        match self {
            Self::Data(data, _) => serde_json::to_writer(out, data),
            Self::Json(json) => serde_json::to_writer(out, json),
        }
    }

    /// Whether it may stay inside its record.
    fn fits_inline(&self) -> bool {
        self.write_to(Budget(INLINE_BYTES)).is_ok() && self.is_within(INLINE_DEPTH)
    }

    fn put(self, value: Value) {
        match self {
            Self::Data(data, true) => *data = Data::of_step(value),
            Self::Data(data, false) => *data = Data::new(value),
            Self::Json(json) => *json = value,
        }
    }
}

/// Every place in `fact` that holds a value, by its JSON pointer in the record.
fn slots(fact: &mut Fact) -> Vec<(String, Slot<'_>)> {
    let plain = |name: &str, data| (name.to_owned(), Slot::Data(data, false));
    match fact {
        Fact::RunStarted { inputs, .. } => vec![plain("/inputs", inputs)],
        Fact::EffectDone { value, .. } => vec![plain("/value", value)],
        Fact::RunEnded { outputs, error, .. } => {
            let mut all = vec![plain("/outputs", outputs)];
            all.extend(error.as_mut().map(|error| details(&mut error.error)));
            all
        }
        Fact::AttemptEnded { end, .. } => {
            let end = end.as_mut();
            let mut all = vec![("/value".to_owned(), Slot::Data(&mut end.value, true))];
            all.extend(end.error.as_mut().map(details));
            all.extend(
                end.set
                    .iter_mut()
                    .enumerate()
                    .map(|(at, set)| (format!("/set/{at}/value"), Slot::Data(&mut set.value, false))),
            );
            all
        }
        Fact::StepSkipped { .. }
        | Fact::AttemptStarted { .. }
        | Fact::SpendReserved { .. }
        | Fact::TimerFired { .. }
        | Fact::RunPaused { .. }
        | Fact::RunResumed { .. } => Vec::new(),
    }
}

fn details(error: &mut StepError) -> (String, Slot<'_>) {
    ("/error/details".to_owned(), Slot::Json(&mut error.details))
}

/// Whether all of `fact` can be stored.
pub(crate) fn check(fact: &mut Fact) -> Result<(), String> {
    match slots(fact).into_iter().find(|(_, slot)| !slot.is_within(MAX_DEPTH)) {
        None => Ok(()),
        Some((pointer, _)) => Err(format!("the value at {pointer} is nested deeper than {MAX_DEPTH} levels")),
    }
}

/// Takes the large values out of `fact` and returns them as bytes; what stays behind is null. Mind [`check`].
pub(crate) fn take_out(fact: &mut Fact, blobs: &mut Vec<(Hash, Vec<u8>)>) -> Result<Names, String> {
    let mut names = Names::new();
    for (pointer, slot) in slots(fact) {
        if slot.fits_inline() {
            continue;
        }
        let mut bytes = Vec::new();
        slot.write_to(&mut bytes).map_err(|error| error.to_string())?;
        let hash = Hash::of_bytes(&bytes);
        blobs.push((hash, bytes));
        names.insert(pointer, hash);
        slot.put(Value::Null);
    }
    Ok(names)
}

/// Puts the values that `names` names back into `fact`, from files that `read` reads. The error says which one is missing or
/// damaged.
pub(crate) fn put_back(
    fact: &mut Fact,
    names: &Names,
    dir: &Path,
    read: impl Fn(&Path) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<(), StoreError> {
    let mut places: BTreeMap<String, Slot<'_>> = slots(fact).into_iter().collect();
    for (pointer, hash) in names {
        let path = dir.join(hash.to_string());
        let Some(slot) = places.remove(pointer) else {
            return Err(disk::damaged(
                &path,
                format!("a record wants it at {pointer}, where no value can be"),
            ));
        };
        let Some(bytes) = read(&path)? else {
            return Err(disk::damaged(&path, "a record names this file, and it is missing"));
        };
        if Hash::of_bytes(&bytes) != *hash {
            return Err(disk::damaged(&path, "its bytes are not those that its name was made from"));
        }
        slot.put(parse(&bytes).map_err(|message| disk::damaged(&path, message))?);
    }
    Ok(())
}

/// Writes a blob unless it is there already, byte for byte. The caller syncs the directory.
pub(crate) fn write(dir: &Path, hash: Hash, bytes: &[u8]) -> Result<(), StoreError> {
    let path = dir.join(hash.to_string());
    if disk::read(&path)?.as_deref() == Some(bytes) {
        return Ok(());
    }
    disk::place(&path, bytes).map_err(|error| disk::write_error(&path, &error))
}

/// Whether the JSON of a record that is no longer than an [`Inline`] one has no value that is to be taken out of it.
pub(crate) fn is_flat(record: &[u8]) -> bool {
    // Counted by itself, as that is much faster.
    let brackets = record.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    brackets <= INLINE_DEPTH || depth_of_text(record) <= INLINE_DEPTH
}

/// Whether a value can be read back at all.
pub(crate) fn is_storable(value: &Value) -> bool {
    is_within(value, MAX_DEPTH)
}

/// Whether any JSON parser can read a file that has the value in it.
pub(crate) fn is_shallow(value: &Value) -> bool {
    is_within(value, INLINE_DEPTH)
}

/// Whether a value has at most so many levels of nesting. Stops at the limit, so a value of any depth is safe to ask about.
pub(crate) fn is_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| is_within(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|field| is_within(field, levels - 1)),
        _ => true,
    }
}

/// A buffer that stops when it has more than a record without blobs may have.
pub(crate) struct Inline<'a>(pub(crate) &'a mut Vec<u8>);

impl Write for Inline<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > INLINE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that counts, and stops when too much was written.
struct Budget(usize);

impl Write for Budget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a blob, which may be nested deeper than the parser's own limit allows, but never deeper than was written.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    if depth_of_text(bytes) > MAX_DEPTH {
        return Err(format!("it is nested deeper than {MAX_DEPTH} levels"));
    }
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser).map_err(|error| error.to_string())?;
    parser.end().map_err(|error| error.to_string())?;
    Ok(value)
}

fn depth_of_text(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            // Outside of strings it is no JSON, which the parser says.
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn the_limit_of_inline_values_is_exact() {
        let fits_inline = |mut value: Value| Slot::Json(&mut value).fits_inline();
        // As docs/run-log-format.md has it: 64 KiB with the quotes.
        assert!(fits_inline(Value::from("x".repeat(65_534))));
        assert!(!fits_inline(Value::from("x".repeat(65_535))));
        assert!(fits_inline(nested(INLINE_DEPTH)));
        assert!(!fits_inline(nested(INLINE_DEPTH + 1)));
    }

    #[test]
    fn a_record_is_given_up_when_it_is_longer_than_an_inline_value() {
        let mut buffer = Vec::new();
        let mut record = Inline(&mut buffer);
        record.write_all("x".repeat(65_535).as_bytes()).unwrap();
        record.write_all(b"x").unwrap();
        assert!(record.write_all(b"x").is_err());
        assert_eq!(buffer.len(), 65_536);
    }

    #[test]
    fn a_record_is_flat_up_to_the_depth_of_an_inline_value() {
        let text = |value: Value| value.to_string();
        assert!(is_flat(text(nested(64)).as_bytes()));
        assert!(!is_flat(text(nested(65)).as_bytes()));
        assert!(is_flat(text(Value::from(vec![nested(1); 100])).as_bytes()), "brackets side by side");
        assert!(is_flat(text(Value::from("[".repeat(100))).as_bytes()), "brackets in a text");
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        assert_eq!(depth_of_text(br#"{"a":["[[[\"[[",[1]]}"#), 3);
        assert_eq!(depth_of_text(br#"{"a":"]]}}",b:[[1]]}"#), 3, "an end in a string ends nothing");
        assert_eq!(
            depth_of_text(br#"{"a\\":[[1]]}"#),
            3,
            "a backslash that stands for itself hides no quote"
        );
        assert_eq!(depth_of_text(b"[[1],[2],{},[[3]]]"), 3, "what has ended is not counted");
        assert_eq!(depth_of_text(b"1"), 0);
    }

    #[test]
    fn maps_count_as_lists_do() {
        let value = json!([{"a": {"b": [1]}}, {}]);
        assert!(is_within(&value, 4) && !is_within(&value, 3));
        assert!(
            is_within(&json!({"a": {}}), 2) && !is_within(&json!({"a": {}}), 1) && !is_within(&json!({}), 0)
        );
        assert!(is_within(&json!("x"), 0));
        let deep = (0..INLINE_DEPTH).fold(json!(1), |inner, _| json!({"a": inner}));
        assert!(is_shallow(&deep) && !is_shallow(&json!([deep])));
    }

    #[test]
    fn the_deepest_value_that_is_stored_can_be_read_on_a_small_stack() {
        let value = nested(MAX_DEPTH);
        assert!(is_storable(&value));
        assert_eq!(parse(&serde_json::to_vec(&value).unwrap()).unwrap(), value);
        assert!(parse(&serde_json::to_vec(&nested(MAX_DEPTH + 1)).unwrap()).is_err());
    }
}
