//! What forms come to: their values, attempts and statuses, and whose output files may have one name.

use pipeline_core::error::ErrorKind;
use pipeline_core::event::Progress;
use pipeline_core::fact::{AttemptEnd, RunStatus};
use pipeline_core::source::MemorySources;
use serde_json::{Value, json};

use super::hand::Hand;
use super::support::World;

/// Naive: the attempts of some forms are lost on the way up.
#[tokio::test(start_paused = true)]
async fn attempts_of_all_leaves_are_counted_through_every_form() {
    let steps = "{name: s, type: work, fail_times: 1, retry: {max_attempts: 2, base_delay: 1ms}}, {name: u, type: work}";
    let fails = "{name: bad, type: work, fail_times: 9}";
    for (form, expected) in [
        (format!("type: for_loop, data_source: [1, 2], steps: [{steps}]"), 6),
        (format!("type: parallel, branches: {{one: [{steps}], two: [{steps}]}}"), 6),
        (format!("type: while_loop, until: loop.index == 1, steps: [{steps}]"), 6),
        (format!("type: switch, expression: '1', cases: {{1: [{steps}]}}"), 3),
        (format!("type: pipeline, pipeline: {{name: inner, steps: [{steps}]}}"), 3),
        (format!("type: work, fail_times: 9, on_error: [{{type: work, name: w}}, {steps}]"), 5),
        (
            format!(
                "type: for_loop, data_source: [1], steps: [{{name: in, type: parallel, steps: [{fails}]}}], on_error: 1"
            ),
            1,
        ),
    ] {
        let text = format!("workflow:\n  name: t\n  steps: [{{name: f, {form}}}]\n");
        let report = World::default().run(&text).await;
        assert_eq!(report.status, RunStatus::Ok, "{form}: {:?}", report.error);
        assert_eq!(report.steps["f"].attempts, expected, "{form}");
    }
}

/// Naive: whatever let the run go on is `ok`.
#[tokio::test(start_paused = true)]
async fn later_steps_read_how_a_step_ended() {
    let text = r#"workflow:
  name: t
  steps:
    - {name: good, type: work, value: {b: 2}}
    - {name: stood, type: work, fail_times: 1, on_error: {a: 1}}
    - {name: bad, type: work, fail_times: 1, continue_on_error: true}
    - {name: late, type: work, hang: true, timeout: 1, continue_on_error: true}
    - {name: a number, type: work, value: 5}
    - {name: list, type: work, fail_times: 1, on_error: [1, 2]}
    - {name: nothing, type: work, value: null}
    - {name: left, type: work, condition: false}
  outputs: {plain: '{{ steps["a number"].status }} {{ steps.list.status }} {{ steps.nothing.status | upper }} {{ steps["a number"] + 1 }}', left: '{{ steps.left.status | default("none") }}', among: '{{ filter([1, 2], "steps.list.status == ''degraded''") }}', all: '{{ [steps.good.status, steps.stood.status, steps.bad.status, steps.late.status] }}', a: '{{ steps.stood.a }}', why: '{{ steps.bad.error }}'}
"#;
    let report = World::default().run(text).await;
    let expected = json!({
        "plain": "ok degraded OK 6", "left": "none", "among": [1, 2],
        "all": ["ok", "degraded", "failed", "timed_out"],
        "a": 1, "why": {"kind": "server", "message": "scripted failure"},
    });
    assert_eq!(report.outputs.json(), &expected, "{:?}", report.error);
}

/// Naive: all steps at once are plain JSON, in which `result` and the fields of `data` are not found.
#[tokio::test(start_paused = true)]
async fn a_step_whose_name_is_computed_is_read_like_one_that_is_named() {
    let text = r#"workflow:
  name: t
  steps:
    - {name: ask, type: work, value: {text: hi, data: {limit: 2}}}
    - {name: num, type: work, value: 7}
    - {name: instead, type: work, fail_times: 1, on_error: {a: 1}}
    - {name: left, type: work, value: 1, condition: false}
    - name: again
      type: while_loop
      condition: "steps['ask' ~ ''].limit == 2 and (turn.index == 0 or steps[['body'] | first].status == 'ok') and turn.index < 2"
      max_iterations: 5
      steps: [{name: body, type: work, value: {n: 1}}]
  outputs:
    named: '{{ [steps.ask.limit, steps.ask.result, steps.num.result, steps.num.status, steps.instead.status] }}'
    computed: "{{ [steps['ask' ~ ''].limit, steps['ask' ~ ''].result, steps['num' ~ ''].result, steps['num' ~ ''].status, steps['instead' ~ ''].status] }}"
    mixed: "{{ [steps['num' ~ ''], steps.ask.result] }}"
    bare: '{{ [ask.limit, ask.result, num.result, num.status, instead.status] }}'
    left: "{{ steps['left' ~ ''].status | default('none') }} {{ left.status | default('none') }}"
    turns: '{{ steps.again.iterations }}'
"#;
    let report = World::default().run(text).await;
    let all = json!([2, {"limit": 2}, 7, "ok", "degraded"]);
    let expected = json!({"named": all, "computed": all, "bare": all, "mixed": [7, {"limit": 2}], "left": "none none", "turns": 2});
    assert_eq!(report.outputs.json(), &expected, "{:?}", report.error);
}

/// Naive: a name counts as taken by whoever wrote it, at whatever time.
#[test]
fn one_file_may_be_written_by_many_but_not_at_once() {
    let file = |name: &str, form: &str, inside: &str| {
        format!("name: {name}, type: for_loop, {form}, steps: [{inside}]")
    };
    let leaf =
        |name: &str| format!("{{name: {name}, type: work, output_to_file: '{{{{ loop.item }}}}.txt'}}");
    let at_once = "parallel: true, data_source: [x, y]";
    // One turn writes it twice; another loop has it in another lane; and so has a sequence.
    let twice = format!("{}, {}", leaf("s"), leaf("u"));
    let steps = [
        file("f", at_once, &twice),
        file("g", "parallel: true, data_source: [y, x]", &leaf("s")),
        file("h", "data_source: [x, x]", &leaf("s")),
    ];
    let mut hand = Hand::new("", &steps.each_ref().map(String::as_str));
    let mut asked = hand.decides();
    while !asked.is_empty() {
        let (first, others) = asked.split_once(' ').unwrap_or((&asked, ""));
        assert!(!first.starts_with("fail:"), "{}", hand.why(first.trim_start_matches("fail:")));
        asked = format!("{others} {}", hand.ok(first)).trim().to_owned();
    }
    assert_eq!(hand.ended(), Some(RunStatus::Ok), "{:?}", hand.schedule.ended());
    // In two lanes of one fan-out, at any depth.
    for inside in [leaf("s"), format!("{{{}}}", file("g", "data_source: [x]", &leaf("s")))] {
        let mut hand = Hand::new("", &[&file("f", "parallel: true, data_source: [x, x]", &inside)]);
        let asked = hand.decides();
        let second = asked.rsplit_once("fail:").expect("one is refused").1;
        assert!(hand.why(second).contains("`x.txt` is written by f[0]"), "{}", hand.why(second));
    }
}

/// Naive: a branch that failed or was left out has a value, counts as done, or has its text among the others.
#[test]
fn the_value_of_a_fan_out_has_every_branch_with_its_status() {
    let branches = "{name: a, type: work}, {name: b, type: work}, {name: c, type: work}, {name: d, type: work, condition: false}";
    let form =
        format!("name: p, type: parallel, on_failure: collect, continue_on_error: true, steps: [{branches}]");
    let mut hand = Hand::new("", &[&form]);
    hand.decides();
    hand.fails("p/a#1", ErrorKind::Server);
    hand.ok("p/b#1");
    hand.ends("p/c#1", AttemptEnd::ok(json!({"text": "long", "n": 1})));
    hand.settles("p/d#1");
    let why = json!({"kind": "server", "message": "scripted", "path": "p/a"});
    let expected = json!({
        "results": {"b": "p/b#1", "c": {"text": "long", "n": 1}},
        "items": [
            {"id": "a", "index": 0, "status": "failed", "value": null, "error": why},
            {"id": "b", "index": 1, "status": "ok", "value": "p/b#1", "error": null},
            {"id": "c", "index": 2, "status": "ok", "value": {"text": "long", "n": 1}, "error": null},
            {"id": "d", "index": 3, "status": "skipped", "value": null, "error": null},
        ],
        "succeeded": 2, "failed": 1,
        "combined_text": "=== b ===\np/b#1\n\n=== c ===\nlong",
        "success": false,
    });
    assert_eq!(hand.outputs()["p"], expected);
}

/// Naive: turns that were left out count as failed or as done, and a turn that failed has no item.
#[test]
fn the_value_of_a_loop_has_every_turn_with_its_item_and_status() {
    let each = "name: f, type: for_loop, data_source: [1, 2, 3, 4], max_iterations: 3, break_on_error: false, continue_on_error: true, continue_condition: loop.item == 2, steps: [{name: s, type: work}, {name: off, type: work, condition: false}]";
    let mut hand = Hand::new("", &[each, "name: last, type: work, value: '{{ steps.f.success }}'"]);
    hand.decides();
    hand.ok("f[0]/s#1");
    hand.settles("f[0]/off#1");
    hand.fails("f[2]/s#1", ErrorKind::Server);
    assert_eq!(hand.config("last#1")["value"], false);
    hand.ok("last#1");
    let turn = |index: usize, status: &str| json!({"index": index, "item": index + 1, "status": status});
    let mut value = hand.outputs()["f"].clone();
    let shown: Vec<_> = value["iterations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| json!({"index": t["index"], "item": t["item"], "status": t["status"]}))
        .collect();
    assert_eq!(shown, [turn(0, "ok"), turn(1, "skipped"), turn(2, "failed")]);
    assert_eq!(value["iterations"][0]["results"], json!({"s": "f[0]/s#1"}));
    assert_eq!(value["iterations"][2]["error"]["path"], "f[2]/s");
    value.as_object_mut().unwrap().remove("iterations");
    let expected = json!({"results": ["f[0]/s#1"], "total_items": 4, "completed_items": 1, "failed_items": 1, "success": false});
    assert_eq!(value, expected);
}

/// Naive: a loop that ends itself early stops turns before that one, or counts those after it.
#[test]
fn a_break_in_a_parallel_loop_ends_the_turns_after_it_and_no_others() {
    let steps =
        "{name: s, type: work}, {name: stop, type: break, condition: loop.item == 2}, {name: u, type: work}";
    let form = format!(
        "name: f, type: for_loop, data_source: [1, 2, 3, 4], parallel: true, max_parallel: 3, steps: [{steps}]"
    );
    let mut hand = Hand::new("", &[&form]);
    assert_eq!(hand.decides(), "f[0]/s#1 f[1]/s#1 f[2]/s#1");
    assert_eq!(hand.ok("f[1]/s#1"), "-f[2]/s#1");
    assert_eq!([hand.ok("f[0]/s#1"), hand.settles("f[0]/stop#1")], ["skip:f[0]/stop#1", "f[0]/u#1"]);
    assert_eq!([hand.ok("f[0]/u#1"), hand.fails("f[2]/s#1", ErrorKind::Cancelled)], ["", ""]);
    let value = hand.outputs()["f"].clone();
    assert_eq!(value["results"], json!(["f[0]/u#1", "f[1]/s#1"]));
    assert_eq!((&value["completed_items"], &value["failed_items"]), (&json!(2), &json!(0)));
}

/// Naive: nothing to loop over is an error, and so is a condition of a turn for the whole loop.
#[test]
fn nothing_is_a_list_without_items_and_a_turn_whose_condition_fails_is_told_of() {
    let mut hand =
        Hand::new("", &["name: f, type: for_loop, data_source: none, steps: [{name: s, type: work}]"]);
    hand.decides();
    assert_eq!(hand.outputs()["f"]["total_items"], 0);
    let form = "name: f, type: for_loop, data_source: [{a: 1}, {}], break_on_error: false, continue_condition: loop.item.a == 2, steps: [{name: s, type: work}]";
    let mut hand = Hand::new("", &[form]);
    assert_eq!([hand.decides(), hand.ok("f[0]/s#1")], ["f[0]/s#1", ""]);
    let turn = hand.outputs()["f"]["iterations"][1].clone();
    assert_eq!(
        (&turn["status"], &turn["item"], &turn["error"]["path"]),
        (&json!("failed"), &json!({}), &json!("f[1]"))
    );
    assert!(turn["error"]["message"].as_str().unwrap().contains("continue_condition"), "{turn}");
}

/// Naive: tasks that an expression gives are numbered, whatever they call themselves.
#[test]
fn tasks_that_an_expression_gives_have_their_own_names_and_numbers_only_without() {
    let tasks = "'{{ [\"x\", {\"id\": \"second\"}, {\"task_id\": 7}] }}'";
    let form = format!("name: b, type: parallel_claude, provider: '{{{{ \"p\" }}}}', tasks: {tasks}");
    let mut hand = Hand::new("", &[&form]);
    for key in hand.decides().split(' ') {
        hand.ok(key);
    }
    let items = hand.outputs()["b"]["items"].clone();
    let ids: Vec<&Value> = items.as_array().unwrap().iter().map(|item| &item["id"]).collect();
    assert_eq!(ids, ["task_1", "second", "7"]);
    assert_eq!(hand.outputs()["b"]["results"].as_object().unwrap().len(), 3);
}

/// Naive: a path into the outputs of a child is a name, or its numbers are names.
#[test]
fn a_step_takes_of_a_child_what_its_outputs_name() {
    let child = "pipeline: {name: inner, steps: [{name: s, type: work}], outputs: {a: '{{ {\"b\": [1, {\"c\": 2}], \"0\": 3} }}', d: 4}}";
    let taken = |outputs: &str| {
        let mut hand = Hand::new("", &[&format!("name: c, type: pipeline, outputs: {outputs}, {child}")]);
        hand.decides();
        hand.ok("c/s#1");
        hand
    };
    let outputs = "[d, a.b, {path: 'a.b[1].c', as: x}, {path: 'a.b[0]', as: y}, {path: 'a.0', as: z}, {path: 'a.b.[0]', as: w}]";
    let expected = json!({"d": 4, "b": [1, {"c": 2}], "x": 2, "y": 1, "z": 3, "w": 1});
    assert_eq!(taken(outputs).outputs()["c"], expected);
    for missing in ["[e]", "['a.b[2]']", "[a.c]"] {
        let hand = taken(missing);
        let error = hand.done("c").error.unwrap().error;
        assert!(error.message.contains("has no output"), "{missing}: {error:?}");
        assert_eq!(error.help.as_deref(), Some("it has: a, d"));
    }
}

/// Naive: what a pipeline needs is looked at when it is compiled, and a pipeline that runs itself is not; or what it may be given
/// it must be given.
#[tokio::test(start_paused = true)]
async fn a_child_needs_what_it_requires_and_nothing_else() {
    for (required, status) in [(true, RunStatus::Failed), (false, RunStatus::Ok)] {
        let down = format!(
            "workflow:\n  name: down\n  inputs: {{left: {{type: integer, required: {required}}}}}\n  steps: [{{name: more, type: pipeline, pipeline_ref: down, condition: inputs.left exists}}]\n"
        );
        let world =
            World { sources: MemorySources::default().with_library("down", down), ..World::default() };
        let report = world.run("workflow:\n  name: t\n  steps: [{name: go, type: pipeline, pipeline_ref: down, inputs: {left: 1}}]\n").await;
        assert_eq!(report.status, status, "{:?}", report.error);
        let told = report.error.map(|e| e.error.message).unwrap_or_default();
        assert_eq!(told.contains("needs the input `left`"), required, "{told}");
    }
}

/// Naive: an output that has no value is refused without a word of what to do.
#[test]
fn an_output_without_a_value_is_told_with_its_name_and_what_helps() {
    let mut hand = Hand::new("outputs: {all: '{{ steps.a.b }}'}", &["name: a, type: work"]);
    hand.decides();
    hand.ok("a#1");
    let error = hand.schedule.ended().and_then(|end| end.error.clone()).expect("it failed").error;
    assert!(error.message.starts_with("outputs.all: "), "{error:?}");
    assert!(error.help.is_some_and(|help| help.contains("default(")));
}

/// Naive: observers hear of leaves, and nothing of how far a form is.
#[test]
fn observers_hear_how_far_each_form_is_and_how_it_ended() {
    let leaf = "{name: s, type: work}";
    let told = |form: &str| {
        let mut hand = Hand::new("", &[&format!("name: f, {form}")]);
        let mut asked = hand.decides();
        while !asked.is_empty() {
            asked = hand.ok(&asked);
        }
        let all = hand.schedule.take_progress();
        assert!(hand.schedule.take_progress().is_empty());
        all.into_iter()
            .map(|progress| match progress {
                Progress::Group { path, done, total } => format!("{path} {done}/{total:?}"),
                Progress::GroupEnded { path, status } => format!("{path} {}", status.name()),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&format!("type: for_loop, data_source: [1, 2], steps: [{leaf}]")),
        ["f 0/Some(2)", "f 1/Some(2)", "f 2/Some(2)", "f ok"]
    );
    assert_eq!(told(&format!("type: parallel, steps: [{leaf}]")), ["f 0/Some(1)", "f 1/Some(1)", "f ok"]);
    assert_eq!(
        told(&format!("type: while_loop, until: true, steps: [{leaf}]")),
        ["f 0/None", "f 1/None", "f ok"]
    );
    assert_eq!(told("type: work"), [""; 0]);
}
