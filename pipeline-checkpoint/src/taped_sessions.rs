//! The conversations of a run that is recorded or replayed.
//!
//! Owns [`TapedSessions`]: a recording keeps what was said before the run in every conversation that it takes up, and a replay
//! begins with that, in a store of its own: what it says never gets among what was said. Must not know where they are kept.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::error::StepError;
use pipeline_core::store::{Session, SessionLease, SessionStore, SessionSummary};

use crate::tape::FileTape;

/// Sessions beside a tape.
pub struct TapedSessions {
    inner: Arc<dyn SessionStore>,
    tape: Arc<FileTape>,
}

impl TapedSessions {
    /// While recording, `inner` is where sessions are kept; in a replay it belongs to that run alone.
    pub fn new(inner: Arc<dyn SessionStore>, tape: Arc<FileTape>) -> Self {
        Self { inner, tape }
    }
}

#[async_trait]
impl SessionStore for TapedSessions {
    async fn lease(&self, name: &str) -> Result<Box<dyn SessionLease>, StepError> {
        let mut lease = self.inner.lease(name).await?;
        match self.tape.session(name) {
            Some(before) if lease.session().turns.is_empty() => {
                for turn in before.turns {
                    lease.append(turn, before.variables.clone()).await?;
                }
            }
            _ => self.tape.keep_session(lease.session())?,
        }
        Ok(lease)
    }

    async fn read(&self, name: &str) -> Result<Option<Session>, StepError> {
        let read = self.inner.read(name).await?;
        match &read {
            Some(session) if !session.turns.is_empty() => self.tape.keep_session(session)?,
            _ => return Ok(self.tape.session(name).or(read)),
        }
        Ok(read)
    }

    async fn list(&self) -> Result<Vec<SessionSummary>, StepError> {
        self.inner.list().await
    }

    async fn remove(&self, name: &str) -> Result<bool, StepError> {
        self.inner.remove(name).await
    }
}
