//! The doors that a step has in its context: memoised effects and progress.
//!
//! Owns [`EffectPort`] and [`ProgressPort`]. Must not know the journal: requests go to the dispatcher as messages.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::error::{ErrorKind, StepError};
use crate::event::Progress;
use crate::fact::Usage;
use crate::path::{OpKey, StepPath};
use crate::value::{Data, Hash, Value};

/// A finished effect of one logical attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct DoneEffect {
    /// Its place among the effects of the attempt, from 0.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Hash of its request.
    pub request: Hash,
    /// Its result.
    pub value: Data,
}

/// A request to make an effect durable; `reply` is answered once it is.
#[derive(Debug)]
pub struct SaveEffect {
    /// Which operation it belongs to.
    pub key: OpKey,
    /// Physical attempt that did it.
    pub attempt: u32,
    /// What to save.
    pub effect: DoneEffect,
    /// Answered when it is durable; dropped when it never will be.
    pub reply: oneshot::Sender<()>,
}

/// Memoised effects of one logical attempt.
#[derive(Clone)]
pub struct EffectPort(Arc<EffectState>);

struct EffectState {
    recorded: Vec<DoneEffect>,
    journal: Option<EffectJournal>,
    progress: Mutex<EffectProgress>,
}

struct EffectJournal {
    key: OpKey,
    attempt: u32,
    sender: mpsc::Sender<SaveEffect>,
}

#[derive(Default)]
struct EffectProgress {
    next: u32,
    unsaved: Option<DoneEffect>,
}

impl EffectPort {
    /// A port that answers from `recorded` first and sends new effects to `sender` to be saved.
    pub fn new(
        key: OpKey,
        attempt: u32,
        recorded: Vec<DoneEffect>,
        sender: mpsc::Sender<SaveEffect>,
    ) -> Self {
        let journal = Some(EffectJournal { key, attempt, sender });
        Self(Arc::new(EffectState { recorded, journal, progress: Mutex::default() }))
    }

    /// A port that remembers nothing: for a step used without an engine.
    pub fn detached() -> Self {
        Self(Arc::new(EffectState { recorded: Vec::new(), journal: None, progress: Mutex::default() }))
    }

    /// See [`crate::step::StepContext::effect`].
    ///
    /// # Errors
    /// What `effect` returns, or `Internal` when the journal is gone.
    pub async fn run<F>(&self, name: &str, request: &Value, effect: F) -> Result<Data, StepError>
    where
        F: Future<Output = Result<Value, StepError>> + Send,
    {
        let request = Hash::of(request);
        let (ordinal, unsaved) = {
            let mut progress = self.0.progress.lock();
            let ordinal = progress.next;
            progress.next += 1;
            (ordinal, progress.unsaved.take())
        };
        if let Some(done) = self.0.recorded.iter().find(|d| d.ordinal == ordinal && d.name == name)
            && done.request == request
        {
            return Ok(done.value.clone());
        }
        if let (Some(effect), Some(journal)) = (unsaved, &self.0.journal) {
            let closed = || StepError::new(ErrorKind::Internal, "the journal is closed");
            let (reply, saved) = oneshot::channel();
            let save = SaveEffect { key: journal.key.clone(), attempt: journal.attempt, effect, reply };
            journal.sender.send(save).await.map_err(|_| closed())?;
            saved.await.map_err(|_| closed())?;
        }
        let value = Data::new(effect.await?);
        let done = DoneEffect { ordinal, name: name.to_owned(), request, value: value.clone() };
        self.0.progress.lock().unsaved = Some(done);
        Ok(value)
    }
}

/// Disposable progress of one attempt.
#[derive(Clone)]
pub struct ProgressPort {
    path: StepPath,
    sender: Option<mpsc::Sender<Progress>>,
}

impl ProgressPort {
    /// A port that sends to `sender` and drops what does not fit.
    pub fn new(path: StepPath, sender: mpsc::Sender<Progress>) -> Self {
        Self { path, sender: Some(sender) }
    }

    /// A port that nobody listens to.
    pub fn detached() -> Self {
        Self { path: StepPath::root(), sender: None }
    }

    /// A piece of an answer.
    pub fn text(&self, text: &str) {
        self.send(|path| Progress::Text { path, text: text.to_owned() });
    }

    /// A word about what is going on.
    pub fn note(&self, text: &str) {
        self.send(|path| Progress::Note { path, text: text.to_owned() });
    }

    /// What a model call has used so far.
    pub fn usage(&self, usage: &Usage) {
        self.send(|path| Progress::Usage { path, usage: *usage });
    }

    fn send(&self, make: impl FnOnce(StepPath) -> Progress) {
        if let Some(sender) = &self.sender {
            // A full queue means that nobody keeps up: progress is disposable.
            let _ = sender.try_send(make(self.path.clone()));
        }
    }
}
