//! Servers, connections, and what each format's events look like.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pipeline_core::error::StepError;
use pipeline_core::provider::{ModelAnswer, ModelRequest, Provider, ProviderEntry, ProviderLimits};
use pipeline_providers::{
    Credential, HttpProvider, HttpSettings, MockServer, MockServerOptions, PriceTable, Secret, Transport,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{asking, at};

pub const KEY: &str = "sk-very-secret-key";
pub const KINDS: [&str; 3] = ["anthropic", "gemini", "openai"];

/// A provider of a kind that calls `url`, and waits for little.
pub fn provider(kind: &str, url: &str) -> HttpProvider {
    let limits =
        ProviderLimits { response_seconds: Some(2.5), idle_seconds: Some(0.6), ..ProviderLimits::default() };
    with_limits(kind, url, limits)
}

/// A provider that waits long: for what is bounded by size and not by time.
pub fn patient(kind: &str, url: &str) -> HttpProvider {
    let limits = ProviderLimits {
        response_seconds: Some(600.0),
        idle_seconds: Some(600.0),
        ..ProviderLimits::default()
    };
    with_limits(kind, url, limits)
}

pub fn with_limits(kind: &str, url: &str, limits: ProviderLimits) -> HttpProvider {
    over(&Arc::new(Transport::live(None)), kind, url, limits)
}

/// One that shares a client with others: a client takes a while to make.
pub fn over(transport: &Arc<Transport>, kind: &str, url: &str, limits: ProviderLimits) -> HttpProvider {
    let entry =
        ProviderEntry { name: "it".to_owned(), kind: kind.to_owned(), limits, ..ProviderEntry::default() };
    let mut settings = HttpSettings::new(entry);
    settings.base_url = Some(url.to_owned());
    settings.credential = Credential::Key(Secret::new(KEY));
    HttpProvider::new(settings, Arc::clone(transport), &PriceTable::built_in().unwrap()).unwrap()
}

/// A mock server that runs as long as this lives.
pub struct Mock {
    pub url: String,
    address: std::net::SocketAddr,
    _task: JoinSet<()>,
}

impl Mock {
    pub async fn start() -> Self {
        Self::with(MockServerOptions::default()).await
    }

    pub async fn with(options: MockServerOptions) -> Self {
        let server = MockServer::bind(options).await.unwrap();
        let address = server.address();
        let mut task = JoinSet::new();
        task.spawn(async move { server.serve().await.unwrap() });
        Self { url: format!("http://{address}"), address, _task: task }
    }

    /// Tells what comes next and forgets what was asked.
    pub async fn script(&self, steps: Value) {
        self.door("POST", "/__log", "").await;
        let told = self.door("POST", "/__script", &steps.to_string()).await;
        assert!(told.get("left").is_some(), "{told}");
    }

    /// Every request since the script.
    pub async fn log(&self) -> Vec<Value> {
        self.door("GET", "/__log", "").await.as_array().unwrap().clone()
    }

    async fn door(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

/// What a raw server does with every connection, once it has read the request.
#[derive(Debug, Clone)]
pub enum Does {
    /// Says this and closes.
    Say(Vec<u8>),
    /// Says this and nothing more.
    Hang(Vec<u8>),
    /// Says this, says that it will say nothing more, and stays.
    HalfClose(Vec<u8>),
    /// Says the first, then the second for ever, with pauses.
    Drip(Vec<u8>, Vec<u8>, Duration),
    /// Says the first, then the second until that many bytes of it have been sent.
    Flood(Vec<u8>, Vec<u8>, usize),
}

/// A server without any rules.
pub struct Raw {
    pub url: String,
    pub connections: Arc<AtomicUsize>,
    pub sent: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Raw {
    pub async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (connections, sent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (count, bytes) = (Arc::clone(&connections), Arc::clone(&sent));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (does, bytes) = (does.clone(), Arc::clone(&bytes));
                open.spawn(async move { serve(stream, does, &bytes).await });
            }
        });
        Self { url, connections, sent, _task: task }
    }
}

async fn serve(mut stream: TcpStream, does: Does, sent: &AtomicUsize) {
    let mut request = vec![0; 64 << 10];
    let _gone = stream.read(&mut request).await;
    match does {
        Does::Say(bytes) => {
            let _gone = stream.write_all(&bytes).await;
        }
        Does::Hang(bytes) => {
            let _gone = stream.write_all(&bytes).await;
            sleep(Duration::from_secs(60)).await;
        }
        Does::HalfClose(bytes) => {
            let _gone = stream.write_all(&bytes).await;
            let _gone = stream.shutdown().await;
            sleep(Duration::from_secs(60)).await;
        }
        Does::Flood(first, again, most) => {
            let _gone = stream.write_all(&first).await;
            while sent.load(Ordering::SeqCst) < most && stream.write_all(&again).await.is_ok() {
                sent.fetch_add(again.len(), Ordering::SeqCst);
            }
        }
        Does::Drip(first, again, pause) => {
            let _gone = stream.write_all(&first).await;
            while stream.write_all(&again).await.is_ok() {
                sent.fetch_add(again.len(), Ordering::SeqCst);
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        }
    }
}

/// The head of a stream that ends when the connection does.
pub const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// A first event with a piece of text in it.
pub fn first(kind: &str) -> String {
    let data = match kind {
        "anthropic" => {
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "par"}})
        }
        "gemini" => {
            json!({"candidates": [{"content": {"parts": [{"text": "par"}], "role": "model"}, "index": 0}]})
        }
        _ => json!({"choices": [{"index": 0, "delta": {"content": "par"}, "finish_reason": null}]}),
    };
    format!("data: {data}\n\n")
}

/// How a call of that provider ends, and that it ends soon.
pub async fn call(provider: &HttpProvider, request: &ModelRequest) -> Result<ModelAnswer, StepError> {
    let cx = at("step");
    timeout(Duration::from_secs(30), provider.complete(request, &cx)).await.expect("every call ends")
}

pub async fn failure(provider: &HttpProvider) -> StepError {
    let error = call(provider, &asking("hello")).await.expect_err("it fails");
    let told = format!("{error:?} {}", serde_json::to_string(&error).unwrap());
    assert!(!told.contains("very-secret"), "{told}");
    error
}
