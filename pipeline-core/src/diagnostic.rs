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
    /// Keys, each with the place of its map, that this is about.
    #[serde(skip)]
    keys: Vec<(Span, String)>,
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
            keys: Vec::new(),
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
    /// findings about one key, only the one with a suggestion is told. One that is about several keys misses any of them.
    #[must_use]
    pub fn about(mut self, map: Span, key: impl Into<String>) -> Self {
        self.keys.push((map, key.into()));
        self
    }

    /// The text that an error says is wrong; none where it says that something is missing.
    fn is_at_fault(&self) -> Option<Span> {
        let is_missing = self.suggestion.is_none() && !self.keys.is_empty();
        self.span.filter(|_| self.severity == Severity::Error && !is_missing)
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

    /// How many findings there are.
    pub fn len(&self) -> usize {
        self.findings.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Adds what another has, but for places that one of the errors from the `since`th finding on is about: what is wrong there
    /// has been told.
    pub fn extend_beside(&mut self, since: usize, other: Self) {
        let told: Vec<Span> = self.findings.iter().skip(since).filter_map(Diagnostic::is_at_fault).collect();
        let holds = |outer: &Span, inner: Span| {
            outer.file == inner.file && outer.start <= inner.start && inner.end <= outer.end
        };
        let is_new = |finding: &Diagnostic| {
            finding.span.is_none_or(|span| !told.iter().any(|outer| holds(outer, span)))
        };
        self.findings.extend(other.findings.into_iter().filter(is_new));
    }

    /// True when at least one finding is an error.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|d| d.severity == Severity::Error)
    }

    /// The findings ordered by file and position, without exact repeats, and without keys that are missing only because
    /// they are misspelled.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        let suggested = self.findings.iter().filter(|finding| finding.suggestion.is_some());
        let meant: HashSet<(Span, String)> = suggested.flat_map(|finding| finding.keys.clone()).collect();
        self.findings.retain(|finding| {
            finding.suggestion.is_some() || !finding.keys.iter().any(|key| meant.contains(key))
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
    nearest(given, known).map(|(_, name)| name)
}

/// [`closest`], with the distance.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<(usize, &'a str)> {
    let given = given.to_lowercase();
    let length = given.chars().count();
    let limit = (length / 3).max(2);
    known
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= limit)
        .map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= limit && *distance < name.chars().count().max(1))
        .min_by_key(|(distance, _)| *distance)
}
