//! A scripted stand-in for the CLI, and the lines that the real one prints.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pipeline_core::catalog::Services;
use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::error::StepError;
use pipeline_core::provider::{ModelAnswer, ModelRequest, Provider};
use pipeline_core::step::{RunInfo, StepContext};
use pipeline_core::value::Value;
use pipeline_providers::{ClaudeCli, ClaudeCliSettings, Secret};
use serde_json::json;

use crate::support::context;

/// Prints the lines that were prepared, as a CLI that succeeds does.
pub const PRINT: &str = "cat >\"$FAKE_DIR/stdin\"; cat \"$FAKE_DIR/lines\"";

/// 2026-11-25T12:00:00Z.
pub const NOW: i64 = 1_795_608_000_000;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp(NOW)
    }
}

/// A stand-in with a folder of its own.
pub struct Fake {
    pub dir: tempfile::TempDir,
    pub settings: ClaudeCliSettings,
    /// What `permissions.shell` of the run allows.
    pub shell: Vec<String>,
}

/// What the stand-in was given.
pub struct Seen {
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    pub stdin: Value,
}

impl Fake {
    /// One that does `script` and may print `lines`.
    pub fn new(script: &str, lines: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.path().join("script"), script).unwrap();
        std::fs::write(dir.path().join("lines"), text).unwrap();
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/claude/fake_claude.sh");
        let credentials = BTreeMap::from([
            ("FAKE_DIR".to_owned(), Secret::new(dir.path().to_str().unwrap())),
            ("ANTHROPIC_API_KEY".to_owned(), Secret::new("sk-ant-very-secret")),
        ]);
        let settings = ClaudeCliSettings {
            executable: Some(path),
            credentials,
            clock: Arc::new(Noon),
            ..ClaudeCliSettings::default()
        };
        Self { dir, settings, shell: vec!["*".to_owned()] }
    }

    pub fn provider(&self) -> ClaudeCli {
        ClaudeCli::new(self.settings.clone())
    }

    /// The context of a step that works in the folder `w` of this stand-in.
    pub fn context(&self) -> StepContext {
        self.attempt("run", 1)
    }

    pub fn attempt(&self, run: &str, attempt: u32) -> StepContext {
        let mut cx = context(run, "ask", 1, attempt);
        let mut info = RunInfo::clone(&cx.run);
        info.permissions.shell.clone_from(&self.shell);
        info.dirs.workspace = self.dir.path().join("w");
        info.dirs.working = self.dir.path().to_path_buf();
        info.dirs.run = self.dir.path().join("run");
        cx.workspace.clone_from(&info.dirs.workspace);
        cx.run = Arc::new(info);
        let mut services = Services::clone(&cx.services);
        let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        services.child_env = Arc::new(BTreeMap::from([path]));
        cx.services = Arc::new(services);
        cx
    }

    pub async fn ask(&self, request: &ModelRequest) -> Result<ModelAnswer, StepError> {
        self.provider().complete(request, &self.context()).await
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    pub fn seen(&self) -> Seen {
        let args = self.file("args");
        let env = self.file("env");
        Seen {
            args: args.split_terminator('\0').map(str::to_owned).collect(),
            env: env
                .lines()
                .filter_map(|l| l.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            cwd: PathBuf::from(self.file("cwd").trim()),
            stdin: serde_json::from_str(&self.file("stdin")).unwrap_or_default(),
        }
    }
}

impl Seen {
    /// The value after a flag.
    pub fn value(&self, flag: &str) -> Option<&str> {
        let at = self.args.iter().position(|arg| arg == flag)?;
        self.args.get(at + 1).map(String::as_str)
    }

    /// The text of the prompt.
    pub fn prompt(&self) -> &str {
        let content = self.stdin["message"]["content"].as_array().unwrap();
        content.last().unwrap()["text"].as_str().unwrap()
    }
}

pub fn init() -> Value {
    json!({
        "type": "system", "subtype": "init", "cwd": "/w", "session_id": "35e7aa49-8725-4ebe-852e-0e0907adc75b",
        "tools": [], "mcp_servers": [], "model": "claude-opus-4-8[1m]", "permissionMode": "default",
        "claude_code_version": "2.1.197", "uuid": "u",
    })
}

pub fn delta(text: &str) -> Value {
    json!({"type": "stream_event", "parent_tool_use_id": null, "session_id": "s", "event": {
        "type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text},
    }})
}

pub fn assistant(text: &str) -> Value {
    json!({"type": "assistant", "parent_tool_use_id": null, "session_id": "s", "request_id": "req_1", "message": {
        "id": "msg_1", "role": "assistant", "model": "claude-opus-4-8", "stop_reason": null,
        "content": [{"type": "text", "text": text}], "usage": {"input_tokens": 1682, "output_tokens": 1},
    }})
}

/// What the CLI prints in place of the model.
pub fn synthetic(error: &str, text: &str) -> Value {
    json!({"type": "assistant", "parent_tool_use_id": null, "error": error, "request_id": "req_2", "message": {
        "id": "x", "role": "assistant", "model": "<synthetic>", "content": [{"type": "text", "text": text}],
    }})
}

/// A result of success, with fields replaced.
pub fn result(text: &str, other: Value) -> Value {
    let mut line = json!({
        "type": "result", "subtype": "success", "is_error": false, "api_error_status": null, "duration_ms": 188,
        "num_turns": 1, "result": text, "stop_reason": "end_turn", "terminal_reason": "completed",
        "session_id": "35e7aa49-8725-4ebe-852e-0e0907adc75b", "total_cost_usd": 0.0087,
        "usage": {"input_tokens": 9, "output_tokens": 9},
        "modelUsage": {
            "claude-opus-4-8[1m]": {"inputTokens": 1600, "outputTokens": 13, "cacheReadInputTokens": 70,
                "cacheCreationInputTokens": 5, "costUSD": 0.008},
            "claude-haiku": {"inputTokens": 82, "outputTokens": 2, "costUSD": 0.0007},
        },
        "permission_denials": [], "uuid": "u",
    });
    for (key, value) in other.as_object().unwrap() {
        line[key] = value.clone();
    }
    line
}

/// A result of failure: those have no `result`.
pub fn failure(subtype: &str, words: &str, other: Value) -> Value {
    let mut line = result("", other);
    line["subtype"] = json!(subtype);
    line["is_error"] = json!(true);
    line["errors"] = json!([words]);
    line.as_object_mut().unwrap().remove("result");
    line
}
