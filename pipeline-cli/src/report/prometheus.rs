//! Figures in the text format that Prometheus reads, for its node exporter's folder of text files.
//!
//! Owns the names of metrics. Series stand for places of the file, never for items, so that their number is bounded.

use std::fmt::Write;

use crate::exit::status_name;
use crate::figures::Figures;

/// All metrics of one run.
pub fn text(figures: &Figures, memory: Option<u64>) -> String {
    let run = format!(
        "workflow=\"{}\",run_id=\"{}\",mode=\"{}\"",
        label(&figures.workflow),
        label(&figures.run_id),
        label(&figures.mode)
    );
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, series: Vec<(String, f64)>| {
        if !series.is_empty() {
            let _ok = writeln!(out, "# HELP pipeline_{name} {help}\n# TYPE pipeline_{name} {kind}");
            for (labels, value) in series {
                let _ok = writeln!(out, "pipeline_{name}{{{labels}}} {value}");
            }
        }
    };
    let status = figures.status.map_or("running", status_name);
    one(
        "run_status",
        "gauge",
        "1 for the status that the run has",
        vec![(format!("{run},status=\"{status}\""), 1.0)],
    );
    one("run_seconds", "gauge", "Run time of the run", vec![(run.clone(), figures.elapsed_ms as f64 / 1e3)]);
    one(
        "run_attempts_total",
        "counter",
        "Attempts that have ended",
        vec![(run.clone(), figures.ended_attempts() as f64)],
    );
    one(
        "run_most_at_once",
        "gauge",
        "Most attempts at once",
        vec![(run.clone(), figures.most_at_once as f64)],
    );
    one(
        "run_tokens_total",
        "counter",
        "Tokens of all kinds",
        vec![(run.clone(), figures.usage.tokens() as f64)],
    );
    // A cost that is not known is no series at all: 0 would be a lie.
    one(
        "run_cost_usd_total",
        "counter",
        "US dollars, where every call has a known price",
        figures
            .usage
            .cost_usd
            .filter(|_| figures.usage.unpriced_calls == 0)
            .map(|usd| (run.clone(), usd))
            .into_iter()
            .collect(),
    );
    one(
        "run_unpriced_calls_total",
        "counter",
        "Model calls without a known price",
        vec![(run.clone(), figures.usage.unpriced_calls as f64)],
    );
    one(
        "process_peak_memory_bytes",
        "gauge",
        "Most memory that the process had",
        memory.map(|m| (run.clone(), m as f64)).into_iter().collect(),
    );
    let families = figures.families();
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&crate::figures::Family) -> f64| {
        let series =
            families.iter().map(|(step, family)| (format!("{run},step=\"{}\"", label(step)), value(family)));
        one(name, kind, help, series.collect());
    };
    each("step_instances_total", "counter", "Instances of a step", &|f| f.instances as f64);
    each("step_failed_total", "counter", "Instances that failed", &|f| f.failed as f64);
    each("step_retries_total", "counter", "Attempts after a failed one", &|f| f.retries as f64);
    each("step_busy_seconds_total", "counter", "Working time", &|f| f.total_ms() as f64 / 1e3);
    each("step_longest_seconds", "gauge", "The longest instance", &|f| f.percentile(100) as f64 / 1e3);
    each("step_wait_seconds_total", "counter", "Waiting for a place", &|f| f.waited_ms as f64 / 1e3);
    each("step_tokens_total", "counter", "Tokens of all kinds", &|f| f.usage.tokens() as f64);
    out
}

/// A label's value: quotes, backslashes and line ends are escaped.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{end, records, run_started, start};

    #[test]
    fn series_stand_for_places_of_the_file() {
        let mut facts = vec![(0, run_started("r\"1"))];
        for item in 0..100 {
            facts.push((item, start(&format!("fan[{item}]/x"), 1)));
            facts.push((item + 1, end(&format!("fan[{item}]/x"), 1, 1_000, None)));
        }
        let text = text(&Figures::of(&records(facts)), Some(2048));
        let labels = "workflow=\"demo\",run_id=\"r\\\"1\",mode=\"mock\"";
        for line in [
            format!("pipeline_step_busy_seconds_total{{{labels},step=\"fan[]/x\"}} 100"),
            format!("pipeline_run_tokens_total{{{labels}}} 1500"),
            format!("pipeline_process_peak_memory_bytes{{{labels}}} 2048"),
            "# TYPE pipeline_run_seconds gauge".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.lines().count() < 60, "{text}");
    }
}
