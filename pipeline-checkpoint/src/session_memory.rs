//! Conversations without a disk.
//!
//! Owns [`MemorySessions`]: what [`FileSessions`](crate::FileSessions) promises, as long as the process lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::error::StepError;
use pipeline_core::store::{Session, SessionLease, SessionStore, SessionSummary, SessionTurn};
use pipeline_core::sync::Mutex;
use pipeline_core::value::Value;
use tokio::sync::OwnedMutexGuard;

use crate::session_file::Queues;
use crate::session_record::{check, fold_turn, has_turn};

/// Sessions that end with the process. Clones share the same sessions.
#[derive(Clone)]
pub struct MemorySessions {
    all: Arc<Mutex<BTreeMap<String, Kept>>>,
    queues: Arc<Queues>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Default)]
struct Kept {
    session: Session,
    silent: Vec<String>,
    updated_at: Timestamp,
}

struct MemoryLease {
    store: MemorySessions,
    kept: Kept,
    _queue: OwnedMutexGuard<()>,
}

impl MemorySessions {
    /// No sessions yet. `clock` tells when turns were made.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { all: Arc::default(), queues: Arc::default(), clock }
    }
}

#[async_trait]
impl SessionStore for MemorySessions {
    async fn lease(&self, name: &str) -> Result<Box<dyn SessionLease>, StepError> {
        let queue = self.queues.enter(name).await;
        let known = self.all.lock().get(name).cloned();
        let kept = known.unwrap_or_else(|| {
            let session = Session { name: name.to_owned(), ..Session::default() };
            Kept { session, ..Kept::default() }
        });
        Ok(Box::new(MemoryLease { store: self.clone(), kept, _queue: queue }))
    }

    async fn read(&self, name: &str) -> Result<Option<Session>, StepError> {
        Ok(self.all.lock().get(name).map(|kept| kept.session.clone()))
    }

    async fn list(&self) -> Result<Vec<SessionSummary>, StepError> {
        let all = self.all.lock();
        let summary = |kept: &Kept| SessionSummary {
            name: kept.session.name.clone(),
            turns: kept.session.turns.len() as u64,
            bytes: 0,
            updated_at: kept.updated_at,
            damage: None,
        };
        Ok(all.values().map(summary).collect())
    }

    async fn remove(&self, name: &str) -> Result<bool, StepError> {
        let _queue = self.queues.enter(name).await;
        Ok(self.all.lock().remove(name).is_some())
    }
}

#[async_trait]
impl SessionLease for MemoryLease {
    fn session(&self) -> &Session {
        &self.kept.session
    }

    fn has(&self, key: &str) -> bool {
        has_turn(&self.kept.session, &self.kept.silent, key)
    }

    async fn append(&mut self, turn: SessionTurn, set: BTreeMap<String, Value>) -> Result<(), StepError> {
        if has_turn(&self.kept.session, &self.kept.silent, &turn.key) {
            return Ok(());
        }
        check(&self.kept.session.name, &turn, &set)?;
        fold_turn(&mut self.kept.session, &mut self.kept.silent, turn, set);
        self.kept.updated_at = self.store.clock.now();
        self.store.all.lock().insert(self.kept.session.name.clone(), self.kept.clone());
        Ok(())
    }
}
