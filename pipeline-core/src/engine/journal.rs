//! What a run has appended: gathered, on its way to the disk, durable.
//!
//! Owns [`Journal`] and [`Batch`]. While one batch is on its way, the next is gathered; so a slow disk delays what waits for
//! it, and nobody else. Must not know what the facts mean.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::fact::{Fact, Record};
use crate::store::{Commit, RunLog, StoreError};
use crate::tape::{RunTime, Tape};

/// So many records that nobody waits for are not left to the next that somebody does: who waits then would wait for all of them.
const MANY: usize = 256;

/// The journal of one run, as the dispatcher writes it.
pub(super) struct Journal {
    log: Box<dyn RunLog>,
    /// Keeps when each fact was made.
    tape: Option<Arc<dyn Tape>>,
    /// Appended, not yet told, and not yet on its way to the disk.
    gathered: Batch,
    /// How many of them are waited for.
    awaited: usize,
    /// Records appended since the last commit began.
    loose: usize,
    /// On its way to the disk.
    committing: Option<(Commit, Batch)>,
}

/// Records that become durable together, and who waits for that.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) replies: Vec<oneshot::Sender<()>>,
}

impl Journal {
    pub(super) fn new(log: Box<dyn RunLog>, tape: Option<Arc<dyn Tape>>) -> Self {
        Self { log, tape, gathered: Batch::default(), awaited: 0, loose: 0, committing: None }
    }

    /// Appends facts that nobody waits for: they become durable with the next that somebody does. Gives the records that may be
    /// told at once; while earlier ones are untold they come with those, so that everybody is told in the order of the journal.
    pub(super) fn append(&mut self, time: RunTime, facts: Vec<Fact>) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut records = self.write(time, facts)?;
        if !self.is_settled() {
            self.gathered.records.append(&mut records);
        }
        Ok(records)
    }

    /// Appends facts that [`Journal::durable`] gives back.
    pub(super) fn gather(
        &mut self,
        time: RunTime,
        facts: Vec<Fact>,
        replies: Vec<oneshot::Sender<()>>,
    ) -> Result<(), StoreError> {
        self.awaited += facts.len();
        let records = self.write(time, facts)?;
        self.gathered.records.extend(records);
        self.gathered.replies.extend(replies);
        Ok(())
    }

    fn write(&mut self, time: RunTime, facts: Vec<Fact>) -> Result<Vec<Arc<Record>>, StoreError> {
        let records = self.log.append(time.at, time.elapsed_ms, facts)?;
        if let Some(tape) = &self.tape {
            records.iter().try_for_each(|record| tape.made(record))?;
        }
        self.loose += records.len();
        Ok(records)
    }

    /// Whether everything gathered is durable and was given back.
    pub(super) fn is_settled(&self) -> bool {
        self.committing.is_none() && self.gathered.records.is_empty()
    }

    /// Whether a batch is on its way to the disk.
    pub(super) fn is_busy(&self) -> bool {
        self.committing.is_some()
    }

    /// Sends what was gathered on its way, unless an earlier batch still is: then more is gathered.
    pub(super) fn commit(&mut self) {
        let is_worth_it = self.awaited > 0 || self.loose >= MANY;
        if self.committing.is_none() && is_worth_it {
            (self.loose, self.awaited) = (0, 0);
            self.committing = Some((self.log.commit(), std::mem::take(&mut self.gathered)));
        }
    }

    /// The batch on its way, once it has arrived; never, while there is none. Nothing is lost when this is dropped.
    pub(super) async fn durable(&mut self) -> Result<Batch, StoreError> {
        match &mut self.committing {
            Some((commit, _)) => commit.await?,
            None => std::future::pending().await,
        }
        let mut batch = self.committing.take().map(|(_, batch)| batch).unwrap_or_default();
        if self.awaited == 0 {
            // Nobody waits for what came after it: it was only to be told in its turn.
            batch.records.append(&mut self.gathered.records);
        }
        Ok(batch)
    }

    /// Makes all that was appended durable, and gives back what was gathered.
    pub(super) async fn settle(&mut self) -> Result<Vec<Batch>, StoreError> {
        self.flush().await?;
        self.awaited = 0;
        let before = self.committing.take().map(|(_, batch)| batch);
        Ok(before.into_iter().chain([std::mem::take(&mut self.gathered)]).collect())
    }

    /// Makes all that was appended durable.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.loose = 0;
        self.log.flush().await
    }
}
