//! The contract between the engine and a leaf step.
//!
//! Owns [`Step`], what it is told ([`StepContext`]) and what it hands back ([`StepOutput`]). Steps have effects;
//! control flow is the schedule's. Must not know any step, provider or tool by name.
//! Next: `engine/executor.rs`, which calls steps; pipeline-steps, which has them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::catalog::Services;
use crate::clock::Timestamp;
use crate::document::Node;
use crate::error::{ErrorKind, StepError};
use crate::fact::{Assignment, Status, Usage};
use crate::path::{OpKey, OpRole};
use crate::process::Command;
use crate::process::sandbox::Sandbox;
use crate::value::{Data, Hash, Value};

pub use crate::engine::effect::{EffectPort, ProgressPort};

/// A leaf of a pipeline: something that has an effect or computes a value.
#[async_trait]
pub trait Step: Send + Sync {
    /// What the compiler and the documentation know about it.
    fn spec(&self) -> StepSpec;

    /// Checks that go beyond the schema. `config` has passed the schema check; templates are not yet rendered.
    ///
    /// The default finds nothing.
    fn check(&self, config: &Node, cx: &mut crate::plan::CheckContext<'_>) {
        let _ = (config, cx);
    }

    /// The fields of its value, as far as this configuration fixes them; `None` when it may have others.
    ///
    /// The compiler finds references to fields that are not among them. The default knows none.
    fn fields(&self, config: &Node) -> Option<Vec<String>> {
        let _ = config;
        None
    }

    /// Runs one attempt. `with` is the configuration, every template rendered; large values in it are shared with the steps
    /// they came from, and a step that only reads them need not copy them.
    ///
    /// The engine bounds it by the deadline, catches its panics and stops it by dropping the future: hold what must
    /// be cleaned up in a guard. Every outside effect goes through [`StepContext::effect`].
    ///
    /// # Errors
    /// A [`StepError`] whose kind says what the caller should do; retries are the schedule's, never the step's.
    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError>;
}

/// What the compiler knows about a step type.
#[derive(Debug, Clone)]
pub struct StepSpec {
    /// The value of `type:`.
    pub kind: &'static str,
    /// One sentence for the reference.
    pub summary: &'static str,
    /// JSON Schema of the configuration (without the keys that every step has), made by schemars from the struct
    /// that the step decodes. `x-kind` on a field tells how its text is read: see [`mod@crate::plan::compile`].
    pub schema: schemars::Schema,
    /// A runnable pipeline that shows it.
    pub example: &'static str,
}

impl StepSpec {
    /// A step type whose configuration is `C`.
    pub fn of<C: schemars::JsonSchema>(kind: &'static str, summary: &'static str) -> Self {
        Self { kind, summary, schema: schemars::schema_for!(C), example: "" }
    }
}

/// What a step hands back when it succeeded.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// Its value, in the shape that the language page gives for its type. Holds nothing that depends on the clock,
    /// the run id or a crash.
    pub value: Value,
    /// [`Status::Ok`], or [`Status::Degraded`] when a declared fallback answered.
    pub status: Status,
    /// What it used.
    pub usage: Usage,
    /// Variables to set.
    pub set: Vec<Assignment>,
    /// What `output_to_file` writes; `None` = the primary value (text as it is, anything else as JSON).
    pub file_text: Option<String>,
    /// What people should know although it went on.
    pub warnings: Vec<String>,
}

impl StepOutput {
    /// A plain success.
    pub fn ok(value: Value) -> Self {
        Self {
            value,
            status: Status::Ok,
            usage: Usage::default(),
            set: Vec::new(),
            file_text: None,
            warnings: Vec::new(),
        }
    }
}

/// Facts about the run that every step may know. The same after a resume.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The run's id.
    pub id: String,
    /// The workflow's name.
    pub workflow: String,
    /// When the run started.
    pub started_at: Timestamp,
    /// Everything that is invented follows from it (and the path).
    pub seed: u64,
    /// True when every model call goes to the mock.
    pub mock: bool,
    /// Directories.
    pub dirs: RunDirs,
    /// What steps may do beside reading and writing.
    pub permissions: Permissions,
}

/// What the steps of a run may do beside reading and writing: `permissions` of the file and the flags of the command
/// line. The default allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Permissions {
    /// Commands that `shell` steps and the tool `shell` may run: a program name, a prefix of words, or `*` for all.
    pub shell: Vec<String>,
    /// Hosts that tools may reach, beside those of the providers in use: a name, `*.name`, or `*` for all.
    pub network: Vec<String>,
    /// The tools that may be called at all: a name, `prefix*`, an MCP server's `mcp__server`, or `*`. `None` = what each step
    /// names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_tools: Option<Vec<String>>,
    /// Whether programs that steps start have a sandbox around them: [`crate::process::sandbox`]. Without one they are not started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sandbox: bool,
}

/// Whether one of `rules` allows a tool: see [`Permissions::allowed_tools`].
pub fn allows_tool(rules: &[String], name: &str) -> bool {
    rules.iter().any(|rule| match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => {
            rule == name
                || (rule.starts_with("mcp__")
                    && name.strip_prefix(rule.as_str()).is_some_and(|r| r.starts_with("__")))
        }
    })
}

impl Permissions {
    /// Whether a command, as a program and its arguments, may run. A rule allows it when the rule's words are the first
    /// words of the command; `git` allows `git status` and not `/tmp/git`. A script for a shell is `sh -c SCRIPT`.
    pub fn allows_command(&self, words: &[String]) -> bool {
        self.shell.iter().any(|rule| {
            let mut rule = rule.split_whitespace().peekable();
            if rule.peek() == Some(&"*") {
                return true;
            }
            let mut words = words.iter();
            rule.peek().is_some() && rule.all(|word| words.next().is_some_and(|w| w == word))
        })
    }

    /// Nothing, where a tool may be called.
    ///
    /// # Errors
    /// `Denied`, with how to allow it.
    pub fn check_tool(&self, name: &str) -> Result<(), StepError> {
        match &self.allowed_tools {
            Some(rules) if !allows_tool(rules, name) => {
                let message =
                    format!("tool `{name}` may not be called: `permissions.tools` does not allow it");
                Err(StepError::new(ErrorKind::Denied, message)
                    .help(format!("add `{name}` to `permissions.tools`, or leave it out"))
                    .details(json!({ "tool": name, "allowed": rules })))
            }
            _ => Ok(()),
        }
    }

    /// Nothing, where a program that the pipeline file names may be started; `what` is who wants it.
    ///
    /// # Errors
    /// `Denied`, with how to allow it.
    pub fn check_program(&self, what: &str, words: &[String]) -> Result<(), StepError> {
        if self.allows_command(words) {
            return Ok(());
        }
        let program = words.first().map_or("", String::as_str);
        let message = format!("{what} may not start `{program}`: `permissions.shell` does not allow it");
        Err(StepError::new(ErrorKind::Denied, message)
            .help(format!("allow it with `permissions: {{shell: [{program}]}}`, or with --allow-shell")))
    }

    /// Whether tools may reach a host, written as it stands in a URL: each rule is `*`, a name, or `*.name` for what is below it.
    pub fn allows_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.network.iter().any(|rule| {
            let rule = rule.trim_end_matches('.').to_ascii_lowercase();
            match rule.strip_prefix("*.") {
                Some(parent) => {
                    host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                }
                None => rule == "*" || rule == host,
            }
        })
    }
}

/// The directories of a run, absolute.
#[derive(Debug, Clone, Default)]
pub struct RunDirs {
    /// Where the command was started; relative file paths mean this.
    pub working: PathBuf,
    /// The folder of the pipeline file; prompt files are looked up here first.
    pub pipeline: PathBuf,
    /// `workspace_dir`.
    pub workspace: PathBuf,
    /// `output_dir`.
    pub output: PathBuf,
    /// The run's own directory.
    pub run: PathBuf,
    /// Roots that may be read, beside the above: `permissions.read` and `--allow-read`.
    pub read: Vec<PathBuf>,
    /// Roots that may be written, beside workspace and output: `permissions.write` and `--allow-write`.
    pub write: Vec<PathBuf>,
    /// Where all runs are kept: what a step starts in a sandbox never writes there.
    pub state: PathBuf,
}

/// What a step is told about its attempt, and its only doors to the outside.
#[derive(Clone)]
pub struct StepContext {
    /// Which operation this is; `key.path` is the address that errors and reports use.
    pub key: OpKey,
    /// Physical attempt, from 1.
    pub attempt: u32,
    /// When the attempt must be over. The engine enforces it; pass it on to whatever waits.
    pub deadline: tokio::time::Instant,
    /// Cancelled when the attempt should stop. Dropping the future stops it too.
    pub cancel: CancellationToken,
    /// The run.
    pub run: Arc<RunInfo>,
    /// Where this step works: the run's workspace, or a directory of its own below it where agents run at once.
    pub workspace: PathBuf,
    /// Providers, tools, output files, sessions.
    pub services: Arc<Services>,
    /// Memoised effects.
    pub effects: EffectPort,
    /// Disposable progress: text deltas, counts.
    pub progress: ProgressPort,
}

impl StepContext {
    /// The context of one attempt outside any run: for calling a step, a tool or a provider by itself. Effects are done and
    /// not remembered, nobody listens to progress, nothing is permitted, and the deadline is five minutes away.
    pub fn detached(services: Services) -> Self {
        let run = RunInfo {
            id: "detached".to_owned(),
            workflow: "detached".to_owned(),
            started_at: Timestamp::default(),
            seed: 0,
            mock: false,
            dirs: RunDirs::default(),
            permissions: Permissions::default(),
        };
        Self {
            key: OpKey { path: "detached".into(), turn: 1, role: OpRole::Attempt },
            attempt: 1,
            deadline: tokio::time::Instant::now() + Duration::from_mins(5),
            cancel: CancellationToken::new(),
            workspace: PathBuf::new(),
            run: Arc::new(run),
            services: Arc::new(services),
            effects: EffectPort::detached(),
            progress: ProgressPort::detached(),
        }
    }

    /// Reads the rendered configuration that [`Step::run`] is given.
    ///
    /// # Errors
    /// `Invalid` when a template gave a value that its field cannot take: constants were checked by the compiler.
    pub fn decode<T: DeserializeOwned>(&self, with: impl Into<Data>) -> Result<T, StepError> {
        serde_json::from_value(with.into().into_json()).map_err(|error| {
            StepError::invalid(format!("the configuration of `{}` does not fit: {error}", self.key.path))
                .help("look at what the `{{ … }}` of this step give")
        })
    }

    /// Idempotency key of this logical attempt, the same after a crash: `run/step/attempt-group`.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}/{}", self.run.id, self.key.path, self.key.turn)
    }

    /// A program that this step starts: with the environment of children, the mark of this attempt, and the sandbox around it where
    /// the run asks for one. Whoever starts programs begins here.
    #[expect(clippy::disallowed_methods, reason = "the place where it is put around")]
    pub fn command(
        &self,
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Command {
        Command {
            env: (*self.services.child_env).clone(),
            family: Some(self.family()),
            sandbox: self.sandbox(),
            ..Command::new(program, args)
        }
    }

    /// What a program sees, where the run asks for that: the directories of the run as steps may use them, and no network.
    fn sandbox(&self) -> Option<Sandbox> {
        let dirs = &self.run.dirs;
        let variable = |name: &str| self.services.child_env.get(name).cloned();
        self.run.permissions.sandbox.then(|| Sandbox {
            tried: self.services.sandbox.clone(),
            search: variable("PATH"),
            read: dirs.read.clone(),
            around: vec![dirs.pipeline.clone(), dirs.working.clone()],
            write: [&self.workspace, &dirs.workspace, &dirs.output]
                .into_iter()
                .filter(|dir| dir.is_absolute())
                .chain(&dirs.write)
                .cloned()
                .collect(),
            kept: vec![dirs.state.clone()],
            home: variable("HOME").map(PathBuf::from),
            temporary: variable("TMPDIR").map(PathBuf::from),
            network: false,
        })
    }

    /// The mark of what this logical attempt starts, for [`crate::process::Command::family`]: the same after a crash, and no other
    /// attempt's of any run.
    pub fn family(&self) -> String {
        format!("{}/{}/{}", self.run.dirs.run.display(), self.key.path, self.key.turn)
    }

    /// Remembers that a file is part of what this step does, like its configuration: when its content changes, a later run
    /// does not take this attempt's result over.
    pub fn has_read(&self, path: &std::path::Path, content: &[u8]) {
        self.effects.has_read(path.display().to_string(), Hash::of_bytes(content));
    }

    /// How many metered effects of this attempt were answered from the journal so far: done before a crash, and not again.
    pub fn recalled(&self) -> u32 {
        self.effects.recalled()
    }

    /// Seed for what is invented in this attempt: from the run's seed and the path, never from time.
    pub fn seed(&self) -> u64 {
        Hash::of(&(self.run.seed, self.key.path.as_str())).seed()
    }

    /// Does an outside effect once: after a crash, a finished one returns its recorded result.
    ///
    /// `name` and the order of calls identify the effect within its attempt; `request` is everything that its result
    /// depends on; as JSON, it is hashed, and kept on a tape. A result is durable before the next effect of the same attempt begins (the last one becomes durable
    /// with the attempt's end). Errors are not recorded.
    ///
    /// # Errors
    /// What `effect` returns; [`crate::error::ErrorKind::Internal`] when the journal is gone.
    pub async fn effect<F>(
        &self,
        name: &str,
        request: &(impl Serialize + Sync + ?Sized),
        effect: F,
    ) -> Result<Data, StepError>
    where
        F: Future<Output = Result<Value, StepError>> + Send,
    {
        self.effects.run(name, request, effect).instrument(self.span(name)).await
    }

    /// Does an outside effect that costs money once: like [`StepContext::effect`], and its worst case is reserved under
    /// every limit around the step before it begins. It waits while amounts that others have reserved may come back.
    ///
    /// `call` is given the most US dollars that it may spend, where a cost limit applies. `usage_of` reads what was used
    /// out of the result; of a failed call [`StepError::usage`] says it, where the service did. A call that is cut off,
    /// or that fails in a way that may have been billed, counts with its worst case.
    ///
    /// # Errors
    /// What `call` returns; [`crate::error::ErrorKind::Budget`] when the worst case does not fit.
    pub async fn metered<F>(
        &self,
        name: &str,
        request: &(impl Serialize + Sync + ?Sized),
        worst: crate::usage::WorstCase,
        usage_of: fn(&Value) -> Usage,
        call: impl FnOnce(Option<f64>) -> F + Send,
    ) -> Result<Data, StepError>
    where
        F: Future<Output = Result<Value, StepError>> + Send,
    {
        self.effects.metered(name, request, worst, usage_of, call).instrument(self.span(name)).await
    }

    /// What logs of everything below an effect carry.
    fn span(&self, name: &str) -> tracing::Span {
        tracing::debug_span!("effect", run = %self.run.id, step = %self.key.path, attempt = self.attempt, effect = name)
    }
}
