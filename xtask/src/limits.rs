//! Eight processes and one account: how well the program keeps to a limit that it shares with others.
//!
//! Owns the measurement: eight real processes of twenty branches each call `pipeline mock-server`, which enforces a limit of
//! tokens a minute and has none of them left when they begin. Told is what the server refused, when, and how much of the
//! limit was used. Must not know any crate of the workspace.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clock::timed;
use crate::loopback::{Background, ask, scratch};
use crate::repo::Repo;
use crate::report::{self, Verdict};

/// Processes at once.
const PROCESSES: u32 = 8;

/// Branches of each.
const BRANCHES: u32 = 20;

/// Calls that the limit allows in a second: enough that none of them is much of it.
const CALLS_A_SECOND: u32 = 5;

/// The part of the time in which the processes find out what the limit is.
const WARM_UP: f64 = 0.15;

/// The part of the limit that must be used.
const LEAST_USE: f64 = 0.85;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Tokens a minute.
    pub per_minute: u32,
    /// About how long it takes.
    pub seconds: u32,
    /// The program as users have it.
    pub release: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { per_minute: 30_000, seconds: 60, release: false }
    }
}

/// A call as the server saw it.
struct Call {
    /// Seconds since the first.
    at: f64,
    tokens: f64,
    is_refused: bool,
}

/// Measures.
pub fn run(repo: &Repo, options: Options) -> Result<Verdict> {
    let pipeline = repo.build_binary(options.release)?;
    let dir = scratch(&repo.root().join("target/limits"), "run")?;
    let per_minute = options.per_minute.to_string();
    // The server counts what it is sent; an answer of one word makes no difference to the program, which counts both.
    let rules = dir.join("rules.yaml");
    fs::write(&rules, "rules: [{text: ok}]\n")?;
    let rules = rules.display().to_string();
    let args = ["--tokens-per-minute", &per_minute, "--rules", &rules];
    let (_server, port) = Background::mock_server(&pipeline, &args)?;
    let each = options.per_minute / 60 / CALLS_A_SECOND;
    let calls = (options.seconds * CALLS_A_SECOND).div_ceil(PROCESSES);
    fs::write(dir.join("limited.yaml"), file(port, each, calls))?;
    use_up(port, options.per_minute)?;
    let (ended, took) = timed(|| -> Result<()> {
        let all: Vec<Child> = (0..PROCESSES).map(|_| start(&pipeline, &dir)).collect::<Result<_>>()?;
        for process in all {
            let output = process.wait_with_output()?;
            ensure!(output.status.success(), "a run failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    });
    ended?;
    let calls = calls_of(&ask(port, "GET", "/__log", &Value::Null)?)?;
    judge(&calls, options, took)
}

/// So many calls of so many tokens, in branches that wait as long as they must.
fn file(port: u16, tokens: u32, calls: u32) -> String {
    // Four bytes are a token, and what stands around a prompt of this length is about 130 bytes.
    let prompt = "word ".repeat((tokens * 4).saturating_sub(130) as usize / 5);
    format!(
        "workflow:
  name: limited
  providers: {{mine: {{kind: openai, base_url: 'http://127.0.0.1:{port}/v1'}}}}
  steps:
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: {BRANCHES}
      data_source: range({calls})
      timeout: 1h
      steps:
        - {{name: ask, type: prompt, provider: mine, model: m, max_output_tokens: 8, timeout: 1h, retry: {{max_attempts: 50}}, prompt: '{{{{ loop.index }}}} {prompt}'}}
"
    )
}

/// Leaves nothing of the minute's tokens, as others who use the account may have done.
fn use_up(port: u16, per_minute: u32) -> Result<()> {
    let all = "x".repeat(per_minute as usize * 4 - 100);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": all}]});
    ask(port, "POST", "/v1/chat/completions", &body)?;
    ask(port, "POST", "/__log", &json!([]))?;
    Ok(())
}

fn start(pipeline: &Path, dir: &Path) -> Result<Child> {
    let mut command = Command::new(pipeline);
    command.args(["run", "limited.yaml", "--yes", "--json"]).current_dir(dir).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().context("the program does not start")
}

fn calls_of(log: &Value) -> Result<Vec<Call>> {
    let entries = log.as_array().context("the log is no list")?;
    let first = entries.iter().find_map(|e| e["t"].as_f64()).context("nobody called")?;
    let call = |entry: &Value| {
        Some(Call {
            at: entry["t"].as_f64()? - first,
            tokens: entry["tokens"].as_f64()?,
            is_refused: entry["refused"].as_bool()?,
        })
    };
    Ok(entries.iter().filter_map(call).collect())
}

fn judge(calls: &[Call], options: Options, took: Duration) -> Result<Verdict> {
    let last = calls.last().map_or(0.0, |call| call.at);
    let from = last * WARM_UP;
    let used: f64 = calls.iter().filter(|c| c.at > from && !c.is_refused).map(|c| c.tokens).sum();
    let allowed = f64::from(options.per_minute) / 60.0 * (last - from);
    let (early, late): (Vec<&Call>, Vec<&Call>) =
        calls.iter().filter(|c| c.is_refused).partition(|c| c.at <= from);
    let share = used / allowed;
    let served = calls.iter().filter(|c| !c.is_refused).count();
    report::line(format!(
        "{PROCESSES} processes × {BRANCHES} branches, {} tokens a minute, {:.0} s: {served} calls of {:.0} tokens\n\
         refused: {} in the first {from:.0} s, {} afterwards\n\
         used of the limit afterwards: {:.1} % (a call is {:.1} % of a second's tokens)",
        options.per_minute,
        took.as_secs_f64(),
        calls.first().map_or(0.0, |c| c.tokens),
        early.len(),
        late.len(),
        share * 100.0,
        calls.first().map_or(0.0, |c| c.tokens) * 6000.0 / f64::from(options.per_minute),
    ))?;
    let mut problems = Vec::new();
    if !late.is_empty() {
        let when: Vec<String> = late.iter().map(|c| format!("{:.1}", c.at)).collect();
        problems.push(format!("refused after the warm-up, at {} s", when.join(", ")));
    }
    if share < LEAST_USE {
        problems.push(format!("only {:.1} % of the limit were used", share * 100.0));
    }
    Ok(Verdict::from_problems(problems, format!("{:.1} % of the limit, nothing refused", share * 100.0)))
}
