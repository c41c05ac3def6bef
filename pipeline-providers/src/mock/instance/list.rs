//! Lists that fit a schema.
//!
//! Owns their length and the choice of items. Must not know how an item is made.

use serde_json::{Value, json};

use crate::mock::instance::{Keywords, Maker, Place, VARIANTS, count};

/// Items of a list that may have any number: two show that there can be several.
const USUAL_ITEMS: usize = 2;

/// Variants are told apart up to here; a prime, and more than a list has items.
const MANY: usize = 10_007;

/// Items of a list at most.
const MOST_ITEMS: usize = 5_000;

impl Maker {
    /// A list for `keywords`.
    pub(super) fn list(&mut self, keywords: &Keywords, place: Place<'_>) -> Option<Value> {
        let positional = keywords
            .get("prefixItems")
            .or_else(|| keywords.get("items").filter(|items| items.is_array()))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let rest = match keywords.get("items") {
            Some(Value::Array(_)) => keywords.get("additionalItems"),
            other => other,
        };
        let contained = keywords.get("contains").filter(|_| count(keywords, "minContains") != Some(0));
        let containing = contained.map_or(0, |_| count(keywords, "minContains").unwrap_or(1));
        // What must be contained comes where no position says otherwise.
        let with_contained = if containing > 0 { positional.len().saturating_add(containing) } else { 0 };
        let least = count(keywords, "minItems").unwrap_or(0).max(with_contained);
        let most = count(keywords, "maxItems").unwrap_or(usize::MAX);
        if least > most || least > MOST_ITEMS {
            return None;
        }
        let usual = match rest {
            Some(Value::Bool(false)) => 0,
            None if !positional.is_empty() => 0,
            _ if self.is_frugal(place) => 0,
            _ => USUAL_ITEMS,
        };
        let length = positional.len().max(usual).clamp(least, most);
        let is_unique = keywords.get("uniqueItems") == Some(&Value::Bool(true));
        let anything = Value::Bool(true);
        let mut items: Vec<Value> = Vec::new();
        for at in 0..length {
            let schema = positional.get(at).or(rest).unwrap_or(&anything);
            let variant = place.variant.wrapping_mul(length).wrapping_add(at) % MANY;
            let place = Place { variant, depth: place.depth + 1, ..place };
            let contained =
                contained.filter(|_| at >= positional.len() && at < positional.len() + containing);
            let item = match contained {
                Some(contained) => {
                    self.item(&json!({ "allOf": [schema, contained] }), place, &items, is_unique)
                }
                None => self.item(schema, place, &items, is_unique),
            };
            match item {
                Some(item) => items.push(item),
                None if items.len() >= least => break,
                None => return None,
            }
        }
        Some(Value::Array(items))
    }

    fn item(&mut self, schema: &Value, place: Place<'_>, before: &[Value], is_unique: bool) -> Option<Value> {
        let tries = if is_unique { VARIANTS + before.len() } else { 1 };
        (0..tries)
            .find_map(|by| self.make(schema, place.varied(by)).filter(|v| !is_unique || !before.contains(v)))
    }
}
