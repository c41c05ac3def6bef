//! The one expression language: templates, conditions, data sources, filters.
//!
//! Owns [`Expr`], [`Template`], [`Dynamic`] and [`Names`]. Wraps minijinja, which no other module names (beside
//! `value.rs`, which caches a conversion). Must not know where names come from: a [`Names`] is handed in.
//! Next: `expr/parse.rs` and `expr/write.rs` (our words on top of
//! Jinja), `expr/functions.rs`, `expr/reference.rs`.

mod token;
mod tree;
mod reference;
mod parse;
mod write;
mod statement;
mod functions;
mod language;
mod legacy;
mod row;
mod script;
mod dynamic;
#[cfg(test)]
mod tests;

pub use dynamic::{Bound, Dynamic};
pub(crate) use language::unwrapped;
pub use language::{Expr, ExprError, Read, Template, Words};
pub use legacy::rewrite_legacy;
pub use reference::{Group, ReferenceEntry, reference};
pub use row::RowExpr;
pub use script::Script;
use write::NAMESPACES;

use crate::clock::Timestamp;
use crate::value::Data;

/// Where an expression's names get their values when it is evaluated.
///
/// Only what an expression reads is asked for: the cost does not grow with the scope.
pub trait Names {
    /// The value of the root name `root`; `None` when it has none.
    ///
    /// For `steps`, `state`/`variables`, `inputs`, `global_vars`, `env` and `loop`/`turn`, `field` is the one field that is
    /// read (`steps.a` asks for `("steps", Some("a"))`), or `None` when the expression needs all of them. With `Some`,
    /// the answer is the field's value; with `None`, the object.
    fn get(&self, root: &str, field: Option<&str>) -> Option<Data>;

    /// What `now()` answers.
    fn now(&self) -> Timestamp;
}
