//! Findings, drawn for people, editors and code hosts.
//!
//! Owns the four forms of `check`. Must not know how findings are made.

use std::fmt::Write;

use pipeline_core::diagnostic::{Diagnostic, Severity, Span};
use pipeline_core::source::{SourceFile, SourceMap};
use pipeline_core::value::Value;
use serde_json::json;

use crate::console::{CYAN, RED, YELLOW, paint, visible};

/// Most characters of a source line that are drawn.
const WIDEST: usize = 160;

/// What was found in one pipeline file and in those that it includes.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The file, as it was named.
    pub path: String,
    /// What was found, in source order.
    pub findings: Vec<Diagnostic>,
    /// The texts that the findings point into.
    pub sources: SourceMap,
}

impl Checked {
    /// How many findings are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }

    /// Where a finding begins: file as people know it, line, column.
    fn place(&self, finding: &Diagnostic) -> (&str, Option<(u32, u32)>) {
        match finding.span.and_then(|span| self.sources.locate(span)) {
            Some((file, at)) => (file, Some((at.line, at.column))),
            None => (&self.path, None),
        }
    }

    fn source(&self, span: Span) -> Option<&SourceFile> {
        self.sources.get(span.file)
    }
}

/// Every finding as text: place and message, the line with a mark under the guilty token, and what to do.
pub fn text(checked: &Checked) -> String {
    text_from(checked, Severity::Note)
}

/// As [`text()`], for findings that are at least this bad.
pub fn text_from(checked: &Checked, least: Severity) -> String {
    let mut out = String::new();
    for finding in checked.findings.iter().filter(|f| f.severity >= least) {
        draw(&mut out, checked, finding);
    }
    out
}

fn draw(out: &mut String, checked: &Checked, finding: &Diagnostic) {
    let style = match finding.severity {
        Severity::Error => RED,
        Severity::Warning => YELLOW,
        Severity::Note => CYAN,
    };
    let (file, at) = checked.place(finding);
    let place = at.map_or_else(|| file.to_owned(), |(line, column)| format!("{file}:{line}:{column}"));
    let head = paint(style, format!("{}[{}]:", finding.severity, finding.code));
    // Writing to a text cannot fail.
    let _ok = writeln!(out, "{}: {head} {}", visible(&place), visible(&finding.message));
    if let Some((line, marks)) = finding.span.and_then(|span| excerpt(checked.source(span)?, span)) {
        let _ok = writeln!(out, "  {line}\n  {}", paint(style, marks));
    }
    for label in &finding.labels {
        let place = match checked.sources.locate(label.span) {
            Some((file, at)) => format!("{file}:{}:{}: ", at.line, at.column),
            None => String::new(),
        };
        let _ok = writeln!(out, "  {} {}{}", paint(CYAN, "note:"), visible(&place), visible(&label.text));
    }
    if let Some(help) = &finding.help {
        let _ok = writeln!(out, "  {} {}", paint(CYAN, "help:"), visible(help));
    }
}

/// The source line of a span's start, and marks under what the span covers of it. A line that is too wide is cut
/// around the span.
fn excerpt(file: &SourceFile, span: Span) -> Option<(String, String)> {
    let at = file.position(span.start);
    let characters: Vec<char> = file.line(at.line).chars().collect();
    if characters.is_empty() {
        return None;
    }
    let start = (at.column as usize).saturating_sub(1).min(characters.len());
    let length = length(file, span).max(1);
    let from = if start + length.min(40) > WIDEST { start.saturating_sub(40) } else { 0 };
    let to = characters.len().min(from + WIDEST);
    // One column each, whatever a terminal would make of a tab or a control character.
    let shown: String = characters[from..to].iter().map(|c| if *c == '\t' { ' ' } else { *c }).collect();
    let (before, after) = (if from > 0 { "…" } else { "" }, if to < characters.len() { "…" } else { "" });
    let line = format!("{before}{}{after}", visible(&shown));
    let indent = before.chars().count() + start - from;
    let marks = length.min((to + 1).saturating_sub(start)).max(1);
    Some((line, format!("{}{}", " ".repeat(indent), "^".repeat(marks))))
}

/// Characters that the span covers of its first line.
fn length(file: &SourceFile, span: Span) -> usize {
    let covered = file.text.get(span.start as usize..span.end as usize).unwrap_or("");
    covered.lines().next().unwrap_or("").chars().count()
}

/// `pipeline.check/1`: one document.
pub fn json(files: &[Checked]) -> Value {
    let of = |checked: &Checked| {
        let findings: Vec<Value> = checked.findings.iter().map(|f| finding_json(checked, f)).collect();
        json!({"path": checked.path, "findings": findings})
    };
    json!({"schema": "pipeline.check/1", "files": files.iter().map(of).collect::<Vec<_>>()})
}

fn finding_json(checked: &Checked, finding: &Diagnostic) -> Value {
    let (file, at) = checked.place(finding);
    let length = finding.span.and_then(|span| Some(length(checked.source(span)?, span)));
    json!({
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "file": file,
        "line": at.map(|a| a.0),
        "column": at.map(|a| a.1),
        "length": length,
        "path": finding.path,
        "help": finding.help,
    })
}

/// Annotations of GitHub Actions, one a line.
pub fn github(files: &[Checked]) -> String {
    let mut out = String::new();
    for checked in files {
        for finding in &checked.findings {
            let level = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "notice",
            };
            let (file, at) = checked.place(finding);
            let place = at.map_or_else(String::new, |(line, column)| format!(",line={line},col={column}"));
            let help = finding.help.as_ref().map_or_else(String::new, |help| format!("\nhelp: {help}"));
            let message = workflow_data(&format!("{}{help}", finding.message));
            let title = workflow_property(finding.code);
            let file = workflow_property(file);
            let _ok = writeln!(out, "::{level} file={file}{place},title={title}::{message}");
        }
    }
    out
}

fn workflow_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn workflow_property(text: &str) -> String {
    workflow_data(text).replace(':', "%3A").replace(',', "%2C")
}

/// SARIF 2.1.0: one document.
pub fn sarif(files: &[Checked]) -> Value {
    let mut codes: Vec<&str> = files.iter().flat_map(|c| c.findings.iter().map(|f| f.code)).collect();
    codes.sort_unstable();
    codes.dedup();
    let results: Vec<Value> =
        files.iter().flat_map(|c| c.findings.iter().map(move |f| sarif_result(c, f))).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "pipeline",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": codes.into_iter().map(|code| json!({"id": code})).collect::<Vec<_>>(),
            }},
            // Columns are counted in characters, not in the UTF-16 units that SARIF takes for granted.
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn sarif_result(checked: &Checked, finding: &Diagnostic) -> Value {
    let level = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let (file, at) = checked.place(finding);
    let mut place = json!({"artifactLocation": {"uri": uri(file)}});
    if let Some((line, column)) = at {
        let length = finding.span.and_then(|span| Some(length(checked.source(span)?, span))).unwrap_or(0);
        place["region"] =
            json!({"startLine": line, "startColumn": column, "endColumn": column as usize + length});
    }
    let help = finding.help.as_ref().map_or_else(String::new, |help| format!("\n{help}"));
    json!({
        "ruleId": finding.code,
        "level": level,
        "message": {"text": format!("{}{help}", finding.message)},
        "locations": [{"physicalLocation": place}],
    })
}

/// A path as a relative URI reference: what is special in a URI is escaped.
fn uri(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ok = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use pipeline_core::diagnostic::FileId;
    use pipeline_core::source::LoadedSource;

    fn span_of(text: &str, part: &str) -> Span {
        let start = u32::try_from(text.find(part).unwrap()).unwrap();
        Span::new(FileId(0), start, start + u32::try_from(part.len()).unwrap())
    }

    fn checked(text: &str, findings: Vec<Diagnostic>) -> Checked {
        let mut sources = SourceMap::default();
        sources.add(LoadedSource {
            display: "flows/a.yaml".to_owned(),
            canonical: "/x/flows/a.yaml".to_owned(),
            text: text.to_owned(),
        });
        Checked { path: "flows/a.yaml".to_owned(), findings, sources }
    }

    fn plain(checked: &Checked) -> String {
        anstream::adapter::strip_str(&text(checked)).to_string()
    }

    const TEXT: &str = "name: x\nsteps:\n  - name: é\n    typ: claude\n";

    fn example() -> Checked {
        let finding = Diagnostic::error("E0102", span_of(TEXT, "typ"), "unknown key `typ`")
            .suggest("type")
            .label(span_of(TEXT, "é"), "in this step")
            .at("é");
        checked(TEXT, vec![finding])
    }

    #[test]
    fn a_finding_shows_place_line_mark_labels_and_help() {
        let expected = "flows/a.yaml:4:5: error[E0102]: unknown key `typ`\n\
            \x20     typ: claude\n\
            \x20     ^^^\n\
            \x20 note: flows/a.yaml:3:11: in this step\n\
            \x20 help: did you mean `type`?\n";
        assert_eq!(plain(&example()), expected);
    }

    #[test]
    fn findings_can_be_limited_to_the_worse_ones() {
        let note = Diagnostic::note("N1", span_of(TEXT, "typ"), "rewritten");
        let warning = Diagnostic::warning("W1", span_of(TEXT, "typ"), "odd");
        let both = checked(TEXT, vec![note, warning]);
        assert!(text(&both).contains("rewritten"));
        let worse = text_from(&both, Severity::Warning);
        assert!(worse.contains("odd") && !worse.contains("rewritten"), "{worse}");
    }

    #[test]
    fn a_finding_without_text_names_the_file() {
        let checked = checked("", vec![Diagnostic::error("E0001", None, "cannot read it")]);
        assert_eq!(plain(&checked), "flows/a.yaml: error[E0001]: cannot read it\n");
    }

    #[test]
    fn marks_stand_under_the_token_after_tabs_and_in_wide_lines() {
        let narrow = "\tkey: bad # x";
        let drawn = plain(&checked(narrow, vec![Diagnostic::error("E1", span_of(narrow, "bad"), "m")]));
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[1].find("bad"), lines[2].find("^^^"));

        let wide = format!("{}bad{}", "é".repeat(500), "z".repeat(500));
        let drawn = plain(&checked(&wide, vec![Diagnostic::error("E1", span_of(&wide, "bad"), "m")]));
        let lines: Vec<Vec<char>> = drawn.lines().map(|l| l.chars().collect()).collect();
        let mark = lines[2].iter().position(|c| *c == '^').unwrap();
        assert_eq!(&lines[1][mark..mark + 3], ['b', 'a', 'd']);
        assert!(lines[1].len() < WIDEST + 10);
    }

    #[test]
    fn a_span_over_many_lines_is_marked_to_the_end_of_the_first() {
        let text = "a: [1,\n 2]\n";
        let drawn = plain(&checked(text, vec![Diagnostic::error("E1", span_of(text, "[1,\n 2]"), "m")]));
        assert!(drawn.ends_with("  a: [1,\n     ^^^\n"), "{drawn}");
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        let text = "a: \u{1b}[2J\n";
        let drawn =
            super::text(&checked(text, vec![Diagnostic::note("N1", span_of(text, "a"), "\u{1b}]0;")]));
        assert!(!drawn.contains("\u{1b}[2J") && !drawn.contains("\u{1b}]0;"), "{drawn:?}");
    }

    #[test]
    fn the_document_has_every_field_of_the_contract() {
        let expected = json!({"schema": "pipeline.check/1", "files": [{"path": "flows/a.yaml", "findings": [{
            "code": "E0102", "severity": "error", "message": "unknown key `typ`", "file": "flows/a.yaml",
            "line": 4, "column": 5, "length": 3, "path": "é", "help": "did you mean `type`?",
        }]}]});
        assert_eq!(json(&[example()]), expected);
    }

    #[test]
    fn annotations_escape_what_would_end_them() {
        let finding = Diagnostic::warning("W1", span_of(TEXT, "typ"), "100% wrong\nreally");
        let expected = "::warning file=flows/a.yaml,line=4,col=5,title=W1::100%25 wrong%0Areally\n";
        assert_eq!(github(&[checked(TEXT, vec![finding])]), expected);
    }

    #[test]
    fn sarif_lists_each_rule_once_and_places_results() {
        let mut twice = example();
        twice.findings.push(twice.findings[0].clone());
        let document = sarif(&[twice]);
        let run = &document["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"], json!([{"id": "E0102"}]));
        assert_eq!(run["results"].as_array().unwrap().len(), 2);
        let region = &run["results"][0]["locations"][0]["physicalLocation"]["region"];
        assert_eq!(region, &json!({"startLine": 4, "startColumn": 5, "endColumn": 8}));
        assert_eq!(uri("a b/ü.yaml"), "a%20b/%C3%BC.yaml");
    }
}
