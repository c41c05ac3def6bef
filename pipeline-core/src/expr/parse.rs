//! Reads the text of an expression into a tree.
//!
//! Owns the grammar: Jinja's, with our words between and behind values (`contains`, `between … and …`, `exists`), `&&`, `||`,
//! `!`, `a ? b : c`, and known names with hyphens. Must not know what names or functions there are.
//! Next: `expr/write.rs`, which writes the tree as plain Jinja.

use crate::expr::ExprError;
use crate::expr::token::{Kind as Token, Token as Piece, tokens};
use crate::expr::tree::{Argument, Kind, Node, Pipe, Strength, Suffix};

/// Longest expression, in bytes: what compiles it recurses on long chains.
pub(super) const LONGEST: usize = 4096;

/// Deepest nesting of brackets and branches.
const DEEPEST: usize = 48;

/// Most signs before a value.
const MOST_SIGNS: usize = 8;

/// Words that are never names.
const KEYWORDS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];

const CONSTANTS: [(&str, &str); 7] = [
    ("true", "true"),
    ("True", "true"),
    ("false", "false"),
    ("False", "false"),
    ("none", "none"),
    ("None", "none"),
    ("null", "none"),
];

const COMPARISONS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];

/// Words between two values, with the operator that they mean.
pub(super) const INFIX: [(&str, &str); 7] = [
    ("in", "in"),
    ("contains", "contains"),
    ("matches", "matches"),
    ("starts_with", "starts_with"),
    ("startsWith", "starts_with"),
    ("ends_with", "ends_with"),
    ("endsWith", "ends_with"),
];

/// A text that is being read.
pub(super) struct Parser<'w, 'a> {
    text: &'a str,
    pieces: Vec<Piece<'a>>,
    at: usize,
    depth: usize,
    words: &'w [&'w str],
}

type Parsed<'a> = Result<Node<'a>, ExprError>;

fn refused(message: impl Into<String>, range: std::ops::Range<usize>, help: &str) -> ExprError {
    ExprError { message: message.into(), range: Some(range), help: Some(help.to_owned()) }
}

impl<'w, 'a> Parser<'w, 'a> {
    /// Begins to read. `words` are names with hyphens, which count as one word.
    pub(super) fn new(text: &'a str, words: &'w [&'w str]) -> Result<Self, ExprError> {
        if text.len() > LONGEST {
            let message = format!("an expression of {} bytes is over the limit of {LONGEST}", text.len());
            return Err(refused(message, 0..text.len(), "compute parts of it in `set_variable` steps"));
        }
        Ok(Self { text, pieces: tokens(text)?, at: 0, depth: 0, words })
    }

    /// The whole text as one expression.
    pub(super) fn whole(mut self) -> Parsed<'a> {
        if self.pieces.is_empty() {
            let help = "write a value, for example `steps.a.score > 7`";
            return Err(refused("an expression is empty", 0..self.text.len(), help));
        }
        let node = self.choice()?;
        self.end()?;
        Ok(node)
    }

    /// Several expressions with commas between them, to the end.
    pub(super) fn list(&mut self) -> Result<Vec<Node<'a>>, ExprError> {
        let mut all = vec![self.choice()?];
        while self.eat(",") {
            all.push(self.choice()?);
        }
        Ok(all)
    }

    /// Where the last token that was taken ended.
    pub(super) fn position(&self) -> usize {
        self.stop()
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), ExprError> {
        let Some(next) = self.peek() else { return Ok(()) };
        Err(Self::unexpected(next))
    }

    fn peek(&self) -> Option<&Piece<'a>> {
        self.pieces.get(self.at)
    }

    fn is(&self, text: &str) -> bool {
        self.peek().is_some_and(|p| p.is(text))
    }

    fn is_after(&self, text: &str) -> bool {
        self.pieces.get(self.at + 1).is_some_and(|p| p.is(text))
    }

    /// Takes the next word or sign if it is this one.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let found = self.is(text);
        self.at += usize::from(found);
        found
    }

    /// Takes the next word.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        let word = self.peek().filter(|p| p.kind == Token::Word)?.text;
        self.at += 1;
        Some(word)
    }

    /// Where the next token begins, or the text ends.
    fn start(&self) -> usize {
        self.peek().map_or(self.text.len(), |p| p.start)
    }

    /// Where the last token ended.
    fn stop(&self) -> usize {
        self.at.checked_sub(1).and_then(|at| self.pieces.get(at)).map_or(0, Piece::end)
    }

    fn node(&self, start: usize, kind: Kind<'a>) -> Node<'a> {
        Node { kind, range: start..self.stop().max(start) }
    }

    fn unexpected(piece: &Piece<'_>) -> ExprError {
        let (message, help) = match piece.text {
            _ if piece.kind == Token::Text => {
                (format!("the text {} does not belong here", piece.text), "put an operator before it")
            }
            sign @ (")" | "]" | "}") => (format!("`{sign}` closes nothing"), "remove it, or open it before"),
            sign @ ("===" | "!==") => (format!("`{sign}` is not an operator here"), "write `==` or `!=`"),
            "=" => ("`=` does not compare".to_owned(), "write `==` to compare"),
            sign @ ("$" | "@" | "#" | ";" | "`" | "&" | "^" | "\\") => {
                (format!("`{sign}` has no meaning in an expression"), "see the expression reference")
            }
            "and" | "or" | "&&" | "||" => {
                (format!("`{}` needs a value on both sides", piece.text), "add what is missing")
            }
            text => {
                let what = if piece.kind == Token::Word { "the word" } else { "the sign" };
                (format!("{what} `{text}` does not belong here"), "put an operator before it, or remove it")
            }
        };
        refused(message, piece.range(), help)
    }

    fn missing(&self, after: &str) -> ExprError {
        match self.peek() {
            Some(next) if !after.is_empty() && COMPARISONS.contains(&next.text) => refused(
                format!("`{}` needs a value on both sides", next.text),
                next.range(),
                "add what to compare with",
            ),
            Some(next) => Self::unexpected(next),
            None => {
                let at = self.stop();
                let last = self.pieces.last().map_or(at..at, Piece::range);
                let message = match self.pieces.last() {
                    Some(last) => format!("a value is missing after `{}`", last.text),
                    None => "a value is missing".to_owned(),
                };
                refused(message, last, "add what is missing")
            }
        }
    }

    /// Reads something a level deeper.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ExprError>) -> Result<T, ExprError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let start = self.start();
            let message = format!("an expression nests deeper than {DEEPEST} levels");
            return Err(refused(
                message,
                start..self.text.len(),
                "compute parts of it in `set_variable` steps",
            ));
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// `a ? b : c`, `b if a else c`, or what is stronger.
    pub(super) fn choice(&mut self) -> Parsed<'a> {
        let start = self.start();
        let mut arms = Vec::new();
        let otherwise = loop {
            let first = self.any_of()?;
            if self.is("?") {
                let question = self.at;
                self.at += 1;
                let then = self.deeper(Self::choice)?;
                if !self.eat(":") {
                    let help = "write `condition ? then : otherwise`";
                    return Err(refused("a `?` without its `:`", self.pieces[question].range(), help));
                }
                arms.push((first, then));
            } else if self.eat("if") {
                let condition = self.any_of()?;
                arms.push((condition, first));
                if !self.eat("else") {
                    break None;
                }
            } else {
                break Some(first);
            }
        };
        match otherwise {
            Some(only) if arms.is_empty() => Ok(only),
            otherwise => Ok(self.node(start, Kind::Choice(arms, otherwise.map(Box::new)))),
        }
    }

    /// Operators of one strength.
    fn chain(
        &mut self,
        strength: Strength,
        signs: &[(&'static str, &'static str)],
        part: fn(&mut Self) -> Parsed<'a>,
    ) -> Parsed<'a> {
        let start = self.start();
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some((_, sign)) = signs.iter().find(|(written, _)| self.is(written)) {
            self.at += 1;
            rest.push((*sign, part(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(self.node(start, Kind::Chain(strength, Box::new(first), rest)))
    }

    /// `or`, or what is stronger.
    pub(super) fn any_of(&mut self) -> Parsed<'a> {
        self.chain(Strength::Or, &[("or", "or"), ("||", "or")], Self::all_of)
    }

    fn all_of(&mut self) -> Parsed<'a> {
        self.chain(Strength::And, &[("and", "and"), ("&&", "and")], Self::negation)
    }

    fn negation(&mut self) -> Parsed<'a> {
        let start = self.start();
        let mut count = 0;
        while self.eat("not") || self.eat("!") {
            count += 1;
        }
        let inner = self.comparison()?;
        Ok(if count == 0 { inner } else { self.node(start, Kind::Not(count, Box::new(inner))) })
    }

    fn comparison(&mut self) -> Parsed<'a> {
        let start = self.start();
        let mut left = self.sum()?;
        loop {
            let mut chain = Vec::new();
            while let Some(sign) = COMPARISONS.iter().find(|s| self.is(s)) {
                self.at += 1;
                chain.push((*sign, self.sum()?));
            }
            if !chain.is_empty() {
                left = self.node(start, Kind::Compare(Box::new(left), chain));
            }
            let negated = self.is("not") && self.pieces.get(self.at + 1).is_some_and(is_infix);
            if negated || self.peek().is_some_and(is_infix) {
                self.at += usize::from(negated);
                left = self.infix(start, left)?;
                if negated {
                    left = self.node(start, Kind::Not(1, Box::new(left)));
                }
            } else {
                return Ok(left);
            }
        }
    }

    /// One of our words behind a value, which is the next token.
    fn infix(&mut self, start: usize, left: Node<'a>) -> Parsed<'a> {
        let word = self.at;
        self.at += 1;
        let kind = match self.pieces[word].text {
            "exists" => Kind::Exists(Box::new(left)),
            "empty" => Kind::Empty(Box::new(left)),
            "between" => {
                let low = self.sum()?;
                if !self.eat("and") && !self.eat("&&") {
                    let help = "write `x between 1 and 10`";
                    return Err(refused("`between` without its `and`", self.pieces[word].range(), help));
                }
                let high = self.sum()?;
                Kind::Between(Box::new([left, low, high]))
            }
            "not_in" => {
                let list = self.sum()?;
                let inner = self.node(start, Kind::Compare(Box::new(left), vec![("in", list)]));
                Kind::Not(1, Box::new(inner))
            }
            written => {
                let sign = INFIX.iter().find(|(w, _)| *w == written).map_or("in", |(_, sign)| *sign);
                let right = self.sum()?;
                Kind::Compare(Box::new(left), vec![(sign, right)])
            }
        };
        Ok(self.node(start, kind))
    }

    fn sum(&mut self) -> Parsed<'a> {
        self.chain(Strength::Sum, &[("+", "+"), ("-", "-")], Self::joined)
    }

    fn joined(&mut self) -> Parsed<'a> {
        let start = self.start();
        let first = self.product()?;
        if !self.is("~") {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.eat("~") {
            all.push(self.product()?);
        }
        Ok(self.node(start, Kind::Joined(all)))
    }

    fn product(&mut self) -> Parsed<'a> {
        let signs = [("*", "*"), ("/", "/"), ("//", "//"), ("%", "%")];
        self.chain(Strength::Product, &signs, |p| p.chain(Strength::Power, &[("**", "**")], Self::piped))
    }

    /// A value with its sign, through filters and tests.
    fn piped(&mut self) -> Parsed<'a> {
        let start = self.start();
        let mut value = self.signed()?;
        let mut pipes = Vec::new();
        loop {
            let from = self.start();
            let is_test = self.is("is");
            if !is_test && !self.is("|") {
                break;
            }
            self.at += 1;
            let negated = is_test && self.eat("not");
            if is_test && self.peek().is_some_and(is_infix) {
                // `is empty`, `is not between 1 and 3`: our words, with an `is` before them.
                if !pipes.is_empty() {
                    value = self.node(start, Kind::Piped(Box::new(value), std::mem::take(&mut pipes)));
                }
                value = self.infix(start, value)?;
                if negated {
                    value = self.node(start, Kind::Not(1, Box::new(value)));
                }
                continue;
            }
            let Some(name) = self.word() else { return Err(self.missing("|")) };
            let name = if is_test && name == "null" { "none" } else { name };
            let arguments = if self.is("(") {
                self.arguments()?
            } else if is_test && self.peek().is_some_and(begins_value) {
                vec![Argument { name: None, value: self.signed()? }]
            } else {
                Vec::new()
            };
            pipes.push(Pipe { is_test, negated, name, arguments, range: from..self.stop() });
        }
        Ok(if pipes.is_empty() { value } else { self.node(start, Kind::Piped(Box::new(value), pipes)) })
    }

    fn signed(&mut self) -> Parsed<'a> {
        let start = self.start();
        let (mut minus, mut all) = (0, 0);
        while self.is("-") || self.is("+") {
            minus += usize::from(self.is("-"));
            all += 1;
            self.at += 1;
        }
        if all > MOST_SIGNS {
            let message = format!("over {MOST_SIGNS} signs before a value");
            return Err(refused(message, start..self.stop(), "one is enough"));
        }
        let value = self.path()?;
        Ok(if minus == 0 { value } else { self.node(start, Kind::Negative(minus, Box::new(value))) })
    }

    /// A value and what is read of it.
    fn path(&mut self) -> Parsed<'a> {
        let start = self.start();
        let (base, mut suffixes) = self.primary()?;
        loop {
            let from = self.start();
            if self.is(".") {
                self.at += 1;
                let of_steps = suffixes.is_empty() && matches!(&base.kind, Kind::Name(n) if n == "steps");
                self.field(from, of_steps, &mut suffixes)?;
            } else if self.is("[") {
                let suffix = self.subscript(from)?;
                suffixes.push(suffix);
            } else if self.is("(") {
                let arguments = self.arguments()?;
                suffixes.push(Suffix::Call(arguments, from..self.stop()));
            } else {
                break;
            }
        }
        Ok(if suffixes.is_empty() { base } else { self.node(start, Kind::Path(Box::new(base), suffixes)) })
    }

    fn field(&mut self, from: usize, of_steps: bool, out: &mut Vec<Suffix<'a>>) -> Result<(), ExprError> {
        let (kind, text) = match self.peek() {
            Some(piece) => (piece.kind, piece.text),
            None => return Err(self.missing(".")),
        };
        match kind {
            Token::Word => {
                let name = of_steps.then(|| self.hyphenated()).flatten();
                let name = name.unwrap_or_else(|| {
                    self.at += 1;
                    text.to_owned()
                });
                out.push(Suffix::Field(name, from..self.stop()));
            }
            Token::Number if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                self.at += 1;
                // `a.0.1` is read as `a`, `.`, `0.1`.
                out.extend(text.split('.').map(|n| Suffix::Place(n.to_owned(), from..self.stop())));
            }
            _ => return Err(self.missing(".")),
        }
        Ok(())
    }

    /// A known name with hyphens that begins here, written without spaces; it is taken.
    fn hyphenated(&mut self) -> Option<String> {
        let first = self.peek()?.start;
        let mut end = self.at + 1;
        let mut best = None;
        while let (Some(hyphen), Some(next)) = (self.pieces.get(end), self.pieces.get(end + 1)) {
            let joins = hyphen.is("-")
                && next.kind != Token::Text
                && self.pieces[end - 1].end() == hyphen.start
                && hyphen.end() == next.start;
            if !joins {
                break;
            }
            end += 2;
            let name = &self.text[first..self.pieces[end - 1].end()];
            if self.words.contains(&name) {
                best = Some((name.to_owned(), end));
            }
        }
        let (name, end) = best?;
        self.at = end;
        Some(name)
    }

    fn closed(&mut self, open: usize, sign: &str) -> Result<(), ExprError> {
        if self.eat(sign) {
            return Ok(());
        }
        let open = &self.pieces[open];
        match self.peek() {
            Some(next) if !matches!(next.text, ")" | "]" | "}") => Err(Self::unexpected(next)),
            _ => Err(refused(format!("`{}` is never closed", open.text), open.range(), "close it")),
        }
    }

    fn subscript(&mut self, from: usize) -> Result<Suffix<'a>, ExprError> {
        let open = self.at;
        self.at += 1;
        let mut parts: Vec<Option<Node<'a>>> = Vec::new();
        loop {
            let is_absent = self.is(":") || self.is("]");
            parts.push(if is_absent { None } else { Some(self.deeper(Self::choice)?) });
            if parts.len() == 3 || !self.eat(":") {
                break;
            }
        }
        if parts.len() == 1 && parts[0].is_none() {
            return Err(refused("an index is missing", self.pieces[open].range(), "write a place or a name"));
        }
        self.closed(open, "]")?;
        let range = from..self.stop();
        Ok(match parts.pop() {
            Some(Some(index)) if parts.is_empty() => Suffix::Index(index, range),
            last => {
                parts.extend(last);
                Suffix::Slice(parts, range)
            }
        })
    }

    /// Arguments in brackets, which begin here.
    pub(super) fn arguments(&mut self) -> Result<Vec<Argument<'a>>, ExprError> {
        let open = self.at;
        self.at += 1;
        let mut all = Vec::new();
        while !self.is(")") {
            let is_named = self.peek().is_some_and(|p| p.kind == Token::Word) && self.is_after("=");
            let name = if is_named { self.word() } else { None };
            self.at += usize::from(is_named);
            if self.peek().is_none() {
                break;
            }
            let value = self.deeper(Self::choice)?;
            all.push(Argument { name, value });
            if !self.eat(",") {
                break;
            }
        }
        self.closed(open, ")")?;
        Ok(all)
    }

    fn items(&mut self, open: usize, close: &str) -> Result<(Vec<Node<'a>>, bool), ExprError> {
        let mut all = Vec::new();
        let mut comma = false;
        while !self.is(close) && self.peek().is_some() {
            all.push(self.deeper(Self::choice)?);
            if !self.eat(",") {
                break;
            }
            comma = true;
        }
        self.closed(open, close)?;
        Ok((all, comma))
    }

    /// One value. A known name with hyphens is a step: its name is read of `steps`.
    fn primary(&mut self) -> Result<(Node<'a>, Vec<Suffix<'a>>), ExprError> {
        let start = self.start();
        let (kind, text, open) = match self.peek() {
            Some(piece) => (piece.kind, piece.text, self.at),
            None => return Err(self.missing("")),
        };
        let plain = |this: &Self, kind| Ok((this.node(start, kind), Vec::new()));
        match (kind, text) {
            (Token::Number, _) => {
                self.at += 1;
                plain(self, Kind::Number(text))
            }
            (Token::Text, _) => {
                let mut all = String::new();
                let inside = (!text.contains('\\')).then_some(start + 1);
                while let Some(piece) = self.peek().filter(|p| p.kind == Token::Text) {
                    all.push_str(&piece.unquoted());
                    self.at += 1;
                }
                plain(self, Kind::Text(all, inside))
            }
            (Token::Word, word) if KEYWORDS.contains(&word) => Err(self.missing(word)),
            (Token::Word, word) => {
                if let Some((_, constant)) = CONSTANTS.iter().find(|(written, _)| *written == word) {
                    self.at += 1;
                    return plain(self, Kind::Constant(constant));
                }
                if let Some(name) = self.hyphenated() {
                    let base = self.node(start, Kind::Name("steps".to_owned()));
                    return Ok((base, vec![Suffix::Field(name, start..self.stop())]));
                }
                self.at += 1;
                plain(self, Kind::Name(word.to_owned()))
            }
            (Token::Sign, "(") => {
                self.at += 1;
                let (mut all, comma) = self.items(open, ")")?;
                match all.pop() {
                    Some(only) if all.is_empty() && !comma => Ok((only, Vec::new())),
                    last => {
                        all.extend(last);
                        plain(self, Kind::Tuple(all))
                    }
                }
            }
            (Token::Sign, "[") => {
                self.at += 1;
                let (all, _) = self.items(open, "]")?;
                plain(self, Kind::List(all))
            }
            (Token::Sign, "{") => {
                self.at += 1;
                let entries = self.entries(open)?;
                plain(self, Kind::Map(entries))
            }
            _ => Err(self.missing("value")),
        }
    }

    /// A word right before a colon is the text that it looks like, not the value of whatever has that name.
    fn bare_key(&mut self) -> Option<Node<'a>> {
        let [word, colon, ..] = self.pieces.get(self.at..)? else { return None };
        let is_bare = word.kind == Token::Word && colon.kind == Token::Sign && colon.text == ":";
        if !is_bare || CONSTANTS.iter().any(|(written, _)| *written == word.text) {
            return None;
        }
        let (start, text) = (self.at, word.text.to_owned());
        self.at += 1;
        Some(self.node(start, Kind::Text(text, None)))
    }

    fn entries(&mut self, open: usize) -> Result<Vec<(Node<'a>, Node<'a>)>, ExprError> {
        let mut all = Vec::new();
        while !self.is("}") && self.peek().is_some() {
            let key = match self.bare_key() {
                Some(key) => key,
                None => self.deeper(Self::any_of)?,
            };
            if !self.eat(":") {
                return match self.peek() {
                    Some(next) => Err(Self::unexpected(next)),
                    None => Err(refused("`{` is never closed", self.pieces[open].range(), "close it")),
                };
            }
            all.push((key, self.deeper(Self::choice)?));
            if !self.eat(",") {
                break;
            }
        }
        self.closed(open, "}")?;
        Ok(all)
    }
}

fn is_infix(piece: &Piece<'_>) -> bool {
    piece.kind == Token::Word
        && (matches!(piece.text, "exists" | "empty" | "between" | "not_in")
            || INFIX.iter().any(|(word, _)| *word == piece.text))
}

/// Whether a test's argument without brackets can begin with this.
fn begins_value(piece: &Piece<'_>) -> bool {
    match piece.kind {
        Token::Number | Token::Text => true,
        Token::Word => !KEYWORDS.contains(&piece.text) && piece.text != "recursive" && !is_infix(piece),
        Token::Sign => matches!(piece.text, "[" | "{" | "-" | "+"),
    }
}
