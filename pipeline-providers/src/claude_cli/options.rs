//! `claude_options`, as flags and variables of the CLI.
//!
//! Owns [`Options`]: every name in `backend::CLAUDE_OPTIONS` is read here and reaches the CLI, and a value that cannot be
//! meant is refused before anything is started. Must not know requests, processes or where directories are.

use std::collections::BTreeMap;

use pipeline_core::error::{ErrorKind, StepError};
use serde_json::{Map, Value, json};

/// Permission modes by their names in pipeline files, and the CLI's.
const PERMISSION_MODES: [(&str, &str); 6] = [
    ("default", "default"),
    ("accept_edits", "acceptEdits"),
    ("bypass_permissions", "bypassPermissions"),
    ("plan", "plan"),
    ("dont_ask", "dontAsk"),
    ("auto", "auto"),
];

/// Hooks that have names.
const NAMED_HOOKS: [&str; 3] = ["log_tool_use", "validate_bash", "audit_tool"];

/// What `claude_options` come to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Options {
    /// Flags with their values.
    pub flags: Vec<String>,
    /// Variables for its environment.
    pub env: BTreeMap<String, String>,
    /// Where it works, beside the request's own directory.
    pub cwd: Option<String>,
    /// Further directories that it may use.
    pub add_dir: Vec<String>,
    /// Tools that it may use; `None` = those of the CLI.
    pub allowed: Option<Vec<String>>,
    /// It may use skills.
    pub skills: bool,
    /// Configuration of MCP servers, each a file or JSON.
    pub mcp: Vec<String>,
    /// Names of the MCP servers that must be up.
    pub servers: Vec<String>,
    /// Only the MCP servers named here.
    pub strict_mcp: Option<bool>,
    /// Where settings are read from.
    pub setting_sources: String,
    /// `@path` in the prompt attaches that file.
    pub attachments: bool,
    /// A session to begin, or to go on with.
    pub session: Option<Session>,
    /// Go on in a copy of the session.
    pub fork: bool,
}

/// A session that `claude_options` name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Session {
    Begin(String),
    Resume(String),
}

impl Options {
    /// Reads the options. `hook_program` runs hooks that have names.
    ///
    /// # Errors
    /// `Invalid` for a value that cannot be meant, `Unsupported` for an option that the CLI has not.
    pub fn read(given: &Map<String, Value>, hook_program: &[String]) -> Result<Self, StepError> {
        let mut options = Self::default();
        let mut session_id = None;
        let mut resume = Value::Null;
        for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "add_dir" => options.add_dir = list(name, value)?,
                "agent" => options.flag("--agent", text(name, value)?),
                "agents" => options.flag("--agents", agents(value)?.to_string()),
                "allowed_tools" => options.allowed = Some(list(name, value)?),
                "attachments" => options.attachments = flag(name, value)?,
                "cwd" => options.cwd = Some(text(name, value)?),
                "disallowed_tools" => {
                    let tools = list(name, value)?;
                    if !tools.is_empty() {
                        options.flag("--disallowedTools", tools.join(","));
                    }
                }
                "enable_context_management" => {
                    if !flag(name, value)? {
                        options.env.insert("DISABLE_AUTO_COMPACT".to_owned(), "1".to_owned());
                    }
                }
                "enable_skills" => options.skills = flag(name, value)?,
                "fallback_model" => {
                    let models = list(name, value)?.join(",");
                    if !models.is_empty() {
                        options.flag("--fallback-model", models);
                    }
                }
                "fork_session" => options.fork = flag(name, value)?,
                "hooks" => {
                    let settings = json!({ "hooks": hooks(value, hook_program)? });
                    options.flag("--settings", settings.to_string());
                }
                "mcp_config" => options.mcp.extend(mcp_config(value)?),
                "mcp_servers" => {
                    let servers = mcp_servers(value)?;
                    options.servers = servers.keys().cloned().collect();
                    if !servers.is_empty() {
                        options.mcp.push(json!({ "mcpServers": servers }).to_string());
                    }
                }
                "memory_config" => options.memory(value)?,
                "output_format" => {
                    one_of(name, value, &["text", "json", "stream_json", "stream-json"])?;
                }
                "permission_mode" => options.flag("--permission-mode", permission_mode(value)?.to_owned()),
                "permission_prompt_tool" => options.flag("--permission-prompt-tool", prompt_tool(value)?),
                "resume_session" => resume = value.clone(),
                "session_id" => session_id = Some(session(name, value)?),
                "setting_sources" => options.setting_sources = setting_sources(value)?,
                "strict_mcp_config" => options.strict_mcp = Some(flag(name, value)?),
                other => {
                    let message = format!("the agent CLI has no option `{other}`");
                    return Err(StepError::new(ErrorKind::Unsupported, message).help("remove it"));
                }
            }
        }
        options.session = match (resume, session_id) {
            (Value::String(_), Some(_)) => {
                let message = "`resume_session` and `session_id` name two sessions";
                return Err(StepError::invalid(message).help("keep one of them"));
            }
            (text @ Value::String(_), None) => Some(Session::Resume(session("resume_session", &text)?)),
            (Value::Bool(true), Some(id)) => Some(Session::Resume(id)),
            (Value::Bool(true), None) => {
                let message = "`resume_session` is true, and no session is named";
                return Err(StepError::invalid(message)
                    .help("give `session_id`, the `session_id` of an earlier step"));
            }
            (Value::Null | Value::Bool(false), id) => id.map(Session::Begin),
            (other, _) => return Err(wrong("resume_session", &other, "true, false or the id of a session")),
        };
        Ok(options)
    }

    fn flag(&mut self, name: &str, value: String) {
        self.flags.extend([name.to_owned(), value]);
    }

    /// `memory_config`: when the CLI makes a long conversation shorter.
    fn memory(&mut self, value: &Value) -> Result<(), StepError> {
        let Value::Object(fields) = value else { return Err(wrong("memory_config", value, "a map")) };
        for (key, value) in fields {
            match key.as_str() {
                "auto_compact" => {
                    if !flag("memory_config.auto_compact", value)? {
                        self.env.insert("DISABLE_AUTO_COMPACT".to_owned(), "1".to_owned());
                    }
                }
                "max_context_length" | "compact_threshold" => {
                    let tokens = value.as_u64().filter(|n| *n > 0);
                    let tokens = tokens.ok_or_else(|| wrong(key, value, "a number of tokens"))?;
                    let window = self.env.entry("CLAUDE_CODE_AUTO_COMPACT_WINDOW".to_owned()).or_default();
                    // The smaller of the two is where it must begin.
                    let earlier = window.parse::<u64>().map_or(tokens, |other| other.min(tokens));
                    *window = earlier.to_string();
                }
                other => {
                    let message = format!("`memory_config` has no key `{other}`");
                    let help = "it has: auto_compact, compact_threshold, max_context_length";
                    return Err(StepError::invalid(message).help(help));
                }
            }
        }
        Ok(())
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> StepError {
    StepError::invalid(format!("`{name}` is {value}; it takes {expected}"))
}

fn text(name: &str, value: &Value) -> Result<String, StepError> {
    let text = value.as_str().filter(|t| !t.is_empty() && !t.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| wrong(name, value, "a text"))
}

fn flag(name: &str, value: &Value) -> Result<bool, StepError> {
    value.as_bool().ok_or_else(|| wrong(name, value, "true or false"))
}

/// A list of texts; one text is a list of one.
fn list(name: &str, value: &Value) -> Result<Vec<String>, StepError> {
    match value {
        Value::Array(items) => items.iter().map(|item| text(name, item)).collect(),
        Value::String(_) => Ok(vec![text(name, value)?]),
        _ => Err(wrong(name, value, "a list of texts")),
    }
}

fn one_of<'a>(name: &str, value: &Value, known: &[&'a str]) -> Result<&'a str, StepError> {
    let given = value.as_str().unwrap_or_default();
    known.iter().copied().find(|k| *k == given).ok_or_else(|| wrong(name, value, &known.join(", ")))
}

/// A session id: the CLI takes UUIDs only.
pub(super) fn session(name: &str, value: &Value) -> Result<String, StepError> {
    let given = value.as_str().unwrap_or_default();
    let parts: Vec<usize> = given.split('-').map(str::len).collect();
    let is_uuid = parts == [8, 4, 4, 4, 12] && given.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    if is_uuid {
        return Ok(given.to_owned());
    }
    let help = "give the `session_id` of an earlier step of this provider";
    Err(wrong(name, value, "the id of a session of the agent's, a UUID").help(help))
}

fn permission_mode(value: &Value) -> Result<&'static str, StepError> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let given = plain(value.as_str().unwrap_or_default());
    let mode = PERMISSION_MODES.iter().find(|(ours, _)| plain(ours) == given);
    mode.map(|(_, theirs)| *theirs).ok_or_else(|| {
        let known: Vec<&str> = PERMISSION_MODES.iter().map(|(ours, _)| *ours).collect();
        wrong("permission_mode", value, &known.join(", "))
    })
}

fn prompt_tool(value: &Value) -> Result<String, StepError> {
    let tool = text("permission_prompt_tool", value)?;
    if tool == "stdio" {
        let message = "`permission_prompt_tool: stdio` is a conversation that this program does not hold";
        return Err(StepError::new(ErrorKind::Unsupported, message).help(
            "name a tool of an MCP server, such as `mcp__approver__ask`, or put an `approval` step before",
        ));
    }
    Ok(tool)
}

fn setting_sources(value: &Value) -> Result<String, StepError> {
    let sources = match value {
        Value::String(text) => {
            text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
        }
        _ => list("setting_sources", value)?,
    };
    for source in &sources {
        one_of("setting_sources", &json!(source), &["user", "project", "local"])?;
    }
    Ok(sources.join(","))
}

/// The CLI ignores agents that it cannot read: here they are an error.
fn agents(value: &Value) -> Result<Value, StepError> {
    const KEYS: [&str; 4] = ["description", "prompt", "tools", "model"];
    let Value::Object(agents) = value else { return Err(wrong("agents", value, "a map of names to agents")) };
    let mut told = Map::new();
    for (name, agent) in agents {
        let place = format!("agents.{name}");
        let Value::Object(fields) = agent else { return Err(wrong(&place, agent, "a map")) };
        for key in ["description", "prompt"] {
            text(&format!("{place}.{key}"), fields.get(key).unwrap_or(&Value::Null))?;
        }
        let known = fields.iter().filter(|(key, _)| KEYS.contains(&key.as_str()));
        told.insert(name.clone(), known.map(|(k, v)| (k.clone(), v.clone())).collect());
    }
    Ok(Value::Object(told))
}

fn mcp_config(value: &Value) -> Result<Vec<String>, StepError> {
    match value {
        Value::Object(_) => Ok(vec![value.to_string()]),
        _ => list("mcp_config", value),
    }
}

fn mcp_servers(value: &Value) -> Result<Map<String, Value>, StepError> {
    let Value::Object(servers) = value else {
        return Err(wrong("mcp_servers", value, "a map of names to servers"));
    };
    let mut told = Map::new();
    for (name, server) in servers {
        let place = format!("mcp_servers.{name}");
        let Value::Object(fields) = server else { return Err(wrong(&place, server, "a map")) };
        let (command, url) = (fields.get("command").is_some(), fields.get("url").is_some());
        if command == url {
            return Err(StepError::invalid(format!("`{place}` needs either `command` or `url`")));
        }
        told.insert(name.clone(), server.clone());
    }
    Ok(told)
}

/// Hooks as the CLI's settings have them: named ones become commands of `program`.
fn hooks(value: &Value, program: &[String]) -> Result<Value, StepError> {
    let Value::Object(events) = value else { return Err(wrong("hooks", value, "a map of events to hooks")) };
    let mut told = Map::new();
    for (event, matchers) in events {
        let place = format!("hooks.{event}");
        let matchers = matchers.as_array().ok_or_else(|| wrong(&place, matchers, "a list"))?;
        let read = matchers.iter().map(|matcher| hook_matcher(&place, matcher, program));
        told.insert(event_name(event), Value::Array(read.collect::<Result<_, _>>()?));
    }
    Ok(Value::Object(told))
}

/// `pre_tool_use` and `PreToolUse` are the same event.
fn event_name(given: &str) -> String {
    let words = given.split(['_', '-']).filter(|w| !w.is_empty());
    words
        .map(|word| {
            let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
            first.to_uppercase() + rest
        })
        .collect()
}

fn hook_matcher(place: &str, matcher: &Value, program: &[String]) -> Result<Value, StepError> {
    let (matching, hooks) = match matcher {
        Value::String(_) => (None, std::slice::from_ref(matcher)),
        Value::Object(fields) => {
            let hooks = fields.get("hooks").and_then(Value::as_array);
            let hooks = hooks.ok_or_else(|| wrong(place, matcher, "`matcher` and a list of `hooks`"))?;
            (fields.get("matcher"), hooks.as_slice())
        }
        _ => return Err(wrong(place, matcher, "a name or a map")),
    };
    let hooks = hooks.iter().map(|hook| one_hook(place, hook, program)).collect::<Result<Vec<_>, _>>()?;
    let mut told = Map::new();
    if let Some(matching) = matching {
        told.insert("matcher".to_owned(), json!(text(place, matching)?));
    }
    told.insert("hooks".to_owned(), Value::Array(hooks));
    Ok(Value::Object(told))
}

fn one_hook(place: &str, hook: &Value, program: &[String]) -> Result<Value, StepError> {
    match hook {
        Value::Object(fields) if fields.get("command").is_some_and(Value::is_string) => {
            let mut fields = fields.clone();
            fields.entry("type").or_insert_with(|| json!("command"));
            Ok(Value::Object(fields))
        }
        Value::String(name) => {
            let name = name.replace('-', "_");
            if !NAMED_HOOKS.contains(&name.as_str()) {
                let known = NAMED_HOOKS.join(", ");
                let help = "or give a command: `{type: command, command: …}`";
                return Err(wrong(place, hook, &known).help(help));
            }
            if program.is_empty() {
                let message = format!("this program has no way to run the hook `{name}` for the agent CLI");
                return Err(StepError::new(ErrorKind::Unsupported, message).help("give a command instead"));
            }
            let mut words: Vec<String> = program.iter().map(|word| quoted(word)).collect();
            words.push(name);
            Ok(json!({ "type": "command", "command": words.join(" ") }))
        }
        _ => Err(wrong(place, hook, "a name or a command")),
    }
}

/// A word of a shell command.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
