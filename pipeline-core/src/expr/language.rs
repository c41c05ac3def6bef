//! Compiling and evaluating one expression or template.
//!
//! Owns [`Expr`], [`Template`], [`Read`] and [`ExprError`]. The engine underneath is minijinja, with fuel and without any way
//! to reach files or the environment. Next: `rewrite.rs` for what is on top of it, `functions.rs` for the functions.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use minijinja::{Environment, ErrorKind, Expression, UndefinedBehavior};

use crate::expr::functions::support::{self, ENDED, Located, NOW, map_value, printed, to_json};
use crate::expr::parse::Parser;
use crate::expr::script::MARKS;
use crate::expr::statement::{end_of, shifted, template};
use crate::expr::write::{Around, NAMESPACES, Output, free, write};
use crate::expr::{Names, functions};
use crate::value::{Data, Value};

/// Steps of evaluation that one expression or template may take.
const FUEL: u64 = 50_000;

/// Steps that a `data_source` may take.
const FUEL_DATA_SOURCE: u64 = 1_000_000;

/// Bytes that one template may render to.
const LONGEST_OUTPUT: usize = 16 << 20;

/// Macros and recursive loops within each other.
const DEEPEST_MACRO: usize = 64;

/// Texts longer than this are compiled with room for deep recursion.
const SHALLOW: usize = 256;

/// Words that the text of an expression may use beside its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words<'a> {
    /// Step names with hyphens, which count as one name.
    pub names: &'a [&'a str],
    /// What `previous_response` is called; `None` = there is none, and it is reported among what is read.
    pub previous: Option<&'a str>,
}

/// Something that an expression reads: a root name, and the field of it where that is fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Root name: `steps`, `inputs`, a bare name.
    pub root: String,
    /// First field when it is a constant (`steps.a`, `steps['a']`).
    pub field: Option<String>,
    /// The fields of the path as far as they are constant; the first is `field`.
    pub path: Vec<String>,
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
    /// Where the source stands in the text that errors point into.
    offset: usize,
    rewritten: Output,
    code: T,
}

static EXPRESSIONS: LazyLock<Environment<'static>> = LazyLock::new(|| environment(FUEL));
static DATA_SOURCES: LazyLock<Environment<'static>> = LazyLock::new(|| environment(FUEL_DATA_SOURCE));

fn environment(fuel: u64) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(fuel));
    env.set_recursion_limit(DEEPEST_MACRO);
    env.set_debug(true);
    if let Ok(syntax) = minijinja::syntax::SyntaxConfig::builder().keep_trailing_newline(true).build() {
        env.set_syntax(syntax);
    }
    env.set_formatter(|out, state, value| {
        if value.as_str().is_some() {
            return minijinja::escape_formatter(out, state, value);
        }
        let text = printed(value)?;
        support::pay(state, text.len())?;
        out.write_str(&text).map_err(minijinja::Error::from)
    });
    functions::install(&mut env, with_fuel);
    env
}

/// An engine with so much fuel, for what is evaluated within an evaluation.
fn with_fuel(fuel: u64) -> Environment<'static> {
    let mut env = EXPRESSIONS.clone();
    env.set_fuel(Some(fuel));
    env
}

/// Compiles where there is room: long chains recurse.
fn compile<T: Send>(text: &str, work: impl FnOnce() -> T + Send) -> T {
    if text.len() > SHALLOW { crate::stack::with_room(work) } else { work() }
}

/// The text as plain Jinja.
fn rewritten(text: &str, offset: usize, words: &Words<'_>, is_row: bool) -> Result<Output, ExprError> {
    let mut rewritten = Output::default();
    let around = Around { offset, binding: &free, is_row, in_text: false, previous: words.previous };
    Parser::new(text, words.names)
        .and_then(Parser::whole)
        .map_err(|e| shifted(e, offset))
        .and_then(|node| write(&node, &around, &mut rewritten))?;
    Ok(rewritten)
}

impl Expr {
    /// Compiles an expression. `words` are step names with hyphens, which count as one name.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        Self::compile_at(text, 0, &Words { names: words, previous: None }, false, &EXPRESSIONS)
    }

    /// Compiles an expression that stands among steps.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile_among(text: &str, words: &Words<'_>) -> Result<Self, ExprError> {
        Self::compile_at(text, 0, words, false, &EXPRESSIONS)
    }

    /// Compiles the expression of a `data_source`, which may take more steps.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile_data_source(text: &str, words: &Words<'_>) -> Result<Self, ExprError> {
        Self::compile_at(text, 0, words, false, &DATA_SOURCES)
    }

    /// Compiles an expression over rows.
    pub(super) fn compile_row(text: &str, words: &Words<'_>) -> Result<Self, ExprError> {
        Self::compile_at(text, 0, words, true, &EXPRESSIONS)
    }

    /// An expression over items as plain Jinja: a list of its value and of what it spent.
    pub(super) fn rewritten_row(text: &str) -> Result<(String, Vec<Read>), ExprError> {
        let rewritten = rewritten(text, 0, &Words::default(), true)?;
        Ok((format!("[{}, _spent()]", rewritten.text), rewritten.reads))
    }

    fn compile_at(
        text: &str,
        offset: usize,
        words: &Words<'_>,
        is_row: bool,
        env: &'static Environment<'static>,
    ) -> Result<Self, ExprError> {
        compile(text, || {
            let rewritten = rewritten(text, offset, words, is_row)?;
            let code = env
                .compile_expression_owned(rewritten.text.clone())
                .map_err(|e| failed(&e, &rewritten, offset, text))?;
            Ok(Self(Arc::new(Compiled { source: text.to_owned(), offset, rewritten, code })))
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
        self.data(names).map(Data::into_json)
    }

    /// Its value, shared with whoever has it where the expression is a plain path.
    ///
    /// # Errors
    /// As [`Expr::eval`].
    pub fn data(&self, names: &dyn Names) -> Result<Data, ExprError> {
        if let Some(value) = self.plain(names) {
            return Ok(value);
        }
        let value = self.raw(names)?;
        to_json(&value).map(Data::new).map_err(|e| self.error(&e))
    }

    /// What a plain path leads to, taken as it is: a million rows need not be turned into the engine's form and back.
    /// Nothing, where the expression is more than that, or the path leads to what only the engine finds.
    fn plain(&self, names: &dyn Names) -> Option<Data> {
        let [Read { root, field, path, .. }] = self.reads() else { return None };
        let rest = self.0.source.trim().strip_prefix(root.as_str())?;
        if !(rest.is_empty() || rest.starts_with('.')) || !rest.split('.').skip(1).eq(path) {
            return None;
        }
        match field {
            Some(name) if NAMESPACES.contains(&root.as_str()) => names.get(root, Some(name))?.at(&path[1..]),
            _ => names.get(root, None)?.at(path),
        }
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
        let context = context(self.reads(), names);
        self.0.code.eval(context).map_err(|e| self.error(&e))
    }

    pub(super) fn eval_context(
        &self,
        context: minijinja::Value,
    ) -> Result<minijinja::Value, minijinja::Error> {
        self.0.code.eval(context)
    }

    pub(super) fn error(&self, error: &minijinja::Error) -> ExprError {
        failed(error, &self.0.rewritten, self.0.offset, &self.0.source)
    }
}

impl Template {
    /// Compiles a template. `words` are step names with hyphens, which count as one name.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(text: &str, words: &[&str]) -> Result<Self, ExprError> {
        Self::compile_among(text, &Words { names: words, previous: None })
    }

    /// Compiles a template that stands among steps.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile_among(text: &str, words: &Words<'_>) -> Result<Self, ExprError> {
        Self::compile_in(text, words, EXPRESSIONS.clone())
    }

    /// The same, with each value between the marks of `script.rs`.
    pub(super) fn compile_marked(text: &str, words: &Words<'_>) -> Result<Self, ExprError> {
        let mut env = EXPRESSIONS.clone();
        env.set_formatter(|out, state, value| {
            let text = printed(value)?;
            support::pay(state, text.len())?;
            let (begin, end) = MARKS;
            write!(out, "{begin}{}{end}", Value::String(text)).map_err(minijinja::Error::from)
        });
        Self::compile_in(text, words, env)
    }

    fn compile_in(text: &str, words: &Words<'_>, mut env: Environment<'static>) -> Result<Self, ExprError> {
        if let Some((inside, offset)) = single(text) {
            let expr = Expr::compile_at(inside, offset, words, false, &EXPRESSIONS)?;
            return Ok(Self(Arc::new(TemplateKind::Single(text.to_owned(), expr))));
        }
        compile(text, || {
            let rewritten = template(text, words)?;
            env.add_template_owned("t", rewritten.text.clone())
                .map_err(|e| failed(&e, &rewritten, 0, text))?;
            let compiled = Compiled { source: text.to_owned(), offset: 0, rewritten, code: env };
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
                let context = context(&compiled.rewritten.reads, names);
                let failed = |e: &minijinja::Error| failed(e, &compiled.rewritten, 0, &compiled.source);
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

/// The inside of a text that is exactly one `{{ … }}`, else the text.
pub(crate) fn unwrapped(text: &str) -> &str {
    single(text).map_or(text, |(inside, _)| inside.trim())
}

/// The inside of a text that is exactly one `{{ … }}`, and where it stands.
fn single(text: &str) -> Option<(&str, usize)> {
    let lead = text.len() - text.trim_start().len();
    let rest = text.trim().strip_prefix("{{")?;
    let end = end_of(rest, "}}", true).filter(|end| end + 2 == rest.len())?;
    let inside = &rest[..end];
    // `{{- … -}}` trims like Jinja; alone it means the same.
    let inside = inside.strip_suffix('-').unwrap_or(inside);
    match inside.strip_prefix('-') {
        Some(inside) => Some((inside, lead + 3)),
        None => Some((inside, lead + 2)),
    }
}

/// The few values that an expression reads.
fn context(reads: &[Read], names: &dyn Names) -> minijinja::Value {
    let mut roots: Vec<(&str, minijinja::Value)> = Vec::new();
    let mut ended: Vec<(String, &'static str)> = Vec::new();
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
                // What is not there is told where it is used, if it is.
                if let Some(value) = names.get(&read.root, Some(field)) {
                    fields.push((field, value.template_value()));
                }
            }
            map_value(fields)
        } else {
            match names.get(&read.root, None) {
                // What a step gave is read as that, however its name is found.
                Some(all) if read.root == "steps" => {
                    let steps = all.fields();
                    ended.extend(
                        steps.iter().filter_map(|(name, value)| Some((name.clone(), value.status()?))),
                    );
                    map_value(steps.iter().map(|(name, value)| (name.as_str(), value.template_value())))
                }
                Some(value) => value.template_value(),
                None => continue,
            }
        };
        roots.push((&read.root, value));
    }
    ended.extend(reads.iter().filter_map(|read| {
        let is_steps = read.root == "steps";
        let field = read.path.get(usize::from(is_steps))?;
        let asked = matches!(field.as_str(), "result" | "status");
        let name = if is_steps { &read.path[0] } else { &read.root };
        let value = asked.then(|| names.get(&read.root, is_steps.then_some(name)))??;
        Some((name.clone(), value.status()?))
    }));
    let ended = ended.iter().map(|(name, how)| (name.as_str(), minijinja::Value::from(*how)));
    roots.push((ENDED, map_value(ended)));
    roots.push((NOW, minijinja::Value::from(names.now().0)));
    map_value(roots)
}

fn failed(error: &minijinja::Error, rewritten: &Output, offset: usize, source: &str) -> ExprError {
    let located = std::error::Error::source(error).and_then(|s| s.downcast_ref::<Located>());
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
        kind => match detail.unwrap_or_else(|| kind.to_string()) {
            deep if deep.contains("recursion") => {
                ("it nests too deep".to_owned(), Some("compute parts of it in `set_variable` steps"))
            }
            detail => (detail, None),
        },
    };
    let of_engine =
        || error.range().and_then(|r| rewritten.origin(&r)).unwrap_or(offset..offset + source.len());
    let range = located.and_then(|l| l.range.clone()).unwrap_or_else(of_engine);
    let range = offset + boundary(source, range.start, offset)..offset + boundary(source, range.end, offset);
    let help = located.and_then(|l| l.help.clone()).or(help.map(str::to_owned));
    ExprError { message, range: Some(range), help }
}

/// The place in `source`, which stands at `offset`, moved back into it and to the beginning of a character.
fn boundary(source: &str, at: usize, offset: usize) -> usize {
    source.floor_char_boundary(at.saturating_sub(offset))
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
