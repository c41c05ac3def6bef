//! No secret of a run's configuration in anything that the run leaves or prints, whatever its variable is called.

use std::io::{BufRead, BufReader};
use std::path::Path;

use pipeline_core::conformance::trials::Trials;

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

/// A secret that expressions may read, in every place that keeps what an expression made.
const READER: &str = r#"
workflow:
  name: reader
  permissions: {shell: ["*"], env: [DEPLOY_TOKEN, CHANNEL]}
  steps:
    - {name: kept, type: set_variable, variables: {header: "Bearer {{ env.DEPLOY_TOKEN }}", channel: "{{ env.CHANNEL }}"}}
    - {name: used, type: shell, command: [sh, -c, 'printf %s "$T" | wc -c'], env: {T: "{{ env.DEPLOY_TOKEN }}"}}
    - {name: asked, type: prompt, prompt: "sign in with {{ env.DEPLOY_TOKEN }}", output_to_file: asked.txt}
    - {name: sure, type: approval, message: "deploy with {{ env.DEPLOY_TOKEN }}?"}
    - {name: again, type: shell, command: [sh, -c, 'printf %s "$T" | wc -c'], env: {T: "{{ env.DEPLOY_TOKEN }}"}}
    - name: inner
      type: pipeline
      pipeline: {name: child, permissions: {env: [DEPLOY_TOKEN]}, steps: [{name: e, type: test_echo, value: 1}], outputs: {t: "{{ env.DEPLOY_TOKEN }}"}}
  outputs: {mine: "{{ env.DEPLOY_TOKEN }}", channel: "{{ state.channel }}", used: "{{ steps.used.stdout }}"}
"#;

/// Naive: values of `permissions.env` are settings of the run like others, and stand in its manifest for ever.
#[test]
fn a_secret_that_expressions_read_is_kept_nowhere_and_read_again() {
    const TOKEN: &str = "canary-of-a-deploy-5";
    let scratch = Scratch::new();
    scratch.write("reader.yaml", READER);
    let run = |token: Option<&str>, arguments: &[&str]| -> Ended {
        let mut command = scratch.command(arguments);
        command.env("PATH", "/usr/bin:/bin").env("CHANNEL", "nightly-channel");
        if let Some(token) = token {
            command.env("DEPLOY_TOKEN", token);
        }
        finish(command.spawn().unwrap())
    };
    let paused =
        run(Some(TOKEN), &["run", "reader.yaml", "--mock", "--yes", "--no-interactive", "--record", "tape"]);
    assert_eq!(paused.code, Some(4), "{}", paused.stderr);
    let last = scratch.run_dir().file_name().unwrap().to_string_lossy().into_owned();
    let answered = ["resume", &last, "--answer", "sure=approve"];
    let refused = run(None, &answered);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("the run reads DEPLOY_TOKEN, which is not set any more"),
        "{}",
        refused.stderr
    );
    let ended = run(Some(TOKEN), &answered);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Without the variable, everything can be looked at.
    let shown = run(None, &["runs", "show", &last, "--json"]);
    let outputs = &shown.json()["outputs"];
    assert_eq!(outputs["channel"], "nightly-channel", "what is no secret is kept");
    assert_eq!(outputs["mine"], "⟦secret⟧");
    assert_eq!(outputs["used"].as_str().unwrap().trim(), TOKEN.len().to_string(), "the step had it");
    let compared = run(None, &["plan", "reader.yaml", "--mock", "--against", &last]);
    assert_eq!(compared.code, Some(0), "{}", compared.stderr);
    assert!(compared.stderr.contains("DEPLOY_TOKEN is not set"), "{}", compared.stderr);
    assert!(compared.stdout.contains("RUN"), "{}", compared.stdout);
    let others = [
        compared,
        run(None, &["report", &last, "-o", "report.html"]),
        run(None, &["runs", "events", &last, "--json"]),
        run(None, &["resume", &last]),
    ];
    let all = [&paused, &ended, &shown].into_iter().chain(&others);
    let of = |ended: &Ended| format!("{}{}", ended.stdout, ended.stderr);
    assert!(!all.map(of).collect::<String>().contains(TOKEN));
    let mut left = vec![scratch.path().to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains(TOKEN), "{}", path.display());
        }
    }
}

/// One run with everything told that can be told; under strace, where it is there, every byte that is written to anything but
/// a socket. Gives the bytes seen, and how often a secret went into a socket.
fn watched(address: &str, number: u64) -> Result<(usize, usize), String> {
    let scratch = Scratch::new();
    scratch.write("leaky.yaml", &FILE.replace("BASE", address));
    let log = scratch.path().join("strace.log");
    let arguments = match number % 3 {
        0 => vec!["run", "leaky.yaml", "--yes", "--record", "tape", "--events", "-v", "--log", "trace"],
        1 => vec!["run", "leaky.yaml", "--yes", "--json", "--log", "trace", "--log-file", "all.log"],
        _ => vec!["run", "leaky.yaml", "--yes", "-vv"],
    };
    let has_strace = std::process::Command::new("strace").arg("-V").output().is_ok();
    let mut command = if has_strace {
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-b", "execve", "-qq", "--seccomp-bpf", "-yy", "-s", "10000000", "-o"]).arg(&log);
        command.args([
            "-e",
            "trace=write,pwrite64,writev,pwritev,sendto,sendmsg",
            env!("CARGO_BIN_EXE_pipeline"),
        ]);
        command.args(&arguments).current_dir(scratch.path()).env_clear().envs(super::support::handed_on());
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    } else {
        scratch.command(&arguments)
    };
    let ended = finish(command.envs(GIVEN).env("PATH", "/usr/bin:/bin").spawn().unwrap());
    if ended.code != Some(1) {
        return Err(format!("run {number} ended with {:?}: {}", ended.code, ended.stderr));
    }
    let written = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    let (sent, kept): (Vec<&str>, Vec<&str>) = written.lines().partition(|line| line.contains("<TCP"));
    let seen = sent.iter().filter(|line| leaks(line).is_some()).count();
    for text in kept.into_iter().chain([ended.stdout.as_str(), ended.stderr.as_str()]) {
        if let Some(name) = leaks(text) {
            let start: String = text.chars().take(120).collect();
            return Err(format!("run {number}: {name} was written: {start}"));
        }
    }
    let mut left = vec![scratch.path().to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Some(name) = leaks(&String::from_utf8_lossy(&std::fs::read(&path).unwrap())) {
            return Err(format!("run {number}: {name} is in {}", path.display()));
        }
    }
    if has_strace && seen == 0 {
        return Err(format!("run {number}: no secret went to the service: the test does not see"));
    }
    Ok((written.len() + ended.stdout.len() + ended.stderr.len(), seen))
}

/// Naive: what is sent is logged, for whoever looks for a fault.
#[test]
fn t13_no_secret_is_in_any_byte_that_is_written() {
    let trials = Trials::of("T13", 3);
    let says: Vec<&str> = GIVEN.iter().map(|(_, value)| *value).collect();
    let rules = format!(
        "rules:\n  - {{match: {{prompt_contains: refuse}}, error: {{kind: invalid, message: 'who is {0}'}}}}\n  - {{text: 'you are {0}'}}\n",
        says.join(" and ")
    );
    let server = super::server::Server::start(&rules, &[]);
    let (mut bytes, mut sent) = (0, 0);
    for number in 0..trials.wanted() {
        if trials.go_on() {
            trials.count(watched(&server.address, number).map(|(more, seen)| {
                bytes += more;
                sent += seen;
            }));
        }
    }
    trials.finish(format!(
        "{} secrets in headers, keys, tools and servers, echoed back: in none of {} KiB written, nor in any file; {sent} times in the socket where they belong",
        GIVEN.len(),
        bytes >> 10,
    ));
}
