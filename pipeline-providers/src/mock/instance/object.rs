//! Objects that fit a schema.
//!
//! Owns which properties an object gets. Must not know how a property's value is made.

use serde_json::{Map, Value};

use crate::mock::instance::{Keywords, Maker, Place, count};
use crate::mock::pattern;

/// Properties that are invented at most.
const MOST_INVENTED: usize = 1_000;

impl Maker {
    /// An object for `keywords`: every declared property, and those that are demanded without being declared.
    pub(super) fn object(&mut self, keywords: &Keywords, place: Place<'_>) -> Option<Value> {
        let none = Map::new();
        let declared = keywords.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let mut required: Vec<&str> = texts(keywords.get("required")).collect();
        let is_frugal = self.is_frugal(place);
        let mut object = Map::new();
        for (name, schema) in declared {
            let is_required = required.contains(&name.as_str());
            if is_frugal && !is_required {
                continue;
            }
            match self.make(schema, place.inside(name)) {
                Some(value) => {
                    object.insert(name.clone(), value);
                }
                None if is_required => return None,
                None => {}
            }
        }
        for (name, others) in
            keywords.get("dependentRequired").and_then(Value::as_object).into_iter().flatten()
        {
            if object.contains_key(name) {
                required.extend(texts(Some(others)));
            }
        }
        for name in &required {
            if !object.contains_key(*name) {
                let schema = declared.get(*name).or(keywords.get("additionalProperties"));
                let value = self.make(schema.unwrap_or(&Value::Bool(true)), place.inside(name))?;
                object.insert((*name).to_owned(), value);
            }
        }
        self.invent(keywords, place, &mut object)?;
        let most = count(keywords, "maxProperties").unwrap_or(usize::MAX);
        while object.len() > most {
            let last = object.keys().rfind(|name| !required.contains(&name.as_str()))?.clone();
            object.shift_remove(&last);
        }
        Some(Value::Object(object))
    }

    /// Adds properties that only their number or a pattern demands; one where the object is a map and still empty.
    fn invent(
        &mut self,
        keywords: &Keywords,
        place: Place<'_>,
        object: &mut Map<String, Value>,
    ) -> Option<()> {
        let patterns = keywords.get("patternProperties").and_then(Value::as_object);
        let additional = keywords.get("additionalProperties");
        let is_map = patterns.is_some() || additional.is_some_and(Value::is_object);
        let usual = usize::from(is_map && object.is_empty() && !self.is_frugal(place));
        let least = count(keywords, "minProperties").unwrap_or(usual).max(usual);
        if least > MOST_INVENTED {
            return None;
        }
        let by_pattern = patterns.and_then(|patterns| patterns.iter().next());
        let mut at = 0;
        while object.len() < least {
            if at > least * 2 {
                return None;
            }
            let name = match (by_pattern, keywords.get("propertyNames")) {
                (Some((pattern, _)), _) => {
                    self.dice.next();
                    pattern::matching(pattern, 0, usize::MAX, &self.dice)?
                }
                (None, Some(names)) => self.make(names, place.inside("key").varied(at))?.as_str()?.to_owned(),
                (None, None) => format!("mock_{}", at + 1),
            };
            let schema = by_pattern.map(|(_, schema)| schema).or(additional);
            let value = self.make(schema.unwrap_or(&Value::Bool(true)), place.inside(&name).varied(at))?;
            object.insert(name, value);
            at += 1;
        }
        Some(())
    }
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
