//! The shape of an expression: what the parser makes and the writer writes.
//!
//! Chains (`a + b + c`, `x | f | g`, `a.b.c`) are flat lists, so that only brackets nest, and brackets are counted: no text can
//! make a tree too deep for a small stack. Must not know values.

use std::ops::Range;

/// An expression with its place.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub(super) kind: Kind<'a>,
    /// Byte range in the text that was parsed.
    pub(super) range: Range<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind<'a> {
    /// A number, as written.
    Number(&'a str),
    /// A text, without quotes and escapes; where its inside stands, when it has no escapes.
    Text(String, Option<usize>),
    /// `true`, `false`, `none`, in Jinja's spelling.
    Constant(&'static str),
    /// A bare name.
    Name(String),
    List(Vec<Node<'a>>),
    Tuple(Vec<Node<'a>>),
    Map(Vec<(Node<'a>, Node<'a>)>),
    /// A value and what is read of it.
    Path(Box<Node<'a>>, Vec<Suffix<'a>>),
    /// A value through filters and tests.
    Piped(Box<Node<'a>>, Vec<Pipe<'a>>),
    /// Minus signs before a value.
    Negative(usize, Box<Node<'a>>),
    /// `not` so many times.
    Not(usize, Box<Node<'a>>),
    /// Operators of one strength, from left to right.
    Chain(Strength, Box<Node<'a>>, Vec<(&'static str, Node<'a>)>),
    /// `a ~ b`: joined as text.
    Joined(Vec<Node<'a>>),
    /// `a < b`, `a < b < c`, `a in b`, `a contains b`.
    Compare(Box<Node<'a>>, Vec<(&'static str, Node<'a>)>),
    /// `x between low and high`.
    Between(Box<[Node<'a>; 3]>),
    /// `x exists`.
    Exists(Box<Node<'a>>),
    /// `x empty`.
    Empty(Box<Node<'a>>),
    /// Conditions with their values, then the value when none holds.
    Choice(Vec<(Node<'a>, Node<'a>)>, Option<Box<Node<'a>>>),
}

/// How strongly an operator binds; weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    Choice,
    Or,
    And,
    Not,
    Sum,
    Product,
    Power,
    Negative,
    Piped,
    Path,
    Atom,
}

/// What is read of a value.
#[derive(Debug, Clone)]
pub(super) enum Suffix<'a> {
    /// `.name`
    Field(String, Range<usize>),
    /// `.0`
    Place(String, Range<usize>),
    /// `[…]`
    Index(Node<'a>, Range<usize>),
    /// `[from:to:step]`
    Slice(Vec<Option<Node<'a>>>, Range<usize>),
    /// `(…)`
    Call(Vec<Argument<'a>>, Range<usize>),
}

impl Suffix<'_> {
    pub(super) fn range(&self) -> &Range<usize> {
        match self {
            Self::Field(_, range)
            | Self::Place(_, range)
            | Self::Index(_, range)
            | Self::Slice(_, range)
            | Self::Call(_, range) => range,
        }
    }

    /// The name or text that is read, when it is fixed.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self {
            Self::Field(name, _) => Some(name),
            Self::Index(Node { kind: Kind::Text(text, _), .. }, _) => Some(text),
            _ => None,
        }
    }
}

/// An argument of a call.
#[derive(Debug, Clone)]
pub(super) struct Argument<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) value: Node<'a>,
}

/// A filter or a test.
#[derive(Debug, Clone)]
pub(super) struct Pipe<'a> {
    pub(super) is_test: bool,
    pub(super) negated: bool,
    pub(super) name: &'a str,
    pub(super) arguments: Vec<Argument<'a>>,
    pub(super) range: Range<usize>,
}

impl Node<'_> {
    pub(super) fn strength(&self) -> Strength {
        match &self.kind {
            Kind::Choice(..) => Strength::Choice,
            Kind::Not(..) => Strength::Not,
            Kind::Chain(strength, ..) => *strength,
            Kind::Negative(..) => Strength::Negative,
            Kind::Piped(..) => Strength::Piped,
            Kind::Path(..) => Strength::Path,
            // Written as calls.
            _ => Strength::Atom,
        }
    }
}
