//! The one place that spawns tasks.
//!
//! Owns [`TaskScope`]: every task has a key; how it ended comes back as data, panics too; dropping the scope aborts all.

use std::any::Any;
use std::collections::HashMap;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::error::{ErrorKind, StepError};
use crate::fact::AttemptEnd;
use crate::path::OpKey;
use crate::planted::{Bug, planted};

/// The tasks of one run.
#[derive(Default)]
pub(super) struct TaskScope {
    tasks: JoinSet<Box<AttemptEnd>>,
    keys: HashMap<Id, OpKey>,
    handles: HashMap<OpKey, AbortHandle>,
}

impl TaskScope {
    /// Starts a task under a key.
    pub(super) fn spawn(&mut self, key: OpKey, task: impl Future<Output = Box<AttemptEnd>> + Send + 'static) {
        let handle = if planted(Bug::BareSpawn) {
            #[expect(clippy::disallowed_methods, reason = "the bug")]
            let task = tokio::spawn(task);
            self.tasks.spawn(async { task.await.unwrap_or_else(|_| Box::new(AttemptEnd::stopped())) })
        } else {
            self.tasks.spawn(task)
        };
        self.keys.insert(handle.id(), key.clone());
        self.handles.insert(key, handle);
    }

    /// Stops a task; it is reported as cancelled, unless it has just ended.
    pub(super) fn abort(&self, key: &OpKey) {
        if let Some(handle) = self.handles.get(key) {
            handle.abort();
        }
    }

    /// The next task that ended; never resolves while there is none.
    pub(super) async fn next(&mut self) -> (OpKey, Box<AttemptEnd>) {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(ended) => {
                    if let Some(ended) = self.ended(ended) {
                        return ended;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// A task that has ended already.
    pub(super) fn try_next(&mut self) -> Option<(OpKey, Box<AttemptEnd>)> {
        loop {
            let ended = self.tasks.try_join_next_with_id()?;
            if let Some(ended) = self.ended(ended) {
                return Some(ended);
            }
        }
    }

    /// Aborts every task and waits until all are gone.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
        self.keys.clear();
        self.handles.clear();
    }

    fn ended(&mut self, ended: Result<(Id, Box<AttemptEnd>), JoinError>) -> Option<(OpKey, Box<AttemptEnd>)> {
        let (id, end) = match ended {
            Ok((id, end)) => (id, end),
            Err(error) => (error.id(), Box::new(broken(error))),
        };
        let key = self.keys.remove(&id)?;
        self.handles.remove(&key);
        Some((key, end))
    }
}

fn broken(error: JoinError) -> AttemptEnd {
    if error.is_cancelled() {
        return AttemptEnd::stopped();
    }
    let words = error.try_into_panic().map_or_else(|e| e.to_string(), |panic| panic_words(panic.as_ref()));
    let error = StepError::new(ErrorKind::Panicked, format!("the step's code panicked: {words}"));
    AttemptEnd::failed(error.help("this is a fault of the step; the other steps are not touched by it"))
}

pub(super) fn panic_words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}
