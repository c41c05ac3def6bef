//! T1 and T4 of `cargo xtask reliability`: killed at every call of the system that a checkpoint is made of, and every one of
//! those calls failing. The calls are hit by strace, so that the program is the one that users have.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pipeline_core::conformance::trials::{Random, Trials, is_asked, skip};
use tokio::time::Instant;

use super::crash::{check_journal, facts, journal_length, kill_at};
use super::support::{Ended, Scratch, finish};

/// Twenty-seven leaves of many kinds: in a row, at once, in loops, with a try that fails, with a value that needs a file of its own, and
/// with effects that can be counted.
const MIXED: &str = "workflow:
  name: mixed
  permissions: {shell: [sh]}
  steps:
    - {name: first, type: test_echo, value: start}
    - name: both
      type: parallel
      steps:
        - {name: a, type: shell, command: [sh, -c, 'echo both/a >> effects.txt; echo a']}
        - {name: b, type: shell, command: [sh, -c, 'echo both/b >> effects.txt; echo b']}
        - {name: c, type: test_echo, delay_ms: 5, value: c}
    - {name: large, type: test_echo, value: '{{ range(16000) }}'}
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: 3
      data_source: range(6)
      steps:
        - {name: think, type: test_echo, delay_ms: 2, value: '{{ loop.item }}'}
        - {name: note, type: shell, command: [sh, -c, 'echo \"fan[$0]/note\" >> effects.txt', '{{ loop.item }}']}
    - {name: ask, type: claude, prompt: 'Think of {{ steps.first }}', retry: {max_attempts: 3, base_delay: 1ms}}
    - name: turns
      type: while_loop
      until: loop.index >= 2
      steps:
        - {name: turn, type: test_echo, value: '{{ loop.index }}'}
    - {name: last, type: test_echo, value: '{{ steps.ask.text }}'}
  outputs:
    all: '{{ [steps.first, steps.both.a.stdout, steps.both.b.stdout, steps.ask.text, steps.last] }}'
    fan: '{{ steps.fan.total_items }}'
";

const RULES: &str = "rules:
  - {match: {step: ask, call: 1}, error: {kind: overloaded, message: busy}}
  - {match: {step: ask}, text: thought}
";

const RUN: [&str; 8] =
    ["run", "mixed.yaml", "--mock-rules", "rules.yaml", "--events", "--yes", "--run-id", "r"];

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("mixed.yaml", MIXED);
    scratch.write("rules.yaml", RULES);
    scratch
}

/// Which call strace hits, and what becomes of it.
struct Fault<'a> {
    call: &'a str,
    /// As strace writes it: `signal=KILL`, `error=EIO`.
    what: &'a str,
    /// `7`, or `7+` for every one from the seventh on.
    when: String,
}

impl Fault<'_> {
    fn told(&self) -> String {
        format!("{} at {} {}", self.what, self.call, self.when)
    }

    /// The run under strace; and whether the fault was met.
    fn run(&self, scratch: &Scratch) -> (Ended, bool) {
        let log = scratch.path().join("strace.log");
        let mut command = Command::new("strace");
        // The program's own threads, and nothing of the children that it starts.
        command.args(["-f", "-b", "execve", "-qq", "--seccomp-bpf", "-o"]).arg(&log);
        command.args(["-e", &format!("trace={}", self.call), "-e"]);
        command.arg(format!("inject={}:{}:when={}", self.call, self.what, self.when));
        if self.call == "write" {
            // Not what is said to the terminal, and not how threads wake each other.
            for name in ["journal.log", "run.lock"] {
                command.arg("-P").arg(scratch.path().join(".pipeline/runs/r").join(name));
            }
        }
        command.arg(env!("CARGO_BIN_EXE_pipeline")).args(RUN).current_dir(scratch.path()).env_clear();
        command.envs(super::support::handed_on()).env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = finish(command.spawn().expect("strace starts"));
        let log = std::fs::read_to_string(log).unwrap_or_default();
        (ended, log.contains("(INJECTED)") || log.contains("killed by SIGKILL"))
    }
}

/// Whether this machine has what the test needs.
fn has_strace() -> bool {
    let works =
        Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    works.is_ok_and(|status| status.success())
}

/// The outputs of a run that nothing happens to, and how long its journal becomes.
fn undisturbed() -> (String, u64) {
    let scratch = scratch();
    let ended = scratch.run_with_path(&RUN);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    (outputs(&scratch), journal_length(scratch.path()))
}

/// What the finished run in `scratch` gave, as the journal has it.
fn outputs(scratch: &Scratch) -> String {
    let shown = scratch.run_with_path(&["resume", "r", "--json"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    shown.json()["outputs"].to_string()
}

/// What the program told of as done: paths and turns of `AttemptEnded` on its standard output.
fn acknowledged(stdout: &str) -> BTreeSet<(String, u64)> {
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    stdout
        .lines()
        .filter_map(event)
        .filter(|event| event["fact"] == "AttemptEnded")
        .filter_map(|event| Some((event["path"].as_str()?.to_owned(), event["turn"].as_u64()?)))
        .collect()
}

/// What one trial found beside right and wrong.
#[derive(Default)]
struct Found {
    acknowledged: AtomicUsize,
    slowest_ms: AtomicU64,
}

/// Everything that must hold after a run was cut off, and after it was resumed.
fn judge(scratch: &Scratch, ended: &Ended, expected: &str, what: &str, found: &Found) -> Result<(), String> {
    let run = scratch.path().join(".pipeline/runs/r");
    let told = acknowledged(&ended.stdout);
    found.acknowledged.fetch_add(told.len(), Ordering::Relaxed);
    let records = if run.join("journal.log").exists() { facts(&run) } else { Vec::new() };
    let of = |fact: &str| -> BTreeSet<(String, u64)> {
        records.iter().filter(|r| r.2 == fact).map(|r| (r.0.clone(), r.1)).collect()
    };
    let kept = of("AttemptEnded");
    if let Some(lost) = told.difference(&kept).next() {
        return Err(format!("{what}: {}#{} was told as done and is not in the journal", lost.0, lost.1));
    }
    if !run.join("journal.log").exists() {
        // It was not created, and a new one may take its id.
        if run.exists() {
            std::fs::remove_dir_all(&run).map_err(|e| e.to_string())?;
        }
        let again = scratch.run_with_path(&RUN);
        return if again.code == Some(0) { Ok(()) } else { Err(format!("{what}: {}", again.stderr)) };
    }
    let begun = Instant::now();
    let resumed = scratch.run_with_path(&["resume", "r", "--json"]);
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    found.slowest_ms.fetch_max(took, Ordering::Relaxed);
    if resumed.code != Some(0) {
        return Err(format!("{what}: the resume ends with {:?}: {}", resumed.code, resumed.stderr));
    }
    let given = resumed.json()["outputs"].to_string();
    if given != expected {
        return Err(format!("{what}: other outputs than without it"));
    }
    check_journal(&run).map_err(|error| format!("{what}: {error}"))?;
    effects(scratch, &kept, what)
}

/// Most steps of [`MIXED`] that are under way at once.
const AT_ONCE: usize = 3;

/// Every effect took place; twice at most those that were under way when it was cut off.
fn effects(scratch: &Scratch, kept: &BTreeSet<(String, u64)>, what: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(scratch.path().join("effects.txt")).unwrap_or_default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        *counts.entry(line).or_default() += 1;
    }
    let doubled: Vec<&str> = counts.iter().filter(|(_, n)| **n > 1).map(|(step, _)| *step).collect();
    let was_over = doubled.iter().any(|step| kept.contains(&((*step).to_owned(), 1)));
    if counts.len() != 8 || doubled.len() > AT_ONCE || was_over || counts.values().any(|n| *n > 2) {
        return Err(format!("{what}: the effects are {counts:?}"));
    }
    Ok(())
}

/// Does the same to two halves of a list at once.
fn halves<T: Sync>(all: &[T], each: impl Fn(&T) + Sync) {
    let (each, next) = (&each, &AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(one);
                }
            });
        }
    });
}

/// Naive: what was told as done is written a moment later.
#[test]
fn t01_killed_at_every_call_of_a_checkpoint_it_loses_nothing_that_it_told() {
    let (trials, found) = (Trials::of("T1", 4), Found::default());
    if !has_strace() {
        return skip(
            "T1",
            "strace is not installed or may not trace here; install it to have the program killed at every call",
        );
    }
    let (expected, span) = undisturbed();
    let calls = [
        "write",
        "fdatasync",
        "fsync",
        "rename,renameat,renameat2",
        "openat",
        "unlink,unlinkat",
        "ftruncate",
    ];
    // In the suite of the crate only a few points, to see that it works.
    let most = if is_asked() { 400 } else { 2 };
    let points = AtomicUsize::new(0);
    halves(&calls, |call| {
        for k in 1..=most {
            let scratch = scratch();
            let fault = Fault { call, what: "signal=KILL", when: k.to_string() };
            let (ended, is_met) = fault.run(&scratch);
            if !is_met || !trials.go_on() {
                break;
            }
            points.fetch_add(1, Ordering::Relaxed);
            trials.count(judge(&scratch, &ended, &expected, &fault.told(), &found));
        }
    });
    let mut random = Random::new(trials.seed());
    let lengths: Vec<u64> = (0..trials.wanted()).map(|_| random.draw() % span.max(1)).collect();
    halves(&lengths, |length| {
        if !trials.go_on() {
            return;
        }
        let scratch = scratch();
        let mut child = scratch.command_with_path(&RUN).spawn().expect("it starts");
        kill_at(&mut child, scratch.path(), *length);
        let ended = finish(child);
        trials.count(judge(&scratch, &ended, &expected, &format!("killed at {length} bytes"), &found));
    });
    let slowest = found.slowest_ms.into_inner();
    trials.finish(format!(
        "killed at {} calls and {} instants; {} steps were told as done, none may be lost or done twice; slowest resume {slowest} ms",
        points.into_inner(),
        lengths.len(),
        found.acknowledged.into_inner(),
    ));
}

/// What must hold when a call failed.
fn judge_error(scratch: &Scratch, ended: &Ended, what: &str) -> Result<(), String> {
    if ended.stderr.contains("panicked at") || matches!(ended.code, None | Some(101 | 134)) {
        return Err(format!("{what}: {:?}: {}", ended.code, ended.stderr));
    }
    let is_told = ended.stderr.contains(".pipeline");
    let began = scratch.path().join(".pipeline/runs/r/journal.log").exists();
    match ended.code {
        Some(74) if is_told => Ok(()),
        // Before there was a run.
        Some(3) if is_told && !began => Ok(()),
        code => Err(format!("{what}: ended with {code:?}: {}", ended.stderr)),
    }
}

/// Naive: a flush that failed is tried again. The second one succeeds, because the system has forgotten the pages.
#[test]
fn t04_after_a_call_that_failed_nothing_is_told_as_done() {
    let (trials, found) = (Trials::of("T4", 2), Found::default());
    if !has_strace() {
        return skip(
            "T4",
            "strace is not installed or may not trace here; install it to have the program's calls fail",
        );
    }
    let (expected, _) = undisturbed();
    let most = if is_asked() { 200 } else { 2 };
    let mut kinds = Vec::new();
    for call in ["write", "fdatasync", "fsync"] {
        for error in ["ENOSPC", "EIO"] {
            kinds.extend(["", "+"].map(|from_then_on| (call, error, from_then_on)));
        }
        kinds.push((call, "EINTR", ""));
    }
    let points = AtomicUsize::new(0);
    halves(&kinds, |(call, error, from_then_on)| {
        for k in 1..=most {
            let scratch = scratch();
            let what = format!("error={error}");
            let fault = Fault { call, what: &what, when: format!("{k}{from_then_on}") };
            let (ended, is_met) = fault.run(&scratch);
            if !is_met || !trials.go_on() {
                break;
            }
            points.fetch_add(1, Ordering::Relaxed);
            let outcome = if *error == "EINTR" {
                // That is no error: the call is made again.
                if ended.code == Some(0) {
                    Ok(())
                } else {
                    Err(format!("{}: {}", fault.told(), ended.stderr))
                }
            } else {
                judge_error(&scratch, &ended, &fault.told())
            };
            trials.count(outcome.and_then(|()| judge(&scratch, &ended, &expected, &fault.told(), &found)));
        }
    });
    trials.finish(format!(
        "{} failing calls (ENOSPC, EIO, EINTR; once and for ever), each must end with 74 or go on rightly; {} steps were told as done, none may be lost",
        points.into_inner(),
        found.acknowledged.into_inner(),
    ));
}
