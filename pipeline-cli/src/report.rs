//! What people and programs see of findings and runs.
//!
//! Owns the small words that all reports share: times, costs. Must not know how runs are made.
//! Next: `report/diagnostics.rs` for findings, `report/json.rs` for documents, `report/summary.rs` for a run in text;
//! `report/plain.rs`, `report/terminal.rs` and `report/events.rs` watch a run.

pub mod diagnostics;
pub mod events;
pub mod figures;
pub mod github;
pub mod json;
pub mod page;
pub mod picture;
pub mod plain;
pub mod prometheus;
pub mod summary;
pub mod terminal;

use pipeline_core::fact::Usage;

/// Milliseconds as people say them: `12 ms`, `3.4 s`, `2 min 5 s`, `1 h 3 min`.
pub fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 if ms % 60_000 < 1_000 => format!("{} min", ms / 60_000),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// What was used, or `None` when no model was called: `3 calls, 1200 tokens, $0.0123`.
pub fn usage(usage: &Usage) -> Option<String> {
    if usage.calls == 0 {
        return None;
    }
    let calls = if usage.calls == 1 { "1 call".to_owned() } else { format!("{} calls", usage.calls) };
    let cost = match (usage.cost_usd, usage.unpriced_calls) {
        (Some(usd), 0) => format!("${usd:.4}"),
        (Some(usd), unpriced) => format!("${usd:.4} and {unpriced} without a known price"),
        (None, _) => "price unknown".to_owned(),
    };
    Some(format!("{calls}, {} tokens, {cost}", usage.tokens()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_naturally_at_every_size() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (125_000, "2 min 5 s"),
            (3_780_000, "1 h 3 min"),
        ];
        for (ms, expected) in cases {
            assert_eq!(time(ms), expected);
        }
    }

    #[test]
    fn a_cost_that_is_not_known_is_not_shown_as_nothing() {
        let mut used = Usage { calls: 2, input: 10, output: 5, unpriced_calls: 1, ..Usage::default() };
        assert_eq!(usage(&used).as_deref(), Some("2 calls, 15 tokens, price unknown"));
        used.cost_usd = Some(0.5);
        assert_eq!(usage(&used).as_deref(), Some("2 calls, 15 tokens, $0.5000 and 1 without a known price"));
        assert_eq!(usage(&Usage::default()), None);
    }
}
