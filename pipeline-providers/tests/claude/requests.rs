//! What reaches the CLI: every option, the prompt, the environment.

use std::collections::BTreeMap;

use pipeline_core::error::ErrorKind;
use pipeline_core::provider::{Content, Message, ModelRequest, Provider, Role};
use pipeline_core::value::Value;
use pipeline_providers::{ClaudeCli, ClaudeCliSettings, Secret};
use serde_json::json;

use super::support::{Fake, PRINT, Seen, assistant, init, result};
use crate::support::{asking, function};

const SESSION: &str = "35e7aa49-8725-4ebe-852e-0e0907adc75b";

fn fake() -> Fake {
    Fake::new(PRINT, &[init(), assistant("ok"), result("ok", json!({"structured_output": {}}))])
}

fn with(options: Value) -> ModelRequest {
    ModelRequest { agent: options.as_object().unwrap().clone(), ..asking("hi") }
}

async fn seen(request: &ModelRequest) -> Seen {
    let fake = fake();
    fake.ask(request).await.unwrap();
    fake.seen()
}

async fn refused(request: &ModelRequest) -> (ErrorKind, String) {
    let fake = fake();
    let error = fake.ask(request).await.unwrap_err();
    assert!(fake.file("args").is_empty(), "nothing was started");
    (error.kind, format!("{} {}", error.message, error.help.unwrap_or_default()))
}

#[tokio::test]
async fn by_default_the_directory_it_works_in_has_no_say() {
    let seen = seen(&asking("hi")).await;
    assert_eq!(seen.args[0], "-p");
    assert_eq!(seen.value("--setting-sources"), Some(""));
    assert_eq!(seen.value("--output-format"), Some("stream-json"));
    assert_eq!(seen.value("--input-format"), Some("stream-json"));
    assert_eq!(seen.value("--model"), Some("sonnet"));
    assert!(seen.args.contains(&"--strict-mcp-config".to_owned()));
    assert!(seen.args.contains(&"--verbose".to_owned()));
    assert!(seen.cwd.ends_with("w"), "it works in the workspace: {:?}", seen.cwd);
    assert!(!seen.args.iter().any(|arg| arg.contains("hi")), "the prompt is no argument");
}

#[tokio::test]
async fn its_environment_is_an_allow_list() {
    let seen = seen(&asking("hi")).await;
    let known = [
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_DISABLE_ATTACHMENTS",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK",
        "CLAUDE_CODE_MAX_RETRIES",
        "DISABLE_AUTOUPDATER",
        "DISABLE_ERROR_REPORTING",
        "DISABLE_TELEMETRY",
        "FAKE_DIR",
        "PATH",
        "PIPELINE_ATTEMPT",
        "PIPELINE_CHILD",
        "TERM",
    ];
    // What a shell sets by itself.
    let shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let names: Vec<&str> = seen.env.keys().map(String::as_str).filter(|n| !shell.contains(n)).collect();
    assert_eq!(names, known);
    assert_eq!(seen.env["CLAUDE_CODE_MAX_RETRIES"], "0", "retries are the schedule's");
    assert_eq!(seen.env["CLAUDE_CODE_DISABLE_ATTACHMENTS"], "1");
}

/// Naive: a prompt that begins with a slash is a command of the CLI's, and nobody asked the model.
#[tokio::test]
async fn a_prompt_is_never_a_command() {
    for (given, sent) in [("/cost", "\n/cost"), ("hi /cost", "hi /cost"), (" /cost", " /cost")] {
        assert_eq!(seen(&asking(given)).await.prompt(), sent);
    }
    let long = "x".repeat(3_000_000);
    assert_eq!(seen(&asking(&long)).await.prompt(), long, "too long for an argument");
    assert_eq!(refused(&asking("  \n")).await.0, ErrorKind::Invalid);
}

/// Every option that the provider says it honours, with what it makes of it.
#[tokio::test]
async fn every_option_reaches_it() {
    let agent = json!({"description": "d", "prompt": "p", "tools": ["Read"], "name": "dropped"});
    let server = json!({"command": "mcp", "args": ["x"], "env": {"TOKEN": "${MCP_TOKEN}"}});
    let hook = json!({"PreToolUse": [{"matcher": "Bash", "hooks": [{"command": "check"}]}]});
    let hook_told =
        r#"{"hooks":{"PreToolUse":[{"matcher":"Bash","hooks":[{"command":"check","type":"command"}]}]}}"#;
    // The option, its value, a flag and its value, or a variable and its value.
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("add_dir", json!(["w/more"]), "--add-dir", "w/more"),
        ("agent", json!("reviewer"), "--agent", "reviewer"),
        (
            "agents",
            json!({"a": agent}),
            "--agents",
            r#"{"a":{"description":"d","prompt":"p","tools":["Read"]}}"#,
        ),
        (
            "allowed_tools",
            json!(["Read", "Bash(git *)", "mcp__s__t"]),
            "--allowedTools",
            "Read,Bash(git *),mcp__s__t",
        ),
        ("attachments", json!(true), "CLAUDE_CODE_DISABLE_ATTACHMENTS", ""),
        ("cwd", json!("w/inner"), "cwd", "w/inner"),
        ("disallowed_tools", json!(["WebFetch"]), "--disallowedTools", "WebFetch"),
        ("enable_context_management", json!(false), "DISABLE_AUTO_COMPACT", "1"),
        ("enable_skills", json!(true), "--allowedTools", "Skill"),
        ("fallback_model", json!("haiku"), "--fallback-model", "haiku"),
        ("fork_session", json!(true), "--fork-session", ""),
        ("hooks", hook, "--settings", hook_told),
        ("mcp_config", json!("servers.json"), "--mcp-config", "servers.json"),
        (
            "mcp_servers",
            json!({"s": server}),
            "--mcp-config",
            r#"{"mcpServers":{"s":{"command":"mcp","args":["x"],"env":{"TOKEN":"${MCP_TOKEN}"}}}}"#,
        ),
        (
            "memory_config",
            json!({"compact_threshold": 80000, "max_context_length": 150_000, "auto_compact": true}),
            "CLAUDE_CODE_AUTO_COMPACT_WINDOW",
            "80000",
        ),
        ("output_format", json!("stream_json"), "--output-format", "stream-json"),
        ("permission_mode", json!("accept_edits"), "--permission-mode", "acceptEdits"),
        ("permission_prompt_tool", json!("mcp__a__ask"), "--permission-prompt-tool", "mcp__a__ask"),
        ("resume_session", json!(SESSION), "--resume", SESSION),
        ("session_id", json!(SESSION), "--session-id", SESSION),
        ("setting_sources", json!(["project", "local"]), "--setting-sources", "project,local"),
        ("strict_mcp_config", json!(false), "--strict-mcp-config", "absent"),
    ];
    let names: Vec<&str> = cases.iter().map(|(option, ..)| *option).collect();
    let capabilities = ClaudeCli::new(ClaudeCliSettings::default()).capabilities();
    assert_eq!(names, capabilities.options, "each option that is promised is proved here");
    for (option, value, place, expected) in cases {
        let mut fake = fake();
        fake.settings.variables = BTreeMap::from([("MCP_TOKEN".to_owned(), Secret::new("t0ken-of-mcp"))]);
        let mut request = with(json!({ option: value }));
        if option == "fork_session" {
            request.session = Some(SESSION.to_owned());
        }
        fake.ask(&request).await.unwrap_or_else(|e| panic!("{option}: {e:?}"));
        let seen = fake.seen();
        match place {
            "cwd" => assert!(seen.cwd.ends_with(expected), "{option}: {:?}", seen.cwd),
            "--add-dir" => {
                assert!(seen.value(place).unwrap().ends_with(expected), "{option}: {:?}", seen.args);
            }
            "--fork-session" => assert!(seen.args.contains(&place.to_owned()), "{option}: {:?}", seen.args),
            _ if expected == "absent" => assert!(!seen.args.contains(&place.to_owned()), "{option}"),
            _ if place.starts_with("--") => assert_eq!(seen.value(place), Some(expected), "{option}"),
            _ => assert_eq!(seen.env.get(place).map_or("", String::as_str), expected, "{option}"),
        }
        assert!(!seen.args.iter().any(|arg| arg.contains("t0ken")), "no secret is an argument");
        if option == "mcp_servers" {
            assert_eq!(seen.env["MCP_TOKEN"], "t0ken-of-mcp");
        }
    }
}

#[tokio::test]
async fn what_a_request_says_reaches_it() {
    let request = ModelRequest {
        model: Some("opus".to_owned()),
        system: Some("be brief".to_owned()),
        append_system: Some("be kind".to_owned()),
        max_turns: Some(7),
        max_output_tokens: Some(900),
        max_cost_usd: Some(0.25),
        output_schema: Some(json!({"type": "object"})),
        session: Some(SESSION.to_owned()),
        ..asking("hi")
    };
    let seen = seen(&request).await;
    for (flag, value) in [
        ("--model", "opus"),
        ("--system-prompt", "be brief"),
        ("--append-system-prompt", "be kind"),
        ("--max-turns", "7"),
        ("--max-budget-usd", "0.25"),
        ("--json-schema", r#"{"type":"object"}"#),
        ("--resume", SESSION),
    ] {
        assert_eq!(seen.value(flag), Some(value), "{flag}");
    }
    assert_eq!(seen.env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"], "900");
}

/// An empty list allows nothing, and a list allows nothing else.
#[tokio::test]
async fn a_list_of_tools_is_the_whole_list() {
    let none = seen(&with(json!({"allowed_tools": []}))).await;
    assert_eq!((none.value("--tools"), none.value("--allowedTools")), (Some(""), None));
    let some =
        seen(&with(json!({"allowed_tools": ["Bash(git *)", "Bash(ls)", "mcp__s"], "enable_skills": true})))
            .await;
    assert_eq!(some.value("--tools"), Some("Bash,Skill"));
    assert_eq!(some.value("--allowedTools"), Some("Bash(git *),Bash(ls),mcp__s,Skill"));
    assert_eq!(seen(&asking("hi")).await.value("--tools"), None);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_starts() {
    for (options, words) in [
        (json!({"permission_mode": "yolo"}), "accept_edits"),
        (json!({"permission_prompt_tool": "stdio"}), "approval"),
        (json!({"session_id": "my-session"}), "UUID"),
        (json!({"resume_session": true}), "session_id"),
        (json!({"resume_session": SESSION, "session_id": SESSION}), "two sessions"),
        (json!({"fork_session": true}), "session to copy"),
        (json!({"agents": {"a": {"description": "d"}}}), "agents.a.prompt"),
        (json!({"mcp_servers": {"s": {"type": "stdio"}}}), "command"),
        (json!({"mcp_servers": {"s": {"command": "x", "env": {"A": "${NOT_SET}"}}}}), "NOT_SET"),
        (json!({"hooks": {"PreToolUse": ["nobody_knows"]}}), "validate_bash"),
        (json!({"hooks": {"PreToolUse": ["validate_bash"]}}), "command"),
        (json!({"setting_sources": ["everywhere"]}), "project"),
        (json!({"memory_config": {"x": 1}}), "compact_threshold"),
        (json!({"output_format": "xml"}), "stream_json"),
        (json!({"add_dir": ["/etc"]}), "--allow-write"),
        (json!({"cwd": "../.."}), "--allow-write"),
        (json!({"nonsense": 1}), "nonsense"),
    ] {
        let (kind, told) = refused(&with(options.clone())).await;
        assert!(told.contains(words), "{options}: {kind:?} {told}");
    }
    let budget = ModelRequest { max_cost_usd: Some(0.0), ..asking("hi") };
    assert_eq!(refused(&budget).await.0, ErrorKind::Budget);
    let cold = ModelRequest { temperature: Some(0.0), ..asking("hi") };
    assert_eq!(refused(&cold).await.0, ErrorKind::Unsupported);
    let call = ModelRequest { functions: vec![function("f", json!({}))], ..asking("hi") };
    assert!(refused(&call).await.1.contains("kind: anthropic"));
}

#[tokio::test]
async fn hooks_with_names_become_commands_of_the_program() {
    let mut fake = fake();
    fake.settings.hook_program = vec!["/opt/it's/pipeline".to_owned(), "__hook".to_owned()];
    let hooks = json!({"hooks": {"pre_tool_use": [{"matcher": "Bash", "hooks": ["validate-bash"]}]}});
    fake.ask(&with(hooks)).await.unwrap();
    let settings: Value = serde_json::from_str(fake.seen().value("--settings").unwrap()).unwrap();
    let hook = &settings["hooks"]["PreToolUse"][0]["hooks"][0];
    assert_eq!(hook["command"], r"'/opt/it'\''s/pipeline' '__hook' validate_bash");
}

#[tokio::test]
async fn a_conversation_without_a_session_is_told_whole_and_one_with_a_session_is_not() {
    let messages = vec![Message::user("one"), Message::assistant("two"), Message::user("three")];
    let request = ModelRequest { messages, ..ModelRequest::default() };
    let seen = seen(&request).await;
    let content = seen.stdin["message"]["content"].to_string();
    assert!(content.contains("<user>\\none") && content.contains("<assistant>\\ntwo"), "{content}");
    assert_eq!(seen.prompt(), "three");
    let going_on = ModelRequest { session: Some(SESSION.to_owned()), ..request };
    let seen = super::requests::seen(&going_on).await;
    assert_eq!(seen.stdin["message"]["content"], json!([{"type": "text", "text": "three"}]));
}

#[tokio::test]
async fn images_and_documents_go_as_such() {
    let media = |kind: &str| Content::Media {
        media_type: kind.to_owned(),
        name: "x".to_owned(),
        data: "QQ==".to_owned(),
    };
    let content =
        vec![media("image/png"), media("application/pdf"), Content::Text { text: "see".to_owned() }];
    let request =
        ModelRequest { messages: vec![Message { role: Role::User, content }], ..ModelRequest::default() };
    let seen = seen(&request).await;
    let content = &seen.stdin["message"]["content"];
    assert_eq!(
        content[0],
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}})
    );
    assert_eq!(content[1]["type"], "document");
    assert_eq!(seen.prompt(), "see");
}

#[tokio::test]
async fn a_missing_executable_is_one_clear_error() {
    let fake = fake();
    let cx = fake.context();
    let lost = |executable: Option<&str>| {
        ClaudeCli::new(ClaudeCliSettings {
            executable: executable.map(Into::into),
            ..ClaudeCliSettings::default()
        })
    };
    let mut services = (*cx.services).clone();
    services.child_env = std::sync::Arc::new(BTreeMap::from([("PATH".to_owned(), "/nowhere".to_owned())]));
    let cx = pipeline_core::step::StepContext { services: std::sync::Arc::new(services), ..cx };
    for (executable, what) in [(None, "`claude` in PATH"), (Some("/no/such/claude"), "/no/such/claude")] {
        let error = lost(executable).complete(&asking("hi"), &cx).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Environment);
        assert!(error.message.contains(what), "{error:?}");
        let help = error.help.unwrap();
        for word in
            ["--mock", "providers.claude.kind: anthropic", "ANTHROPIC_API_KEY", "providers.claude.executable"]
        {
            assert!(help.contains(word), "{help}");
        }
    }
}

#[tokio::test]
async fn it_tells_its_version() {
    let fake = fake();
    let env = (*fake.context().services.child_env).clone();
    assert_eq!(fake.provider().version(&env).await.unwrap(), "2.1.197");
    let other =
        ClaudeCli::new(ClaudeCliSettings { executable: Some("/bin/true".into()), ..fake.settings.clone() });
    assert_eq!(other.version(&env).await.unwrap_err().kind, ErrorKind::Environment);
}

/// Naive: only what this program starts itself is checked, and a file hands the agent what it may not start.
#[tokio::test]
async fn what_the_agent_is_told_to_start_needs_leave() {
    let server = json!({"command": "mcp", "args": ["--root", "x"]});
    let hook = json!({"PreToolUse": [{"matcher": "Bash", "hooks": [{"command": "check it"}]}]});
    // The options, a rule that allows what they name, and one that does not.
    let cases = [
        (json!({"mcp_servers": {"s": server}}), "mcp --root", "mcp --other"),
        (json!({"mcp_config": {"mcpServers": {"s": server}}}), "mcp", "/usr/bin/mcp"),
        (json!({"mcp_config": [json!({"mcpServers": {"s": server}}).to_string()]}), "mcp", "git"),
        (json!({"mcp_config": "servers.json"}), "servers.json", "mcp"),
        (json!({"hooks": hook}), "sh -c", "check"),
    ];
    for (options, enough, too_little) in cases {
        for (rules, is_allowed) in [(vec![], false), (vec![too_little], false), (vec![enough], true)] {
            let mut fake = fake();
            fake.shell = rules.iter().map(|rule| (*rule).to_owned()).collect();
            match fake.ask(&with(options.clone())).await {
                Ok(_) => assert!(is_allowed, "{options} with {rules:?}"),
                Err(error) => {
                    assert!(!is_allowed, "{options} with {rules:?}: {error:?}");
                    assert_eq!(error.kind, ErrorKind::Denied, "{options}: {error:?}");
                    assert!(error.help.unwrap().contains("permissions"), "{options}");
                    assert!(fake.file("args").is_empty(), "{options}: nothing was started");
                }
            }
        }
    }
    // Hooks that have names, and servers that are elsewhere, start nothing that a file names.
    let mut fake = fake();
    fake.shell = Vec::new();
    let harmless = json!({"mcp_servers": {"far": {"type": "http", "url": "http://127.0.0.1:1/mcp"}}});
    fake.ask(&with(harmless)).await.unwrap();
}

/// Naive: a file names an executable, and it is started because it is called `claude`.
#[tokio::test]
async fn an_executable_that_a_file_names_needs_leave_and_one_of_the_person_does_not() {
    for (is_named_by_file, is_allowed) in [(true, true), (true, false), (false, false)] {
        let mut fake = fake();
        fake.settings.is_named_by_file = is_named_by_file;
        let path = fake.settings.executable.as_ref().unwrap().display().to_string();
        fake.shell = if is_allowed { vec![path.clone()] } else { vec!["claude".to_owned()] };
        match fake.ask(&asking("hi")).await {
            Ok(answer) => {
                assert!(is_allowed || !is_named_by_file);
                assert_eq!(answer.text, "ok");
            }
            Err(error) => {
                assert!(is_named_by_file && !is_allowed, "{error:?}");
                assert_eq!(error.kind, ErrorKind::Denied);
                assert!(error.message.contains(&path), "{error:?}");
                assert!(fake.file("args").is_empty(), "nothing was started");
            }
        }
    }
}
