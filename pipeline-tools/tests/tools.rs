//! Files, commands, hooks and limits, through the registry.

use std::path::Path;
use std::sync::Arc;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::{Permissions, StepContext};
use pipeline_core::tool::{ToolOutput, ToolSource};
use pipeline_core::value::Value;
use pipeline_tools::Registry;
use serde_json::json;

use crate::support::{context_in, declared, fake};

async fn call(
    registry: &Registry,
    cx: &StepContext,
    tool: &str,
    arguments: Value,
) -> Result<ToolOutput, StepError> {
    registry.open(tool, cx).await?.remove(0).call(arguments, cx).await
}

fn may(shell: &[&str]) -> Permissions {
    Permissions { shell: shell.iter().map(|s| (*s).to_owned()).collect(), ..Permissions::default() }
}

fn place() -> (tempfile::TempDir, StepContext) {
    let dir = tempfile::tempdir().unwrap();
    let cx = context_in(dir.path(), Permissions::default());
    (dir, cx)
}

#[tokio::test]
async fn files_are_written_read_and_listed_in_the_workspace() {
    let (dir, cx) = place();
    let tools = Registry::with_builtins();
    call(&tools, &cx, "write_file", json!({"path": "a/b.txt", "content": "one"})).await.unwrap();
    call(&tools, &cx, "write_file", json!({"path": "a/b.txt", "content": "two ü"})).await.unwrap();
    assert_eq!(call(&tools, &cx, "read_file", json!({"path": "a/b.txt"})).await.unwrap().content, "two ü");
    assert_eq!(call(&tools, &cx, "list_files", json!({"path": "."})).await.unwrap().data, json!(["a/"]));
    assert_eq!(call(&tools, &cx, "list_files", json!({"path": "a"})).await.unwrap().data, json!(["b.txt"]));
    assert_eq!(std::fs::read_to_string(dir.path().join("workspace/a/b.txt")).unwrap(), "two ü");
    let absolute = dir.path().join("output/c.txt");
    call(&tools, &cx, "write_file", json!({"path": absolute, "content": "x"})).await.unwrap();
}

/// Naive: a check of the text. A link made meanwhile, or `..` behind a link, leads out.
#[tokio::test]
async fn no_path_leads_out_of_the_roots() {
    let (dir, cx) = place();
    let secret = dir.path().join("secret.txt");
    std::fs::write(&secret, "s").unwrap();
    let workspace = dir.path().join("workspace");
    std::os::unix::fs::symlink(&secret, workspace.join("link.txt")).unwrap();
    std::os::unix::fs::symlink(dir.path(), workspace.join("up")).unwrap();
    let tools = Registry::with_builtins();
    let secret = secret.to_str().unwrap();
    for path in ["../secret.txt", "link.txt", "up/secret.txt", "a/../../secret.txt", secret, "/etc/passwd"] {
        let error = call(&tools, &cx, "read_file", json!({"path": path})).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{path}: {}", error.message);
    }
    for path in ["../secret.txt", "up/secret.txt", secret, "../working/x", "../run/x"] {
        let error = call(&tools, &cx, "write_file", json!({"path": path, "content": "x"})).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{path}: {}", error.message);
    }
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "s");
}

#[tokio::test]
async fn the_shell_runs_what_is_permitted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let tools = Registry::with_builtins();
    let cx = context_in(dir.path(), may(&["printf", "git status"]));
    let done = call(&tools, &cx, "shell", json!({"command": ["printf", "%s", "a; b"]})).await.unwrap();
    assert_eq!((done.data["stdout"].clone(), done.data["exit_code"].clone()), (json!("a; b"), json!(0)));
    for command in [
        json!(["sh", "-c", "printf x"]),
        json!(["git", "push"]),
        json!(["printf x"]),
        json!(["/bin/printf", "x"]),
    ] {
        let error = call(&tools, &cx, "shell", json!({ "command": command })).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{command}");
    }
    let any = context_in(dir.path(), may(&["*"]));
    let done = call(&tools, &any, "shell", json!({"command": ["sh", "-c", "cat; exit 3"], "input": "in"}))
        .await
        .unwrap();
    assert_eq!((done.data["exit_code"].clone(), done.data["stdout"].clone()), (json!(3), json!("in")));
}

#[tokio::test]
async fn a_declared_command_gets_arguments_as_words_and_secrets_in_its_environment() {
    let keys = json!({"tools": {"greet": {
        "description": "Greets", "command": ["sh", "-c", "printf '%s/%s/' \"$1\" \"$TOKEN\"; cat", "sh", "{who}"],
        "parameters": {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]},
        "env": {"TOKEN": "t-${MY_TOKEN}"},
    }}});
    let dir = tempfile::tempdir().unwrap();
    let tools = declared(&keys, &[("MY_TOKEN", "42")]).unwrap();
    let lacks = call(&tools, &context_in(dir.path(), may(&["ls"])), "greet", json!({"who": "me"})).await;
    assert_eq!(lacks.unwrap_err().kind, ErrorKind::Denied);
    let cx = context_in(dir.path(), may(&["sh"]));
    let done = call(&tools, &cx, "greet", json!({"who": "$(id) a b"})).await.unwrap();
    assert_eq!(done.content, r#"$(id) a b/t-42/{"who":"$(id) a b"}"#);
    assert_eq!(call(&tools, &cx, "greet", json!({})).await.unwrap_err().kind, ErrorKind::Invalid);
    let without = declared(&keys, &[]).unwrap();
    let error = call(&without, &cx, "greet", json!({"who": "x"})).await.unwrap_err();
    assert!(error.kind == ErrorKind::Auth && error.message.contains("MY_TOKEN"), "{}", error.message);
}

/// Naive: a tool is called and waited for.
#[tokio::test(start_paused = true)]
async fn n14_a_tool_that_hangs_ends_at_the_steps_deadline() {
    struct Hangs;
    #[async_trait::async_trait]
    impl pipeline_core::tool::Tool for Hangs {
        fn spec(&self) -> pipeline_core::tool::ToolSpec {
            pipeline_core::tool::ToolSpec {
                name: "hangs".to_owned(),
                description: String::new(),
                parameters: json!({}),
            }
        }
        async fn call(&self, _arguments: Value, _cx: &StepContext) -> Result<ToolOutput, StepError> {
            std::future::pending().await
        }
    }
    let (_dir, cx) = place();
    let tools = Registry::with_builtins();
    tools.register(Arc::new(Hangs)).unwrap();
    assert_eq!(call(&tools, &cx, "hangs", json!({})).await.unwrap_err().kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn what_a_tool_hands_back_has_a_limit() {
    let (_dir, cx) = place();
    let tools = Registry::default();
    tools.register(fake("large", |_| Ok(json!("ü".repeat(1_000_000))))).unwrap();
    tools.register(fake("huge", |_| Ok(json!("x".repeat(9_000_000))))).unwrap();
    let large = call(&tools, &cx, "large", json!({})).await.unwrap();
    assert!(large.content.len() < 1_100_000 && large.content.ends_with("more bytes]"));
    assert_eq!(call(&tools, &cx, "huge", json!({})).await.unwrap_err().kind, ErrorKind::TooLarge);
}

#[tokio::test]
async fn validate_bash_refuses_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let cx = context_in(dir.path(), may(&["*"]));
    let keys =
        json!({"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": ["validate-bash", "log_tool_use"]}]}});
    let tools = declared(&keys, &[]).unwrap();
    for script in ["rm  -rf x", "sudo ls", "ls; chmod   777 x"] {
        let error = call(&tools, &cx, "shell", json!({"command": ["sh", "-c", script]})).await.unwrap_err();
        assert!(
            error.kind == ErrorKind::Denied && error.message.contains("validate_bash"),
            "{}",
            error.message
        );
    }
    assert!(call(&tools, &cx, "shell", json!({"command": ["true"]})).await.is_ok());
}

#[tokio::test]
async fn commands_are_asked_before_and_told_after() {
    let dir = tempfile::tempdir().unwrap();
    let cx = context_in(dir.path(), may(&["sh"]));
    let log = dir.path().join("hook.log");
    let write = format!("cat >> {0}; echo >> {0}", log.display());
    let keys = json!({"hooks": {
        "pre_tool_use": [
            {"matcher": "text_*|json", "hooks": [{"command": write}]},
            {"matcher": "json", "hooks": [{"command": ["sh", "-c", "echo not today >&2; exit 2"]}]},
            {"matcher": "jq", "hooks": [{"command": "echo '{\"decision\": \"block\", \"reason\": \"no jq\"}'"}]},
            {"matcher": "calculator", "hooks": [{"command": "exit 7"}]},
        ],
        "PostToolUse": [{"hooks": ["audit_tool", {"command": write}]}],
        "SessionStart": [{"hooks": ["anything of the agent"]}],
    }});
    let tools = declared(&keys, &[]).unwrap();
    call(&tools, &cx, "text_stats", json!({"text": "a b"})).await.unwrap();
    let denied = call(&tools, &cx, "json", json!({"text": "1"})).await.unwrap_err();
    assert!(denied.kind == ErrorKind::Denied && denied.message.contains("not today"), "{}", denied.message);
    let blocked = call(&tools, &cx, "jq", json!({"program": ".", "input": 1})).await.unwrap_err();
    assert!(blocked.kind == ErrorKind::Denied && blocked.message.contains("no jq"), "{}", blocked.message);
    let broken = call(&tools, &cx, "calculator", json!({"expression": "1"})).await.unwrap_err();
    assert_eq!(broken.kind, ErrorKind::Environment, "a guard that is broken lets nobody through");
    let told = read_lines(&log);
    let seen: Vec<_> =
        told.iter().map(|t| (t["hook_event_name"].as_str(), t["tool_name"].as_str())).collect();
    assert_eq!(
        seen[..2],
        [(Some("PreToolUse"), Some("text_stats")), (Some("PostToolUse"), Some("text_stats"))]
    );
    assert_eq!(told[1]["tool_response"]["data"]["words"], 2);
    let audit = read_lines(&dir.path().join("run/audit.jsonl"));
    assert_eq!((audit.len(), &audit[0]["call"]["tool_name"]), (1, &json!("text_stats")));
}

fn read_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|l| !l.is_empty()).map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn what_is_declared_wrongly_is_told() {
    let cases = [
        (json!({"hooks": {"PreToolUse": [{"hooks": ["validate_bsah"]}]}}), "validate_bsah"),
        (json!({"tools": {"calculator": {"command": ["true"]}}}), "calculator"),
        (json!({"tools": {"x": {"command": []}}}), "empty"),
        (json!({"tools": {"x": {"comand": ["true"]}}}), "comand"),
        (json!({"mcp_servers": {"x": {"type": "carrier_pigeon", "command": "y"}}}), "MCP"),
    ];
    for (keys, told) in cases {
        let error = declared(&keys, &[]).err().unwrap();
        assert!(error.contains(told) || error.contains("carrier_pigeon"), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_name_is_told_with_the_nearest() {
    let (_dir, cx) = place();
    let error = Registry::with_builtins().open("calculater", &cx).await.err().unwrap();
    assert!(error.kind == ErrorKind::Invalid && error.help.unwrap().contains("calculator"));
}
