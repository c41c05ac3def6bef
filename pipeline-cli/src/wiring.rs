//! Which implementations this program is made of.
//!
//! Owns the choice of steps, providers, tools, output files and store: one function each, and nothing else in this
//! crate names a sibling crate. Must not know commands.

use std::path::Path;
use std::sync::Arc;

use pipeline_checkpoint::{FileSessions, FileSnapshots, FileStore};
use pipeline_core::clock::Clock;
use pipeline_core::provider::{Provider, ProviderKind};
use pipeline_core::step::Step;
use pipeline_core::store::{CheckpointStore, JqHost, OutputWriter, SessionStore, SnapshotStore};
use pipeline_core::tool::ToolSource;
use pipeline_providers::{ClaudeCli, ClaudeCliSettings, Secret, Unavailable};
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

/// The providers of a mode, and the names of those that cannot answer in it.
pub fn providers(
    mode: Mode,
    rules: &Arc<MockRules>,
    settings: &Settings,
) -> (Vec<Arc<dyn Provider>>, Vec<&'static str>) {
    if mode == Mode::Mock {
        return (pipeline_providers::mocks(Arc::clone(rules)), Vec::new());
    }
    let live = |(name, variables): (&str, &'static [&'static str])| -> Arc<dyn Provider> {
        if name == "claude" && settings.has_credential(name) {
            return Arc::new(ClaudeCli::new(claude_cli(settings)));
        }
        Arc::new(Unavailable::new(name, variables))
    };
    let lacking = BUILT_IN.iter().map(|(name, _)| *name).filter(|name| !settings.has_credential(name));
    (BUILT_IN.into_iter().map(live).collect(), lacking.collect())
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
