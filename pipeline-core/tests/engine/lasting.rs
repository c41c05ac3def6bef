//! Variables that outlive the run: when they are kept, and what a step is told of them.

use pipeline_core::error::ErrorKind;
use pipeline_core::fact::{Assignment, AttemptEnd, RunStatus, Status, VariableScope};
use pipeline_core::plan::Reducer;
use pipeline_core::schedule::{Merge, TaskWork};
use pipeline_core::value::Data;
use serde_json::{Value, json};

use super::hand::Hand;

/// An attempt that sets `n` to outlive the run.
fn sets(value: Value) -> AttemptEnd {
    let lasting = Assignment { scope: VariableScope::Session, name: "n".to_owned(), value: Data::new(value) };
    AttemptEnd { set: vec![lasting], ..AttemptEnd::ok(json!("set")) }
}

/// What a form keeps when it ends: of `n`, how it is merged, what was there, what was written.
fn kept(hand: &Hand, key: &str) -> (Reducer, Option<Value>, Vec<Value>) {
    let call = hand.call(key);
    assert!(call.lasting.is_some(), "{key}");
    let TaskWork::Keep { merges } = &call.work else { panic!("{:?}", call.work) };
    let [Merge { name, reducer, before, written }] = &merges[..] else { panic!("{merges:?}") };
    assert_eq!(name, "n");
    let written = written.iter().map(|data| data.json().clone()).collect();
    (*reducer, before.as_ref().map(|data| data.json().clone()), written)
}

/// Naive: every step is told, or none; and a step does not know what the one before it has set.
#[test]
fn a_step_that_sets_lasting_variables_is_told_what_the_run_last_saw_of_them() {
    let fan = "name: p, type: parallel, steps: [{name: e, type: work, scope: session}]";
    let steps = [
        "name: a, type: work, scope: session, value: '{{ state.n }}'",
        "name: b, type: work",
        "name: c, type: work, scope: session, value: '{{ state.n }}'",
        "name: w, type: while_loop, until: 'true', steps: [{name: d, type: work, scope: session}]",
        fan,
    ];
    let mut hand = Hand::with("variables: {n: 0}", &steps, |start| {
        let kept = [("n".to_owned(), Data::new(json!(3)))];
        start.lasting = [("t".to_owned(), kept.into())].into();
    });
    let seen = |hand: &Hand, key: &str| {
        let lasting = hand.call(key).lasting.as_ref()?;
        assert_eq!(&*lasting.workflow, "t");
        lasting.seen.get("n").map(|data| data.json().clone())
    };
    hand.decides();
    assert_eq!((seen(&hand, "a#1"), &hand.config("a#1")["value"]), (Some(json!(3)), &json!(3)));
    hand.ends("a#1", sets(json!(5)));
    assert_eq!(seen(&hand, "b#1"), None);
    hand.ok("b#1");
    assert_eq!((seen(&hand, "c#1"), &hand.config("c#1")["value"]), (Some(json!(5)), &json!(5)));
    hand.ok("c#1");
    assert_eq!(seen(&hand, "w[0]/d#1"), Some(json!(5)));
    // What is set in a branch is merged before it is kept.
    assert_eq!((hand.ok("w[0]/d#1"), seen(&hand, "p/e#1")), ("p/e#1".to_owned(), None));
}

/// A loop whose two turns write `n` at once, inside of a loop of `lanes`.
fn summing(lanes: &str) -> String {
    let retry = "retry: {max_attempts: 2, base_delay: 1s, jitter: false}";
    format!(
        "name: f, type: for_loop, data_source: [1, 2], parallel: true, reduce: {{n: sum}}, output_to_file: f.txt, {retry}, steps: [{lanes}]"
    )
}

/// Naive: what parallel turns wrote is forgotten with the run, or kept by each of them; a form is done before it is kept.
#[test]
fn what_parallel_turns_wrote_is_kept_once_before_their_form_ends() {
    let mut hand =
        Hand::new("variables: {n: 10}", &[&summing("{name: s, type: work}"), "name: last, type: work"]);
    hand.decides();
    assert_eq!(hand.ends("f[0]/s#1", sets(json!(1))), "");
    assert_eq!(hand.ends("f[1]/s#1", sets(json!(2))), "f#1");
    assert_eq!(kept(&hand, "f#1"), (Reducer::Sum, Some(json!(10)), vec![json!(1), json!(2)]));
    hand.elapsed_ms = 40;
    assert_eq!(hand.ok("f#1"), "f#2");
    let call = hand.call("f#2");
    assert_eq!(call.output_file.as_deref(), Some("f.txt"));
    assert!(matches!(&call.work, TaskWork::WriteOutput { value } if value.json()["completed_items"] == 2));
    hand.elapsed_ms = 90;
    assert_eq!(hand.ok("f#2"), "last#1");
    let done = hand.done("f");
    assert_eq!(
        (done.status, done.ended_ms, done.value.json()["completed_items"].clone()),
        (Status::Ok, 90, json!(2))
    );
    // The time that keeping took is the form's, too.
    let mut hand = Hand::new(
        "variables: {n: 10}",
        &[&summing("{name: s, type: work}").replace("output_to_file: f.txt, ", "")],
    );
    hand.decides();
    hand.ends("f[0]/s#1", sets(json!(1)));
    hand.ok("f[1]/s#1");
    hand.elapsed_ms = 40;
    assert_eq!((hand.ok("f#1"), hand.done("f").ended_ms), (String::new(), 40));
    assert_eq!(hand.outputs()["f"]["completed_items"], 2);
}

/// Naive: a form is done although what it had to keep or write is not there.
#[test]
fn a_form_fails_when_what_it_wrote_cannot_be_kept_or_its_file_cannot_be_written() {
    for file in [false, true] {
        let mut hand = Hand::new("variables: {n: 10}", &[&summing("{name: s, type: work}")]);
        hand.decides();
        hand.ends("f[0]/s#1", if file { AttemptEnd::ok(json!(1)) } else { sets(json!(1)) });
        assert_eq!(hand.ok("f[1]/s#1"), "f#1");
        assert_eq!(hand.fails("f#1", ErrorKind::Invalid), "");
        assert_eq!((hand.status("f"), hand.ended()), (Status::Failed, Some(RunStatus::Failed)), "{file}");
    }
}

/// Naive: keeping is a try of the form.
#[test]
fn a_form_that_fails_keeps_what_was_written_and_has_all_its_tries() {
    let mut hand = Hand::new("variables: {n: 10}", &[&summing("{name: s, type: work}")]);
    hand.decides();
    hand.ends("f[0]/s#1", sets(json!(1)));
    assert_eq!(hand.fails("f[1]/s#1", ErrorKind::Server), "f#1");
    assert_eq!([hand.ok("f#1"), hand.fires("f#3~wait")], ["f#3~wait", "f[0]/s#2 f[1]/s#2"]);
}

/// Naive: each fan-out keeps by itself, what is around it as well, and a sum counts twice.
#[test]
fn of_fan_outs_inside_each_other_the_outermost_keeps() {
    let inner =
        "{name: g, type: for_loop, data_source: [1], reduce: {n: sum}, steps: [{name: s, type: work}]}";
    let mut hand = Hand::new("variables: {n: 10}", &[&summing(inner).replace(", output_to_file: f.txt", "")]);
    hand.decides();
    assert_eq!(hand.ends("f[0]/g[0]/s#1", sets(json!(1))), "");
    assert_eq!(hand.ok("f[1]/g[0]/s#1"), "f#1");
    assert_eq!(kept(&hand, "f#1"), (Reducer::Sum, Some(json!(10)), vec![json!(11)]));
}
