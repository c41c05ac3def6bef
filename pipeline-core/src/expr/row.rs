//! Expressions that a step evaluates itself, once per row.
//!
//! Owns [`RowExpr`]: names are the row's fields first, then `item` (the row), then the names of the pipeline's scope that were
//! bound when the step started. A field that a row lacks never passes a comparison; what the scope lacks is an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::expr::functions::support::{ENDED, ROW, map_value, to_json};
use crate::expr::{Expr, ExprError, NAMESPACES, Names, Read, Words};
use crate::value::{Data, Shape, Value};

/// An expression over the fields of a row.
#[derive(Debug, Clone)]
pub struct RowExpr {
    expr: Expr,
    bound: Vec<(String, minijinja::Value)>,
}

impl RowExpr {
    /// Compiles an expression over rows.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        Self::compile_among(text, &Words { names: words, previous: None })
    }

    /// Compiles an expression over rows that stands among steps.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile_among(text: &str, words: &Words<'_>) -> Result<Self, ExprError> {
        Ok(Self { expr: Expr::compile_row(text, words)?, bound: Vec::new() })
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        self.expr.source()
    }

    /// What it reads of the pipeline's scope.
    pub fn scope_reads(&self) -> impl Iterator<Item = &Read> {
        self.expr.reads().iter().filter(|r| NAMESPACES.contains(&r.root.as_str()))
    }

    /// The expression with the names of the scope that it reads, as the step gets it.
    pub(super) fn bind(&self, names: &dyn Names) -> Value {
        let mut bound = serde_json::Map::new();
        let mut shapes = BTreeMap::new();
        for read in self.scope_reads() {
            let value = names.get(&read.root, read.field.as_deref());
            if let Some(value) = value.as_ref().filter(|_| read.root == "steps") {
                match &read.field {
                    Some(name) => shapes.extend([(name.clone(), value.shape())]),
                    None => shapes.extend(value.fields().into_iter().map(|(name, v)| (name, v.shape()))),
                }
            }
            match (value, &read.field) {
                (Some(value), Some(field)) => {
                    let object = bound.entry(&read.root).or_insert_with(|| json!({}));
                    if let Value::Object(fields) = object {
                        fields.insert(field.clone(), value.into_json());
                    }
                }
                (Some(value), None) => {
                    bound.insert(read.root.clone(), value.into_json());
                }
                // A row may have a field of that name: whether it is missed is known when it is evaluated.
                (None, Some(_)) if names.get(&read.root, None).is_some() => {
                    bound.entry(&read.root).or_insert_with(|| json!({}));
                }
                (None, _) => {}
            }
        }
        shapes.retain(|_, shape| *shape != Shape::Plain);
        if shapes.is_empty() {
            return json!({ "$row": self.source(), "$names": bound });
        }
        json!({ "$row": self.source(), "$names": bound, "$shapes": shapes })
    }

    /// Takes in what [`bind`](Self::bind) gave: the values of steps are read here as they are anywhere else.
    fn take(&mut self, names: &serde_json::Map<String, Value>, shapes: &BTreeMap<String, Shape>) {
        for (root, value) in names {
            let value = match value {
                Value::Object(steps) if root == "steps" => map_value(steps.iter().map(|(name, value)| {
                    let shape = shapes.get(name).copied().unwrap_or(Shape::Plain);
                    (name.as_str(), Data::new(value.clone()).shaped(shape).template_value())
                })),
                value => Data::new(value.clone()).template_value(),
            };
            self.bound.push((root.clone(), value));
        }
        let ended = shapes.iter().filter_map(|(name, shape)| Some((name.as_str(), shape.status()?.into())));
        self.bound.push((ENDED.to_owned(), map_value(ended)));
    }

    fn context(&self, row: &Value) -> minijinja::Value {
        let convert = |value: &Value| minijinja::Value::from(minijinja::value::Serde(value));
        let mut roots: Vec<(&str, minijinja::Value)> = Vec::new();
        let mut scope: Vec<&str> = Vec::new();
        for read in self.expr.reads() {
            if roots.iter().any(|(name, _)| *name == read.root) {
                continue;
            }
            let field = row.get(&read.root).map(convert);
            let item = || (read.root == "item").then(|| convert(row));
            if let Some(value) = field.or_else(item) {
                roots.push((&read.root, value));
            } else if let Some((name, value)) = self.bound.iter().find(|(name, _)| *name == read.root) {
                roots.push((name, value.clone()));
                scope.push(name);
            }
        }
        roots.extend(
            self.bound.iter().find(|(name, _)| name == ENDED).map(|(_, ended)| (ENDED, ended.clone())),
        );
        roots.push((ROW, scope.into_iter().collect::<minijinja::Value>()));
        map_value(roots)
    }

    /// Its value for a row; null when it comes to a field that the row lacks.
    ///
    /// # Errors
    /// What cannot be computed.
    pub fn eval(&self, row: &Value) -> Result<Value, ExprError> {
        match self.expr.eval_context(self.context(row)) {
            Ok(value) if value.is_undefined() => Ok(Value::Null),
            Ok(value) => to_json(&value).map_err(|e| self.expr.error(&e)),
            Err(error) if error.kind() == minijinja::ErrorKind::UndefinedError => Ok(Value::Null),
            Err(error) => Err(self.expr.error(&error)),
        }
    }

    /// Whether it holds for a row; false when that depends on a field that the row lacks.
    ///
    /// # Errors
    /// What cannot be computed.
    pub fn holds(&self, row: &Value) -> Result<bool, ExprError> {
        match self.expr.eval_context(self.context(row)) {
            Ok(value) => Ok(!value.is_undefined() && value.is_true()),
            Err(error) if error.kind() == minijinja::ErrorKind::UndefinedError => Ok(false),
            Err(error) => Err(self.expr.error(&error)),
        }
    }
}

impl<'de> Deserialize<'de> for RowExpr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = value.as_str().or_else(|| value.get("$row").and_then(Value::as_str));
        let Some(text) = text else {
            return Err(serde::de::Error::custom("an expression over rows must be text"));
        };
        let mut row = Self::compile(text, &[]).map_err(serde::de::Error::custom)?;
        if let Some(Value::Object(names)) = value.get("$names") {
            let shapes = value.get("$shapes").map(BTreeMap::deserialize).transpose();
            row.take(names, &shapes.map_err(serde::de::Error::custom)?.unwrap_or_default());
        }
        Ok(row)
    }
}

impl schemars::JsonSchema for RowExpr {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RowExpression".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An expression over the fields of a row, or `item`.",
            "x-kind": "row"
        })
    }

    fn inline_schema() -> bool {
        true
    }
}
