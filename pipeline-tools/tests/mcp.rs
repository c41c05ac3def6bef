//! MCP servers, scripted: good ones, and those that hang, die and flood.

use std::path::Path;
use std::time::Duration;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::service::{MOST, State};
use pipeline_core::step::{Permissions, StepContext};
use pipeline_core::tool::{ToolOutput, ToolSource};
use pipeline_core::value::Value;
use pipeline_tools::Registry;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{context_in, declared};

/// Speaks MCP over its pipes, line by line, with what the shell has. `$MODE` says how it misbehaves.
const SERVER: &str = r#"
echo "hello from the server" >&2
echo $$ >> "$PIDS"
sleep 300 &
echo $! >> "$PIDS"
[ "$MODE" = silent ] && exec sleep 300
[ "$MODE" = dies ] && { echo "no licence" >&2; exit 3; }
[ "$MODE" = floods ] && exec cat /dev/zero
say() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
  case "$line" in
  *'"method":"initialize"'*)
    say '"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"fake","version":"1"}}' ;;
  *'"method":"tools/list"'*)
    [ "$MODE" = complains ] && head -c 3000000 /dev/zero | tr '\0' 'x' >&2
    say '"result":{"tools":[{"name":"echo","description":"Echoes","inputSchema":{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}},{"name":"fail","inputSchema":{"type":"object"}},{"name":"wrong","inputSchema":{"type":"object"}},{"name":"hang","inputSchema":{"type":"object"}},{"name":"exit","inputSchema":{"type":"object"}},{"name":"flood","inputSchema":{"type":"object"}},{"name":"freeze","inputSchema":{"type":"object"}}]}' ;;
  *'"method":"tools/call"'*'"name":"echo"'*)
    say '"result":{"content":[{"type":"text","text":"you said it"},{"type":"image","data":"AAAA","mimeType":"image/png"}],"structuredContent":{"token":"'"$TOKEN"'"}}' ;;
  *'"method":"tools/call"'*'"name":"fail"'*)
    say '"result":{"isError":true,"content":[{"type":"text","text":"the disk is full"}]}' ;;
  *'"method":"tools/call"'*'"name":"wrong"'*)
    say '"result":{"isError":true,"content":[{"type":"text","text":"MCP error -32602: no such tool"}]}' ;;
  *'"method":"tools/call"'*'"name":"exit"'*) echo "out of memory" >&2; exit 1 ;;
  *'"method":"tools/call"'*'"name":"flood"'*) exec cat /dev/zero ;;
  *'"method":"tools/call"'*'"name":"freeze"'*) sleep 300 ;;
  *'"method":"tools/call"'*) : ;;
  *'"id":'*) say '"error":{"code":-32601,"message":"Method not found"}' ;;
  esac
done
"#;

struct Stage {
    dir: tempfile::TempDir,
    tools: Registry,
    cx: StepContext,
}

impl Stage {
    fn new(mode: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let keys = json!({"mcp_servers": {"fake": {
            "command": "sh", "args": ["-c", SERVER],
            "env": {"MODE": mode, "PIDS": pids, "TOKEN": "t-${MCP_TOKEN}"},
        }}});
        let tools = declared(&keys, &[("MCP_TOKEN", "s3cret")]).unwrap();
        let mut cx =
            context_in(dir.path(), Permissions { shell: vec!["*".to_owned()], ..Permissions::default() });
        cx.deadline = Instant::now() + Duration::from_secs(20);
        Self { dir, tools, cx }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<ToolOutput, StepError> {
        let name = format!("mcp__fake__{tool}");
        self.tools.open(&name, &self.cx).await?.remove(0).call(arguments, &self.cx).await
    }

    fn soon(&mut self) {
        self.cx.deadline = Instant::now() + Duration::from_millis(400);
    }

    /// Closes everything, and makes sure that nothing of it runs any more.
    async fn nobody_is_left(self) {
        self.tools.close().await;
        let pids = std::fs::read_to_string(self.dir.path().join("pids")).unwrap_or_default();
        assert!(!pids.is_empty(), "the server was started");
        for _ in 0..300 {
            if !pids.lines().any(|pid| is_alive(Path::new("/proc"), pid)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("one of {pids:?} is alive");
    }
}

fn is_alive(proc: &Path, pid: &str) -> bool {
    // A zombie that nobody has reaped yet does not run.
    std::fs::read_to_string(proc.join(pid).join("stat")).is_ok_and(|s| !s.contains(") Z "))
}

#[tokio::test]
async fn tools_are_listed_called_and_their_failures_are_errors() {
    let stage = Stage::new("good");
    let all = stage.tools.open("mcp__fake", &stage.cx).await.unwrap();
    let names: Vec<String> = all.iter().map(|tool| tool.spec().name).collect();
    assert_eq!(names[0], "mcp__fake__echo");
    assert_eq!((names.len(), stage.tools.open("mcp__fake__*", &stage.cx).await.unwrap().len()), (7, 7));
    let echoed = stage.call("echo", json!({"text": "hi"})).await.unwrap();
    assert_eq!(echoed.content, "you said it\n[image image/png, 4 bytes of base64]");
    assert_eq!(echoed.data, json!({"token": "t-s3cret"}));
    let cases = [
        ("echo", ErrorKind::Invalid, "text"),
        ("fail", ErrorKind::Refused, "the disk is full"),
        ("wrong", ErrorKind::Invalid, "-32602"),
    ];
    for (tool, kind, told) in cases {
        let error = stage.call(tool, json!({})).await.unwrap_err();
        assert!(
            error.kind == kind && error.message.contains(told),
            "{tool}: {:?} {}",
            error.kind,
            error.message
        );
    }
    let unknown = stage.call("ecco", json!({})).await.unwrap_err();
    assert!(unknown.kind == ErrorKind::Invalid && unknown.help.unwrap().contains("mcp__fake__echo"));
    let started = std::fs::read_to_string(stage.dir.path().join("pids")).unwrap().lines().count();
    assert_eq!(started, 2, "one server and its child: it was started once");
    let log = std::fs::read_to_string(stage.dir.path().join("run/mcp-fake.log")).unwrap();
    assert!(log.contains("hello from the server"));
    stage.nobody_is_left().await;
}

/// Naive: `serve()` and wait. It waits for ever.
#[tokio::test]
async fn x26_a_server_that_never_answers_fails_the_step_at_its_deadline() {
    let mut stage = Stage::new("silent");
    stage.soon();
    let error = stage.call("echo", json!({"text": "x"})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{}", error.message);
    stage.nobody_is_left().await;
}

/// Naive: a server's end is the end of whoever talks to it, or an error that says nothing but "closed".
#[tokio::test]
async fn x12_a_server_that_dies_is_an_error_with_its_last_words() {
    let stage = Stage::new("dies");
    let error = stage.call("echo", json!({"text": "x"})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network, "{}", error.message);
    let missing = declared(&json!({"mcp_servers": {"x": {"command": "/no/such/server"}}}), &[]).unwrap();
    let error = missing.open("mcp__x__y", &stage.cx).await.err().unwrap();
    assert!(error.kind == ErrorKind::Environment && error.message.contains("/no/such/server"));
    stage.nobody_is_left().await;
}

/// Naive: the connection is made once, and every call after the server's death fails.
#[tokio::test]
async fn x12_a_server_that_dies_in_a_call_is_started_again_by_the_next() {
    let stage = Stage::new("good");
    let error = stage.call("exit", json!({})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Network, "{}", error.message);
    assert!(error.details["stderr"].as_str().unwrap().contains("out of memory"), "{}", error.details);
    assert!(stage.call("echo", json!({"text": "again"})).await.is_ok());
    stage.nobody_is_left().await;
}

#[tokio::test]
async fn a_tool_that_hangs_ends_and_its_server_is_used_again_if_it_answers() {
    let mut stage = Stage::new("good");
    assert!(stage.call("echo", json!({"text": "x"})).await.is_ok());
    for (tool, processes) in [("hang", 2), ("freeze", 4)] {
        stage.soon();
        let error = stage.call(tool, json!({})).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TimedOut, "{}", error.message);
        stage.cx.deadline = Instant::now() + Duration::from_secs(20);
        assert!(stage.call("echo", json!({"text": "x"})).await.is_ok());
        let started = std::fs::read_to_string(stage.dir.path().join("pids")).unwrap().lines().count();
        assert_eq!(started, processes, "after {tool}");
    }
    stage.nobody_is_left().await;
}

/// Naive: a line is read to its end. This one has none.
#[tokio::test]
async fn a_server_that_floods_is_stopped_at_the_deadline_and_complaints_do_not_block_it() {
    for (mode, tool) in [("floods", "echo"), ("good", "flood")] {
        let mut stage = Stage::new(mode);
        stage.soon();
        let error = stage.call(tool, json!({"text": "x"})).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::TimedOut | ErrorKind::Network), "{}", error.message);
        stage.nobody_is_left().await;
    }
    let stage = Stage::new("complains");
    assert!(stage.call("echo", json!({"text": "x"})).await.is_ok());
    let log = std::fs::metadata(stage.dir.path().join("run/mcp-fake.log")).unwrap().len();
    assert!(log < 1_100_000, "{log} bytes are logged");
    stage.nobody_is_left().await;
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let keys = json!({"mcp_servers": {"x": {"command": "true", "env": {"K": "${NOT_SET}"}}}});
    let tools = declared(&keys, &[]).unwrap();
    let error = tools.open("mcp__x", &context_in(dir.path(), Permissions::default())).await.err().unwrap();
    assert!(error.kind == ErrorKind::Auth && error.message.contains("NOT_SET"));
    let unknown =
        tools.open("mcp__y__z", &context_in(dir.path(), Permissions::default())).await.err().unwrap();
    assert!(unknown.help.unwrap().contains('x'));
}

/// Naive: what a file declares is allowed because it is declared, and a list of allowed tools is stored and never read.
#[tokio::test]
async fn what_is_not_allowed_is_denied_before_anything_starts() {
    let mut stage = Stage::new("good");
    let with = |cx: &StepContext, shell: &[&str], tools: Option<&[&str]>| {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let permissions =
            Permissions { shell: all(shell), allowed_tools: tools.map(all), ..Permissions::default() };
        std::sync::Arc::new(pipeline_core::step::RunInfo { permissions, ..(*cx.run).clone() })
    };
    let echo = json!({"text": "x"});
    stage.cx.run = with(&stage.cx, &["ls"], None);
    let error = stage.call("echo", echo.clone()).await.unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.message.contains("`sh`"), "{error:?}");
    for tools in [&["calculator"][..], &["mcp__fake__fail"], &[]] {
        stage.cx.run = with(&stage.cx, &["*"], Some(tools));
        let error = stage.call("echo", echo.clone()).await.unwrap_err();
        assert!(error.kind == ErrorKind::Denied && error.message.contains("permissions.tools"), "{error:?}");
    }
    assert!(!stage.dir.path().join("pids").exists(), "no server was started");
    for (tools, offered) in [("mcp__fake", 7), ("*", 7), ("mcp__fake__e*", 2)] {
        stage.cx.run = with(&stage.cx, &["sh"], Some(&[tools]));
        assert!(stage.call("echo", echo.clone()).await.is_ok(), "{tools}");
        assert_eq!(stage.tools.open("mcp__fake", &stage.cx).await.unwrap().len(), offered, "{tools}");
    }
    // A handle from before does not outlive the leave.
    let tool = stage.tools.open("mcp__fake__echo", &stage.cx).await.unwrap().remove(0);
    stage.cx.run = with(&stage.cx, &["sh"], Some(&["calculator"]));
    assert_eq!(tool.call(echo, &stage.cx).await.unwrap_err().kind, ErrorKind::Denied);
    stage.nobody_is_left().await;
}

/// Naive: a server that dies is gone for the rest of the run; or it is started again by every call, for ever, and nobody can
/// see that it is.
/// Figure: 5 restarts, then none.
#[tokio::test]
async fn n17_a_server_is_started_again_within_its_budget_and_then_left_alone() {
    let stage = Stage::new("good");
    assert_eq!(stage.tools.health(), [], "it has not been wanted yet");
    let started = || {
        let pids = std::fs::read_to_string(stage.dir.path().join("pids")).unwrap_or_default();
        // Each start tells of itself and of its child.
        pids.lines().count() / 2
    };
    for round in 0..=MOST {
        let error = stage.call("exit", json!({})).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Network, "round {round}: {}", error.message);
        let health = stage.tools.health().remove(0);
        assert_eq!(
            (health.service.as_str(), health.state, health.restarts),
            ("mcp fake", State::Down, u32::try_from(round).unwrap())
        );
    }
    assert_eq!(started(), MOST + 1);
    for _ in 0..3 {
        let error = stage.call("echo", json!({"text": "hi"})).await.unwrap_err();
        assert!(!error.kind.is_transient(), "nobody tries again what is left alone: {error:?}");
        assert_eq!(error.kind, ErrorKind::Environment);
        assert!(error.message.contains("`fake` was started 5 times again"), "{}", error.message);
        assert_eq!(
            (&error.details["service"], &error.details["restarts"]),
            (&json!("mcp fake"), &json!(MOST))
        );
    }
    assert_eq!(started(), MOST + 1, "no process was started in vain");
    // The other tools of the registry work on.
    let sum = stage.tools.get("calculator").unwrap().call(json!({"expression": "1 + 1"}), &stage.cx).await;
    assert_eq!(sum.unwrap().data, json!(2));

    // A server that breaks within its budget is well again.
    let well = Stage::new("good");
    well.call("exit", json!({})).await.unwrap_err();
    well.call("echo", json!({"text": "hi"})).await.unwrap();
    let health = well.tools.health().remove(0);
    assert_eq!((health.state, health.restarts), (State::Up, 1));
    assert!(health.trouble.is_some_and(|why| why.contains("`exit`")));
    well.nobody_is_left().await;
    stage.nobody_is_left().await;
}
