//! Relative links in Markdown.
//!
//! Owns the reading of links out of Markdown text. Must not know the file system: `tidy.rs` asks whether a target is there.
//! Limits: reference-style links (`[a][b]`) and HTML anchors are not read, and neither is a link whose text breaks across lines.

/// A link that points into the repository.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// Line, from 1.
    pub line: usize,
    /// Path as written, without the part after `#`; empty when it points into the same file.
    pub path: String,
    /// The part after `#`, if any.
    pub anchor: Option<String>,
}

/// Relative links of a Markdown text, code left out.
pub fn relative(markdown: &str) -> Vec<Link> {
    prose(markdown).flat_map(|(line, text)| in_line(line, &text)).collect()
}

/// Anchors that the headings of a Markdown text get.
pub fn anchors(markdown: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, text) in fenced(markdown).filter(|(_, _, code)| !code).map(|(line, text, _)| (line, text)) {
        let title = text.trim_start_matches('#');
        if title.len() == text.len() || !title.starts_with(' ') {
            continue;
        }
        let slug = slug(title.trim());
        let repeats = found.iter().filter(|known| **known == slug || is_repeat(known, &slug)).count();
        found.push(if repeats == 0 { slug } else { format!("{slug}-{repeats}") });
    }
    found
}

fn is_repeat(known: &str, slug: &str) -> bool {
    known
        .strip_prefix(slug)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn slug(title: &str) -> String {
    title
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Lines with their number and whether they are inside a code fence (the fence itself included).
fn fenced(markdown: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut fence: Option<&str> = None;
    markdown.lines().enumerate().map(move |(i, text)| {
        let start = text.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        let code = match (fence, mark) {
            (None, Some(mark)) => {
                fence = Some(mark);
                true
            }
            (Some(open), Some(mark)) if open == mark => {
                fence = None;
                true
            }
            (open, _) => open.is_some(),
        };
        (i + 1, text, code)
    })
}

/// Lines outside code fences, with `code spans` blanked.
fn prose(markdown: &str) -> impl Iterator<Item = (usize, String)> {
    fenced(markdown).filter(|(_, _, code)| !code).map(|(line, text, _)| {
        let mut inside = false;
        let kept = text
            .chars()
            .map(|c| {
                if c == '`' {
                    inside = !inside;
                }
                if inside || c == '`' { ' ' } else { c }
            })
            .collect();
        (line, kept)
    })
}

fn in_line(line: usize, text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("](") {
        let Some((target, tail)) = after.split_once(')') else { break };
        rest = tail;
        // A title may follow the path: [a](b "c").
        let target = target.split_whitespace().next().unwrap_or_default();
        let outside = target.contains("://") || target.starts_with("mailto:");
        if outside || target.is_empty() {
            continue;
        }
        let (path, anchor) = match target.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor.to_owned())),
            None => (target, None),
        };
        links.push(Link { line, path: path.to_owned(), anchor });
    }
    links
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn link(line: usize, path: &str, anchor: Option<&str>) -> Link {
        Link { line, path: path.into(), anchor: anchor.map(Into::into) }
    }

    #[test]
    fn relative_links_are_found_and_web_links_are_not() {
        let text = "[a](docs/a.md) and [b](https://example.org/x.md)\n\n![c](c.png \"title\") [d](#part)\n";
        assert_eq!(
            relative(text),
            [link(1, "docs/a.md", None), link(3, "c.png", None), link(3, "", Some("part"))]
        );
    }

    #[test]
    fn links_in_code_are_examples() {
        let text = "```md\n[a](missing.md)\n```\n`[b](missing.md)` [c](there.md#x)\n~~~\n```\n[d](missing.md)\n~~~\n";
        assert_eq!(relative(text), [link(4, "there.md", Some("x"))]);
    }

    #[test]
    fn headings_give_anchors_and_repeats_are_numbered() {
        let text = "# The `pipeline` file\n## On disk\n```\n# not one\n```\n## On disk\n#also-not\n";
        assert_eq!(anchors(text), ["the-pipeline-file", "on-disk", "on-disk-1"]);
    }
}
