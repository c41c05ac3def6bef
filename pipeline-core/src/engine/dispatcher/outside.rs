//! What completes because the outside says so: answers of people, accounts that may be used again, time.
//!
//! Owns what the dispatcher does with them. What waits is in `waiting.rs`.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::time::{Duration, Instant};

use super::{Dispatcher, Settled};
use crate::engine::backend::Backend;
use crate::engine::waiting::OnceAnswer;
use crate::fact::AttemptEnd;
use crate::path::OpKey;
use crate::schedule::{Op, Question};
use crate::tape::{Came, Played, TapedEffect};
use crate::value::Value;

impl Dispatcher {
    /// Asks a person, or the tape that has the answer.
    pub(super) fn ask(&mut self, key: OpKey, question: Question) {
        let request = request(&question);
        match self.services.tape.as_ref().map(|tape| tape.play(&taped(&key, &request))) {
            Some(Played::Result(Ok(answer))) => {
                let end = Box::new(AttemptEnd::ok(answer));
                self.settled.push_back((key, Settled::Ended(end)));
            }
            _ => self.waiting.ask(key, question),
        }
    }

    /// Whether every answer has its question and fits it.
    ///
    /// # Errors
    /// All that do not, a sentence each.
    pub(in crate::engine) fn check_answers(&self, answers: &BTreeMap<String, Value>) -> Result<(), String> {
        let wrong: Vec<String> =
            answers.iter().filter_map(|(path, answer)| self.waiting.check(path, answer).err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// Takes in an answer of a person.
    ///
    /// # Errors
    /// A sentence when nothing waits there, or when the answer does not fit.
    pub(in crate::engine) fn answer(&mut self, path: &str, answer: Value) -> Result<(), String> {
        self.waiting.check(path, &answer)?;
        if let Some((key, question)) = self.waiting.question(path)
            && let Some(tape) = &self.services.tape
        {
            let came = Ok(answer.clone());
            tape.record(&taped(key, &request(question)), Came::Result(&came)).map_err(|e| e.message)?;
        }
        match self.waiting.answer(path, answer)? {
            (key, OnceAnswer::Ended(end)) => self.settled.push_back((key, Settled::Ended(end))),
            (key, OnceAnswer::Rerun(call)) => self.start(key, Op::Task(call)),
        }
        Ok(())
    }

    /// Lets every parked account be used at once.
    pub(in crate::engine) fn unpark_all(&mut self) {
        while let Some(key) = self.waiting.unparked(self.time.now().at, true) {
            self.settled.push_back((key, Settled::Fired));
        }
    }

    /// Completes what waited for wall time.
    pub(super) fn wake(&mut self) {
        let now = self.time.now().at;
        while let Some((key, end)) = self.waiting.overdue(now) {
            self.settled.push_back((key, Settled::Ended(Box::new(end))));
        }
        while let Some(key) = self.waiting.unparked(now, false) {
            self.settled.push_back((key, Settled::Fired));
        }
    }

    /// When something that waits for its time is due.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.following.order.is_kept() {
            return self.following.patience();
        }
        let timer = self.timers.next_due().and_then(|elapsed_ms| self.time.instant_at(elapsed_ms));
        let outside = self.waiting.next_due().and_then(|at| {
            let wait = u64::try_from(at.0.saturating_sub(self.time.now().at.0)).unwrap_or(0);
            Instant::now().checked_add(Duration::from_millis(wait))
        });
        timer.into_iter().chain(outside).chain(self.watch.due()).min()
    }
}

/// A question as an effect: what the answer depends on.
fn request(question: &Question) -> Value {
    json!({ "message": question.message, "choices": question.choices })
}

fn taped<'a>(key: &'a OpKey, request: &'a Value) -> TapedEffect<'a> {
    TapedEffect { key, ordinal: 0, name: "answer", request }
}
