//! How expressions read the value of a step.

use std::sync::Arc;

/// How a field that a value lacks is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// Not at all.
    Plain,
    /// As in the value of a step.
    Step,
    /// The same, of a step in whose place a declared fallback answered.
    Degraded,
    /// As in the value of a child pipeline: `result` is the value itself.
    Pipeline,
}

impl Shape {
    /// The form that templates read, with these look-ups.
    pub(super) fn shaped(self, plain: minijinja::Value) -> minijinja::Value {
        if self == Self::Plain || plain.kind() != minijinja::value::ValueKind::Map {
            return plain;
        }
        minijinja::Value::from_object(StepObject { plain, shape: self })
    }

    /// How a step ended whose value does not say it.
    pub(crate) fn status(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Step | Self::Pipeline => Some("ok"),
            Self::Degraded => Some("degraded"),
        }
    }
}

/// The value of a step as expressions see it: a field that the object lacks is looked up in `data`, then in the
/// arguments of the first function call, then in `results`; `result` is the primary value, `status` how the step ended.
#[derive(Debug)]
struct StepObject {
    plain: minijinja::Value,
    shape: Shape,
}

impl minijinja::value::Object for StepObject {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        let field = |from: &minijinja::Value, key: &minijinja::Value| {
            from.get_item(key).ok().filter(|v| !v.is_undefined())
        };
        let named = |from: &minijinja::Value, name: &str| field(from, &minijinja::Value::from(name));
        field(&self.plain, key)
            .or_else(|| match key.as_str() {
                Some("result") if self.shape == Shape::Pipeline => Some(self.plain.clone()),
                Some("result") => Some(
                    ["data", "text"]
                        .iter()
                        .find_map(|n| named(&self.plain, n).filter(|v| !v.is_none()))
                        .unwrap_or_else(|| self.plain.clone()),
                ),
                Some("cost") => named(&self.plain, "cost_usd"),
                Some("content") => named(&self.plain, "text"),
                _ => None,
            })
            .or_else(|| field(&named(&self.plain, "data")?, key))
            .or_else(|| {
                let first = named(&self.plain, "function_calls")?.get_item_by_index(0).ok()?;
                field(&named(&first, "arguments")?, key)
            })
            .or_else(|| field(&named(&self.plain, "results")?, key))
            // What failed has its status in its value.
            .or_else(|| {
                let status = self.shape.status().filter(|_| key.as_str() == Some("status"))?;
                Some(minijinja::Value::from(status))
            })
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        match self.plain.try_iter() {
            Ok(keys) => minijinja::value::Enumerator::Values(keys.collect()),
            Err(_) => minijinja::value::Enumerator::Empty,
        }
    }
}
