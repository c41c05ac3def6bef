//! What observers see: facts, once they are durable, and disposable progress.
//!
//! Owns [`Event`], [`Progress`], [`Hears`] and [`EventSink`]. Observers cannot hurt: each has a bounded queue of its own; one that is
//! slow loses progress (never facts, until its queue's limit), one that panics goes on behind the event that it panicked at,
//! a few times, and is then dropped and reported.
//! Next: `engine/bus.rs`, which delivers.

use serde::Serialize;

use crate::fact::{Record, Status, Usage};
use crate::path::StepPath;

/// One thing that an observer is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// A durable fact.
    Fact(std::sync::Arc<Record>),
    /// Something that is true now and will be overwritten; never stored.
    Progress(Progress),
}

/// Disposable progress. Latest wins.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum Progress {
    /// A piece of a model's answer.
    Text {
        /// Which step instance.
        path: StepPath,
        /// The piece.
        text: String,
    },
    /// A word about what a step is doing.
    Note {
        /// Which step instance.
        path: StepPath,
        /// The word.
        text: String,
    },
    /// What a model call has used so far.
    Usage {
        /// Which step instance.
        path: StepPath,
        /// So far.
        usage: Usage,
    },
    /// A control form (loop, fan-out, child) opened or grew.
    Group {
        /// Which.
        path: StepPath,
        /// Parts that have ended.
        done: usize,
        /// Parts in all, where it is known.
        total: Option<usize>,
    },
    /// A control form ended.
    GroupEnded {
        /// Which.
        path: StepPath,
        /// How.
        status: Status,
    },
}

/// How much an observer wants to hear. What nobody hears is not told, which makes a wide run cheaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hears {
    /// Facts only.
    Facts,
    /// The progress of control forms, too.
    Forms,
    /// Everything: what steps say while they work, too.
    All,
}

/// An observer of a run. Called from a task of its own, one event at a time, in order.
pub trait EventSink: Send {
    /// What it is called where its health is told.
    fn name(&self) -> &'static str {
        "observer"
    }

    /// What it must be told. It may be told more, where another observer hears that.
    fn hears(&self) -> Hears {
        Hears::All
    }

    /// One event. May take its time: only this observer waits. After a panic the next event comes, within a budget
    /// ([`crate::service::Restarts`]).
    fn event(&mut self, event: &Event);

    /// Nothing more will come.
    fn finish(&mut self) {}
}

/// A function that takes events is an observer.
impl<F: FnMut(&Event) + Send> EventSink for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}
