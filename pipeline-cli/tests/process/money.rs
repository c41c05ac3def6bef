//! Money with the real program: a limit holds over kills, and over calls that fail after they were answered.

use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};

use super::crash::journal_length;
use super::server::Server;
use super::support::{Ended, Scratch, finish};

/// Three hundred calls of random cost, four at once; more than the limit in all.
const FILE: &str = r#"
workflow:
  name: dear
  budget: {max_cost_usd: 10}
  providers:
    mine: {kind: openai, base_url: "BASE/v1", prices: {m: {input: 0, output: 1000}}}
  steps:
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: 4
      break_on_error: false
      data_source: range(300)
      steps:
        - {name: pay, type: prompt, provider: mine, model: m, max_output_tokens: 100, prompt: "call {{ loop.index }} costs {{ loop.index * 37 % 10 }}x"}
"#;

/// Tokens that a call costs whose prompt says `costs Nx`; a thousandth of a dollar each.
fn tokens(digit: usize) -> usize {
    digit * 11
}

/// A server that answers a prompt that says `costs Nx` with that many tokens, after a while.
fn server() -> Server {
    let rules = (0..10).map(|digit| {
        format!(
            "  - {{match: {{prompt_contains: 'costs {digit}x'}}, text: paid, delay_ms: [1, 40], usage: {{input: 7, output: {}}}}}\n",
            tokens(digit)
        )
    });
    Server::start(&format!("rules:\n{}", rules.collect::<String>()), &[])
}

/// Tokens that it billed: for every request that it took on, whoever was there to hear the answer.
fn billed(server: &Server) -> usize {
    let cost = |request: &Value| {
        let text = request["body"]["messages"].to_string();
        let digit = text.split_once("costs ").unwrap().1.chars().next().unwrap();
        tokens(digit.to_digit(10).unwrap() as usize)
    };
    server.requests().iter().map(cost).sum()
}

/// Naive: what was in flight when the process was killed is forgotten, and spent again by the next one.
#[test]
fn x10_x17_the_cap_holds_over_twenty_kills() {
    const CAP: usize = 10_000;
    let server = server();
    let scratch = Scratch::new();
    scratch.write("dear.yaml", &FILE.replace("BASE", &server.address));
    let mut child = scratch.spawn(&["run", "dear.yaml", "--yes", "--json"]);
    let mut kills = 0;
    for round in 0..20_u64 {
        // By the journal's growth, so that a busy machine makes no difference: from the first bytes to some ten calls.
        let until = journal_length(scratch.path()) + round.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 6000;
        let is_over = wait(&mut child, || journal_length(scratch.path()) >= until);
        let was_there = child.kill().is_ok() && !is_over;
        let ended = finish(child);
        kills += usize::from(was_there && ended.code.is_none());
        let spent = billed(&server);
        assert!(spent <= CAP, "round {round}: {spent} of {CAP}");
        let is_begun = scratch.path().join(".pipeline/latest").exists();
        let again: &[&str] =
            if is_begun { &["resume", "--json"] } else { &["run", "dear.yaml", "--yes", "--json"] };
        child = scratch.spawn(again);
    }
    let ended = finish(child);
    assert_eq!(ended.code, Some(5), "the limit is reached: {}\n{}", ended.stdout, ended.stderr);
    assert!(
        ended.stderr.contains("max_cost_usd") || ended.stdout.contains("max_cost_usd"),
        "{}",
        ended.stderr
    );
    let spent = billed(&server);
    println!("{kills} kills, {} requests, {spent} of {CAP} tokens billed", server.requests().len());
    assert!(spent <= CAP, "{spent} of {CAP}");
    assert!(kills >= 10, "only {kills} of 20 kills met a living process: the test proves too little");
    // What is counted though nobody saw it is no more than what was in flight: four calls a kill.
    assert!(spent + kills * 4 * 100 + 100 > CAP, "{spent} billed, {kills} kills: too much is counted");
    // And so it stays.
    let again = scratch.run(&["resume", "--json"]);
    assert_eq!((again.code, billed(&server)), (Some(5), spent), "{}", again.stderr);
}

/// Waits until something holds, or the process has ended; true in that case.
fn wait(child: &mut Child, holds: impl Fn() -> bool) -> bool {
    for _ in 0..30_000 {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        if holds() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("nothing happened for 30 s");
}

/// Naive: an answer that is cut off at its limit of tokens is an error of the kind `too_large`, and errors of that kind are
/// free; so the run goes on for ever.
#[test]
fn x17_answers_that_are_cut_off_cost_what_they_cost() {
    let server = server();
    let cut = json!({"text": "some of", "stop": "length", "usage": {"prompt_tokens": 7, "completion_tokens": 100}, "repeat": -1});
    server.door("POST", "/__script", &json!([cut]));
    let scratch = Scratch::new();
    let file = FILE.replace("BASE", &server.address).replace("max_cost_usd: 10", "max_cost_usd: 1");
    scratch.write("dear.yaml", &file);
    let ended: Ended = scratch.run(&["run", "dear.yaml", "--yes", "--json"]);
    assert_eq!(ended.code, Some(5), "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(server.requests().len(), 10, "ten calls of a tenth of a dollar each, and no more");
}

/// Naive: a program that starts others without end is only stopped by the machine.
#[cfg(target_os = "linux")]
#[test]
fn n16_limits_on_processes_files_and_disks_are_those_of_the_machine() {
    let home = Scratch::new();
    let file = |budget: &str, script: &str| {
        format!(
            "workflow:\n  name: m\n  permissions: {{shell: [sh]}}\n  budget: {budget}\n  steps:\n    - {{name: s, type: shell, timeout: 20s, command: [sh, -c, '{script}']}}\n"
        )
    };
    // Each of them leaves its session, so that neither its parent nor its group tells whose it is.
    let many = "for i in 1 2 3 4 5 6; do setsid sh -c \"sleep 30 & sleep 30\" & done; sleep 30";
    for (budget, script, words) in [
        ("{max_processes: 6}", many, "processes that this one started are alive, and 6 are allowed"),
        ("{max_open_files: 3}", "true", "files open, and 3 are allowed"),
        ("{min_free_disk_mb: 1000000000}", "true", "and 1000000000 must stay free"),
    ] {
        home.write("m.yaml", &file(budget, script));
        let begun = tokio::time::Instant::now();
        let stopped = home.run(&["run", "m.yaml"]);
        assert_eq!(stopped.code, Some(5), "{budget}: {}", stopped.stderr);
        assert!(stopped.stderr.contains(words), "{budget}: {}", stopped.stderr);
        assert!(begun.elapsed().as_secs() < 10, "{budget}: it did not wait for the step's end");
    }
    home.write("m.yaml", &file("{max_processes: 6, max_open_files: 1000, min_free_disk_mb: 1}", "sleep 0.2"));
    let fine = home.run(&["run", "m.yaml"]);
    assert_eq!(fine.code, Some(0), "{}", fine.stderr);
}

/// Naive: the first look is a while after a step's start, and the run has ended by then.
#[test]
fn n16_a_limit_of_memory_that_the_program_has_passed_at_its_start_is_no_ok() {
    let home = Scratch::new();
    let text = |most: u32| {
        format!(
            "workflow:\n  name: m\n  budget: {{max_memory_mb: {most}}}\n  steps:\n    - {{name: s, type: set_variable, variables: {{a: 1}}}}\n"
        )
    };
    home.write("m.yaml", &text(1));
    let stopped = home.run(&["run", "m.yaml", "--mock"]);
    assert_eq!(stopped.code, Some(5), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("and 1 are allowed while `s` runs"), "{}", stopped.stderr);
    home.write("m.yaml", &text(4000));
    let fine = home.run(&["run", "m.yaml", "--mock"]);
    assert_eq!(fine.code, Some(0), "{}", fine.stderr);
}
