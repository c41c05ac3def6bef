//! One answer, from its head to its end.
//!
//! Owns the clock of a call, its byte limits and the demand for a proper end. Must not know what events mean: that is the
//! format's reader. Next: `sse.rs`.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::planted::{Bug, planted};
use pipeline_core::provider::{ModelEvent, ModelStream};
use reqwest::Response;
use serde_json::Value;
use tokio::time::{Instant, Sleep};

use crate::http::failure::{self, Fault};
use crate::http::settings::HttpSettings;
use crate::http::sse::{Broken, Events};
use crate::http::transport::chain;
use crate::http::wire::{MOST_ANSWER, MOST_STREAM, Reader, Wire};
use crate::prices::PriceTable;
use crate::rate::{Account, RateSignals};

/// Most bytes that are read of a body that is not a stream of events.
const MOST_BODY: usize = 1 << 20;

/// How long the body's own end is waited for when the answer is complete: a connection that was read to its end serves the
/// next call.
const GRACE: Duration = Duration::from_millis(250);

/// How long the words of an error are waited for, when its status has come.
const WORDS: Duration = Duration::from_secs(10);

/// How long a call may take.
pub(crate) struct Clock {
    deadline: Instant,
    /// When the first event must have come.
    first: Instant,
    idle: Duration,
    last: Option<Instant>,
    /// Rings no later than the end that is waited for. The end moves with every event, and a timer that is set anew for each
    /// wakes a thread of the runtime for nothing: one that rings too early is set again.
    alarm: Pin<Box<Sleep>>,
}

impl Clock {
    pub(crate) fn new(deadline: Instant, settings: &HttpSettings) -> Self {
        let first = Instant::now() + settings.response_limit();
        let alarm = Box::pin(tokio::time::sleep_until(first.min(deadline)));
        Self { deadline, first, idle: settings.idle_limit(), last: None, alarm }
    }

    /// An event has come. Bytes do not count: a server that drips comments is silent.
    fn heard(&mut self) {
        self.last = Some(Instant::now());
    }

    fn end(&self) -> Instant {
        if planted(Bug::ConnectTimeout) {
            return self.first + Duration::from_secs(3600);
        }
        self.last.map_or(self.first, |last| last + self.idle).min(self.deadline)
    }

    /// What comes of work that must be done in time.
    pub(crate) async fn first<T>(
        &mut self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.until(self.end(), work).await.unwrap_or_else(|| Err(self.passed()))
    }

    /// What comes of work; `None` when it is `end` before.
    async fn until<T>(&mut self, end: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if self.alarm.deadline() > end {
                self.alarm.as_mut().reset(end);
            }
            while self.alarm.as_mut().poll(cx).is_ready() {
                if Instant::now() >= end {
                    return Poll::Ready(None);
                }
                self.alarm.as_mut().reset(end);
            }
            Poll::Pending
        })
        .await
    }

    /// What is told when the time is over.
    fn passed(&self) -> Fault {
        let what = match self.last {
            _ if self.deadline <= Instant::now() => {
                "did not end its answer by the step's deadline".to_owned()
            }
            Some(_) => {
                format!("was silent for {} seconds in the middle of its answer", self.idle.as_secs_f64())
            }
            None => "did not begin to answer in time".to_owned(),
        };
        Fault::new(ErrorKind::TimedOut, what)
    }
}

/// What is needed to read an answer.
pub(crate) struct Answer {
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) settings: Arc<HttpSettings>,
    pub(crate) prices: Arc<PriceTable>,
    pub(crate) model: String,
    pub(crate) account: Option<Arc<Account>>,
}

impl Answer {
    /// The events of a response.
    ///
    /// # Errors
    /// What its head or, where it is no stream, its body says.
    pub(crate) async fn events(self, response: Response, mut clock: Clock) -> Result<ModelStream, StepError> {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(|text| text.chars().take(200).collect::<String>())
        };
        if let (Some(account), Some(signals)) = (&self.account, RateSignals::read(header)) {
            account.hear(&signals);
        }
        let request_id = header(self.wire.id_header());
        let is_stream =
            header("content-type").is_some_and(|t| t.to_ascii_lowercase().starts_with("text/event-stream"));
        let fail = |mut fault: Fault| {
            fault.request_id.clone_from(&request_id);
            fault.into_error(&self.settings)
        };
        if !response.status().is_success() || !is_stream {
            return Err(fail(self.refusal(response, &mut clock).await));
        }
        let state = State {
            answer: Some(self),
            response,
            clock,
            request_id,
            events: Events::new(MOST_ANSWER),
            taken: 0,
            told: VecDeque::new(),
            fresh: Vec::new(),
        };
        Ok(Box::pin(stream::unfold(state, |mut state| async move {
            state.next().await.map(|event| (event, state))
        })))
    }

    /// What an answer without events says.
    async fn refusal(&self, response: Response, clock: &mut Clock) -> Fault {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = if status >= 300 {
            // The status says enough, whatever becomes of its body.
            let end = clock.end().min(Instant::now() + WORDS.min(clock.idle));
            clock.until(end, read(response)).await.and_then(Result::ok).unwrap_or_default()
        } else {
            match clock.first(read(response)).await {
                Ok(body) => body,
                Err(fault) => return fault,
            }
        };
        // Some gateways send an error, too, as a stream of events.
        let parsed: Option<Value> = serde_json::from_slice(&body).ok().or_else(|| first_event(&body));
        let mut fault = match parsed {
            // Some gateways wrap the object in a list.
            Some(Value::Array(list)) if !list.is_empty() => self.wire.fault(status, &list[0]),
            Some(body) => self.wire.fault(status, &body),
            None => Fault::new(failure::kind_of(status), failure::what(status, failure::kind_of(status)))
                .said(String::from_utf8_lossy(&body).trim()),
        };
        if (200..300).contains(&status) && fault.code.is_none() {
            let kind = headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("no content type");
            let what = format!("answered with `{kind}` instead of a stream of events");
            fault = Fault::new(ErrorKind::Parse, what).said(String::from_utf8_lossy(&body).trim());
            fault.help = Some("check that `base_url` and `kind` belong together".to_owned());
        }
        fault.status = Some(status);
        failure::hints(&mut fault, &headers);
        fault
    }
}

/// The first event of a body that has been read, where it is one.
fn first_event(body: &[u8]) -> Option<Value> {
    let mut events = Events::new(MOST_BODY);
    events.push(body);
    let event = events.next().ok().flatten()?;
    serde_json::from_str(&event.data).ok()
}

/// A whole body, up to a limit.
async fn read(mut response: Response) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken_off(&error))? {
        if body.len() + chunk.len() > MOST_BODY {
            let what = format!("answered with over {} MiB that are no stream of events", MOST_BODY >> 20);
            let mut fault = Fault::new(ErrorKind::TooLarge, what);
            // Whoever answers at such length has done what was asked.
            fault.bill = Some(Usage::unseen());
            return Err(fault);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn broken_off(error: &reqwest::Error) -> Fault {
    Fault::new(ErrorKind::Truncated, "ended the connection in the middle of its answer").said(chain(error))
}

/// An answer that is being read.
struct State {
    /// `None` when the end has been told.
    answer: Option<Answer>,
    response: Response,
    clock: Clock,
    request_id: Option<String>,
    events: Events,
    /// Bytes so far.
    taken: usize,
    /// What is to be told next: the end comes behind everything that was heard before it.
    told: VecDeque<Result<ModelEvent, StepError>>,
    fresh: Vec<ModelEvent>,
}

impl State {
    async fn next(&mut self) -> Option<Result<ModelEvent, StepError>> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Some(event);
            }
            self.answer.as_ref()?;
            let end = match self.advance().await {
                Ok(false) => continue,
                Ok(true) => self.finish(),
                Err(fault) => self.fail(fault, false),
            };
            self.told.extend(end);
        }
    }

    /// Reads on; true when the answer has ended.
    async fn advance(&mut self) -> Result<bool, Fault> {
        let Some(answer) = &mut self.answer else { return Ok(true) };
        let is_complete = answer.reader.is_complete();
        let end = if is_complete { self.clock.end().min(Instant::now() + GRACE) } else { self.clock.end() };
        let chunk = match self.clock.until(end, self.response.chunk()).await {
            // Whatever happens after the end has come does not matter any more.
            None | Some(Err(_) | Ok(None)) if is_complete => return Ok(true),
            None => return Err(self.clock.passed()),
            Some(Err(error)) => return Err(broken_off(&error)),
            Some(Ok(None)) => {
                return Err(Fault::new(ErrorKind::Truncated, "ended its answer before the answer's own end"));
            }
            Some(Ok(Some(chunk))) => chunk,
        };
        self.taken += chunk.len();
        if self.taken > MOST_STREAM {
            let what = format!("sent over {} MiB in one answer", MOST_STREAM >> 20);
            return Err(Fault::new(ErrorKind::TooLarge, what));
        }
        self.events.push(&chunk);
        loop {
            match self.events.next() {
                Ok(Some(event)) => {
                    self.clock.heard();
                    answer.reader.event(&event.name, &event.data, &mut self.fresh)?;
                    self.told.extend(self.fresh.drain(..).map(Ok));
                }
                Ok(None) => return Ok(false),
                Err(Broken::TooLong) => {
                    let what = format!("sent over {} MiB without an event", MOST_ANSWER >> 20);
                    return Err(Fault::new(ErrorKind::TooLarge, what));
                }
                Err(Broken::NotText) => {
                    return Err(Fault::new(ErrorKind::Parse, "sent an event that is not UTF-8"));
                }
            }
        }
    }

    fn finish(&mut self) -> Option<Result<ModelEvent, StepError>> {
        let verdict = self.answer.as_mut()?.reader.verdict();
        if let Err(fault) = verdict {
            return self.fail(fault, true);
        }
        let mut answer = self.answer.take()?;
        let mut heard = std::mem::take(answer.reader.heard());
        if heard.model.is_empty() {
            heard.model.clone_from(&answer.model);
        }
        if !heard.has_usage {
            heard
                .warnings
                .push(format!("`{}` did not say how many tokens it used", answer.settings.entry.name));
        }
        answer.price(&mut heard);
        Some(Ok(ModelEvent::Finished(Box::new(heard.into_answer(self.request_id.take())))))
    }

    /// What was paid for an answer that failed is told with the error.
    fn fail(&mut self, mut fault: Fault, is_complete: bool) -> Option<Result<ModelEvent, StepError>> {
        let mut answer = self.answer.take()?;
        let mut heard = std::mem::take(answer.reader.heard());
        answer.price(&mut heard);
        if heard.has_usage {
            fault.usage = Some(heard.usage);
        }
        let has_begun = heard.has_usage || heard.has_any() || self.taken > MOST_ANSWER;
        fault.bill = match (is_complete && heard.has_usage, has_begun && fault.kind.is_free()) {
            (true, _) => Some(heard.usage),
            // Errors of these kinds cost nothing where no answer has begun; this one had.
            (false, true) => Some(Usage::unseen()),
            (false, false) => None,
        };
        fault.request_id = self.request_id.take();
        fault.status.get_or_insert(200);
        Some(Err(fault.into_error(&answer.settings)))
    }
}

impl Answer {
    fn price(&self, heard: &mut crate::http::wire::Heard) {
        heard.usage.calls = 1;
        // The price of the model that was asked for bounds the call: it is what was reserved.
        let cost = self
            .prices
            .cost(&self.model, &heard.usage)
            .or_else(|| self.prices.cost(&heard.model, &heard.usage));
        heard.usage.cost_usd = cost.filter(|_| heard.has_usage);
        heard.usage.unpriced_calls = u64::from(heard.usage.cost_usd.is_none());
    }
}
