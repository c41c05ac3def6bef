//! Values by name that outlive a run.
//!
//! Owns [`FileSnapshots`] (one file a value, replaced as a whole) and [`MemorySnapshots`]. A name may be any text: the file's
//! name is its hash, and the file says the name. Must not know what is saved or when it is too old.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::error::StepError;
use pipeline_core::store::{SnapshotSpace, SnapshotStore, StoreError};
use pipeline_core::value::{Hash, Value};
use serde::{Deserialize, Serialize};

use crate::blob;
use crate::disk;
use crate::line::{self, HeadError, Kind};
use crate::session_file::refused;

/// Version of snapshot files that this program writes, and the newest that it reads.
pub const SNAPSHOT_FORMAT: u32 = 1;

const KIND: Kind = Kind { magic: "pipeline-snapshot", format: SNAPSHOT_FORMAT };

/// The first line's JSON; the value's is the second line.
#[derive(Serialize, Deserialize)]
struct Head {
    name: String,
    at: Timestamp,
    /// Hash of the second line without its end.
    value: Hash,
}

/// Snapshots below a state directory. Cheap to clone; other processes may use the same directory.
#[derive(Clone)]
pub struct FileSnapshots {
    state_dir: PathBuf,
    clock: Arc<dyn Clock>,
}

/// A value, and when it was saved.
type Saved = (Value, Timestamp);

/// Snapshots that end with the process. Clones share the same ones.
#[derive(Clone)]
pub struct MemorySnapshots {
    all: Arc<Mutex<BTreeMap<(SnapshotSpace, String), Saved>>>,
    clock: Arc<dyn Clock>,
}

impl FileSnapshots {
    /// Snapshots in `state_dir`, whose folders are made when they are needed. `clock` tells when a value was saved.
    pub fn new(state_dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self { state_dir: state_dir.into(), clock }
    }

    fn dir(&self, space: SnapshotSpace) -> PathBuf {
        self.state_dir.join(match space {
            SnapshotSpace::Checkpoint => "snapshots",
            SnapshotSpace::Cache => "cache",
        })
    }

    fn path(&self, space: SnapshotSpace, name: &str) -> PathBuf {
        self.dir(space).join(format!("{}.json", Hash::of_bytes(name.as_bytes())))
    }
}

impl MemorySnapshots {
    /// No snapshots yet. `clock` tells when a value was saved.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { all: Arc::default(), clock }
    }
}

#[async_trait]
impl SnapshotStore for FileSnapshots {
    async fn save(&self, space: SnapshotSpace, name: &str, value: &Value) -> Result<(), StepError> {
        check(name, value)?;
        let dir = self.dir(space);
        disk::create_shared_dir(&dir).map_err(|error| refused(&disk::directory_error(&dir, &error)))?;
        let path = self.path(space, name);
        let failed = |error: std::io::Error| refused(&disk::write_error(&path, &error));
        let mut json = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
        let head = Head { name: name.to_owned(), at: self.clock.now(), value: Hash::of_bytes(&json) };
        let (mut bytes, _) = line::encode_first(KIND, &head).map_err(|error| failed(error.into()))?;
        bytes.append(&mut json);
        bytes.push(b'\n');
        disk::replace(&path, &bytes).map_err(failed)
    }

    async fn load(&self, space: SnapshotSpace, name: &str) -> Result<Option<(Value, Timestamp)>, StepError> {
        let path = self.path(space, name);
        let Some(bytes) = disk::read(&path).map_err(|error| refused(&error))? else { return Ok(None) };
        decode(name, &path, &bytes).map(Some).map_err(|error| refused(&error))
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    async fn save(&self, space: SnapshotSpace, name: &str, value: &Value) -> Result<(), StepError> {
        check(name, value)?;
        self.all.lock().insert((space, name.to_owned()), (value.clone(), self.clock.now()));
        Ok(())
    }

    async fn load(&self, space: SnapshotSpace, name: &str) -> Result<Option<(Value, Timestamp)>, StepError> {
        Ok(self.all.lock().get(&(space, name.to_owned())).cloned())
    }
}

fn check(name: &str, value: &Value) -> Result<(), StepError> {
    if name.trim().is_empty() {
        return Err(StepError::invalid("a snapshot needs a name, and this one is empty")
            .help("name it, for example `after-review`"));
    }
    if !blob::is_storable(value) {
        let message = format!(
            "the snapshot `{name}` is nested deeper than {} levels, which cannot be stored",
            blob::MAX_DEPTH
        );
        return Err(StepError::invalid(message).help("save less of it"));
    }
    Ok(())
}

fn decode(name: &str, path: &Path, bytes: &[u8]) -> Result<(Value, Timestamp), StoreError> {
    let damaged = |message: &str| disk::damaged(path, message);
    let first = bytes.iter().position(|byte| *byte == b'\n');
    let first = first.ok_or_else(|| damaged("the first line has no end"))?;
    let (head, _) = line::decode_first::<Head>(KIND, &bytes[..first]).map_err(|error| match error {
        HeadError::Newer(found) => StoreError::Newer { path: path.to_owned(), found, supported: KIND.format },
        HeadError::Damaged(message) => damaged(&message),
    })?;
    if head.name != name {
        return Err(damaged(&format!("this is the snapshot `{}`, not `{name}`", head.name)));
    }
    let json = bytes[first + 1..].strip_suffix(b"\n").ok_or_else(|| damaged("its end is missing"))?;
    if Hash::of_bytes(json) != head.value {
        let message = "the value is not the one that was saved".to_owned();
        return Err(StoreError::Damaged { path: path.to_owned(), offset: first as u64 + 1, message });
    }
    let value = blob::parse(json).map_err(|message| damaged(&message))?;
    Ok((value, head.at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_value_that_changed_is_damage_where_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileSnapshots::new(dir.path(), Arc::new(pipeline_core::clock::SystemClock));
        store.save(SnapshotSpace::Checkpoint, "a", &json!("text")).await.unwrap();
        let path = store.path(SnapshotSpace::Checkpoint, "a");
        let mut bytes = std::fs::read(&path).unwrap();
        let value = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        bytes[value + 1] ^= 1;
        let damaged = decode("a", &path, &bytes).unwrap_err();
        assert!(matches!(damaged, StoreError::Damaged { offset, .. } if offset == value as u64), "{damaged}");
    }
}
