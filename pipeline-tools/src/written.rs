//! The keys `tools`, `mcp_servers` and `hooks` of a workflow.
//!
//! Owns their shapes ([`Written`]) and how `${NAME}` in them becomes a secret, when a connection is made and not before. Must not
//! know the environment: whoever has it gives the variables ([`Secrets`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::value::Value;
use serde::Deserialize;
use serde_json::{Map, json};

/// What a workflow says about tools.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Tools that are commands.
    #[serde(default)]
    pub(crate) tools: BTreeMap<String, CommandTool>,
    /// MCP servers.
    #[serde(default)]
    pub(crate) mcp_servers: BTreeMap<String, Server>,
    /// What is asked before and told after each call: event to matchers.
    #[serde(default)]
    pub(crate) hooks: BTreeMap<String, Vec<Matcher>>,
}

/// A tool that is a command.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandTool {
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default = "any_object")]
    pub(crate) parameters: Value,
    /// Program and arguments; `{name}` in an argument is the value of that argument of the call.
    pub(crate) command: Vec<String>,
    /// Its environment beside the allowed one; `${NAME}` is a secret.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Seconds.
    #[serde(default)]
    pub(crate) timeout_seconds: Option<f64>,
}

/// An MCP server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// `stdio`, `http` or `sse`; without it, what the other keys say.
    #[serde(default, rename = "type")]
    #[cfg_attr(not(feature = "mcp"), expect(dead_code, reason = "any server is refused then"))]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) command: Option<String>,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) url: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

/// Hooks for the tools whose names match.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matcher {
    /// A tool's name, several parted by `|`, `prefix*`, or nothing for all.
    #[serde(default)]
    pub(crate) matcher: Option<String>,
    pub(crate) hooks: Vec<WrittenHook>,
}

/// A hook: the name of one that is built in, or a command.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum WrittenHook {
    Named(String),
    Command(HookCommand),
}

/// A command that is given the call as JSON on its standard input.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HookCommand {
    pub(crate) command: Words,
    #[serde(default)]
    pub(crate) timeout: Option<f64>,
}

/// A command as a list, or as a script for `sh -c`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Words {
    Script(String),
    List(Vec<String>),
}

fn any_object() -> Value {
    json!({ "type": "object" })
}

impl Written {
    /// Reads the keys as the file has them.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn read(keys: &Map<String, Value>) -> Result<Self, String> {
        let mut written = Self::default();
        for (key, value) in keys {
            let Value::Object(entries) = value else { return Err(format!("`{key}` takes a map of names")) };
            for (name, entry) in entries {
                let entry = entry.clone();
                let place = |error: serde_json::Error| format!("`{key}.{name}`: {error}");
                match key.as_str() {
                    "tools" => {
                        written.tools.insert(name.clone(), serde_json::from_value(entry).map_err(place)?);
                    }
                    "mcp_servers" => {
                        written
                            .mcp_servers
                            .insert(name.clone(), serde_json::from_value(entry).map_err(place)?);
                    }
                    "hooks" => {
                        written.hooks.insert(name.clone(), serde_json::from_value(entry).map_err(place)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(written)
    }

    /// The names of all secrets that are wanted.
    pub fn secrets(&self) -> Vec<String> {
        let tools = self.tools.values().flat_map(|tool| tool.env.values().chain(&tool.command));
        let servers = self.mcp_servers.values().flat_map(|server| {
            let texts = server.env.values().chain(server.headers.values()).chain(&server.args);
            texts.chain(&server.command).chain(&server.url)
        });
        tools.chain(servers).flat_map(|text| names_in(text)).collect()
    }
}

/// Values of the environment that `${NAME}` may stand for.
#[derive(Clone, Default)]
pub struct Secrets(Arc<BTreeMap<String, String>>);

impl Secrets {
    /// These values.
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self(Arc::new(values))
    }

    /// The text with every `${NAME}` replaced.
    pub(crate) fn expand(&self, text: &str, place: &str) -> Result<String, StepError> {
        let mut out = text.to_owned();
        for name in names_in(text) {
            let value = self.0.get(&name).ok_or_else(|| {
                let message = format!("{place} needs the variable `{name}`, which is not set");
                StepError::new(ErrorKind::Auth, message).help(format!("set {name} in the environment"))
            })?;
            out = out.replace(&format!("${{{name}}}"), value);
        }
        Ok(out)
    }

    /// [`Secrets::expand`] for every value of a map.
    pub(crate) fn expand_all(
        &self,
        texts: &BTreeMap<String, String>,
        place: &str,
    ) -> Result<BTreeMap<String, String>, StepError> {
        texts.iter().map(|(name, text)| Ok((name.clone(), self.expand(text, place)?))).collect()
    }
}

/// The names in `${NAME}`.
fn names_in(text: &str) -> Vec<String> {
    let starts = text.split("${").skip(1);
    let names = starts.filter_map(|rest| rest.split_once('}').map(|(name, _)| name));
    names
        .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .map(str::to_owned)
        .collect()
}

/// Seconds as a length of time that clocks can take.
pub(crate) fn seconds(number: Option<f64>, default: Duration) -> Duration {
    number.and_then(|n| Duration::try_from_secs_f64(n).ok()).filter(|d| !d.is_zero()).unwrap_or(default)
}
