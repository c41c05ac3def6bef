//! The files of a run that are written once.
//!
//! Owns `manifest.json` and `source/` (numbered files and an index, as a source's name may be anything). Their hashes
//! go into the journal's first line, so a change of any of their bytes is found. Must not know records.

use std::collections::BTreeMap;
use std::path::Path;

use pipeline_core::store::{Manifest, StoreError, StoredSources};
use pipeline_core::value::{Hash, Value};
use serde::{Deserialize, Serialize};

use crate::blob;
use crate::disk;
use crate::line::FORMAT;

const MANIFEST: &str = "manifest.json";
const SOURCE_DIR: &str = "source";
const INDEX: &str = "index.json";

#[derive(Serialize, Deserialize)]
struct ManifestFile<T> {
    format: u32,
    #[serde(flatten)]
    manifest: T,
}

#[derive(Serialize, Deserialize)]
struct Index {
    root: String,
    files: Vec<IndexEntry>,
    links: Vec<(String, String, String)>,
}

#[derive(Serialize, Deserialize)]
struct IndexEntry {
    /// Canonical name.
    name: String,
    /// Name for people.
    shown: String,
    /// Name of the file beside the index.
    file: String,
    /// Hash of the text.
    hash: Hash,
}

/// Writes the manifest into the run's directory, not yet synced; returns the hash of its bytes.
pub(crate) fn write(dir: &Path, manifest: &Manifest) -> Result<Hash, StoreError> {
    let path = dir.join(MANIFEST);
    // A map of inputs is one level more.
    let inputs = manifest.inputs.values().all(|value| value.is_within(blob::INLINE_DEPTH - 1));
    for (name, is_shallow) in [("inputs", inputs), ("settings", blob::is_shallow(&manifest.settings))] {
        if !is_shallow {
            let message = format!("the {name} are nested deeper than {} levels", blob::INLINE_DEPTH);
            return Err(StoreError::Write { path, message });
        }
    }
    let mut bytes = to_json(&path, &ManifestFile { format: FORMAT, manifest })?;
    bytes.push(b'\n');
    disk::place(&path, &bytes).map_err(|error| disk::write_error(&path, &error))?;
    Ok(Hash::of_bytes(&bytes))
}

/// Reads the manifest. `expected` is the hash that the journal has of it.
pub(crate) fn read(dir: &Path, expected: Hash) -> Result<Manifest, StoreError> {
    let path = dir.join(MANIFEST);
    let bytes = disk::read(&path)?.ok_or_else(|| disk::damaged(&path, "it is missing"))?;
    if Hash::of_bytes(&bytes) != expected {
        return Err(disk::damaged(&path, "it was changed after the run was created"));
    }
    parse(&path, &bytes)
}

/// Reads the manifest without knowing its hash: good enough for a list.
pub(crate) fn glance(dir: &Path) -> Result<Manifest, StoreError> {
    let path = dir.join(MANIFEST);
    let bytes = disk::read(&path)?.ok_or_else(|| disk::damaged(&path, "it is missing"))?;
    parse(&path, &bytes)
}

/// Whether there is a manifest, good or bad.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(MANIFEST).exists()
}

/// What can be told from a manifest that [`glance`] refuses.
pub(crate) fn fragments(dir: &Path) -> Value {
    let bytes = disk::read(&dir.join(MANIFEST)).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, StoreError> {
    let unreadable = |error: serde_json::Error| disk::damaged(path, error.to_string());
    let outline: ManifestFile<BTreeMap<String, Value>> = serde_json::from_slice(bytes).map_err(unreadable)?;
    if outline.format > FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found: outline.format, supported: FORMAT });
    }
    let file: ManifestFile<Manifest> = serde_json::from_slice(bytes).map_err(unreadable)?;
    Ok(file.manifest)
}

/// Writes the sources below the run's directory, durably; returns the hash of the index's bytes.
pub(crate) fn write_sources(dir: &Path, sources: &StoredSources) -> Result<Hash, StoreError> {
    let dir = dir.join(SOURCE_DIR);
    let refused = |error: std::io::Error| disk::write_error(&dir, &error);
    disk::create_dir(&dir).map_err(refused)?;
    let mut files = Vec::with_capacity(sources.files.len());
    for (at, (name, (shown, text))) in sources.files.iter().enumerate() {
        let file = format!("{at:04}.txt");
        disk::place(&dir.join(&file), text.as_bytes()).map_err(refused)?;
        let hash = Hash::of_bytes(text.as_bytes());
        files.push(IndexEntry { name: name.clone(), shown: shown.clone(), file, hash });
    }
    let index = Index { root: sources.root.clone(), files, links: sources.links.clone() };
    let path = dir.join(INDEX);
    let mut bytes = to_json(&path, &index)?;
    bytes.push(b'\n');
    disk::replace(&path, &bytes).map_err(refused)?;
    Ok(Hash::of_bytes(&bytes))
}

/// Reads the sources back, byte for byte. `expected` is the hash that the journal has of the index.
pub(crate) fn read_sources(dir: &Path, expected: Hash) -> Result<StoredSources, StoreError> {
    let dir = dir.join(SOURCE_DIR);
    let path = dir.join(INDEX);
    let bytes = disk::read(&path)?.ok_or_else(|| disk::damaged(&path, "it is missing"))?;
    if Hash::of_bytes(&bytes) != expected {
        return Err(disk::damaged(&path, "it was changed after the run was created"));
    }
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|error| disk::damaged(&path, error.to_string()))?;
    let mut files = BTreeMap::new();
    for entry in index.files {
        let path = dir.join(&entry.file);
        let bytes = disk::read(&path)?.ok_or_else(|| disk::damaged(&path, "it is missing"))?;
        if Hash::of_bytes(&bytes) != entry.hash {
            return Err(disk::damaged(&path, "it was changed after the run was created"));
        }
        let text = String::from_utf8(bytes).map_err(|error| disk::damaged(&path, error.to_string()))?;
        files.insert(entry.name, (entry.shown, text));
    }
    Ok(StoredSources { root: index.root, files, links: index.links })
}

fn to_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::Write { path: path.to_owned(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use pipeline_core::conformance::store::manifest;
    use pipeline_core::value::Data;
    use serde_json::json;

    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!({"a": inner}))
    }

    #[test]
    fn what_no_json_parser_could_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = manifest("r", 1);
        let told =
            |one: &Manifest| write(dir.path(), one).err().map(|error| error.to_string()).unwrap_or_default();
        one.inputs.insert("deep".to_owned(), Data::new(nested(blob::INLINE_DEPTH - 1)));
        one.settings = nested(blob::INLINE_DEPTH);
        let hash = write(dir.path(), &one).unwrap();
        assert_eq!(read(dir.path(), hash).unwrap(), one);
        let mut deeper = one.clone();
        deeper.inputs.insert("deep".to_owned(), Data::new(nested(blob::INLINE_DEPTH)));
        assert!(told(&deeper).contains("the inputs are nested deeper"), "{}", told(&deeper));
        one.settings = nested(blob::INLINE_DEPTH + 1);
        assert!(told(&one).contains("the settings are nested deeper"), "{}", told(&one));
    }

    #[test]
    fn a_newer_manifest_is_told_from_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &manifest("r", 1)).unwrap();
        let path = dir.path().join(MANIFEST);
        let text = std::fs::read_to_string(&path).unwrap();
        let newer =
            text.replacen(&format!("\"format\": {FORMAT}"), &format!("\"format\": {}", FORMAT + 1), 1);
        assert_ne!(newer, text);
        std::fs::write(&path, newer).unwrap();
        assert!(matches!(glance(dir.path()), Err(StoreError::Newer { found, .. }) if found == FORMAT + 1));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(glance(dir.path()), Err(StoreError::Damaged { .. })));
    }
}
