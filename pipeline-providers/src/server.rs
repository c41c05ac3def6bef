//! A server that speaks the wire formats of the model services on loopback.
//!
//! Owns [`MockServer`]: what it answers follows a file of mock rules, a script given through its own door, or the mock's
//! built-in answers; it limits, counts what a cache keeps, logs every request and misbehaves on purpose where it is told
//! to. It reads requests as strictly as the services do. Must not know providers of this crate: it is their other side.
//! Next: `server/http1.rs`, `server/script.rs`, then one file for each format.

mod http1;
mod script;
mod reply;
mod limits;
mod log;
mod faults;
mod anthropic;
mod gemini;
mod openai;
mod responses;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_core::error::ErrorKind;
use pipeline_core::fact::Usage;
use pipeline_core::value::Hash;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::backend::STEP_HEADER;
use crate::mock::{CallLog, MockProvider, MockRules, Said};
use crate::server::http1::{Connection, Request};
use crate::server::limits::Limits;
use crate::server::log::{Counted, Log};
use crate::server::reply::{Asked, Figures, Reply, Wrong};
use crate::server::script::{Fault, Step, Tool};

/// Connections at once.
const MOST_CONNECTIONS: usize = 4096;

/// What a server is told.
#[derive(Debug, Clone, Default)]
pub struct MockServerOptions {
    /// Port; 0 = any that is free.
    pub port: u16,
    /// What it answers where nothing is scripted.
    pub rules: Arc<MockRules>,
    /// Most requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Most tokens sent a minute.
    pub tokens_per_minute: Option<u64>,
}

/// A server that listens on loopback.
pub struct MockServer {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    rules: Arc<MockRules>,
    calls: Arc<CallLog>,
    state: Mutex<State>,
}

struct State {
    steps: Vec<Step>,
    log: Log,
    limits: Limits,
    kept: HashSet<Hash>,
    count: u64,
}

impl MockServer {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(options: MockServerOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
        let address = listener.local_addr()?;
        let state = State {
            steps: Vec::new(),
            log: Log::default(),
            limits: Limits::new(options.requests_per_minute, options.tokens_per_minute),
            kept: HashSet::new(),
            count: 0,
        };
        let shared =
            Arc::new(Shared { rules: options.rules, calls: Arc::default(), state: Mutex::new(state) });
        Ok(Self { listener, address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped; every connection ends with it.
    ///
    /// # Errors
    /// When no connection can be taken any more.
    pub async fn serve(self) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < MOST_CONNECTIONS => {
                    let (stream, _) = accepted?;
                    let shared = Arc::clone(&self.shared);
                    // What goes wrong on a connection is its client's to see.
                    connections.spawn(async move { shared.connection(stream).await.is_ok() });
                }
                Some(_ended) = connections.join_next() => {}
            }
        }
    }
}

/// Which format a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Anthropic,
    Gemini,
    OpenAi,
    Responses,
}

impl Format {
    fn of(path: &str) -> Option<Self> {
        match path {
            _ if path.ends_with("/messages") => Some(Self::Anthropic),
            _ if path.ends_with("/chat/completions") => Some(Self::OpenAi),
            _ if path.ends_with("/responses") => Some(Self::Responses),
            _ if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") => {
                Some(Self::Gemini)
            }
            _ => None,
        }
    }

    /// The name of the built-in provider, for rules.
    fn provider(self) -> &'static str {
        match self {
            Self::Anthropic => "claude",
            Self::Gemini => "gemini",
            Self::OpenAi | Self::Responses => "openai",
        }
    }

    fn family(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::OpenAi | Self::Responses => "openai",
        }
    }

    /// Whether a request shows who makes it, in the format's own way.
    fn is_known(self, request: &Request) -> bool {
        let bearer = request.header("authorization").is_some_and(|a| a.len() > "Bearer ".len());
        match self {
            Self::Anthropic => bearer || request.header("x-api-key").is_some_and(|k| !k.is_empty()),
            Self::Gemini => {
                bearer
                    || request.header("x-goog-api-key").is_some_and(|k| !k.is_empty())
                    || request.target.contains("key=")
            }
            // Servers of one's own ask for no key.
            Self::OpenAi | Self::Responses => true,
        }
    }
}

impl Shared {
    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut connection = Connection::new(stream);
        while let Some(request) = connection.request().await? {
            let is_last = request.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
            if !self.answer(&mut connection, &request).await? || is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers one request; false when the connection is over.
    async fn answer(&self, connection: &mut Connection, request: &Request) -> io::Result<bool> {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let path = request.path().to_owned();
        if path.starts_with("/__") {
            let reply = self.door(&path, request.method == "POST", &text);
            return self.send(connection, reply, &Step::default(), Map::new()).await;
        }
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        match Format::of(&path).filter(|_| request.method == "POST") {
            Some(format) => self.model(connection, request, format, &text, &body).await,
            None => {
                self.state.lock().log.push(request, &body, None);
                let reply = Self::other(request, &path, &text);
                self.send(connection, reply, &Step::default(), Map::new()).await
            }
        }
    }

    /// What tests tell the server, and ask it.
    fn door(&self, path: &str, is_told: bool, text: &str) -> Reply {
        let mut state = self.state.lock();
        match path {
            "/__script" => {
                if is_told {
                    match serde_json::from_str(text) {
                        Ok(steps) => state.steps = steps,
                        Err(error) => {
                            return Reply::json(400, &json!({"error": format!("the script: {error}")}));
                        }
                    }
                }
                Reply::json(200, &json!({"left": state.steps.len()}))
            }
            "/__log" => {
                if is_told {
                    state.log.clear();
                }
                Reply::json(200, &state.log.all())
            }
            _ => Reply::json(404, &json!({"error": "no such door"})),
        }
    }

    /// Paths that ask no model.
    fn other(request: &Request, path: &str, text: &str) -> Reply {
        let tokens = text.len().div_ceil(4).max(1);
        let is_anthropic = request.header("anthropic-version").is_some();
        match path.trim_end_matches('/') {
            p if p.ends_with("/messages/count_tokens") => Reply::json(200, &json!({"input_tokens": tokens})),
            p if p.ends_with(":countTokens") => Reply::json(200, &json!({"totalTokens": tokens})),
            p if p.ends_with("/models") && is_anthropic => {
                let model = json!({"type": "model", "id": "claude-mock-1", "display_name": "Mock",
                    "created_at": "2026-01-01T00:00:00Z", "lifecycle": "active"});
                Reply::json(
                    200,
                    &json!({"data": [model], "has_more": false, "first_id": "claude-mock-1", "last_id": "claude-mock-1"}),
                )
            }
            p if p.ends_with("/models") => {
                let model =
                    json!({"id": "mock", "object": "model", "created": 1_700_000_000, "owned_by": "mock"});
                Reply::json(200, &json!({"object": "list", "data": [model]}))
            }
            "" if request.method == "HEAD" => Reply::Whole { status: 200, body: String::new() },
            _ => {
                let error = json!({"type": "not_found_error", "message": format!("there is no {path} here")});
                Reply::json(404, &json!({"type": "error", "error": error}))
            }
        }
    }

    async fn model(
        &self,
        connection: &mut Connection,
        request: &Request,
        format: Format,
        text: &str,
        body: &Value,
    ) -> io::Result<bool> {
        let id = self.next_id();
        let tokens = u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX);
        let scripted = {
            let mut state = self.state.lock();
            script::take(&mut state.steps, text)
        };
        let admission = {
            let mut state = self.state.lock();
            let admission = state.limits.admit(tokens, format.family());
            let is_refused = admission.wait.is_some() && scripted.is_none();
            state.log.push(request, body, Some(Counted { tokens, is_refused }));
            admission
        };
        let mut headers = admission.headers;
        let id_header = if format == Format::Anthropic { "request-id" } else { "x-request-id" };
        headers.insert(id_header.to_owned(), json!(id));
        let refuse = |status: u16, words: &str, headers: Map<String, Value>| {
            let error = json!({"message": words}).as_object().cloned().unwrap_or_default();
            let step = Step { status: Some(status), error, ..Step::default() };
            (error_of(format, status, &step, &id), step, headers)
        };
        if let (Some(wait), None) = (admission.wait, &scripted) {
            headers.insert("retry-after".to_owned(), json!(wait.as_secs_f64().ceil()));
            headers.insert("retry-after-ms".to_owned(), json!(wait.as_millis().to_string()));
            let (mut reply, step, headers) = refuse(429, "the limit of this account is reached", headers);
            if format == Format::Gemini {
                let error = json!({"message": "the limit is reached", "retryDelay": format!("{}s", wait.as_secs_f64())});
                let step = Step { error: error.as_object().cloned().unwrap_or_default(), ..Step::default() };
                reply = gemini::error(429, &step);
            }
            return self.send(connection, reply, &step, headers).await;
        }
        if !format.is_known(request) {
            let (reply, step, headers) = refuse(401, "a key is needed", headers);
            return self.send(connection, reply, &step, headers).await;
        }
        let asked = match Self::read(format, request, body) {
            Ok(asked) => asked,
            Err(Wrong(words)) => {
                let (reply, step, headers) = refuse(400, &words, headers);
                return self.send(connection, reply, &step, headers).await;
            }
        };
        let step = match scripted {
            Some(step) => step,
            None => self.by_rules(format, &asked, request.header(STEP_HEADER).unwrap_or("server")),
        };
        headers.extend(step.headers.clone());
        if step.delay > 0.0 {
            tokio::time::sleep(Duration::try_from_secs_f64(step.delay).unwrap_or_default()).await;
        }
        if let Some(fault) = step.fault.filter(|f| *f != Fault::UnknownEvent) {
            return faults::misbehave(connection, fault, &headers).await.map(|()| false);
        }
        let reply = match (&step.raw, step.status) {
            (Some(raw), status) => Reply::Whole { status: status.unwrap_or(200), body: raw.clone() },
            (None, Some(status)) if status >= 400 => error_of(format, status, &step, &id),
            _ => self.answer_of(format, &asked, &step, request, body, &id),
        };
        self.send(connection, reply, &step, headers).await
    }

    fn next_id(&self) -> String {
        let mut state = self.state.lock();
        state.count += 1;
        format!("req_{:024x}", state.count)
    }

    fn read(format: Format, request: &Request, body: &Value) -> Result<Asked, Wrong> {
        if body.is_null() {
            return Err(Wrong("the body is no JSON".to_owned()));
        }
        match format {
            Format::Anthropic => {
                if request.header("anthropic-version").is_none() {
                    return Err(Wrong("anthropic-version: header is required".to_owned()));
                }
                anthropic::read(body)
            }
            Format::Gemini => gemini::read(body, &request.target),
            Format::OpenAi => openai::read(body),
            Format::Responses => responses::read(body),
        }
    }

    /// What the rules say to a request, else what the mock says by itself.
    fn by_rules(&self, format: Format, asked: &Asked, step: &str) -> Step {
        let mock = MockProvider::sharing(format.provider(), Arc::clone(&self.rules), Arc::clone(&self.calls));
        let said = match mock.say(&asked.request, &asked.model, step) {
            Ok(said) => said,
            Err(error) => {
                let error = json!({"message": error.message}).as_object().cloned().unwrap_or_default();
                return Step { status: Some(400), error, ..Step::default() };
            }
        };
        let Said { text, calls, error, input, output, delay_ms } = said;
        let delay = Duration::from_millis(delay_ms).as_secs_f64();
        if let Some((kind, retry_after_ms, message)) = error {
            let (status, code) = status_of(kind, format);
            let mut words = Map::new();
            words.insert("message".to_owned(), json!(message));
            if let Some(code) = code {
                words.insert("code".to_owned(), json!(code));
            }
            let mut headers = Map::new();
            if let Some(ms) = retry_after_ms {
                headers.insert("retry-after-ms".to_owned(), json!(ms.to_string()));
                headers.insert("retry-after".to_owned(), json!(ms.div_ceil(1000)));
                words.insert("retryDelay".to_owned(), json!(format!("{}s", ms as f64 / 1000.0)));
            }
            return Step { status: Some(status), error: words, headers, delay, ..Step::default() };
        }
        let tools = calls.into_iter().map(|c| Tool { id: None, name: c.name, input: c.arguments }).collect();
        let mut usage = Map::new();
        let names = match format {
            Format::Anthropic | Format::Responses => ("input_tokens", "output_tokens"),
            Format::Gemini => ("promptTokenCount", "candidatesTokenCount"),
            Format::OpenAi => ("prompt_tokens", "completion_tokens"),
        };
        usage.extend(input.map(|n| (names.0.to_owned(), json!(n))));
        usage.extend(output.map(|n| (names.1.to_owned(), json!(n))));
        Step { text: Some(text), tools, usage, delay, ..Step::default() }
    }

    fn answer_of(
        &self,
        format: Format,
        asked: &Asked,
        step: &Step,
        request: &Request,
        body: &Value,
        id: &str,
    ) -> Reply {
        let figures = Figures { used: self.used(asked, step, body) };
        let mut reply = match format {
            Format::Anthropic => anthropic::answer(asked, step, &figures, id),
            Format::Gemini => gemini::answer(asked, step, &figures, &request.target, id),
            Format::OpenAi => {
                let with_usage = body.pointer("/stream_options/include_usage").and_then(Value::as_bool);
                openai::answer(asked, step, &figures, with_usage == Some(true), id)
            }
            Format::Responses => responses::answer(asked, step, &figures, id),
        };
        if let (Reply::Events(events), Some(Fault::UnknownEvent)) = (&mut reply, step.fault) {
            events.insert(
                1.min(events.len()),
                (Some("weather"), json!({"type": "weather", "sun": true}).to_string()),
            );
        }
        reply
    }

    /// Four bytes are a token. What was kept before is read from the cache; what is to be kept now is written to it.
    fn used(&self, asked: &Asked, step: &Step, body: &Value) -> Usage {
        let tokens = |bytes: usize| u64::try_from(bytes.div_ceil(4)).unwrap_or(u64::MAX);
        let sent = tokens(body.to_string().len());
        let said = step.text.as_ref().map_or(0, String::len)
            + step.tools.iter().map(|t| t.name.len() + t.input.to_string().len()).sum::<usize>();
        let mut used = Usage { input: sent, output: tokens(said).max(1), ..Usage::default() };
        if let Some(prefix) = &asked.prefix {
            let kept = tokens(prefix.len()).min(sent);
            used.input = sent - kept;
            if self.state.lock().kept.insert(Hash::of_bytes(prefix.as_bytes())) {
                used.cache_write = kept;
            } else {
                used.cache_read = kept;
            }
        }
        used
    }

    async fn send(
        &self,
        connection: &mut Connection,
        reply: Reply,
        step: &Step,
        headers: Map<String, Value>,
    ) -> io::Result<bool> {
        let events = match reply {
            Reply::Whole { status, body } => {
                connection.whole(status, "application/json", &headers, body.as_bytes()).await?;
                return Ok(true);
            }
            Reply::Events(events) => events,
        };
        connection.begin(&headers).await?;
        let pause = Duration::try_from_secs_f64(step.chunk_delay).unwrap_or_default();
        for (at, (name, data)) in events.iter().enumerate() {
            if step.cut.is_some_and(|cut| at >= cut) {
                return Ok(false);
            }
            if step.end.is_some_and(|end| at >= end) {
                break;
            }
            let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
            connection.chunk(format!("{name}data: {data}\n\n").as_bytes()).await?;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        connection.chunk(b"").await?;
        Ok(true)
    }
}

fn error_of(format: Format, status: u16, step: &Step, id: &str) -> Reply {
    match format {
        Format::Anthropic => anthropic::error(status, step, id),
        Format::Gemini => gemini::error(status, step),
        Format::OpenAi | Format::Responses => openai::error(status, step),
    }
}

/// The status, and the code where the status does not say enough, that make a client see this kind.
fn status_of(kind: ErrorKind, format: Format) -> (u16, Option<&'static str>) {
    match kind {
        ErrorKind::Auth => (401, None),
        ErrorKind::Denied => (403, None),
        ErrorKind::Quota if format == Format::OpenAi => (429, Some("insufficient_quota")),
        ErrorKind::Quota => (402, None),
        ErrorKind::RateLimited => (429, None),
        ErrorKind::Overloaded if format == Format::Anthropic => (529, None),
        ErrorKind::Overloaded => (503, None),
        ErrorKind::TooLarge => (413, None),
        ErrorKind::Server
        | ErrorKind::Network
        | ErrorKind::Truncated
        | ErrorKind::TimedOut
        | ErrorKind::Internal => (500, None),
        _ => (400, None),
    }
}
