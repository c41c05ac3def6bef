//! Values made of values.
//!
//! Owns [`Part`]: the value of a loop of ten thousand turns holds what its turns made, and copies none of it. Whoever stores,
//! prints or reads a part of it goes through the parts; whoever needs all of it as one JSON value pays for it once.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::{Data, Value, at, is_within};

/// The name of a field.
pub(crate) type Name = Arc<str>;

/// A piece of a value.
#[derive(Clone)]
pub(crate) enum Part {
    /// Small, and nobody else's.
    Json(Value),
    /// Somebody else's too.
    Shared(Data),
    List(Arc<[Part]>),
    /// In this order; each name once.
    Map(Arc<[(Name, Part)]>),
}

impl Part {
    pub(crate) fn map(fields: impl IntoIterator<Item = (Name, Self)>) -> Self {
        Self::Map(fields.into_iter().collect())
    }

    pub(crate) fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::List(items.into_iter().collect())
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Json(json) => json.clone(),
            Self::Shared(data) => data.json().clone(),
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(fields) => {
                Value::Object(fields.iter().map(|(name, part)| (name.to_string(), part.to_json())).collect())
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Data> {
        match self {
            Self::Json(json) => json.get(name).cloned().map(Data::new),
            Self::Shared(data) => data.get(name),
            Self::List(_) => None,
            Self::Map(fields) => {
                fields.iter().find(|(field, _)| &**field == name).map(|(_, part)| part.data())
            }
        }
    }

    pub(super) fn fields(&self) -> Vec<(String, Data)> {
        match self {
            Self::Json(json) => Data::new(json.clone()).fields(),
            Self::Shared(data) => data.fields(),
            Self::List(_) => Vec::new(),
            Self::Map(fields) => fields.iter().map(|(name, part)| (name.to_string(), part.data())).collect(),
        }
    }

    pub(super) fn items(&self) -> Vec<Data> {
        match self {
            Self::Json(Value::Array(items)) => items.iter().cloned().map(Data::new).collect(),
            Self::Shared(data) => data.items(),
            Self::List(items) => items.iter().map(Self::data).collect(),
            Self::Json(_) | Self::Map(_) => Vec::new(),
        }
    }

    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Self::Json(Value::Array(items)) => Some(items.len()),
            Self::Json(Value::Object(fields)) => Some(fields.len()),
            Self::Json(_) => None,
            Self::Shared(data) => data.count(),
            Self::List(items) => Some(items.len()),
            Self::Map(fields) => Some(fields.len()),
        }
    }

    pub(super) fn at(&self, path: &[String]) -> Option<Data> {
        match (self, path) {
            (part, []) => Some(part.data()),
            (Self::Json(json), path) => at(json, path).cloned().map(Data::new),
            (Self::Shared(data), path) => data.at(path),
            (Self::List(_), _) => None,
            (Self::Map(fields), [first, rest @ ..]) => {
                fields.iter().find(|(name, _)| **name == **first)?.1.at(rest)
            }
        }
    }

    fn data(&self) -> Data {
        match self {
            Self::Shared(data) => data.clone(),
            part => Data::of_parts(part.clone()),
        }
    }

    pub(super) fn is_within(&self, levels: usize) -> bool {
        match self {
            Self::Json(json) => is_within(json, levels),
            Self::Shared(data) => data.is_within(levels),
            Self::List(items) => levels > 0 && items.iter().all(|item| item.is_within(levels - 1)),
            Self::Map(fields) => levels > 0 && fields.iter().all(|(_, field)| field.is_within(levels - 1)),
        }
    }

    /// The form that templates read. A part reads like the JSON that it is, whatever it is elsewhere.
    pub(super) fn template(&self) -> minijinja::Value {
        match self {
            Self::Json(json) => minijinja::Value::from(minijinja::value::Serde(json)),
            Self::Shared(data) => data.plain_template(),
            Self::List(items) => minijinja::Value::from_object(List(Arc::clone(items))),
            Self::Map(fields) => minijinja::Value::from_object(Map(Arc::clone(fields))),
        }
    }
}

impl From<Value> for Part {
    fn from(json: Value) -> Self {
        Self::Json(json)
    }
}

impl From<Data> for Part {
    fn from(data: Data) -> Self {
        Self::Shared(data)
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(json) => json.serialize(serializer),
            Self::Shared(data) => data.serialize(serializer),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, field)| map.serialize_entry(&**name, field))?;
                map.end()
            }
        }
    }
}

#[derive(Debug)]
struct List(Arc<[Part]>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        self.0.get(key.as_usize()?).map(Part::template)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

#[derive(Debug)]
struct Map(Arc<[(Name, Part)]>);

impl Object for Map {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        let wanted = key.as_str()?;
        self.0.iter().find(|(name, _)| &**name == wanted).map(|(_, part)| part.template())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| minijinja::Value::from(Arc::clone(name))).collect())
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_json().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The same value in parts, cut where `cuts` says.
    fn in_parts(json: &Value, cuts: &mut impl Iterator<Item = u8>) -> Part {
        match (cuts.next().unwrap_or(0) % 4, json) {
            (0, _) => Part::Json(json.clone()),
            (1, _) => Part::Shared(Data::of_step(json.clone())),
            (2, _) => Part::Shared(Data::of_parts(in_parts(json, cuts))),
            (_, Value::Array(items)) => {
                Part::list(items.iter().map(|item| in_parts(item, cuts)).collect::<Vec<_>>())
            }
            (_, Value::Object(fields)) => Part::map(
                fields.iter().map(|(k, v)| (Name::from(&**k), in_parts(v, cuts))).collect::<Vec<_>>(),
            ),
            (_, other) => Part::Json(other.clone()),
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|n: f64| Value::from(n)),
            "[a-z\"é ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("[a-d]|data|results|text", inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parts_are_what_they_are_parts_of(json in any_json(), cuts in prop::collection::vec(any::<u8>(), 0..60)) {
            let whole = Data::new(json.clone());
            let parts = Data::of_parts(in_parts(&json, &mut cuts.into_iter()));
            prop_assert_eq!(serde_json::to_string(&parts).unwrap(), serde_json::to_string(&json).unwrap());
            prop_assert_eq!(parts.hash(), whole.hash());
            for levels in 0..6 {
                prop_assert_eq!(parts.is_within(levels), whole.is_within(levels));
            }
            let read = serde_json::to_value(parts.template_value()).unwrap();
            prop_assert_eq!(&read, &serde_json::to_value(whole.template_value()).unwrap());
            prop_assert_eq!(parts.template_value(), whole.template_value());
            prop_assert_eq!(parts.count(), whole.count());
            prop_assert_eq!(parts.fields(), whole.fields());
            prop_assert_eq!(parts.items(), whole.items());
            for (name, value) in parts.fields() {
                prop_assert_eq!(parts.at(std::slice::from_ref(&name)), whole.at(std::slice::from_ref(&name)));
                prop_assert_eq!(parts.get(&name), Some(value));
            }
            prop_assert_eq!(parts.json(), &json);
            prop_assert_eq!(parts.primary(), whole.primary());
            prop_assert_eq!(parts.clone().into_json(), json.clone());
            prop_assert_eq!(parts.into_json(), json);
        }
    }

    #[test]
    fn a_part_reads_like_json_and_the_whole_like_a_step() {
        let turn = Data::of_step(json!({"data": {"a": 1}}));
        let all =
            Data::of_parts(Part::map([("results".into(), Part::list([Part::Shared(turn)]))])).into_step();
        let read = all.template_value();
        let first = read.get_attr("results").unwrap().get_item_by_index(0).unwrap();
        assert!(first.get_attr("a").unwrap().is_undefined());
        assert_eq!(first.get_attr("data").unwrap().get_attr("a").unwrap(), minijinja::Value::from(1));
        assert_eq!(read.get_attr("result").unwrap(), read);
    }
}
