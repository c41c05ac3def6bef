//! Rows, legacy references, hostile texts. The language itself is tested by its cases, in `tests/expr/`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::expr::{Dynamic, Expr, Names, RowExpr, Template, rewrite_legacy};
use crate::value::Data;

struct Scope(Value);

impl Names for Scope {
    fn get(&self, root: &str, field: Option<&str>) -> Option<Data> {
        let value = self.0.get(root)?;
        let value = match field {
            Some(field) => value.get(field)?,
            None => value,
        };
        let is_step = root == "steps" && field.is_some();
        Some(if is_step { Data::of_step(value.clone()) } else { Data::new(value.clone()) })
    }

    fn now(&self) -> Timestamp {
        Timestamp(1_000_000)
    }
}

fn scope() -> Scope {
    Scope(json!({
        "steps": {
            "analyze": {"text": "{\"score\": 8}", "data": {"score": 8, "tags": ["a", "b"]}, "cost_usd": 0.5},
            "fan": {"results": {"one": {"text": "uno"}}, "success": true},
            "my-step": {"text": "hyphen"},
            "calls": {"text": "", "function_calls": [{"name": "f", "arguments": {"rating": 3}}]},
            "plain": 7,
        },
        "state": {"n": 3, "name": "Ada", "none": null, "list": [3, 1, 2], "zero": 0},
        "inputs": {"x": 2},
        "n": 3, "name": "Ada", "list": [3, 1, 2], "empty_list": [], "people": [{"age": 3, "n": "a"}, {"n": "b"}],
        "my": 10, "step": 4,
    }))
}

fn eval(text: &str) -> Result<Value, String> {
    Expr::compile(text, &["my-step"]).map_err(|e| e.message)?.eval(&scope()).map_err(|e| e.message)
}

#[test]
fn text_from_a_model_is_never_expanded_again() {
    let names = Scope(json!({"state": {"evil": "{{ n }} {% for x in y %}"}}));
    let value = Template::compile("got: {{ state.evil }}", &[]).unwrap().render(&names).unwrap();
    assert_eq!(value, json!("got: {{ n }} {% for x in y %}"));
}

#[test]
fn rows_see_their_fields_first_and_the_scope_where_it_is_named() {
    let row = |text: &str, row: Value| {
        let bound = Dynamic::Row(RowExpr::compile(text, &[]).unwrap()).render(&scope()).unwrap();
        serde_json::from_value::<RowExpr>(bound).unwrap().eval(&row).unwrap()
    };
    assert_eq!(row("age * 2", json!({"age": 4})), json!(8));
    assert_eq!(row("item + 1", json!(4)), json!(5));
    assert_eq!(row("age > state.n", json!({"age": 4})), json!(true));
    let holds = |text: &str, row: Value| RowExpr::compile(text, &[]).unwrap().holds(&row).unwrap();
    assert!(!holds("age > 3", json!({})));
    assert!(!holds("age < 3", json!({"age": null})));
    assert!(!holds("a.b.c == 3", json!({"a": {}})));
    assert!(holds("age != 3", json!({"age": 4})));
    for missing in ["tags contains 'b'", "name matches 'b'", "name starts_with 'b'", "age between 1 and 3"] {
        assert!(!holds(missing, json!({})), "{missing}");
    }
}

/// Naive: whatever is missing in an expression over rows is a field that the row lacks, and never passes.
#[test]
fn rows_tell_what_is_missing_in_the_scope() {
    let row = |text: &str, row: Value| {
        let bound = Dynamic::Row(RowExpr::compile(text, &[]).unwrap()).render(&scope()).unwrap();
        serde_json::from_value::<RowExpr>(bound).unwrap().eval(&row).map_err(|e| e.message)
    };
    for (text, why) in [
        ("n > steps['no' ~ 'ne'].result", "`steps.none` has no value here"),
        ("n > steps.left.result", "`steps.left` has no value here"),
        ("n > steps.analyze.nothing", "`steps.analyze` has no `nothing`"),
        ("n > inputs.y", "`inputs.y` has no value here"),
        ("n > state['z']", "`state.z` has no value here"),
        ("any([1], 'item > state[\\'z\\']')", "`state.z` has no value here"),
        ("any([1], 'item > inputs.y')", "`inputs.y` has no value here"),
    ] {
        let error = row(text, json!({"n": 1})).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    // A row that has it itself, names that no scope has here, and what allows for absence.
    for (text, fields, expected) in [
        ("n > inputs.y", json!({"n": 1, "inputs": {"y": 0}}), json!(true)),
        ("n > inputs.y", json!({"n": 1, "inputs": {}}), json!(false)),
        ("any([1], 'item > inputs.y')", json!({"inputs": {}}), json!(false)),
        ("any(people, 'age > loop.least')", json!({"people": [{"age": 1}]}), json!(false)),
        ("n > loop.least", json!({"n": 1}), json!(false)),
        ("n > (inputs.y | default(0))", json!({"n": 1}), json!(true)),
        ("exists(steps.left) or n == 1", json!({"n": 1}), json!(true)),
        ("n == 1 or n > steps.left.result", json!({"n": 1}), json!(true)),
    ] {
        assert_eq!(row(text, fields.clone()), Ok(expected), "{text} over {fields}");
    }
    let filter = Expr::compile("filter(people, \"age > steps.left.result\")", &[]).unwrap();
    let error = filter.eval(&scope()).unwrap_err();
    assert!(error.message.contains("`steps.left` has no value here"), "{error}");
    assert!(error.help.is_some_and(|help| help.contains("default")));
}

#[test]
fn legacy_references() {
    let known = |name: &str| name == "step" || name == "rows";
    let table = [
        ("previous_response:step.path", Some("steps['step'].path")),
        ("previous_response:step:path.x", Some("steps['step'].path.x")),
        ("step:path", Some("steps['step'].path")),
        ("other:path", None),
        ("previous_response:step", Some("steps['step'].result")),
        ("not a reference: at all", None),
    ];
    for (text, expected) in table {
        assert_eq!(rewrite_legacy(text, known).as_deref(), expected, "{text}");
    }
}

#[test]
fn bombs_end_with_an_error_on_a_small_stack() {
    #[expect(clippy::disallowed_methods, reason = "a thread with the smallest stack that users have")]
    let worker = std::thread::spawn(|| {
        let bombs = [
            format!("{}1{}", "(".repeat(4000), ")".repeat(4000)),
            format!("{}1{}", "[".repeat(4000), "]".repeat(4000)),
            "!".repeat(8000) + "true",
            "not ".repeat(2000) + "true",
            "-".repeat(8000) + "1",
            "1".to_owned() + &" + 1".repeat(2000),
            "true".to_owned() + &" and true".repeat(1000),
            "true".to_owned() + &" ? 1 : true".repeat(1000),
            "a".to_owned() + &".a".repeat(4000),
            "list".to_owned() + &" | first".repeat(1000),
            "range(100000) | map('string') | join('x') ~ range(100000) | list | string".to_owned(),
        ];
        for bomb in bombs {
            let outcome = eval(&bomb);
            let start: String = bomb.chars().take(12).collect();
            assert!(outcome.is_err() || outcome.is_ok(), "{start}");
        }
        let loops = "{% for a in range(1000) %}".repeat(8) + "x" + &"{% endfor %}".repeat(8);
        let error = Template::compile(&loops, &[]).unwrap().render(&scope()).unwrap_err();
        assert!(error.message.contains("too many steps"), "{error}");
        let ifs = "{% if true %}".repeat(3000);
        assert!(Template::compile(&ifs, &[]).is_err());
    });
    worker.join().unwrap();
}

/// Values that nest: a text cannot build one that is too deep to print, store or drop.
#[test]
fn values_cannot_nest_without_end() {
    let worker = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        let texts = [
            "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}done",
            "{% set ns = namespace(x={}) %}{% for i in range(4000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(4000) %}{% set ns.x = append([], ns.x) %}{% endfor %}{{ ns.x == [ns.x] }}!",
            "{% set ns = namespace(x=[]) %}{% for i in range(4000) %}{% set ns.x = concat([ns.x], []) %}{% endfor %}{{ hash(ns.x) }}!",
            "{% macro f(x) %}{{ f([x]) }}{% endmacro %}{{ f(1) }}!",
        ];
        for text in texts {
            let outcome = Template::compile(text, &[]).unwrap().render(&scope());
            assert!(outcome.is_err() || outcome == Ok(json!("done")) || outcome == Ok(json!("false!")), "{text}: {outcome:?}");
        }
    });
    worker.unwrap().join().unwrap();
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "[a-z0-9 .,:(){}\\[\\]'\"?!&|=<>%#~*/+-]{0,40}|(n|list|steps\\.a|between|and|contains|\\?|:|\\(|\\)|'x'|1|not|exists|empty|\\||default| |\\[|\\]|\\.|==|if|else|in|is){0,14}") {
        if let Ok(expr) = Expr::compile(&text, &["my-step"]) {
            let _ = expr.eval(&scope());
        }
        for template in [text.clone(), format!("a {{{{ {text} }}}} b"), format!("{{% if {text} %}}x{{% endif %}}")] {
            if let Ok(template) = Template::compile(&template, &["my-step"]) {
                let _ = template.render(&scope());
            }
        }
    }
}
