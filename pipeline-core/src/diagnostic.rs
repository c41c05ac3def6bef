//! What the program tells about a file: findings as data, never as printed text.
//!
//! Owns [`Diagnostic`], [`Severity`], [`Span`] and [`Report`], which collects every finding of a whole
//! tree so that all are shown at once. Must not know terminals: drawing is the binary's business.
//! Next: `source.rs` for the texts that spans point into, `codes.rs` for the long form of each code.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Index of a file in a [`crate::source::SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// A half-open byte range of one source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span of `file` from byte `start` to byte `end`.
    pub const fn new(file: FileId, start: u32, end: u32) -> Self {
        Self { file, start, end }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something was accepted and rewritten, or has no effect here. Never changes an exit code.
    Note,
    /// Probably not what was meant. Runs.
    Warning,
    /// The file cannot run.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A second place that a finding points at, with what is to be seen there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What is there, for example "first defined here".
    pub text: String,
}

/// One finding: what, where, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable code, for example `E0102`; `pipeline explain CODE` has its long form.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence, no trailing full stop.
    pub message: String,
    /// The guilty token; `None` only where there is no text at all (an unreadable file).
    pub span: Option<Span>,
    /// Further places.
    pub labels: Vec<Label>,
    /// Path of the step in the pipeline (`loop/body`), where there is one.
    pub path: Option<String>,
    /// What to do next.
    pub help: Option<String>,
    /// Text that could stand at `span` instead.
    pub suggestion: Option<String>,
    /// The map, by its place, and the key of it that this is about.
    #[serde(skip)]
    key: Option<(Span, String)>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span.into(), message.into())
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, span.into(), message.into())
    }

    /// A note at `span`.
    pub fn note(code: &'static str, span: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, span.into(), message.into())
    }

    fn new(severity: Severity, code: &'static str, span: Option<Span>, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            span,
            labels: Vec::new(),
            path: None,
            help: None,
            suggestion: None,
            key: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the text that could stand there instead, and says so in the help when there is none yet.
    #[must_use]
    pub fn suggest(mut self, replacement: impl Into<String>) -> Self {
        let replacement = replacement.into();
        if self.help.is_none() {
            self.help = Some(format!("did you mean `{replacement}`?"));
        }
        self.suggestion = Some(replacement);
        self
    }

    /// Adds a second place.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Says that a key of the map at `map` is what this is about: it is missing, or this was probably meant to be it. Of two
    /// findings about one key, only the one with a suggestion is told.
    #[must_use]
    pub fn about(mut self, map: Span, key: impl Into<String>) -> Self {
        self.key = Some((map, key.into()));
        self
    }

    /// Names the step that it is about.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }
}

/// Every finding of one compilation, in source order when finished.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<Diagnostic>,
}

impl Report {
    /// Adds one finding.
    pub fn push(&mut self, finding: Diagnostic) {
        self.findings.push(finding);
    }

    /// Adds several.
    pub fn extend(&mut self, findings: Vec<Diagnostic>) {
        self.findings.extend(findings);
    }

    /// True when at least one finding is an error.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|d| d.severity == Severity::Error)
    }

    /// The findings ordered by file and position, without exact repeats, and without keys that are missing only because
    /// they are misspelled.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        let suggested = self.findings.iter().filter(|finding| finding.suggestion.is_some());
        let meant: HashSet<(Span, String)> = suggested.filter_map(|finding| finding.key.clone()).collect();
        self.findings.retain(|finding| {
            finding.suggestion.is_some() || finding.key.as_ref().is_none_or(|key| !meant.contains(key))
        });
        self.findings.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
        self.findings.dedup();
        self.findings
    }
}

/// The name among `known` that `given` was probably meant to be.
///
/// Damerau-Levenshtein distance of at most `max(2, len / 3)`; ties go to the first in order.
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (given.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&given.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= limit && *distance < k.chars().count().max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}
