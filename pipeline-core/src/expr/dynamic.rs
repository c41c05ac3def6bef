//! JSON-shaped values with expressions in them.

use crate::clock::Timestamp;
use crate::expr::{Expr, ExprError, Names, RowExpr, Script, Template};
use crate::planted::{Bug, planted};
use crate::value::{Data, Part, Value};

/// A value that may have templates anywhere inside.
#[derive(Debug, Clone)]
pub enum Dynamic {
    /// Nothing to render.
    Const(Data),
    /// A text with templates.
    Template(Template),
    /// An expression whose value stands here.
    Expr(Expr),
    /// An expression over rows that the step evaluates itself; the names of the pipeline's scope that it reads are
    /// bound when the step starts. See [`RowExpr`].
    Row(RowExpr),
    /// A shell script, whose values are kept out of its text. See [`Script`].
    Script(Script),
    /// A list.
    List(Vec<Dynamic>),
    /// A map.
    Map(Vec<(String, Dynamic)>),
    /// A map whose later entries see the earlier ones as `state.NAME` and as bare names (`set_variable`).
    Bindings(Vec<(String, Dynamic)>),
}

fn has_key(value: &Value, name: &str) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(key, value)| key == name || has_key(value, name)),
        Value::Array(items) => items.iter().any(|item| has_key(item, name)),
        _ => false,
    }
}

/// Names with a few bound on top of others.
pub struct Bound<'a> {
    /// The names underneath.
    pub under: &'a dyn Names,
    /// What is bound, latest last; seen as `state.NAME` and as a bare name.
    pub over: Vec<(String, Data)>,
}

impl Names for Bound<'_> {
    fn get(&self, root: &str, field: Option<&str>) -> Option<Data> {
        let bound = |name: &str| self.over.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        match (root, field) {
            ("state" | "variables", Some(name)) => bound(name).or_else(|| self.under.get(root, field)),
            ("state" | "variables", None) => {
                let mut all = match self.under.get(root, None).map(Data::into_json) {
                    Some(Value::Object(fields)) => fields,
                    _ => serde_json::Map::new(),
                };
                all.extend(self.over.iter().map(|(k, v)| (k.clone(), v.json().clone())));
                Some(Data::new(Value::Object(all)))
            }
            _ => bound(root).or_else(|| self.under.get(root, field)),
        }
    }

    fn now(&self) -> Timestamp {
        self.under.now()
    }
}

/// A bug.
fn twice(template: &Template, names: &dyn Names) -> Result<Value, ExprError> {
    match template.render(names)? {
        Value::String(text) => match Template::compile(&text, &[]) {
            Ok(again) => again.render(names),
            Err(_) => Ok(Value::String(text)),
        },
        other => Ok(other),
    }
}

impl Dynamic {
    /// Whether a map anywhere in it has the key `name`, with anything but nothing behind it.
    pub fn has_key(&self, name: &str) -> bool {
        let in_json = |value: &Value| has_key(value, name);
        match self {
            Self::Const(data) => in_json(data.json()),
            Self::List(items) => items.iter().any(|item| item.has_key(name)),
            Self::Map(entries) | Self::Bindings(entries) => {
                entries.iter().any(|(key, value)| key == name || value.has_key(name))
            }
            Self::Template(_) | Self::Expr(_) | Self::Row(_) | Self::Script(_) => false,
        }
    }

    /// Renders every template, once.
    ///
    /// # Errors
    /// The first that fails.
    pub fn render(&self, names: &dyn Names) -> Result<Value, ExprError> {
        self.data(names).map(Data::into_json)
    }

    /// As [`Dynamic::render`]; what stands at the end of a plain path is shared, not copied.
    ///
    /// # Errors
    /// The first that fails.
    pub fn data(&self, names: &dyn Names) -> Result<Data, ExprError> {
        match self {
            Self::Const(value) => Ok(value.clone()),
            Self::Template(template) if planted(Bug::RenderTwice) => twice(template, names).map(Data::new),
            Self::Template(template) => template.render(names).map(Data::new),
            Self::Expr(expr) => expr.data(names),
            Self::Row(row) => Ok(Data::new(row.bind(names))),
            Self::Script(script) => script.render(names).map(Data::new),
            Self::List(items) => {
                let items = items.iter().map(|item| item.data(names).map(Part::from));
                Ok(Data::of_parts(Part::List(items.collect::<Result<_, _>>()?)))
            }
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| Ok((key.clone(), value.data(names)?))).collect()
            }
            Self::Bindings(entries) => {
                let mut bound = Bound { under: names, over: Vec::with_capacity(entries.len()) };
                for (name, value) in entries {
                    let value = value.data(&bound)?;
                    bound.over.push((name.clone(), value));
                }
                Ok(bound.over.into_iter().collect())
            }
        }
    }

    /// Where the first part is that cannot be rendered: `variables.total`. For a message, after [`render`](Self::render) failed.
    pub fn culprit(&self, names: &dyn Names) -> Option<String> {
        let joined = |key: &str, inner: Option<String>| match inner {
            Some(inner) if inner.starts_with('[') => format!("{key}{inner}"),
            Some(inner) => format!("{key}.{inner}"),
            None => key.to_owned(),
        };
        match self {
            Self::List(items) => items.iter().enumerate().find_map(|(place, item)| {
                item.render(names).err().map(|_| joined(&format!("[{place}]"), item.culprit(names)))
            }),
            Self::Map(entries) => entries.iter().find_map(|(key, value)| {
                value.render(names).err().map(|_| joined(key, value.culprit(names)))
            }),
            Self::Bindings(entries) => {
                let mut bound = Bound { under: names, over: Vec::with_capacity(entries.len()) };
                for (name, value) in entries {
                    match value.render(&bound) {
                        Ok(value) => bound.over.push((name.clone(), Data::new(value))),
                        Err(_) => return Some(joined(name, value.culprit(&bound))),
                    }
                }
                None
            }
            Self::Const(_) | Self::Template(_) | Self::Expr(_) | Self::Row(_) | Self::Script(_) => None,
        }
    }

    /// Every expression and template inside, in order.
    pub fn reads(&self) -> Vec<&crate::expr::Read> {
        match self {
            Self::Const(_) => Vec::new(),
            Self::Template(template) => template.reads().iter().collect(),
            Self::Expr(expr) => expr.reads().iter().collect(),
            Self::Row(row) => row.scope_reads().collect(),
            Self::Script(script) => script.reads().iter().collect(),
            Self::List(items) => items.iter().flat_map(Self::reads).collect(),
            Self::Map(entries) | Self::Bindings(entries) => {
                entries.iter().flat_map(|(_, v)| v.reads()).collect()
            }
        }
    }
}
