//! One limit, many processes: what `cargo xtask limits` measures for a minute, in some seconds.

use serde_json::{Value, json};

use super::server::Server;
use super::support::{Scratch, finish};

/// Tokens a minute: ten thousand a second.
const PER_MINUTE: u32 = 600_000;

/// Calls of some 250 tokens: forty a second are allowed.
fn file(address: &str, calls: u32, at_once: u32) -> String {
    format!(
        "workflow:
  name: limited
  providers: {{mine: {{kind: openai, base_url: '{address}/v1'}}}}
  steps:
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: {at_once}
      data_source: range({calls})
      steps:
        - {{name: ask, type: prompt, provider: mine, model: m, max_output_tokens: 8, retry: {{max_attempts: 20}}, prompt: '{{{{ loop.index }}}} {}'}}
",
        "word ".repeat(170)
    )
}

/// Naive: every process keeps to the limit, and all of them together to eight times as much; or what one read of the clock
/// before another wrote is taken for a new start of the machine, and the whole limit is there again.
#[test]
fn n08d_x25_eight_processes_of_twenty_branches_are_not_refused_once_they_know_the_limit() {
    let server = Server::start("rules: [{text: ok}]", &["--tokens-per-minute", &PER_MINUTE.to_string()]);
    // Others have used the account up: from here on there is what comes back, and no more.
    let all = "x".repeat(PER_MINUTE as usize * 4 - 100);
    server.door(
        "POST",
        "/v1/chat/completions",
        &json!({"model": "m", "messages": [{"role": "user", "content": all}]}),
    );
    let scratch = Scratch::new();
    scratch.write("first.yaml", &file(&server.address, 3, 1));
    scratch.write("limited.yaml", &file(&server.address, 25, 20));
    let first = scratch.run(&["run", "first.yaml", "--yes", "--json"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    // By its last call nothing was left.
    let known = server.requests().last().unwrap()["t"].as_f64().unwrap();
    server.door("POST", "/__log", &json!([]));
    let all: Vec<_> = (0..8).map(|_| scratch.spawn(&["run", "limited.yaml", "--yes", "--json"])).collect();
    for ended in all.into_iter().map(finish) {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let calls = server.requests();
    let at = |call: &Value| call["t"].as_f64().unwrap() - known;
    let refused: Vec<f64> = calls.iter().filter(|c| c["refused"] == true).map(at).collect();
    assert!(refused.is_empty(), "refused after so many seconds: {refused:?}");
    assert_eq!(calls.len(), 200);
    let tokens: f64 = calls.iter().map(|c| c["tokens"].as_f64().unwrap()).sum();
    let share = tokens / (at(&calls[199]) * f64::from(PER_MINUTE) / 60.0);
    println!("{:.0} % of the limit in {:.1} s", share * 100.0, at(&calls[199]));
    // A machine that is busy with other things may not come to use it; one that waits without need uses next to nothing.
    assert!(share > 0.2, "{:.0} % of the limit", share * 100.0);
}
