//! One call of the CLI: its arguments, its environment, what it reads.
//!
//! Owns [`Invocation`]. The prompt goes through standard input, never through an argument, and never as a command of the
//! CLI's; settings, MCP servers and memory of the directory it works in are off unless the pipeline asks for them.
//! Must not know how the process is watched (`stream.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::process::Command;
use pipeline_core::provider::{Content, Message, ModelRequest, Role};
use pipeline_core::step::StepContext;
use serde_json::{Value, json};

use crate::claude_cli::options::{self, Options, Session};
use crate::claude_cli::programs;
use crate::secret::Secret;

/// Most bytes that one call sends.
const MOST_INPUT: usize = 32 * 1024 * 1024;

/// Variables that keep the CLI quiet and make one call of it one attempt: retries are the schedule's.
const QUIET: [(&str, &str); 7] = [
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK", "1"),
    ("CLAUDE_CODE_MAX_RETRIES", "0"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_TELEMETRY", "1"),
    ("TERM", "dumb"),
];

/// What the provider hands in.
pub(super) struct Given<'a> {
    pub executable: &'a Path,
    pub env: BTreeMap<String, String>,
    pub credentials: &'a BTreeMap<String, Secret>,
    pub variables: &'a BTreeMap<String, Secret>,
    pub hook_program: &'a [String],
    pub default_model: &'a str,
}

/// One call, ready to be made.
pub(super) struct Invocation {
    pub command: Command,
    pub input: Vec<u8>,
    /// Data was asked for.
    pub schema: bool,
    /// MCP servers that must be up.
    pub servers: Vec<String>,
    /// Values that no error may show.
    pub secrets: Vec<Secret>,
}

impl Invocation {
    /// Puts a call together.
    ///
    /// # Errors
    /// `Invalid`, `Unsupported`, `Denied`, `TooLarge` or `Budget`, before anything is started.
    pub fn new(request: &ModelRequest, cx: &StepContext, given: Given<'_>) -> Result<Self, StepError> {
        let options = Options::read(&request.agent, given.hook_program)?;
        for (who, words) in programs::named(&request.agent) {
            cx.run.permissions.check_program(&who, &words)?;
        }
        refuse_what_it_cannot(request)?;
        let cwd = directory(request, cx, &options)?;
        let mut args = base_args(&options);
        args.extend([
            "--model".to_owned(),
            request.model.as_deref().unwrap_or(given.default_model).to_owned(),
        ]);
        limits(request, &mut args)?;
        let mut pair = |flag: &str, value: &Option<String>| {
            if let Some(value) = value {
                args.extend([flag.to_owned(), value.clone()]);
            }
        };
        pair("--system-prompt", &request.system);
        pair("--append-system-prompt", &request.append_system);
        pair("--json-schema", &request.output_schema.as_ref().map(Value::to_string));
        tools(&options, &mut args);
        for dir in &options.add_dir {
            let dir = within_roots(cx, &cx.run.dirs.working.join(dir), "add_dir")?;
            args.extend(["--add-dir".to_owned(), dir.display().to_string()]);
        }
        let resumed = session(request, &options, &mut args)?;
        let mut env = given.env;
        let mut secrets: Vec<Secret> =
            given.credentials.iter().filter(|c| is_secret(c.0)).map(|c| c.1.clone()).collect();
        env.extend(exposed(given.credentials));
        env.extend(QUIET.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if !options.attachments {
            env.insert("CLAUDE_CODE_DISABLE_ATTACHMENTS".to_owned(), "1".to_owned());
        }
        if let Some(most) = request.max_output_tokens {
            env.insert("CLAUDE_CODE_MAX_OUTPUT_TOKENS".to_owned(), most.to_string());
        }
        for config in &options.mcp {
            let named = named_variables(config, given.variables)?;
            secrets.extend(named.values().cloned());
            env.extend(exposed(&named));
            args.extend(["--mcp-config".to_owned(), config.clone()]);
        }
        env.extend(options.env);
        args.extend(options.flags);
        let input = input(&request.messages, resumed)?;
        let mut command = Command { cwd: Some(cwd), env, ..cx.command(given.executable, args) };
        if let Some(sandbox) = &mut command.sandbox {
            // It is nothing without its service. Its own file may lie in the home, which is not shown.
            sandbox.network = true;
            sandbox.read.push(given.executable.to_owned());
            sandbox.read.extend(given.executable.canonicalize());
            sandbox.read.extend(given.hook_program.first().map(PathBuf::from));
        }
        Ok(Self {
            command,
            input,
            schema: request.output_schema.is_some(),
            servers: options.servers,
            secrets,
        })
    }
}

/// Variables as the process gets them.
fn exposed(variables: &BTreeMap<String, Secret>) -> impl Iterator<Item = (String, String)> {
    variables.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()))
}

/// Whether a variable holds something to hide, and not an address or a choice.
fn is_secret(name: &str) -> bool {
    ["KEY", "TOKEN", "SECRET", "HEADERS"].iter().any(|word| name.contains(word))
}

fn base_args(options: &Options) -> Vec<String> {
    let mut args: Vec<String> = [
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--include-partial-messages",
        "--verbose",
        "--setting-sources",
    ]
    .map(str::to_owned)
    .to_vec();
    args.push(options.setting_sources.clone());
    if options.strict_mcp.unwrap_or(true) {
        args.push("--strict-mcp-config".to_owned());
    }
    args
}

fn limits(request: &ModelRequest, args: &mut Vec<String>) -> Result<(), StepError> {
    if let Some(most) = request.max_turns {
        if most == 0 {
            return Err(StepError::invalid("`max_turns` is 0; an agent needs at least 1"));
        }
        args.extend(["--max-turns".to_owned(), most.to_string()]);
    }
    if let Some(most) = request.max_cost_usd {
        if !(most > 0.0 && most.is_finite()) {
            let message = "no money is left for the agent";
            return Err(StepError::new(ErrorKind::Budget, message).help("raise the budget"));
        }
        args.extend(["--max-budget-usd".to_owned(), format!("{most}")]);
    }
    Ok(())
}

/// Only what is listed may be used: the CLI is told so twice, because `--allowedTools` alone leaves the others there.
fn tools(options: &Options, args: &mut Vec<String>) {
    let mut allowed = options.allowed.clone();
    if options.skills
        && let Some(allowed) = &mut allowed
    {
        allowed.push("Skill".to_owned());
    }
    if let Some(allowed) = &allowed {
        let mut built_in: Vec<&str> = allowed
            .iter()
            .filter(|name| !name.starts_with("mcp__"))
            .map(|name| name.split_once('(').map_or(name.as_str(), |(name, _)| name).trim())
            .collect();
        built_in.dedup();
        args.extend(["--tools".to_owned(), built_in.join(",")]);
        if !allowed.is_empty() {
            args.extend(["--allowedTools".to_owned(), allowed.join(",")]);
        }
    } else if options.skills {
        args.extend(["--allowedTools".to_owned(), "Skill".to_owned()]);
    }
}

/// Flags of the session; whether an earlier one goes on.
fn session(request: &ModelRequest, options: &Options, args: &mut Vec<String>) -> Result<bool, StepError> {
    let going_on = match &request.session {
        Some(id) => Some(options::session("session", &json!(id))?),
        None => None,
    };
    let mut resume = |id: &str| args.extend(["--resume".to_owned(), id.to_owned()]);
    let resumed = match (&going_on, &options.session) {
        (Some(id), _) | (None, Some(Session::Resume(id))) => {
            resume(id);
            true
        }
        (None, _) => false,
    };
    if options.fork {
        if !resumed {
            let message = "`fork_session` needs a session to copy";
            return Err(StepError::invalid(message)
                .help("name it: `session`, or `session_id` with `resume_session: true`"));
        }
        args.push("--fork-session".to_owned());
    }
    if let Some(Session::Begin(id)) = &options.session
        && (!resumed || options.fork)
    {
        args.extend(["--session-id".to_owned(), id.clone()]);
    }
    Ok(resumed)
}

fn refuse_what_it_cannot(request: &ModelRequest) -> Result<(), StepError> {
    let refused = [
        ("temperature", request.temperature.is_some()),
        ("top_p", request.top_p.is_some()),
        ("top_k", request.top_k.is_some()),
        ("functions", !request.functions.is_empty()),
    ];
    match refused.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("the agent CLI has no `{name}`");
            Err(StepError::new(ErrorKind::Unsupported, message)
                .help("set `providers.claude.kind: anthropic` to call the model by HTTP, or leave it out"))
        }
    }
}

/// Where it works: the request's directory, or the one that the options name.
fn directory(request: &ModelRequest, cx: &StepContext, options: &Options) -> Result<PathBuf, StepError> {
    let dir = match &options.cwd {
        Some(cwd) => within_roots(cx, &cx.run.dirs.working.join(cwd), "cwd")?,
        None => request.cwd.clone().unwrap_or_else(|| cx.workspace.clone()),
    };
    std::fs::create_dir_all(&dir).map_err(|error| {
        let message = format!("the agent's directory {} cannot be made: {error}", dir.display());
        StepError::new(ErrorKind::Environment, message)
    })?;
    Ok(dir)
}

/// A directory that a pipeline names, if it is below one that may be written.
fn within_roots(cx: &StepContext, dir: &Path, option: &str) -> Result<PathBuf, StepError> {
    let dirs = &cx.run.dirs;
    let roots = [&cx.workspace, &dirs.workspace, &dirs.output].into_iter().chain(&dirs.write);
    let real = real(dir);
    if roots.filter(|root| !root.as_os_str().is_empty()).any(|root| real.starts_with(self::real(root))) {
        return Ok(real);
    }
    let message = format!("`{option}` is {}, outside the directories that may be written", dir.display());
    Err(StepError::new(ErrorKind::Denied, message)
        .help("add it to `permissions.write`, or give `--allow-write`"))
}

/// The path without links and dots, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                plain.pop();
            }
            part => {
                plain.push(part);
                plain = std::fs::canonicalize(&plain).unwrap_or(plain);
            }
        }
    }
    plain
}

/// Values of the `${NAME}` in a configuration, which the CLI fills in: so they stand in no argument.
fn named_variables(
    config: &str,
    variables: &BTreeMap<String, Secret>,
) -> Result<BTreeMap<String, Secret>, StepError> {
    let mut named = BTreeMap::new();
    for part in config.split("${").skip(1) {
        let Some((inside, _)) = part.split_once('}') else { continue };
        let (name, has_default) = inside.split_once(":-").map_or((inside, false), |(name, _)| (name, true));
        match variables.get(name) {
            Some(value) => {
                named.insert(name.to_owned(), value.clone());
            }
            None if has_default => {}
            None => {
                let message = format!("`mcp_servers` needs the variable {name}, which is not set");
                return Err(StepError::new(ErrorKind::Environment, message)
                    .help(format!("set {name} where the run is started")));
            }
        }
    }
    Ok(named)
}

/// The one message that the CLI reads. In a session that goes on, what was said before is known to it.
fn input(messages: &[Message], resumed: bool) -> Result<Vec<u8>, StepError> {
    let new_from = messages.iter().rposition(|m| m.role == Role::Assistant).map_or(0, |at| at + 1);
    let (before, new) = messages.split_at(new_from);
    let mut content = Vec::new();
    if !before.is_empty() && !resumed {
        content.push(json!({ "type": "text", "text": transcript(before) }));
    }
    for block in new.iter().flat_map(|m| &m.content) {
        content.extend(block_of(block));
    }
    // Text that begins with a slash is a command of the CLI's and never reaches the model.
    if let Some(text) = content.first_mut().and_then(|block| block.get_mut("text"))
        && let Some(words) = text.as_str().filter(|words| words.starts_with('/'))
    {
        *text = json!(format!("\n{words}"));
    }
    let is_empty = content.iter().all(|block| block["text"].as_str().is_some_and(|t| t.trim().is_empty()));
    if is_empty {
        return Err(StepError::invalid("the prompt is empty"));
    }
    let message = json!({ "type": "user", "message": { "role": "user", "content": content } });
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    if line.len() > MOST_INPUT {
        let message = format!("the prompt has {} bytes, over {MOST_INPUT}", line.len());
        return Err(StepError::new(ErrorKind::TooLarge, message).help("give the agent files to read instead"));
    }
    Ok(line)
}

fn block_of(block: &Content) -> Option<Value> {
    match block {
        Content::Text { text } => Some(json!({ "type": "text", "text": text })),
        Content::Media { media_type, data, .. } => {
            let kind = if media_type.starts_with("image/") { "image" } else { "document" };
            let source = json!({ "type": "base64", "media_type": media_type, "data": data });
            Some(json!({ "type": kind, "source": source }))
        }
        Content::ToolResult { name, content, .. } => {
            Some(json!({ "type": "text", "text": format!("Result of {name}:\n{content}") }))
        }
        Content::ToolCall(_) | Content::Opaque { .. } => None,
    }
}

/// What was said before, for an agent that has no session of it.
fn transcript(before: &[Message]) -> String {
    let mut text = String::from("What was said before:\n");
    for message in before {
        let who = if message.role == Role::User { "user" } else { "assistant" };
        text.push_str(&format!("<{who}>\n{}\n</{who}>\n", message.text()));
    }
    text.push_str("Now:\n");
    text
}
