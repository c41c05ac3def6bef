//! Conversations on disk.
//!
//! Owns [`FileSessions`]: one file per session, one lease at a time. Tasks of this process queue up in order; other processes
//! are kept out by the system's lock on the session's own file. Must not know what is in a record (`session_record.rs`).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::store::{Session, SessionLease, SessionStore, SessionSummary, SessionTurn, StoreError};
use pipeline_core::sync::Mutex;
use pipeline_core::value::Value;
use tokio::sync::OwnedMutexGuard;

use crate::disk::{self, Locked};
use crate::session_record::{self, Stored};

const SESSIONS: &str = "sessions";
/// How often to look again at a session that another process has: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(25);

/// Sessions below a state directory, one file each. Cheap to clone; clones and other processes may use the same directory.
///
/// A task that waits for a session is served in the order of asking among those of this store and its clones.
#[derive(Clone)]
pub struct FileSessions {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    queues: Arc<Queues>,
}

/// Whoever works with a session in this process holds its mutex, which serves in the order of asking.
#[derive(Default)]
pub(crate) struct Queues(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Queues {
    /// Waits for everybody who asked before.
    pub(crate) async fn enter(&self, name: &str) -> OwnedMutexGuard<()> {
        let queue = {
            let mut queues = self.0.lock();
            let known = queues.get(name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                // Queues that nobody stands in go with the next one that is made.
                queues.retain(|_, queue| queue.strong_count() > 0);
                let made = Arc::new(tokio::sync::Mutex::new(()));
                queues.insert(name.to_owned(), Arc::downgrade(&made));
                made
            })
        };
        queue.lock_owned().await
    }
}

struct FileLease {
    path: PathBuf,
    /// Its lock is the lease; it goes before the queue does.
    file: Locked,
    stored: Stored,
    clock: Arc<dyn Clock>,
    /// The first error of writing.
    poison: Option<String>,
    _queue: OwnedMutexGuard<()>,
}

impl FileSessions {
    /// Sessions in `state_dir`, whose folder is made when the first one is. `clock` tells when turns were made.
    pub fn new(state_dir: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Self {
        Self { dir: state_dir.as_ref().join(SESSIONS), clock, queues: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(session_record::file_name(name))
    }
}

#[async_trait]
impl SessionStore for FileSessions {
    async fn lease(&self, name: &str) -> Result<Box<dyn SessionLease>, StepError> {
        let queue = self.queues.enter(name).await;
        disk::create_shared_dir(&self.dir)
            .map_err(|error| refused(&disk::directory_error(&self.dir, &error)))?;
        let path = self.path(name);
        let mut file = take(&path).await.map_err(|error| refused(&disk::write_error(&path, &error)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| refused(&disk::directory_error(&path, &error)))?;
        let stored = Stored::read(name, &path, &bytes).map_err(|error| refused(&error))?;
        if stored.is_torn {
            // What was not acknowledged never happened.
            let length = stored.end.map_or(0, |end| end.length);
            let cut = file.set_len(length).and_then(|()| file.sync_all());
            cut.map_err(|error| refused(&disk::write_error(&path, &error)))?;
        }
        let clock = Arc::clone(&self.clock);
        Ok(Box::new(FileLease { path, file, stored, clock, poison: None, _queue: queue }))
    }

    async fn read(&self, name: &str) -> Result<Option<Session>, StepError> {
        let path = self.path(name);
        // A torn end is left as it is: whoever has the session may be writing it at this moment.
        let Some(bytes) = disk::read(&path).map_err(|error| refused(&error))? else { return Ok(None) };
        let stored = Stored::read(name, &path, &bytes).map_err(|error| refused(&error))?;
        Ok(stored.end.map(|_| stored.session))
    }

    async fn list(&self) -> Result<Vec<SessionSummary>, StepError> {
        let failed = |error: &io::Error| refused(&disk::directory_error(&self.dir, error));
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&error))?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                all.extend(summary(&path).map_err(|error| refused(&error))?);
            }
        }
        all.sort_by(|a: &SessionSummary, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn remove(&self, name: &str) -> Result<bool, StepError> {
        let path = self.path(name);
        let _queue = self.queues.enter(name).await;
        if !path.exists() {
            return Ok(false);
        }
        let failed = |error: &io::Error| refused(&disk::write_error(&path, error));
        // Waits for its turn like everybody else, and reads nothing: a damaged session can be removed.
        let file = take(&path).await.map_err(|error| failed(&error))?;
        let had_something = file.metadata().map_err(|error| failed(&error))?.len() > 0;
        fs::remove_file(&path).and_then(|()| disk::sync_dir(&self.dir)).map_err(|error| failed(&error))?;
        Ok(had_something)
    }
}

#[async_trait]
impl SessionLease for FileLease {
    fn session(&self) -> &Session {
        &self.stored.session
    }

    fn has(&self, key: &str) -> bool {
        self.stored.has(key)
    }

    async fn append(&mut self, turn: SessionTurn, set: BTreeMap<String, Value>) -> Result<(), StepError> {
        if let Some(first) = &self.poison {
            let message = format!("an earlier write failed ({first}), so this turn is not written");
            return Err(refused(&StoreError::Write { path: self.path.clone(), message }));
        }
        if self.stored.has(&turn.key) {
            return Ok(());
        }
        session_record::check(&self.stored.session.name, &turn, &set)?;
        let at = self.clock.now();
        let (bytes, end, history) = self.stored.encode(at, &turn, &set).map_err(|message| {
            let name = &self.stored.session.name;
            StepError::invalid(format!("a turn of session `{name}` cannot be stored: {message}"))
        })?;
        if let Err(error) = self.write(&bytes) {
            self.poison = Some(error.to_string());
            return Err(refused(&error));
        }
        self.stored.commit(at, turn, set, (end, history));
        Ok(())
    }
}

impl FileLease {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let path = &self.path;
        let failed = |error: io::Error| disk::write_error(path, &error);
        let (found, expected) =
            (self.file.metadata().map_err(failed)?.len(), self.stored.end.map_or(0, |end| end.length));
        if found != expected {
            let message = format!(
                "it has {found} bytes where this process left {expected}: somebody else writes to it"
            );
            return Err(StoreError::Write { path: path.clone(), message });
        }
        self.file.write_all(bytes).and_then(|()| self.file.sync_data()).map_err(failed)?;
        match path.parent() {
            // The name of a new file is durable with its directory only.
            Some(dir) if expected == 0 => disk::sync_dir(dir).map_err(failed),
            _ => Ok(()),
        }
    }
}

impl Drop for FileLease {
    fn drop(&mut self) {
        if self.stored.end.is_none() && self.poison.is_none() {
            // Nobody said anything: an empty file is no session, and one that stays hurts nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a session's file and waits until nobody else has it.
async fn take(path: &Path) -> io::Result<Locked> {
    let mut pause = FIRST_LOOK;
    loop {
        let file = open(path)?;
        match Locked::alone(file) {
            // The file may have been removed between opening and locking: then this is a lock on nothing.
            Ok(file) if is_there(&file, path) => return Ok(file),
            Ok(_) => {}
            Err((_, TryLockError::WouldBlock)) => {
                tokio::time::sleep(pause).await;
                pause = LAST_LOOK.min(pause * 2);
            }
            Err((_, TryLockError::Error(error))) => return Err(error),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
}

#[cfg(not(unix))]
fn is_there(_file: &File, path: &Path) -> bool {
    // An open file cannot be removed there.
    path.exists()
}

fn summary(path: &Path) -> Result<Option<SessionSummary>, StoreError> {
    let Some(bytes) = disk::read(path)? else { return Ok(None) };
    let named = session_record::name_in(path, &bytes);
    let fallback = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let read = match &named {
        Some(name) => Stored::read(name, path, &bytes),
        // Nothing was ever acknowledged in it, or its first line is damaged: reading it tells which.
        None => Stored::read("", path, &bytes),
    };
    let length = bytes.len() as u64;
    Ok(match read {
        Ok(stored) => stored.end.map(|end| SessionSummary {
            name: named.unwrap_or_else(fallback),
            turns: stored.session.turns.len() as u64,
            bytes: end.length,
            updated_at: stored.updated_at,
            damage: None,
        }),
        Err(error) => Some(SessionSummary {
            name: named.unwrap_or_else(fallback),
            turns: 0,
            bytes: length,
            updated_at: Timestamp::default(),
            damage: Some(error.to_string()),
        }),
    })
}

/// A refusal of the store as a step's error.
pub(crate) fn refused(error: &StoreError) -> StepError {
    let help = match error {
        StoreError::Damaged { .. } => {
            "nothing is guessed: restore the file from a copy, or remove it and begin anew"
        }
        StoreError::Newer { .. } => "use the version of the program that wrote it",
        _ => "check the directory's permissions and the space on the disk",
    };
    StepError::new(ErrorKind::Environment, error.to_string()).help(help)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    /// Naive: a queue for every session that there ever was, for as long as the process lives.
    #[tokio::test]
    async fn queues_that_nobody_stands_in_are_forgotten() {
        let queues = Queues::default();
        let held = queues.enter("held").await;
        for number in 0..10 {
            drop(queues.enter(&number.to_string()).await);
        }
        assert_eq!(queues.0.lock().len(), 2, "the one that is held, and the last that was made");
        drop(held);
    }

    #[tokio::test]
    async fn the_first_turn_makes_the_name_durable_and_a_session_without_turns_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileSessions::new(dir.path(), Arc::new(pipeline_core::clock::SystemClock));
        drop(store.lease("a").await.unwrap());
        assert!(!store.path("a").exists());
        let mut lease = store.lease("a").await.unwrap();
        fs::remove_dir_all(&store.dir).unwrap();
        let turn = pipeline_core::conformance::session::turn("r/a/1");
        assert!(
            lease.append(turn, BTreeMap::new()).await.is_err(),
            "there is no directory that has its name"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_on_a_file_that_was_removed_is_a_lock_on_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let file = open(&path).unwrap();
        assert!(is_there(&file, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_there(&file, &path));
        let _next = open(&path).unwrap();
        assert!(!is_there(&file, &path), "another of the same name");
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let path = PathBuf::from("a.log");
        let help = |error: &StoreError| refused(error).help.unwrap_or_default();
        let damaged = StoreError::Damaged { path: path.clone(), offset: 1, message: String::new() };
        assert!(help(&damaged).contains("restore the file"));
        let newer = StoreError::Newer { path: path.clone(), found: 9, supported: 1 };
        assert!(help(&newer).contains("version of the program"));
        let full = StoreError::Write { path, message: String::new() };
        assert!(help(&full).contains("space on the disk"));
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_the_directory_is_an_error_and_an_empty_session_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("sessions");
        let store = FileSessions::new(dir.path(), Arc::new(pipeline_core::clock::SystemClock));
        assert!(store.list().await.unwrap().is_empty());
        fs::write(&place, b"").unwrap();
        assert!(store.list().await.is_err());
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(store.path("a"), b"").unwrap();
        assert!(!store.remove("a").await.unwrap(), "there was nothing in it");
        assert!(!store.path("a").exists());
    }
}
