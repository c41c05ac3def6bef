//! The parts of a template: text, `{{ … }}`, `{% … %}`, `{# … #}`.
//!
//! Finds the expressions in them and has each rewritten; keeps the scopes of names that Jinja itself binds (`for`, `set`,
//! macro arguments), which are no reads. Next: `expr/parse.rs` and `expr/write.rs`.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::diagnostic::closest;
use crate::expr::parse::Parser;
use crate::expr::tree::Node;
use crate::expr::write::{Around, Binding, Output, write};
use crate::expr::{ExprError, Words};

/// Longest template, in bytes.
const LONGEST: usize = 64 << 10;

/// Most branches of all `{% if %}` together.
const MOST_ELIFS: usize = 200;

/// Most statements nested in each other.
const DEEPEST: usize = 64;

/// Statements with an end of their own.
const BLOCKS: [&str; 8] = ["for", "if", "with", "macro", "call", "filter", "autoescape", "set"];

/// Statements that name other templates.
const OTHERS: [&str; 5] = ["include", "import", "from", "extends", "block"];

enum Part<'a> {
    /// Copied as it is.
    Text(&'a str),
    /// Opening sign, inside, closing sign.
    Print(&'a str, &'a str, &'a str),
    Statement(&'a str, &'a str, &'a str),
}

/// A statement that is open, and what it binds.
struct Frame {
    word: String,
    start: Range<usize>,
    bound: BTreeSet<String>,
    maybe: BTreeSet<String>,
}

impl Frame {
    fn new(word: &str, start: Range<usize>) -> Self {
        Self { word: word.to_owned(), start, bound: BTreeSet::new(), maybe: BTreeSet::new() }
    }
}

struct Writer<'w> {
    words: &'w Words<'w>,
    out: Output,
    frames: Vec<Frame>,
    elifs: usize,
}

/// Rewrites a template to plain Jinja.
pub(super) fn template(text: &str, words: &Words<'_>) -> Result<Output, ExprError> {
    if text.len() > LONGEST {
        return Err(ExprError {
            message: format!("a template of {} bytes is over the limit of {LONGEST}", text.len()),
            range: None,
            help: Some("move long texts into prompt files (`type: file`)".to_owned()),
        });
    }
    let whole = Frame::new("", 0..0);
    let mut writer = Writer { words, out: Output::default(), frames: vec![whole], elifs: 0 };
    for (part, range) in parts(text)? {
        match part {
            Part::Text(text) => writer.out.push(text, range),
            Part::Print(open, inside, close) => {
                let start = range.start + open.len();
                writer.out.push(open, range.start..start);
                writer.out.push(" ", start..start);
                writer.expression(inside, start)?;
                writer.out.push(" ", start..start);
                writer.out.push(close, range.end - close.len()..range.end);
            }
            Part::Statement(open, inside, close) => {
                let start = range.start + open.len();
                writer.out.push(open, range.start..start);
                writer.out.push(" ", start..start);
                writer.statement(inside, start, &range)?;
                writer.out.push(" ", start..start);
                writer.out.push(close, range.end - close.len()..range.end);
            }
        }
    }
    match writer.frames.pop() {
        Some(frame) if !writer.frames.is_empty() => Err(ExprError {
            message: format!("`{{% {} %}}` is never closed", frame.word),
            range: Some(frame.start),
            help: Some(format!("end it with `{{% end{} %}}`", frame.word)),
        }),
        _ => Ok(writer.out),
    }
}

pub(super) fn shifted(mut error: ExprError, offset: usize) -> ExprError {
    error.range = error.range.map(|r| r.start + offset..r.end + offset);
    error
}

/// Names in the head of a statement: `a`, `a, b`, `(a, b)`.
fn names(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|w| !w.is_empty()).map(str::to_owned)
}

/// The place of ` = ` that gives a value, outside brackets and quotes.
fn equals(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (Some(q), b) => quote = Some(q).filter(|q| q != b),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, b'=') if depth == 0 => {
                let near = |at: Option<usize>| at.and_then(|i| bytes.get(i)).copied();
                let before = near(at.checked_sub(1));
                let is_other =
                    near(Some(at + 1)) == Some(b'=') || matches!(before, Some(b'=' | b'!' | b'<' | b'>'));
                if !is_other {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

impl Writer<'_> {
    fn binding(&self, name: &str) -> Binding {
        if self.frames.iter().any(|f| f.bound.contains(name)) {
            Binding::Bound
        } else if self.frames.iter().any(|f| f.maybe.contains(name)) {
            Binding::Maybe
        } else {
            Binding::Free
        }
    }

    fn put(&mut self, node: &Node<'_>, offset: usize) -> Result<(), ExprError> {
        let mut out = std::mem::take(&mut self.out);
        let binding = |name: &str| self.binding(name);
        let previous = self.words.previous;
        let around = Around { offset, binding: &binding, is_row: false, in_text: true, previous };
        let result = write(node, &around, &mut out);
        self.out = out;
        result
    }

    fn expression(&mut self, text: &str, offset: usize) -> Result<(), ExprError> {
        let node = self.parser(text, offset)?.whole().map_err(|e| shifted(e, offset))?;
        self.put(&node, offset)
    }

    fn parser<'a>(&self, text: &'a str, offset: usize) -> Result<Parser<'_, 'a>, ExprError> {
        Parser::new(text, self.words.names).map_err(|e| shifted(e, offset))
    }

    fn copy(&mut self, text: &str, offset: usize) {
        self.out.push(text, offset..offset + text.len());
    }

    fn top(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame::new("", 0..0));
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    fn open(&mut self, word: &str, range: &Range<usize>) -> Result<(), ExprError> {
        self.frames.push(Frame::new(word, range.clone()));
        if self.frames.len() > DEEPEST {
            return Err(Self::too_many(range));
        }
        Ok(())
    }

    fn too_many(range: &Range<usize>) -> ExprError {
        ExprError {
            message: format!("over {MOST_ELIFS} `elif`s or {DEEPEST} nested statements"),
            range: Some(range.clone()),
            help: Some("use a map and look the value up, or a `switch` step".to_owned()),
        }
    }

    fn close(&mut self, word: &str, range: &Range<usize>) -> Result<(), ExprError> {
        let wanted = word.strip_prefix("end").unwrap_or(word);
        let found = self.frames.last().map(|f| f.word.clone()).unwrap_or_default();
        if self.frames.len() > 1 && found == wanted {
            let ended = self.frames.pop();
            // What an `if` sets may be there afterwards.
            if let Some(frame) = ended.filter(|f| f.word == "if" || f.word == "filter") {
                let top = self.top();
                top.maybe.extend(frame.bound);
                top.maybe.extend(frame.maybe);
            }
            return Ok(());
        }
        let help = match found.as_str() {
            "" => format!("remove it, or begin with `{{% {wanted} … %}}`"),
            open => format!("`{{% {open} %}}` is open here: end it with `{{% end{open} %}}` first"),
        };
        Err(ExprError {
            message: format!("`{{% {word} %}}` ends nothing"),
            range: Some(range.clone()),
            help: Some(help),
        })
    }

    /// One statement. `inside` stands at `offset`.
    fn statement(&mut self, inside: &str, offset: usize, whole: &Range<usize>) -> Result<(), ExprError> {
        let lead = inside.len() - inside.trim_start().len();
        let length = inside[lead..].find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = &inside[lead..lead + length.unwrap_or(inside.len() - lead)];
        let rest = &inside[lead + word.len()..];
        let at = offset + lead + word.len();
        self.copy(word, offset + lead);
        self.copy(" ", at);
        match word {
            "if" => {
                self.expression(rest, at)?;
                self.open("if", whole)?;
            }
            "elif" => {
                self.elifs += 1;
                if self.elifs > MOST_ELIFS {
                    return Err(Self::too_many(whole));
                }
                self.expression(rest, at)?;
            }
            "else" => self.copy(rest, at),
            "for" => self.for_each(rest, at, whole)?,
            "set" => self.set(rest, at, whole)?,
            "with" => self.with(rest, at, whole)?,
            "macro" => self.macro_(rest, at, whole)?,
            "call" => self.call(rest, at, whole)?,
            "filter" | "autoescape" => {
                self.copy(rest, at);
                self.open(word, whole)?;
            }
            "do" => self.expression(rest, at)?,
            _ if BLOCKS.iter().any(|b| word.strip_prefix("end") == Some(b)) => {
                self.close(word, whole)?;
                self.copy(rest, at);
            }
            _ => return Err(unknown(word, whole)),
        }
        Ok(())
    }

    fn for_each(&mut self, rest: &str, at: usize, whole: &Range<usize>) -> Result<(), ExprError> {
        let found = rest.match_indices("in").map(|(place, _)| place).find(|place| {
            let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !is_word(rest[..*place].chars().next_back()) && !is_word(rest[place + 2..].chars().next())
        });
        let Some(place) = found else {
            return Err(ExprError {
                message: "a `for` without its `in`".to_owned(),
                range: Some(whole.clone()),
                help: Some("write `{% for item in list %}`".to_owned()),
            });
        };
        self.copy(&rest[..place + 2], at);
        self.copy(" ", at + place + 2);
        let (text, offset) = (&rest[place + 2..], at + place + 2);
        let mut parser = self.parser(text, offset)?;
        let list = parser.any_of().map_err(|e| shifted(e, offset))?;
        let has_condition = parser.eat("if");
        let condition = has_condition.then(|| parser.any_of().map_err(|e| shifted(e, offset))).transpose()?;
        let is_recursive = parser.eat("recursive");
        parser.end().map_err(|e| shifted(e, offset))?;
        self.put(&list, offset)?;
        self.open("for", whole)?;
        self.top().bound.extend(names(&rest[..place]));
        if let Some(condition) = condition {
            self.copy(" if ", offset);
            self.put(&condition, offset)?;
        }
        self.top().bound.insert("loop".to_owned());
        self.copy(if is_recursive { " recursive" } else { "" }, offset);
        Ok(())
    }

    fn set(&mut self, rest: &str, at: usize, whole: &Range<usize>) -> Result<(), ExprError> {
        let Some(place) = equals(rest) else {
            // `{% set x %}…{% endset %}`
            let name = rest.split('|').next().unwrap_or(rest);
            self.copy(rest, at);
            self.top().bound.extend(names(name));
            return self.open("set", whole);
        };
        self.copy(&rest[..=place], at);
        self.copy(" ", at + place);
        let offset = at + place + 1;
        let mut parser = self.parser(&rest[place + 1..], offset)?;
        let values = parser.list().and_then(|v| parser.end().map(|()| v)).map_err(|e| shifted(e, offset))?;
        for (index, value) in values.iter().enumerate() {
            self.copy(if index > 0 { ", " } else { "" }, offset);
            self.put(value, offset)?;
        }
        if !rest[..place].contains('.') {
            self.top().bound.extend(names(&rest[..place]));
        }
        Ok(())
    }

    fn with(&mut self, rest: &str, at: usize, whole: &Range<usize>) -> Result<(), ExprError> {
        self.open("with", whole)?;
        let (mut text, mut offset) = (rest, at);
        while let Some(place) = equals(text) {
            self.copy(&text[..=place], offset);
            self.copy(" ", offset + place);
            let from = offset + place + 1;
            let mut parser = self.parser(&text[place + 1..], from)?;
            let value = parser.choice().map_err(|e| shifted(e, from))?;
            let has_more = parser.eat(",");
            let stop = parser.position();
            if !has_more {
                parser.end().map_err(|e| shifted(e, from))?;
            }
            self.put(&value, from)?;
            self.top().bound.extend(names(&text[..place]));
            if !has_more {
                return Ok(());
            }
            self.copy(", ", from + stop);
            text = &text[place + 1 + stop..];
            offset = from + stop;
        }
        self.copy(text, offset);
        Ok(())
    }

    fn macro_(&mut self, rest: &str, at: usize, whole: &Range<usize>) -> Result<(), ExprError> {
        let open = rest.find('(').unwrap_or(rest.len());
        self.top().bound.extend(names(&rest[..open]));
        self.copy(rest, at);
        self.open("macro", whole)?;
        let own = ["varargs", "kwargs", "caller"].map(str::to_owned);
        self.top().bound.extend(names(&rest[open..]).chain(own));
        Ok(())
    }

    fn call(&mut self, rest: &str, at: usize, whole: &Range<usize>) -> Result<(), ExprError> {
        let lead = rest.len() - rest.trim_start().len();
        let close = rest.find(')').filter(|_| rest[lead..].starts_with('(')).map_or(0, |p| p + 1);
        self.copy(&rest[..close], at);
        self.copy(" ", at + close);
        self.expression(&rest[close..], at + close)?;
        self.open("call", whole)?;
        self.top().bound.extend(names(&rest[..close]));
        Ok(())
    }
}

fn unknown(word: &str, whole: &Range<usize>) -> ExprError {
    let known = BLOCKS.iter().copied().chain(["elif", "else", "do", "raw"]);
    let help = match closest(word, known) {
        _ if OTHERS.contains(&word) => {
            "a template reads no other files; use a prompt part of `type: file`".to_owned()
        }
        Some(near) => format!("did you mean `{near}`?"),
        None => "statements are: for, if, elif, else, set, with, macro, call, filter, do, raw".to_owned(),
    };
    ExprError {
        message: format!("there is no statement `{word}`"),
        range: Some(whole.clone()),
        help: Some(help),
    }
}

fn parts(text: &str) -> Result<Vec<(Part<'_>, Range<usize>)>, ExprError> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let mut braces = rest.match_indices('{').map(|(place, _)| place);
        let next = braces.find(|p| matches!(rest.as_bytes().get(p + 1), Some(b'{' | b'%' | b'#')));
        let Some((place, sign)) = next.map(|p| (p, &rest[p..p + 2])) else {
            parts.push((Part::Text(rest), at..text.len()));
            break;
        };
        if place > 0 {
            parts.push((Part::Text(&rest[..place]), at..at + place));
        }
        let start = at + place;
        let close = match sign {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        let end = end_of(&text[start + 2..], close, sign != "{#").map(|e| start + 2 + e);
        let Some(end) = end else {
            return Err(ExprError {
                message: format!("`{sign}` is never closed"),
                range: Some(start..start + 2),
                help: Some(format!(
                    "close it with `{close}`, or write `{{% raw %}}` around text that only looks like one"
                )),
            });
        };
        let whole = &text[start..end + 2];
        let (open, inside, shut) = trims(whole);
        match sign {
            "{{" => parts.push((Part::Print(open, inside, shut), start..end + 2)),
            "{#" => parts.push((Part::Text(whole), start..end + 2)),
            _ if inside.trim() == "raw" => {
                let stop = raw_end(text, end + 2);
                parts.push((Part::Text(&text[start..stop]), start..stop));
                at = stop;
                continue;
            }
            _ => parts.push((Part::Statement(open, inside, shut), start..end + 2)),
        }
        at = end + 2;
    }
    Ok(parts)
}

/// Where a tag ends, looking past quoted text.
pub(super) fn end_of(rest: &str, close: &str, is_code: bool) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    let mut braces = 0_usize;
    for (place, c) in rest.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) => quote = Some(q).filter(|q| *q != c),
            (None, '"' | '\'') if is_code => quote = Some(c),
            (None, '}') if braces > 0 => braces -= 1,
            (None, _) if rest[place..].starts_with(close) => return Some(place),
            (None, '{') if is_code => braces += 1,
            (None, _) => {}
        }
    }
    None
}

/// The end of a raw block that begins before `from`.
fn raw_end(text: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(place) = text[at..].find("{%").map(|p| at + p) {
        let Some(end) = text[place..].find("%}").map(|p| place + p + 2) else { break };
        if text[place..end].trim_matches(|c: char| "{}%-+ ".contains(c) || c.is_whitespace()) == "endraw" {
            return end;
        }
        at = place + 2;
    }
    text.len()
}

/// Splits a tag into its signs (with `-` or `+`) and its inside.
fn trims(tag: &str) -> (&str, &str, &str) {
    let is_trim = |c: Option<&u8>| matches!(c, Some(b'-' | b'+'));
    let bytes = tag.as_bytes();
    let open = if is_trim(bytes.get(2)) && tag.len() > 5 { 3 } else { 2 };
    let close = if bytes.get(tag.len() - 3) == Some(&b'-') && tag.len() - 3 >= open { 3 } else { 2 };
    (&tag[..open], &tag[open..tag.len() - close], &tag[tag.len() - close..])
}
