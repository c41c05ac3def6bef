//! Tables: one line per rule of the language.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::expr::{Dynamic, Expr, Names, RowExpr, Template, reference, rewrite_legacy};
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
fn every_documented_example_gives_what_it_says() {
    for doc in reference() {
        let (text, expected) = doc.example;
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(eval(text), Ok(expected), "{}", doc.signature);
    }
}

#[test]
fn operators() {
    let table = [
        ("1 + 2 * 3", json!(7)),
        ("7 / 2", json!(3.5)),
        ("4 / 2", json!(2.0)),
        ("7 // 2", json!(3)),
        ("7 % 4", json!(3)),
        ("n == 3 && name == 'Ada'", json!(true)),
        ("n == 4 || !(name == 'Bob')", json!(true)),
        ("!true or n > 2", json!(true)),
        ("not n > 5", json!(true)),
        ("n between 1 and 3 and name == 'Ada'", json!(true)),
        ("n between 4 and 9 or n == 3", json!(true)),
        ("n not between 4 and 9", json!(true)),
        ("name contains 'd'", json!(true)),
        ("list contains 2", json!(true)),
        ("name not contains 'z'", json!(true)),
        ("name matches '^A'", json!(true)),
        ("name starts_with 'A' and name ends_with 'a'", json!(true)),
        ("n > 2 ? 'big' : 'small'", json!("big")),
        ("n > 5 ? 'big' : n > 2 ? 'mid' : 'small'", json!("mid")),
        ("[n > 5 ? 1 : 2, 3]", json!([2, 3])),
        ("{'a': n, 'b': [1]}", json!({"a": 3, "b": [1]})),
        ("n in [1, 2, 3]", json!(true)),
        ("5 not in list", json!(true)),
        ("state.none exists", json!(true)),
        ("state.missing exists", json!(false)),
        ("exists(state.missing)", json!(false)),
        ("state.missing is defined", json!(false)),
        ("state.missing is not defined", json!(true)),
        ("state.missing | default('x')", json!("x")),
        ("steps.analyze.data.deep.er | default(4)", json!(4)),
        ("state.none empty", json!(true)),
        ("empty_list is empty", json!(true)),
        ("list not empty", json!(true)),
        ("isEmpty(empty_list)", json!(true)),
        ("null == state.none", json!(true)),
        ("true", json!(true)),
        ("'it''s' if false else \"it's\"", json!("it's")),
        ("'a && b contains c ? d : e'", json!("a && b contains c ? d : e")),
        ("list | sort | first", json!(1)),
        ("list | length > 2", json!(true)),
        ("name ~ '-' ~ n", json!("Ada-3")),
        ("now()", json!(1000)),
        ("date('1970-01-02') > now()", json!(true)),
        ("now() < '2020-01-01'", json!(true)),
        ("any(people, 'age > 2')", json!(true)),
        ("count(people, 'age > 2')", json!(1)),
        ("map(people, 'item.n')", json!(["a", "b"])),
        ("filter(list, 'item >= 2')", json!([3, 2])),
    ];
    for (text, expected) in table {
        assert_eq!(eval(text), Ok(expected), "{text}");
    }
}

#[test]
fn step_values() {
    let table = [
        ("steps.analyze.score > 7", json!(true)),
        ("steps.analyze.data.score", json!(8)),
        ("steps.analyze.result.score", json!(8)),
        ("steps.analyze.cost", json!(0.5)),
        ("steps.analyze.tags[1]", json!("b")),
        ("steps.analyze.tags.0", json!("a")),
        ("steps.fan.one.text", json!("uno")),
        ("steps.calls.rating + 1", json!(4)),
        ("steps.plain", json!(7)),
        ("steps.plain.result", json!(7)),
        ("steps['my-step'].text", json!("hyphen")),
        ("steps.my-step.text", json!("hyphen")),
        ("my-step.text", json!("hyphen")),
        ("my - step", json!(6)),
        ("my -step", json!(6)),
    ];
    for (text, expected) in table {
        assert_eq!(eval(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_not_there_is_an_error_that_points_at_it() {
    let table = [
        ("state.missing == state.missing", "state.missing"),
        ("state.missing > 1", "state.missing"),
        ("steps.analyze.nope == steps.analyze.nada", "nope"),
        ("steps.analyze.nope.deep", "nope"),
        ("unknown_name", "unknown_name"),
        ("1 / 0", "zero"),
        ("n % 0", "zero"),
        ("2.0 / (n - 3)", "zero"),
        ("divide(1, 0)", "zero"),
        ("n = 3", "does not compare"),
        ("n ===3", "not an operator"),
        ("a < b < c", "chained"),
        ("(1 + 2", "never closed"),
        ("'abc", "closing quote"),
        ("n between 1", "and"),
        ("nope(3)", "nope"),
        ("name > 3", "order"),
        ("average(empty_list)", "empty"),
        ("range(200000)", "100000"),
        ("", "empty"),
    ];
    for (text, part) in table {
        let error = eval(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let error = Expr::compile("n > 1 and state.missing > 2", &[]).unwrap().eval(&scope()).unwrap_err();
    assert_eq!(error.range, Some(10..23));
    let error =
        Expr::compile("n > 1 and steps.analyze.bogus.x > 2", &[]).unwrap().eval(&scope()).unwrap_err();
    assert!(error.range.clone().is_some_and(|r| r.start >= 10 && r.end <= 35), "{error:?}");
}

#[test]
fn templates() {
    let table = [
        ("{{ n }}", json!(3)),
        ("  {{ list }}\n", json!([3, 1, 2])),
        ("n is {{ n }}", json!("n is 3")),
        ("{{ list }} and {{ state.none }}", json!("[3,1,2] and null")),
        ("{% for x in list %}{{ x }}{{ loop.index }},{% endfor %}", json!("31,12,23,")),
        ("{% if name contains 'd' %}yes{% endif %}", json!("yes")),
        ("{% raw %}{{ n }}{% endraw %}", json!("{{ n }}")),
        ("{# {{ nothing }} #}x", json!("x")),
        ("{% set y = n + 1 %}{{ y }}!", json!("4!")),
        ("a\n{{ n }}\n", json!("a\n3\n")),
        ("{{ 'a' }}{{ \"}}\" }}", json!("a}}")),
        ("<b>{{ '<i>&' }}</b>", json!("<b><i>&</b>")),
    ];
    for (text, expected) in table {
        let value = Template::compile(text, &[])
            .map_err(|e| e.message)
            .and_then(|t| t.render(&scope()).map_err(|e| e.message));
        assert_eq!(value, Ok(expected), "{text}");
    }
    let error = Template::compile("abc {{ n = 3 }}", &[]).unwrap_err();
    assert_eq!(error.range, Some(9..10));
    let error = Template::compile("abc {{ n ", &[]).unwrap_err();
    assert_eq!(error.range, Some(4..6));
    let error = Template::compile("abc {{ gone }} def", &[]).unwrap().render(&scope()).unwrap_err();
    assert_eq!(error.range, Some(7..11));
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
