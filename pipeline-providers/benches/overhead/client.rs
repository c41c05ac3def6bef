//! Ways to ask: the bare HTTP client, the same with the least that makes something of the answer, the provider, and the provider
//! with every layer that a run puts around it.

use std::sync::Arc;
use std::time::Duration;

use pipeline_core::catalog::Services;
use pipeline_core::provider::{Message, ModelRequest, Provider, ProviderEntry, ProviderLimits};
use pipeline_core::step::StepContext;
use pipeline_providers::{
    Broken, Circuits, Credential, Governed, HttpProvider, HttpSettings, Limited, PriceTable, Rates, Secret,
    Transport,
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    Bare,
    Reading,
    Provider,
    Layers,
}

impl Asks {
    pub const ALL: [Self; 4] = [Self::Bare, Self::Reading, Self::Provider, Self::Layers];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Reading => "bare+json",
            Self::Provider => "provider",
            Self::Layers => "all-layers",
        }
    }
}

/// One way to ask one server.
pub struct Client {
    request: ModelRequest,
    context: StepContext,
    how: How,
    _rates: tempfile::TempDir,
}

enum How {
    Bare { client: reqwest::Client, url: String, body: Value, reads: bool },
    Provider(Arc<dyn Provider>),
}

impl Client {
    pub fn new(asks: Asks, base: &str) -> Self {
        let prompt = "word ".repeat(400);
        let request = ModelRequest { messages: vec![Message::user(&prompt)], ..ModelRequest::default() };
        let entry =
            ProviderEntry { name: "it".to_owned(), kind: "anthropic".to_owned(), ..ProviderEntry::default() };
        let mut settings = HttpSettings::new(entry);
        settings.base_url = Some(base.to_owned());
        settings.credential = Credential::Key(Secret::new("sk-of-the-bench"));
        let prices = PriceTable::built_in().expect("prices");
        let provider = HttpProvider::new(settings, Arc::new(Transport::live(None)), &prices).expect("a kind");
        let rates = tempfile::tempdir().expect("a folder");
        let how = match asks {
            Asks::Bare | Asks::Reading => {
                let body = provider.body(&request).expect("a body");
                let url = format!("{base}/v1/messages");
                How::Bare { client: bare(), url, body, reads: asks == Asks::Reading }
            }
            Asks::Provider => How::Provider(Arc::new(provider)),
            Asks::Layers => {
                // As the program shares it with other processes: by a file.
                let account =
                    Rates::shared(rates.path().into()).account("it", "key", &ProviderLimits::default());
                let limited: Arc<dyn Provider> =
                    Arc::new(Limited(Arc::new(provider.telling(Arc::clone(&account)))));
                let governed: Arc<dyn Provider> = Arc::new(Governed::new(limited, account));
                How::Provider(Arc::new(Broken::new(governed, Arc::<Circuits>::default())))
            }
        };
        let mut services = Services::default();
        services.calls = Some(Arc::new(Semaphore::new(100_000)));
        let mut context = StepContext::detached(services);
        context.deadline = Instant::now() + Duration::from_mins(10);
        Self { request, context, how, _rates: rates }
    }

    /// One call, to its end; bytes of the answer.
    pub async fn ask(&self) -> usize {
        match &self.how {
            How::Bare { client, url, body, reads } => {
                let request = client.post(url).header("x-api-key", "sk-of-the-bench");
                let request = request.header("anthropic-version", "2023-06-01");
                let request = request.header("content-type", "application/json");
                let body = serde_json::to_vec(body).expect("JSON");
                let mut response = request.body(body).send().await.expect("an answer");
                let (mut bytes, mut answer) = (Vec::new(), String::new());
                while let Some(chunk) = response.chunk().await.expect("its body") {
                    bytes.extend_from_slice(&chunk);
                }
                if *reads {
                    let text = std::str::from_utf8(&bytes).expect("text");
                    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
                        let event: Value = serde_json::from_str(data).expect("JSON");
                        answer.push_str(event["delta"]["text"].as_str().unwrap_or_default());
                    }
                    assert!(!answer.is_empty());
                }
                bytes.len()
            }
            How::Provider(provider) => {
                let answer = provider.complete(&self.request, &self.context).await.expect("an answer");
                assert_eq!(answer.usage.output, 900);
                answer.text.len()
            }
        }
    }
}

/// The client as the provider makes it.
fn bare() -> reqwest::Client {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _chosen_meanwhile = rustls::crypto::ring::default_provider().install_default();
    }
    reqwest::Client::builder().tcp_nodelay(true).no_proxy().build().expect("a client")
}

/// A word to the server.
pub async fn tell(url: &str) {
    let answer = bare().get(url).send().await.expect("the server hears");
    assert!(answer.status().is_success());
}

/// A figure of this process's memory, in MiB.
pub fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

/// How many files this process may have open.
pub fn open_files() -> String {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap_or("unknown");
    line.split_whitespace().next().unwrap_or("unknown").to_owned()
}
