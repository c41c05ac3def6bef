//! Claude through its agent CLI: the Claude Code executable, headless.
//!
//! Owns [`ClaudeCli`]. One call is one process, which answers once and leaves nothing behind. Nothing that the CLI says of
//! its own success is believed alone. Must not read the environment: what the process gets is handed in.
//! Next: `claude_cli/invocation.rs` (what is asked), `claude_cli/stream.rs` (the process), `claude_cli/verdict.rs` (what
//! its answer is worth).

mod line;
mod options;
mod programs;
mod verdict;
mod invocation;
mod stream;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::process::{Command, is_executable};
use pipeline_core::provider::{Capabilities, ModelRequest, ModelStream, Price, Provider, WorstCase};
use pipeline_core::step::StepContext;

use crate::backend;
use crate::claude_cli::invocation::{Given, Invocation};
use crate::secret::Secret;

/// The name of the executable when no path is configured.
const EXECUTABLE: &str = "claude";

/// How long the executable may take to tell its version.
const PROBE: Duration = Duration::from_secs(15);

/// Most tokens that one turn of an agent can be billed for: a full context and a full answer.
const TURN_TOKENS: u64 = 1_000_000 + 128_000;

/// How the CLI is found and what it is given.
#[derive(Clone)]
pub struct ClaudeCliSettings {
    /// The name under which pipelines use it.
    pub name: String,
    /// Path of the executable; `None` = `claude`, looked up in `PATH` of the environment of child processes.
    pub executable: Option<PathBuf>,
    /// The model when a step names none.
    pub default_model: String,
    /// Variables that the CLI gets beside the environment of child processes: its credential, its base URL.
    pub credentials: BTreeMap<String, Secret>,
    /// What `${NAME}` in `mcp_servers` can mean.
    pub variables: BTreeMap<String, Secret>,
    /// Program and first arguments of the command that runs a hook by its name; empty = named hooks are refused.
    pub hook_program: Vec<String>,
    /// A pipeline file names the executable: it may run only where `permissions.shell` allows it.
    pub is_named_by_file: bool,
    /// Tells the time, for limits that end at a time of day.
    pub clock: Arc<dyn Clock>,
}

impl Default for ClaudeCliSettings {
    fn default() -> Self {
        Self {
            name: "claude".to_owned(),
            executable: None,
            default_model: backend::default_model("claude").to_owned(),
            credentials: BTreeMap::new(),
            variables: BTreeMap::new(),
            hook_program: Vec::new(),
            is_named_by_file: false,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Claude through the agent CLI.
pub struct ClaudeCli {
    settings: ClaudeCliSettings,
}

impl ClaudeCli {
    /// A provider that starts the CLI as `settings` say.
    pub fn new(settings: ClaudeCliSettings) -> Self {
        Self { settings }
    }

    /// Where the executable is, looked up in `PATH` of `env` unless it is configured.
    ///
    /// # Errors
    /// `Environment` when there is none; the help names what can be done instead.
    pub fn executable(&self, env: &BTreeMap<String, String>) -> Result<PathBuf, StepError> {
        let found = match &self.settings.executable {
            Some(path) if path.components().count() > 1 => is_executable(path).then(|| path.clone()),
            Some(name) => on_path(name, env),
            None => on_path(Path::new(EXECUTABLE), env),
        };
        found.ok_or_else(|| {
            let (what, place) = match &self.settings.executable {
                Some(path) => (path.display().to_string(), ""),
                None => (EXECUTABLE.to_owned(), " in PATH"),
            };
            let message = format!("there is no executable `{what}`{place}, which `{}` needs", self.settings.name);
            let help = "install Claude Code, or give its path (`providers.claude.executable`); or call the model by HTTP \
                        (`providers.claude.kind: anthropic`, with ANTHROPIC_API_KEY set); or run with --mock";
            StepError::new(ErrorKind::Environment, message).help(help)
        })
    }

    /// The version of the executable, such as `2.1.197`.
    ///
    /// # Errors
    /// `Environment` when there is none or it does not tell; `TimedOut` when it takes too long.
    #[expect(clippy::disallowed_methods, reason = "a person asks, and no step")]
    pub async fn version(&self, env: &BTreeMap<String, String>) -> Result<String, StepError> {
        let executable = self.executable(env)?;
        let command = Command { env: env.clone(), ..Command::new(&executable, ["--version"]) };
        let told = command.run(b"", 4096, tokio::time::Instant::now() + PROBE).await?;
        let text = String::from_utf8_lossy(&told.stdout);
        let version = text.split_whitespace().next().filter(|v| v.starts_with(|c: char| c.is_ascii_digit()));
        version.map(str::to_owned).ok_or_else(|| {
            let message = format!("{} does not tell its version", executable.display());
            StepError::new(ErrorKind::Environment, message).help("see whether it is the Claude Code CLI")
        })
    }
}

fn on_path(name: &Path, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let folders = env.get("PATH")?;
    std::env::split_paths(folders).map(|folder| folder.join(name)).find(|path| is_executable(path))
}

#[async_trait]
impl Provider for ClaudeCli {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn capabilities(&self) -> Capabilities {
        backend::capabilities("claude")
    }

    fn default_model(&self) -> &str {
        &self.settings.default_model
    }

    fn worst_case(&self, request: &ModelRequest) -> WorstCase {
        let tokens = request.max_turns.map_or(u64::MAX, |turns| turns.saturating_mul(TURN_TOKENS));
        WorstCase { tokens, cost: Price::AsAllowed }
    }

    async fn start(&self, request: &ModelRequest, cx: &StepContext) -> Result<ModelStream, StepError> {
        let settings = &self.settings;
        let env = (*cx.services.child_env).clone();
        let executable = self.executable(&env)?;
        if settings.is_named_by_file {
            let words = [executable.display().to_string()];
            let place = format!("the provider `{}`", settings.name);
            // Its name as written, or its place.
            let written = settings.executable.as_ref().map(|path| [path.display().to_string()]);
            let is_allowed = written.is_some_and(|words| cx.run.permissions.allows_command(&words));
            if !is_allowed {
                cx.run.permissions.check_program(&place, &words)?;
            }
        }
        let given = Given {
            executable: &executable,
            env,
            credentials: &settings.credentials,
            variables: &settings.variables,
            hook_program: &settings.hook_program,
            default_model: &settings.default_model,
        };
        let invocation = Invocation::new(request, cx, given)?;
        stream::start(invocation, cx, Arc::clone(&settings.clock)).await
    }
}
