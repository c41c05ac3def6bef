//! `pipeline bench`: what the engine itself costs on this machine, beside what this machine's disk and processes cost.
//!
//! Owns `pipeline.bench/1`. The numbers are of this moment: run it twice before believing it.

use std::io::Write;
use std::time::Duration;

use pipeline_core::value::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::app::App;
use crate::args::Bench;
use crate::exit::{Exit, Failure};
use crate::itself;

const PATIENCE: Duration = Duration::from_secs(600);

/// Measures and tells.
///
/// # Errors
/// [`Failure`] when a measurement cannot be made.
pub async fn bench(app: &App, args: &Bench) -> Result<Exit, Failure> {
    let unusable = |error: std::io::Error| {
        Failure::environment(format!("a measurement needs a folder: {error}")).help("name another with --dir")
    };
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(app.settings.absolute(dir)),
        None => tempfile::tempdir_in(&app.settings.working),
    }
    .map_err(unusable)?;
    let flush = flush_us(dir.path()).map_err(unusable)?;
    let spawn = spawn_ms(app, dir.path()).await?;
    let steps = args.steps.max(1);
    let chain = format!(
        "workflow:\n  name: chain\n  budget: {{max_steps: 10000000}}\n  steps:\n    - name: l\n      type: for_loop\n      data_source: \"{{{{ range({steps}) }}}}\"\n      steps: [{{name: s, type: test_echo, value: 1}}]\n  outputs: {{n: steps.l.total_items}}\n"
    );
    let one = measured(app, dir.path(), "chain", &chain).await?;
    let wide =
        chain.replace("      data_source", "      parallel: true\n      max_parallel: 64\n      data_source");
    let many = measured(app, dir.path(), "wide", &wide).await?;
    let per = |ms: u64| ms as f64 * 1000.0 / f64::from(steps);
    let document = json!({
        "schema": "pipeline.bench/1",
        "machine": {"flush_us": flush, "spawn_ms": spawn},
        "steps": steps,
        "sequence": {"run_ms": one, "step_us": per(one), "of_a_flush": per(one) / flush.max(1.0)},
        "fan_out": {"run_ms": many, "step_us": per(many), "of_a_flush": per(many) / flush.max(1.0)},
    });
    app.console.out(&if app.settings.json { format!("{document:#}\n") } else { text(&document) })?;
    Ok(Exit::Success)
}

fn text(document: &Value) -> String {
    let number = |path: &str| document.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    format!(
        "this machine: {:.0} µs for a flush to disk (median), {:.1} ms to start a process\n\
         {} steps in a sequence: {:.0} µs a step, {:.2} of a flush\n\
         {} steps 64 at once:    {:.0} µs a step, {:.2} of a flush\n",
        number("/machine/flush_us"),
        number("/machine/spawn_ms"),
        number("/steps"),
        number("/sequence/step_us"),
        number("/sequence/of_a_flush"),
        number("/steps"),
        number("/fan_out/step_us"),
        number("/fan_out/of_a_flush"),
    )
}

/// Median microseconds of appending a record's worth of bytes and flushing them.
fn flush_us(dir: &std::path::Path) -> std::io::Result<f64> {
    let mut file = std::fs::File::create(dir.join("flush"))?;
    let mut times = Vec::new();
    for _ in 0..101 {
        let begun = Instant::now();
        file.write_all(&[b'x'; 300])?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

async fn spawn_ms(app: &App, dir: &std::path::Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    for _ in 0..10 {
        itself::run(app, &itself::words(&["--version"]), dir, PATIENCE).await?;
    }
    Ok(begun.elapsed().as_secs_f64() * 100.0)
}

async fn measured(app: &App, dir: &std::path::Path, name: &str, text: &str) -> Result<u64, Failure> {
    let file = dir.join(format!("{name}.yaml"));
    std::fs::write(&file, text)
        .map_err(|e| Failure::environment(format!("cannot write {}: {e}", file.display())))?;
    let args = itself::words(&["run", &file.display().to_string(), "--mock", "--json", "-q"]);
    let ended = itself::run(app, &args, dir, PATIENCE).await?;
    ended.json()["duration_ms"].as_u64().ok_or_else(|| {
        Failure::environment(format!(
            "the run for a measurement did not end well: {}",
            ended.stderr.lines().next().unwrap_or("")
        ))
    })
}
