//! What the figures of a run suggest, computed and never canned: each sentence carries the numbers it comes from.
//!
//! Owns the rules. Must not know where figures are shown.

use pipeline_core::fact::Status;

use crate::figures::{Family, Figures};
use crate::report::time;

/// A share of the run below which nothing is worth a word.
const WORTH: u64 = 20;

/// Advice, the most rewarding first.
pub fn advice(figures: &Figures) -> Vec<String> {
    let mut found: Vec<(u64, String)> = Vec::new();
    let run = figures.elapsed_ms.max(1);
    for (name, family) in &figures.families() {
        found.extend(throttled(name, family));
        found.extend(wasted(name, family, figures));
        found.extend(crowded(name, family, run));
        found.extend(one_by_one(name, family, run));
        found.extend(dominant(name, family, run));
        found.extend(straggler(name, family));
        found.extend(cut_off(name, family));
    }
    found.extend(unpriced(figures));
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().map(|(_, text)| text).collect()
}

type Rule = Option<(u64, String)>;

fn throttled(name: &str, family: &Family) -> Rule {
    let hits: usize =
        ["rate_limited", "overloaded", "quota"].iter().filter_map(|k| family.errors.get(k)).sum();
    (hits > 0).then(|| {
        let most = family.at_once;
        let what = if most > 1 {
            format!("with {most} at once: set `max_parallel: {}` there", (most / 2).max(1))
        } else {
            "although it ran alone: give it a longer `retry.base_delay`".to_owned()
        };
        let share = hits as u64 * 100 / family.attempts.max(1) as u64;
        (share + 50, format!("`{name}`: {hits} of {} attempts were turned away, {what}", family.attempts))
    })
}

fn wasted(name: &str, family: &Family, figures: &Figures) -> Rule {
    let (lost, all) = (family.wasted.tokens(), figures.usage.tokens());
    let share = lost * 100 / all.max(1);
    (share >= 5).then(|| {
        let cost = family.wasted.cost_usd.map_or_else(String::new, |usd| format!(" (${usd:.4})"));
        let kinds: Vec<String> = family.errors.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let text = format!(
            "`{name}`: {share}% of all tokens{cost} went into attempts that failed ({})",
            kinds.join(", ")
        );
        (share + 40, text)
    })
}

fn crowded(name: &str, family: &Family, run: u64) -> Rule {
    let is_throttled = ["rate_limited", "overloaded", "quota"].iter().any(|k| family.errors.contains_key(k));
    let share = family.longest_wait_ms * 100 / run;
    (family.at_once > 1 && !is_throttled && share >= WORTH).then(|| {
        let text = format!(
            "`{name}`: the last of {} waited {} for a place while {} ran at once: a larger `max_parallel` would shorten the run",
            family.instances,
            time(family.longest_wait_ms),
            family.at_once,
        );
        (share, text)
    })
}

fn one_by_one(name: &str, family: &Family, run: u64) -> Rule {
    let share = family.total_ms() * 100 / run;
    (family.at_once == 1 && name.contains("[]") && family.instances >= 3 && share >= WORTH).then(|| {
        let text = format!(
            "`{name}`: {} turns ran one after another, {} in all ({share}% of the run): if no turn needs the one before, `parallel: true` runs them at once",
            family.instances,
            time(family.total_ms()),
        );
        (share, text)
    })
}

fn dominant(name: &str, family: &Family, run: u64) -> Rule {
    let share = family.percentile(100) * 100 / run;
    (family.instances == 1 && share >= 50 && run >= 1_000).then(|| {
        (
            share,
            format!(
                "`{name}` took {} of {}: it is the step to make faster",
                time(family.total_ms()),
                time(run)
            ),
        )
    })
}

/// One item that took far longer than the others held up what came after.
fn straggler(name: &str, family: &Family) -> Rule {
    let (median, most) = (family.percentile(50), family.percentile(100));
    (family.instances >= 5 && most >= 1_000 && most > median.max(1) * 5).then(|| {
        let text = format!(
            "`{name}`: one of {} took {}, the median is {}: a `timeout` with `retry` would cut it short",
            family.instances,
            time(most),
            time(median),
        );
        (30, text)
    })
}

fn cut_off(name: &str, family: &Family) -> Rule {
    (family.cut > 0).then(|| {
        let times = if family.cut == 1 { "once" } else { "several times" };
        (10, format!("`{name}`: a crash cut it off {times}, and it ran again; say `effects: once` where that does harm"))
    })
}

fn unpriced(figures: &Figures) -> Rule {
    let calls = figures.usage.unpriced_calls;
    (calls > 0).then(|| {
        (5, format!("{calls} of {} model calls have no known price, so the cost of this run is not known and no budget in dollars can hold", figures.usage.calls))
    })
}

/// The slowest places of the file: name, working time, instances; the slowest first.
pub fn slowest(figures: &Figures, most: usize) -> Vec<(String, u64, usize)> {
    let ran = figures.families().into_iter().filter(|(_, f)| f.attempts > 0);
    let mut all: Vec<_> = ran.map(|(name, f)| (name, f.total_ms(), f.instances)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(most);
    all
}

/// Instances that ended badly.
pub fn failed(figures: &Figures) -> usize {
    let bad = |s: &Status| matches!(s, Status::Failed | Status::TimedOut);
    figures.steps.values().filter(|s| s.status().as_ref().is_some_and(bad)).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::figures::tests::{end, records, run_started, start};
    use pipeline_core::error::ErrorKind;

    fn told(facts: Vec<(u64, pipeline_core::fact::Fact)>) -> String {
        advice(&Figures::of(&records(facts))).join("\n")
    }

    #[test]
    fn a_quick_good_run_needs_no_advice() {
        assert_eq!(told(vec![(0, run_started("r")), (0, start("a", 1)), (9, end("a", 1, 9, None))]), "");
    }

    #[test]
    fn what_was_turned_away_names_the_numbers_and_a_smaller_fan_out() {
        let limited = Some(ErrorKind::RateLimited);
        let mut facts = vec![(0, run_started("r"))];
        facts.extend((0..8).map(|i| (0, start(&format!("fan[{i}]/x"), 1))));
        facts.extend((0..8).map(|i| (10, end(&format!("fan[{i}]/x"), 1, 10, limited))));
        let text = told(facts);
        assert!(
            text.contains(
                "`fan[]/x`: 8 of 8 attempts were turned away, with 8 at once: set `max_parallel: 4`"
            ),
            "{text}"
        );
        assert!(text.contains("100% of all tokens ($4.0000)"), "{text}");
    }

    #[test]
    fn a_queue_and_a_row_of_turns_are_told_apart() {
        let mut queue = vec![(0, run_started("r")), (0, start("fan[0]/x", 1)), (0, start("fan[1]/x", 1))];
        for i in 2..10_u64 {
            queue.push((i * 100, end(&format!("fan[{}]/x", i - 2), 1, 100, None)));
            queue.push((i * 100, start(&format!("fan[{i}]/x"), 1)));
        }
        assert!(told(queue).contains("waited 900 ms for a place while 2 ran at once"), "");
        let mut turns = vec![(0, run_started("r"))];
        for i in 0..4_u64 {
            turns.push((i * 100, start(&format!("loop[{i}]/x"), 1)));
            turns.push((i * 100 + 100, end(&format!("loop[{i}]/x"), 1, 100, None)));
        }
        assert!(told(turns).contains("4 turns ran one after another, 400 ms in all (100% of the run)"), "");
    }
}
