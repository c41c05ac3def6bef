//! The layer that stops calling what does not answer.
//!
//! Owns [`Broken`] and [`Circuits`]: a circuit breaker for each provider and model. Closed, calls pass and their outcomes
//! are watched; open, nobody calls until a pause is over; then exactly one call is let through to see. Never retries. Must
//! not know what it wraps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use parking_lot::Mutex;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{Capabilities, ModelEvent, ModelRequest, ModelStream, Provider, WorstCase};
use pipeline_core::step::StepContext;
use tokio::time::Instant;

/// Most outcomes that are remembered of one circuit.
const REMEMBERED: usize = 1000;

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitSettings {
    /// So many failures within the window open it, if they are at least half of the calls.
    pub threshold: usize,
    /// How long an outcome counts.
    pub window: Duration,
    /// How long it stays open before one call may try.
    pub cool_down: Duration,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        Self { threshold: 5, window: Duration::from_secs(60), cool_down: Duration::from_secs(30) }
    }
}

/// The circuits of a process, by provider and model.
#[derive(Default)]
pub struct Circuits {
    settings: CircuitSettings,
    circuits: Mutex<BTreeMap<(String, String), Circuit>>,
}

#[derive(Debug, Default)]
struct Circuit {
    /// Outcomes in the window: when, and whether it failed.
    outcomes: VecDeque<(Instant, bool)>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    /// One call tries.
    Trying,
}

/// How a call ended, as far as the circuit cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
    /// It says nothing of the service.
    Nothing,
}

impl Circuits {
    /// Circuits that open as `settings` say.
    pub fn new(settings: CircuitSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Whether a call may pass.
    fn enter(&self, key: &(String, String)) -> Result<(), StepError> {
        let now = Instant::now();
        let mut circuits = self.circuits.lock();
        let circuit = circuits.entry(key.clone()).or_default();
        match circuit.state {
            State::Closed => Ok(()),
            State::Open { until } if until <= now => {
                circuit.state = State::Trying;
                Ok(())
            }
            State::Open { until } => Err(is_open(key, until - now)),
            // Whoever tries will know soon; a whole pause is the most it can be.
            State::Trying => Err(is_open(key, self.settings.cool_down)),
        }
    }

    fn leave(&self, key: &(String, String), outcome: Outcome) {
        let now = Instant::now();
        let mut circuits = self.circuits.lock();
        let circuit = circuits.entry(key.clone()).or_default();
        let open = State::Open { until: now + self.settings.cool_down };
        match (circuit.state, outcome) {
            (State::Trying, Outcome::Success) => *circuit = Circuit::default(),
            (State::Trying, Outcome::Failure) => circuit.state = open,
            // It was stopped before it could tell: the next one tries.
            (State::Trying, Outcome::Nothing) => circuit.state = State::Open { until: now },
            // Calls that began before it opened.
            (State::Open { .. }, _) | (State::Closed, Outcome::Nothing) => {}
            (State::Closed, outcome) => {
                circuit.outcomes.push_back((now, outcome == Outcome::Failure));
                let window = self.settings.window;
                while circuit.outcomes.len() > REMEMBERED
                    || circuit.outcomes.front().is_some_and(|(at, _)| *at + window < now)
                {
                    circuit.outcomes.pop_front();
                }
                let failures = circuit.outcomes.iter().filter(|(_, failed)| *failed).count();
                if failures >= self.settings.threshold && failures * 2 >= circuit.outcomes.len() {
                    circuit.state = open;
                }
            }
        }
    }
}

fn is_open((provider, model): &(String, String), left: Duration) -> StepError {
    let message = format!(
        "`{provider}` ({model}) failed too often lately and is not called for another {:.1} s",
        left.as_secs_f64()
    );
    let mut error = StepError::new(ErrorKind::Overloaded, message)
        .help("wait, or name another provider under `fallback`")
        .details(serde_json::json!({ "circuit": "open" }));
    error.retry_after_ms = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1));
    error
}

/// What an error says of the service's health. A refusal of ours, of a credential or of a question says nothing.
fn outcome_of(error: &StepError) -> Outcome {
    match error.kind {
        ErrorKind::Overloaded
        | ErrorKind::Server
        | ErrorKind::Network
        | ErrorKind::Truncated
        | ErrorKind::TimedOut => Outcome::Failure,
        _ => Outcome::Nothing,
    }
}

/// A call that has passed. Dropping it without an outcome tells nothing, unless its time was over.
struct Passage {
    circuits: Arc<Circuits>,
    key: (String, String),
    deadline: Instant,
    is_told: bool,
}

impl Passage {
    fn tell(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.circuits.leave(&self.key, outcome);
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        // A call that hung until its deadline was dropped by whoever watched the deadline.
        self.tell(if Instant::now() >= self.deadline { Outcome::Failure } else { Outcome::Nothing });
    }
}

/// A provider that is left alone while it does not answer.
pub struct Broken<P: ?Sized> {
    circuits: Arc<Circuits>,
    inner: Arc<P>,
}

impl<P: Provider + ?Sized> Broken<P> {
    /// `inner`, behind its circuits among `circuits`.
    pub fn new(inner: Arc<P>, circuits: Arc<Circuits>) -> Self {
        Self { circuits, inner }
    }
}

#[async_trait]
impl<P: Provider + ?Sized + 'static> Provider for Broken<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn default_model(&self) -> &str {
        self.inner.default_model()
    }

    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        self.inner.worst_case(request)
    }

    async fn start(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelStream, StepError> {
        let model = request.model.as_deref().unwrap_or(self.inner.default_model());
        let key = (self.inner.name().to_owned(), model.to_owned());
        self.circuits.enter(&key)?;
        let circuits = Arc::clone(&self.circuits);
        let mut passage = Passage { circuits, key, deadline: cx.deadline, is_told: false };
        let stream = self.inner.start(request, cx).await.inspect_err(|e| passage.tell(outcome_of(e)))?;
        Ok(Box::pin(stream.map(move |event| {
            match &event {
                Ok(ModelEvent::Finished(_)) => passage.tell(Outcome::Success),
                Err(error) => passage.tell(outcome_of(error)),
                Ok(_) => {}
            }
            event
        })))
    }
}
