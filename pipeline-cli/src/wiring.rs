//! Which implementations this program is made of.
//!
//! Owns the choice of steps, providers, tools, output files and store: one function each, and nothing else in this
//! crate names a sibling crate. Must not know commands.

mod layers;
pub mod resources;
#[cfg(not(feature = "otel"))]
mod untold;
#[cfg(feature = "http")]
mod live;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline_checkpoint::{FileSessions, FileSnapshots, FileStore, FileTape, TapedSessions};
use pipeline_core::catalog::Services;
use pipeline_core::clock::Clock;
use pipeline_core::provider::{Provider, ProviderEntry, ProviderKind};
use pipeline_core::redact::Redactor;
use pipeline_core::resources::ResourceProbe;
use pipeline_core::step::Step;
use pipeline_core::store::{CheckpointStore, JqHost, OutputWriter, SessionStore, SnapshotStore, StoreError};
use pipeline_core::tool::ToolSource;
use pipeline_providers::{ClaudeCli, ClaudeCliSettings, Secret, Unavailable};
use pipeline_steps::{FileCache, OutputFiles};
use pipeline_tools::Registry;

use crate::settings::{Mode, Settings};

#[cfg(feature = "otel")]
pub use crate::telemetry::Telemetry;
pub use layers::Layers;
pub use pipeline_checkpoint::TapedRun;
pub use pipeline_providers::MockRules;
#[cfg(feature = "mock-server")]
pub use pipeline_providers::MockServerOptions;
#[cfg(not(feature = "otel"))]
pub use untold::Telemetry;

/// Names of the built-in providers, with the variables that give each a credential.
const BUILT_IN: [(&str, &[&str]); 4] = [
    ("claude", &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"]),
    ("gemini", &["GEMINI_API_KEY", "GOOGLE_API_KEY"]),
    ("openai", &["OPENAI_API_KEY"]),
    ("ollama", &["OLLAMA_HOST"]),
];

/// Every built-in step type.
pub fn steps() -> Vec<Arc<dyn Step>> {
    pipeline_steps::builtin(Arc::new(FileCache::default()))
}

/// What tells what the process holds, and how much is free where these folders are.
pub fn resources(dirs: Vec<PathBuf>) -> Arc<dyn ResourceProbe> {
    Arc::new(resources::ThisProcess { dirs })
}

/// Kinds of providers that a file may name.
pub fn kinds() -> Vec<ProviderKind> {
    pipeline_providers::kinds()
}

/// Providers, and the names of those that cannot answer.
type BuiltIn = (Vec<Arc<dyn Provider>>, Vec<&'static str>);

/// The built-in providers of a mode, and the names of those that cannot answer in it.
///
/// # Errors
/// A sentence, when the program was put together wrongly.
pub fn providers(
    mode: Mode,
    rules: &Arc<MockRules>,
    settings: &Settings,
    layers: &Layers,
) -> Result<BuiltIn, String> {
    let mut mocks = pipeline_providers::mocks(Arc::clone(rules));
    if matches!(mode, Mode::Mock | Mode::Replay) {
        return Ok((mocks, Vec::new()));
    }
    let mut providers = Vec::new();
    let mut lacking = Vec::new();
    for (name, variables) in BUILT_IN {
        let mock = mocks.iter().position(|m| m.name() == name).map(|place| mocks.swap_remove(place));
        match (built_in(name, settings, layers)?, mock) {
            (Some(live), _) => providers.push(live),
            (None, Some(mock)) if mode == Mode::Mixed => providers.push(mock),
            (None, _) => {
                lacking.push(name);
                providers.push(Arc::new(Unavailable::new(name, variables)) as Arc<dyn Provider>);
            }
        }
    }
    Ok((providers, lacking))
}

/// A built-in provider, live; `None` when it has no credential.
fn built_in(name: &str, settings: &Settings, layers: &Layers) -> Result<Option<Arc<dyn Provider>>, String> {
    let entry = ProviderEntry { name: name.to_owned(), kind: name.to_owned(), ..ProviderEntry::default() };
    if name == "claude" {
        return settings.has_credential(name).then(|| agent(settings, &entry, layers)).transpose();
    }
    #[cfg(feature = "http")]
    if settings.has_credential(name) {
        return live::Live::new(settings)?.connect(&entry, layers).map(Some);
    }
    #[cfg(not(feature = "http"))]
    let _ = (settings, entry, layers);
    Ok(None)
}

/// The provider of an entry of `providers`; `Err` says what it lacks.
///
/// # Errors
/// A sentence that names the variable.
pub fn entry(
    mode: Mode,
    rules: &Arc<MockRules>,
    settings: &Settings,
    layers: &Layers,
    entry: &ProviderEntry,
) -> Result<Arc<dyn Provider>, String> {
    if matches!(mode, Mode::Mock | Mode::Replay) {
        return Ok(pipeline_providers::mock_for(entry, Arc::clone(rules)));
    }
    let live = live_entry(settings, entry, layers);
    match live {
        Err(_) if mode == Mode::Mixed => Ok(pipeline_providers::mock_for(entry, Arc::clone(rules))),
        other => other,
    }
}

fn live_entry(
    settings: &Settings,
    entry: &ProviderEntry,
    layers: &Layers,
) -> Result<Arc<dyn Provider>, String> {
    if entry.kind == "claude" {
        if entry.api_key_env.is_none() && !settings.has_credential("claude") {
            return Err(format!("the credential for `{}` is missing: set ANTHROPIC_API_KEY", entry.name));
        }
        return agent(settings, entry, layers);
    }
    #[cfg(feature = "http")]
    return live::Live::new(settings)?.connect(entry, layers);
    #[cfg(not(feature = "http"))]
    Err(format!("`{}` is a service, and this program was built without HTTP", entry.name))
}

/// The variables whose values an entry sends to its service.
pub fn secrets_of(entry: &ProviderEntry) -> Vec<String> {
    let texts = entry.headers.values().chain(&entry.base_url);
    let filled = texts.flat_map(|text| text.split("${").skip(1)).filter_map(|rest| rest.split_once('}'));
    filled.map(|(name, _)| name.to_owned()).chain(entry.api_key_env.clone()).collect()
}

/// The variables whose values the tools and servers of a workflow get.
///
/// # Errors
/// A sentence that says what is declared wrongly.
pub fn secrets_of_tools(keys: &serde_json::Map<String, serde_json::Value>) -> Result<Vec<String>, String> {
    Ok(pipeline_tools::Written::read(keys)?.secrets())
}

/// The day of the price table that came with the program.
///
/// # Errors
/// A sentence, when the table cannot be read.
pub fn prices_as_of() -> Result<String, String> {
    Ok(pipeline_providers::PriceTable::built_in()?.as_of().to_owned())
}

/// A stand-in for an entry that lacks something, for plans that may never call it.
pub fn unavailable(entry: &ProviderEntry, message: String) -> Arc<dyn Provider> {
    Arc::new(Unavailable::because(entry, message))
}

/// Variables that the agent CLI gets beside the environment of every child: who it is, and how it reaches its service.
const CLAUDE_CLI_ENV: [&str; 13] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CONFIG_DIR",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "IS_SANDBOX",
    "API_TIMEOUT_MS",
];

/// The agent CLI, found and given what it needs as an entry of `providers` says.
fn agent(settings: &Settings, entry: &ProviderEntry, layers: &Layers) -> Result<Arc<dyn Provider>, String> {
    let credentials = agent_credentials(settings, entry)?;
    let secret = |(name, value): (&str, &str)| (name.to_owned(), Secret::new(value));
    let plain = ClaudeCliSettings::default();
    // A login of a person's belongs to the home directory.
    let home = settings.variable("HOME").unwrap_or_default();
    let identity: Vec<&str> =
        credentials.values().map(Secret::expose).chain([entry.kind.as_str(), home]).collect();
    let account = layers.account(&entry.name, &identity, &entry.limits);
    // A path means the same wherever the agent works.
    let place = |path: &str| if path.contains('/') { settings.absolute(path) } else { path.into() };
    let executable = entry.executable.as_deref().map(place);
    let agent = ClaudeCli::new(ClaudeCliSettings {
        name: entry.name.clone(),
        is_named_by_file: executable.is_some() && !settings.config.providers.values().any(|own| own == entry),
        executable,
        default_model: entry.model.clone().unwrap_or_else(|| plain.default_model.clone()),
        credentials,
        variables: settings.variables().map(secret).collect(),
        ..plain
    });
    Ok(layers.around(Arc::new(agent), account))
}

/// What the agent CLI gets of the environment. A vendor's key goes to the vendor, or to where the environment says that
/// the vendor is, and nowhere else, whatever a file says.
fn agent_credentials(settings: &Settings, entry: &ProviderEntry) -> Result<BTreeMap<String, Secret>, String> {
    const KEYS: [&str; 3] = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"];
    let given = settings.variables().filter(|(name, _)| CLAUDE_CLI_ENV.contains(name));
    let mut given: BTreeMap<String, Secret> =
        given.map(|(name, value)| (name.to_owned(), Secret::new(value))).collect();
    if let Some(url) =
        entry.base_url.as_deref().filter(|url| settings.variable("ANTHROPIC_BASE_URL") != Some(url))
    {
        let name = &entry.name;
        if url.contains("${") {
            return Err(format!("`{name}`: `base_url` of an agent CLI takes no variables"));
        }
        if let Some(key) = entry.api_key_env.as_deref().filter(|key| KEYS.contains(key)) {
            return Err(format!(
                "`{name}` would send {key} to {url}, which is not that key's service: use a variable of its own, or say where the service is with ANTHROPIC_BASE_URL"
            ));
        }
        given.retain(|name, _| !KEYS.contains(&name.as_str()) && name != "ANTHROPIC_CUSTOM_HEADERS");
        given.insert("ANTHROPIC_BASE_URL".to_owned(), Secret::new(url));
    }
    if let Some(name) = &entry.api_key_env {
        let value = settings.variable(name);
        let value =
            value.ok_or_else(|| format!("the credential for `{}` is missing: set {name}", entry.name))?;
        given.retain(|name, _| !KEYS.contains(&name.as_str()));
        given.insert("ANTHROPIC_API_KEY".to_owned(), Secret::new(value));
    }
    Ok(given)
}

/// A server that stands for the model services.
///
/// # Errors
/// When its port is taken.
#[cfg(feature = "mock-server")]
pub async fn mock_server(options: MockServerOptions) -> std::io::Result<pipeline_providers::MockServer> {
    pipeline_providers::MockServer::bind(options).await
}

/// The registry of tools.
pub fn tools() -> Arc<dyn ToolSource> {
    Arc::new(Registry::with_builtins())
}

/// The registry of tools of a workflow that has these keys.
///
/// # Errors
/// A sentence that says what is declared wrongly.
pub fn declared_tools(
    keys: &serde_json::Map<String, serde_json::Value>,
    settings: &Settings,
) -> Result<Arc<dyn ToolSource>, String> {
    let written = pipeline_tools::Written::read(keys)?;
    let secrets = pipeline_tools::Secrets::new(settings.select(&written.secrets()));
    Ok(Arc::new(Registry::declared(&written, &secrets)?))
}

/// Where output files are written.
pub fn outputs() -> Arc<dyn OutputWriter> {
    Arc::new(OutputFiles)
}

/// Where jq programs run; `None` when this program was built without them.
pub fn jq() -> Option<Arc<dyn JqHost>> {
    #[cfg(feature = "jq")]
    let host = crate::jq::ChildJq::of_this_program().map(|host| Arc::new(host) as Arc<dyn JqHost>);
    #[cfg(not(feature = "jq"))]
    let host = None;
    host
}

/// The store of a state directory; with a number, one whose disk fails at that operation.
pub fn store(dir: &Path, fails_at: Option<u64>) -> Arc<dyn CheckpointStore> {
    let store = FileStore::new(dir);
    Arc::new(match fails_at {
        Some(operation) => store.failing_at(operation),
        None => store,
    })
}

/// Whether the disk of a run in that state directory has failed on purpose.
pub fn has_failed(dir: &Path, run: &str) -> bool {
    FileStore::new(dir).has_failed(run)
}

/// The conversations of a state directory.
pub fn sessions(dir: &Path, clock: Arc<dyn Clock>) -> Arc<dyn SessionStore> {
    Arc::new(FileSessions::new(dir, clock))
}

/// The snapshots and cached results of a state directory.
pub fn snapshots(dir: &Path, clock: Arc<dyn Clock>) -> Arc<dyn SnapshotStore> {
    Arc::new(FileSnapshots::new(dir, clock))
}

/// Gives services a tape in `dir` that records `run`, without `secrets`.
///
/// # Errors
/// A sentence that says why there can be none.
pub fn record(services: &mut Services, dir: &Path, run: &TapedRun, secrets: Vec<&str>) -> Result<(), String> {
    let tape = FileTape::record(dir, run, Redactor::new(secrets)?).map_err(|error| error.to_string())?;
    put(services, tape, services.sessions.clone());
    Ok(())
}

/// Gives services the tape in `dir`, and sessions of their own below `run_dir`. `secrets` are not shown.
///
/// # Errors
/// A sentence that says why it cannot be read.
pub fn replay(
    services: &mut Services,
    dir: &Path,
    run_dir: &Path,
    clock: Arc<dyn Clock>,
    secrets: Vec<&str>,
) -> Result<(), String> {
    let (tape, _) = open_tape(dir, secrets)?;
    put(services, tape, Some(sessions(run_dir, clock)));
    Ok(())
}

/// The run that the tape in `dir` was recorded of.
///
/// # Errors
/// As [`replay`].
pub fn taped_run(dir: &Path, secrets: Vec<&str>) -> Result<TapedRun, String> {
    open_tape(dir, secrets).map(|(_, run)| run)
}

fn put(services: &mut Services, tape: FileTape, sessions: Option<Arc<dyn SessionStore>>) {
    let tape = Arc::new(tape);
    services.sessions = sessions.map(|inner| {
        let taped: Arc<dyn SessionStore> = Arc::new(TapedSessions::new(inner, Arc::clone(&tape)));
        taped
    });
    services.tape = Some(tape);
}

fn open_tape(dir: &Path, secrets: Vec<&str>) -> Result<(FileTape, TapedRun), String> {
    FileTape::replay(dir, Redactor::new(secrets)?).map_err(|error| match error {
        StoreError::Directory { path, message } => {
            format!("cannot use {} as a tape: {message}", path.display())
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::args::Global;

    /// Naive: a child gets the whole environment, whatever address a file sends it to.
    #[test]
    fn x23_an_agent_gets_a_vendors_key_only_where_the_vendor_is() {
        let settings = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Settings::new(&Global::default(), "/w".into(), variables, (false, false))
        };
        let entry = |base_url: Option<&str>, api_key_env: Option<&str>| ProviderEntry {
            name: "mine".to_owned(),
            kind: "claude".to_owned(),
            base_url: base_url.map(str::to_owned),
            api_key_env: api_key_env.map(str::to_owned),
            ..ProviderEntry::default()
        };
        let here =
            settings(&[("ANTHROPIC_API_KEY", "vendor"), ("OWN", "own"), ("AWS_SECRET", "x"), ("PATH", "/")]);
        let given = |entry: &ProviderEntry| agent_credentials(&here, entry);
        let key = |entry: &ProviderEntry| {
            given(entry).unwrap().get("ANTHROPIC_API_KEY").map(|s| s.expose().to_owned())
        };
        assert_eq!(key(&entry(None, None)).as_deref(), Some("vendor"));
        assert_eq!(key(&entry(Some("http://evil.example"), None)), None);
        assert_eq!(key(&entry(Some("http://own.example"), Some("OWN"))).as_deref(), Some("own"));
        assert!(given(&entry(Some("http://evil.example"), Some("ANTHROPIC_API_KEY"))).is_err());
        assert!(given(&entry(None, Some("UNSET"))).unwrap_err().contains("UNSET"));
        assert_eq!(given(&entry(None, None)).unwrap().len(), 1, "an allow-list");
    }
}
