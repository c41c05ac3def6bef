//! What the schedule asks for, attempt by attempt: places, numbers, stops, stand-ins and accounts.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::{AttemptEnd, RunStatus, Status};
use pipeline_core::schedule::{Op, asks_to_park};
use pipeline_core::value::Data;
use serde_json::json;

use super::hand::Hand;

const TWICE: &str = "retry: {max_attempts: 2, base_delay: 1s, jitter: false}";

/// Naive: it is looked for before anything ran, or never.
#[test]
fn a_run_until_a_step_ends_with_that_step() {
    let until = |steps: &[&str]| Hand::with("", steps, |start| start.until = Some("b".to_owned()));
    let mut hand = until(&["name: a, type: work", "name: b, type: work", "name: c, type: work"]);
    assert_eq!([hand.decides(), hand.ok("a#1"), hand.ok("b#1")], ["a#1", "b#1", ""]);
    assert_eq!(hand.ended(), Some(RunStatus::Ok));
    // What runs beside it is not cut off.
    let mut hand = until(&["name: a, type: work", "name: b, type: work, needs: []"]);
    assert_eq!([hand.decides(), hand.ok("b#1")], ["a#1 b#1", ""]);
    assert_eq!(hand.ended(), None);
    hand.ok("a#1");
    assert_eq!(hand.ended(), Some(RunStatus::Ok));
}

/// Naive: a form that is tried again counts the attempts of its steps from 1, and takes them for those of the first time.
#[test]
fn steps_of_a_form_that_is_tried_again_go_on_counting() {
    let inner = "{name: p, type: parallel, steps: [{name: s, type: work}]}";
    let form = format!("name: f, type: for_loop, data_source: [1, 2], {TWICE}, steps: [{inner}]");
    let mut hand = Hand::new("", &[&form]);
    assert_eq!([hand.decides(), hand.ok("f[0]/p/s#1")], ["f[0]/p/s#1", "f[1]/p/s#1"]);
    assert_eq!(hand.fails("f[1]/p/s#1", ErrorKind::Server), "f#2~wait");
    assert_eq!([hand.fires("f#2~wait"), hand.ok("f[0]/p/s#2")], ["f[0]/p/s#2", "f[1]/p/s#2"]);
}

/// Naive: only attempts give their place back, and whatever else took one keeps it.
#[test]
fn whatever_ends_gives_its_place_among_max_parallel_back() {
    let branches = "{name: b, type: work}, {name: c, type: work}, {name: d, type: work, condition: false}";
    let steps = [
        "name: off, type: work, condition: false",
        "name: bad, type: work, value: '{{ inputs.none.x }}', continue_on_error: true",
        &format!("name: p, type: parallel, steps: [{branches}]"),
        "name: f, type: for_loop, data_source: '3 + 4', continue_on_error: true, steps: [{name: s, type: work}]",
        "name: w, type: for_loop, data_source: [], output_to_file: w.txt, steps: [{name: s, type: work}]",
        "name: last, type: work",
    ];
    let mut hand =
        Hand::new("inputs: {none: {type: object, default: {}}}\nbudget: {max_parallel: 1}", &steps);
    assert_eq!([hand.decides(), hand.settles("off#1")], ["skip:off#1", "fail:bad#1"]);
    assert!(hand.why("bad#1").contains("inputs.none"), "{}", hand.why("bad#1"));
    assert_eq!([hand.settles("bad#1"), hand.ok("p/b#1")], ["p/b#1", "p/c#1"]);
    assert_eq!([hand.ok("p/c#1"), hand.settles("p/d#1")], ["skip:p/d#1", "fail:f#1"]);
    assert!(hand.why("f#1").contains("not a list"), "{}", hand.why("f#1"));
    assert_eq!([hand.settles("f#1"), hand.ok("w#1"), hand.ok("last#1")], ["w#1", "last#1", ""]);
    assert_eq!(hand.ended(), Some(RunStatus::Ok));
}

/// Naive: one that waits for a place and is stopped keeps its turn, or takes that of another.
#[test]
fn what_is_stopped_while_it_waits_for_a_place_never_begins() {
    let branches =
        "{name: a, type: work}, {name: b, type: work}, {name: c, type: work}, {name: d, type: work}";
    let steps = [
        &format!(
            "name: p, type: parallel, on_failure: fail_fast, continue_on_error: true, steps: [{branches}]"
        ),
        "name: last, type: work",
    ];
    let mut hand = Hand::new("budget: {max_parallel: 1}", &steps);
    assert_eq!([hand.decides(), hand.fails("p/a#1", ErrorKind::Server)], ["p/a#1", "last#1"]);
    assert_eq!((hand.ok("last#1"), hand.ended()), (String::new(), Some(RunStatus::Ok)));
}

/// Naive: a question waits for a place as if it were work, or takes one for as long as nobody answers.
#[test]
fn people_are_asked_without_a_place_and_hold_nobody_up() {
    let step = "name: p, type: parallel, steps: [{name: a, type: work}, {name: q, type: approval, message: Go?}, {name: b, type: work}, {name: c, type: work}]";
    let mut hand = Hand::new("budget: {max_parallel: 1, max_steps: 2}", &[step]);
    assert_eq!([hand.decides(), hand.ok("p/a#1")], ["p/a#1 ask:p/q#1", "p/b#1"]);
    // A limit is told of when they have answered.
    assert_eq!((hand.ok("p/b#1"), hand.schedule.halted()), (String::new(), None));
    assert_eq!(hand.ok("p/q#1"), "");
    assert!(hand.schedule.halted().is_some());
}

/// Naive: a list with `needs` starts one step more than `max_parallel`.
#[test]
fn a_list_with_needs_starts_at_most_max_parallel() {
    let steps = ["name: a, type: work", "name: b, type: work", "name: c, type: work, needs: []"];
    let mut hand = Hand::new("defaults: {max_parallel: 2}", &steps);
    assert_eq!([hand.decides(), hand.ok("b#1")], ["a#1 b#1", "c#1"]);
}

/// Naive: the deadline of the run stays behind when the run has ended.
#[test]
fn the_end_of_a_run_takes_its_deadline_away() {
    let mut hand = Hand::new("budget: {max_duration: 1h}", &["name: a, type: work"]);
    assert_eq!([hand.decides(), hand.ok("a#1")], ["#1~deadline a#1", "-#1~deadline"]);
}

/// Naive: all parts of a condition are read alike, or one that is a list or a map counts as true.
#[test]
fn a_condition_of_several_parts_holds_as_they_say() {
    for (condition, holds) in [
        ("[true, true]", true),
        ("[true, '1 > 2']", false),
        ("{or: [false, '2 > 1']}", true),
        ("{or: [false, '1 > 2']}", false),
        ("{and: [true, true], not: '1 > 2'}", true),
        ("{and: [true, true], not: '2 > 1'}", false),
        ("{not: true}", false),
        ("{not: false}", true),
    ] {
        let mut hand = Hand::new("", &[&format!("name: a, type: work, condition: {condition}")]);
        assert_eq!(hand.decides(), if holds { "a#1" } else { "skip:a#1" }, "{condition}");
    }
}

/// Naive: a step waits as long as the one before it, whatever `backoff` says, or the last wait has no bound.
#[test]
fn the_wait_before_a_try_grows_as_it_is_written() {
    for (backoff, waits) in
        [("fixed", [10, 10, 10, 10]), ("linear", [10, 20, 30, 35]), ("exponential", [10, 20, 35, 35])]
    {
        let retry = format!(
            "retry: {{max_attempts: 5, backoff: {backoff}, base_delay: 10s, max_delay: 35s, jitter: false}}"
        );
        let mut hand = Hand::new("", &[&format!("name: a, type: work, {retry}")]);
        hand.decides();
        for (turn, wait) in (1..).zip(waits) {
            let (begun, next) = (hand.elapsed_ms, format!("a#{}", turn + 1));
            assert_eq!(hand.fails(&format!("a#{turn}"), ErrorKind::Server), format!("{next}~wait"));
            hand.fires(&format!("{next}~wait"));
            assert_eq!(hand.elapsed_ms - begun, wait * 1_000, "{backoff}, after {turn}");
        }
    }
    // A wait that varies does so by up to a quarter, both ways.
    let retry = "retry: {max_attempts: 3, base_delay: 10s, max_delay: 1h}";
    let mut waits = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        let mut hand = Hand::new("", &[&format!("name: {name}, type: work, {retry}")]);
        hand.decides();
        hand.fails(&format!("{name}#1"), ErrorKind::Server);
        hand.fires(&format!("{name}#2~wait"));
        let begun = hand.elapsed_ms;
        hand.fails(&format!("{name}#2"), ErrorKind::Server);
        hand.fires(&format!("{name}#3~wait"));
        waits.push(hand.elapsed_ms - begun);
    }
    assert!(waits.iter().all(|wait| (15_000..=25_000).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|w| *w < 19_000) && waits.iter().any(|w| *w > 21_000), "{waits:?}");
}

/// Naive: a timer is set for a time of day, not for the time that the run has worked.
#[test]
fn waits_and_deadlines_are_counted_from_the_moment_they_begin() {
    let steps = [
        &format!("name: a, type: work, {TWICE}"),
        "name: f, type: for_loop, data_source: [1], timeout: 1m, steps: [{name: s, type: work}]",
        "name: last, type: work, value: '{{ now() }}'",
    ];
    let mut hand = Hand::new("", &steps);
    hand.decides();
    hand.elapsed_ms = 7;
    assert_eq!(hand.fails("a#1", ErrorKind::Server), "a#2~wait");
    assert_eq!(hand.op("a#2~wait"), &Op::Timer { until_ms: 1_007 });
    assert_eq!([hand.fires("a#2~wait"), hand.ok("a#2")], ["a#2", "f#1~deadline f[0]/s#1"]);
    assert_eq!(hand.op("f#1~deadline"), &Op::Timer { until_ms: 61_007 });
    assert_eq!(hand.ok("f[0]/s#1"), "-f#1~deadline last#1");
    assert_eq!(hand.schedule.elapsed_ms(), 1_007);
    assert_eq!(hand.config("last#1")["value"], 1, "the second in which it was ready");
}

/// Naive: an attempt that the run put back uses up a try, or begins again under the number that it had.
#[test]
fn an_attempt_that_is_put_back_is_no_try() {
    for set in [false, true] {
        let step = format!("name: a, type: work, value: '{{{{ state.n }}}}', {TWICE}");
        let mut hand = Hand::replaying("variables: {n: 0}", &[&step], |_| {});
        assert_eq!(hand.decides(), "a#1");
        for turn in 1..=2 {
            let full = AttemptEnd::failed(StepError::new(ErrorKind::Budget, "full"));
            let set = if set { vec![("n".to_owned(), Data::new(json!(turn))).into()] } else { Vec::new() };
            let back = AttemptEnd { put_back: true, set, ..full };
            assert_eq!(hand.ends(&format!("a#{turn}"), back), format!("a#{}", turn + 1));
        }
        // What another run has set is seen.
        assert_eq!(hand.config("a#3")["value"], if set { json!(2) } else { json!(0) });
        assert_eq!(hand.fails("a#3", ErrorKind::Server), "a#4~wait");
        assert_eq!([hand.fires("a#4~wait"), hand.fails("a#4", ErrorKind::Server)], ["a#4", ""]);
        assert_eq!(hand.ended(), Some(RunStatus::Failed));
    }
}

/// Naive: a step that is stopped is tried again or stood in for, or loses what it gave; one whose own time is over is not.
#[test]
fn what_is_stopped_ends_as_stopped_and_what_is_late_is_a_failure_like_any_other() {
    let step = format!("name: a, type: work, on_error: instead, {TWICE}");
    for (fails, status) in [(true, Status::Cancelled), (false, Status::Ok)] {
        let mut hand = Hand::new("budget: {max_duration: 1h}", &[&step]);
        assert_eq!([hand.decides(), hand.fires("#1~deadline")], ["#1~deadline a#1", "-a#1"]);
        assert_eq!(if fails { hand.fails("a#1", ErrorKind::Server) } else { hand.ok("a#1") }, "");
        assert_eq!((hand.status("a"), hand.ended()), (status, Some(RunStatus::TimedOut)));
        let told = hand.done("a").error.map(|e| e.error.message).unwrap_or_default();
        assert_eq!(told.contains("was stopped"), fails, "{told}");
    }
    let form = "name: f, type: for_loop, data_source: [1], timeout: 1m, on_error: instead, steps: [{name: s, type: work}]";
    let mut hand = Hand::new("", &[form]);
    hand.decides();
    assert_eq!([hand.fires("f#1~deadline"), hand.ok("f[0]/s#1")], ["-f[0]/s#1", ""]);
    assert_eq!((hand.status("f"), hand.outputs()["f"].clone()), (Status::Degraded, json!("instead")));
    let told = hand.done("f").error.unwrap().error;
    assert!(
        told.kind == ErrorKind::TimedOut && told.message.contains("1m") | told.message.contains("60s"),
        "{told:?}"
    );
}

/// Naive: a stand-in begins before all tries of the one before it, counts them as its own, or gives an answer like any other.
#[test]
fn stand_ins_are_begun_in_order_each_with_all_its_tries() {
    let steps =
        [format!("name: a, type: prompt, prompt: hi, model: one, fallback_model: [two, three], {TWICE}")];
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let mut hand = Hand::new("", &steps);
    hand.decides();
    let mut turn = 0;
    for (way, model) in ["one", "two", "three"].into_iter().enumerate() {
        for first in [true, false] {
            turn += 1;
            let (key, next) = (format!("a#{turn}"), format!("a#{}", turn + 1));
            let call = hand.call(&key);
            assert_eq!((call.is_fallback, call.may_park), (way > 0, way == 2), "{key}");
            assert_eq!(hand.config(&key)["model"], model, "{key}");
            let asked = hand.fails(&key, ErrorKind::Server);
            match (first, way) {
                (true, _) => {
                    assert_eq!(asked, format!("{next}~wait"));
                    assert_eq!(hand.fires(&format!("{next}~wait")), next);
                }
                (false, 2) => assert_eq!((asked.as_str(), hand.ended()), ("", Some(RunStatus::Failed))),
                (false, _) => assert_eq!(asked, next),
            }
        }
    }
    // Whoever is stopped, or has no money, is not stood in for.
    let mut hand = Hand::new("", &steps);
    hand.decides();
    assert_eq!(hand.fails("a#1", ErrorKind::Budget), "");
    assert_eq!(hand.ended(), Some(RunStatus::Failed));
}

/// The end of an attempt whose account is used up for so long.
fn used_up(kind: ErrorKind, retry_after_ms: Option<u64>) -> AttemptEnd {
    let error = StepError { retry_after_ms, ..StepError::new(kind, "used up") };
    AttemptEnd { put_back: true, ..AttemptEnd::failed(error) }
}

/// Branches of a model step of an account behind another step each, which is what they wait for.
fn accounts(of_b: &str) -> Hand {
    let branch = |name: &str, provider: &str| {
        format!("{name}: [{{name: first, type: work}}, {{name: ask, type: prompt, prompt: hi{provider}}}]")
    };
    let same = ", provider: '{{ \"claude\" }}'";
    let b = format!("b: [{{name: f, type: for_loop, data_source: [1], timeout: 1h, steps: [{of_b}]}}]");
    let branches = [
        branch("a", ""),
        b,
        branch("c", same),
        branch("d", same),
        branch("e", ", provider: '{{ \"other\" }}'"),
    ];
    let mut hand =
        Hand::new("", &[&format!("name: p, type: parallel, branches: {{{}}}", branches.join(", "))]);
    hand.decides();
    hand
}

/// Naive: all steps are held back, or none; and one that is stopped takes those along that wait with it.
#[test]
fn steps_of_an_account_that_is_used_up_wait_for_it_and_no_others() {
    let mut hand = accounts("{name: first, type: work}, {name: ask, type: prompt, prompt: hi}");
    assert_eq!(hand.ok("p/a/first#1"), "p/a/ask#1");
    assert_eq!(hand.ends("p/a/ask#1", used_up(ErrorKind::Quota, Some(60_000))), "p/a/ask#2~park");
    let Op::Park { until, message } = hand.op("p/a/ask#2~park") else { panic!("no park") };
    assert_eq!((until.0, message.as_str()), (60_000, "used up"));
    for held in ["p/b/f[0]/first#1", "p/c/first#1", "p/d/first#1"] {
        assert_eq!(hand.ok(held), "");
    }
    assert_eq!(hand.ok("p/e/first#1"), "p/e/ask#1");
    // One that waits is stopped by the deadline of what it is in; the others go on when the time has come.
    assert_eq!(hand.fires("p/b/f#1~deadline"), "");
    assert_eq!(hand.fires("p/a/ask#2~park"), "p/c/ask#1 p/d/ask#1 p/a/ask#2");
}

/// Naive: when the step that found out is stopped, nobody looks at the account again.
#[test]
fn who_waits_for_an_account_goes_on_when_the_one_that_found_out_is_stopped() {
    let mut hand = accounts("{name: first, type: work}, {name: ask, type: prompt, prompt: hi}");
    assert_eq!(hand.ok("p/b/f[0]/first#1"), "p/b/f[0]/ask#1");
    hand.ends("p/b/f[0]/ask#1", used_up(ErrorKind::Quota, None));
    assert_eq!([hand.ok("p/a/first#1"), hand.ok("p/c/first#1")], ["", ""]);
    let asked = hand.fires("p/b/f#1~deadline");
    assert_eq!(asked, "-p/b/f[0]/ask#2~park p/a/ask#1 p/c/ask#1");
}

/// Naive: every rate limit is a quota, or none is.
#[test]
fn what_parks_a_run_is_a_quota_or_a_wait_of_more_than_five_minutes() {
    let minutes = |minutes: u64| Some(std::time::Duration::from_secs(60 * minutes));
    for (kind, told, expected) in [
        (ErrorKind::Quota, None, minutes(15)),
        (ErrorKind::Quota, Some(60_000), minutes(1)),
        (ErrorKind::RateLimited, Some(300_000), None),
        (ErrorKind::RateLimited, Some(360_000), minutes(6)),
        (ErrorKind::RateLimited, None, None),
        (ErrorKind::Overloaded, Some(360_000), None),
    ] {
        let error = used_up(kind, told).error.unwrap();
        assert_eq!(asks_to_park(&error), expected, "{kind:?} {told:?}");
    }
}
