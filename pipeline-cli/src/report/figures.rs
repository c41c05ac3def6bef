//! The figures of a run in text: what `runs show -v` adds.

use crate::advice;
use crate::console::{CYAN, paint, short};
use crate::figures::Figures;
use crate::report;

/// Most places that are shown.
const MOST: usize = 12;

/// A table of the slowest places, and advice below it.
pub fn text(figures: &Figures) -> String {
    let families = figures.families();
    let mut out = format!(
        "\n{}\n",
        paint(
            CYAN,
            format!(
                "{:>9} {:>6} {:>7} {:>9} {:>9} {:>9} {:>8}  step",
                "busy", "times", "retries", "median", "longest", "waited", "tokens"
            )
        )
    );
    for (name, total, _) in advice::slowest(figures, MOST) {
        let Some(family) = families.get(&name) else { continue };
        out.push_str(&format!(
            "{:>9} {:>6} {:>7} {:>9} {:>9} {:>9} {:>8}  {}\n",
            report::time(total),
            family.instances,
            family.retries,
            report::time(family.percentile(50)),
            report::time(family.percentile(100)),
            report::time(family.waited_ms),
            family.usage.tokens(),
            short(&name, 60),
        ));
    }
    let seconds = figures.elapsed_ms as f64 / 1000.0;
    let rate = if seconds > 0.0 { figures.ended_attempts() as f64 / seconds } else { 0.0 };
    out.push_str(&format!(
        "{} attempts, {rate:.1} a second, at most {} at once, {} facts, {} process{}\n",
        figures.ended_attempts(),
        figures.most_at_once,
        figures.facts,
        figures.processes,
        if figures.processes == 1 { "" } else { "es" },
    ));
    for sentence in advice::advice(figures) {
        out.push_str(&format!("{} {}\n", paint(CYAN, "advice:"), short(&sentence, 400)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{end, records, run_started, start};

    #[test]
    fn a_table_begins_with_the_slowest() {
        let facts = vec![
            (0, run_started("r")),
            (0, start("quick", 1)),
            (3, end("quick", 1, 3, None)),
            (3, start("slow", 1)),
            (2_003, end("slow", 1, 2_000, None)),
        ];
        let text = anstream::adapter::strip_str(&text(&Figures::of(&records(facts)))).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[2].starts_with("    2.0 s      1       0     2.0 s     2.0 s      0 ms       15  slow"),
            "{text}"
        );
        assert!(lines[3].ends_with("  quick"), "{text}");
        assert!(text.contains("2 attempts, 1.0 a second, at most 1 at once, 5 facts, 1 process\n"), "{text}");
        assert!(text.contains("advice: `slow` took 2.0 s of 2.0 s"), "{text}");
    }
}
