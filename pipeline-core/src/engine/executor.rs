//! One attempt of one step: deadline, call, output file.
//!
//! Everything that can go wrong in here comes back as an [`AttemptEnd`]. Panics are caught one level up, by the task scope.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::Services;
use crate::clock::Timestamp;
use crate::engine::effect::{EffectPort, ProgressPort};
use crate::engine::lasting::{self, Keeper};
use crate::error::{ErrorKind, StepError};
use crate::fact::{Assignment, AttemptEnd, Status};
use crate::path::OpKey;
use crate::redact::Redactor;
use crate::schedule::{TaskCall, TaskWork, asks_to_park};
use crate::step::{RunInfo, StepContext, StepOutput};
use crate::store::{SnapshotSpace, SnapshotStore};
use crate::value::{Data, Value};

/// How far away a deadline of "none" is: far beyond any run, and a number that instants can take.
const NO_DEADLINE: Duration = Duration::from_hours(24 * 365 * 10);

/// What an attempt is given beside its call.
pub(super) struct Attempt {
    pub(super) key: OpKey,
    pub(super) number: u32,
    pub(super) run: Arc<RunInfo>,
    pub(super) services: Arc<Services>,
    pub(super) effects: EffectPort,
    pub(super) progress: ProgressPort,
    pub(super) cancel: CancellationToken,
    /// Its time is over, whatever the clock says.
    pub(super) overdue: CancellationToken,
    /// In a replay, how much longer it may take than its deadline.
    pub(super) grace: Option<Grace>,
    pub(super) now: Timestamp,
}

/// What is given to an attempt that is replayed: it may be slower today, and it waits for its turn before it goes on.
#[derive(Clone)]
pub(super) struct Grace {
    /// Its deadline holds all the same: the tape says so, or nothing is waited for any more.
    pub(super) is_over: CancellationToken,
    /// The longest grace.
    pub(super) most: Duration,
}

/// Runs one attempt to its end.
pub(super) async fn execute(attempt: Attempt, call: Box<TaskCall>) -> Box<AttemptEnd> {
    let begun = Instant::now();
    let limit = call.timeout.unwrap_or(NO_DEADLINE);
    let deadline = begun + limit;
    let (is_fallback, may_park) = (call.is_fallback, call.may_park);
    let redactor = Arc::clone(&attempt.services.redactor);
    let overdue = attempt.overdue.clone();
    let grace = attempt.grace.clone();
    let last = grace.as_ref().map_or(deadline, |grace| deadline + grace.most);
    let worked = tokio::select! {
        biased;
        worked = work(attempt, call, last) => Ok(worked),
        () = passed(deadline, grace) => Err(()),
        () = overdue.cancelled() => Err(()),
    };
    let mut end = Box::new(match worked {
        Ok(Ok(Worked::Stale(now))) => lasting::stale(now),
        Ok(Ok(Worked::Done(output))) => AttemptEnd {
            status: if is_fallback && output.status == Status::Ok { Status::Degraded } else { output.status },
            value: Data::of_step(output.value),
            usage: output.usage,
            set: output.set,
            warnings: output.warnings.iter().map(|warning| redactor.text(warning)).collect(),
            ..AttemptEnd::ok(Value::Null)
        },
        Ok(Err(error)) => AttemptEnd::failed(redactor.error(error)),
        Err(()) => AttemptEnd::failed(
            StepError::new(ErrorKind::TimedOut, format!("it did not end within {limit:?}"))
                .help("give it a longer `timeout`, or see why it hangs"),
        ),
    });
    end.put_back |= may_park && end.error.as_ref().is_some_and(|e| asks_to_park(e).is_some());
    end.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    end
}

/// Waits until the deadline is over, and the grace.
async fn passed(deadline: Instant, grace: Option<Grace>) {
    tokio::time::sleep_until(deadline).await;
    if let Some(Grace { is_over, most }) = grace {
        // Over at the latest when it has lasted that long: both mean the same.
        let _ = tokio::time::timeout(most, is_over.cancelled()).await;
    }
}

/// What came of the work.
enum Worked {
    Done(StepOutput),
    /// Another run has set lasting variables since this one last saw them: these are their values.
    Stale(Vec<Assignment>),
}

/// A thousand attempts may wait at once: what few of them do is boxed, so that the others need no room for it.
async fn work(attempt: Attempt, call: Box<TaskCall>, deadline: Instant) -> Result<Worked, StepError> {
    let keeper = Keeper {
        sessions: attempt.services.sessions.clone(),
        effects: attempt.effects.clone(),
        run: Arc::clone(&attempt.run),
        attempt: attempt.key.clone(),
    };
    let (run, services) = (Arc::clone(&attempt.run), Arc::clone(&attempt.services));
    let kept = Kept::of(&call, &run, &services, attempt.now);
    let cached = match &kept {
        Some(kept) => kept.answer().await?,
        None => None,
    };
    let output = match call.work {
        TaskWork::Keep { merges } => StepOutput {
            set: Box::pin(keeper.merge(call.lasting.as_ref(), &merges)).await?,
            ..StepOutput::ok(Value::Null)
        },
        TaskWork::WriteOutput { value } => StepOutput::ok(services.redactor.cleaned(value.into_json())),
        TaskWork::Step { .. } if cached.is_some() => StepOutput::ok(cached.unwrap_or_default()),
        TaskWork::Step { kind, with } => {
            let step = services.catalog.step(&kind).cloned().ok_or_else(|| {
                StepError::new(ErrorKind::Internal, format!("there is no step type `{kind}` in this program"))
            })?;
            let cx = StepContext {
                key: attempt.key,
                attempt: attempt.number,
                deadline,
                workspace: match &call.workspace {
                    Some(own) => attempt.run.dirs.workspace.join(own),
                    None => attempt.run.dirs.workspace.clone(),
                },
                cancel: attempt.cancel,
                run: attempt.run,
                services: attempt.services,
                effects: attempt.effects,
                progress: attempt.progress,
            };
            let output = without_secrets(&services.redactor, step.run(&cx, with).await?);
            if let Some(lasting) = &call.lasting
                && let Some(now) = Box::pin(keeper.keep(lasting, &output.set)).await?
            {
                return Ok(Worked::Stale(now));
            }
            if let Some(kept) = kept.filter(|_| output.status == Status::Ok) {
                kept.keep(&output.value).await?;
            }
            output
        }
    };
    if let Some(file) = call.output_file {
        let text = output.file_text.clone().unwrap_or_else(|| file_text(&output.value));
        services.outputs.write(&run, &file, &text).await?;
    }
    Ok(Worked::Done(output))
}

/// What a step makes of its configuration alone passes no effect: an expression may have read a secret variable.
fn without_secrets(redactor: &Redactor, mut output: StepOutput) -> StepOutput {
    if !redactor.is_empty() {
        output.value = redactor.cleaned(output.value);
        output.file_text = output.file_text.map(|text| redactor.text(&text));
        for assignment in &mut output.set {
            assignment.value = redactor.cleaned_data(&assignment.value);
        }
    }
    output
}

/// An answer that is kept for later runs, under the fingerprint of its question.
struct Kept {
    store: Arc<dyn SnapshotStore>,
    name: String,
    oldest: Option<Timestamp>,
}

impl Kept {
    fn of(call: &TaskCall, run: &RunInfo, services: &Services, now: Timestamp) -> Option<Self> {
        let (cache, store) = (call.cache?, services.snapshots.clone()?);
        // What a mock answered is no answer to a live question.
        let name = format!("{}{}", if run.mock { "mock-" } else { "" }, call.fingerprint);
        let age = cache.max_age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        Some(Self { store, name, oldest: age.map(|age| Timestamp(now.0.saturating_sub(age))) })
    }

    async fn answer(&self) -> Result<Option<Value>, StepError> {
        let found = self.store.load(SnapshotSpace::Cache, &self.name).await?;
        Ok(found.filter(|(_, at)| self.oldest.is_none_or(|oldest| *at >= oldest)).map(|(value, _)| value))
    }

    async fn keep(&self, value: &Value) -> Result<(), StepError> {
        self.store.save(SnapshotSpace::Cache, &self.name, value).await
    }
}

/// What an output file gets: the primary value, text as it is, anything else as JSON.
fn file_text(value: &Value) -> String {
    match Data::of_step(value.clone()).primary() {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_else(|_| other.to_string()),
    }
}
