//! `cargo bench -p pipeline-cli --bench fan_out [ROUNDS]`: ten thousand branches of 50 ms, a thousand at once, and what watching
//! them costs.
//!
//! The first row is the machine's own limit: as many sleeping tasks, and nothing else. The second is the engine with its journal
//! and no observer, in this process; the others are `pipeline run` with more and more to tell. Times are from the first start to the
//! last end in the journal. The rounds alternate, and medians are told: run it on a machine that does nothing else.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement that people start by hand"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pipeline_core::engine::RunControl;
use pipeline_core::fact::RunStatus;
use pipeline_core::runner::Runner;
use pipeline_core::value::Value;
use pipeline_providers::MockRules;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BRANCHES: usize = 10_000;
const AT_ONCE: usize = 1_000;
const EACH: Duration = Duration::from_millis(50);

const FILE: &str = "workflow:
  name: fan
  steps:
    - name: each
      type: for_loop
      data_source: '{{ range(10000) }}'
      parallel: true
      max_parallel: 1000
      steps:
        - {name: ask, type: claude, prompt: hello}
";

const RULES: &str = "rules:\n  - {delay_ms: 50, text: ok}\n";

/// What is measured.
const ROWS: [(&str, &[&str]); 5] = [
    ("tokio alone", &[]),
    ("engine and journal, no observer", &[]),
    ("pipeline run -q", &["-q"]),
    ("pipeline run, progress as lines", &[]),
    ("pipeline run --metrics-file", &["--metrics-file", "figures.prom"]),
];

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(7);
    let mut times = ROWS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (row, (_, flags)) in ROWS.iter().enumerate() {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            times[row].push(match row {
                0 => in_runtime(alone()),
                1 => in_runtime(embedded(dir.path())),
                _ => by_program(dir.path(), flags),
            });
        }
    }
    let ideal = EACH.as_secs_f64() * (BRANCHES / AT_ONCE) as f64;
    println!("{BRANCHES} branches of {EACH:?}, {AT_ONCE} at once: {:.0} ms would be ideal", ideal * 1e3);
    for ((name, _), mut times) in ROWS.iter().zip(times) {
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let median = times[times.len() / 2];
        println!(
            "{name:<34} {:>5.0} ms  ({:.0} to {:.0})  {:>3.0} % of ideal",
            ms(median),
            ms(times[0]),
            ms(times[times.len() - 1]),
            100.0 * ideal / median.as_secs_f64()
        );
    }
}

fn in_runtime(work: impl Future<Output = Duration>) -> Duration {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// Nothing but the tasks.
async fn alone() -> Duration {
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for number in 0..BRANCHES {
        if number >= AT_ONCE {
            tasks.join_next().await.expect("a task").expect("it ends");
        }
        tasks.spawn(tokio::time::sleep(EACH));
    }
    while tasks.join_next().await.is_some() {}
    begun.elapsed()
}

/// The library, with nobody who watches.
async fn embedded(dir: &Path) -> Duration {
    let rules = MockRules::parse(RULES, "rules.yaml").expect("rules");
    let runner = Runner::new(pipeline_checkpoint::FileStore::new(dir.join("state")))
        .steps(pipeline_steps::builtin(Arc::default()))
        .expect("steps")
        .providers(pipeline_providers::mocks(Arc::new(rules)))
        .expect("providers")
        .in_directory(dir);
    let plan = runner.compile_text("fan.yaml", FILE).expect("a plan");
    let report = runner.run("r", &plan, Value::Null, RunControl::default()).await.expect("a journal");
    assert_eq!(report.status, RunStatus::Ok);
    span(&dir.join("state/runs/r/journal.log"))
}

fn by_program(dir: &Path, flags: &[&str]) -> Duration {
    fs::write(dir.join("fan.yaml"), FILE).expect("a file");
    fs::write(dir.join("rules.yaml"), RULES).expect("a file");
    let status = Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(["run", "fan.yaml", "--mock-rules", "rules.yaml", "--run-id", "r"])
        .args(flags)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("it starts");
    assert!(status.success(), "{status}");
    span(&dir.join(".pipeline/runs/r/journal.log"))
}

/// From the first start of an attempt to the last end of one.
fn span(journal: &Path) -> Duration {
    let text = fs::read_to_string(journal).expect("a journal");
    let times = |fact: &str| {
        let mark = format!("\"fact\":\"{fact}\"");
        let lines = text.lines().filter(move |line| line.contains(&mark));
        lines
            .filter_map(|line| {
                serde_json::from_str::<Value>(&line[line.find('{')?..]).ok()?["elapsed_ms"].as_u64()
            })
            .collect::<Vec<_>>()
    };
    let (starts, ends) = (times("AttemptStarted"), times("AttemptEnded"));
    assert_eq!((starts.len(), ends.len()), (BRANCHES, BRANCHES));
    Duration::from_millis(ends.iter().max().expect("an end") - starts.iter().min().expect("a start"))
}
