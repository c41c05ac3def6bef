//! MCP servers over streamable HTTP, on loopback: good ones, and those that hang, end and flood.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::{Permissions, StepContext};
use pipeline_core::tool::{ToolOutput, ToolSource};
use pipeline_core::value::Value;
use pipeline_tools::Registry;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{context_in, declared};

const TOOLS: [&str; 8] = ["echo", "stream", "hang", "end", "half", "flood", "flood_json", "page"];

/// A server that misbehaves as the name of the tool, or its mode from the beginning, says.
struct Server {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(mode: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let (heard, sent) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let mut serving = JoinSet::new();
        let shared = (Arc::clone(&heard), Arc::clone(&sent));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, sent) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
                connections.spawn(async move { connection(stream, mode, &heard, &sent).await });
            }
        });
        Self { url, heard, sent, _serving: serving }
    }

    fn heard(&self, what: &str) -> usize {
        self.heard.lock().iter().filter(|request| request.contains(what)).count()
    }
}

/// Serves one connection until it ends; `None` when it has.
async fn connection(
    mut stream: TcpStream,
    mode: &str,
    heard: &Mutex<Vec<String>>,
    sent: &AtomicUsize,
) -> Option<()> {
    loop {
        let request = request(&mut stream).await?;
        heard.lock().push(request.clone());
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let id = &body["id"];
        let result = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
        let what = match (body["method"].as_str(), mode) {
            (Some("initialize"), "good") => "initialize",
            (Some("initialize"), mode) => mode,
            (Some("tools/call"), _) => body["params"]["name"].as_str().unwrap_or_default(),
            (Some("tools/list"), _) => "list",
            (Some(_), _) => "told",
            (None, _) => "other",
        };
        let said = json!({"content": [{"type": "text", "text": "you said it"}]});
        match what {
            "initialize" => {
                let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fake", "version": "1"}});
                whole(&mut stream, "200 OK", "mcp-session-id: s1\r\n", &result(hello)).await?;
            }
            "list" => {
                let tools: Vec<Value> = TOOLS
                    .iter()
                    .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}))
                    .collect();
                whole(&mut stream, "200 OK", "", &result(json!({ "tools": tools }))).await?;
            }
            "echo" => whole(&mut stream, "200 OK", "", &result(said)).await?,
            "stream" => {
                let note = json!({"jsonrpc": "2.0", "method": "notifications/message",
                    "params": {"level": "info", "data": "on it"}});
                let text = format!("data: {note}\n\ndata: {}\n\n", result(said));
                stream.write_all(format!("{SSE}{text}").as_bytes()).await.ok()?;
                return None;
            }
            "told" => stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.ok()?,
            "hang" | "silent" => std::future::pending::<()>().await,
            "half" => {
                stream.write_all(format!("{SSE}data: {{\"jsonrpc\": ").as_bytes()).await.ok()?;
                return None;
            }
            "flood" => flood(&mut stream, &format!("{SSE}data: "), sent).await?,
            "flood_json" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[\"";
                flood(&mut stream, head, sent).await?;
            }
            "page" => {
                let page = "<html>sign in</html>";
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length";
                stream.write_all(format!("{head}: {}\r\n\r\n{page}", page.len()).as_bytes()).await.ok()?;
            }
            "locked" => {
                let head =
                    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
            }
            "moved" => {
                let head = "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
            }
            "end" => return None,
            _ => {
                let head = "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
            }
        }
    }
}

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

async fn whole(stream: &mut TcpStream, status: &str, headers: &str, body: &Value) -> Option<()> {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-type: application/json\r\ncontent-length: ");
    stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await.ok()
}

async fn flood(stream: &mut TcpStream, head: &str, sent: &AtomicUsize) -> Option<()> {
    stream.write_all(head.as_bytes()).await.ok()?;
    let piece = vec![b'x'; 1 << 16];
    loop {
        stream.write_all(&piece).await.ok()?;
        sent.fetch_add(piece.len(), Ordering::SeqCst);
    }
}

/// Head and body of a request.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text.into_owned());
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}

struct Stage {
    server: Server,
    tools: Registry,
    cx: StepContext,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn new(mode: &'static str) -> Self {
        let server = Server::start(mode).await;
        let dir = tempfile::tempdir().unwrap();
        let headers = json!({"x-token": "t-${MCP_TOKEN}"});
        let keys = json!({"mcp_servers": {"web": {"type": "http", "url": server.url, "headers": headers}}});
        let tools = declared(&keys, &[("MCP_TOKEN", "s3cret")]).unwrap();
        let mut cx = context_in(dir.path(), Permissions::default());
        cx.deadline = Instant::now() + Duration::from_secs(20);
        Self { server, tools, cx, _dir: dir }
    }

    async fn call(&self, tool: &str) -> Result<ToolOutput, StepError> {
        let name = format!("mcp__web__{tool}");
        self.tools.open(&name, &self.cx).await?.remove(0).call(json!({}), &self.cx).await
    }
}

#[tokio::test]
async fn a_server_over_http_is_listed_and_called_with_its_session_and_secret() {
    let stage = Stage::new("good").await;
    let all = stage.tools.open("mcp__web", &stage.cx).await.unwrap();
    assert_eq!(all.len(), TOOLS.len());
    for tool in ["echo", "stream"] {
        assert_eq!(stage.call(tool).await.unwrap().content, "you said it", "{tool}");
    }
    assert_eq!(stage.server.heard("\"initialize\""), 1, "one connection for all");
    assert_eq!(stage.server.heard("t-s3cret"), stage.server.heard("/mcp"), "with every request");
    let calls = stage.server.heard("tools/call");
    assert_eq!((calls, stage.server.heard("DELETE")), (2, 0));
    stage.tools.close().await;
    assert_eq!(stage.server.heard("DELETE"), 1, "the session is given back");
}

/// Naive: waits for the answer, takes all of it, and calls again what may have been done.
#[tokio::test]
async fn x26_a_server_over_http_that_hangs_ends_or_floods_fails_the_call_alone() {
    let mut stage = Stage::new("good").await;
    let cases = [
        ("end", ErrorKind::Network),
        ("half", ErrorKind::Network),
        ("page", ErrorKind::Network),
        ("flood", ErrorKind::Network),
        ("flood_json", ErrorKind::Network),
        ("hang", ErrorKind::TimedOut),
    ];
    for (number, (tool, kind)) in cases.into_iter().enumerate() {
        if kind == ErrorKind::TimedOut {
            stage.cx.deadline = Instant::now() + Duration::from_millis(400);
        }
        let error = stage.call(tool).await.unwrap_err();
        assert_eq!(error.kind, kind, "{tool}: {}", error.message);
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        assert_eq!(stage.server.heard("tools/call"), 2 * number + 1, "{tool}: it is called once");
        stage.cx.deadline = Instant::now() + Duration::from_secs(20);
        assert!(stage.call("echo").await.is_ok(), "after {tool}");
    }
    let sent = stage.server.sent.load(Ordering::SeqCst);
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

/// Naive: one error for all that goes wrong before the first answer, with the address and its secrets in it.
#[tokio::test]
async fn x12_a_server_over_http_that_does_not_begin_is_told() {
    let cases = [
        ("locked", ErrorKind::Auth, "Auth required"),
        ("moved", ErrorKind::Network, "307"),
        ("page", ErrorKind::Network, "text/html"),
        ("end", ErrorKind::Network, "reached"),
        ("flood", ErrorKind::Network, ""),
        ("silent", ErrorKind::TimedOut, "never answered"),
    ];
    for (mode, kind, told) in cases {
        let mut stage = Stage::new(mode).await;
        if kind == ErrorKind::TimedOut {
            stage.cx.deadline = Instant::now() + Duration::from_millis(400);
        }
        let error = stage.call("echo").await.unwrap_err();
        assert!(error.kind == kind && error.message.contains(told), "{mode}: {error:?}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let gone = declared(&json!({"mcp_servers": {"x": {"url": "http://127.0.0.1:1/mcp"}}}), &[]).unwrap();
    let error = gone.open("mcp__x", &context_in(dir.path(), Permissions::default())).await.err().unwrap();
    assert!(error.kind == ErrorKind::Network && error.message.contains("127.0.0.1:1"), "{error:?}");
}
