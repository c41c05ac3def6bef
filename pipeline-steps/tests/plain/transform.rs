//! `data_transform`, through the compiler.

use std::fmt::Write as _;

use pipeline_core::value::Value;
use serde_json::json;

use crate::plain::support::World;

const ORDERS: &str = "\
- name: data
  type: set_variable
  variables:
    wanted: gold
    users: [{id: 1, name: Ada}, {id: 2.0, name: Bo}, {name: Nobody}]
    orders:
      - {id: 1, user: 2, total: 10, tier: gold, tags: [a, b], at: {city: Rom}}
      - {id: 2, user: 1, total: -3.5, tier: silver, tags: [b]}
      - {id: 3, total: null, tier: gold, tags: []}
      - {id: 4, user: 9, total: 200, tier: gold}
      - {id: 5, user: 1, tier: gold}
";

/// The rows that operations on the orders give.
async fn rows(operations: &str) -> Value {
    World::new().value(&step(operations)).await["out"].clone()
}

async fn ids(operations: &str) -> Vec<u64> {
    let rows = rows(operations).await;
    rows.as_array().expect("rows").iter().map(|r| r["id"].as_u64().expect("an id")).collect()
}

fn step(operations: &str) -> String {
    format!(
        "{ORDERS}- {{name: t, type: data_transform, input_source: state.orders, output_field: out, operations: \
         [{operations}]}}"
    )
}

#[tokio::test]
async fn a_filter_keeps_what_holds_and_missing_never_passes() {
    assert_eq!(ids("{operation: filter, condition: 'total > -100'}").await, [1, 2, 4]);
    assert_eq!(ids("{operation: filter, condition: 'total < 5 and tier == \"silver\"'}").await, [2]);
    assert_eq!(ids("{operation: filter, condition: 'tier == state.wanted && user != 2'}").await, [4, 5]);
    assert_eq!(ids("{operation: filter, field: total, condition: 'value >= 10'}").await, [1, 4]);
    assert_eq!(ids("{operation: filter, field: at.city}").await, [1]);
    assert_eq!(ids("{operation: filter, condition: 'item.tags contains \"b\"'}").await, [1, 2]);
}

#[tokio::test]
async fn a_sort_puts_missing_last_either_way_and_is_stable() {
    assert_eq!(ids("{operation: sort, field: total}").await, [2, 1, 4, 3, 5]);
    assert_eq!(ids("{operation: sort, field: total, order: desc}").await, [4, 1, 2, 3, 5]);
    assert_eq!(ids("{operation: sort, by: [tier, {field: id, order: desc}]}").await, [5, 4, 3, 1, 2]);
    assert_eq!(ids("{operation: sort, by: tier}").await, [1, 3, 4, 5, 2]);
}

#[tokio::test]
async fn numbers_are_ordered_exactly() {
    let steps = "\
- {name: t, type: data_transform, input_source: '{{ [9007199254740993, 9007199254740992.0, 9007199254740992, 2.5, 2, -1, true, \"a\"] }}', output_field: out, operations: [{operation: sort}]}";
    let value = World::new().value(steps).await;
    let expected = json!([
        true,
        -1,
        2,
        2.5,
        9_007_199_254_740_992.0,
        9_007_199_254_740_992_i64,
        9_007_199_254_740_993_i64,
        "a"
    ]);
    assert_eq!(value["out"], expected);
}

#[tokio::test]
async fn a_map_changes_rows_or_a_field() {
    let first = |rows: Value| rows[0].clone();
    let limited = "{operation: limit, count: 1}";
    let row = first(
        rows(&format!("{limited}, {{operation: map, field: tier, mapping: {{gold: G, silver: S}}}}")).await,
    );
    assert_eq!(row["tier"], "G");
    let row =
        first(rows(&format!("{limited}, {{operation: map, field: total, expression: total * 2 + 1}}")).await);
    assert_eq!(row["total"], 21);
    let row =
        first(rows(&format!("{limited}, {{operation: map, field: tier, expression: uppercase}}")).await);
    assert_eq!(row["tier"], "GOLD");
    let row = first(rows(&format!("{limited}, {{operation: map, field: at.zip, expression: id + 1}}")).await);
    assert_eq!(row["at"], json!({"city": "Rom", "zip": 2}));
    let row = first(rows(&format!("{limited}, {{operation: map, mapping: {{seen: true}}}}")).await);
    assert_eq!((&row["seen"], &row["id"]), (&json!(true), &json!(1)));
    assert_eq!(rows("{operation: map, expression: id * 10}").await, json!([10, 20, 30, 40, 50]));
}

#[tokio::test]
async fn aggregates_ignore_missing_and_refuse_text() {
    let all = [
        ("sum", json!(206.5)),
        ("count", json!(3)),
        ("min", json!(-3.5)),
        ("max", json!(200)),
        ("median", json!(10)),
        ("first", json!(10)),
        ("last", json!(200)),
    ];
    for (function, expected) in all {
        let value = rows(&format!("{{operation: aggregate, field: total, function: {function}}}")).await;
        assert_eq!(value, expected, "{function}");
    }
    assert_eq!(rows("{operation: aggregate, field: id}").await, json!(15));
    assert_eq!(rows("{operation: aggregate, field: id, function: average}").await, json!(3.0));
    assert_eq!(
        rows("{operation: aggregate, field: tier, function: unique}").await,
        json!(["gold", "silver"])
    );
    assert_eq!(rows("{operation: aggregate, field: tier, function: count_distinct}").await, json!(2));
    let none = "{operation: limit, count: 0}, {operation: aggregate, field: id, function: average}";
    assert_eq!(rows(none).await, Value::Null);
    let error = World::new().error(&step("{operation: aggregate, field: tier}")).await;
    assert_eq!(error.message, "operation 1 (aggregate): row 1: `tier` is \"gold\", which is not a number");
}

#[tokio::test]
async fn groups_can_be_summed_up() {
    let grouped = World::new().value(&step("{operation: group_by, field: tier}")).await;
    assert_eq!(grouped["count"], 2);
    assert_eq!(grouped["out"]["silver"][0]["id"], 2);
    let each =
        "{operation: group_by, field: tier}, {operation: limit, count: 2}, {operation: aggregate, field: id}";
    assert_eq!(rows(each).await, json!({"gold": 4, "silver": 2}));
    let table = "{operation: aggregate, group_by: tier, field: id, function: max, as: newest}";
    assert_eq!(rows(table).await, json!([{"tier": "gold", "newest": 5}, {"tier": "silver", "newest": 2}]));
    // A number and its text are one key of a map: neither group is lost.
    let steps = "- {name: t, type: data_transform, input_source: '{{ [{\"k\": 1}, {\"k\": \"1\"}, {}] }}', output_field: out, operations: [{operation: group_by, field: k}]}";
    let value = World::new().value(steps).await;
    assert_eq!(value["out"], json!({"1": [{"k": 1}, {"k": "1"}], "null": [{}]}));
}

#[tokio::test]
async fn a_join_never_matches_on_missing() {
    let join = |more: &str| {
        format!(
            "{{operation: join, left_field: user, join_key: id, right_source: state.users{more}}}, {{operation: select, fields: [id, name, who.name]}}"
        )
    };
    let names =
        |rows: &Value| rows.as_array().expect("rows").iter().map(|r| r["name"].clone()).collect::<Vec<_>>();
    let left = rows(&join("")).await;
    assert_eq!(names(&left), [json!("Bo"), json!("Ada"), Value::Null, Value::Null, json!("Ada")]);
    let inner = rows(&join(", join_type: inner, as: who")).await;
    assert_eq!(names(&inner), [json!("Bo"), json!("Ada"), json!("Ada")]);
    assert_eq!(inner[0]["id"], 1, "under a name of its own, the partner overwrites nothing");
}

/// Naive: only the first partner of a row is seen.
#[tokio::test]
async fn a_join_gives_every_pair_in_order() {
    let join = |more: &str| {
        format!(
            "- {{name: t, type: data_transform, input_source: '{{{{ [{{\"k\": 1, \"l\": \"a\"}}, {{\"k\": 2, \"l\": \"b\"}}, {{\"k\": 1.0, \"l\": \"c\"}}, {{\"l\": \"d\"}}] }}}}', output_field: out, operations: [{{operation: join, join_key: k, right_source: '[{{\"k\": 1, \"r\": \"x\"}}, {{\"r\": \"none\"}}, {{\"k\": 1, \"r\": \"y\"}}, {{\"k\": 3, \"r\": \"z\"}}]'{more}}}]}}"
        )
    };
    let pairs = |value: &Value| -> Vec<String> {
        let all = value["out"].as_array().expect("rows").iter();
        all.map(|r| format!("{}{}", r["l"].as_str().unwrap(), r["r"].as_str().unwrap_or("-"))).collect()
    };
    assert_eq!(pairs(&World::new().value(&join("")).await), ["ax", "ay", "b-", "cx", "cy", "d-"]);
    assert_eq!(pairs(&World::new().value(&join(", join_type: inner")).await), ["ax", "ay", "cx", "cy"]);
}

#[tokio::test]
async fn the_small_operations() {
    assert_eq!(ids("{operation: unique, field: tier}").await, [1, 2]);
    assert_eq!(ids("{operation: limit, count: 2, offset: 1}").await, [2, 3]);
    assert_eq!(rows("{operation: flatten, field: tags}").await, json!(["a", "b", "b"]));
    let select = "{operation: limit, count: 2}, {operation: select, fields: {who: user, city: at.city}}";
    assert_eq!(rows(select).await, json!([{"who": 2, "city": "Rom"}, {"who": 1}]));
    let steps = "- {name: t, type: data_transform, input_source: '{{ [[1], [2, [3]], 4] }}', output_field: out, operations: [{operation: flatten}, {operation: limit, count: 3}]}";
    assert_eq!(World::new().value(steps).await, json!({"out": [1, 2, [3]], "count": 3}));
}

#[tokio::test]
async fn a_map_is_entered_by_field_or_refused_with_advice() {
    let steps = |field: &str| {
        format!(
            "- {{name: all, type: test_echo, value: {{orders: [{{n: 1}}, {{n: 5}}], users: []}}}}
- {{name: t, type: data_transform, input_source: steps.all, operations: [{{operation: filter, condition: n > 2{field}}}]}}"
        )
    };
    let value = World::new().value(&steps(", field: orders")).await;
    assert_eq!(value, json!({"t": [{"n": 5}], "count": 1}), "the step's name is the default field");
    let error = World::new().error(&steps("")).await;
    assert!(
        error.message.contains("operation 1 (filter): it needs a list of rows, and it got a map"),
        "{error:?}"
    );
    assert!(error.help.is_some_and(|h| h.contains("orders, users")));
}

/// Naive: a step that was left out is a field that no row has: nothing is kept, and nothing is told.
#[tokio::test]
async fn a_condition_on_a_step_that_gave_nothing_fails() {
    let steps = "\
- {name: least, type: test_echo, value: 2, condition: false}
- {name: t, type: data_transform, input_source: '{{ [{\"n\": 1}, {}, {\"n\": 3}] }}', operations: [{operation: filter, condition: CONDITION}]}";
    let error = World::new().error(&steps.replace("CONDITION", "n >= steps.least.result")).await;
    let expected = "operation 1 (filter): row 1: `steps.least` has no value here";
    assert_eq!(error.message, expected, "{error:?}");
    assert!(error.help.as_ref().is_some_and(|h| h.contains("default")), "{error:?}");
    let value =
        World::new().value(&steps.replace("CONDITION", "n >= (steps.least.result | default(2))")).await;
    assert_eq!(value, json!({"t": [{"n": 3}], "count": 1}));
}

/// Naive: the first `}}` ends the expression, also where it closes two maps or stands in a text.
#[tokio::test]
async fn expressions_in_braces_may_have_braces_in_them() {
    let steps = r#"
- {name: t, type: data_transform, condition: "{{ {'a': {'b': true}}.a.b }}", input_source: '{{ [{"n": {"k": {"z": 1}}}, {"n": {"k": {"z": 2}}}] }}', operations: [{operation: filter, condition: "{{ {'x': {'y': n.k.z}}.x.y > 1 and '}}' == '}}' }}"}]}"#;
    assert_eq!(World::new().value(steps).await, json!({"t": [{"n": {"k": {"z": 2}}}], "count": 1}));
}

#[tokio::test]
async fn formats() {
    let of = |format: &str| {
        format!(
            "- {{name: t, type: data_transform, input_source: '{{{{ [1, 2] }}}}', output_format: {format}}}"
        )
    };
    assert_eq!(World::new().value(&of("json")).await, json!({"t": "[1,2]", "count": 2}));
    assert_eq!(World::new().value(&of("count")).await, json!({"t": 2, "count": 2}));
}

#[test]
fn mistakes_are_found_before_the_run() {
    let world = World::new();
    let found = |operation: &str| world.findings(&step(operation)).join("\n");
    assert!(found("{operation: filtre}").contains("E0104"), "{}", found("{operation: filtre}"));
    assert!(found("{operation: filter}").contains("the operation `filter` needs `condition` or `field`"));
    assert!(found("{operation: join, join_key: id}").contains("needs `right_source`"));
    assert!(
        found("{operation: sort, field: a, count: 3}")
            .contains("E0110 the operation `sort` does nothing with `count`")
    );
    assert!(
        found("{operation: filter, condition: 'a >'}").contains("E0401"),
        "{}",
        found("{operation: filter, condition: 'a >'}")
    );
    assert_eq!(found("{operation: limit, count: 3}"), "");
    let count = "- {name: t, type: data_transform, input_source: '{{ [] }}', output_field: count}";
    assert!(world.findings(count).join("\n").contains("E0109"));
}

#[tokio::test]
async fn many_rows_give_the_same_answer_as_few() {
    let mut rows = String::new();
    for index in 0..50_000_u64 {
        let _ =
            write!(rows, "{{\"id\": {index}, \"n\": {}, \"g\": {}}},", (index * 7919) % 50_000, index % 10);
    }
    let all: Value = serde_json::from_str(&format!("[{}]", rows.trim_end_matches(','))).expect("rows");
    let mut world = World::new();
    world.answers = vec![json!({"text": "", "data": all})];
    let steps = "\
- {name: load, type: claude, prompt: go}
- name: t
  type: data_transform
  input_source: steps.load.data
  output_field: out
  operations:
    - {operation: filter, condition: g < 5}
    - {operation: unique, field: n}
    - {operation: sort, field: n, order: desc}
    - {operation: join, left_field: n, join_key: id, right_source: steps.load.data, as: twin}
    - {operation: aggregate, group_by: g, field: n, function: count}";
    let value = world.value(steps).await;
    let groups = value["out"].as_array().expect("groups");
    assert_eq!(groups.len(), 5);
    assert!(groups.iter().all(|g| g["count"] == 5_000), "{groups:?}");
}
