//! As much of HTTP/1.1 as clients of model services speak, written so that every rule of it can be broken on purpose.
//!
//! Owns reading a request and writing an answer. Must not know what is asked.

use std::io;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Most bytes of a request's head.
const MOST_HEAD: usize = 64 << 10;

/// Most bytes of a request's body.
const MOST_BODY: usize = 64 << 20;

/// One request.
pub(super) struct Request {
    pub(super) method: String,
    /// With its query.
    pub(super) target: String,
    /// By name in small letters.
    pub(super) headers: Map<String, Value>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// A connection.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The next request; `None` when the client has gone.
    pub(super) async fn request(&mut self) -> io::Result<Option<Request>> {
        let first = self.line().await?;
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next().filter(|m| !m.is_empty()), words.next()) else {
            return Ok(None);
        };
        let mut headers = Map::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            if headers.len() > 200 {
                return Err(io::Error::other("too many headers"));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.insert(name.to_ascii_lowercase(), value.trim().into());
        }
        let mut request =
            Request { method: method.to_owned(), target: target.to_owned(), headers, body: Vec::new() };
        if request.header("expect").is_some() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if request.header("transfer-encoding").is_some_and(|t| t.eq_ignore_ascii_case("chunked")) {
            request.body = self.chunks().await?;
        } else if let Some(length) = request.header("content-length").and_then(|l| l.parse().ok()) {
            request.body = self.exactly(length).await?;
        }
        Ok(Some(request))
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let limit = u64::try_from(MOST_HEAD).unwrap_or(u64::MAX);
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).await?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > MOST_BODY {
            return Err(io::Error::other("the body is too large"));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line().await?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if body.len() + size > MOST_BODY {
                return Err(io::Error::other("the body is too large"));
            }
            body.extend(self.exactly(size).await?);
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// A whole answer.
    pub(super) async fn whole(
        &mut self,
        status: u16,
        content_type: &str,
        headers: &Map<String, Value>,
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = head(status, content_type, headers);
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.raw(head.as_bytes()).await?;
        self.raw(body).await
    }

    /// The head of a stream of events.
    pub(super) async fn begin(&mut self, headers: &Map<String, Value>) -> io::Result<()> {
        let mut head = head(200, "text/event-stream; charset=utf-8", headers);
        head.push_str("cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
        self.raw(head.as_bytes()).await
    }

    /// A piece of a stream; an empty one ends it.
    pub(super) async fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.raw(&chunk).await
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits until the client goes.
    pub(super) async fn hold(&mut self) -> io::Result<()> {
        let mut byte = [0];
        self.stream.read(&mut byte).await.map(|_| ())
    }

    /// Says that nothing more will be said, without going.
    pub(super) async fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

fn head(status: u16, content_type: &str, headers: &Map<String, Value>) -> String {
    let mut head = format!("HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\n", word(status));
    for (name, value) in headers {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        head.push_str(&format!("{name}: {}\r\n", value.replace(['\r', '\n'], " ")));
    }
    head
}

fn word(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        _ => "Status",
    }
}
