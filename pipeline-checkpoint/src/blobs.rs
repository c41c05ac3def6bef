//! Large values: files named by their content, so that the journal stays small and readable.
//!
//! A field of a record whose JSON is over [`LIMIT`] bytes is replaced by `FIELD@blob: HASH`.

use std::io;
use std::path::{Path, PathBuf};

use pipeline_core::store::StoreError;
use pipeline_core::value::{Hash, Value};

use crate::files;

/// Bytes of a record from which its values are looked at.
const LIMIT: usize = 64 << 10;

/// Fields that may hold large values.
const FIELDS: [&str; 4] = ["value", "outputs", "inputs", "set"];

/// A value that is to be written before the record that names it.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) hash: Hash,
    pub(crate) bytes: Vec<u8>,
}

/// The record's JSON with its large values taken out.
pub(crate) fn split(json: String) -> (String, Vec<Blob>) {
    let mut blobs = Vec::new();
    if json.len() <= LIMIT {
        return (json, blobs);
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&json) else { return (json, blobs) };
    for name in FIELDS {
        let Some(value) = fields.get(name) else { continue };
        let bytes = value.to_string().into_bytes();
        if bytes.len() > LIMIT {
            let hash = Hash::of_bytes(&bytes);
            fields.insert(format!("{name}@blob"), Value::String(hash.to_string()));
            fields.shift_remove(name);
            blobs.push(Blob { hash, bytes });
        }
    }
    (Value::Object(fields).to_string(), blobs)
}

/// Writes a blob; one that is there already is left alone.
pub(crate) fn write(dir: &Path, blob: &Blob) -> io::Result<()> {
    let path = dir.join(blob.hash.to_string());
    if path.exists() { Ok(()) } else { files::write_atomic(&path, &blob.bytes) }
}

/// The record's JSON with its large values put back.
pub(crate) fn join(dir: &Path, json: &str) -> Result<String, StoreError> {
    if !json.contains("@blob\"") {
        return Ok(json.to_owned());
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str(json) else { return Ok(json.to_owned()) };
    for name in FIELDS {
        let Some(Value::String(hash)) = fields.shift_remove(&format!("{name}@blob")) else { continue };
        fields.insert(name.to_owned(), read(&dir.join(&hash), &hash)?);
    }
    Ok(Value::Object(fields).to_string())
}

fn read(path: &PathBuf, hash: &str) -> Result<Value, StoreError> {
    let damaged = |message: String| StoreError::Damaged { path: path.clone(), offset: 0, message };
    let bytes =
        std::fs::read(path).map_err(|e| damaged(format!("a value of the journal cannot be read: {e}")))?;
    if Hash::of_bytes(&bytes).to_string() != hash {
        return Err(damaged("its content does not have the hash of its name".to_owned()));
    }
    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
}
