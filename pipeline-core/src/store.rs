//! Contracts for what outlives a process.
//!
//! Owns [`CheckpointStore`] (runs), [`RunLog`] (the facts of one run) and [`OutputWriter`]. Each method says when
//! durability begins. Must not know formats or file systems. Next: pipeline-checkpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::StepError;
use crate::fact::{Fact, Record, RunStatus};
use crate::source::{LoadedSource, Referrer, SourceError, SourceLoader, SourceRef};
use crate::value::{Data, Hash, Value};

/// What a run is made of, apart from its facts. Written once, when the run is created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The run's id (UUIDv7: sorts by time, cannot be guessed).
    pub run_id: String,
    /// The workflow's name.
    pub workflow: String,
    /// The pipeline file, as given.
    pub source_path: String,
    /// Canonical folder of the pipeline file: prompt files are looked up here.
    pub pipeline_dir: PathBuf,
    /// Hash of all source texts together.
    pub source_hash: Hash,
    /// Fingerprint of the compiled plan.
    pub plan: Hash,
    /// `live`, `mock`, `mixed`, `replay`. A mock run never resumes live.
    pub mode: String,
    /// The checked inputs.
    pub inputs: BTreeMap<String, Data>,
    /// What else the composition root must know to go on: directories, mock rules, permission flags, overrides.
    pub settings: Value,
    /// When it was created.
    pub created_at: Timestamp,
    /// Version of the program that created it.
    pub program: String,
}

/// The texts a run was compiled from, by canonical name. `root` names the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSources {
    /// Canonical name of the root file.
    pub root: String,
    /// Every file: canonical name to (name shown to people, text).
    pub files: BTreeMap<String, (String, String)>,
    /// How each reference was resolved: (from canonical, reference) to canonical.
    pub links: Vec<(String, String, String)>,
}

/// A run goes on with the texts that it began with, whatever the files say now.
impl SourceLoader for StoredSources {
    fn load(&self, reference: &SourceRef, from: Option<Referrer<'_>>) -> Result<LoadedSource, SourceError> {
        let canonical = match from {
            None => Some(&self.root),
            Some(Referrer { file: from, .. }) => {
                let text = match reference {
                    SourceRef::Path(path) => format!("path:{path}"),
                    SourceRef::Library(name) => format!("library:{name}"),
                };
                self.links.iter().find(|(f, r, _)| f == from && *r == text).map(|(_, _, to)| to)
            }
        };
        let found = canonical.and_then(|c| Some((c, self.files.get(c)?)));
        let Some((canonical, (display, text))) = found else {
            let message = format!("the run has not stored the source {reference:?}");
            return Err(SourceError { message, help: None });
        };
        Ok(LoadedSource { display: display.clone(), canonical: canonical.clone(), text: text.clone() })
    }

    fn data_file_exists(&self, _path: &str, _from: &str) -> Option<bool> {
        None
    }
}

/// Why a store refused. Carries what a person needs to go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The bytes could not be written or flushed. The log is poisoned: nothing after this is acknowledged.
    #[error("cannot write {path}: {message}")]
    Write {
        /// File.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// The state directory cannot be used at all.
    #[error("cannot use the state directory {path}: {message}")]
    Directory {
        /// Directory.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// There is no such run.
    #[error("there is no run {run}")]
    Unknown {
        /// What was asked for.
        run: String,
    },
    /// Another process owns the run.
    #[error("run {run} is held by process {pid}")]
    Held {
        /// Run.
        run: String,
        /// Its owner, 0 when it cannot be told.
        pid: u32,
    },
    /// A record before the last is damaged. Nothing is guessed.
    #[error("{path} is damaged at byte {offset}: {message}")]
    Damaged {
        /// File.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What.
        message: String,
    },
    /// Written by a newer version of the program.
    #[error("{path} has format {found}, and this program reads up to {supported}")]
    Newer {
        /// File.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format read here.
        supported: u32,
    },
}

/// Runs that outlive a process.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Creates a run. When it returns, manifest, sources and the empty journal are durable, `latest` names the run and
    /// this process owns it.
    ///
    /// # Errors
    /// [`StoreError::Directory`] or [`StoreError::Write`]; a run id that exists is a `Write` error, never reused.
    async fn create(
        &self,
        manifest: &Manifest,
        sources: &StoredSources,
    ) -> Result<Box<dyn RunLog>, StoreError>;

    /// Takes an existing run over: this process owns it until the log is dropped.
    ///
    /// Repairs a torn tail (the bytes of a record that was never acknowledged) and says so in [`OpenedRun::repaired`].
    ///
    /// # Errors
    /// [`StoreError::Held`], [`StoreError::Unknown`], [`StoreError::Damaged`], [`StoreError::Newer`].
    async fn open(&self, run: &str) -> Result<OpenedRun, StoreError>;

    /// Reads a run without owning it; what a live owner has not flushed may be missing.
    ///
    /// # Errors
    /// As [`CheckpointStore::open`], but never `Held`.
    async fn read(&self, run: &str) -> Result<StoredRun, StoreError>;

    /// All runs, newest first. Damaged ones are listed with what is known.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    async fn list(&self) -> Result<Vec<RunSummary>, StoreError>;

    /// The id of the newest run.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    async fn latest(&self) -> Result<Option<String>, StoreError>;

    /// Removes a run and everything that is stored of it, whether it has ended or not.
    ///
    /// # Errors
    /// [`StoreError::Held`] while a process works on it, [`StoreError::Unknown`], [`StoreError::Directory`].
    async fn remove(&self, run: &str) -> Result<(), StoreError>;
}

/// The facts of one run, owned by this process. Dropping it gives up ownership.
#[async_trait]
pub trait RunLog: Send {
    /// Adds facts, in order, at one time; returns their records. They are *not* durable until a later
    /// [`RunLog::commit`] resolves. Never blocks on the disk. Large values go to blobs, which are durable before the record that names
    /// them is.
    ///
    /// # Errors
    /// [`StoreError::Write`] when the log is poisoned.
    fn append(
        &mut self,
        at: Timestamp,
        elapsed_ms: u64,
        facts: Vec<Fact>,
    ) -> Result<Vec<Arc<Record>>, StoreError>;

    /// Begins to make everything appended so far durable. It is once the future resolves; what is appended meanwhile
    /// belongs to the next commit. The write goes on when the future is dropped, and never overtakes an earlier one.
    ///
    /// The future resolves to [`StoreError::Write`] when that failed: the log is poisoned from then on, and nothing
    /// appended since the last good commit counts.
    fn commit(&mut self) -> Commit;

    /// Makes everything appended so far durable, and waits for it.
    ///
    /// # Errors
    /// As [`RunLog::commit`].
    async fn flush(&mut self) -> Result<(), StoreError> {
        self.commit().await
    }
}

/// A write on its way to the disk.
pub type Commit = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// A run that was taken over.
pub struct OpenedRun {
    /// Everything read.
    pub stored: StoredRun,
    /// Where new facts go.
    pub log: Box<dyn RunLog>,
    /// What was dropped from a torn tail, for people.
    pub repaired: Option<String>,
}

/// A run as it was read.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// Manifest.
    pub manifest: Manifest,
    /// Sources.
    pub sources: StoredSources,
    /// Facts, in order; blobs are loaded into their values.
    pub records: Vec<Record>,
    /// The process that holds it, where another than the reader does; 0 when it cannot be told which.
    pub pid: Option<u32>,
}

/// One line of `runs list`.
#[derive(Debug, Clone, Serialize)]
pub struct RunSummary {
    /// Run id.
    pub run_id: String,
    /// Workflow name.
    pub workflow: String,
    /// Status as far as the facts tell; `running` only while a process holds the run, else `interrupted`.
    pub status: RunStatus,
    /// When it was created.
    pub started_at: Timestamp,
    /// `live`, `mock`, …
    pub mode: String,
    /// The pipeline file.
    pub source_path: String,
    /// Process that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// Writes the files that `output_to_file` names.
#[async_trait]
pub trait OutputWriter: Send + Sync {
    /// Writes `text` to `name` below the output directory, atomically: the whole file is there, or none of it.
    ///
    /// # Errors
    /// `Denied` for a name that leaves the directory, `Environment` when the disk refuses.
    async fn write(&self, run: &crate::step::RunInfo, name: &str, text: &str) -> Result<PathBuf, StepError>;
}

/// Conversations that outlive a step, and where they say so a run.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Takes a session for one turn: whoever else asks for it, in this process or another, waits. A session that does
    /// not exist begins empty. Dropping the lease gives it back.
    ///
    /// # Errors
    /// `Environment` when it cannot be read or is damaged.
    async fn lease(&self, name: &str) -> Result<Box<dyn SessionLease>, StepError>;

    /// What is stored of a session, without taking it; `None` when there is none.
    ///
    /// # Errors
    /// As [`SessionStore::lease`].
    async fn read(&self, name: &str) -> Result<Option<Session>, StepError>;

    /// All sessions, by name.
    ///
    /// # Errors
    /// As [`SessionStore::lease`].
    async fn list(&self) -> Result<Vec<SessionSummary>, StepError>;

    /// Removes a session; false when there is none.
    ///
    /// # Errors
    /// As [`SessionStore::lease`].
    async fn remove(&self, name: &str) -> Result<bool, StepError>;
}

/// A session that is taken for one turn.
#[async_trait]
pub trait SessionLease: Send + Sync {
    /// What is stored.
    fn session(&self) -> &Session;

    /// Whether the turn of this key is stored, be it one that only set variables.
    fn has(&self, key: &str) -> bool;

    /// Adds a turn and sets variables in one atomic step; durable when it returns. A turn whose `key` is that of a stored
    /// turn is not added again, and sets nothing: an attempt that a crash cut off may come back. A turn without messages
    /// only sets variables: it is kept for its key and is not among [`Session::turns`].
    ///
    /// # Errors
    /// `Environment` when it cannot be written.
    async fn append(&mut self, turn: SessionTurn, set: BTreeMap<String, Value>) -> Result<(), StepError>;
}

/// What is stored of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub name: String,
    /// Turns, oldest first.
    pub turns: Vec<SessionTurn>,
    /// Variables of scope `session`.
    pub variables: BTreeMap<String, Value>,
}

/// One turn of a session: a question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionTurn {
    /// Idempotency key of the attempt that made it (`run/step/attempt-group`).
    pub key: String,
    /// What was said, in order: the prompt, the answer, and what lies between.
    pub messages: Vec<crate::message::Message>,
    /// The provider that answered.
    pub provider: String,
    /// The provider's own session id, to go on with.
    pub provider_session: Option<String>,
    /// What it used.
    pub usage: crate::fact::Usage,
}

/// One line of `sessions list`.
#[derive(Debug, Clone, Serialize)]
pub struct SessionSummary {
    /// Its name.
    pub name: String,
    /// Turns.
    pub turns: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// Why it cannot be used, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// Values by name that outlive a run: snapshots of the step `checkpoint`, cached results of steps.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// Saves a value, atomically, in the place of what had the name. Durable when it returns.
    ///
    /// # Errors
    /// `Environment` when it cannot be written, `Invalid` for a name that cannot be one.
    async fn save(&self, space: SnapshotSpace, name: &str, value: &Value) -> Result<(), StepError>;

    /// What was saved under a name, and when; `None` when there is nothing.
    ///
    /// # Errors
    /// `Environment` when it cannot be read or is damaged.
    async fn load(&self, space: SnapshotSpace, name: &str) -> Result<Option<(Value, Timestamp)>, StepError>;
}

/// What a snapshot is for; names of one space do not meet those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotSpace {
    /// The step `checkpoint`.
    Checkpoint,
    /// Results of steps with `cache`, by fingerprint.
    Cache,
}

/// Runs jq programs somewhere where they can do no harm: they may end the process that runs them, or never end.
#[async_trait]
pub trait JqHost: Send + Sync {
    /// The outputs of `program` on `input`.
    ///
    /// # Errors
    /// `Invalid` with the place in the program for one that does not compile or fails, `TooLarge`, `TimedOut`.
    async fn run(
        &self,
        program: &str,
        input: &Value,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<Value>, StepError>;
}
