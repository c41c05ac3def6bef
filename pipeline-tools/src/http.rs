//! Tools that fetch from the web.
//!
//! Owns [`HttpGet`] and [`WanIp`]. Only hosts that `permissions.network` lists are reached; redirects are not followed; a name that leads to
//! an address of this machine or its network is refused, unless that very name is listed. Must not know the registry.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::planted::{Bug, planted};
use pipeline_core::step::{Permissions, StepContext};
use pipeline_core::tool::{Tool, ToolOutput, ToolSpec};
use pipeline_core::value::Value;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use serde_json::json;

use crate::address::is_public;
use crate::decode::{decode, spec};

/// Bytes of a body that are read.
const MOST: usize = 1 << 20;

/// How long a silence may last.
const SILENCE: Duration = Duration::from_secs(30);

/// How long all of it may take.
const TOTAL: Duration = Duration::from_secs(60);

/// Fetches a URL.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpGet;

/// Asks a service on the web for the address that this machine has there.
#[derive(Debug, Clone, Copy)]
pub struct WanIp(&'static str);

impl WanIp {
    /// The tool under this name.
    pub fn named(name: &'static str) -> Self {
        Self(name)
    }
}

#[derive(Deserialize)]
struct Place {
    url: String,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    service: Service,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Service {
    #[default]
    Ipify,
    Httpbin,
    Checkip,
}

#[async_trait]
impl Tool for HttpGet {
    fn spec(&self) -> ToolSpec {
        let properties =
            json!({"url": {"type": "string", "description": "http or https; the host must be permitted"}});
        spec("http_get", "Fetches a text from the web (up to 1 MiB, no redirects).", properties, &["url"])
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Place { url } = decode("http_get", arguments)?;
        let page = get(&url, &cx.run.permissions).await?;
        let data = json!({
            "url": url, "status": page.status, "content_type": page.content_type, "is_cut": page.is_cut,
            "location": page.location,
        });
        Ok(ToolOutput { content: page.text, data })
    }
}

#[async_trait]
impl Tool for WanIp {
    fn spec(&self) -> ToolSpec {
        let properties =
            json!({"service": {"enum": ["ipify", "httpbin", "checkip"], "description": "Whom to ask"}});
        spec(self.0, "Asks a service on the web for this machine's public address.", properties, &[])
    }

    async fn call(&self, arguments: Value, cx: &StepContext) -> Result<ToolOutput, StepError> {
        let Asked { service } = decode(self.0, arguments)?;
        let (name, url) = match service {
            Service::Ipify => ("ipify", "https://api.ipify.org/"),
            Service::Httpbin => ("httpbin", "https://httpbin.org/ip"),
            Service::Checkip => ("checkip", "https://checkip.amazonaws.com/"),
        };
        let page = get(url, &cx.run.permissions).await?;
        let written = serde_json::from_str::<Value>(&page.text).ok();
        let told = written.as_ref().and_then(|v| v["origin"].as_str()).unwrap_or(page.text.trim());
        let address: IpAddr = told.parse().map_err(|_| {
            StepError::new(ErrorKind::Parse, format!("{url} did not answer with an address"))
                .details(json!({ "status": page.status }))
        })?;
        let data = json!({ "wan_ip": address.to_string(), "service_used": name });
        Ok(ToolOutput { content: address.to_string(), data })
    }
}

struct Page {
    status: u16,
    content_type: Option<String>,
    location: Option<String>,
    text: String,
    is_cut: bool,
}

async fn get(url: &str, permissions: &Permissions) -> Result<Page, StepError> {
    let url = permitted(url, permissions)?;
    let is_named = names_exactly(permissions, url.host_str().unwrap_or_default());
    let failed = |error: reqwest::Error| {
        let kind = if error.is_timeout() { ErrorKind::TimedOut } else { ErrorKind::Network };
        StepError::new(kind, format!("cannot fetch {url}: {}", whole(&error)))
    };
    let client = client(is_named).map_err(|message| StepError::new(ErrorKind::Internal, message))?;
    let response = client.get(url.clone()).send().await.map_err(failed)?;
    let header = |name: reqwest::header::HeaderName| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (content_type, location) = (header(reqwest::header::CONTENT_TYPE), header(reqwest::header::LOCATION));
    let status = response.status().as_u16();
    let (bytes, is_cut) = body(response).await.map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Page { status, content_type, location, text, is_cut })
}

/// A URL that may be fetched.
fn permitted(text: &str, permissions: &Permissions) -> Result<Url, StepError> {
    let url =
        Url::parse(text).map_err(|error| StepError::invalid(format!("`{text}` is not a URL: {error}")))?;
    let denied =
        |why: String| StepError::new(ErrorKind::Denied, format!("`{text}` may not be fetched: {why}"));
    if !matches!(url.scheme(), "http" | "https") {
        return Err(denied(format!("the scheme is `{}`, and only http and https are fetched", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(denied("it has a user or a password in it".to_owned()));
    }
    let host = url.host_str().unwrap_or_default();
    if !permissions.allows_host(host) {
        return Err(denied(format!("`permissions.network` does not list `{host}`"))
            .help(format!("allow it with `permissions: {{network: [{host}]}}`")));
    }
    // An address is never looked up, so it is looked at here.
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    if address.is_ok_and(|address| !is_public(address)) && !names_exactly(permissions, host) {
        return Err(denied(format!("`{host}` is an address of this machine or its network")));
    }
    Ok(url)
}

/// Whether a host is listed by its own name: only then it may be one of this network.
fn names_exactly(permissions: &Permissions, host: &str) -> bool {
    permissions.network.iter().any(|rule| rule.eq_ignore_ascii_case(host))
}

fn client(may_be_near: bool) -> Result<Client, String> {
    crate::client::builder()
        .timeout(TOTAL)
        .read_timeout(SILENCE)
        .dns_resolver(Arc::new(Guarded { may_be_near }))
        .build()
        .map_err(|error| format!("the HTTP client cannot be made: {error}"))
}

/// Looks names up and leaves out what is not on the open internet, so that what was checked is what is connected to.
struct Guarded {
    may_be_near: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let may_be_near = self.may_be_near;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let usable: Vec<SocketAddr> =
                found.filter(|a| may_be_near || planted(Bug::ResolveOnce) || is_public(a.ip())).collect();
            if usable.is_empty() {
                let why = format!(
                    "`{}` leads to this machine or its network, and is not listed by name",
                    name.as_str()
                );
                return Err(why.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

async fn body(mut response: Response) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MOST - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok((bytes, true));
        }
    }
    Ok((bytes, false))
}

/// An error with what is behind it.
fn whole(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use pipeline_core::conformance::trials::Trials;

    use super::*;

    fn may(network: &[&str]) -> Permissions {
        Permissions { network: network.iter().map(|n| (*n).to_owned()).collect(), ..Permissions::default() }
    }

    /// Naive: a list of forbidden texts. An address has many spellings, and a name may lead anywhere.
    #[tokio::test]
    async fn t14_no_spelling_of_a_near_address_is_fetched_although_every_host_is_listed() {
        let trials = Trials::of("T14", 1);
        let urls = [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://017700000001/",
            "http://127.0.0.1.:80/",
            "http://127.255.255.254/",
            "http://0.0.0.0/",
            "http://0/",
            "http://0.1.2.3/",
            "http://10.0.0.1/",
            "http://10.255.255.255/",
            "http://172.16.0.1/",
            "http://172.31.255.255/",
            "http://192.168.1.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:169.254.169.254]/",
            "http://100.64.0.1/",
            "http://100.127.255.255/",
            "http://192.0.0.1/",
            "http://192.0.2.1/",
            "http://198.18.0.1/",
            "http://198.19.255.255/",
            "http://198.51.100.1/",
            "http://203.0.113.1/",
            "http://224.0.0.1/",
            "http://239.255.255.255/",
            "http://240.0.0.1/",
            "http://255.255.255.255/",
            "http://[::1]/",
            "http://[::]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[fe80::1]/",
            "http://[fc00::1]/",
            "http://[fd12:3456::1]/",
            "http://[fec0::1]/",
            "http://[ff02::1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[2001::1]/",
            "http://[2001:db8::1]/",
            "http://１２７.０.０.１/",
            "http://user@8.8.8.8/",
            "http://8.8.8.8:pass@127.0.0.1/",
            "file:///etc/passwd",
            "ftp://8.8.8.8/",
            "gopher://127.0.0.1:6379/_INFO",
            "http://localhost/",
            "http://LOCALHOST./",
        ];
        assert!(urls.len() >= 40);
        // Whoever connects after all is counted, under a name of this machine.
        let (port, connections) = counted().await;
        let near = [format!("http://localhost:{port}/"), format!("http://LOCALHOST.:{port}/")];
        for url in urls.into_iter().chain(near.iter().map(String::as_str)) {
            trials
                .try_while(url, async {
                    let error =
                        get(url, &may(&["*"])).await.err().unwrap_or_else(|| panic!("it was fetched"));
                    let told = error.to_string();
                    let is_refused =
                        error.kind == ErrorKind::Denied || told.contains("is not listed by name");
                    assert!(is_refused || told.contains("lookup"), "{told}");
                })
                .await;
        }
        let connections = connections.load(std::sync::atomic::Ordering::SeqCst);
        trials.try_out("a server of this machine", || assert_eq!(connections, 0, "connections"));
        trials.finish(format!("{} spellings of near addresses, other schemes and names that lead here: {connections} connections", urls.len() + 2));
    }

    #[test]
    fn only_listed_hosts_are_fetched() {
        let rules = may(&["example.org", "*.example.com"]);
        for url in ["https://example.org/x", "http://a.example.com", "http://a.b.EXAMPLE.com./"] {
            assert!(permitted(url, &rules).is_ok(), "{url}");
        }
        for url in [
            "https://example.com",
            "https://badexample.com",
            "https://example.org.evil.net",
            "https://x.org",
            "no url",
        ] {
            assert!(permitted(url, &rules).is_err(), "{url}");
        }
        assert!(permitted("https://example.org", &Permissions::default()).is_err());
    }

    #[test]
    fn addresses_of_the_open_internet_are_public() {
        for text in ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    /// A port of this machine, and how often somebody has connected to it.
    async fn counted() -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        #[expect(clippy::disallowed_methods, reason = "a server of the test")]
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
        (port, count)
    }

    async fn server(answer: &'static [u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a server of the test")]
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        });
        format!("http://{address}/")
    }

    #[tokio::test]
    async fn a_host_of_this_machine_is_fetched_when_it_is_listed_by_name_and_redirects_are_told() {
        let url =
            server(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 2\r\n\r\nhi")
                .await;
        assert_eq!(get(&url, &may(&["*"])).await.err().unwrap().kind, ErrorKind::Denied);
        let page = get(&url, &may(&["127.0.0.1"])).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((page.status, page.text.as_str()), (302, "hi"));
        assert_eq!(page.location.as_deref(), Some("http://169.254.169.254/"));
    }
}
