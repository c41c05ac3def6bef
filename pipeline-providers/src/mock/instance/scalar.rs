//! Texts and numbers that fit a schema.
//!
//! Owns formats, lengths and ranges. Must not know objects, lists or references.

use serde_json::{Number, Value};

use crate::mock::instance::{Keywords, Place, count};
use crate::mock::pattern;
use crate::mock::seed::Dice;

/// Characters of a text at most.
const LONGEST: usize = 1 << 20;

/// Whole numbers beyond this are not exact in the arithmetic used here (2^53).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A text for `keywords`.
pub(super) fn text(keywords: &Keywords, place: Place<'_>, dice: &mut Dice) -> Option<Value> {
    let shortest = count(keywords, "minLength").unwrap_or(0);
    let longest = count(keywords, "maxLength").unwrap_or(LONGEST).min(LONGEST);
    if shortest > longest {
        return None;
    }
    if let Some(pattern) = keywords.get("pattern").and_then(Value::as_str) {
        dice.next();
        return pattern::matching(pattern, shortest, longest, dice).map(Value::String);
    }
    let format = keywords.get("format").and_then(Value::as_str);
    if let Some(text) = format.and_then(|format| formatted(format, place.variant, dice))
        && (shortest..=longest).contains(&text.chars().count())
    {
        return Some(Value::String(text));
    }
    let mut text = String::from("mock");
    for part in [place.name, dice.word()].into_iter().filter(|p| !p.is_empty()) {
        text.push(' ');
        text.push_str(part);
    }
    if place.variant > 0 {
        text = format!("{} {text}", place.variant + 1);
    }
    let mut missing = shortest.saturating_sub(text.chars().count());
    while missing > 0 {
        let word = format!(" {}", dice.word());
        missing = missing.saturating_sub(word.len());
        text.push_str(&word);
    }
    Some(Value::String(text.chars().take(longest).collect()))
}

fn formatted(format: &str, variant: usize, dice: &mut Dice) -> Option<String> {
    let day = dice.between(1, 28);
    let month = 1 + variant % 12;
    let word = dice.word();
    // Told apart by the variant where one list must not hold the same text twice.
    let number = if variant == 0 { String::new() } else { (variant + 1).to_string() };
    let text = match format {
        "date-time" => format!("2024-{month:02}-{day:02}T10:30:00Z"),
        "date" => format!("2024-{month:02}-{day:02}"),
        "time" => format!("10:{:02}:00Z", variant % 60),
        "duration" => format!("P{}D", variant + 1),
        "email" | "idn-email" => format!("{word}{number}@example.com"),
        "hostname" | "idn-hostname" => format!("{word}{number}.example.com"),
        "ipv4" => format!("192.0.2.{}", 1 + variant % 254),
        "ipv6" => format!("2001:db8::{}", 1 + variant % 9999),
        "uri" | "url" | "iri" => format!("https://example.com/{word}{number}"),
        "uri-reference" | "iri-reference" | "json-pointer" => format!("/{word}{number}"),
        "uuid" => dice.uuid(),
        "regex" => format!("^{word}{number}$"),
        _ => return None,
    };
    Some(text)
}

/// A number for `keywords`, from the middle of its range.
pub(super) fn number(keywords: &Keywords, is_whole: bool, variant: usize) -> Option<Value> {
    let range = Range::of(keywords)?;
    let multiple = keywords.get("multipleOf").and_then(Value::as_f64).filter(|step| *step > 0.0);
    let step = match (is_whole, multiple) {
        (false, None) => return range.middle(variant).and_then(Number::from_f64).map(Value::Number),
        (true, None) => 1.0,
        (false, Some(step)) => step,
        (true, Some(step)) => (1..=1000_u32).map(|n| step * f64::from(n)).find(|s| is_integral(*s))?,
    };
    let steps = range.steps(step, variant)?;
    let value = steps * step;
    if is_whole {
        return whole(value).map(Value::from);
    }
    // 3 × 0.1 is not quite 0.3: the shorter spelling is what was meant.
    let rounded: f64 = format!("{value:.9}").parse().ok()?;
    Number::from_f64(rounded).map(Value::Number)
}

/// The bounds of a number.
struct Range {
    low: Option<f64>,
    high: Option<f64>,
    without_low: bool,
    without_high: bool,
}

impl Range {
    fn of(keywords: &Keywords) -> Option<Self> {
        let bound = |key: &str| keywords.get(key).and_then(Value::as_f64);
        let flag = |key: &str| keywords.get(key) == Some(&Value::Bool(true));
        let (low, above) = (bound("minimum"), bound("exclusiveMinimum"));
        let (high, below) = (bound("maximum"), bound("exclusiveMaximum"));
        let without_low = flag("exclusiveMinimum") || above.is_some_and(|a| low.is_none_or(|l| a >= l));
        let without_high = flag("exclusiveMaximum") || below.is_some_and(|b| high.is_none_or(|h| b <= h));
        let range = Self {
            low: above.into_iter().chain(low).reduce(f64::max),
            high: below.into_iter().chain(high).reduce(f64::min),
            without_low,
            without_high,
        };
        match (range.low, range.high) {
            (Some(low), Some(high)) if low > high => None,
            _ => Some(range),
        }
    }

    fn middle(&self, variant: usize) -> Option<f64> {
        let more = variant as f64;
        match (self.low, self.high) {
            (Some(low), Some(high)) if low < high => Some(low + (high - low) * ((more + 1.0) / (more + 2.0))),
            (Some(only), Some(_)) => (!self.without_low && !self.without_high).then_some(only),
            (Some(low), None) => Some(low + 1.0 + more),
            (None, Some(high)) => Some(high - 1.0 - more),
            // Not whole: that tells it from an integer.
            (None, None) => Some(1.5 + more),
        }
    }

    /// How many steps of `step` the number has.
    fn steps(&self, step: f64, variant: usize) -> Option<f64> {
        let near = |steps: f64| (steps - steps.round()).abs() < 1e-9;
        let least = self.low.map(|low| {
            let steps = low / step;
            match near(steps) {
                true if self.without_low => steps.round() + 1.0,
                true => steps.round(),
                false => steps.ceil(),
            }
        });
        let most = self.high.map(|high| {
            let steps = high / step;
            match near(steps) {
                true if self.without_high => steps.round() - 1.0,
                true => steps.round(),
                false => steps.floor(),
            }
        });
        let more = variant as f64;
        match (least, most) {
            (Some(least), Some(most)) if least > most => None,
            (Some(least), Some(most)) => {
                let middle = least.midpoint(most).floor();
                Some(least + (middle - least + more) % (most - least + 1.0))
            }
            (Some(least), None) => Some(least.max(1.0) + more),
            (None, Some(most)) => Some(most.min(1.0) - more),
            (None, None) => Some(1.0 + more),
        }
    }
}

fn is_integral(number: f64) -> bool {
    (number - number.round()).abs() < 1e-9
}

/// `number` as an integer, when it is one and exact.
#[expect(clippy::cast_possible_truncation, reason = "checked to lie within the range that is exact")]
pub(super) fn whole(number: f64) -> Option<i64> {
    (is_integral(number) && number.abs() <= EXACT).then(|| number.round() as i64)
}
