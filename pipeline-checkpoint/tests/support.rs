//! What the tests share: a store in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pipeline_checkpoint::FileStore;
use pipeline_core::clock::Timestamp;
use pipeline_core::conformance::store::manifest;
use pipeline_core::fact::{Fact, Record, RunStatus};
use pipeline_core::store::{CheckpointStore, RunLog, StoredSources};
use pipeline_core::value::Data;
use tempfile::TempDir;

/// A file store whose directory goes when this does.
pub struct Temporary {
    pub store: FileStore,
    dir: TempDir,
}

impl Temporary {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: FileStore::new(dir.path().join("state")), dir }
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A file or directory of a run.
    pub fn file(&self, run: &str, name: &str) -> PathBuf {
        self.state().join("runs").join(run).join(name)
    }

    /// Creates a run with one small source file.
    pub async fn create(&self, run: &str, at: i64) -> Box<dyn RunLog> {
        self.store.create(&manifest(run, at), &sources()).await.unwrap()
    }

    /// Creates a run that has ended.
    pub async fn finished(&self, run: &str, at: i64) {
        let mut log = self.create(run, at).await;
        write(&mut *log, vec![ended()]).await;
    }
}

pub fn sources() -> StoredSources {
    let files = [("/p/main.yaml".to_owned(), ("main.yaml".to_owned(), "name: demo\n".to_owned()))];
    StoredSources { root: "/p/main.yaml".to_owned(), files: files.into(), links: Vec::new() }
}

pub fn ended() -> Fact {
    Fact::RunEnded { status: RunStatus::Ok, outputs: Data::null(), error: None }
}

pub async fn write(log: &mut dyn RunLog, facts: Vec<Fact>) -> Vec<Record> {
    let records = log.append(Timestamp(1_700_000_000_000), 10, facts).unwrap();
    log.flush().await.unwrap();
    records.into_iter().map(Arc::unwrap_or_clone).collect()
}

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits for a future on a thread that has no runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Names the state directory to the second process of a test: the test's own program, run again.
pub const CHILD: &str = "PIPELINE_CHECKPOINT_TEST_CHILD";

/// In the second process of a test, the state directory that it is to work in.
#[expect(clippy::disallowed_methods, reason = "how a test tells its second process what to do")]
pub fn state_of_child() -> Option<PathBuf> {
    std::env::var(CHILD).ok().map(PathBuf::from)
}

/// The test of that path again, in a process of its own.
pub fn child(test: &str, temporary: &Temporary) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, temporary.state()).stdout(Stdio::piped());
    command
}
