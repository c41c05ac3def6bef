//! Words and signs of an expression, with their places.

use std::ops::Range;

use crate::expr::ExprError;

/// What kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Number,
    Text,
    Sign,
}

/// One token of the text as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(super) fn is(&self, text: &str) -> bool {
        self.text == text && self.kind != Kind::Text
    }

    /// What a quoted text means. An escape that is none stays as it is: `'\d'` is a regular expression.
    pub(super) fn unquoted(&self) -> String {
        let inside = &self.text[1..self.text.len() - 1];
        let mut out = String::with_capacity(inside.len());
        let mut rest = inside;
        while let Some(place) = rest.find('\\') {
            out.push_str(&rest[..place]);
            let after = &rest[place + 1..];
            let coded = |digits: &str| char::from_u32(u32::from_str_radix(digits, 16).ok()?);
            let (meant, length) = match after.chars().next() {
                Some('n') => (Some('\n'), 1),
                Some('t') => (Some('\t'), 1),
                Some('r') => (Some('\r'), 1),
                Some(same @ ('\\' | '\'' | '"' | '/')) => (Some(same), 1),
                Some('u') => (after.get(1..5).and_then(coded), 5),
                _ => (None, 0),
            };
            out.push(meant.unwrap_or('\\'));
            rest = if meant.is_some() { &after[length..] } else { after };
        }
        out + rest
    }
}

const SIGNS: [&str; 11] = ["===", "!==", "==", "!=", "<=", ">=", "&&", "||", "//", "**", "=>"];

/// Splits a text into tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, ExprError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (kind, length) = if first.is_alphabetic() || first == '_' {
            (Kind::Word, rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()))
        } else if first.is_ascii_digit() {
            (Kind::Number, number(rest))
        } else if first == '"' || first == '\'' {
            (Kind::Text, quoted(rest, first, at)?)
        } else if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            (Kind::Sign, sign.len())
        } else {
            (Kind::Sign, first.len_utf8())
        };
        found.push(Token { kind, text: &rest[..length], start: at });
        at += length;
    }
    Ok(found)
}

fn number(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        let is_part = match bytes[end] {
            b'0'..=b'9' | b'_' => true,
            b'.' => bytes.get(end + 1).is_some_and(u8::is_ascii_digit) && !rest[..end].contains('.'),
            b'e' | b'E' => {
                let digit = |at: usize| bytes.get(end + at).is_some_and(u8::is_ascii_digit);
                let signed = matches!(bytes.get(end + 1), Some(b'-' | b'+'));
                !rest[..end].contains(['e', 'E']) && (digit(1) || signed && digit(2))
            }
            b'-' | b'+' => matches!(bytes[end - 1], b'e' | b'E'),
            _ => false,
        };
        if !is_part {
            break;
        }
        end += 1;
    }
    end
}

fn quoted(rest: &str, quote: char, at: usize) -> Result<usize, ExprError> {
    let mut escaped = false;
    for (place, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Ok(place + 1),
            _ => {}
        }
    }
    Err(ExprError {
        message: "a text without its closing quote".to_owned(),
        range: Some(at..at + 1),
        help: Some(format!("end it with {quote}")),
    })
}
