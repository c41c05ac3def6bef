//! A value that fits a JSON Schema.
//!
//! Owns the search for it: references, combinations (`allOf`, `anyOf`, `oneOf`, `not`, `if`), objects and lists. Every
//! property is filled, optional ones too, so that what reads the answer finds something; numbers are taken from the
//! middle, the first of several choices is taken. What was found is checked against the whole schema before it is
//! handed out. Must not know requests or rules.
//! Next: `instance/scalar.rs` for texts and numbers, `instance/merge.rs` for two schemas that hold together.

mod merge;
mod scalar;
mod list;
mod object;

use serde_json::{Map, Value, json};

use crate::mock::seed::Dice;
use merge::merge;

/// Parts that are made for one value.
const MOST_PARTS: usize = 20_000;

/// A check of a part counts like so many parts.
const PARTS_PER_CHECK: usize = 20;

/// Levels of a value.
const DEEPEST: usize = 48;

/// Levels below which only what is required is filled.
const FRUGAL_BELOW: usize = 7;

/// Variants that are tried where a value may be excluded (`not`, unique items).
const VARIANTS: usize = 8;

/// A schema's keywords.
type Keywords = Map<String, Value>;

/// A value that fits `schema`.
///
/// # Errors
/// Why there is none, or none that this search finds.
pub(crate) fn of(schema: &Value, dice: &mut Dice) -> Result<Value, String> {
    let validator =
        jsonschema::validator_for(schema).map_err(|e| format!("it is not a JSON Schema ({e})"))?;
    let mut reason = "its conditions exclude each other, or are beyond what the mock can work out".to_owned();
    // What the schema's author gave as an example reads best, but need not fit.
    for hints in [true, false] {
        let mut maker = Maker::new(schema, dice.clone(), hints);
        let Some(value) = maker.make(&Maker::start(), Place::default()) else { continue };
        match validator.validate(&value) {
            Ok(()) => return Ok(value),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// Where in the value something is made.
#[derive(Debug, Clone, Copy, Default)]
struct Place<'a> {
    /// Name of the property; empty at the root.
    name: &'a str,
    /// Levels above.
    depth: usize,
    /// 0, or more to get something else for the same schema.
    variant: usize,
}

impl<'a> Place<'a> {
    fn inside(self, name: &'a str) -> Self {
        Place { name, depth: self.depth + 1, variant: self.variant }
    }

    fn varied(self, by: usize) -> Self {
        Place { variant: self.variant + by, ..self }
    }
}

struct Maker {
    /// `{"$defs": {"root": the schema}}`, every reference rewritten to mean the same in it. So a part of the schema
    /// can be checked on its own.
    document: Value,
    dice: Dice,
    hints: bool,
    parts_left: usize,
    /// References that are being followed.
    open: Vec<String>,
}

impl Maker {
    fn new(schema: &Value, dice: Dice, hints: bool) -> Self {
        let mut root = schema.clone();
        if let Some(keywords) = root.as_object_mut() {
            keywords.shift_remove("$id");
        }
        rebase(&mut root);
        let document = json!({ "$defs": { "root": root } });
        Self { document, dice, hints, parts_left: MOST_PARTS, open: Vec::new() }
    }

    /// The whole schema.
    fn start() -> Value {
        json!({ "$ref": "#/$defs/root" })
    }

    /// A value for `schema`; `None` when there is none, or when a reference would have to contain itself.
    fn make(&mut self, schema: &Value, place: Place<'_>) -> Option<Value> {
        self.parts_left = self.parts_left.checked_sub(1)?;
        if place.depth > DEEPEST {
            return None;
        }
        let opened = self.open.len();
        let value = self.flatten(schema).and_then(|keywords| self.combine(&keywords, place));
        self.open.truncate(opened);
        value
    }

    /// The keywords of `schema` with its `$ref` and `allOf` worked in. References stay in `open`.
    fn flatten(&mut self, schema: &Value) -> Option<Keywords> {
        let mut keywords = match schema {
            Value::Bool(true) => Keywords::new(),
            Value::Object(keywords) => keywords.clone(),
            _ => return None,
        };
        if let Some(Value::String(reference)) = keywords.shift_remove("$ref") {
            if self.open.contains(&reference) || self.open.len() > DEEPEST {
                return None;
            }
            let target = self.document.pointer(reference.strip_prefix('#')?)?.clone();
            self.open.push(reference);
            keywords = merge(&self.flatten(&target)?, &keywords);
        }
        if let Some(Value::Array(parts)) = keywords.shift_remove("allOf") {
            for part in &parts {
                let part = self.flatten(part)?;
                keywords = merge(&keywords, &part);
            }
        }
        Some(keywords)
    }

    /// Chooses among the alternatives of `keywords`.
    fn combine(&mut self, keywords: &Keywords, place: Place<'_>) -> Option<Value> {
        for key in ["oneOf", "anyOf"] {
            if let Some(Value::Array(branches)) = keywords.get(key) {
                let mut base = keywords.clone();
                base.shift_remove(key);
                let mut branches: Vec<&Value> = branches.iter().collect();
                let chosen = place.variant % branches.len().max(1);
                branches.rotate_left(chosen);
                branches.sort_by_key(|b| b.get("type").is_some_and(|t| t == "null"));
                return self.first_that_fits(keywords, &base, &branches, place);
            }
        }
        if keywords.contains_key("if") {
            let mut base = keywords.clone();
            let [condition, then, otherwise] =
                ["if", "then", "else"].map(|k| base.shift_remove(k).unwrap_or(Value::Bool(true)));
            let holds = json!({ "allOf": [condition, then] });
            return self.first_that_fits(keywords, &base, &[&holds, &otherwise], place);
        }
        if keywords.contains_key("not") {
            let mut base = keywords.clone();
            base.shift_remove("not");
            return (0..VARIANTS)
                .filter_map(|by| self.plain(&base, place.varied(by)))
                .collect::<Vec<_>>()
                .into_iter()
                .find(|value| self.fits(keywords, value));
        }
        self.plain(keywords, place)
    }

    fn first_that_fits(
        &mut self,
        whole: &Keywords,
        base: &Keywords,
        branches: &[&Value],
        place: Place<'_>,
    ) -> Option<Value> {
        branches.iter().find_map(|branch| {
            let both = match branch {
                Value::Object(branch) => Value::Object(merge(base, branch)),
                Value::Bool(true) => Value::Object(base.clone()),
                _ => return None,
            };
            self.make(&both, place).filter(|value| self.fits(whole, value))
        })
    }

    /// A value for keywords without references and alternatives.
    fn plain(&mut self, keywords: &Keywords, place: Place<'_>) -> Option<Value> {
        if let Some(value) = keywords.get("const") {
            return Some(value.clone());
        }
        if let Some(Value::Array(choices)) = keywords.get("enum") {
            let at = place.variant % choices.len().max(1);
            let (before, from) = choices.split_at_checked(at)?;
            return from.iter().chain(before).find(|value| self.fits(keywords, value)).cloned();
        }
        if let Some(hint) = self.hint(keywords, place) {
            return Some(hint);
        }
        types(keywords).into_iter().find_map(|kind| match kind {
            "null" => Some(Value::Null),
            "boolean" => Some(Value::Bool(place.variant.is_multiple_of(2))),
            "integer" | "number" => scalar::number(keywords, kind == "integer", place.variant),
            "string" => scalar::text(keywords, place, &mut self.dice),
            "array" => self.list(keywords, place),
            "object" => self.object(keywords, place),
            _ => None,
        })
    }

    /// What the schema's author gave as an example or default.
    fn hint(&mut self, keywords: &Keywords, place: Place<'_>) -> Option<Value> {
        if !self.hints || place.variant > 0 {
            return None;
        }
        let examples = keywords.get("examples").and_then(Value::as_array);
        let default = keywords.get("default").filter(|d| !is_empty(d));
        let mut candidates = examples.into_iter().flatten().chain(default);
        candidates.find(|value| self.fits(keywords, value)).cloned()
    }

    /// Whether `value` fits a part of the schema.
    fn fits(&mut self, keywords: &Keywords, value: &Value) -> bool {
        // What most parts have beside their type needs no validator, which would have to be compiled first.
        let is_plain = |key: &String| {
            matches!(key.as_str(), "type" | "enum" | "title" | "description" | "default" | "examples")
        };
        if keywords.keys().all(is_plain) {
            let is_listed =
                keywords.get("enum").and_then(Value::as_array).is_none_or(|all| all.contains(value));
            return is_listed && keywords.get("type").is_none_or(|kinds| is_of_type(value, kinds));
        }
        let Some(left) = self.parts_left.checked_sub(PARTS_PER_CHECK) else { return false };
        self.parts_left = left;
        let mut schema = keywords.clone();
        if let Some(definitions) = self.document.get("$defs") {
            schema.insert("$defs".to_owned(), definitions.clone());
        }
        if let Some(draft) = self.document.pointer("/$defs/root/$schema") {
            schema.insert("$schema".to_owned(), draft.clone());
        }
        jsonschema::validator_for(&Value::Object(schema)).is_ok_and(|v| v.is_valid(value))
    }

    fn is_frugal(&self, place: Place<'_>) -> bool {
        place.depth >= FRUGAL_BELOW || self.parts_left < MOST_PARTS / 2
    }
}

/// Rewrites references within `schema` for its place in a [`Maker::document`].
fn rebase(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(rebase),
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "$ref" && text.starts_with('#') => {
                        text.replace_range(..1, "#/$defs/root");
                    }
                    other => rebase(other),
                }
            }
        }
        _ => {}
    }
}

/// The types that may be made, best first: as listed, null last; guessed from other keywords where there is no list.
fn types(keywords: &Keywords) -> Vec<&str> {
    let mut listed: Vec<&str> = match keywords.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => {
            let has = |keys: &[&str]| keys.iter().any(|k| keywords.contains_key(*k));
            let objects =
                ["properties", "required", "additionalProperties", "patternProperties", "minProperties"];
            let lists = ["items", "prefixItems", "minItems", "maxItems", "contains", "uniqueItems"];
            let numbers = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
            vec![if has(&objects) {
                "object"
            } else if has(&lists) {
                "array"
            } else if has(&numbers) {
                "number"
            } else {
                "string"
            }]
        }
    };
    listed.sort_by_key(|kind| *kind == "null");
    listed
}

/// Whether `value` is of the type, or of one of the types, `kinds`.
fn is_of_type(value: &Value, kinds: &Value) -> bool {
    let is = |kind: &Value| match (kind.as_str(), value) {
        (Some("null"), Value::Null)
        | (Some("boolean"), Value::Bool(_))
        | (Some("number"), Value::Number(_))
        | (Some("string"), Value::String(_))
        | (Some("array"), Value::Array(_))
        | (Some("object"), Value::Object(_)) => true,
        (Some("integer"), Value::Number(number)) => number.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => false,
    };
    kinds.as_array().map_or_else(|| is(kinds), |several| several.iter().any(is))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A count such as `minItems`.
fn count(keywords: &Keywords, key: &str) -> Option<usize> {
    let number = keywords.get(key)?;
    let whole =
        number.as_u64().or_else(|| scalar::whole(number.as_f64()?).and_then(|n| u64::try_from(n).ok()));
    usize::try_from(whole?).ok()
}
