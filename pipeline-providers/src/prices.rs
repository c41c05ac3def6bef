//! What models cost.
//!
//! Owns [`PriceTable`]: the dated table that comes with the program (`prices.json`), with what a user put over it. A model
//! that is not in it has no price: nothing is guessed. Must not know requests or vendors.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline_core::fact::Usage;
use pipeline_core::provider::{ModelPrice, Price};
use serde::Deserialize;

/// The table that comes with the program.
const BUILT_IN: &str = include_str!("../prices.json");

/// Tokens that a price is for.
const UNIT: f64 = 1_000_000.0;

/// Prices by model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PriceTable {
    own: BTreeMap<String, ModelPrice>,
    shared: Arc<File>,
}

/// A file of prices.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    as_of: String,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    models: BTreeMap<String, ModelPrice>,
}

impl PriceTable {
    /// The table that comes with the program.
    ///
    /// # Errors
    /// A sentence, when the program was put together with a file that cannot be read.
    pub fn built_in() -> Result<Self, String> {
        Self::parse(BUILT_IN)
    }

    /// A file of the same form.
    ///
    /// # Errors
    /// A sentence that says what cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File =
            serde_json::from_str(text).map_err(|e| format!("the price table cannot be read: {e}"))?;
        Ok(Self { own: BTreeMap::new(), shared: Arc::new(file) })
    }

    /// The table with `prices` put over it.
    #[must_use]
    pub fn with(mut self, prices: &BTreeMap<String, ModelPrice>) -> Self {
        self.own.extend(prices.iter().map(|(model, price)| (model.clone(), *price)));
        self
    }

    /// The day of the table.
    pub fn as_of(&self) -> &str {
        &self.shared.as_of
    }

    /// The full name of a model: `sonnet` means one.
    pub fn full_name<'a>(&'a self, model: &'a str) -> &'a str {
        self.shared.aliases.get(model).map_or(model, String::as_str)
    }

    /// The price of a model. A name with a date or version behind it (`claude-haiku-4-5-20251001`, `gpt-5-2025-08-07`) has
    /// the price of the model it is a version of.
    pub fn price(&self, model: &str) -> Option<&ModelPrice> {
        let model = self.full_name(model.strip_prefix("models/").unwrap_or(model));
        let find = |name: &str| self.own.get(name).or_else(|| self.shared.models.get(name));
        find(model).or_else(|| find(undated(model)?))
    }

    /// What `usage` of a model costs; `None` = the model has no known price.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<f64> {
        let price = self.price(model)?;
        let rates = Rates::of(price, usage.sent());
        let cost = usage.input as f64 * rates.input
            + usage.output as f64 * rates.output
            + usage.cache_read as f64 * rates.cache_read
            + usage.cache_write as f64 * rates.cache_write;
        Some(cost / UNIT)
    }

    /// The most that `input` tokens sent and `output` tokens received can cost.
    pub fn at_most(&self, model: &str, input: u64, output: u64) -> Price {
        let Some(price) = self.price(model) else { return Price::Unknown };
        // A call may be billed as a long one or as a short one, whichever is dearer.
        let dearest = [Rates::of(price, 0), Rates::of(price, input)].into_iter().fold(
            (0.0_f64, 0.0_f64),
            |most, rates| {
                let input = rates.input.max(rates.cache_write).max(rates.cache_read);
                (most.0.max(input), most.1.max(rates.output))
            },
        );
        Price::AtMost((input as f64 * dearest.0 + output as f64 * dearest.1) / UNIT)
    }
}

struct Rates {
    input: f64,
    output: f64,
    cache_read: f64,
    cache_write: f64,
}

impl Rates {
    fn of(price: &ModelPrice, sent: u64) -> Self {
        let (input, output, cache_read) = match price.long.filter(|long| sent > long.above) {
            Some(long) => (long.input, long.output, long.cache_read),
            None => (price.input, price.output, price.cache_read),
        };
        // Writing to a cache is dearer by the same factor for long calls.
        let write =
            price.cache_write.map_or(1.0, |write| if price.input > 0.0 { write / price.input } else { 1.0 });
        Self { input, output, cache_read: cache_read.unwrap_or(input), cache_write: input * write }
    }
}

/// The name without a date at its end: `-20251001`, `-2025-08-07`, `-latest`, `-001`.
fn undated(model: &str) -> Option<&str> {
    let is_version =
        |end: &str| end == "latest" || (end.len() >= 3 && end.chars().all(|c| c.is_ascii_digit()));
    let mut name = model;
    // `2025-08-07` is three words.
    if let Some((rest, day)) = name.rsplit_once('-')
        && let Some((rest, month)) = rest.rsplit_once('-')
        && let Some((rest, year)) = rest.rsplit_once('-')
        && [year, month, day].iter().map(|w| w.len()).eq([4, 2, 2])
        && [year, month, day].iter().all(|w| w.chars().all(|c| c.is_ascii_digit()))
    {
        return Some(rest);
    }
    let (rest, end) = name.rsplit_once('-')?;
    name = rest;
    is_version(end).then_some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn table() -> PriceTable {
        PriceTable::built_in().unwrap()
    }

    #[test]
    fn usage_is_priced_by_kind_of_token() {
        let million = Usage { input: 1_000_000, ..Usage::default() };
        assert_eq!(table().cost("sonnet", &million), Some(3.0));
        let cached =
            Usage { cache_read: 1_000_000, cache_write: 1_000_000, output: 1_000_000, ..Usage::default() };
        assert!((table().cost("claude-haiku-4-5-20251001", &cached).unwrap() - 6.35).abs() < 1e-9);
        let long = Usage { input: 300_000, output: 1000, ..Usage::default() };
        assert!((table().cost("gemini-2.5-pro", &long).unwrap() - (0.75 + 0.015)).abs() < 1e-9);
    }

    #[test]
    fn an_unknown_model_has_no_price_and_a_version_has_its_models() {
        assert_eq!(table().cost("no-such-model", &Usage::default()), None);
        assert_eq!(table().price("gpt-4"), None, "gpt-4o is another model");
        assert!(table().price("gpt-5-mini-2025-08-07").is_some());
        assert!(table().price("models/gemini-2.5-flash").is_some());
        assert!(table().price("gemini-2.0-flash-001").is_some());
        assert_eq!(table().at_most("no-such-model", 1, 1), Price::Unknown);
    }

    #[test]
    fn a_users_price_wins_and_the_table_is_dated() {
        let own = BTreeMap::from([(
            "mine".to_owned(),
            ModelPrice { input: 1.0, output: 2.0, ..ModelPrice::default() },
        )]);
        let table = table().with(&own);
        assert_eq!(table.cost("mine", &Usage { output: 500_000, ..Usage::default() }), Some(1.0));
        assert_eq!(table.as_of().len(), "2026-11-25".len());
    }

    #[test]
    fn no_way_to_be_billed_is_dearer_than_the_bound() {
        let table = table();
        for model in table.shared.models.keys() {
            for (input, output) in [(10, 10), (250_000, 5), (1_000_000, 60_000)] {
                let Price::AtMost(most) = table.at_most(model, input, output) else { unreachable!() };
                let ways = [(input, 0, 0), (0, input, 0), (0, 0, input), (input / 2, input / 4, input / 4)];
                for (plain, read, write) in ways {
                    let usage = Usage {
                        input: plain,
                        cache_read: read,
                        cache_write: write,
                        output,
                        ..Usage::default()
                    };
                    assert!(
                        table.cost(model, &usage).unwrap() <= most + 1e-12,
                        "{model} {usage:?} over {most}"
                    );
                }
            }
        }
    }
}
