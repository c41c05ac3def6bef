//! `shell` and `tool`, through the compiler.

use pipeline_core::error::ErrorKind;
use serde_json::json;

use crate::plain::support::World;

/// What a model may answer to take a shell over.
const NASTY: [&str; 12] = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned;",
    "\n touch pwned\n",
    "' ; touch pwned ; '",
    "\" ; touch pwned ; \"",
    "|| touch pwned",
    "> pwned",
    "${IFS}&touch${IFS}pwned&",
    "{{ env.SECRET }} {% include 'x' %}",
    "*",
    "a\\",
];

#[tokio::test]
async fn it_gives_exit_code_and_both_streams() {
    let step = "- {name: s, type: shell, command: 'cat; echo oops >&2', input: {a: 1}}";
    let value = World::new().value(step).await;
    assert_eq!(value, json!({"exit_code": 0, "stdout": "{\"a\":1}", "stderr": "oops\n"}));
}

#[tokio::test]
async fn a_failure_carries_its_code_and_the_end_of_standard_error() {
    let error =
        World::new().error("- {name: s, type: shell, command: 'echo no such luck >&2; exit 7'}").await;
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(error.message, "`sh` ended with exit code 7: no such luck");
    assert_eq!(error.details["exit_code"], 7);
    assert_eq!(error.details["stderr"], "no such luck");
    let value = World::new().value("- {name: s, type: shell, command: exit 7, ok_exit_codes: [7]}").await;
    assert_eq!(value["exit_code"], 7);
    let error = World::new().error("- {name: s, type: shell, command: 'kill -9 $$'}").await;
    assert_eq!(error.message, "`sh` was ended by signal 9");
}

#[tokio::test]
async fn a_command_runs_only_where_it_is_allowed() {
    let error = World::new().error("- {name: s, type: shell, command: [rm, -rf, x]}").await;
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(
        error.message.contains("`rm` may not run: this run may run only sh, printf"),
        "{}",
        error.message
    );
    assert!(error.help.unwrap().contains("--allow-shell"));
    let world = World::new();
    let none = "workflow:\n  name: t\n  steps:\n    - {name: s, type: shell, command: 'true'}\n";
    let report = world.run(none).await;
    assert!(report.error.unwrap().error.message.contains("this run may run no commands"));
    let prefix = |command: &str| {
        format!(
            "workflow:\n  name: t\n  permissions: {{shell: [printf a]}}\n  steps:\n    - {{name: s, type: shell, command: {command}}}\n"
        )
    };
    assert!(world.run(&prefix("[printf, a, b]")).await.error.is_none());
    for other in ["[printf, b]", "[/usr/bin/printf, a]", "printf a", "[printf a]"] {
        assert!(world.run(&prefix(other)).await.error.is_some(), "{other}");
    }
}

#[tokio::test]
async fn cwd_env_and_limits_reach_the_command() {
    let world = World::new();
    world.file("sub/here.txt", "x");
    let value = world.value("- {name: s, type: shell, command: [ls], cwd: sub}").await;
    assert_eq!(value["stdout"], "here.txt\n");
    let value = world.value("- {name: s, type: shell, command: [env], env: {A: 1, B: 'x y'}}").await;
    let lines: Vec<&str> = value["stdout"].as_str().unwrap().lines().collect();
    let (marks, given): (Vec<&str>, Vec<&str>) = lines
        .into_iter()
        .partition(|line| line.starts_with("PIPELINE_ATTEMPT=") || line.starts_with("PIPELINE_CHILD="));
    assert_eq!(given, ["A=1", "B=x y", "PATH=/usr/bin:/bin"], "and nothing of our own environment");
    assert_eq!(marks.len(), 2, "by which it is found wherever it goes");
    let value = world.value("- {name: s, type: shell, command: [printf, abcdef], max_output_bytes: 3}").await;
    assert_eq!(value["stdout"], "abc");
    let error = world.error("- {name: s, type: shell, command: [ls], cwd: /etc}").await;
    assert_eq!(error.kind, ErrorKind::Denied);
    let error = world.error("- {name: s, type: shell, command: sleep 60, timeout: 200ms}").await;
    assert_eq!(error.kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn values_are_one_argument_or_one_word_whatever_is_in_them() {
    for nasty in NASTY {
        let world = World::new();
        world.file("other", "");
        let quoted = serde_json::to_string(nasty).unwrap();
        let data = format!("- {{name: m, type: set_variable, variables: {{x: !!str {quoted}}}}}\n");
        let data = data.replace("!!str ", "");
        // The text must not be read as a template when the file is written: it comes as a model's answer does.
        let data = if nasty.contains("{{") {
            data.replace("{{", "{{ '{{' }}").replace("{%", "{{ '{%' }}")
        } else {
            data
        };
        for (command, expected) in [
            ("[printf, '%s', '{{ state.x }}']", nasty.to_owned()),
            ("'printf %s {{ state.x }}'", nasty.to_owned()),
            ("'printf %s \"<{{ state.x }}>\"'", format!("<{nasty}>")),
            ("'printf %s \"$(printf %s {{ state.x }})\"'", nasty.to_owned()),
            ("'{% if true %}printf %s a{{ state.x }}b{% endif %}'", format!("a{nasty}b")),
        ] {
            let value = world.value(&format!("{data}- {{name: s, type: shell, command: {command}}}")).await;
            // A command substitution loses line ends at the end, as in every shell.
            let got = value["stdout"].as_str().unwrap();
            assert_eq!(got.trim_end_matches('\n'), expected.trim_end_matches('\n'), "{command}");
        }
        let value = world
            .value(&format!("{data}- {{name: s, type: shell, command: [cat], input: '{{{{ state.x }}}}'}}"))
            .await;
        assert_eq!(value["stdout"], nasty);
        let env = format!(
            "{data}- {{name: s, type: shell, command: 'printf %s \"$V\"', env: {{V: '{{{{ state.x }}}}'}}}}"
        );
        assert_eq!(world.value(&env).await["stdout"], nasty);
        assert_eq!(world.read("pwned"), None, "{nasty:?} was run");
    }
}

#[tokio::test]
async fn a_value_between_single_quotes_is_refused() {
    let steps = "- {name: m, type: set_variable, variables: {x: a}}\n- {name: s, type: shell, command: \"echo '{{ state.x }}'\"}";
    let error = World::new().error(steps).await;
    assert!(error.message.contains("single quotes"), "{}", error.message);
}

#[test]
fn mistakes_are_found_before_the_run() {
    let found = |step: &str| World::new().findings(step).join("\n");
    assert!(found("- {name: s, type: shell, command: ''}").contains("the command is empty"));
    assert!(found("- {name: s, type: shell, command: []}").contains("the command is empty"));
    assert!(found("- {name: s, type: shell}").contains("needs `command`"));
    assert!(found("- {name: s, type: shell, command: 'a {{ nope }}'}").contains("nope"));
    assert_eq!(found("- {name: s, type: shell, command: 'echo {{ workflow.name }}'}"), "");
}

#[tokio::test]
async fn a_tool_is_called_with_its_arguments() {
    let world = World::new();
    let value = world
        .value("- {name: t, type: tool, tool: calculator, arguments: {expression: '{{ 1 + 1 }}'}}")
        .await;
    assert_eq!(value, json!({"content": "2", "data": 2}));
    let error = world.error("- {name: t, type: tool, tool: calculator, arguments: {expression: fail}}").await;
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Network, "the tool is offline"));
    let error = world.error("- {name: t, type: tool, tool: calculater}").await;
    assert_eq!(error.message, "there is no tool `calculater`");
    assert_eq!(error.help.as_deref(), Some("did you mean `calculator`?"));
}
