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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;

    use pipeline_core::clock::SystemClock;
    use pipeline_core::conformance::session::turn;
    use pipeline_core::redact::Redactor;
    use pipeline_core::store::SessionTurn;

    use super::*;
    use crate::MemorySessions;
    use crate::tape::tests::recorder;

    async fn sessions_with(keys: &[&str]) -> Arc<MemorySessions> {
        let store = Arc::new(MemorySessions::new(Arc::new(SystemClock)));
        let mut lease = store.lease("chat").await.unwrap();
        for key in keys {
            lease.append(turn(key), BTreeMap::new()).await.unwrap();
        }
        drop(lease);
        store
    }

    fn keys(session: Option<Session>) -> Vec<String> {
        session.map(|session| session.turns.into_iter().map(|turn| turn.key).collect()).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_read_is_on_the_tape_and_a_replay_reads_that_until_it_says_something() {
        let dir = tempfile::tempdir().unwrap();
        let tape = Arc::new(recorder(dir.path()));
        let recording = TapedSessions::new(sessions_with(&["before/a/1"]).await, tape);
        assert_eq!(keys(recording.read("chat").await.unwrap()), ["before/a/1"]);
        assert_eq!(recording.list().await.unwrap().len(), 1);
        drop(recording);

        let (tape, _) = FileTape::replay(dir.path(), Redactor::default()).unwrap();
        let tape = Arc::new(tape);
        let replay = TapedSessions::new(sessions_with(&[]).await, Arc::clone(&tape));
        assert_eq!(keys(replay.read("chat").await.unwrap()), ["before/a/1"]);
        drop(replay.lease("chat").await.unwrap());
        assert!(replay.remove("chat").await.unwrap());
        assert!(!replay.remove("chat").await.unwrap());

        let silent = sessions_with(&[]).await;
        let set = BTreeMap::from([("n".to_owned(), 1.into())]);
        let said = SessionTurn { messages: Vec::new(), ..turn("r/a/2") };
        silent.lease("chat").await.unwrap().append(said, set).await.unwrap();
        let silent = TapedSessions::new(silent, Arc::clone(&tape));
        assert_eq!(keys(silent.read("chat").await.unwrap()), ["before/a/1"], "only variables were set");

        let own = TapedSessions::new(sessions_with(&["r/a/1"]).await, tape);
        assert_eq!(keys(own.read("chat").await.unwrap()), ["r/a/1"]);
        assert_eq!(keys(Some(own.lease("chat").await.unwrap().session().clone())), ["r/a/1"]);
    }
}
