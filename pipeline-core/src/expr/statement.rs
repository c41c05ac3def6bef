//! The parts of a template: text, `{{ … }}`, `{% … %}`, `{# … #}`.
//!
//! Finds the expressions in them and has each rewritten; names that Jinja itself binds (`for`, `set`, macro arguments) are
//! not reads.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::expr::ExprError;
use crate::expr::rewrite::{Output, expression, shifted};
use crate::expr::token::{Kind, Token, tokens};

/// Longest template, in bytes.
const LONGEST: usize = 64 << 10;

/// Most branches of all `{% if %}` together.
const MOST_ELIFS: usize = 200;

/// Most statements nested in each other.
const DEEPEST: usize = 64;

enum Part<'a> {
    /// Copied as it is.
    Text(&'a str),
    /// Opening sign, inside, closing sign.
    Print(&'a str, &'a str, &'a str),
    Statement(&'a str, &'a str, &'a str),
}

/// Rewrites a template to plain Jinja.
pub(super) fn template(text: &str, words: &[&str]) -> Result<Output, ExprError> {
    if text.len() > LONGEST {
        return Err(ExprError {
            message: format!("a template of {} bytes is over the limit of {LONGEST}", text.len()),
            range: None,
            help: Some("move long texts into prompt files (`type: file`)".to_owned()),
        });
    }
    let parts = parts(text)?;
    let mut bound = BTreeSet::new();
    for (part, _) in &parts {
        if let Part::Statement(_, inside, _) = part {
            bound.extend(bindings(inside));
        }
    }
    let mut out = Output::default();
    let (mut elifs, mut depth, mut loops) = (0, 0_usize, 0_usize);
    for (part, range) in parts {
        match part {
            Part::Text(text) => out.push(text, range),
            Part::Print(open, inside, close) => {
                let start = range.start + open.len();
                out.push(open, range.start..start);
                let bound = within(&bound, loops);
                expression(inside, start, words, &bound, &mut out)?;
                out.push(" ", start..start);
                out.push(close, range.end - close.len()..range.end);
            }
            Part::Statement(open, inside, close) => {
                let start = range.start + open.len();
                let word = inside.split_whitespace().next().unwrap_or("");
                elifs += usize::from(word == "elif");
                match word {
                    "for" | "if" | "macro" | "filter" | "with" => depth += 1,
                    w if w.starts_with("end") => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if elifs > MOST_ELIFS || depth > DEEPEST {
                    return Err(ExprError {
                        message: format!("over {MOST_ELIFS} `elif`s or {DEEPEST} nested statements"),
                        range: Some(range),
                        help: Some("use a map and look the value up, or a `switch` step".to_owned()),
                    });
                }
                if word == "endfor" {
                    loops = loops.saturating_sub(1);
                }
                out.push(open, range.start..start);
                let names = within(&bound, loops);
                statement(inside, start, words, &names, &mut out)?;
                out.push(close, range.end - close.len()..range.end);
                loops += usize::from(word == "for");
            }
        }
    }
    Ok(out)
}

/// Inside a `{% for %}`, `loop` is Jinja's.
fn within(bound: &BTreeSet<String>, loops: usize) -> BTreeSet<String> {
    let mut bound = bound.clone();
    if loops > 0 {
        bound.insert("loop".to_owned());
    }
    bound
}

fn parts(text: &str) -> Result<Vec<(Part<'_>, Range<usize>)>, ExprError> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let next = ["{{", "{%", "{#"].iter().filter_map(|s| rest.find(s).map(|p| (p, *s))).min();
        let Some((place, sign)) = next else {
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
fn end_of(rest: &str, close: &str, has_quotes: bool) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (place, c) in rest.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (None, '"' | '\'') if has_quotes => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, _) if rest[place..].starts_with(close) => return Some(place),
            _ => {}
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

/// Names that a statement binds.
fn bindings(inside: &str) -> Vec<String> {
    let Ok(found) = tokens(inside) else { return Vec::new() };
    let words = |slice: &[Token<'_>]| -> Vec<String> {
        slice.iter().filter(|t| t.kind == Kind::Word).map(|t| t.text.to_owned()).collect()
    };
    match found.first().map_or("", |t| t.text) {
        "for" => {
            let end = found.iter().position(|t| t.is("in")).unwrap_or(found.len());
            words(&found[1..end.max(1)])
        }
        "set" | "with" => {
            let end = found.iter().position(|t| t.is("=")).unwrap_or(found.len());
            words(&found[1..end.max(1)])
        }
        "macro" | "call" => words(&found[1..]),
        _ => Vec::new(),
    }
}

/// Rewrites the expression of a statement; what is no expression is copied.
fn statement(
    inside: &str,
    start: usize,
    words: &[&str],
    bound: &BTreeSet<String>,
    out: &mut Output,
) -> Result<(), ExprError> {
    let found = tokens(inside).map_err(|e| shifted(e, start))?;
    let expression_from = match found.first().map_or("", |t| t.text) {
        "if" | "elif" => found.first().map(|t| t.range().end),
        "for" => found.iter().find(|t| t.is("in")).map(|t| t.range().end),
        "set" | "with" => found.iter().find(|t| t.is("=")).map(|t| t.range().end),
        _ => None,
    };
    let Some(from) = expression_from else {
        out.push(inside, start..start + inside.len());
        return Ok(());
    };
    out.push(&inside[..from], start..start + from);
    out.push(" ", start + from..start + from);
    expression(&inside[from..], start + from, words, bound, out)?;
    out.push(" ", start + inside.len()..start + inside.len());
    Ok(())
}
