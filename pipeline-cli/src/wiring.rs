//! Which implementations this program is made of.
//!
//! Owns the choice of steps, providers, tools, output files and store: one function each, and nothing else in this
//! crate names a sibling crate. Must not know commands.

#[cfg(feature = "http")]
mod live;

use std::path::Path;
use std::sync::Arc;

use pipeline_checkpoint::{FileSessions, FileSnapshots, FileStore};
use pipeline_core::clock::Clock;
use pipeline_core::provider::{Provider, ProviderEntry, ProviderKind};
use pipeline_core::step::Step;
use pipeline_core::store::{CheckpointStore, JqHost, OutputWriter, SessionStore, SnapshotStore};
use pipeline_core::tool::ToolSource;
use pipeline_providers::{ClaudeCli, ClaudeCliSettings, Limited, Secret, Unavailable};
use pipeline_steps::{FileCache, OutputFiles};
use pipeline_tools::Registry;

use crate::settings::{Mode, Settings};

pub use pipeline_providers::MockRules;

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
pub fn providers(mode: Mode, rules: &Arc<MockRules>, settings: &Settings) -> Result<BuiltIn, String> {
    let mut mocks = pipeline_providers::mocks(Arc::clone(rules));
    if mode == Mode::Mock {
        return Ok((mocks, Vec::new()));
    }
    let mut providers = Vec::new();
    let mut lacking = Vec::new();
    for (name, variables) in BUILT_IN {
        let mock = mocks.iter().position(|m| m.name() == name).map(|place| mocks.swap_remove(place));
        match (built_in(name, settings)?, mock) {
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
fn built_in(name: &str, settings: &Settings) -> Result<Option<Arc<dyn Provider>>, String> {
    if name == "claude" {
        let is_ready = settings.has_credential(name);
        return Ok(is_ready.then(|| {
            Arc::new(Limited(Arc::new(ClaudeCli::new(claude_cli(settings))))) as Arc<dyn Provider>
        }));
    }
    #[cfg(feature = "http")]
    if settings.has_credential(name) {
        let entry =
            ProviderEntry { name: name.to_owned(), kind: name.to_owned(), ..ProviderEntry::default() };
        return live::Live::new(settings)?.connect(&entry).map(Some);
    }
    #[cfg(not(feature = "http"))]
    let _ = settings;
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
    entry: &ProviderEntry,
) -> Result<Arc<dyn Provider>, String> {
    if mode == Mode::Mock {
        return Ok(pipeline_providers::mock_for(entry, Arc::clone(rules)));
    }
    let live = live_entry(settings, entry);
    match live {
        Err(_) if mode == Mode::Mixed => Ok(pipeline_providers::mock_for(entry, Arc::clone(rules))),
        other => other,
    }
}

fn live_entry(settings: &Settings, entry: &ProviderEntry) -> Result<Arc<dyn Provider>, String> {
    if entry.kind == "claude" {
        if !settings.has_credential("claude") {
            return Err(format!("the credential for `{}` is missing: set ANTHROPIC_API_KEY", entry.name));
        }
        let plain = claude_cli(settings);
        let default_model = entry.model.clone().unwrap_or_else(|| plain.default_model.clone());
        let agent = ClaudeCli::new(ClaudeCliSettings { name: entry.name.clone(), default_model, ..plain });
        return Ok(Arc::new(Limited(Arc::new(agent))));
    }
    #[cfg(feature = "http")]
    return live::Live::new(settings)?.connect(entry);
    #[cfg(not(feature = "http"))]
    Err(format!("`{}` is a service, and this program was built without HTTP", entry.name))
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

/// How the agent CLI is found and what it is given.
fn claude_cli(settings: &Settings) -> ClaudeCliSettings {
    let secret = |(name, value): (&str, &str)| (name.to_owned(), Secret::new(value));
    ClaudeCliSettings {
        credentials: settings
            .variables()
            .filter(|(name, _)| CLAUDE_CLI_ENV.contains(name))
            .map(secret)
            .collect(),
        variables: settings.variables().map(secret).collect(),
        ..ClaudeCliSettings::default()
    }
}

/// The registry of tools.
pub fn tools() -> Arc<dyn ToolSource> {
    Arc::new(Registry::with_builtins())
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

/// The store of a state directory.
pub fn store(dir: &Path) -> Arc<dyn CheckpointStore> {
    Arc::new(FileStore::new(dir))
}

/// The conversations of a state directory.
pub fn sessions(dir: &Path, clock: Arc<dyn Clock>) -> Arc<dyn SessionStore> {
    Arc::new(FileSessions::new(dir, clock))
}

/// The snapshots and cached results of a state directory.
pub fn snapshots(dir: &Path, clock: Arc<dyn Clock>) -> Arc<dyn SnapshotStore> {
    Arc::new(FileSnapshots::new(dir, clock))
}
