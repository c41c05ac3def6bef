//! T7 and T18 of `cargo xtask reliability`: stopped in any way, or killed, a run leaves no process, and can be resumed.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline_core::conformance::trials::{Random, Trials, skip};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use super::crash::{check_journal, facts, signal_if_alive, wait_for};
use super::sandbox::missing;
use super::support::{Scratch, finish, signal};

/// Children that do not want to go: deaf to SIGTERM, in the background, twice removed, with the pipes held open. They go at
/// once when the file `$1` is there.
const SCRIPT: &str = r#"[ -e "$1" ] && exit 0; trap "" TERM INT HUP; sleep $0 & (sleep $0 &); (sh -c "trap '' TERM; sleep $0; :" &); setsid sleep $0 & sleep $0"#;

/// Processes of one step that have the mark in their command line, and are not the step's own shells.
const EACH: usize = 5;

fn file(mark: &str, go: &str) -> String {
    format!(
        "workflow:
  name: stopped
  permissions: {{shell: [sh]}}
  steps:
    - name: all
      type: parallel
      steps:
        - {{name: a, type: shell, command: [sh, -c, '{script}', '{mark}', '{go}']}}
        - {{name: b, type: shell, command: [sh, -c, '{script}', '{mark}', '{go}']}}
",
        script = SCRIPT.replace('\'', "''"),
    )
}

/// Processes whose command line is `sleep` with that mark.
fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("sleep\0{mark}\0");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    })
    .collect()
}

/// How a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Interrupt,
    Terminate,
    HangUp,
    Twice,
    Unread,
}

const WAYS: [Way; 5] = [Way::Interrupt, Way::Terminate, Way::HangUp, Way::Twice, Way::Unread];

/// Stops a run that way; how long its processes were there afterwards.
fn stop(way: Way, number: u64, random: &mut Random) -> Result<Duration, String> {
    let scratch = Scratch::new();
    let mark = format!("600.{}{number:05}", std::process::id());
    let go = scratch.path().join("go");
    scratch.write("stopped.yaml", &file(&mark, &go.display().to_string()));
    let mut child = scratch
        .command_with_path(&["run", "stopped.yaml", "--yes", "--mock", "--events", "--run-id", "r"])
        .spawn()
        .expect("it starts");
    // Most are stopped when all children are there, some in the middle of starting them.
    if random.percent(70) {
        wait_for("the children", || marked(&mark).len() == 2 * EACH);
    } else {
        std::thread::sleep(Duration::from_millis(40 + random.draw() % 150));
    }
    match way {
        Way::Interrupt => signal(&child, Signal::INT),
        Way::Terminate => signal(&child, Signal::TERM),
        Way::HangUp => signal(&child, Signal::HUP),
        Way::Twice => {
            signal(&child, Signal::INT);
            std::thread::sleep(Duration::from_millis(random.draw() % 30));
            signal_if_alive_with(&child, Signal::INT);
        }
        Way::Unread => {
            drop(child.stdout.take());
            signal(&child, Signal::INT);
        }
    }
    let ended = finish(child);
    let begun = Instant::now();
    while !marked(&mark).is_empty() {
        if begun.elapsed() > Duration::from_secs(6) {
            let left = marked(&mark);
            for pid in &left {
                let _gone = rustix::process::kill_process(
                    rustix::process::Pid::from_raw(*pid).unwrap(),
                    Signal::KILL,
                );
            }
            return Err(format!(
                "{way:?}: {} processes are left ({:?}: {})",
                left.len(),
                ended.code,
                ended.stderr
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed();
    if !scratch.path().join(".pipeline/runs/r/journal.log").exists() {
        return Ok(took);
    }
    std::fs::write(&go, "").expect("a file");
    let resumed = scratch.run_with_path(&["resume", "r", "--json"]);
    if resumed.code != Some(0) {
        return Err(format!("{way:?}: the resume ends with {:?}: {}", resumed.code, resumed.stderr));
    }
    check_journal(&scratch.path().join(".pipeline/runs/r")).map(|()| took)
}

fn signal_if_alive_with(child: &std::process::Child, sent: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // The first may have been enough.
    let _ = rustix::process::kill_process(pid, sent);
}

/// What SIGKILL leaves: nobody is there to clean up. Told, not judged.
fn killed(number: u64) -> usize {
    let scratch = Scratch::new();
    let mark = format!("600.{}{number:05}", std::process::id());
    scratch.write("stopped.yaml", &file(&mark, "/nowhere"));
    let child =
        scratch.command_with_path(&["run", "stopped.yaml", "--yes", "--mock"]).spawn().expect("it starts");
    wait_for("the children", || marked(&mark).len() == 2 * EACH);
    signal_if_alive(&child);
    // The children hold its pipes: they go first.
    let left = marked(&mark);
    for pid in &left {
        let _gone =
            rustix::process::kill_process(rustix::process::Pid::from_raw(*pid).unwrap(), Signal::KILL);
    }
    finish(child);
    left.len()
}

/// Naive: the child is killed, and not what it started.
/// Figure: SIGINT, SIGTERM, SIGHUP, SIGINT twice and a closed pipe, at random times.
#[test]
fn t07_a_run_that_is_stopped_leaves_no_process() {
    let trials = Trials::of("T7", 5);
    let mut random = Random::new(trials.seed());
    let mut slowest: BTreeMap<Way, Duration> = BTreeMap::new();
    for number in 0..trials.wanted() {
        if !trials.go_on() {
            break;
        }
        let way = WAYS[usize::try_from(number).unwrap() % WAYS.len()];
        trials.count(stop(way, number, &mut random).map(|took| {
            let most = slowest.entry(way).or_default();
            *most = took.max(*most);
        }));
    }
    let left = killed(99_999);
    let slowest = slowest.values().max().copied().unwrap_or_default().as_millis();
    trials.finish(format!(
        "SIGINT, SIGTERM, SIGHUP, SIGINT twice and a closed pipe with {} stubborn children each: none left after {slowest} ms, each run resumes; SIGKILL leaves {left}",
        2 * EACH,
    ));
}

/// Sixteen at once, of which every second is as stubborn as it can be.
fn wide(mark: &str, go: &str) -> String {
    format!(
        "workflow:
  name: killed
  permissions: {{shell: [sh]}}
  steps:
    - {{name: before, type: test_echo, value: start}}
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: 16
      data_source: range(16)
      steps:
        - {{name: s, type: shell, command: [sh, -c, '[ $(($2 % 2)) = 1 ] && exit 0; {script}', '{mark}', '{go}', '{{{{ loop.item }}}}']}}
",
        script = SCRIPT.replace('\'', "''"),
    )
}

/// Ends of attempts that were told, of lines that are whole.
fn told_ends(stdout: &str) -> Vec<(String, u64)> {
    let whole = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
    let events = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ends = events.filter(|event| event["fact"] == "AttemptEnded");
    ends.map(|end| (end["path"].as_str().unwrap().to_owned(), end["turn"].as_u64().unwrap())).collect()
}

/// Whether all processes with that mark end in time.
fn all_end(mark: &str) -> bool {
    let begun = Instant::now();
    while !marked(mark).is_empty() {
        if begun.elapsed() > Duration::from_secs(6) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Kills a run in a sandbox without warning and resumes it; how many ends it had told.
fn kill_and_resume(number: u64, random: &mut Random) -> Result<usize, String> {
    let scratch = Scratch::new();
    let mark = format!("601.{}{number:05}", std::process::id());
    let go = scratch.path().join("go");
    scratch.write("killed.yaml", &wide(&mark, &go.display().to_string()));
    let run = ["run", "killed.yaml", "--yes", "--mock", "--sandbox", "--events", "--run-id", "r"];
    let mut child = scratch.command_with_path(&run).spawn().expect("it starts");
    let (enough, begun) = (random.below(8 * EACH + 1), Instant::now());
    while marked(&mark).len() < enough && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(random.draw() % 40));
    signal_if_alive(&child);
    // Until it is dead it owns the run.
    child.wait().expect("it was started here");
    // A sandbox that was just being made needs a moment to show what would be in it.
    std::thread::sleep(Duration::from_millis(150));
    let left = if all_end(&mark) { Vec::new() } else { marked(&mark) };
    for pid in &left {
        // What is left is not left for good.
        let _gone =
            rustix::process::kill_process(rustix::process::Pid::from_raw(*pid).unwrap(), Signal::KILL);
    }
    let told = told_ends(&finish(child).stdout);
    if !left.is_empty() {
        return Err(format!("kill {number}: {} processes are left", left.len()));
    }
    let dir = scratch.path().join(".pipeline/runs/r");
    if !dir.join("journal.log").exists() {
        return Ok(0);
    }
    std::fs::write(&go, "").expect("a file");
    let resumed = scratch.run_with_path(&["resume", "r", "--json"]);
    if !all_end(&mark) {
        return Err(format!("kill {number}: processes are left after the resume"));
    }
    let kept = facts(&dir);
    if let Some(lost) = told.iter().find(|(path, turn)| {
        !kept.iter().any(|(p, t, fact)| p == path && t == turn && fact == "AttemptEnded")
    }) {
        return Err(format!("kill {number}: {}#{} was told as done, and is lost", lost.0, lost.1));
    }
    if resumed.code != Some(0) {
        return Err(format!("kill {number}: the resume ends with {:?}: {}", resumed.code, resumed.stderr));
    }
    check_journal(&dir).map_err(|why| format!("kill {number}: {why}"))?;
    Ok(told.len())
}

/// Naive: whoever is killed cannot clean up, so that what it started goes on in groups and sessions of its own.
#[test]
fn t18_n08a_x10_a_run_that_is_killed_in_a_sandbox_loses_nothing_and_leaves_no_process() {
    if let Some(why) = missing() {
        return skip("T18", &why);
    }
    let trials = Trials::of("T18", 4);
    let mut random = Random::new(trials.seed());
    let mut told = 0;
    for number in 0..trials.wanted() {
        if !trials.go_on() {
            break;
        }
        trials.count(kill_and_resume(number, &mut random).map(|ends| told += ends));
    }
    trials.finish(format!(
        "kill -9 of a fan-out of 16, with {EACH} stubborn children in every second branch: no process left, none of {told} ends that were told is lost or done again",
    ));
}
