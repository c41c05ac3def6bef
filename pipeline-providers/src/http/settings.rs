//! What a connection needs to know, resolved: no variable is left in it.
//!
//! Owns [`HttpSettings`]. Must not read the environment: the composition root has looked.

use std::time::Duration;

use pipeline_core::provider::ProviderEntry;

use crate::secret::Secret;

/// Longest wait for the first event of an answer.
const RESPONSE: Duration = Duration::from_secs(600);

/// Longest silence between two events of an answer.
const IDLE: Duration = Duration::from_secs(60);

/// How a call shows who makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// It does not: a server of one's own.
    None,
    /// By the vendor's own header for keys.
    Key(Secret),
    /// As a bearer token.
    Token(Secret),
}

/// A live provider's connection.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The entry of `providers`, or what stands for it where the provider is built in.
    pub entry: ProviderEntry,
    /// Where it is; `None` = the kind's own service.
    pub base_url: Option<String>,
    /// Who calls.
    pub credential: Credential,
    /// Name of the variable that the credential came from, for messages.
    pub key_name: Option<String>,
    /// Further headers; their values may be secret.
    pub headers: Vec<(String, Secret)>,
}

impl HttpSettings {
    /// The service of the entry's kind itself, without a credential.
    pub fn new(entry: ProviderEntry) -> Self {
        let base_url = entry.base_url.clone();
        Self { entry, base_url, credential: Credential::None, key_name: None, headers: Vec::new() }
    }

    /// Where it is and who calls: what a service counts its limits by. Not to be shown.
    pub fn identity(&self) -> [&str; 2] {
        let who = match &self.credential {
            Credential::None => "",
            Credential::Key(secret) | Credential::Token(secret) => secret.expose(),
        };
        [self.base_url(), who]
    }

    /// Where it is, without a slash at the end.
    pub(crate) fn base_url(&self) -> &str {
        let own = self.base_url.as_deref().unwrap_or_else(|| vendor_url(&self.entry.kind));
        own.trim_end_matches('/')
    }

    /// The host, for messages: a whole URL may hold secrets.
    pub(crate) fn host(&self) -> String {
        let url = self.base_url();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        host.rsplit('@').next().unwrap_or_default().to_owned()
    }

    /// Whether the service is on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.host();
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        name == "localhost"
            || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// `text` without any secret of this connection.
    pub(crate) fn redact(&self, text: &str) -> String {
        let own = match &self.credential {
            Credential::None => None,
            Credential::Key(secret) | Credential::Token(secret) => Some(secret),
        };
        let all = own.into_iter().chain(self.headers.iter().map(|(_, secret)| secret));
        all.fold(text.to_owned(), |text, secret| secret.redact(&text))
    }

    pub(crate) fn response_limit(&self) -> Duration {
        limit(self.entry.limits.response_seconds, RESPONSE)
    }

    pub(crate) fn idle_limit(&self) -> Duration {
        limit(self.entry.limits.idle_seconds, IDLE)
    }
}

fn limit(seconds: Option<f64>, default: Duration) -> Duration {
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(default)
}

/// The service of a kind itself.
pub fn vendor_url(kind: &str) -> &'static str {
    match kind {
        "anthropic" => "https://api.anthropic.com",
        "gemini" => "https://generativelanguage.googleapis.com",
        "ollama" => "http://127.0.0.1:11434/v1",
        _ => "https://api.openai.com/v1",
    }
}
