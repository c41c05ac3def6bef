//! Killed anywhere, it goes on exactly where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::support::{Scratch, finish, signal};

/// A while loop in a parallel loop in a child pipeline: 200 leaves.
pub const NESTED: &str = "workflow:
  name: nested
  steps:
    - {name: first, type: test_echo, value: start}
    - name: inside
      type: pipeline
      pipeline:
        name: inner
        variables: {sum: 0}
        steps:
          - name: fan
            type: for_loop
            parallel: true
            max_parallel: 8
            data_source: range(33)
            reduce: {sum: sum}
            steps:
              - name: turns
                type: while_loop
                until: loop.index >= 2
                steps:
                  - {name: think, type: test_echo, delay_ms: 2, value: '{{ [loop.parent.item, loop.index] }}'}
                  - {name: note, type: set_variable, scope: loop, variables: {seen: '{{ steps.think[1] }}'}}
              - {name: add, type: set_variable, variables: {sum: '{{ loop.item }}'}}
        outputs: {sum: state.sum, results: steps.fan.results, turns: 'map(steps.fan.iterations, \"item.results.turns\")'}
    - {name: ask, type: claude, prompt: 'The sum is {{ steps.inside.sum }}'}
    - {name: last, type: test_echo, value: '{{ steps.inside }}', output_to_file: last.json}
";

fn outputs(document: &Value) -> String {
    document["outputs"].to_string()
}

/// Every line of a journal as (path, turn, fact).
pub fn facts(run: &Path) -> Vec<(String, u64, String)> {
    let text = std::fs::read_to_string(run.join("journal.log")).unwrap();
    let record = |line: &str| -> Option<Value> { serde_json::from_str(line.splitn(6, ' ').nth(5)?).ok() };
    let fact = |r: Value| {
        let text = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
        (text("path"), r["turn"].as_u64().unwrap_or(0), text("fact"))
    };
    text.lines().skip(1).filter_map(record).map(fact).collect()
}

/// No finished attempt ran again, and no path ended twice.
pub fn check_journal(run: &Path) -> Result<(), String> {
    let mut ended = BTreeSet::new();
    for (path, turn, fact) in facts(run) {
        let key = (path.clone(), turn);
        match fact.as_str() {
            "AttemptStarted" if ended.contains(&key) => return Err(format!("{path}#{turn} ran again")),
            "AttemptEnded" | "StepSkipped" if !ended.insert(key.clone()) => {
                return Err(format!("{path}#{turn} ended twice"));
            }
            _ => {}
        }
    }
    Ok(())
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}

/// Naive: resume starts the loop over, or a fresh run differs from a resumed one.
/// Figure: a cut after every record, and at every byte of the last one.
#[test]
fn x10_x27_cut_after_every_record_and_at_every_byte_of_the_last() {
    let whole = Scratch::new();
    whole.write("nested.yaml", NESTED);
    let expected = whole.run(&["run", "nested.yaml", "--mock", "--json"]);
    assert_eq!(expected.code, Some(0), "{}", expected.stderr);
    let expected = outputs(&expected.json());
    let run = whole.run_dir();
    let leaves = facts(&run).iter().filter(|(_, _, f)| f == "AttemptEnded").count();
    assert!(leaves >= 200, "{leaves} leaves");
    let journal = std::fs::read(run.join("journal.log")).unwrap();
    let ends: Vec<usize> =
        journal.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
    let resume = |cut: usize| {
        let scratch = Scratch::new();
        copy(&whole.path().join(".pipeline"), &scratch.path().join(".pipeline"));
        let run = scratch.run_dir();
        std::fs::write(run.join("journal.log"), &journal[..cut]).unwrap();
        let ended = scratch.run(&["resume", "--json"]);
        assert_eq!(ended.code, Some(0), "cut at byte {cut}: {}", ended.stderr);
        assert_eq!(outputs(&ended.json()), expected, "cut at byte {cut}");
        assert_eq!(check_journal(&run), Ok(()), "cut at byte {cut}");
    };
    let last = ends[ends.len() - 2];
    // The last record is long; its bytes are alike. Every one near its ends, and every 16th between.
    let bytes = (last + 1..journal.len()).filter(|c| c - last < 48 || journal.len() - c < 16 || c % 16 == 0);
    let cuts: Vec<usize> = ends[..ends.len() - 1].iter().copied().chain(bytes).collect();
    std::thread::scope(|scope| {
        let halves = cuts
            .chunks(cuts.len().div_ceil(2))
            .map(|half| scope.spawn(|| half.iter().copied().for_each(&resume)));
        halves.collect::<Vec<_>>().into_iter().for_each(|half| half.join().unwrap());
    });
}

/// Naive: a process that is killed loses what it was about to save.
#[test]
fn x10_kill_9_at_random_instants() {
    let whole = Scratch::new();
    whole.write("nested.yaml", NESTED);
    let expected = outputs(&whole.run(&["run", "nested.yaml", "--mock", "--json"]).json());
    let span = std::fs::metadata(whole.run_dir().join("journal.log")).unwrap().len();
    let cut_off: usize = std::thread::scope(|scope| {
        let expected = &expected;
        let halves = [0_u64, 1].map(|half| {
            scope.spawn(move || (0..100).filter(|n| kill_once(half * 100 + n, span, expected)).count())
        });
        halves.into_iter().map(|h| h.join().unwrap()).sum()
    });
    assert!(cut_off > 100, "only {cut_off} of 200 runs were cut off: the test proves too little");
}

/// Kills a run when its journal has grown to a length that follows from `round`, resumes it; says whether the kill cut it
/// off. By length, so that a busy machine makes no difference.
fn kill_once(round: u64, span: u64, expected: &str) -> bool {
    let scratch = Scratch::new();
    scratch.write("nested.yaml", NESTED);
    let mut child = scratch.spawn(&["run", "nested.yaml", "--mock", "--json"]);
    // A low-discrepancy walk: the instants lie evenly over the run.
    let length = round.wrapping_mul(0x9E37_79B9_7F4A_7C15) % span.max(1);
    kill_at(&mut child, scratch.path(), length);
    finish(child);
    if !scratch.path().join(".pipeline/latest").exists() {
        return false;
    }
    let ended = scratch.run(&["resume", "--json"]);
    assert_eq!(ended.code, Some(0), "round {round}: {}", ended.stderr);
    assert_eq!(outputs(&ended.json()), expected, "round {round}");
    assert_eq!(check_journal(&scratch.run_dir()), Ok(()), "round {round}");
    facts(&scratch.run_dir()).iter().any(|(_, _, fact)| fact == "RunResumed")
}

/// Bytes in the journal of the one run below `folder`.
pub fn journal_length(folder: &Path) -> u64 {
    let runs = std::fs::read_dir(folder.join(".pipeline/runs")).into_iter().flatten().flatten();
    runs.filter_map(|run| Some(std::fs::metadata(run.path().join("journal.log")).ok()?.len()))
        .max()
        .unwrap_or(0)
}

/// Kills the run below `folder` when its journal has that length, if it ever has: one run's times may have a digit less than
/// another's.
pub fn kill_at(child: &mut std::process::Child, folder: &Path, length: u64) {
    wait_for("the journal", || {
        journal_length(folder) >= length || child.try_wait().is_ok_and(|ended| ended.is_some())
    });
    // It may be done already.
    let _ = child.kill();
}

pub fn signal_if_alive(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // It may be done already.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

const SLOW: &str = "workflow:\n  name: slow\n  steps:\n    - name: fan\n      type: for_loop\n      parallel: true\n      data_source: range(40)\n      steps: [{name: s, type: test_echo, delay_ms: 300, value: '{{ loop.item }}'}]\n";

pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what} did not happen within 20 s");
}

fn started(scratch: &Scratch) -> bool {
    scratch.path().join(".pipeline/latest").exists()
        && facts(&scratch.run_dir()).iter().any(|(_, _, f)| f == "AttemptEnded")
}

/// Naive: two processes work on one run, and both pay.
#[test]
fn two_processes_resume_one_run_and_one_wins() {
    let scratch = Scratch::new();
    scratch.write("slow.yaml", SLOW);
    let child = scratch.spawn(&["run", "slow.yaml", "--mock"]);
    wait_for("the first branch", || started(&scratch));
    let id = scratch.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
    let second = scratch.run(&["resume", &id]);
    assert_eq!(second.code, Some(3), "{}", second.stderr);
    assert!(second.stderr.contains(&child.id().to_string()), "the owner's pid: {}", second.stderr);
    signal(&child, Signal::KILL);
    finish(child);
    let racers = [scratch.spawn(&["resume", &id]), scratch.spawn(&["resume", &id])];
    let mut codes: Vec<Option<i32>> = racers.into_iter().map(|c| finish(c).code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(3)]);
    assert_eq!(check_journal(&scratch.run_dir()), Ok(()), "raced");
}

/// Naive: Ctrl-C halts the machine and loses the run.
#[test]
fn x11_ctrl_c_saves_the_run_and_says_how_to_go_on() {
    for (sent, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let scratch = Scratch::new();
        scratch.write("slow.yaml", SLOW);
        let child = scratch.spawn(&["run", "slow.yaml", "--mock"]);
        wait_for("the first branch", || started(&scratch));
        signal(&child, sent);
        let ended = finish(child);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        let id = scratch.run_dir().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(ended.stderr.contains(&format!("pipeline resume {id}")), "{}", ended.stderr);
        let resumed = scratch.run(&["resume", "--json"]);
        assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
        let results: Vec<u64> = resumed.json()["outputs"]["fan"]["results"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        assert_eq!(results, (0..40).collect::<Vec<_>>());
    }
}

/// Naive: a full disk is noticed by nobody, and the run says ok.
#[test]
fn n20_a_full_disk_gives_74_and_the_journal_still_opens() {
    let scratch = Scratch::new();
    scratch
        .write("slow.yaml", &SLOW.replace("delay_ms: 300", "delay_ms: 1").replace("range(40)", "range(400)"));
    // No file may grow over 24 kB: writes fail like on a full disk.
    let mut command = std::process::Command::new("sh");
    let script =
        format!("trap '' XFSZ; ulimit -f 48; exec {} run slow.yaml --mock", env!("CARGO_BIN_EXE_pipeline"));
    command.args(["-c", &script]).current_dir(scratch.path()).env_clear().env("PATH", "/usr/bin:/bin");
    let ended: super::support::Ended = command.output().unwrap().into();
    assert_eq!(ended.code, Some(74), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("journal.log"), "{}", ended.stderr);
    let resumed = scratch.run(&["resume", "--json"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(check_journal(&scratch.run_dir()), Ok(()), "disk full");
    let counts: BTreeMap<String, usize> =
        facts(&scratch.run_dir()).into_iter().fold(BTreeMap::new(), |mut all, f| {
            *all.entry(f.2).or_default() += 1;
            all
        });
    assert_eq!(counts["AttemptEnded"], 400);
}

/// Naive: after `kill -9` of the program its children, which are in groups and sessions of their own, go on beside those of the
/// attempt that comes after them.
#[cfg(target_os = "linux")]
#[test]
fn n08a_what_a_killed_program_left_is_gone_when_its_step_runs_again() {
    let scratch = Scratch::new();
    let script = "if [ -e again ]; then echo done; else touch again; setsid sh -c 'echo $$ > tool; exec sleep 300' & echo $$ > own; sleep 300; fi";
    scratch.write(
        "w.yaml",
        &format!(
            "workflow:\n  name: w\n  steps:\n    - name: a\n      type: shell\n      command: \"{script}\"\n"
        ),
    );
    let path = |arguments: &[&str]| {
        let mut command = scratch.command(arguments);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command
    };
    let mut run = path(&["run", "w.yaml", "--mock", "--allow-shell"]).spawn().unwrap();
    let read =
        |name: &str| std::fs::read_to_string(scratch.path().join(name)).unwrap_or_default().trim().to_owned();
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while read("tool").is_empty() || read("own").is_empty() {
        assert!(tokio::time::Instant::now() < patience, "the step has not begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    // A zombie that nobody has reaped yet does not run.
    let is_alive = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    let left = [read("tool"), read("own")];
    assert!(left.iter().all(|pid| is_alive(pid)), "nobody could end them");
    let resumed = finish(path(&["resume", "--json"]).spawn().unwrap());
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(resumed.json()["outputs"]["a"].to_string().contains("done"));
    assert!(!left.iter().any(|pid| is_alive(pid)), "{left:?}");
}
