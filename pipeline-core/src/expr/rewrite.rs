//! Our words on top of Jinja.
//!
//! Rewrites tokens of an expression, never text inside quotes, into plain Jinja: `contains`, `matches`, `between … and …`,
//! `exists`, `empty`, `&&`, `||`, `!`, `a ? b : c`, hyphenated step names, comparisons that refuse what is not there.
//! Keeps where every piece came from, so that errors point into the text as written. Also collects what it reads.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::expr::token::{Kind, Token, tokens};
use crate::expr::{ExprError, Read};

/// Longest expression, in bytes: the compiler recurses on long chains.
const LONGEST: usize = 4096;

const KEYWORDS: [&str; 15] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "true",
    "false",
    "none",
    "null",
    "True",
    "False",
    "None",
    "recursive",
];
const TESTS: [(&str, &str); 8] = [
    ("exists", "defined"),
    ("empty", "empty"),
    ("contains", "containing"),
    ("matches", "matching"),
    ("starts_with", "starting_with"),
    ("ends_with", "ending_with"),
    ("startsWith", "starting_with"),
    ("endsWith", "ending_with"),
];
const COMPARISONS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];

/// Words of ours between values that are not simply a test.
const INFIX: [&str; 1] = ["between"];

fn test_name(token: &Token<'_>) -> Option<&'static str> {
    TESTS.iter().find(|(word, _)| token.is(word)).map(|(_, test)| *test)
}

/// Whether a value (or the `is` behind one) ends with this token, so that an infix word may follow.
fn ends_value(token: &Token<'_>) -> bool {
    match token.kind {
        Kind::Sign => matches!(token.text, ")" | "]" | "}"),
        Kind::Word => !matches!(token.text, "if" | "else" | "in" | "and" | "or"),
        Kind::Number | Kind::Text => true,
    }
}

/// Rewritten text with the origin of each piece.
#[derive(Debug, Clone, Default)]
pub(super) struct Output {
    pub(super) text: String,
    pieces: Vec<(usize, Range<usize>)>,
    pub(super) reads: Vec<Read>,
}

impl Output {
    /// Appends text made of `from` in the original.
    pub(super) fn push(&mut self, text: &str, from: Range<usize>) {
        self.pieces.push((self.text.len(), from));
        self.text.push_str(text);
    }

    /// Where a range of the rewritten text came from.
    pub(super) fn origin(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let piece = |at: usize| {
            let place = self.pieces.partition_point(|(start, _)| *start <= at).checked_sub(1)?;
            self.pieces.get(place)
        };
        let first = piece(range.start)?;
        let last = piece(range.end.saturating_sub(1).max(range.start))?;
        let start = (first.1.start + (range.start - first.0)).min(first.1.end);
        let end = last.1.end.min(last.1.start + (range.end.saturating_sub(last.0)).max(1));
        Some(start.min(last.1.end)..end.max(start))
    }
}

/// Rewrites one expression. `offset` is where it stands in the text that errors point into; `bound` are names that Jinja
/// itself binds.
pub(super) fn expression(
    text: &str,
    offset: usize,
    words: &[&str],
    bound: &BTreeSet<String>,
    out: &mut Output,
) -> Result<(), ExprError> {
    if text.len() > LONGEST {
        return Err(ExprError {
            message: format!("an expression of {} bytes is over the limit of {LONGEST}", text.len()),
            range: Some(offset..offset + text.len()),
            help: Some("compute parts of it in `set_variable` steps".to_owned()),
        });
    }
    let found = tokens(text).map_err(|e| shifted(e, offset))?;
    let mut rewriter = Rewriter { text, offset, words, bound, out };
    rewriter.any(&found)
}

pub(super) fn shifted(mut error: ExprError, offset: usize) -> ExprError {
    error.range = error.range.map(|r| r.start + offset..r.end + offset);
    error
}

struct Rewriter<'a, 'o> {
    text: &'a str,
    offset: usize,
    words: &'a [&'a str],
    bound: &'a BTreeSet<String>,
    out: &'o mut Output,
}

type Slice<'t, 'a> = &'t [Token<'a>];

/// Position of the first token at depth 0 that fits.
fn find(tokens: Slice<'_, '_>, fits: impl Fn(usize, &Token<'_>) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate() {
        if token.kind == Kind::Sign {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.saturating_sub(1);
                    continue;
                }
                _ => {}
            }
        }
        if depth == 0 && fits(place, token) {
            return Some(place);
        }
    }
    None
}

/// Position of the bracket that closes the one at `open`.
fn closing(tokens: Slice<'_, '_>, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        if token.kind == Kind::Sign {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(place);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

/// End of the path that starts at `start`: `a.b['c'][0].d`.
fn path_end(tokens: Slice<'_, '_>, start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match tokens.get(at) {
            Some(t) if t.is(".") && tokens.get(at + 1).is_some_and(|n| n.kind != Kind::Sign) => at += 2,
            Some(t) if t.is("[") => match closing(tokens, at) {
                Some(end) => at = end + 1,
                None => return at,
            },
            _ => return at,
        }
    }
}

/// End of the one value that starts at `start`, with its sign, path, brackets and call.
fn unit_end(tokens: Slice<'_, '_>, start: usize) -> usize {
    let mut at = start;
    while tokens.get(at).is_some_and(|t| t.is("-") || t.is("+")) {
        at += 1;
    }
    let opens = |at: usize| tokens.get(at).is_some_and(|t| t.is("(") || t.is("[") || t.is("{"));
    at = if opens(at) { closing(tokens, at).map_or(tokens.len(), |end| end + 1) } else { at + 1 };
    while at < tokens.len() {
        at = match tokens[at].text {
            "(" | "[" if tokens[at].kind == Kind::Sign => {
                closing(tokens, at).map_or(tokens.len(), |end| end + 1)
            }
            "." => at + 2,
            _ => break,
        };
    }
    at.min(tokens.len())
}

/// Whether what follows position `at` copes with absence.
fn is_guard(tokens: Slice<'_, '_>, at: usize) -> bool {
    let word = |i: usize| tokens.get(at + i).map_or("", |t| t.text);
    match word(0) {
        "exists" | "empty" => true,
        "not" => matches!(word(1), "exists" | "empty"),
        "|" => matches!(word(1), "default" | "d"),
        "is" => {
            let test = if word(1) == "not" { word(2) } else { word(1) };
            matches!(test, "defined" | "undefined" | "empty" | "exists")
        }
        _ => false,
    }
}

impl Rewriter<'_, '_> {
    fn error<T>(&self, token: &Token<'_>, message: &str, help: &str) -> Result<T, ExprError> {
        let range = token.range();
        Err(ExprError {
            message: message.to_owned(),
            range: Some(range.start + self.offset..range.end + self.offset),
            help: Some(help.to_owned()),
        })
    }

    fn range(&self, tokens: Slice<'_, '_>) -> Range<usize> {
        match (tokens.first(), tokens.last()) {
            (Some(first), Some(last)) => self.offset + first.start..self.offset + last.range().end,
            _ => self.offset..self.offset,
        }
    }

    /// Adds made text; errors in it point at `near`.
    fn made(&mut self, text: &str, near: Slice<'_, '_>) {
        let range = self.range(near);
        self.out.push(text, range);
    }

    fn copy(&mut self, token: &Token<'_>) {
        let range = token.range();
        self.out.push(token.text, range.start + self.offset..range.end + self.offset);
    }

    /// An expression: a ternary, an inline if, or an `or` chain.
    fn any(&mut self, tokens: Slice<'_, '_>) -> Result<(), ExprError> {
        if let Some(comma) = find(tokens, |_, t| t.is(",")) {
            self.any(&tokens[..comma])?;
            self.made(", ", &tokens[comma..=comma]);
            return self.any(&tokens[comma + 1..]);
        }
        if let Some(question) = find(tokens, |_, t| t.is("?")) {
            return self.ternary(tokens, question);
        }
        let inline = find(tokens, |_, t| t.is("if"));
        if let Some(place) = inline.filter(|p| *p > 0) {
            let rest = &tokens[place + 1..];
            let other = find(rest, |_, t| t.is("else"));
            self.any(&tokens[..place])?;
            self.made(" if ", &tokens[place..=place]);
            self.any(&rest[..other.unwrap_or(rest.len())])?;
            if let Some(other) = other {
                self.made(" else ", &rest[other..=other]);
                self.any(&rest[other + 1..])?;
            }
            return Ok(());
        }
        self.chain(tokens, &["or", "||"], " or ")
    }

    fn ternary(&mut self, tokens: Slice<'_, '_>, question: usize) -> Result<(), ExprError> {
        let rest = &tokens[question + 1..];
        let mut nested = 0;
        let mut colon = None;
        let mut from = 0;
        while let Some(place) = find(&rest[from..], |_, t| t.is("?") || t.is(":")).map(|p| p + from) {
            if rest[place].is("?") {
                nested += 1;
            } else if nested == 0 {
                colon = Some(place);
                break;
            } else {
                nested -= 1;
            }
            from = place + 1;
        }
        let Some(colon) = colon else {
            return self.error(
                &tokens[question],
                "a `?` without its `:`",
                "write `condition ? then : otherwise`",
            );
        };
        self.made("((", &rest[..colon]);
        self.any(&rest[..colon])?;
        self.made(") if (", &tokens[question..=question]);
        self.any(&tokens[..question])?;
        self.made(") else (", &rest[colon..=colon]);
        self.any(&rest[colon + 1..])?;
        self.made("))", &rest[colon..=colon]);
        Ok(())
    }

    /// `or` or `and`, at the top of a slice.
    fn chain(&mut self, tokens: Slice<'_, '_>, signs: &[&str], written: &str) -> Result<(), ExprError> {
        let is_and = written == " and ";
        let mut open_betweens = 0;
        let mut from = 0;
        let mut parts = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let Some(place) = find(&tokens[at..], |_, t| t.is("between") || signs.iter().any(|s| t.is(s)))
            else {
                break;
            };
            let place = at + place;
            if tokens[place].is("between") {
                open_betweens += usize::from(is_and);
            } else if is_and && open_betweens > 0 && tokens[place].is("and") {
                open_betweens -= 1;
            } else {
                parts.push((from, place));
                from = place + 1;
            }
            at = place + 1;
            // `find` starts at depth 0 again: only brackets before the place count, and they are closed there.
        }
        for (start, end) in parts {
            self.part(&tokens[start..end], is_and)?;
            self.made(written, &tokens[end..=end]);
        }
        self.part(&tokens[from..], is_and)
    }

    fn part(&mut self, tokens: Slice<'_, '_>, is_and: bool) -> Result<(), ExprError> {
        if !is_and {
            return self.chain(tokens, &["and", "&&"], " and ");
        }
        match tokens.first() {
            Some(first) if first.is("not") || first.is("!") => {
                self.made("not ", &tokens[..1]);
                self.part(&tokens[1..], true)
            }
            _ => self.comparison(tokens),
        }
    }

    fn comparison(&mut self, tokens: Slice<'_, '_>) -> Result<(), ExprError> {
        let place = find(tokens, |_, t| t.kind == Kind::Sign && COMPARISONS.contains(&t.text));
        let Some(place) = place else { return self.operand(tokens) };
        let (left, sign, right) = (&tokens[..place], &tokens[place], &tokens[place + 1..]);
        if left.is_empty() || right.is_empty() {
            return self.error(
                sign,
                &format!("`{}` needs a value on both sides", sign.text),
                "add what to compare with",
            );
        }
        if let Some(second) = find(right, |_, t| t.kind == Kind::Sign && COMPARISONS.contains(&t.text)) {
            let help = "write `a < b and b < c`, or `b between a and c`";
            return self.error(&right[second], "comparisons cannot be chained", help);
        }
        let quote = |slice: Slice<'_, '_>| {
            let range = slice.first().map_or(0, |t| t.start)..slice.last().map_or(0, |t| t.range().end);
            let text = self.text[range].replace('\\', "\\\\").replace('\'', "\\'");
            format!("'{text}'")
        };
        let (left_text, right_text) = (quote(left), quote(right));
        self.made("_cmp(", tokens);
        self.made(&format!("'{}', ", sign.text), &tokens[place..=place]);
        self.operand(left)?;
        self.made(", ", &tokens[place..=place]);
        self.operand(right)?;
        self.made(&format!(", [{left_text}, {right_text}])"), tokens);
        Ok(())
    }

    /// What stands between comparisons: paths, calls, arithmetic, filters, tests.
    fn operand(&mut self, tokens: Slice<'_, '_>) -> Result<(), ExprError> {
        let mut at = 0;
        while at < tokens.len() {
            let token = &tokens[at];
            if at > 0 {
                let gap = tokens[at - 1].range().end < token.start || is_word_pair(&tokens[at - 1], token);
                if gap {
                    self.made(" ", &tokens[at..=at]);
                }
            }
            at = match token.kind {
                Kind::Word => self.word(tokens, at)?,
                Kind::Sign => self.sign(tokens, at)?,
                Kind::Number | Kind::Text => {
                    self.copy(token);
                    at + 1
                }
            };
        }
        Ok(())
    }

    fn sign(&mut self, tokens: Slice<'_, '_>, at: usize) -> Result<usize, ExprError> {
        let token = &tokens[at];
        match token.text {
            "(" | "[" | "{" => {
                let Some(end) = closing(tokens, at) else {
                    return self.error(token, &format!("`{}` is never closed", token.text), "close it");
                };
                self.copy(token);
                self.group(&tokens[at + 1..end], token.text)?;
                self.copy(&tokens[end]);
                Ok(end + 1)
            }
            ")" | "]" | "}" => {
                self.error(token, &format!("`{}` closes nothing", token.text), "remove it, or open it before")
            }
            "===" | "!==" => {
                self.error(token, &format!("`{}` is not an operator here", token.text), "write `==` or `!=`")
            }
            "=" if find(tokens, |_, t| t.is("=")) == Some(at) => {
                self.error(token, "`=` does not compare", "write `==` to compare")
            }
            "!" => {
                self.made("not ", &tokens[at..=at]);
                Ok(at + 1)
            }
            "/" | "//" | "%" => {
                let end = unit_end(tokens, at + 1);
                self.copy(token);
                self.made(" _divisor(", &tokens[at..=at]);
                self.operand(&tokens[at + 1..end])?;
                self.made(")", &tokens[at..=at]);
                Ok(end)
            }
            "$" | "@" | "#" | ";" | "`" | "&" | "^" | "\\" => self.error(
                token,
                &format!("`{}` has no meaning in an expression", token.text),
                "see the expression reference",
            ),
            _ => {
                self.copy(token);
                Ok(at + 1)
            }
        }
    }

    /// The inside of brackets: arguments, items, entries.
    fn group(&mut self, tokens: Slice<'_, '_>, open: &str) -> Result<(), ExprError> {
        let mut from = 0;
        loop {
            let comma = find(&tokens[from..], |_, t| t.is(",")).map(|p| p + from);
            let part = &tokens[from..comma.unwrap_or(tokens.len())];
            let is_named = open == "(" && part.len() > 2 && part[0].kind == Kind::Word && part[1].is("=");
            if is_named {
                self.copy(&part[0]);
                self.copy(&part[1]);
                self.any(&part[2..])?;
            } else if open != "("
                && find(part, |_, t| t.is("?")).is_none()
                && let Some(colon) = find(part, |_, t| t.is(":"))
            {
                self.any(&part[..colon])?;
                self.copy(&part[colon]);
                self.any(&part[colon + 1..])?;
            } else if !part.is_empty() {
                self.any(part)?;
            }
            let Some(comma) = comma else { return Ok(()) };
            self.made(", ", &tokens[comma..=comma]);
            from = comma + 1;
        }
    }

    fn word(&mut self, tokens: Slice<'_, '_>, at: usize) -> Result<usize, ExprError> {
        let token = &tokens[at];
        let before = at.checked_sub(1).map(|b| &tokens[b]);
        let is_field = before.is_some_and(|b| b.is("."));
        if let Some(before) = before.filter(|_| !is_field)
            && let Some(end) = self.infix(tokens, at, before)?
        {
            return Ok(end);
        }
        if token.is("null") && !is_field {
            self.made("none", &tokens[at..=at]);
            return Ok(at + 1);
        }
        if is_field || KEYWORDS.contains(&token.text) {
            self.copy(token);
            return Ok(at + 1);
        }
        let is_name_of_filter = before.is_some_and(|b| b.is("|") || b.is("is"))
            || before.is_some_and(|b| b.is("not") && at > 1 && tokens[at - 2].is("is"));
        if is_name_of_filter {
            self.copy(token);
            return Ok(at + 1);
        }
        if tokens.get(at + 1).is_some_and(|t| t.is("(")) {
            return self.call(tokens, at);
        }
        self.reference(tokens, at)
    }

    /// Our words between or behind values; `None` when the word at `at` is not one of them there.
    fn infix(
        &mut self,
        tokens: Slice<'_, '_>,
        at: usize,
        before: &Token<'_>,
    ) -> Result<Option<usize>, ExprError> {
        let token = &tokens[at];
        let is_infix =
            |t: &Token<'_>| t.kind == Kind::Word && (INFIX.contains(&t.text) || test_name(t).is_some());
        if !ends_value(before) {
            return Ok(None);
        }
        if token.is("not") && tokens.get(at + 1).is_some_and(is_infix) {
            self.made("is not", &tokens[at..=at]);
            return Ok(Some(at + 1));
        }
        // `is empty`, `is not empty`: the `is` stands there already.
        let is = if before.is("is") || before.is("not") { "" } else { "is " };
        if let Some(test) = test_name(token) {
            self.made(&format!("{is}{test}"), &tokens[at..=at]);
            return Ok(Some(at + 1));
        }
        if token.is("between") {
            return self.between(tokens, at, is).map(Some);
        }
        Ok(None)
    }

    fn call(&mut self, tokens: Slice<'_, '_>, at: usize) -> Result<usize, ExprError> {
        let token = &tokens[at];
        let test = match token.text {
            "exists" => "defined",
            "empty" | "isEmpty" => "empty",
            _ => {
                self.copy(token);
                return Ok(at + 1);
            }
        };
        let Some(end) = closing(tokens, at + 1) else { return self.sign(tokens, at + 1) };
        let inside = &tokens[at + 2..end];
        self.made("((", &tokens[at..=at]);
        if inside.first().is_some_and(|t| t.kind == Kind::Word) && path_end(inside, 0) == inside.len() {
            self.path(inside, 0, inside.len(), true)?;
        } else {
            self.any(inside)?;
        }
        self.made(&format!(") is {test})"), &tokens[at..=at]);
        Ok(end + 1)
    }

    /// `x between a and b`: the word and its two bounds.
    fn between(&mut self, tokens: Slice<'_, '_>, at: usize, is: &str) -> Result<usize, ExprError> {
        let rest = &tokens[at + 1..];
        let Some(and) = find(rest, |_, t| t.is("and") || t.is("&&")) else {
            return self.error(&tokens[at], "`between` without its `and`", "write `x between 1 and 10`");
        };
        self.made(&format!("{is}between(("), &tokens[at..=at]);
        self.any(&rest[..and])?;
        self.made("), (", &rest[and..=and]);
        self.any(&rest[and + 1..])?;
        self.made("))", &tokens[at..=at]);
        Ok(tokens.len())
    }

    /// A name and the path behind it.
    fn reference(&mut self, tokens: Slice<'_, '_>, at: usize) -> Result<usize, ExprError> {
        if let Some((name, end)) = self.hyphenated(tokens, at) {
            let after = path_end_from(tokens, end);
            self.read("steps", Some(name.clone()), &tokens[at..end], is_guard(tokens, after));
            self.made(&format!("steps['{name}']"), &tokens[at..end]);
            return Ok(end);
        }
        let end = path_end(tokens, at);
        self.path(tokens, at, end, is_guard(tokens, end))?;
        Ok(self.path_stop(tokens, at, end))
    }

    /// Where the rewriter goes on after a path that it wrote as a whole or in part.
    fn path_stop(&self, tokens: Slice<'_, '_>, at: usize, end: usize) -> usize {
        match self.hyphenated(tokens, at + 2) {
            Some((_, stop)) if tokens[at].is("steps") && tokens.get(at + 1).is_some_and(|t| t.is(".")) => {
                stop.max(end)
            }
            _ => end,
        }
    }

    fn path(&mut self, tokens: Slice<'_, '_>, at: usize, end: usize, guarded: bool) -> Result<(), ExprError> {
        let root = tokens[at].text;
        let is_bound = self.bound.contains(root);
        // `steps.my-step.x`: the words after the dot are one name.
        if root == "steps"
            && tokens.get(at + 1).is_some_and(|t| t.is("."))
            && let Some((name, stop)) = self.hyphenated(tokens, at + 2)
        {
            self.read(
                "steps",
                Some(name.clone()),
                &tokens[at..stop],
                is_guard(tokens, path_end_from(tokens, stop)),
            );
            self.made(&format!("steps['{name}']"), &tokens[at..stop]);
            return Ok(());
        }
        let field = match (tokens.get(at + 1), tokens.get(at + 2), tokens.get(at + 3)) {
            (Some(dot), Some(name), _) if dot.is(".") && at + 2 < end => Some(name.text.to_owned()),
            (Some(open), Some(name), Some(close)) if open.is("[") && close.is("]") && at + 3 < end => {
                name.unquoted().map(str::to_owned)
            }
            _ => None,
        };
        if !is_bound {
            self.read(root, field.clone(), &tokens[at..end.min(at + 4)], guarded);
        }
        if guarded {
            return self.optional_path(tokens, at, end);
        }
        // `steps.x.result` is the primary value, whatever kind of value the step has.
        let first = if tokens.get(at + 1).is_some_and(|t| t.is("[")) { at + 4 } else { at + 3 };
        let is_primary = root == "steps"
            && field.is_some()
            && tokens.get(first).is_some_and(|t| t.is("."))
            && tokens.get(first + 1).is_some_and(|t| t.is("result"));
        if is_primary && first + 1 < end {
            self.made("_primary(", &tokens[at..=at]);
            tokens[at..first].iter().for_each(|t| self.copy(t));
            self.made(")", &tokens[first..first + 2]);
            return self.rest_of_path(tokens, first + 2, end);
        }
        self.copy(&tokens[at]);
        self.rest_of_path(tokens, at + 1, end)
    }

    fn rest_of_path(&mut self, tokens: Slice<'_, '_>, from: usize, end: usize) -> Result<(), ExprError> {
        let mut at = from;
        while at < end {
            if tokens[at].is("[") {
                let close = closing(tokens, at).unwrap_or(end);
                self.copy(&tokens[at]);
                self.group(&tokens[at + 1..close], "[")?;
                self.copy(&tokens[close]);
                at = close + 1;
            } else {
                self.copy(&tokens[at]);
                at += 1;
            }
        }
        Ok(())
    }

    /// A path that copes with absence anywhere in it.
    fn optional_path(&mut self, tokens: Slice<'_, '_>, at: usize, end: usize) -> Result<(), ExprError> {
        self.made("_opt(", &tokens[at..=at]);
        self.copy(&tokens[at]);
        let mut place = at + 1;
        while place < end {
            self.made(", ", &tokens[place..=place]);
            if tokens[place].is("[") {
                let close = closing(tokens, place).unwrap_or(end);
                self.any(&tokens[place + 1..close])?;
                place = close + 1;
            } else {
                let name = &tokens[place + 1];
                if name.kind == Kind::Number {
                    self.copy(name);
                } else {
                    self.made(&format!("'{}'", name.text), &tokens[place + 1..place + 2]);
                }
                place += 2;
            }
        }
        self.made(")", &tokens[at..=at]);
        Ok(())
    }

    fn read(&mut self, root: &str, field: Option<String>, tokens: Slice<'_, '_>, optional: bool) {
        let range = self.range(tokens);
        self.out.reads.push(Read { root: root.to_owned(), field, optional, range });
    }

    /// A known name with hyphens that starts at `at`, written without spaces.
    fn hyphenated(&self, tokens: Slice<'_, '_>, at: usize) -> Option<(String, usize)> {
        let mut end = at + 1;
        let mut best = None;
        while let (Some(hyphen), Some(next)) = (tokens.get(end), tokens.get(end + 1)) {
            let joins = hyphen.is("-")
                && next.kind != Kind::Text
                && tokens[end - 1].range().end == hyphen.start
                && hyphen.range().end == next.start;
            if !joins {
                break;
            }
            end += 2;
            let name = &self.text[tokens[at].start..tokens[end - 1].range().end];
            if self.words.contains(&name) {
                best = Some((name.to_owned(), end));
            }
        }
        best
    }
}

fn path_end_from(tokens: Slice<'_, '_>, end: usize) -> usize {
    path_end(tokens, end.saturating_sub(1))
}

fn is_word_pair(before: &Token<'_>, token: &Token<'_>) -> bool {
    before.kind != Kind::Sign && token.kind != Kind::Sign
}

/// The expression that a legacy reference means, if the text is one: `previous_response:step.path`,
/// `previous_response:step:path`, `step:path`. `known` says whether a name is a step or an output field.
pub fn rewrite_legacy(text: &str, known: impl Fn(&str) -> bool) -> Option<String> {
    let text = text.trim();
    let is_path = |t: &str| {
        !t.is_empty()
            && t.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']' | ':' | '*'))
    };
    let rest = match text.strip_prefix("previous_response:") {
        Some(rest) => rest,
        None if text.split_once(':').is_some_and(|(name, _)| known(name)) => text,
        None => return None,
    };
    if !is_path(rest) {
        return None;
    }
    let dotted = rest.replace(':', ".");
    let (name, path) = dotted.split_once('.').map_or((dotted.as_str(), None), |(n, p)| (n, Some(p)));
    let step = format!("steps['{name}']");
    Some(path.map_or_else(|| format!("{step}.result"), |path| format!("{step}.{path}")))
}
