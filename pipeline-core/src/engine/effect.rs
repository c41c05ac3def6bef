//! The doors that a step has in its context: memoised effects and progress.
//!
//! Owns [`EffectPort`] and [`ProgressPort`]. Must not know the journal: requests go to the dispatcher as messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::engine::ledger::{Ledger, Reservation};
use crate::error::{ErrorKind, StepError};
use crate::event::Progress;
use crate::fact::{AttemptEnd, Spend, Usage};
use crate::path::{OpKey, StepPath};
use crate::redact::{Flow, Redactor};
use crate::schedule::BudgetAt;
use crate::tape::{Came, Played, Tape, TapedEffect};
use crate::usage::WorstCase;
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
    /// What it used, for a metered effect.
    pub usage: Option<Usage>,
    /// Its usage stands in the end of an attempt that was put back: it is not counted again.
    pub is_counted: bool,
}

/// A request to make something of an attempt durable; `reply` is answered once it is.
#[derive(Debug)]
pub struct Save {
    /// Which operation it belongs to.
    pub key: OpKey,
    /// Physical attempt that did it.
    pub attempt: u32,
    /// What to save.
    pub what: Saved,
    /// Answered when it is durable; dropped when it never will be.
    pub reply: oneshot::Sender<()>,
}

/// What is saved.
#[derive(Debug)]
pub enum Saved {
    /// An effect is done.
    Effect(DoneEffect),
    /// The effect with this place is about to spend up to this much.
    Reserved(u32, Spend),
    /// Nothing: the tape has no result here. Answered unless the attempt is cut off, as the recorded one may have been.
    Missing,
}

/// What an attempt's effects may spend, and where they are taped.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The account of the run.
    pub ledger: Ledger,
    /// The limits around the attempt.
    pub budgets: Arc<[BudgetAt]>,
    /// Records every effect, or answers from a recording.
    pub tape: Option<Arc<dyn Tape>>,
    /// Takes secrets out of every result.
    pub redactor: Arc<Redactor>,
}

/// Memoised effects of one logical attempt.
#[derive(Clone)]
pub struct EffectPort(Arc<EffectState>);

struct EffectState {
    recorded: Vec<DoneEffect>,
    journal: Option<EffectJournal>,
    around: Surroundings,
    progress: Mutex<EffectProgress>,
}

struct EffectJournal {
    key: OpKey,
    attempt: u32,
    sender: mpsc::Sender<Save>,
}

#[derive(Default)]
struct EffectProgress {
    next: u32,
    done: Vec<DoneEffect>,
    unsaved: Option<DoneEffect>,
    /// Metered effects that were answered from the journal.
    recalled: u32,
    is_metered: bool,
    used: Usage,
    unsettled: Spend,
    put_back: bool,
    has_missed: bool,
    files: BTreeMap<String, Hash>,
}

impl EffectPort {
    /// A port that answers from `recorded` first and sends new effects to `sender` to be saved.
    pub fn new(
        key: OpKey,
        attempt: u32,
        recorded: Vec<DoneEffect>,
        sender: mpsc::Sender<Save>,
        around: Surroundings,
    ) -> Self {
        let journal = Some(EffectJournal { key, attempt, sender });
        Self(Arc::new(EffectState { recorded, journal, around, progress: Mutex::default() }))
    }

    /// A port that remembers nothing: for a step used without an engine.
    pub fn detached() -> Self {
        let around = Surroundings::default();
        Self(Arc::new(EffectState {
            recorded: Vec::new(),
            journal: None,
            around,
            progress: Mutex::default(),
        }))
    }

    /// See [`crate::step::StepContext::effect`].
    ///
    /// # Errors
    /// What `effect` returns, or `Internal` when the journal is gone.
    pub async fn run<F>(
        &self,
        name: &str,
        request: &(impl Serialize + Sync + ?Sized),
        effect: F,
    ) -> Result<Data, StepError>
    where
        F: Future<Output = Result<Value, StepError>> + Send,
    {
        self.once(name, request, None, |_| effect).await.map(|done| done.value)
    }

    /// See [`crate::step::StepContext::metered`].
    ///
    /// # Errors
    /// What `call` returns; `Budget` when its worst case does not fit a limit; `Internal` when the journal is gone.
    pub async fn metered<F>(
        &self,
        name: &str,
        request: &(impl Serialize + Sync + ?Sized),
        worst: WorstCase,
        usage_of: fn(&Value) -> Usage,
        call: impl FnOnce(Option<f64>) -> F + Send,
    ) -> Result<Data, StepError>
    where
        F: Future<Output = Result<Value, StepError>> + Send,
    {
        let port = self.clone();
        let spend = move |ordinal: u32| async move {
            let Some(reservation) = port.reserve(ordinal, worst).await? else { return call(None).await };
            let is_limited = port.0.around.budgets.iter().any(|b| b.max_cost_usd.is_some());
            let mut open = OpenSpend { port: &port, reservation: Some(reservation) };
            let allowed = open.reservation.as_ref().filter(|_| is_limited).map(|r| r.spend().cost_usd);
            let result = call(allowed).await;
            open.settle(&result, usage_of);
            result
        };
        let done = self.once(name, request, Some(usage_of), spend).await;
        let used = match &done {
            Ok(done) if done.is_counted => None,
            Ok(done) => done.usage.or_else(|| Some(usage_of(done.value.json()))),
            Err(error) => error.usage.as_deref().copied(),
        };
        let mut progress = self.0.progress.lock();
        progress.is_metered = true;
        if let Some(used) = used {
            progress.used.add(&used);
        }
        done.map(|done| done.value)
    }

    /// Puts into an attempt's end what its metered effects used.
    pub(super) fn account(&self, end: &mut AttemptEnd) {
        let progress = self.0.progress.lock();
        if progress.is_metered || !progress.unsettled.is_zero() {
            end.usage = progress.used;
        }
        end.unsettled = progress.unsettled;
        end.files.clone_from(&progress.files);
        end.put_back |= progress.put_back && !end.status.is_success();
    }

    /// See [`crate::step::StepContext::has_read`].
    pub fn has_read(&self, path: String, content: Hash) {
        self.0.progress.lock().files.insert(path, content);
    }

    /// What an attempt that is put back leaves: the effect that is not durable yet, and all effects for the next attempt.
    pub(super) fn leave(&self) -> (Option<DoneEffect>, Vec<DoneEffect>) {
        let mut progress = self.0.progress.lock();
        let done = std::mem::take(&mut progress.done);
        let all = done.into_iter().map(|done| DoneEffect { is_counted: true, ..done }).collect();
        (progress.unsaved.take(), all)
    }

    /// What the metered effects of this attempt used so far.
    pub fn used(&self) -> Usage {
        self.0.progress.lock().used
    }

    /// See [`crate::step::StepContext::recalled`].
    pub fn recalled(&self) -> u32 {
        self.0.progress.lock().recalled
    }

    async fn once<F>(
        &self,
        name: &str,
        request: &(impl Serialize + Sync + ?Sized),
        usage_of: Option<fn(&Value) -> Usage>,
        effect: impl FnOnce(u32) -> F,
    ) -> Result<DoneEffect, StepError>
    where
        F: Future<Output = Result<Value, StepError>> + Send,
    {
        let hash = Hash::of(request);
        let (ordinal, unsaved) = {
            let mut progress = self.0.progress.lock();
            let ordinal = progress.next;
            progress.next += 1;
            (ordinal, progress.unsaved.take())
        };
        if let Some(done) = self.0.recorded.iter().find(|d| d.ordinal == ordinal && d.name == name)
            && done.request == hash
        {
            let mut progress = self.0.progress.lock();
            progress.recalled += u32::from(done.usage.is_some() && !done.is_counted);
            progress.done.push(done.clone());
            return Ok(done.clone());
        }
        if let Some(effect) = unsaved {
            self.save(Saved::Effect(effect)).await?;
        }
        let value = Data::new(self.taped(ordinal, name, request, effect).await?);
        let usage = usage_of.map(|usage_of| usage_of(value.json()));
        let name = name.to_owned();
        let done = DoneEffect { ordinal, name, request: hash, value, usage, is_counted: false };
        let mut progress = self.0.progress.lock();
        progress.done.push(done.clone());
        progress.unsaved = Some(done.clone());
        Ok(done)
    }

    /// Does the effect, with the tape where there is one.
    async fn taped<F>(
        &self,
        ordinal: u32,
        name: &str,
        request: &(impl Serialize + Sync + ?Sized),
        effect: impl FnOnce(u32) -> F,
    ) -> Result<Value, StepError>
    where
        F: Future<Output = Result<Value, StepError>> + Send,
    {
        let (Some(tape), Some(journal)) = (&self.0.around.tape, &self.0.journal) else {
            return self.without_secrets(effect(ordinal).await);
        };
        let request = serde_json::to_value(request)
            .map_err(|e| StepError::new(ErrorKind::Internal, format!("a request is no JSON: {e}")))?;
        let taped = TapedEffect { key: &journal.key, ordinal, name, request: &request };
        match tape.play(&taped) {
            Played::Result(result) => return result,
            Played::Missing(miss) => {
                self.save(Saved::Missing).await?;
                return Err(self.missed(*miss));
            }
            Played::Differs(miss) => return Err(self.missed(*miss)),
            Played::Nothing => {}
        }
        let open = OpenTape { tape: &**tape, effect: Some(taped) };
        let result = self.without_secrets(effect(ordinal).await);
        open.close(&result)?;
        result
    }

    fn missed(&self, miss: StepError) -> StepError {
        self.0.progress.lock().has_missed = true;
        miss
    }

    /// Whether an effect of this attempt was not on the tape.
    pub(super) fn has_missed(&self) -> bool {
        self.0.progress.lock().has_missed
    }

    /// What came from outside has no secret in it from here on, in no file and no message.
    fn without_secrets(&self, result: Result<Value, StepError>) -> Result<Value, StepError> {
        let redactor = &self.0.around.redactor;
        match result {
            Ok(value) => Ok(redactor.cleaned(value)),
            Err(error) => Err(redactor.error(error)),
        }
    }

    /// Reserves the worst case of a call, durably.
    async fn reserve(&self, ordinal: u32, worst: WorstCase) -> Result<Option<Reservation>, StepError> {
        let around = &self.0.around;
        let reservation = around.ledger.reserve(&around.budgets, worst).await.map_err(|refusal| {
            self.0.progress.lock().put_back |= refusal.is_of_run;
            refusal.error
        })?;
        if let Some(reservation) = &reservation {
            self.save(Saved::Reserved(ordinal, reservation.spend())).await?;
        }
        Ok(reservation)
    }

    async fn save(&self, what: Saved) -> Result<(), StepError> {
        let Some(journal) = &self.0.journal else { return Ok(()) };
        let closed = || StepError::new(ErrorKind::Internal, "the journal is closed");
        let (reply, saved) = oneshot::channel();
        let save = Save { key: journal.key.clone(), attempt: journal.attempt, what, reply };
        journal.sender.send(save).await.map_err(|_| closed())?;
        saved.await.map_err(|_| closed())
    }
}

/// An effect that is taped as cut off when its attempt is.
struct OpenTape<'a> {
    tape: &'a dyn Tape,
    effect: Option<TapedEffect<'a>>,
}

impl OpenTape<'_> {
    fn close(mut self, result: &Result<Value, StepError>) -> Result<(), StepError> {
        self.effect.take().map_or(Ok(()), |effect| self.tape.record(&effect, Came::Result(result)))
    }
}

impl Drop for OpenTape<'_> {
    fn drop(&mut self) {
        if let Some(effect) = self.effect.take() {
            // A tape that cannot be written says so where the attempt's end is put on it.
            let _ = self.tape.record(&effect, Came::CutOff);
        }
    }
}

/// A reservation that counts as spent when the call is cut off.
struct OpenSpend<'a> {
    port: &'a EffectPort,
    reservation: Option<Reservation>,
}

impl OpenSpend<'_> {
    fn settle(&mut self, result: &Result<Value, StepError>, usage_of: fn(&Value) -> Usage) {
        let usage = match result {
            Ok(value) => Some(usage_of(value)),
            Err(error) => error.usage.as_deref().copied().or_else(|| error.kind.is_free().then(free)),
        };
        if let Some(usage) = usage
            && let Some(reservation) = self.reservation.take()
        {
            let unsettled = reservation.settle(&usage);
            self.port.0.progress.lock().unsettled.add(&unsettled);
        }
    }
}

fn free() -> Usage {
    Usage { cost_usd: Some(0.0), ..Usage::default() }
}

impl Drop for OpenSpend<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.port.0.progress.lock().unsettled.add(&reservation.spend());
        }
    }
}

/// Disposable progress of one attempt.
#[derive(Clone)]
pub struct ProgressPort {
    path: StepPath,
    sender: Option<mpsc::Sender<Progress>>,
    redactor: Arc<Redactor>,
    text: Arc<Mutex<Flow>>,
}

impl ProgressPort {
    /// A port that sends to `sender` and drops what does not fit.
    pub fn new(path: StepPath, sender: mpsc::Sender<Progress>, redactor: Arc<Redactor>) -> Self {
        Self { path, sender: Some(sender), redactor, text: Arc::default() }
    }

    /// A port that nobody listens to.
    pub fn detached() -> Self {
        Self { path: StepPath::root(), sender: None, redactor: Arc::default(), text: Arc::default() }
    }

    /// A piece of an answer.
    pub fn text(&self, text: &str) {
        let text = self.text.lock().push(&self.redactor, text);
        if !text.is_empty() {
            self.send(|path| Progress::Text { path, text });
        }
    }

    /// A word about what is going on.
    pub fn note(&self, text: &str) {
        self.send(|path| Progress::Note { path, text: self.redactor.text(text) });
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
