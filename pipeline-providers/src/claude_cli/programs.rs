//! The programs that a request makes the agent CLI start.
//!
//! Owns [`named`]: MCP servers and hooks of a pipeline file, as words that `permissions.shell` can allow. What the agent
//! decides to start by itself is bounded by its own permission mode, and the hooks that have names are this program's own.
//! Must not know how options are written for the CLI: that is `options.rs`.

use pipeline_core::value::Value;
use serde_json::Map;

/// Who wants to start something, and its words.
pub(super) type Named = (String, Vec<String>);

/// Every program that the options name.
pub(super) fn named(options: &Map<String, Value>) -> Vec<Named> {
    let mut all = Vec::new();
    if let Some(servers) = options.get("mcp_servers") {
        all.extend(servers_of(servers));
    }
    match options.get("mcp_config") {
        Some(Value::Array(files)) => files.iter().for_each(|file| all.extend(configured(file))),
        Some(one) => all.extend(configured(one)),
        None => {}
    }
    let events = options.get("hooks").and_then(Value::as_object);
    let matchers = events.into_iter().flat_map(Map::values).filter_map(Value::as_array).flatten();
    let hooks = matchers.filter_map(|matcher| matcher.get("hooks")?.as_array()).flatten();
    let commands = hooks.filter_map(|hook| hook.get("command")?.as_str());
    // The CLI gives them to a shell.
    all.extend(
        commands.map(|script| {
            ("a hook of the agent".to_owned(), ["sh", "-c", script].map(str::to_owned).to_vec())
        }),
    );
    all
}

/// Servers that are written down in place, as a map or as its text; else a file, which may name any program.
fn configured(config: &Value) -> Vec<Named> {
    let text = config.as_str().unwrap_or_default();
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    match parsed.as_ref().unwrap_or(config) {
        Value::Object(fields) => fields.get("mcpServers").map(servers_of).unwrap_or_default(),
        _ => vec![(format!("the MCP configuration `{text}`"), vec![text.to_owned()])],
    }
}

fn servers_of(servers: &Value) -> Vec<Named> {
    let servers = servers.as_object().into_iter().flatten();
    let words = |server: &Value| {
        let program = server.get("command")?.as_str()?.to_owned();
        let rest = server.get("args").and_then(Value::as_array).into_iter().flatten();
        let rest = rest.map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned));
        Some(std::iter::once(program).chain(rest).collect())
    };
    servers
        .filter_map(|(name, server)| Some((format!("the MCP server `{name}` of the agent"), words(server)?)))
        .collect()
}
