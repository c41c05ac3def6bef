//! No secret of a run's configuration in anything that the run leaves or prints, whatever its variable is called.

use std::io::{BufRead, BufReader};
use std::path::Path;

use super::support::{Ended, Scratch, finish};

/// Four secrets whose names sound like nothing.
const GIVEN: [(&str, &str); 4] = [
    ("HEADER_VALUE", "canary-of-a-header-1"),
    ("WHO_CALLS", "canary/of a key+2"),
    ("FOR_A_TOOL", "canary-of-a-tool-3"),
    ("FOR_A_SERVER", "canary-of-a-server-4"),
];

/// A model that repeats what it was sent, a tool that prints its environment, a server that complains of its own.
const FILE: &str = r#"
workflow:
  name: leaky
  permissions: {shell: ["*"]}
  providers:
    mine: {kind: openai, base_url: "BASE/v1", api_key_env: WHO_CALLS, headers: {x-corporate: "${HEADER_VALUE}"}}
  tools:
    tell: {command: [sh, -c, 'echo "$T"; echo "$T" >&2; echo "$T" | base64; exit $0', "{code}"], env: {T: "${FOR_A_TOOL}"}, parameters: {type: object, properties: {code: {type: string}}}}
  mcp_servers:
    gone: {command: sh, args: [-c, 'echo "no licence $S" >&2; exit 3'], env: {S: "${FOR_A_SERVER}"}}
  steps:
    - {name: says, type: prompt, provider: mine, model: m, prompt: repeat it, output_to_file: said.txt}
    - {name: again, type: prompt, provider: mine, model: m, prompt: "{{ steps.says.text }}"}
    - {name: told, type: tool, tool: tell, arguments: {code: "0"}}
    - {name: refuses, type: prompt, provider: mine, model: m, prompt: refuse it, continue_on_error: true}
    - {name: fails, type: tool, tool: tell, arguments: {code: "4"}, continue_on_error: true}
    - {name: server, type: tool, tool: mcp__gone__x}
"#;

fn leaks(text: &str) -> Option<&'static str> {
    let plain = |secret: &str| secret.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let all: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    // Without what lies between letters: escapes and pieces make no difference.
    let encoded = ["Y2FuYXJ5LW9mLWEtdG9vbC0z", "Y2FuYXJ5L29mIGEga2V5KzI"];
    let found = GIVEN.iter().find(|(_, secret)| all.contains(&plain(secret))).map(|(name, _)| *name);
    found.or_else(|| encoded.iter().find(|form| all.contains(**form)).copied())
}

fn check_files(dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += check_files(&path);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(leaks(&String::from_utf8_lossy(&bytes)), None, "{}", path.display());
            count += 1;
        }
    }
    count
}

/// Naive: what is secret is guessed from the names of variables, and only the tape is cleaned.
#[test]
fn no_secret_is_left_in_any_file_or_stream() {
    let server = Scratch::new();
    let says: Vec<&str> = GIVEN.iter().map(|(_, value)| *value).collect();
    let rules = format!(
        "rules:\n  - {{match: {{prompt_contains: refuse}}, error: {{kind: invalid, message: 'who is {0}'}}}}\n  - {{text: 'you are {0}'}}\n",
        says.join(" and ")
    );
    server.write("rules.yaml", &rules);
    let mut mock = server.spawn(&["mock-server", "--quiet", "--rules", "rules.yaml"]);
    let mut address = String::new();
    BufReader::new(mock.stdout.take().unwrap()).read_line(&mut address).unwrap();

    let scratch = Scratch::new();
    scratch.write("leaky.yaml", &FILE.replace("BASE", address.trim()));
    let run = |arguments: &[&str]| -> Ended {
        let mut command = scratch.command(arguments);
        finish(command.envs(GIVEN).env("PATH", "/usr/bin:/bin").spawn().unwrap())
    };
    let ended = run(&["run", "leaky.yaml", "--yes", "--record", "tape", "--events", "-v"]);
    assert_eq!(ended.code, Some(1), "{}\n{}", ended.stdout, ended.stderr);
    let last = scratch.run_dir().file_name().unwrap().to_string_lossy().into_owned();
    let others = [
        run(&["report", &last, "-o", "report.html"]),
        run(&["runs", "show", &last, "-v"]),
        run(&["runs", "events", &last, "--json"]),
        run(&["runs", "logs", &last]),
        run(&["resume", &last, "--json"]),
        run(&["run", "leaky.yaml", "--replay", "tape", "--json"]),
        run(&["tools", "call", "tell", r#"{"code": "0"}"#, "--file", "leaky.yaml"]),
    ];
    mock.kill().unwrap();
    mock.wait().unwrap();
    for (number, ended) in std::iter::once(&ended).chain(&others).enumerate() {
        for text in [&ended.stdout, &ended.stderr] {
            assert_eq!(leaks(text), None, "command {number}: {text}");
        }
    }
    let marks = ended.stdout.matches("⟦secret⟧").count();
    assert!(marks > 10, "the answers came, without secrets: {marks}");
    assert!(std::fs::read_to_string(scratch.path().join("outputs/said.txt")).unwrap().contains("⟦secret⟧"));
    let files = check_files(scratch.path());
    assert!(files > 8, "{files} files");
}
