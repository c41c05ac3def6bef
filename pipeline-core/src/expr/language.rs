//! Compiling and evaluating one expression or template.
//!
//! Owns [`Expr`], [`Template`], [`Read`] and [`ExprError`]. The engine underneath is minijinja, with fuel and without any way
//! to reach files or the environment. Next: `rewrite.rs` for what is on top of it, `functions.rs` for the functions.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, Expression, UndefinedBehavior};

use crate::expr::rewrite::{Output, expression};
use crate::expr::statement::template;
use crate::expr::{Names, functions};
use crate::value::Value;

/// Steps of evaluation that one expression or template may take.
const FUEL: u64 = 50_000;

/// Steps that a `data_source` may take.
const FUEL_DATA_SOURCE: u64 = 1_000_000;

/// Bytes that one template may render to.
const LONGEST_OUTPUT: usize = 16 << 20;

/// Texts longer than this are compiled with room for deep recursion.
const SHALLOW: usize = 256;

/// Names that are objects of the scope: one field of them is asked for at a time.
pub(super) const NAMESPACES: [&str; 11] = [
    "steps",
    "inputs",
    "state",
    "variables",
    "global_vars",
    "loop",
    "turn",
    "workflow",
    "run",
    "env",
    "local",
];

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
#[derive(Clone)]
pub struct Expr(Arc<Compiled<Expression<'static, 'static>>>);

/// A compiled template: text with `{{ … }}` and Jinja statements.
#[derive(Clone)]
pub struct Template(Arc<TemplateKind>);

enum TemplateKind {
    /// Exactly one `{{ … }}`: keeps the type of its value.
    Single(String, Expr),
    /// Anything else: renders to text.
    Text(Box<Compiled<Environment<'static>>>),
}

struct Compiled<T> {
    source: String,
    rewritten: Output,
    code: T,
}

static EXPRESSIONS: LazyLock<Environment<'static>> = LazyLock::new(|| environment(FUEL));
static DATA_SOURCES: LazyLock<Environment<'static>> = LazyLock::new(|| environment(FUEL_DATA_SOURCE));

fn environment(fuel: u64) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(fuel));
    env.set_recursion_limit(64);
    env.set_debug(true);
    if let Ok(syntax) = minijinja::syntax::SyntaxConfig::builder().keep_trailing_newline(true).build() {
        env.set_syntax(syntax);
    }
    env.set_formatter(|out, state, value| {
        if value.is_undefined() {
            return Err(minijinja::Error::new(ErrorKind::UndefinedError, "the value is not there"));
        }
        match value.kind() {
            ValueKind::None => out.write_str("null").map_err(minijinja::Error::from),
            ValueKind::Bool | ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => {
                let json = functions::to_json(value)?;
                out.write_str(&json.to_string()).map_err(minijinja::Error::from)
            }
            _ => minijinja::escape_formatter(out, state, value),
        }
    });
    functions::install(&mut env);
    env
}

/// Compiles where there is room: long chains recurse.
fn compile<T: Send>(text: &str, work: impl FnOnce() -> T + Send) -> T {
    if text.len() > SHALLOW { crate::stack::with_room(work) } else { work() }
}

impl Expr {
    /// Compiles an expression. `words` are step names with hyphens, which count as one name.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        Self::compile_in(text, 0, words, &EXPRESSIONS)
    }

    /// Compiles the expression of a `data_source`, which may take more steps.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile_data_source(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        Self::compile_in(text, 0, words, &DATA_SOURCES)
    }

    fn compile_in(
        text: &str,
        offset: usize,
        words: &[&str],
        env: &'static Environment<'static>,
    ) -> Result<Self, ExprError> {
        if text.trim().is_empty() {
            return Err(ExprError {
                message: "an expression is empty".to_owned(),
                range: Some(offset..offset + text.len()),
                help: Some("write a value, for example `steps.a.score > 7`".to_owned()),
            });
        }
        compile(text, || {
            let mut rewritten = Output::default();
            expression(text, offset, words, &BTreeSet::new(), &mut rewritten)?;
            let code = env
                .compile_expression_owned(rewritten.text.clone())
                .map_err(|e| failed(&e, &rewritten, offset, text.len()))?;
            Ok(Self(Arc::new(Compiled { source: text.to_owned(), rewritten, code })))
        })
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// What it reads.
    pub fn reads(&self) -> &[Read] {
        &self.0.rewritten.reads
    }

    /// Its value.
    ///
    /// # Errors
    /// What it reads and is not there, or what cannot be computed, and where.
    pub fn eval(&self, names: &dyn Names) -> Result<Value, ExprError> {
        let value = self.raw(names)?;
        functions::to_json(&value).map_err(|e| self.error(&e))
    }

    /// The truth of its value: false for `false`, `null`, 0, and what is empty.
    ///
    /// # Errors
    /// As [`Expr::eval`].
    pub fn holds(&self, names: &dyn Names) -> Result<bool, ExprError> {
        let value = self.raw(names)?;
        if value.is_undefined() {
            let error = minijinja::Error::new(ErrorKind::UndefinedError, "the value is not there");
            return Err(self.error(&error));
        }
        Ok(value.is_true())
    }

    fn raw(&self, names: &dyn Names) -> Result<minijinja::Value, ExprError> {
        let context = context(self.reads(), names)?;
        self.0.code.eval(context).map_err(|e| self.error(&e))
    }

    pub(super) fn eval_context(
        &self,
        context: minijinja::Value,
    ) -> Result<minijinja::Value, minijinja::Error> {
        self.0.code.eval(context)
    }

    pub(super) fn error(&self, error: &minijinja::Error) -> ExprError {
        failed(error, &self.0.rewritten, 0, self.0.source.len())
    }
}

impl Template {
    /// Compiles a template. `words` are step names with hyphens, which count as one name.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        let trimmed = text.trim();
        if let Some(inside) = single(trimmed) {
            let offset = text.len() - text.trim_start().len() + 2;
            let expr = Expr::compile_in(inside, offset, words, &EXPRESSIONS)?;
            return Ok(Self(Arc::new(TemplateKind::Single(text.to_owned(), expr))));
        }
        compile(text, || {
            let rewritten = template(text, words)?;
            let mut env = EXPRESSIONS.clone();
            env.add_template_owned("t", rewritten.text.clone())
                .map_err(|e| failed(&e, &rewritten, 0, text.len()))?;
            let compiled = Compiled { source: text.to_owned(), rewritten, code: env };
            Ok(Self(Arc::new(TemplateKind::Text(Box::new(compiled)))))
        })
    }

    /// True when `text` has anything to render.
    pub fn is_needed(text: &str) -> bool {
        text.contains("{{") || text.contains("{%") || text.contains("{#")
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        match &*self.0 {
            TemplateKind::Single(source, _) => source,
            TemplateKind::Text(compiled) => &compiled.source,
        }
    }

    /// What it reads.
    pub fn reads(&self) -> &[Read] {
        match &*self.0 {
            TemplateKind::Single(_, expr) => expr.reads(),
            TemplateKind::Text(compiled) => &compiled.rewritten.reads,
        }
    }

    /// The expression of a template that is exactly one `{{ … }}`.
    pub fn as_expr(&self) -> Option<&Expr> {
        match &*self.0 {
            TemplateKind::Single(_, expr) => Some(expr),
            TemplateKind::Text(_) => None,
        }
    }

    /// Its value: a template that is exactly one `{{ … }}` keeps the value's type, anything else is text.
    ///
    /// # Errors
    /// As [`Expr::eval`].
    pub fn render(&self, names: &dyn Names) -> Result<Value, ExprError> {
        match &*self.0 {
            TemplateKind::Single(_, expr) => expr.eval(names),
            TemplateKind::Text(compiled) => {
                let context = context(&compiled.rewritten.reads, names)?;
                let failed = |e: &minijinja::Error| failed(e, &compiled.rewritten, 0, compiled.source.len());
                let template = compiled.code.get_template("t").map_err(|e| failed(&e))?;
                let text = template.render(context).map_err(|e| failed(&e))?;
                if text.len() > LONGEST_OUTPUT {
                    return Err(ExprError {
                        message: format!(
                            "the text renders to {} bytes, over the limit of {LONGEST_OUTPUT}",
                            text.len()
                        ),
                        range: None,
                        help: Some("write large values to files, and name the files".to_owned()),
                    });
                }
                Ok(Value::String(text))
            }
        }
    }
}

/// The inside of a text that is exactly one `{{ … }}`.
fn single(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("{{")?.strip_suffix("}}")?;
    // `{{- … -}}` trims like Jinja; alone it means the same.
    let inside = inside.strip_prefix('-').unwrap_or(inside);
    let outside_quotes = |sign: &str| {
        let mut quote = None;
        let bytes = inside.as_bytes();
        (0..bytes.len()).any(|i| {
            match (quote, bytes[i]) {
                (None, q @ (b'"' | b'\'')) => quote = Some(q),
                (Some(q), b) if q == b => quote = None,
                _ => {}
            }
            quote.is_none() && inside[..].get(i..).is_some_and(|rest| rest.starts_with(sign))
        })
    };
    (!outside_quotes("}}") && !outside_quotes("{{") && !outside_quotes("{%")).then_some(inside)
}

/// The few values that an expression reads.
fn context(reads: &[Read], names: &dyn Names) -> Result<minijinja::Value, ExprError> {
    let mut roots: Vec<(&str, minijinja::Value)> = Vec::new();
    for read in reads {
        if roots.iter().any(|(root, _)| *root == read.root) {
            continue;
        }
        let mut same = reads.iter().filter(|r| r.root == read.root);
        let by_field = NAMESPACES.contains(&read.root.as_str()) && same.all(|r| r.field.is_some());
        let value = if by_field {
            let mut fields: Vec<(&str, minijinja::Value)> = Vec::new();
            for read in reads.iter().filter(|r| r.root == read.root) {
                let Some(field) = read.field.as_deref().filter(|f| fields.iter().all(|(n, _)| n != f)) else {
                    continue;
                };
                match names.get(&read.root, Some(field)) {
                    Some(value) => fields.push((field, value.template_value())),
                    None if is_optional(reads, read) => {}
                    None => return Err(unknown(read)),
                }
            }
            functions::map_value(fields)
        } else {
            match names.get(&read.root, None) {
                Some(value) => value.template_value(),
                None if is_optional(reads, read) => continue,
                None => return Err(unknown(read)),
            }
        };
        roots.push((&read.root, value));
    }
    roots.push((functions::NOW, minijinja::Value::from(names.now().0)));
    Ok(functions::map_value(roots))
}

/// Whether the expression guards this reference anywhere: `x is defined and x > 3` copes with the absence of `x`.
fn is_optional(reads: &[Read], read: &Read) -> bool {
    reads.iter().any(|r| r.optional && r.root == read.root && r.field == read.field)
}

fn unknown(read: &Read) -> ExprError {
    let name =
        read.field.as_ref().map_or_else(|| read.root.clone(), |field| format!("{}.{field}", read.root));
    ExprError {
        message: format!("`{name}` has no value here"),
        range: Some(read.range.clone()),
        help: Some(format!("check the name, or allow for its absence with `{name} | default(…)`")),
    }
}

fn failed(error: &minijinja::Error, rewritten: &Output, offset: usize, length: usize) -> ExprError {
    let detail = error.detail().map(str::to_owned);
    let (message, help) = match error.kind() {
        ErrorKind::OutOfFuel => (
            "it takes too many steps to compute".to_owned(),
            Some("do less in one expression, or loop with steps"),
        ),
        ErrorKind::UndefinedError => {
            let what = detail.unwrap_or_else(|| "a value that is not there is used".to_owned());
            (what, Some("check the path, or allow for its absence with `| default(…)`"))
        }
        ErrorKind::UnknownFunction
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownMethod => (
            detail.unwrap_or_else(|| error.kind().to_string()),
            Some("see the expression reference for what there is"),
        ),
        kind => (detail.unwrap_or_else(|| kind.to_string()), None),
    };
    let range = error.range().and_then(|r| rewritten.origin(&r)).unwrap_or(offset..offset + length);
    ExprError { message, range: Some(range), help: help.map(str::to_owned) }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.source())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source())
    }
}
