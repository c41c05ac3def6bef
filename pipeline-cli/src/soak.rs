//! T17 of `cargo xtask reliability`: one process that makes runs for a long time holds no more at its end than at its beginning.
//!
//! Owns the mix of runs (some end, some fail, are cut off, stopped and resumed, start programs that do not want to end) and what is
//! counted: memory, open files, threads, tasks, child processes, files. Must not know how a run works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline_core::clock::{Clock, SystemClock};
use pipeline_core::conformance::trials::{Random, Trials};
use pipeline_core::engine::RunControl;
use pipeline_core::error::StepError;
use pipeline_core::fact::RunStatus;
use pipeline_core::plan::Plan;
use pipeline_core::resources::Resource;
use pipeline_core::runner::Runner;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use pipeline_providers::MockRules;
use tokio::time::Instant;

use crate::wiring;

/// Panics, or never ends.
struct Bad;

#[derive(schemars::JsonSchema)]
struct BadConfig {
    /// What it does.
    #[expect(dead_code, reason = "it stands for its schema")]
    how: String,
}

#[async_trait]
impl Step for Bad {
    fn spec(&self) -> StepSpec {
        StepSpec { kind: "bad", summary: "", schema: schemars::schema_for!(BadConfig), example: "" }
    }

    async fn run(&self, _: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        assert!(with.json()["how"] != "panic", "on purpose");
        std::future::pending().await
    }
}

/// Steps of the runs, one after the other; `{n}` is the number of the run.
const MIX: [&str; 7] = [
    "[{name: fan, type: for_loop, parallel: true, max_parallel: 4, data_source: range(12), steps: [{name: s, type: test_echo, value: '{{ loop.item }}'}]}]",
    "[{name: fan, type: for_loop, parallel: true, break_on_error: false, data_source: range(4), steps: [{name: s, type: bad, how: panic, condition: loop.item == 1}, {name: h, type: bad, how: hang, timeout: 5ms, condition: loop.item == 2}]}]",
    "[{name: deaf, type: shell, timeout: 60ms, continue_on_error: true, command: [sh, -c, 'trap \"\" TERM; sleep 60 & setsid sleep 60 & sleep 60']}]",
    "[{name: ask, type: claude_session, session_config: {session_name: 's{n}'}, prompt: 'run {n}'}, {name: again, type: claude_session, session_config: {session_name: 's{n}'}, prompt: more}]",
    "[{name: large, type: test_echo, value: '{{ range(16000) }}', output_to_file: 'f.json'}, {name: keep, type: checkpoint, checkpoint_name: kept, state: {n: '{n}'}}]",
    "[{name: slow, type: for_loop, parallel: true, data_source: range(6), steps: [{name: s, type: test_echo, delay_ms: 30, value: '{{ loop.item }}'}]}]",
    "[{name: fan, type: for_loop, parallel: true, break_on_error: true, continue_on_error: true, data_source: range(4), steps: [{name: h, type: bad, how: hang, condition: loop.item != 0}, {name: s, type: bad, how: panic, condition: loop.item == 0}]}]",
];

/// The one that is stopped and resumed.
const SLOW: usize = 5;

fn plan(runner: &Runner, number: u64) -> Arc<Plan> {
    let kind = usize::try_from(number).unwrap() % MIX.len();
    let steps = MIX[kind].replace("{n}", &number.to_string());
    let text = format!("workflow:\n  name: soak\n  permissions: {{shell: [sh]}}\n  steps: {steps}\n");
    runner.compile_text("soak.yaml", &text).unwrap_or_else(|findings| panic!("{findings}"))
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    memory: u64,
    files: usize,
    threads: usize,
    tasks: usize,
    children: usize,
    /// Files that were begun and have no name of their own.
    unfinished: usize,
}

fn held(dir: &Path) -> Held {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let children = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = children.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    Held {
        memory: wiring::resources(Vec::new()).read(Resource::Memory).unwrap(),
        // Without the one that is being counted with.
        files: count("/proc/self/fd") - 1,
        threads: count("/proc/self/task"),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        children: children.map(|list| list.split_whitespace().count()).sum(),
        unfinished: unfinished(dir),
    }
}

fn unfinished(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let counted = entries.map(|entry| {
        let name = entry.file_name();
        let is_one = name.to_string_lossy().starts_with(".tmp");
        usize::from(is_one) + if entry.path().is_dir() { unfinished(&entry.path()) } else { 0 }
    });
    counted.sum()
}

/// One run, and its resume where it is stopped.
async fn once(runner: &Runner, number: u64, random: &mut Random) -> Result<(), String> {
    let (id, control) = (format!("r{number}"), RunControl::default());
    let plan = plan(runner, number);
    let is_stopped = usize::try_from(number).unwrap() % MIX.len() == SLOW;
    let stop = control.stop.clone();
    let wait = Duration::from_millis(random.draw() % 25);
    let running = runner.run(&id, &plan, Value::Null, control);
    let report = if is_stopped {
        let (report, ()) = tokio::join!(running, async {
            tokio::time::sleep(wait).await;
            stop.cancel();
        });
        report
    } else {
        running.await
    };
    let mut status = report.map_err(|error| format!("run {number}: {error}"))?.status;
    if status == RunStatus::Interrupted {
        let resumed = runner.resume(&id, RunControl::default()).await;
        status = resumed.map_err(|error| format!("resume {number}: {error}"))?.status;
    }
    if status == RunStatus::Ok { Ok(()) } else { Err(format!("run {number} is {status:?}")) }
}

/// MiB an hour, by the line that fits best.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let both: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    let spread: f64 = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum();
    if spread > 0.0 { both / spread } else { 0.0 }
}

/// Naive: an attempt that is cut off leaves its task, its child or its lock behind; a map of names is never emptied.
#[test]
fn t17_n08c_x19_a_process_that_makes_runs_for_long_holds_no_more_than_at_first() {
    let trials = Trials::of("T17", 120);
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let state = dir.path().join("state");
    let runner = Runner::new(pipeline_checkpoint::FileStore::new(&state).with_retention(5))
        .steps(wiring::steps())
        .unwrap()
        .step(Bad)
        .unwrap()
        .providers(pipeline_providers::mocks(Arc::new(MockRules::default())))
        .unwrap()
        .in_directory(dir.path())
        .with(|services| {
            services.outputs = wiring::outputs();
            services.sessions = Some(wiring::sessions(&state, Arc::clone(&clock)));
            services.snapshots = Some(wiring::snapshots(&state, clock));
            services.child_env = Arc::new([("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into());
        });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let told = runtime.block_on(async {
        let mut random = Random::new(trials.seed());
        // Caches, buffers and threads are there after a while.
        let warm = (trials.wanted() / 4).max(60);
        for number in 0..warm {
            trials.count(once(&runner, number, &mut random).await);
        }
        let (begun, first) = (Instant::now(), held(dir.path()));
        let mut samples = vec![(0.0, first.memory as f64 / 1_048_576.0)];
        for number in warm..trials.wanted().max(warm + 60) {
            if !trials.go_on() {
                break;
            }
            trials.count(once(&runner, number, &mut random).await);
            if number % 20 == 0 {
                let memory = wiring::resources(Vec::new()).read(Resource::Memory).unwrap() as f64 / 1_048_576.0;
                samples.push((begun.elapsed().as_secs_f64() / 3600.0, memory));
            }
        }
        // The pool for blocking work lets its threads go after ten seconds; what was stopped may be at its end.
        let mut last = held(dir.path());
        for _ in 0..200 {
            if last.tasks <= first.tasks && last.children == 0 && last.files <= first.files {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            last = held(dir.path());
        }
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        trials.make(|| {
            let is_more = last.files > first.files || last.tasks > first.tasks || last.children > 0;
            if is_more || last.unfinished > 0 { Err(format!("at first {first:?}, at last {last:?}")) } else { Ok(()) }
        });
        let slope = slope(&samples);
        // A slope needs time: before that it is noise.
        let is_long = minutes > 30.0;
        trials.make(|| if is_long && slope >= 1.0 { Err(format!("{slope:.2} MiB more an hour")) } else { Ok(()) });
        let memory = if is_long { format!("{slope:+.2} MiB an hour") } else { "too short to tell".to_owned() };
        format!(
            "{} runs in {minutes:.1} minutes after {warm} to warm up: {} files, {} tasks, {} children more; memory: {memory}",
            trials.made(),
            last.files.saturating_sub(first.files),
            last.tasks.saturating_sub(first.tasks),
            last.children,
        )
    });
    trials.finish(told);
}
