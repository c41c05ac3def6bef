//! Mutated expressions and templates, from the parser to the rendered text: no panic, no hang, and every error has words.

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
#[expect(
    clippy::disallowed_methods,
    reason = "a longer run is asked for by FUZZ_ROUNDS; a hang is seen by the clock"
)]
fn any_text_gives_a_value_or_an_error() {
    let names = Context::of_cases();
    let seeds = seeds();
    let rounds: usize = std::env::var("FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let mut random = Random::new(0x1a96_5eed_0000_cafe);
    let (mut values, mut slowest) = (0, std::time::Duration::ZERO);
    for round in 0..rounds {
        let text = mutate(&seeds[round % seeds.len()], &mut random);
        let begun = std::time::Instant::now();
        if text.contains("{{") || text.contains("{%") {
            let outcome = Template::compile(&text, &["my-step"]).and_then(|t| t.render(&names));
            values += usize::from(check(&text, outcome));
        } else {
            let outcome = Expr::compile(&text, &["my-step"]).and_then(|e| e.eval(&names));
            values += usize::from(check(&text, outcome));
        }
        slowest = slowest.max(begun.elapsed());
    }
    assert!(values > rounds / 20, "hardly anything has a value: the mutator proves nothing");
    assert!(slowest < std::time::Duration::from_secs(5), "a text took {slowest:?}");
}
