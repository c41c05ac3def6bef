//! The structure of a Markdown text, line by line.
//!
//! Owns [`Document`]: what is code, what is a heading, what is an item of a list. Must not know what is done with it.

use regex::Regex;
use serde::Serialize;

/// A text whose lines are known.
pub(super) struct Document<'t> {
    lines: Vec<(Kind, &'t str)>,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first line of a fence; its language is what stands behind the marks.
    Open,
    Code,
    Close,
    /// A heading, with its level.
    Heading(usize),
    /// An item of a list; its text begins at this byte.
    Item(usize),
    Blank,
    Plain,
}

/// A piece of code.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct CodeBlock<'t> {
    language: Option<&'t str>,
    code: String,
}

/// A heading and what stands under it, up to the next one.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Section<'t> {
    level: usize,
    heading: Option<&'t str>,
    text: String,
}

/// An address.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Link {
    url: String,
    text: Option<String>,
}

impl<'t> Document<'t> {
    pub fn read(text: &'t str) -> Self {
        let mut fence: Option<&str> = None;
        let mut lines = Vec::new();
        for line in text.lines() {
            let kind = match (fence, marks(line)) {
                (Some(open), Some(found)) if is_end(open, found, line) => {
                    fence = None;
                    Kind::Close
                }
                (Some(_), _) => Kind::Code,
                (None, Some(found)) => {
                    fence = Some(found);
                    Kind::Open
                }
                (None, None) => plain_kind(line),
            };
            lines.push((kind, line));
        }
        Self { lines }
    }

    pub fn code_blocks(&self) -> Vec<CodeBlock<'t>> {
        let mut blocks: Vec<(Option<&'t str>, Vec<&str>)> = Vec::new();
        for (kind, line) in &self.lines {
            match kind {
                Kind::Open => {
                    let language = line.trim().trim_start_matches(['`', '~']).trim();
                    let word = language.split([' ', '{']).next().filter(|w| !w.is_empty());
                    blocks.push((word, Vec::new()));
                }
                Kind::Code => {
                    if let Some((_, lines)) = blocks.last_mut() {
                        lines.push(line);
                    }
                }
                _ => {}
            }
        }
        blocks.into_iter().map(|(language, lines)| CodeBlock { language, code: lines.join("\n") }).collect()
    }

    /// Items of lists.
    pub fn points(&self) -> Vec<&'t str> {
        self.points_under(|_| true)
    }

    /// Items of lists under headings that `wanted` takes; the beginning of a text stands under an empty one.
    pub fn points_under(&self, wanted: impl Fn(&str) -> bool) -> Vec<&'t str> {
        let mut is_wanted = wanted("");
        let mut points = Vec::new();
        for (kind, line) in &self.lines {
            match kind {
                Kind::Heading(_) => is_wanted = wanted(heading(line)),
                Kind::Item(start) if is_wanted => {
                    points.extend(line.get(*start..).map(str::trim).filter(|p| !p.is_empty()));
                }
                _ => {}
            }
        }
        points
    }

    pub fn sections(&self) -> Vec<Section<'t>> {
        let mut sections: Vec<(usize, Option<&'t str>, Vec<&str>)> = vec![(0, None, Vec::new())];
        for (kind, line) in &self.lines {
            if let Kind::Heading(level) = kind {
                sections.push((*level, Some(heading(line)), Vec::new()));
            } else if let Some((_, _, lines)) = sections.last_mut() {
                lines.push(line);
            }
        }
        let made = sections.into_iter().map(|(level, heading, lines)| Section {
            level,
            heading,
            text: lines.join("\n").trim().to_owned(),
        });
        made.filter(|s| s.heading.is_some() || !s.text.is_empty()).collect()
    }

    /// The lines of prose and lists, each paragraph or item one line, without code and headings.
    pub fn prose(&self) -> Vec<String> {
        let mut paragraphs: Vec<String> = vec![String::new()];
        for (kind, line) in &self.lines {
            let text = match kind {
                Kind::Plain => line.trim(),
                Kind::Item(start) => {
                    paragraphs.push(String::new());
                    line.get(*start..).unwrap_or_default().trim()
                }
                _ => {
                    paragraphs.push(String::new());
                    continue;
                }
            };
            if let Some(last) = paragraphs.last_mut() {
                if !last.is_empty() {
                    last.push(' ');
                }
                last.push_str(text);
            }
        }
        paragraphs.retain(|p| !p.is_empty());
        paragraphs
    }

    /// Addresses outside of code, each once.
    pub fn links(&self) -> Vec<Link> {
        let named = super::words::pattern(r"\[([^\]]*)\]\((https?://[^\s)]+)\)");
        let bare = super::words::pattern(r#"https?://[^\s<>()\[\]"'`]+"#);
        let mut links: Vec<Link> = Vec::new();
        let mut add = |url: &str, text: Option<&str>| {
            let url = url.trim_end_matches(['.', ',', ';', ':', '!', '?']);
            if url.split_once("://").is_some_and(|(_, rest)| !rest.is_empty())
                && !links.iter().any(|l| l.url == url)
            {
                let text = text.map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
                links.push(Link { url: url.to_owned(), text });
            }
        };
        for (_, line) in
            self.lines.iter().filter(|(k, _)| !matches!(k, Kind::Open | Kind::Code | Kind::Close))
        {
            let mut rest = *line;
            while let Some(found) = first(&named, &bare, rest) {
                let (end, url, text) = found;
                add(url, text);
                rest = rest.get(end..).unwrap_or_default();
            }
        }
        links
    }

    /// The text in one style: `-` for items, blank lines around headings and code, no blanks at ends of lines.
    pub fn formatted(&self) -> String {
        let mut out: Vec<String> = Vec::new();
        let blank = |out: &mut Vec<String>| {
            if out.last().is_some_and(|l| !l.is_empty()) {
                out.push(String::new());
            }
        };
        let mut before = Kind::Blank;
        for (kind, line) in &self.lines {
            let parts_from_before = match (before, kind) {
                (Kind::Item(_), Kind::Item(_))
                | (Kind::Plain, Kind::Plain)
                | (Kind::Open | Kind::Code, _) => false,
                // A line that goes on with an item is indented.
                (Kind::Item(_), Kind::Plain) => !line.starts_with(' '),
                _ => true,
            };
            if parts_from_before && !matches!(kind, Kind::Blank) {
                blank(&mut out);
            }
            match kind {
                Kind::Heading(level) => out.push(format!("{} {}", "#".repeat(*level), heading(line))),
                Kind::Item(start) => out.push(item(line, *start)),
                Kind::Blank => blank(&mut out),
                Kind::Code => out.push((*line).to_owned()),
                Kind::Plain | Kind::Open | Kind::Close => out.push(line.trim_end().to_owned()),
            }
            before = *kind;
        }
        let text = out.join("\n");
        let text = text.trim_matches('\n');
        if text.is_empty() { String::new() } else { format!("{text}\n") }
    }
}

/// The next link of a line: where it ends, its address, and its text.
fn first<'l>(named: &Regex, bare: &Regex, line: &'l str) -> Option<(usize, &'l str, Option<&'l str>)> {
    let with_text = named.captures(line);
    let alone = bare.find(line);
    match (with_text, alone) {
        (Some(found), alone)
            if alone.is_none_or(|a| found.get(0).is_some_and(|w| w.start() <= a.start())) =>
        {
            let url = found.get(2)?;
            Some((found.get(0)?.end(), url.as_str(), found.get(1).map(|t| t.as_str())))
        }
        (_, Some(alone)) => Some((alone.end(), alone.as_str(), None)),
        (_, None) => None,
    }
}

/// The marks of a fence that a line begins with.
fn marks(line: &str) -> Option<&str> {
    let text = line.trim_start_matches(' ');
    if line.len() - text.len() > 3 {
        return None;
    }
    let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = text.trim_start_matches(mark);
    let found = &text[..text.len() - rest.len()];
    // Three marks and more within a line are code in a sentence.
    (found.len() >= 3 && !(mark == '`' && rest.contains('`'))).then_some(found)
}

fn is_end(open: &str, found: &str, line: &str) -> bool {
    found.starts_with(&open[..1]) && found.len() >= open.len() && line.trim() == found
}

fn plain_kind(line: &str) -> Kind {
    let text = line.trim_start();
    let indent = line.len() - text.len();
    if text.is_empty() {
        return Kind::Blank;
    }
    let level = text.chars().take_while(|c| *c == '#').count();
    if (1..=6).contains(&level) && indent <= 3 && text[level..].starts_with([' ', '\t']) {
        return Kind::Heading(level);
    }
    if let Some(rest) = text.strip_prefix(['-', '*', '+'])
        && rest.starts_with(' ')
    {
        return Kind::Item(indent + 2);
    }
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    if (1..=9).contains(&digits) && (text[digits..].starts_with(". ") || text[digits..].starts_with(") ")) {
        return Kind::Item(indent + digits + 2);
    }
    Kind::Plain
}

fn heading(line: &str) -> &str {
    line.trim().trim_start_matches('#').trim().trim_end_matches('#').trim_end()
}

/// An item with the usual mark.
fn item(line: &str, start: usize) -> String {
    let (mark, text) = line.split_at(start.min(line.len()));
    let mark = mark.replace(['*', '+'], "-");
    format!("{mark}{}", text.trim()).trim_end().to_owned()
}
