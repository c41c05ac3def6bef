//! What waits for something outside of the run: an answer of a person, an account's quota.
//!
//! Owns [`Waiting`]. Both may take days, so they are measured on wall time, and a run that has nothing else to do is put
//! down until then. Must not know tasks or the journal.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::engine::backend::Stop;
use crate::error::{ErrorKind, StepError};
use crate::fact::{AttemptEnd, Status};
use crate::path::{OpKey, StepPath};
use crate::schedule::{Question, TaskCall};
use crate::value::{Data, Value};

/// Everything that waits.
#[derive(Default)]
pub(super) struct Waiting {
    questions: BTreeMap<OpKey, Question>,
    /// Attempts that a crash cut off, and whose effects must not happen twice.
    once: BTreeMap<OpKey, Box<TaskCall>>,
    parked: BTreeMap<(Timestamp, u64), (OpKey, String)>,
    serial: u64,
}

/// What an answer to a cut attempt with `effects: once` comes to.
pub(super) enum OnceAnswer {
    Rerun(Box<TaskCall>),
    Ended(Box<AttemptEnd>),
}

impl Waiting {
    pub(super) fn ask(&mut self, key: OpKey, question: Question) {
        self.questions.insert(key, question);
    }

    pub(super) fn ask_once(&mut self, key: OpKey, call: Box<TaskCall>) {
        self.once.insert(key, call);
    }

    pub(super) fn park(&mut self, key: OpKey, until: Timestamp, message: String) {
        self.serial += 1;
        self.parked.insert((until, self.serial), (key, message));
    }

    /// Forgets an operation; true when it was a question, which must still complete.
    pub(super) fn remove(&mut self, key: &OpKey) -> bool {
        self.parked.retain(|_, (k, _)| k != key);
        self.questions.remove(key).is_some() || self.once.remove(key).is_some()
    }

    /// A question whose time is over, with what that comes to.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Option<(OpKey, AttemptEnd)> {
        let key = self.questions.iter().find(|(_, q)| q.until.is_some_and(|t| t <= now))?.0.clone();
        let question = self.questions.remove(&key)?;
        Some((key, unanswered(question)))
    }

    /// An account that may be used again; all of them when `at_once`.
    pub(super) fn unparked(&mut self, now: Timestamp, at_once: bool) -> Option<OpKey> {
        let (&place, _) = self.parked.first_key_value()?;
        if place.0 > now && !at_once {
            return None;
        }
        self.parked.remove(&place).map(|(key, _)| key)
    }

    /// The question that is asked at a place.
    pub(super) fn question(&self, path: &str) -> Option<(&OpKey, &Question)> {
        self.questions.iter().find(|(key, _)| key.path.as_str() == path)
    }

    /// Lets this account be used again; false when it is not waited for.
    pub(super) fn unpark(&mut self, key: &OpKey) -> bool {
        let place = self.parked.iter().find(|(_, (k, _))| k == key).map(|(place, _)| *place);
        place.is_some_and(|place| self.parked.remove(&place).is_some())
    }

    /// Ends this question as one that nobody answered in time; `None` when it has all the time.
    pub(super) fn give_up(&mut self, key: &OpKey) -> Option<AttemptEnd> {
        self.questions.get(key)?.until?;
        self.questions.remove(key).map(unanswered)
    }

    /// When something that waits will be due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let parked = self.parked.keys().next().map(|(until, _)| *until);
        let asked = self.questions.values().filter_map(|q| q.until).min();
        match (parked, asked) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Why a run that has nothing else to do stops. A question comes before a quota: a person can go on at once.
    pub(super) fn stop(&self) -> Option<Stop> {
        if let Some((key, question)) = self.questions.first_key_value() {
            return Some(Stop::Person { path: key.path.clone(), message: question.message.clone() });
        }
        if let Some(key) = self.once.keys().next() {
            let message =
                "it was running when the process died, and its effects must not happen twice; answer \
                           `rerun`, `fail` or {\"value\": …}"
                    .to_owned();
            return Some(Stop::Person { path: key.path.clone(), message });
        }
        let (&(until, _), (_, message)) = self.parked.first_key_value()?;
        Some(Stop::Parked { until, message: message.clone() })
    }

    /// The open questions, by path.
    pub(super) fn open(&self) -> Vec<(StepPath, Question)> {
        let once = self.once.keys().map(|k| (k.path.clone(), once_question()));
        self.questions.iter().map(|(k, q)| (k.path.clone(), q.clone())).chain(once).collect()
    }

    /// Whether `answer` fits what waits at `path`.
    ///
    /// # Errors
    /// A sentence when nothing waits there, or when it does not fit.
    pub(super) fn check(&self, path: &str, answer: &Value) -> Result<(), String> {
        if let Some((_, question)) = self.question(path) {
            return question.fits(answer).map_err(|why| format!("`{path}`: {why}"));
        }
        if !self.once.keys().any(|k| k.path.as_str() == path) {
            return Err(nothing_waits(path, self));
        }
        if answer.get("value").is_some() || once_question().fits(answer).is_ok() {
            return Ok(());
        }
        Err(format!("`{path}` is answered by `rerun`, `fail` or {{\"value\": …}}, and not by {answer}"))
    }

    /// Takes an answer in; gives what the attempt comes to.
    ///
    /// # Errors
    /// As [`Waiting::check`].
    pub(super) fn answer(&mut self, path: &str, answer: Value) -> Result<(OpKey, OnceAnswer), String> {
        self.check(path, &answer)?;
        if let Some(key) = self.question(path).map(|(key, _)| key.clone()) {
            self.questions.remove(&key);
            return Ok((key, OnceAnswer::Ended(Box::new(AttemptEnd::ok(answer)))));
        }
        let key = self.once.keys().find(|k| k.path.as_str() == path).cloned();
        let Some((key, call)) = key.and_then(|key| self.once.remove_entry(&key)) else {
            return Err(nothing_waits(path, self));
        };
        let ended = match (answer.get("value"), answer.as_str()) {
            (Some(value), _) => AttemptEnd::ok(value.clone()),
            (None, Some("rerun")) => return Ok((key, OnceAnswer::Rerun(call))),
            (None, _) => {
                let error = StepError::new(ErrorKind::Cancelled, "a person decided that it failed");
                AttemptEnd { status: Status::Failed, ..AttemptEnd::failed(error) }
            }
        };
        Ok((key, OnceAnswer::Ended(Box::new(ended))))
    }
}

fn nothing_waits(path: &str, waiting: &Waiting) -> String {
    let open: Vec<String> = waiting.open().into_iter().map(|(path, _)| format!("`{path}`")).collect();
    match open.as_slice() {
        [] => format!("`{path}` does not wait for an answer; nothing does"),
        open => format!("`{path}` does not wait for an answer; what does: {}", open.join(", ")),
    }
}

fn once_question() -> Question {
    Question {
        message: "it was running when the process died; what now?".to_owned(),
        choices: vec!["rerun".into(), "fail".into()],
        ..Question::default()
    }
}

/// Nobody answered in time: the default, which is a declared fallback, or a failure.
fn unanswered(question: Question) -> AttemptEnd {
    match question.default {
        Some(value) => {
            AttemptEnd { status: Status::Degraded, ..AttemptEnd::ok(Data::new(value).into_json()) }
        }
        None => AttemptEnd::failed(
            StepError::new(ErrorKind::TimedOut, "nobody answered in time")
                .help("give it a longer `timeout`, or a `default`"),
        ),
    }
}
