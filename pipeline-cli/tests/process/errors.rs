//! Sixty things that go wrong, from every command: each is told on standard error with what happened, where, and what to
//! do next, and with the exit code of its kind. What is told is a snapshot, so that every change of it is read.

use std::fmt::Write;

use super::support::{Scratch, finish};

const GOOD: &str = "workflow:\n  name: good\n  inputs: {topic: {type: string}, n: {type: integer, default: 1}}\n  steps:\n    - {name: a, type: test_echo, value: '{{ inputs.topic }}'}\n    - {name: b, type: claude, prompt: 'Say {{ steps.a }}'}\n";

/// Exit code, and the command line.
const CASES: &[(i32, &[&str])] = &[
    // The command line itself.
    (2, &["rnu", "good.yaml"]),
    (2, &["run"]),
    (2, &["run", "good.yaml", "--max-parallel", "none"]),
    (2, &["run", "good.yaml", "--max-cost-usd", "lots"]),
    (2, &["run", "good.yaml", "--timeout", "soon"]),
    (2, &["run", "good.yaml", "--json", "--events"]),
    (2, &["run", "good.yaml", "--log", "loud"]),
    // Files.
    (2, &["check", "nowhere.yaml"]),
    (2, &["check", "empty-folder"]),
    (2, &["check", "broken.yaml"]),
    (2, &["check", "wrong.yaml"]),
    (2, &["run", "nowhere.yaml", "--mock"]),
    (2, &["run", "empty-folder", "--mock"]),
    (2, &["run", "wrong.yaml", "--mock"]),
    (2, &["run", "binary.yaml", "--mock"]),
    (2, &["plan", "wrong.yaml"]),
    (2, &["graph", "wrong.yaml"]),
    (2, &["migrate", "nowhere.yaml"]),
    // Inputs.
    (2, &["run", "good.yaml", "--mock"]),
    (2, &["run", "good.yaml", "--mock", "tpoic=tea"]),
    (2, &["run", "good.yaml", "--mock", "topic"]),
    (2, &["run", "good.yaml", "--mock", "topic=tea", "n=many"]),
    (2, &["run", "good.yaml", "--mock", "-i", "topic=@nowhere.txt"]),
    (2, &["run", "good.yaml", "--mock", "--input-file", "nowhere.json"]),
    (2, &["run", "good.yaml", "--mock", "--input-file", "broken.yaml"]),
    (2, &["run", "good.yaml", "--mock", "topic=tea", "--until", "c"]),
    (2, &["run", "good.yaml", "--mock", "topic=tea", "--set", "x"]),
    (2, &["run", "good.yaml", "--mock-rules", "nowhere.yaml", "topic=tea"]),
    (2, &["run", "good.yaml", "--mock-rules", "rules.yaml", "topic=tea"]),
    (2, &["run", "good.yaml", "--mock", "topic=tea", "--run-id", "../x"]),
    (2, &["run", "good.yaml", "--mock", "topic=tea", "--run-id", "failed"]),
    // The machine.
    (3, &["run", "good.yaml", "topic=tea"]),
    (3, &["run", "good.yaml", "topic=tea", "--mock", "--state-dir", "good.yaml"]),
    (3, &["run", "good.yaml", "--replay", "nowhere", "topic=tea"]),
    (3, &["run", "good.yaml", "--mock", "topic=tea", "--log-file", "nowhere/l.txt"]),
    // What fails while it runs.
    (1, &["run", "failing.yaml", "--mock"]),
    (1, &["run", "outside.yaml", "--mock"]),
    (1, &["run", "shell.yaml", "--mock"]),
    (1, &["run", "schema.yaml", "--mock-rules", "bad-json.yaml"]),
    (1, &["run", "limited.yaml", "--mock-rules", "limited-rules.yaml"]),
    (1, &["run", "late.yaml", "--mock"]),
    (124, &["run", "slow.yaml", "--mock", "--timeout", "500ms"]),
    (5, &["run", "budget.yaml", "--mock"]),
    (4, &["run", "asks.yaml", "--mock", "--run-id", "asks"]),
    // Going on.
    (3, &["resume", "nowhere"]),
    (2, &["resume", "asks", "--answer", "well"]),
    (2, &["resume", "asks", "--answer", "wel=yes"]),
    (2, &["resume", "asks", "--answer", "well=perhaps"]),
    (2, &["resume", "failed", "--from", "bb"]),
    (2, &["resume", "failed", "--with", "wrong.yaml"]),
    // Past runs.
    (3, &["runs", "show", "nowhere"]),
    (3, &["runs", "list", "--state-dir", "good.yaml"]),
    (2, &["runs", "rm", "asks"]),
    (2, &["runs", "cancel", "failed"]),
    (2, &["runs", "fork", "failed"]),
    (2, &["runs", "fork", "failed", "--set", "c=1"]),
    (3, &["runs", "diff", "failed", "nowhere"]),
    (2, &["runs", "logs", "failed", "--step", "zz"]),
    (3, &["report", "nowhere", "-o", "r.html"]),
    (3, &["report", "failed", "-o", "good.yaml/r.html"]),
    // The others.
    (2, &["explain", "E9999"]),
    (2, &["test", "nowhere"]),
    (2, &["test", "empty-folder"]),
    (1, &["test", "cases"]),
    (2, &["verify", "good.yaml"]),
    (2, &["verify", "wrong.yaml", "--crash"]),
    (2, &["new", "novel", "out.yaml"]),
    (2, &["init", "."]),
    (3, &["generate", "a haiku"]),
    (3, &["tools", "show", "wan_pi"]),
    (1, &["tools", "call", "read_file", "{\"path\": \"/etc/shadow\"}"]),
    (2, &["tools", "call", "read_file", "nonsense"]),
    (3, &["sessions", "show", "nowhere"]),
    (2, &["completions", "ksh"]),
];

fn files(scratch: &Scratch) {
    let one = |step: &str| format!("workflow:\n  name: w\n  steps:\n    - {step}\n");
    scratch.write("good.yaml", GOOD);
    scratch.write("broken.yaml", "workflow:\n  name: [\n");
    scratch.write("wrong.yaml", &one("{name: a, type: test_ecko, valeu: 1}"));
    scratch.write("rules.yaml", "rules:\n  - {txet: hi}\n");
    scratch
        .write("failing.yaml", &one("{name: a, type: test_echo, fail: true, error_message: out of cheese}"));
    scratch.write(
        "outside.yaml",
        &one("{name: a, type: file_ops, operation: copy, source: /etc/hostname, destination: workspace/x}"),
    );
    scratch.write("shell.yaml", &one("{name: a, type: shell, command: [ls]}"));
    scratch.write("schema.yaml", &one("{name: a, type: gemini, prompt: hi, output_schema: {type: object, required: [x]}, repair_attempts: 0}"));
    scratch.write("bad-json.yaml", "rules: [{text: 'no json'}]\n");
    scratch.write("limited.yaml", &one("{name: a, type: gemini, prompt: hi}"));
    scratch.write("limited-rules.yaml", "rules: [{error: {kind: auth, message: 'the key is revoked'}}]\n");
    scratch.write("late.yaml", &one("{name: a, type: test_echo, delay_ms: 30000, timeout: 20ms}"));
    scratch.write("slow.yaml", &one("{name: a, type: test_echo, delay_ms: 30000}"));
    scratch.write("budget.yaml", "workflow:\n  name: w\n  budget: {max_steps: 1}\n  steps:\n    - {name: a, type: test_echo}\n    - {name: b, type: test_echo}\n");
    scratch
        .write("asks.yaml", &one("{name: well, type: approval, message: 'Go on?', choices: ['yes', 'no']}"));
    scratch.write("cases/good.yaml", GOOD);
    scratch.write("cases/one.test.yaml", "pipeline: good.yaml\ncases:\n  - name: one\n    inputs: {topic: tea}\n    expect: {outputs: {a: coffee}}\n");
    scratch.write("pipeline.yaml", GOOD);
    std::fs::write(scratch.path().join("binary.yaml"), [0xff, 0xfe, 0, 1]).unwrap();
    std::fs::create_dir(scratch.path().join("empty-folder")).unwrap();
    let failed = scratch.run(&["run", "failing.yaml", "--mock", "--run-id", "failed"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
}

/// Naive: a failure inside is shown as a stack, or as one word.
/// Figure: 60 failures of the program.
#[test]
fn x12_sixty_failures_say_what_happened_where_and_what_to_do() {
    let scratch = Scratch::new();
    files(&scratch);
    let place = scratch.path().display().to_string();
    let mut all = String::new();
    let mut faults = String::new();
    for (code, arguments) in CASES {
        let ended = finish(scratch.command(arguments).env("COLUMNS", "100").spawn().unwrap());
        let told = ended.stderr.replace(&place, "HERE");
        let _ok = writeln!(
            all,
            "$ pipeline {}   [{}]\n{}",
            arguments.join(" "),
            ended.code.unwrap_or(-1),
            timeless(&told)
        );
        let mut fault = |what: &str| {
            let _ok = writeln!(faults, "pipeline {}: {what}\n{}{told}", arguments.join(" "), ended.stdout);
        };
        if ended.code != Some(*code) {
            fault(&format!("the exit code is {:?}, not {code}", ended.code));
        }
        // Findings of `check` are its result; everything else is told on standard error.
        let told = if ["check", "test"].contains(&arguments[0]) {
            format!("{}{told}", ended.stdout)
        } else {
            told.clone()
        };
        if told.contains("panicked") || told.contains("Err(") || told.contains("Some(") {
            fault("it speaks of the program's inside");
        }
        if !["error", "FAILED"].iter().any(|word| told.contains(word)) && *code != 4 {
            fault("it does not say that something is wrong");
        }
        let next = ["help:", "tip:", "--help", "go on with", "try it again with", "FAILED"];
        if !next.iter().any(|word| told.contains(word)) {
            fault("it does not say what to do next");
        }
    }
    assert!(CASES.len() >= 60);
    assert!(faults.is_empty(), "{faults}");
    insta::assert_snapshot!("failures", all);
}

/// Without what differs from run to run: times and ids.
fn timeless(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id = bare.len() == 36 && bare.matches('-').count() == 4;
        if is_id { word.replace(bare, "RUN") } else { word.to_owned() }
    };
    let mut out = String::new();
    for line in text.lines() {
        let mut words: Vec<String> = line.split(' ').map(word).collect();
        for at in 1..words.len() {
            let unit = words[at].trim_end_matches([')', ',', ':']);
            if ["ms", "s"].contains(&unit) && words[at - 1].trim_start_matches('(').parse::<f64>().is_ok() {
                let open = if words[at - 1].starts_with('(') { "(" } else { "" };
                words[at - 1] = format!("{open}TIME");
            }
        }
        out.push_str(words.join(" ").trim_end());
        out.push('\n');
    }
    out
}
