//! OpenTelemetry: what happens in a run is sent to a collector, where one is named.
//!
//! Owns [`Telemetry`], an observer like any other: a collector that hangs, refuses or dies costs the run nothing but a
//! warning at its end. Without OTEL_EXPORTER_OTLP_ENDPOINT there is none, and nothing is sent. Next: `telemetry/spans.rs`
//! for what becomes a span, `telemetry/otlp.rs` for the wire, `telemetry/semconv.rs` for names.

mod semconv;
mod spans;
mod otlp;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_core::event::{Event, EventSink, Hears};
use pipeline_core::value::Value;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::figures::family_of;
use crate::settings::Settings;
use otlp::Histogram;
use semconv::ours;
use spans::{Span, Spans};

/// Spans that are sent together.
const BATCH: usize = 512;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long the end of a run waits for what is left to be sent.
const FLUSH: Duration = Duration::from_millis(1_700);
/// After so many failures in a row nothing more is sent.
const MOST_FAILURES: u32 = 2;

/// Where telemetry goes.
#[derive(Clone)]
struct Collector {
    client: reqwest::Client,
    base: String,
    headers: Vec<(String, String)>,
    service: String,
    patience: Duration,
    runtime: Handle,
}

/// The door to a collector.
#[derive(Clone, Default)]
pub struct Telemetry {
    collector: Option<Collector>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Telemetry {
    /// As the environment names it.
    pub fn of(settings: &Settings) -> Self {
        let mut telemetry = Self::default();
        let is_off = settings.variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let Some(base) = settings.variable("OTEL_EXPORTER_OTLP_ENDPOINT").filter(|_| !is_off) else {
            return telemetry;
        };
        match Collector::new(base, settings) {
            Ok(collector) => telemetry.collector = Some(collector),
            Err(why) => *telemetry.trouble.lock() = Some(why),
        }
        telemetry
    }

    /// The observer of a run; `None` where no collector is named.
    pub fn sink(&self, run: &str, workflow: &str) -> Option<Box<dyn EventSink>> {
        let collector = self.collector.clone()?;
        Some(Box::new(Sender {
            collector,
            trouble: Arc::clone(&self.trouble),
            trace: spans::trace_of(run),
            spans: Spans::new(run, workflow),
            waiting: Vec::new(),
            failures: 0,
            lost: 0,
            began: None,
            ended: 0,
            tokens: Histogram::new(semconv::TOKEN_USAGE, "{token}", &semconv::TOKEN_BOUNDS),
            calls: Histogram::new(semconv::DURATION, "s", &semconv::SECOND_BOUNDS),
            steps: Histogram::new(ours::STEP_DURATION, "s", &semconv::SECOND_BOUNDS),
        }))
    }

    /// What could not be sent, and why.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

impl Collector {
    fn new(base: &str, settings: &Settings) -> Result<Self, String> {
        let unusable = |why: String| format!("no telemetry is sent: {why}");
        let base = base.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(unusable(format!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is `{base}`, which is no http address"
            )));
        }
        let protocol = settings.variable("OTEL_EXPORTER_OTLP_PROTOCOL");
        if let Some(other) = protocol.filter(|protocol| *protocol != "http/json") {
            return Err(unusable(format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL is `{other}`, and this program speaks http/json"
            )));
        }
        let given = settings.variable("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default();
        let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()));
        let wanted = settings.variable("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|ms| ms.parse().ok());
        // Whoever is first in this process decides; all of ours decide the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            client,
            base,
            headers: given.split(',').filter_map(pair).collect(),
            service: settings.variable("OTEL_SERVICE_NAME").unwrap_or("pipeline").to_owned(),
            patience: wanted.map_or(PATIENCE, Duration::from_millis).min(Duration::from_secs(10)),
            runtime: Handle::current(),
        })
    }

    /// Sends one body and waits for the answer. Called from the thread of an observer, never from the runtime's.
    fn send(&self, path: &str, body: &Value, until: Instant) -> Result<(), String> {
        let mut request = self.client.post(format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.header("content-type", "application/json").body(body.to_string());
        let deadline = until.min(Instant::now() + self.patience);
        self.runtime.block_on(async {
            match tokio::time::timeout_at(deadline, request.send()).await {
                Err(_) => Err("it did not answer in time".to_owned()),
                // The address may carry a password, so it is not told.
                Ok(Err(error)) => Err(reason(&error.without_url())),
                Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
                Ok(Ok(answer)) => Err(format!("it answered {}", answer.status())),
            }
        })
    }
}

/// The innermost words: those around them say only that a request failed.
fn reason(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

struct Sender {
    collector: Collector,
    trouble: Arc<Mutex<Option<String>>>,
    trace: String,
    spans: Spans,
    waiting: Vec<Span>,
    failures: u32,
    lost: usize,
    began: Option<i64>,
    ended: i64,
    tokens: Histogram,
    calls: Histogram,
    steps: Histogram,
}

impl Sender {
    fn measure(&mut self, span: &Span) {
        let of =
            |name: &str| span.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let seconds = (span.end - span.start).max(0) as f64 / 1e3;
        if span.is_call {
            let about = [semconv::OPERATION, semconv::PROVIDER, semconv::MODEL];
            let about: Vec<_> = about.into_iter().filter_map(|name| Some((name, of(name)?))).collect();
            for (name, kind) in [(semconv::INPUT_TOKENS, "input"), (semconv::OUTPUT_TOKENS, "output")] {
                let mut attributes = about.clone();
                attributes.push((semconv::TOKEN_TYPE, json!(kind)));
                let count = of(name).and_then(|n| n.as_f64()).unwrap_or(0.0);
                self.tokens.record(count, attributes);
            }
            self.calls.record(seconds, about);
        } else if let (Some(path), Some(status)) = (of(ours::PATH), of(ours::STATUS)) {
            let place = family_of(path.as_str().unwrap_or_default());
            self.steps.record(seconds, vec![(ours::PATH, json!(place)), (ours::STATUS, status)]);
        }
    }

    fn flush(&mut self, until: Instant) {
        if self.waiting.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.waiting);
        let body = otlp::traces(&self.collector.service, &self.trace, &spans);
        self.deliver("/v1/traces", &body, spans.len(), until);
    }

    fn deliver(&mut self, path: &str, body: &Value, count: usize, until: Instant) {
        if self.failures >= MOST_FAILURES {
            self.lost += count;
            return;
        }
        match self.collector.send(path, body, until) {
            Ok(()) => self.failures = 0,
            Err(why) => {
                self.failures += 1;
                self.lost += count;
                *self.trouble.lock() = Some(format!("telemetry could not be sent to the collector: {why}"));
            }
        }
    }
}

impl EventSink for Sender {
    fn name(&self) -> &'static str {
        "telemetry"
    }

    fn hears(&self) -> Hears {
        Hears::Facts
    }

    fn event(&mut self, event: &Event) {
        let Event::Fact(record) = event else { return };
        self.began.get_or_insert(record.at.0);
        self.ended = record.at.0;
        for span in self.spans.apply(record) {
            self.measure(&span);
            self.waiting.push(span);
        }
        if self.waiting.len() >= BATCH {
            self.flush(Instant::now() + self.collector.patience);
        }
    }

    fn finish(&mut self) {
        let until = Instant::now() + FLUSH;
        // The spans of loops all end with the run: they are sent in pieces as well.
        let mut rest = std::mem::take(&mut self.waiting);
        while !rest.is_empty() {
            let more = rest.split_off(rest.len().min(BATCH));
            self.waiting = std::mem::replace(&mut rest, more);
            self.flush(until);
        }
        if let Some(began) = self.began {
            let histograms = [&self.tokens, &self.calls, &self.steps];
            let body = otlp::metrics(&self.collector.service, &histograms, began, self.ended);
            self.deliver("/v1/metrics", &body, 0, until);
        }
        if self.lost > 0
            && let Some(trouble) = self.trouble.lock().as_mut()
        {
            trouble.push_str(&format!(" ({} spans are lost)", self.lost));
        }
    }
}
