//! Sentences and things named in a text.
//!
//! Owns the rules by which a sentence ends, what counts as a recommendation, and what as an entity. They are simple on
//! purpose: they must give the same result everywhere, and say what they do.

use regex::Regex;
use serde::Serialize;

use super::markdown::Document;

/// Something that a text names.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entity {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
}

/// Kinds of entities, by what they look like. The first that matches a place has it.
const ENTITIES: [(&str, &str); 7] = [
    ("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    (
        "date",
        r"\b\d{4}-\d{2}-\d{2}\b|\b(?:\d{1,2} )?(?:January|February|March|April|May|June|July|August|September|October|November|December)(?: \d{1,2},)? \d{4}\b",
    ),
    ("money", r"[$€£]\s?\d[\d,]*(?:\.\d+)?(?:\s?(?:thousand|million|billion)\b)?"),
    ("percent", r"\b\d+(?:\.\d+)?\s?%"),
    ("version", r"\bv?\d+\.\d+\.\d+(?:[-+][\w.]+)?\b"),
    ("identifier", r"`[^`\n]+`"),
    ("name", r"\b\p{Lu}[\p{L}'’-]+(?: (?:van|von|de|der|of) \p{Lu}[\p{L}'’-]+| \p{Lu}[\p{L}'’-]+)+\b"),
];

/// Words that recommend.
const RECOMMENDS: &str = r"(?i)\b(?:recommend|suggest|advis|should\b|ought\b)\w*";

#[expect(clippy::expect_used, reason = "the patterns are constants; the tests compile every one")]
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

/// Whole sentences from the beginning, at most `sentences`, within `most` characters. A first sentence that is longer is cut
/// at a word.
pub(in crate::prompt) fn summary(paragraphs: &[String], sentences: usize, most: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    for sentence in paragraphs.iter().flat_map(|p| split(p)).take(sentences) {
        let added = sentence.chars().count() + usize::from(!out.is_empty());
        if length + added > most {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(sentence);
        length += added;
    }
    match paragraphs.first().and_then(|p| split(p).into_iter().next()) {
        Some(first) if out.is_empty() => cut(first, most),
        _ => out,
    }
}

/// At most `most` characters, ended at a word and marked.
fn cut(text: &str, most: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(most.saturating_sub(1)) else { return text.to_owned() };
    let head = &text[..end];
    let head = head.rsplit_once(' ').map_or(head, |(words, _)| words);
    format!("{}…", head.trim_end())
}

/// The sentences of a paragraph.
fn split(paragraph: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut start = 0;
    let mut chars = paragraph.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let is_end = matches!(c, '.' | '!' | '?' | '…')
            && chars.peek().is_none_or(|(_, next)| next.is_whitespace())
            // `e.g. this` goes on; a new sentence begins with a capital, a digit or a quote.
            && paragraph[at + c.len_utf8()..].trim_start().chars().next().is_none_or(|next| !next.is_lowercase());
        if is_end {
            let end = at + c.len_utf8();
            all.push(paragraph[start..end].trim());
            start = end;
        }
    }
    all.push(paragraph[start..].trim());
    all.retain(|s| !s.is_empty());
    all
}

/// Sentences that recommend something, and points under a heading that does, each once.
pub(super) fn recommendations(document: &Document<'_>) -> Vec<String> {
    let recommends = pattern(RECOMMENDS);
    let prose = document.prose();
    let sentences = prose.iter().flat_map(|p| split(p)).filter(|s| recommends.is_match(s));
    let points = document.points_under(|heading| recommends.is_match(heading));
    let mut all: Vec<String> = Vec::new();
    for one in sentences.chain(points) {
        if !all.iter().any(|known| known == one) {
            all.push(one.to_owned());
        }
    }
    all
}

/// What the text names outside of code, each once, kind by kind.
pub(super) fn entities(document: &Document<'_>) -> Vec<Entity> {
    let prose = document.prose().join("\n");
    let mut all: Vec<Entity> = Vec::new();
    let mut taken: Vec<std::ops::Range<usize>> = Vec::new();
    for (kind, text) in ENTITIES {
        for found in pattern(text).find_iter(&prose) {
            let is_free = taken.iter().all(|t| found.start() >= t.end || found.end() <= t.start);
            let text = found.as_str().trim_matches('`').trim();
            if is_free {
                taken.push(found.range());
                if !text.is_empty() && !all.iter().any(|e| e.kind == kind && e.text == text) {
                    all.push(Entity { kind, text: text.to_owned() });
                }
            }
        }
    }
    all
}
