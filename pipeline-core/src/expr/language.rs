//! Compiling and evaluating one expression or template. (Signatures; in work.)

use std::ops::Range;
use std::sync::Arc;

use crate::expr::Names;
use crate::value::Value;

/// Something that an expression reads: a root name, and the field of it where that is fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Root name: `steps`, `inputs`, a bare name.
    pub root: String,
    /// First field when it is a constant (`steps.a`, `steps['a']`).
    pub field: Option<String>,
    /// True when the expression copes with its absence (`exists`, `is defined`, `default`).
    pub optional: bool,
    /// Byte range of the reference within the text that was compiled.
    pub range: Range<usize>,
}

/// Why a text is not an expression, or why evaluating it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What is wrong.
    pub message: String,
    /// Where, in the text that was given.
    pub range: Option<Range<usize>>,
    /// What to do next.
    pub help: Option<String>,
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expr(Arc<()>);

/// A compiled template: text with `{{ … }}` and Jinja statements.
#[derive(Debug, Clone)]
pub struct Template(Arc<()>);

impl Expr {
    /// Compiles an expression. `words` are step names with hyphens, which count as one name.
    pub fn compile(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        let _ = (text, words);
        Err(ExprError { message: String::new(), range: None, help: None })
    }
    /// The text as written.
    pub fn source(&self) -> &str {
        ""
    }
    /// What it reads.
    pub fn reads(&self) -> &[Read] {
        &[]
    }
    /// Its value.
    pub fn eval(&self, names: &dyn Names) -> Result<Value, ExprError> {
        let _ = names;
        Ok(Value::Null)
    }
    /// The truth of its value.
    pub fn holds(&self, names: &dyn Names) -> Result<bool, ExprError> {
        let _ = names;
        Ok(false)
    }
}

impl Template {
    /// Compiles a template. `words` are step names with hyphens, which count as one name.
    pub fn compile(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        let _ = (text, words);
        Err(ExprError { message: String::new(), range: None, help: None })
    }
    /// True when `text` has anything to render.
    pub fn is_needed(text: &str) -> bool {
        text.contains("{{") || text.contains("{%") || text.contains("{#")
    }
    /// The text as written.
    pub fn source(&self) -> &str {
        ""
    }
    /// What it reads.
    pub fn reads(&self) -> &[Read] {
        &[]
    }
    /// Its value: a template that is exactly one `{{ … }}` keeps the value's type, anything else is text.
    pub fn render(&self, names: &dyn Names) -> Result<Value, ExprError> {
        let _ = names;
        Ok(Value::Null)
    }
}
