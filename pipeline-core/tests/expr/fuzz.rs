//! Mutated expressions and templates, from the parser to the rendered text: no panic, no hang, and every error has words.

use pipeline_core::conformance::trials::Trials;
use pipeline_core::expr::{Expr, ExprError, Template};
use pipeline_core::value::Value;

use super::cases::{Context, table};
use super::fuzz::{Random, mutate};

fn seeds() -> Vec<String> {
    let table = table();
    let keys = ["cases", "templates", "refused", "refused_templates"];
    let rows = keys.iter().flat_map(|k| table.get(k).unwrap().items());
    rows.filter_map(|row| row.items()[0].as_text()).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

fn check(text: &str, outcome: Result<Value, ExprError>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.message.is_empty(), "refused without a word: {text}");
            let range = error.range.unwrap_or_default();
            assert!(range.start <= range.end && range.end <= text.len(), "{range:?} is not in {text:?}");
            assert!(text.get(range).is_some(), "the place cuts a character: {text:?}");
            false
        }
    }
}

/// Naive: a parser that recurses on every sign, and functions without a price.
#[test]
#[expect(clippy::disallowed_methods, reason = "a hang is seen by the clock")]
fn t10_any_text_gives_a_value_or_an_error() {
    let trials = Trials::of("T10", 50_000);
    let names = Context::of_cases();
    let seeds = seeds();
    let rounds = usize::try_from(trials.wanted()).unwrap();
    let mut random = Random::new(0x1a96_5eed_0000_cafe ^ trials.seed());
    let (mut values, mut slowest) = (0, std::time::Duration::ZERO);
    for round in 0..rounds {
        let text = mutate(&seeds[round % seeds.len()], &mut random);
        let begun = std::time::Instant::now();
        trials.try_out(&text, || {
            let outcome = if text.contains("{{") || text.contains("{%") {
                Template::compile(&text, &["my-step"]).and_then(|t| t.render(&names))
            } else {
                Expr::compile(&text, &["my-step"]).and_then(|e| e.eval(&names))
            };
            values += usize::from(check(&text, outcome));
        });
        slowest = slowest.max(begun.elapsed());
    }
    assert!(values > rounds / 20, "hardly anything has a value: the mutator proves nothing");
    trials.try_out("the slowest", || assert!(slowest.as_secs() < 5, "it took {slowest:?}"));
    trials.finish(format!("{rounds} mutants of templates and conditions: a value or an error with its place, {values} values, slowest {} ms", slowest.as_millis()));
}
