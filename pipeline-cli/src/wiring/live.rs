//! Connections to live providers: an entry, or a built-in name, and the environment become a provider.
//!
//! Owns which credential goes where. A key of a vendor is sent to that vendor, or to where the user's own environment says
//! that vendor is, and nowhere else, whatever a pipeline file says. Must not know commands.

use std::sync::Arc;

use pipeline_core::provider::{Provider, ProviderEntry};
use pipeline_providers::{Credential, HttpProvider, HttpSettings, PriceTable, Secret, Transport, vendor_url};

use crate::settings::Settings;
use crate::wiring::layers::Layers;

/// A vendor's variables.
struct Vendor {
    kind: &'static str,
    /// Hold a key, best first.
    keys: &'static [&'static str],
    /// Holds a bearer token.
    token: Option<&'static str>,
    /// Says where the vendor is.
    place: Option<&'static str>,
}

const VENDORS: [Vendor; 3] = [
    Vendor {
        kind: "anthropic",
        keys: &["ANTHROPIC_API_KEY"],
        token: Some("ANTHROPIC_AUTH_TOKEN"),
        place: Some("ANTHROPIC_BASE_URL"),
    },
    Vendor {
        kind: "gemini",
        keys: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        token: None,
        place: Some("GOOGLE_GEMINI_BASE_URL"),
    },
    Vendor { kind: "openai", keys: &["OPENAI_API_KEY"], token: None, place: Some("OPENAI_BASE_URL") },
];

/// Makes connections.
pub struct Live<'a> {
    settings: &'a Settings,
    transport: Arc<Transport>,
    prices: PriceTable,
}

impl<'a> Live<'a> {
    /// One transport for all connections of the process.
    ///
    /// # Errors
    /// A sentence, when the price table that came with the program cannot be read.
    pub fn new(settings: &'a Settings) -> Result<Self, String> {
        let proxy = settings.variable("HTTPS_PROXY").or_else(|| settings.variable("https_proxy"));
        let transport = Arc::new(Transport::live(proxy.map(str::to_owned)));
        Ok(Self { settings, transport, prices: prices(settings)? })
    }

    /// The provider of an entry.
    ///
    /// # Errors
    /// A sentence that says what it lacks, and names the variable.
    pub fn connect(&self, entry: &ProviderEntry, layers: &Layers) -> Result<Arc<dyn Provider>, String> {
        let settings = self.resolve(entry)?;
        let account = layers.account(&entry.name, &settings.identity(), &entry.limits);
        let provider = HttpProvider::new(settings, Arc::clone(&self.transport), &self.prices);
        let provider = provider
            .ok_or_else(|| format!("`{}` is of kind `{}`, which is no service", entry.name, entry.kind))?;
        Ok(layers.around(Arc::new(provider.telling(Arc::clone(&account))), account))
    }

    fn resolve(&self, entry: &ProviderEntry) -> Result<HttpSettings, String> {
        let mut settings = HttpSettings::new(entry.clone());
        let own = entry.base_url.as_deref().map(|url| self.filled(url, &entry.name)).transpose()?;
        settings.base_url = own.as_ref().map(|(url, _)| url.clone()).or_else(|| self.place(&entry.kind));
        let base = settings.base_url.clone().unwrap_or_else(|| vendor_url(&entry.kind).to_owned());
        let mut used: Vec<String> = own.map(|(_, used)| used).unwrap_or_default();
        for (name, value) in &entry.headers {
            let (value, names) = self.filled(value, &entry.name)?;
            used.extend(names);
            settings.headers.push((name.clone(), Secret::new(value)));
        }
        used.extend(entry.api_key_env.clone());
        for name in &used {
            self.may_go(name, &base, &entry.name)?;
        }
        match &entry.api_key_env {
            Some(name) => {
                let value = self.settings.variable(name);
                let value = value
                    .ok_or_else(|| format!("the credential for `{}` is missing: set {name}", entry.name))?;
                settings.credential = if Self::is_token(name) {
                    Credential::Token(Secret::new(value))
                } else {
                    Credential::Key(Secret::new(value))
                };
                settings.key_name = Some(name.clone());
            }
            None => self.vendor_key(&mut settings, &base)?,
        }
        Ok(settings)
    }

    /// The vendor's own key, where the connection goes to the vendor.
    fn vendor_key(&self, settings: &mut HttpSettings, base: &str) -> Result<(), String> {
        let Some(vendor) = vendor(&settings.entry.kind) else { return Ok(()) };
        if !self.is_vendors(vendor, base) {
            return Ok(());
        }
        let set = |name: &&&str| self.settings.variable(name).is_some();
        let key = vendor.keys.iter().find(set);
        let token = vendor.token.as_ref().filter(|name| self.settings.variable(name).is_some());
        let secret = |name: &str| Secret::new(self.settings.variable(name).unwrap_or_default());
        match (key, token) {
            (Some(name), _) => {
                settings.credential = Credential::Key(secret(name));
                settings.key_name = Some((*name).to_owned());
            }
            (None, Some(name)) => {
                settings.credential = Credential::Token(secret(name));
                settings.key_name = Some((*name).to_owned());
            }
            (None, None) if origin(base) != origin(vendor_url(vendor.kind)) => {}
            (None, None) => {
                let names: Vec<&str> = vendor.keys.iter().copied().chain(vendor.token).collect();
                let name = &settings.entry.name;
                return Err(format!("the credential for `{name}` is missing: set {}", names.join(" or ")));
            }
        }
        Ok(())
    }

    /// Whether a variable's value may be sent to `base`: a vendor's key goes to the vendor only.
    fn may_go(&self, variable: &str, base: &str, name: &str) -> Result<(), String> {
        let holds = |v: &&Vendor| v.keys.contains(&variable) || v.token == Some(variable);
        match VENDORS.iter().find(holds) {
            Some(vendor) if !self.is_vendors(vendor, base) => {
                let place = vendor.place.unwrap_or_default();
                Err(format!(
                    "`{name}` would send {variable} to {}, which is not that key's service: use a variable of its own, or say where the service is with {place}",
                    origin(base)
                ))
            }
            _ => Ok(()),
        }
    }

    fn is_vendors(&self, vendor: &Vendor, base: &str) -> bool {
        let own = vendor.place.and_then(|name| self.settings.variable(name));
        origin(base) == origin(vendor_url(vendor.kind)) || own.is_some_and(|own| origin(own) == origin(base))
    }

    fn is_token(variable: &str) -> bool {
        VENDORS.iter().any(|v| v.token == Some(variable))
    }

    /// Where the environment says that a kind is.
    fn place(&self, kind: &str) -> Option<String> {
        if kind == "ollama" {
            return self.settings.variable("OLLAMA_HOST").map(ollama);
        }
        vendor(kind).and_then(|v| v.place).and_then(|name| self.settings.variable(name)).map(str::to_owned)
    }

    /// A text with every `${NAME}` filled, and the names.
    fn filled(&self, text: &str, provider: &str) -> Result<(String, Vec<String>), String> {
        let mut made = String::new();
        let mut names = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            made.push_str(before);
            let Some((name, behind)) = after.split_once('}') else {
                return Err(format!("`{provider}`: a `${{` is not closed by `}}`"));
            };
            let value = self.settings.variable(name);
            made.push_str(
                value.ok_or_else(|| format!("`{provider}` needs the variable {name}, which is not set"))?,
            );
            names.push(name.to_owned());
            rest = behind;
        }
        made.push_str(rest);
        Ok((made, names))
    }
}

/// The table that comes with the program, under the prices of configuration files.
///
/// # Errors
/// A sentence, when the table cannot be read.
pub fn prices(settings: &Settings) -> Result<PriceTable, String> {
    Ok(PriceTable::built_in()?.with(&settings.config.prices.models))
}

fn vendor(kind: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|v| v.kind == kind)
}

/// Scheme, host and port of a URL, as one text to compare.
fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let host = host.strip_suffix(port).unwrap_or(&host);
    format!("{}://{host}", scheme.to_ascii_lowercase())
}

/// `OLLAMA_HOST` in the forms that its own programs take: a host, a host and port, a URL.
fn ollama(host: &str) -> String {
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let rest = rest.trim_end_matches('/');
    let (address, path) = rest.split_once('/').map_or((rest, ""), |(address, path)| (address, path));
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    // The address that a server listens on everywhere is no address to call.
    let address = address.replace("0.0.0.0", "127.0.0.1");
    let port = if has_port || scheme == "https" { "" } else { ":11434" };
    let path = if path.is_empty() { "v1" } else { path };
    format!("{scheme}://{address}{port}/{path}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::args::Global;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::new(&Global::default(), "/w".into(), variables, (false, false))
    }

    fn entry(kind: &str, base_url: Option<&str>, api_key_env: Option<&str>) -> ProviderEntry {
        ProviderEntry {
            name: "mine".to_owned(),
            kind: kind.to_owned(),
            base_url: base_url.map(str::to_owned),
            api_key_env: api_key_env.map(str::to_owned),
            ..ProviderEntry::default()
        }
    }

    fn resolved(variables: &[(&str, &str)], entry: &ProviderEntry) -> Result<HttpSettings, String> {
        Live::new(&settings(variables)).unwrap().resolve(entry)
    }

    const KEY: (&str, &str) = ("ANTHROPIC_API_KEY", "very-secret");

    #[test]
    fn a_vendors_key_goes_to_the_vendor_and_to_where_the_environment_says_it_is() {
        let known = Credential::Key(Secret::new("very-secret"));
        assert_eq!(resolved(&[KEY], &entry("anthropic", None, None)).unwrap().credential, known);
        let moved = [KEY, ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/")];
        let at = resolved(&moved, &entry("anthropic", None, None)).unwrap();
        assert_eq!((at.base_url.as_deref(), at.credential), (Some("http://127.0.0.1:9/"), known.clone()));
        let same = entry("anthropic", Some("http://127.0.0.1:9/other"), None);
        assert_eq!(resolved(&moved, &same).unwrap().credential, known);
    }

    /// Naive: the key is chosen by the kind of service, and the address by the file.
    #[test]
    fn x23_a_file_cannot_send_a_vendors_key_anywhere_else() {
        let evil = Some("https://api.anthropic.com.evil.example");
        let silent = resolved(&[KEY], &entry("anthropic", evil, None)).unwrap();
        assert_eq!(silent.credential, Credential::None);
        let named = resolved(&[KEY], &entry("anthropic", evil, Some("ANTHROPIC_API_KEY"))).unwrap_err();
        assert!(named.contains("ANTHROPIC_API_KEY") && !named.contains("very-secret"), "{named}");
        let mut by_header = entry("openai", evil, None);
        by_header.headers.insert("x-key".to_owned(), "a ${ANTHROPIC_API_KEY}".to_owned());
        assert!(resolved(&[KEY], &by_header).is_err());
        let by_url = entry("openai", Some("https://evil.example/${ANTHROPIC_API_KEY}"), None);
        assert!(resolved(&[KEY], &by_url).is_err());
        // Another vendor's service is another place, too.
        assert!(resolved(&[KEY], &entry("openai", None, Some("ANTHROPIC_API_KEY"))).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = resolved(&[], &entry("gemini", None, None)).unwrap_err();
        assert!(none.contains("GEMINI_API_KEY or GOOGLE_API_KEY"), "{none}");
        let own = resolved(&[], &entry("openai", Some("http://localhost:1/v1"), Some("MINE"))).unwrap_err();
        assert!(own.ends_with("set MINE"), "{own}");
        assert!(resolved(&[], &entry("openai", Some("http://localhost:1/v1"), None)).is_ok());
        let unset = resolved(&[], &entry("openai", Some("http://${HOST}/v1"), None)).unwrap_err();
        assert!(unset.contains("HOST"), "{unset}");
    }

    #[test]
    fn ollama_is_found_in_every_form() {
        let cases = [
            ("127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
            ("0.0.0.0", "http://127.0.0.1:11434/v1"),
            ("box:8080", "http://box:8080/v1"),
            ("https://box/", "https://box/v1"),
            ("http://box:1/api", "http://box:1/api"),
        ];
        for (host, url) in cases {
            assert_eq!(ollama(host), url);
        }
        assert_eq!(origin("HTTPS://Api.Example.com:443/v1?x"), "https://api.example.com");
    }
}
