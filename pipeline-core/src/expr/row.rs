//! Expressions that a step evaluates itself, once per row.

/// An expression over the fields of a row. (In work.)
#[derive(Debug, Clone)]
pub struct RowExpr;
