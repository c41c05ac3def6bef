//! The one door to the network.
//!
//! Owns [`Transport`]: one client for all providers, made when it is first used, which follows no redirect, retries
//! nothing and knows no proxy but the one it was told. A transport may also be shut: then every call is refused before a
//! name is looked up. Must not know vendors.

use std::sync::OnceLock;
use std::time::Duration;

use pipeline_core::error::ErrorKind;
use pipeline_core::planted::{Bug, planted};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::debug;

use crate::http::failure::Fault;

/// Longest time for name, connection and TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next call.
const KEEP: Duration = Duration::from_secs(60);

/// Sends requests.
#[derive(Debug)]
pub struct Transport {
    is_shut: bool,
    proxy: Option<String>,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl Transport {
    /// A transport to the network, through `proxy` for https where one is given.
    pub fn live(proxy: Option<String>) -> Self {
        Self { is_shut: false, proxy, client: OnceLock::new() }
    }

    /// A transport that lets nothing through: what a run on mocks has.
    pub fn shut() -> Self {
        Self { is_shut: true, proxy: None, client: OnceLock::new() }
    }

    /// Sends a JSON body. The answer's head has come when this returns.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, Fault> {
        if self.is_shut {
            let fault = Fault::new(ErrorKind::Denied, "was not called: this run makes no network calls");
            return Err(fault.help("a run on mocks or a replay stays one; start a new run without them"));
        }
        if planted(Bug::LogRequest) {
            debug!(url, ?headers, "asking");
        }
        let client = self.client.get_or_init(|| self.connect()).as_ref();
        let client =
            client.map_err(|reason| Fault::new(ErrorKind::Environment, "cannot be called").said(reason))?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            // What a header may not hold is told without its value: it may be a key.
            let bad = |_| {
                Fault::new(
                    ErrorKind::Invalid,
                    format!("cannot be called: the header `{name}` holds what a header may not hold"),
                )
            };
            let key: HeaderName = name.parse().map_err(|_| {
                Fault::new(ErrorKind::Invalid, format!("cannot be called: `{name}` is no name of a header"))
            })?;
            let mut value = HeaderValue::from_str(&value).map_err(bad)?;
            value.set_sensitive(true);
            map.insert(key, value);
        }
        let request = client.post(url).headers(map).header("content-type", "application/json").body(body);
        // Without its query: some services take keys there.
        let place = url.split('?').next().unwrap_or(url);
        let answer = request.send().await;
        match &answer {
            Ok(answer) => debug!(url = place, status = answer.status().as_u16(), "answered"),
            Err(error) => debug!(url = place, is_timeout = error.is_timeout(), "not reached"),
        }
        answer.map_err(|error| unreached(&error))
    }

    fn connect(&self) -> Result<reqwest::Client, String> {
        // Whoever embeds this crate may have chosen the process's cryptography already.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _chosen_meanwhile = rustls::crypto::ring::default_provider().install_default();
        }
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(KEEP)
            .tcp_nodelay(true)
            .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        if let Some(proxy) = &self.proxy {
            let proxy =
                reqwest::Proxy::https(proxy).map_err(|_| "the proxy of HTTPS_PROXY is no URL".to_owned())?;
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| chain(&error))
    }
}

/// A request that got no answer.
fn unreached(error: &reqwest::Error) -> Fault {
    let words = chain(error);
    if error.is_builder() {
        return Fault::new(ErrorKind::Invalid, "cannot be called: its `base_url` is no URL");
    }
    if error.is_timeout() {
        return Fault::new(ErrorKind::Network, "was not reached in time").said(words);
    }
    if error.is_connect() {
        return Fault::new(ErrorKind::Network, "was not reached").said(words);
    }
    Fault::new(ErrorKind::Network, "ended the connection before it answered").said(words)
}

/// What an error and its causes say, without the URL: it may hold a secret.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let mut text = error.to_string();
        // The outermost words of the client repeat the URL.
        if let Some(at) = text.find(" for url (") {
            text.truncate(at);
        }
        if !words.iter().any(|w| w.contains(&text)) {
            words.push(text);
        }
        next = error.source();
    }
    words.join(": ")
}
