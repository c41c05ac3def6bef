//! Limits on what is begun and spent: which of several holds, and where exactly.

use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{AttemptEnd, RunStatus, Spend, Usage};
use pipeline_core::plan::Budget;
use serde_json::json;

use super::hand::Hand;

fn used(tokens: u64, cost_usd: f64, unsettled: Spend) -> AttemptEnd {
    let usage = Usage { input: tokens, cost_usd: Some(cost_usd), ..Usage::default() };
    AttemptEnd { usage, unsettled, ..AttemptEnd::ok(json!(1)) }
}

/// Naive: the limit of the file wins, or that from outside, or the looser one.
#[test]
fn of_two_limits_of_a_run_the_tighter_holds_wherever_it_was_given() {
    let three = "name: p, type: parallel, steps: [{name: a, type: work}, {name: b, type: work}, {name: c, type: work}]";
    for (file, outside, least) in [(1, Some(2), 1), (2, Some(1), 1), (2, None, 2), (2, Some(2), 2)] {
        let head = format!("budget: {{max_parallel: {file}, max_tokens: {file}, max_cost_usd: {file}.5}}");
        let mut hand = Hand::with(&head, &[three], |start| {
            start.limits = Budget {
                max_parallel: outside,
                max_tokens: outside.map(|n| n as u64),
                max_cost_usd: outside.map(|n| n as f64 + 0.5),
                ..Budget::default()
            };
        });
        assert_eq!(hand.decides().split(' ').count(), least, "{file} {outside:?}");
        let budgets = hand.call("p/a#1").budgets.clone();
        assert_eq!(budgets.len(), 1);
        assert_eq!(budgets[0].max_tokens, Some(least as u64), "{file} {outside:?}");
        assert_eq!(budgets[0].max_cost_usd, Some(least as f64 + 0.5), "{file} {outside:?}");
    }
    // Without any, all begin at once.
    assert_eq!(Hand::new("", &[three]).decides(), "p/a#1 p/b#1 p/c#1");
}

/// Naive: what nobody saw the bill of is free, a limit that is just reached is not, and the run stops under what still runs.
#[test]
fn a_run_stops_when_its_limit_is_reached_and_nothing_runs_any_more() {
    let two = "name: p, type: parallel, max_parallel: 2, steps: [{name: a, type: work}, {name: b, type: work}, {name: c, type: work}]";
    let spend = |cost_usd, tokens| Spend { cost_usd, tokens };
    for (limit, end, told) in [
        ("max_tokens: 10", used(10, 0.0, spend(0.0, 0)), "max_tokens: 10 tokens were used"),
        ("max_tokens: 10", used(6, 0.0, spend(0.0, 4)), "max_tokens: 10 tokens were used"),
        ("max_tokens: 10", used(5, 0.0, spend(0.0, 4)), ""),
        ("max_cost_usd: 1", used(0, 1.0, spend(0.0, 0)), "max_cost_usd: 1.0000 US dollars were spent"),
        ("max_cost_usd: 1", used(0, 0.5, spend(0.5, 0)), "max_cost_usd: 1.0000 US dollars were spent"),
        ("max_cost_usd: 1", used(0, 0.5, spend(0.25, 0)), ""),
        ("max_steps: 2", used(0, 0.0, spend(0.0, 0)), "max_steps: 2 attempts were started"),
        ("max_steps: 3", used(0, 0.0, spend(0.0, 0)), ""),
    ] {
        let mut hand = Hand::new(&format!("budget: {{{limit}}}"), &[two]);
        assert_eq!(hand.decides(), "p/a#1 p/b#1");
        let unsettled = end.unsettled;
        let stops = !told.is_empty();
        assert_eq!(hand.ends("p/a#1", end), if stops { "" } else { "p/c#1" }, "{limit}");
        assert_eq!(
            (hand.schedule.halted(), hand.schedule.unsettled()),
            (None, unsettled),
            "{limit}: one still runs"
        );
        hand.ok("p/b#1");
        if !stops {
            hand.ok("p/c#1");
        }
        assert_eq!(hand.schedule.halted(), Some(told).filter(|_| stops), "{limit}");
        assert_eq!(hand.ended(), (!stops).then_some(RunStatus::Ok), "{limit}");
    }
    // What a journal says was begun was begun, whatever the limit is now.
    let mut hand = Hand::replaying("budget: {max_steps: 1}", &[two], |_| {});
    assert_eq!([hand.decides(), hand.ok("p/a#1")], ["p/a#1 p/b#1", "p/c#1"]);
}

/// Naive: a limit is known to the step that has it and to nothing in it; or one kind of limit hides another.
#[test]
fn a_step_is_told_of_every_limit_around_it_from_the_inside_out() {
    let leaf = "{name: s, type: work, budget: {max_tokens: 1}}";
    let child = format!(
        "{{name: c, type: pipeline, pipeline: {{name: inner, budget: {{max_cost_usd: 2}}, steps: [{leaf}]}}}}"
    );
    let form = format!(
        "name: f, type: for_loop, data_source: [1], budget: {{max_steps: 9, max_cost_usd: 3}}, steps: [{child}]"
    );
    let mut hand = Hand::new("budget: {max_tokens: 4}", &[&form, "name: last, type: work"]);
    assert_eq!(hand.decides(), "f[0]/c/s#1");
    let of = |hand: &Hand, key: &str| {
        let all = hand.call(key).budgets.iter().map(|b| (b.path.to_string(), b.max_cost_usd, b.max_tokens));
        all.collect::<Vec<_>>()
    };
    let expected = [
        ("f[0]/c/s".to_owned(), None, Some(1)),
        ("f[0]/c".to_owned(), Some(2.0), None),
        ("f".to_owned(), Some(3.0), None),
        (String::new(), None, Some(4)),
    ];
    assert_eq!(of(&hand, "f[0]/c/s#1"), expected);
    hand.ok("f[0]/c/s#1");
    assert_eq!(of(&hand, "last#1"), expected[3..]);
}

/// Naive: a limit on attempts lets one more or one fewer begin, or knows nothing of tries, or of forms inside.
/// Figure: limits of 1 to 4 at the inner and the outer place.
#[test]
fn a_limit_on_attempts_lets_exactly_so_many_begin() {
    let retry = "retry: {max_attempts: 9, base_delay: 1s, jitter: false}";
    for (outer, inner) in (1..=4).flat_map(|outer| (1..=4).map(move |inner| (outer, inner))) {
        let leaf = format!("{{name: s, type: work, {retry}}}");
        let form = format!(
            "{{name: g, type: for_loop, data_source: [1], budget: {{max_steps: {inner}}}, steps: [{leaf}]}}"
        );
        let form = format!(
            "name: f, type: for_loop, data_source: [1], budget: {{max_steps: {outer}}}, steps: [{form}]"
        );
        let mut hand = Hand::new("", &["name: before, type: work", &form]);
        hand.decides();
        hand.ok("before#1");
        let most = outer.min(inner);
        for turn in 1..=most {
            let next = format!("f[0]/g[0]/s#{}", turn + 1);
            hand.fails(&format!("f[0]/g[0]/s#{turn}"), ErrorKind::Server);
            let refused = if turn == most { "fail:" } else { "" };
            assert_eq!(hand.fires(&format!("{next}~wait")), format!("{refused}{next}"));
        }
        let place = if inner <= outer { "f[0]/g" } else { "f" };
        let told = format!("the budget of `{place}`: max_steps: {most} attempts were started");
        assert_eq!(hand.why(&format!("f[0]/g[0]/s#{}", most + 1)), told);
    }
}

/// Naive: a child counts its own steps only, or lets one more begin, or is held by the limit of a child that it is not in.
#[test]
fn max_total_steps_counts_the_steps_of_the_run_and_the_tightest_around_holds() {
    let child = |most: u64, steps: &str| {
        format!(
            "type: pipeline, config: {{max_total_steps: {most}}}, pipeline: {{name: inner, steps: [{steps}]}}"
        )
    };
    let three = "{name: a, type: work}, {name: b, type: work}, {name: c, type: work}";
    for (outer, inner) in [(3, 9), (9, 3), (3, 3)] {
        let within = format!("{{name: d, {}}}", child(inner, three));
        let steps = ["name: first, type: work", &format!("name: c, {}", child(outer, &within))];
        let mut hand = Hand::new("", &steps);
        assert_eq!([hand.decides(), hand.ok("first#1")], ["first#1", "c/d/a#1"]);
        assert_eq!([hand.ok("c/d/a#1"), hand.ok("c/d/b#1")], ["c/d/b#1", "fail:c/d/c#1"]);
        assert_eq!(hand.why("c/d/c#1"), "the run has started 3 steps already");
    }
    // A child that would begin at its limit is not opened, and the limit of another is none of its business.
    let steps = [
        &format!("name: c, {}", child(9, three)),
        &format!("name: e, {}", child(3, three)),
        "name: last, type: work",
    ];
    let mut hand = Hand::new("", &steps);
    hand.decides();
    for step in ["c/a#1", "c/b#1"] {
        hand.ok(step);
    }
    assert_eq!(hand.ok("c/c#1"), "fail:e#1");
    assert_eq!(hand.why("e#1"), "the run has started 3 steps already");
}
