//! T11 of `cargo xtask reliability`: small files that want to be large, or to last for ever.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pipeline_core::conformance::trials::Trials;
use tokio::time::Instant;

use super::support::Scratch;

/// What a case may take. The program is not optimised here, and the machine has other things to do.
const TIME: Duration = Duration::from_secs(20);
const MEMORY: u64 = 512 << 20;

/// What is done with the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Checked,
    Run,
}
use Done::{Checked, Run};

fn step(fields: &str) -> String {
    format!(
        "workflow:\n  name: bomb\n  permissions: {{shell: [sh]}}\n  steps:\n    - {{name: s, {fields}}}\n"
    )
}

/// A step whose value is that template.
fn value(template: &str) -> String {
    step(&format!("type: test_echo, value: '{}'", template.replace('\'', "''")))
}

fn jq(program: &str) -> String {
    step(&format!(
        "type: data_transform, timeout: 3s, input_source: '[1]', output_field: out, operations: [{{operation: query, query: '{program}'}}]"
    ))
}

fn bombs() -> Vec<(&'static str, Done, String)> {
    let levels = |last: char| {
        ('b'..=last)
            .map(|c| {
                let before = char::from(c as u8 - 1);
                format!("  {c}: &{c} [{}]\n", vec![format!("*{before}"); 10].join(", "))
            })
            .collect::<String>()
    };
    let laughs = format!("x:\n  a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n{}", levels('i'));
    let big = "y".repeat(100_000);
    let aliased = format!("x: &a {big}\nall: [{}]\n", vec!["*a"; 20_000].join(", "));
    let few = format!("x: &a {big}\nall: [{}]\n", vec!["*a"; 199].join(", "));
    let blocks: String = (0..3_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    let keys: String = (0..1_000_000).map(|n| format!("k{n}: 1\n")).collect();
    let elifs = format!("{{% if false %}}{}{{% endif %}}", "{% elif false %}x".repeat(5_000));
    let doubling = format!("{{% set a = \"x\" %}}{}{{{{ a }}}}", "{% set a = a ~ a %}".repeat(60));
    let merges: String = (1..190).map(|n| format!("m{n}: &m{n} {{<<: *m{}, k{n}: 1}}\n", n - 1)).collect();
    let digits = "9".repeat(1_000_000);
    vec![
        ("laughs", Checked, laughs),
        ("a large text, twenty thousand times", Checked, aliased),
        ("a large text, as often as is allowed", Checked, few),
        ("open brackets", Checked, "[".repeat(200_000)),
        ("open braces", Checked, "{a: ".repeat(100_000)),
        ("nested maps in a line", Checked, format!("{}1{}", "{a: ".repeat(3_000), "}".repeat(3_000))),
        ("nested maps in lines", Checked, blocks),
        ("nested lists in a line", Checked, "- ".repeat(100_000)),
        ("a million keys", Checked, keys),
        ("a number of a million digits", Checked, format!("name: {digits}\n")),
        ("a power of a million digits", Checked, format!("name: 1e{digits}\n")),
        ("merges of merges", Checked, format!("m0: &m0 {{a: 1}}\n{merges}")),
        ("an alias of itself", Checked, "a: &a [*a]\n".to_owned()),
        ("signs of nothing", Checked, "\0".repeat(10_000)),
        ("a line of eight million signs", Checked, "x".repeat(8_000_000)),
        ("more than eight MiB", Checked, "# x\n".repeat(3_000_000)),
        ("a pipeline in itself", Run, step("type: pipeline, pipeline_file: bomb.yaml")),
        (
            "a thousand million turns",
            Run,
            step("type: for_loop, data_source: 'range(1000000000)', steps: [{name: a, type: test_echo}]"),
        ),
        (
            "a turn that never ends",
            Run,
            step("type: while_loop, until: 'false', steps: [{name: a, type: test_echo}]"),
        ),
        ("a text of a thousand million signs", Run, value("{{ 'x' * 1000000000 }}")),
        ("a list of a thousand million", Run, value("{{ [1] * 1000000000 }}")),
        ("doubling", Run, value(&doubling)),
        ("a macro in itself", Run, value("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}")),
        (
            "loops in loops",
            Run,
            value(
                "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}x{% endfor %}{% endfor %}{% endfor %}",
            ),
        ),
        ("a sum of a hundred thousand", Run, value(&format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)))),
        ("fifty thousand filters", Run, value(&format!("{{{{ 'a'{} }}}}", "|upper".repeat(50_000)))),
        ("five thousand elifs", Run, value(&elifs)),
        ("ten thousand minus signs", Run, value(&format!("{{{{ {}1 }}}}", "-".repeat(10_000)))),
        ("a hundred thousand nots", Run, value(&format!("{{{{ {}1 }}}}", "not ".repeat(100_000)))),
        ("a hundred thousand parentheses", Run, value(&format!("{{{{ {}1 }}}}", "(".repeat(100_000)))),
        (
            "a hundred thousand steps of a path",
            Run,
            value(&format!("{{{{ run{} }}}}", ".id".repeat(100_000))),
        ),
        (
            "a pattern that tries everything",
            Run,
            value(&format!("{{{{ '{}b' matches '(a+)+$' }}}}", "a".repeat(5_000))),
        ),
        ("a pattern that is large", Run, value("{{ 'a' matches '(((a{100}){100}){100}){100}' }}")),
        ("jq without end", Run, jq("def f: f; f")),
        ("jq that repeats", Run, jq("[repeat(1)]")),
        ("jq that counts", Run, jq("[range(1e12)]")),
        ("jq that nests", Run, jq("reduce range(1000000) as $i (0; [.])")),
        ("jq that halts", Run, jq("halt")),
        ("jq that reads the environment", Run, jq("env")),
        (
            "output of a command without end",
            Run,
            step(
                "type: shell, timeout: 2s, command: [sh, -c, 'while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done']",
            ),
        ),
        (
            "a line of a hundred million signs",
            Run,
            step("type: shell, command: [sh, -c, 'head -c 100000000 /dev/zero']"),
        ),
    ]
}

/// What the process has taken at most, in bytes.
fn most_memory(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The case in a process of its own; how long it took and what it held.
fn explode(name: &str, done: Done, text: &str) -> Result<(Duration, u64), String> {
    let scratch = Scratch::new();
    scratch.write("bomb.yaml", text);
    let verb: &[&str] =
        if done == Checked { &["check"] } else { &["run", "--mock", "--yes", "--timeout", "5s"] };
    let mut command: Command = scratch.command_with_path(&[verb, &["bomb.yaml"]].concat());
    // Not a pipe: nobody reads it while it runs.
    let said = scratch.path().join("said.txt");
    let file = std::fs::File::create(&said).map_err(|e| e.to_string())?;
    let mut child = command.stdout(Stdio::null()).stderr(file).spawn().map_err(|e| e.to_string())?;
    let (begun, mut most) = (Instant::now(), 0);
    let status = loop {
        most = most_memory(&child).map_or(most, |now| now.max(most));
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        if most > MEMORY || begun.elapsed() > TIME {
            child.kill().map_err(|e| e.to_string())?;
            child.wait().map_err(|e| e.to_string())?;
            return Err(format!("{name}: after {:?} it holds {} MiB", begun.elapsed(), most >> 20));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = begun.elapsed();
    match status.code() {
        Some(0 | 1 | 2 | 124) => Ok((took, most)),
        other => {
            let words = std::fs::read_to_string(&said).unwrap_or_default();
            Err(format!("{name}: ended with {other:?}: {}", words.chars().take(300).collect::<String>()))
        }
    }
}

/// Naive: a reader without a budget, expressions without a price, programs without a deadline.
#[test]
fn t11_no_small_file_takes_the_machine() {
    let trials = Trials::of("T11", 1);
    let bombs = bombs();
    let (mut slowest, mut largest) = ((Duration::ZERO, ""), (0, ""));
    for (name, done, text) in &bombs {
        if !trials.go_on() {
            break;
        }
        trials.count(explode(name, *done, text).map(|(took, most)| {
            slowest = slowest.max((took, name));
            largest = largest.max((most, name));
        }));
    }
    trials.finish(format!(
        "{} files, each refused or ended; slowest {} ms ({}), largest {} MiB ({})",
        bombs.len(),
        slowest.0.as_millis(),
        slowest.1,
        largest.0 >> 20,
        largest.1,
    ));
}
