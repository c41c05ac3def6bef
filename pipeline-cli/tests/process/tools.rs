//! `pipeline tools` and `pipeline sessions`.

use super::support::Scratch;

const FILE: &str = r#"
workflow:
  name: declared
  permissions: {shell: [printf]}
  tools:
    greet: {description: Greets, command: [printf, "hello {who}"], parameters: {type: object, properties: {who: {type: string}}, required: [who]}}
  steps:
    - {name: one, type: tool, tool: greet, arguments: {who: you}}
    - {name: two, type: tool, tool: calculator, arguments: {expression: "2 + 3"}}
"#;

#[test]
fn tools_are_listed_shown_and_called() {
    let scratch = Scratch::new();
    scratch.write("t.yaml", FILE);
    let list = scratch.run(&["tools", "list", "--file", "t.yaml", "--json"]).json();
    assert_eq!(list["schema"], "pipeline.tools/1");
    let names: Vec<&str> =
        list["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"greet") && names.contains(&"read_file"), "{names:?}");
    let shown = scratch.run(&["tools", "show", "calculator"]);
    assert!(shown.code == Some(0) && shown.stdout.contains("expression"), "{}", shown.stdout);
    let sum = scratch.run(&["tools", "call", "calculator", r#"{"expression": "6 * 7"}"#, "--json"]).json();
    assert_eq!(sum["result"]["data"], 42);
    let path = [("PATH", "/usr/bin:/bin")];
    let call =
        |arguments: &[&str]| super::support::finish(scratch.command(arguments).envs(path).spawn().unwrap());
    let greeted = call(&["tools", "call", "greet", r#"{"who": "me"}"#, "--file", "t.yaml"]);
    assert_eq!((greeted.code, greeted.stdout.as_str()), (Some(0), "hello me\n"), "{}", greeted.stderr);
    let denied = call(&["tools", "call", "shell", r#"{"command": ["rm", "x"]}"#, "--file", "t.yaml"]);
    assert!(denied.code == Some(1) && denied.stderr.contains("permissions.shell"), "{}", denied.stderr);
    let unknown = scratch.run(&["tools", "show", "calculater"]);
    assert!(unknown.code == Some(3) && unknown.stderr.contains("calculator"), "{}", unknown.stderr);
    let wrong = scratch.run(&["tools", "call", "calculator", "[1]"]);
    assert_eq!(wrong.code, Some(2));
    let run = call(&["run", "t.yaml", "--json"]).json();
    assert_eq!(run["outputs"]["one"]["content"], "hello you");
    assert_eq!(run["outputs"]["two"]["data"], 5);
}

/// Naive: what a workflow says of its servers and hooks is an option of every Claude step, which a service does not have.
#[test]
fn servers_and_hooks_of_a_workflow_are_for_services_too() {
    let scratch = Scratch::new();
    let file = |more: &str| {
        format!(
            "workflow:\n  name: t\n  providers: {{claude: {{kind: anthropic}}}}\n  mcp_servers: {{files: {{command: no-such-server}}}}\n  hooks: {{pre_tool_use: [{{hooks: [audit_tool]}}]}}\n  steps:\n    - {{name: a, type: claude, prompt: hi{more}}}\n"
        )
    };
    scratch.write("t.yaml", &file(""));
    let checked = scratch.run(&["check", "t.yaml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    scratch.write("t.yaml", &file(", claude_options: {hooks: {}, mcp_servers: {x: {command: y}}}"));
    let own = scratch.run(&["check", "t.yaml"]);
    assert!(own.code == Some(2) && own.stdout.contains("has no option `mcp_servers`"), "{}", own.stdout);
}

#[test]
fn a_tool_that_is_not_allowed_is_found_before_the_run_and_denied_in_it() {
    let scratch = Scratch::new();
    let file = |tool: &str| {
        format!(
            "workflow:\n  name: t\n  permissions: {{tools: [calculator, 'mcp__x__*']}}\n  steps:\n    - {{name: a, type: tool, tool: {tool}, arguments: {{text: x}}}}\n"
        )
    };
    for (tool, code) in [("text_stats", 2), ("mcp__y", 2), ("calculator", 0), ("mcp__x__z", 0), ("mcp__x", 0)]
    {
        scratch.write("t.yaml", &file(tool));
        let checked = scratch.run(&["check", "t.yaml"]);
        assert_eq!(checked.code, Some(code), "{tool}: {}", checked.stdout);
        assert_eq!(checked.stdout.contains("E0408"), code == 2, "{tool}: {}", checked.stdout);
    }
    // A name that is known only when the step runs.
    scratch.write("t.yaml", &file("\"{{ 'text_' ~ 'stats' }}\""));
    let run = scratch.run(&["run", "t.yaml", "--json"]);
    assert_eq!((run.code, run.json()["error"]["kind"].as_str()), (Some(1), Some("denied")), "{}", run.stdout);
}

#[test]
fn sessions_of_an_empty_state_directory_are_none() {
    let scratch = Scratch::new();
    let list = scratch.run(&["sessions", "list", "--json"]);
    assert_eq!((list.code, list.json()["sessions"].clone()), (Some(0), serde_json::json!([])));
    for command in [["sessions", "show", "chat"], ["sessions", "rm", "chat"]] {
        let ended = scratch.run(&command);
        assert!(ended.code == Some(3) && ended.stderr.contains("`chat`"), "{}", ended.stderr);
    }
    assert!(!scratch.path().join(".pipeline").exists(), "looking makes nothing");
}
