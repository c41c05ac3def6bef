//! Tools of MCP servers.
//!
//! Owns [`Servers`]: a server is started when its first tool is wanted, once, in a process group of its own, and everything that is
//! asked of it has a deadline. What it offers is an effect of the step that asked, so that a resumed or replayed step knows it
//! without the server. One that hangs, dies or floods fails the call and nothing else; the next call starts it again, within its
//! budget of restarts. Must not know the registry.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::process::{Command, GRACE, Running};
use pipeline_core::service::{Health, MOST, Restarts, WITHIN};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec, unknown};
use pipeline_core::value::Value;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode};
use rmcp::service::{ClientInitializeError, RoleClient, RunningService};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport};
use rmcp::{ServiceError, ServiceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::checked::Checked;
use crate::hook::Hooks;
use crate::stderr::{Tail, follow};
use crate::written::{Secrets, Server};

/// How long a server may take to start and to tell its tools.
const START: Duration = Duration::from_secs(30);

/// How long a connection may take to be closed in good order.
const CLOSE: Duration = Duration::from_secs(2);

/// Most tools of one server.
const MOST_TOOLS: usize = 1000;

/// Every server of a registry.
#[derive(Default)]
pub(crate) struct Servers {
    all: BTreeMap<String, Arc<Slot>>,
    hooks: Arc<Hooks>,
}

/// A server and, where there is one, the connection to it.
struct Slot {
    name: String,
    written: Server,
    way: Way,
    secrets: Secrets,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// `None` = it has not been wanted yet.
    supervision: Mutex<Option<Supervision>>,
}

/// How a server is, and whether it may be started again.
struct Supervision {
    health: Health,
    restarts: Restarts,
}

/// How a server is reached.
enum Way {
    Command(String),
    Url(String),
}

struct Connection {
    service: tokio::sync::Mutex<Option<RunningService<RoleClient, ()>>>,
    peer: rmcp::Peer<RoleClient>,
    /// Who reads its complaints and who holds the process; dropping them kills its whole group.
    tasks: Mutex<JoinSet<()>>,
    /// Asks the process to end.
    stop: Arc<Notify>,
    /// A call was given up: whether the server still answers is to be seen before it is used again.
    is_suspect: AtomicBool,
    tail: Arc<Tail>,
}

/// One tool of a server, which is connected to when it is called.
struct McpTool {
    slot: Arc<Slot>,
    /// Its name at the server.
    own_name: String,
    spec: ToolSpec,
}

impl Servers {
    pub(crate) fn new(
        written: &BTreeMap<String, Server>,
        secrets: &Secrets,
        hooks: &Arc<Hooks>,
    ) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for (name, server) in written {
            let way = way(name, server)?;
            let slot = Slot {
                name: name.clone(),
                written: server.clone(),
                way,
                secrets: secrets.clone(),
                connection: tokio::sync::Mutex::default(),
                supervision: Mutex::default(),
            };
            all.insert(name.clone(), Arc::new(slot));
        }
        Ok(Self { all, hooks: Arc::clone(hooks) })
    }

    /// The tools that `mcp__server__tool`, `mcp__server` or `mcp__server__*` means; `None` for a name of another form.
    pub(crate) async fn open(
        &self,
        name: &str,
        cx: &StepContext,
    ) -> Result<Option<Vec<Arc<dyn Tool>>>, StepError> {
        let Some(rest) = name.strip_prefix("mcp__") else { return Ok(None) };
        // A server's own name may have the separator in it: the longest that fits is meant.
        let fits = |server: &&String| {
            rest.strip_prefix(server.as_str()).is_some_and(|r| r.is_empty() || r.starts_with("__"))
        };
        let Some(slot) =
            self.all.keys().filter(fits).max_by_key(|server| server.len()).and_then(|s| self.all.get(s))
        else {
            let known: Vec<&str> = self.all.keys().map(String::as_str).collect();
            let help = if known.is_empty() {
                "declare it under `mcp_servers`".to_owned()
            } else {
                format!("the servers are {}", known.join(", "))
            };
            return Err(StepError::invalid(format!("`{name}` is a tool of no MCP server of this pipeline"))
                .help(help));
        };
        let wanted = rest[slot.name.len()..].trim_start_matches("__");
        let specs = slot.specs(cx).await?;
        let all = || specs.iter().map(|(_, spec)| spec.clone()).collect::<Vec<_>>();
        let chosen: Vec<_> =
            specs.iter().filter(|(own, _)| matches!(wanted, "" | "*") || own == wanted).cloned().collect();
        if chosen.is_empty() && !matches!(wanted, "" | "*") {
            return Err(unknown(name, &all()));
        }
        let tool = |(own_name, spec): (String, ToolSpec)| {
            let tool = McpTool { slot: Arc::clone(slot), own_name, spec };
            Arc::new(Checked::new(Arc::new(tool), Arc::clone(&self.hooks))) as Arc<dyn Tool>
        };
        Ok(Some(chosen.into_iter().map(tool).collect()))
    }

    /// How the servers are that were wanted.
    pub(crate) fn health(&self) -> Vec<Health> {
        let of = |slot: &Arc<Slot>| slot.supervision.lock().as_ref().map(|s| s.health.clone());
        self.all.values().filter_map(of).collect()
    }

    /// Ends every server, all at once.
    pub(crate) async fn close(&self) {
        futures_util::future::join_all(self.all.values().map(|slot| slot.close())).await;
    }
}

fn way(name: &str, server: &Server) -> Result<Way, String> {
    match (server.kind.as_deref(), &server.command, &server.url) {
        (None | Some("stdio"), Some(command), None) => Ok(Way::Command(command.clone())),
        // SSE is the older form of the same; servers of today answer the newer one at the same place.
        (None | Some("http" | "sse" | "streamable_http" | "streamable-http"), None, Some(url)) => {
            Ok(Way::Url(url.clone()))
        }
        (Some(kind), ..)
            if !matches!(kind, "stdio" | "http" | "sse" | "streamable_http" | "streamable-http") =>
        {
            Err(format!("`mcp_servers.{name}.type` is `{kind}`; it is stdio, http or sse"))
        }
        _ => Err(format!("`mcp_servers.{name}` needs either a `command` (stdio) or a `url` (http)")),
    }
}

impl Slot {
    /// What the server offers, by its own names: an effect, so that a step that comes back need not ask again.
    async fn specs(self: &Arc<Self>, cx: &StepContext) -> Result<Vec<(String, ToolSpec)>, StepError> {
        let place = match &self.way {
            Way::Command(command) => json!({ "command": command, "args": self.written.args }),
            Way::Url(url) => json!({ "url": url }),
        };
        let ask = async {
            let connection = self.connect(cx).await?;
            let deadline = patience(cx);
            let listed = match tokio::time::timeout_at(deadline, connection.peer.list_all_tools()).await {
                Ok(Ok(tools)) => tools,
                Ok(Err(error)) => {
                    return Err(self.failed(&connection, "did not tell its tools", &error).await);
                }
                Err(_) => return Err(self.hung(&connection, "did not tell its tools").await),
            };
            if listed.len() > MOST_TOOLS {
                let message = format!("the MCP server `{}` has more than {MOST_TOOLS} tools", self.name);
                return Err(StepError::new(ErrorKind::TooLarge, message));
            }
            let told = listed.into_iter().map(|tool| {
                let parameters = Value::Object((*tool.input_schema).clone());
                json!({ "name": tool.name, "description": tool.description.unwrap_or_default(), "parameters": parameters })
            });
            Ok(Value::Array(told.collect()))
        };
        let name = format!("mcp:{}", self.name);
        let told = cx.effect(&name, &place, Box::pin(ask)).await?.into_json();
        let mut specs: Vec<ToolSpec> = serde_json::from_value(told).map_err(|error| {
            StepError::new(
                ErrorKind::Parse,
                format!("the tools of MCP server `{}` cannot be read: {error}", self.name),
            )
        })?;
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        let full = |own: &str| format!("mcp__{}__{own}", self.name);
        Ok(specs
            .into_iter()
            .map(|spec| (spec.name.clone(), ToolSpec { name: full(&spec.name), ..spec }))
            .collect())
    }

    /// The connection, made if there is none or it is broken.
    async fn connect(&self, cx: &StepContext) -> Result<Arc<Connection>, StepError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref()
            && connection.answers().await
        {
            return Ok(Arc::clone(connection));
        }
        if let Some(broken) = slot.take() {
            broken.tasks.lock().abort_all();
            self.is_down("it ended, or answered no more");
        }
        if let Some(pause) = self.may_begin()? {
            tokio::time::sleep(pause).await;
        }
        let made = match &self.way {
            Way::Command(command) => self.start(command, cx).await,
            Way::Url(url) => self.reach(url, cx).await,
        };
        let made = Arc::new(made.inspect_err(|error| self.is_down(&error.message))?);
        if let Some(supervision) = &mut *self.supervision.lock() {
            supervision.health.up();
        }
        *slot = Some(Arc::clone(&made));
        Ok(made)
    }

    /// The pause before it is begun again; none before it is begun at all.
    fn may_begin(&self) -> Result<Option<Duration>, StepError> {
        let mut supervision = self.supervision.lock();
        let Some(Supervision { health, restarts }) = &mut *supervision else {
            let health = Health::new(format!("mcp {}", self.name));
            *supervision = Some(Supervision { health, restarts: Restarts::default() });
            return Ok(None);
        };
        let why = health.trouble.clone().unwrap_or_default();
        if let Some(pause) = restarts.again(Instant::now()) {
            health.restarted(why);
            return Ok(Some(pause));
        }
        let message = format!(
            "the MCP server `{}` was started {MOST} times again within {} s and is left alone for now; the last time: {why}",
            self.name,
            WITHIN.as_secs()
        );
        Err(StepError::new(ErrorKind::Environment, message)
            .help("see why it ends: its words are in the run's directory, and under `details`")
            .details(json!({ "service": health.service, "restarts": health.restarts })))
    }

    /// It has broken; the words may be its own.
    fn is_down(&self, why: &str) {
        if let Some(supervision) = &mut *self.supervision.lock() {
            supervision.health.down(why.chars().take(300).collect::<String>());
        }
    }

    async fn start(&self, command: &str, cx: &StepContext) -> Result<Connection, StepError> {
        let place = format!("the MCP server `{}`", self.name);
        let mut env = (*cx.services.child_env).clone();
        env.extend(self.secrets.expand_all(&self.written.env, &place)?);
        let expand = |text: &String| self.secrets.expand(text, &place);
        let args = self.written.args.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let cwd = Some(cx.run.dirs.working.clone()).filter(|dir| dir.is_dir());
        let program = self.secrets.expand(command, &place)?;
        let mut words = vec![command.to_owned()];
        words.extend(self.written.args.iter().cloned());
        cx.run.permissions.check_program(&place, &words)?;
        // Steps share it, so it belongs to the run.
        let family = Some(format!("{}/mcp/{}", cx.run.dirs.run.display(), self.name));
        let mut child = Command { cwd, env, family, ..cx.command(program, args) }.spawn().await?;
        let (stdin, stdout, stderr) = child.streams();
        let tail = Arc::new(Tail::default());
        let (mut tasks, stop) = (JoinSet::new(), Arc::new(Notify::new()));
        let redactor = Arc::clone(&cx.services.redactor);
        tasks.spawn(follow(stderr, Arc::clone(&tail), log_file(cx, &self.name), redactor));
        tasks.spawn(hold(child, Arc::clone(&stop)));
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(StepError::new(ErrorKind::Internal, format!("{place} was started without pipes")));
        };
        let transport = AsyncRwTransport::new_client(stdout, stdin);
        let service = match tokio::time::timeout_at(patience(cx), ().serve(transport)).await {
            Ok(Ok(service)) => service,
            Ok(Err(error)) => {
                let message = format!("{place} did not begin to speak MCP: {error}");
                return Err(
                    StepError::new(ErrorKind::Network, message).details(json!({ "stderr": tail.text() }))
                );
            }
            Err(_) => return Err(self.never_answered(&tail)),
        };
        Ok(Connection::new(service, tasks, stop, tail))
    }

    async fn reach(&self, url: &str, cx: &StepContext) -> Result<Connection, StepError> {
        let place = format!("the MCP server `{}`", self.name);
        let url = self.secrets.expand(url, &place)?;
        let mut headers = HashMap::new();
        for (name, value) in self.secrets.expand_all(&self.written.headers, &place)? {
            let name = HeaderName::from_bytes(name.as_bytes());
            let value = HeaderValue::from_str(&value).map(|mut value| {
                value.set_sensitive(true);
                value
            });
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(StepError::invalid(format!("{place} has a header that HTTP does not allow")));
            };
            headers.insert(name, value);
        }
        let client = crate::client::builder().build().map_err(|error| {
            StepError::new(ErrorKind::Internal, format!("the HTTP client cannot be made: {error}"))
        })?;
        let config = StreamableHttpClientTransportConfig::with_uri(url).custom_headers(headers);
        let transport = StreamableHttpClientTransport::with_client(client, config);
        let tail = Arc::new(Tail::default());
        let service = match tokio::time::timeout_at(patience(cx), ().serve(transport)).await {
            Ok(Ok(service)) => service,
            Ok(Err(error)) => {
                let kind = match &error {
                    ClientInitializeError::TransportError { error, .. } => transport_kind(error),
                    _ => ErrorKind::Network,
                };
                return Err(StepError::new(kind, format!("{place} cannot be reached: {}", chain(&error))));
            }
            Err(_) => return Err(self.never_answered(&tail)),
        };
        Ok(Connection::new(service, JoinSet::new(), Arc::default(), tail))
    }

    fn never_answered(&self, tail: &Tail) -> StepError {
        let message = format!("the MCP server `{}` was started and never answered", self.name);
        StepError::new(ErrorKind::TimedOut, message)
            .help("see whether it is an MCP server, and what it waits for")
            .details(json!({ "stderr": tail.text() }))
    }

    async fn hung(&self, connection: &Connection, what: &str) -> StepError {
        self.forget(connection, &format!("it {what} in time")).await;
        StepError::new(ErrorKind::TimedOut, format!("the MCP server `{}` {what} in time", self.name))
            .details(json!({ "stderr": connection.tail.text() }))
    }

    async fn failed(&self, connection: &Connection, what: &str, error: &ServiceError) -> StepError {
        if let ServiceError::McpError(said) = error {
            let kind =
                if said.code == ErrorCode::INVALID_PARAMS { ErrorKind::Invalid } else { ErrorKind::Refused };
            return StepError::new(kind, format!("the MCP server `{}` {what}: {}", self.name, said.message))
                .details(json!({ "code": said.code.0, "data": said.data }));
        }
        self.forget(connection, &format!("it {what}: {}", chain(error))).await;
        let kind = match error {
            ServiceError::TransportSend(error) => transport_kind(error),
            _ => ErrorKind::Network,
        };
        StepError::new(kind, format!("the MCP server `{}` {what}: {}", self.name, chain(error)))
            .help("the next call starts it again")
            .details(json!({ "stderr": connection.tail.text() }))
    }

    /// Makes the next call connect anew.
    async fn forget(&self, connection: &Connection, why: &str) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|current| std::ptr::eq(Arc::as_ptr(current), connection)) {
            *slot = None;
            self.is_down(why);
        }
        // Its group goes now, whoever still holds the connection.
        connection.tasks.lock().abort_all();
    }

    async fn close(&self) {
        let Some(connection) = self.connection.lock().await.take() else { return };
        if let Some(mut service) = connection.service.lock().await.take() {
            // It closes the server's input; one that does not care is stopped next.
            let _ = service.close_with_timeout(CLOSE).await;
        }
        connection.stop.notify_one();
        let mut tasks = std::mem::take(&mut *connection.tasks.lock());
        let ended = async { while tasks.join_next().await.is_some() {} };
        // What has not ended by then is killed as the tasks are dropped.
        let _ = tokio::time::timeout(GRACE + CLOSE, ended).await;
    }
}

impl Connection {
    fn new(
        service: RunningService<RoleClient, ()>,
        tasks: JoinSet<()>,
        stop: Arc<Notify>,
        tail: Arc<Tail>,
    ) -> Self {
        let peer = service.peer().clone();
        Self {
            service: tokio::sync::Mutex::new(Some(service)),
            peer,
            tasks: Mutex::new(tasks),
            stop,
            is_suspect: AtomicBool::new(false),
            tail,
        }
    }
}

impl Connection {
    /// Whether the server is there, and answers where that is in doubt.
    async fn answers(&self) -> bool {
        if self.peer.is_transport_closed() {
            return false;
        }
        if self.is_suspect.load(Ordering::Relaxed) {
            let probe = tokio::time::timeout(CLOSE, self.peer.list_tools(None)).await;
            if !matches!(probe, Ok(Ok(_))) {
                return false;
            }
            self.is_suspect.store(false, Ordering::Relaxed);
        }
        true
    }
}

/// A call that may be given up.
struct Waiting<'a> {
    connection: &'a Connection,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.connection.is_suspect.store(true, Ordering::Relaxed);
        }
    }
}

/// Holds a server's process until it ends or is asked to. One that has ended may have left children that hold its pipes open:
/// they go with it, so that whoever waits for an answer hears of it.
async fn hold(mut child: Running, stop: Arc<Notify>) {
    tokio::select! {
        // How it ended is told by its last words.
        _ = child.wait() => drop(child),
        () = stop.notified() => child.stop().await,
    }
}

#[async_trait]
impl Tool for McpTool {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let connection = self.slot.connect(cx).await?;
        let Value::Object(arguments) = arguments else {
            return Err(StepError::invalid(format!("tool `{}` takes an object", self.spec.name)));
        };
        let request = CallToolRequestParams::new(self.own_name.clone()).with_arguments(arguments);
        let what = format!("failed in tool `{}`", self.own_name);
        // Whoever called ends the wait at the deadline; dropping it tells the server so.
        let mut waiting = Waiting { connection: &connection, is_over: false };
        let answer = connection.peer.call_tool_once(request).await;
        waiting.is_over = true;
        match answer {
            Ok(CallToolResponse::Complete(result)) => self.output(&result),
            Ok(_) => {
                let message =
                    format!("tool `{}` wants to ask back, which pipelines cannot answer", self.spec.name);
                Err(StepError::new(ErrorKind::Unsupported, message))
            }
            Err(error) => Err(self.slot.failed(&connection, &what, &error).await),
        }
    }
}

impl McpTool {
    fn output(&self, result: &CallToolResult) -> Result<ToolOutput, StepError> {
        let blocks = serde_json::to_value(&result.content).unwrap_or_default();
        let pieces = blocks.as_array().into_iter().flatten().map(shown);
        let content = pieces.collect::<Vec<_>>().join("\n");
        if result.is_error == Some(true) {
            // Servers tell wrong arguments and unknown tools by text, with the number of the protocol in it.
            let kind = if content.contains("-32602") { ErrorKind::Invalid } else { ErrorKind::Refused };
            return Err(StepError::new(kind, format!("tool `{}` failed: {content}", self.spec.name)));
        }
        let data = result.structured_content.clone().unwrap_or_default();
        Ok(ToolOutput { content, data })
    }
}

/// What a caller should do about a connection that failed: HTTP says it by a status.
fn transport_kind(error: &DynamicTransportError) -> ErrorKind {
    match error.error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::AuthRequired(_)) => ErrorKind::Auth,
        Some(StreamableHttpError::InsufficientScope(_)) => ErrorKind::Denied,
        Some(StreamableHttpError::HttpStatus(told)) if told.status == 429 => ErrorKind::RateLimited,
        Some(StreamableHttpError::HttpStatus(_)) => ErrorKind::Server,
        _ => ErrorKind::Network,
    }
}

/// An error with its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// How long a server is waited for while it starts.
fn patience(cx: &StepContext) -> Instant {
    cx.deadline.min(Instant::now() + START)
}

/// A block of an answer as text.
fn shown(block: &Value) -> String {
    match block["type"].as_str() {
        Some("text") => block["text"].as_str().unwrap_or_default().to_owned(),
        Some("resource") => match block["resource"]["text"].as_str() {
            Some(text) => text.to_owned(),
            None => format!("[resource {}]", block["resource"]["uri"].as_str().unwrap_or_default()),
        },
        Some("resource_link") => format!("[resource {}]", block["uri"].as_str().unwrap_or_default()),
        Some(kind) => {
            let bytes = block["data"].as_str().map_or(0, str::len);
            format!("[{kind} {}, {bytes} bytes of base64]", block["mimeType"].as_str().unwrap_or_default())
        }
        None => block.to_string(),
    }
}

/// Where a server's complaints are kept: in the run's directory, if there is a run.
fn log_file(cx: &StepContext, name: &str) -> Option<std::fs::File> {
    let dir: &Path = &cx.run.dirs.run;
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Without the file the end of it is kept in memory all the same.
    if dir.is_absolute() && dir.is_dir() {
        options.open(dir.join(format!("mcp-{plain}.log"))).ok()
    } else {
        None
    }
}
