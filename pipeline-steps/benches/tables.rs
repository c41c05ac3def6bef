//! `cargo bench -p pipeline-steps --bench tables [ROWS]`: how long `data_transform` takes for many rows, and how much memory.
//!
//! One table is filtered, joined with another, grouped with an aggregate, and sorted, as one step does it. The answer for a
//! prefix of ten rows must be the same whether the step is given ten rows or a million.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement that people start by hand"
)]

use std::sync::Arc;
use std::time::Duration;

use pipeline_core::catalog::Services;
use pipeline_core::step::{Step, StepContext};
use pipeline_core::value::{Data, Value};
use pipeline_steps::{FileCache, OutputFiles};
use serde_json::json;

fn context() -> StepContext {
    let mut services = Services::default();
    services.outputs = Arc::new(OutputFiles);
    let deadline = tokio::time::Instant::now() + Duration::from_mins(10);
    StepContext { deadline, ..StepContext::detached(services) }
}

/// Row `n` of a table that does not depend on how many rows there are.
fn row(n: u64) -> Value {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let status = ["completed", "pending", "cancelled"][usize::try_from(mixed % 3).unwrap()];
    json!({
        "id": n,
        "user_id": mixed % 1000,
        "total": (mixed >> 20) % 10_000,
        "status": status,
        "note": format!("order {n}"),
    })
}

fn users() -> Value {
    (0..1000_u64).map(|n| json!({"id": n, "name": format!("user {n}"), "tier": n % 7})).collect()
}

fn operations(shape: &str) -> Value {
    let all = [
        ("filter", json!({"operation": "filter", "condition": "total > 2500 and status != 'cancelled'"})),
        (
            "join",
            json!({"operation": "join", "left_field": "user_id", "join_key": "id",
            "right_source": users(), "as": "user"}),
        ),
        (
            "group",
            json!({"operation": "aggregate", "group_by": "user.tier", "field": "total", "function": "sum"}),
        ),
        ("sort", json!({"operation": "sort", "by": [{"field": "total", "order": "desc"}, "id"]})),
        ("sort groups", json!({"operation": "sort", "field": "user.tier"})),
    ];
    let wanted: Vec<&str> = shape.split(", ").collect();
    wanted.iter().map(|name| all.iter().find(|(n, _)| n == name).expect("an operation").1.clone()).collect()
}

async fn transform(step: &dyn Step, rows: Vec<Value>, shape: &str) -> Value {
    let with = [
        ("input_source", Value::Array(rows)),
        ("operations", operations(shape)),
        ("output_field", Value::from("out")),
    ];
    let with = with.into_iter().map(|(name, value)| (name.to_owned(), Data::new(value))).collect();
    let mut output = step.run(&context(), with).await.expect("it works");
    output.value["out"].take()
}

/// Processor time that this process has used, which a busy machine does not change.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = |at| after.split(' ').nth(at).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// The most memory that this process has held, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

fn main() {
    let count = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(1_000_000_u64);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let steps = pipeline_steps::builtin(Arc::new(FileCache::default()));
    let step = steps.into_iter().find(|s| s.spec().kind == "data_transform").expect("the step");
    runtime.block_on(async {
        let mut whole = Duration::ZERO;
        for shape in ["filter", "join", "sort", "filter, join, sort", "filter, join, group, sort groups"] {
            let rows: Vec<Value> = (0..count).map(row).collect();
            let (begun, used) = (tokio::time::Instant::now(), processor());
            let out = transform(&*step, rows, shape).await;
            let (took, used) = (begun.elapsed(), processor().saturating_sub(used));
            let given = out.as_array().map_or(1, Vec::len);
            println!("{count:>9} rows  {shape:<34} {took:>9.2?} ({used:.2?} of processor)  {given:>7} rows left, peak {} MiB", peak());
            whole = whole.max(used);
        }
        // The rows of the first ten are the same in the large answer.
        let small = transform(&*step, (0..10).map(row).collect(), "filter, join").await;
        let large = transform(&*step, (0..count).map(row).collect(), "filter, join").await;
        let ours = |all: &Value| all.as_array().unwrap().iter().filter(|r| r["id"].as_u64() < Some(10)).cloned().collect::<Vec<_>>();
        assert_eq!(ours(&small), ours(&large), "the answer depends on how many rows there are");
        println!("slowest {whole:.2?} of processor, peak {} MiB (limits: 3 s, 1536 MiB)", peak());
    });
}
