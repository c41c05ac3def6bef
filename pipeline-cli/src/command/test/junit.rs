//! Verdicts in the form that build servers read.

use std::fmt::Write;

use super::Verdict;
use crate::report::picture::escape;

/// JUnit XML, a suite for each file.
pub fn text(verdicts: &[Verdict]) -> String {
    let failed = verdicts.iter().filter(|v| !v.problems.is_empty()).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{}\" failures=\"{failed}\">\n",
        verdicts.len()
    );
    for suite in verdicts.chunk_by(|a, b| a.suite == b.suite) {
        let bad = suite.iter().filter(|v| !v.problems.is_empty()).count();
        let name = escape(suite.first().map_or("", |v| &v.suite));
        let _ok = writeln!(out, "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{bad}\">", suite.len());
        for verdict in suite {
            let seconds = verdict.duration_ms as f64 / 1e3;
            let _ok = write!(
                out,
                "    <testcase classname=\"{name}\" name=\"{}\" time=\"{seconds}\"",
                escape(&verdict.name)
            );
            let _ok = match verdict.problems.first() {
                None => writeln!(out, "/>"),
                Some(first) => writeln!(
                    out,
                    ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                    escape(first),
                    escape(&verdict.problems.join("\n"))
                ),
            };
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_and_escaped() {
        let verdict = |name: &str, problems: &[&str]| Verdict {
            suite: "t.yaml".to_owned(),
            name: name.to_owned(),
            problems: problems.iter().map(|p| (*p).to_owned()).collect(),
            duration_ms: 1500,
        };
        let xml = text(&[verdict("good", &[]), verdict("<bad>", &["a & b"])]);
        assert!(xml.contains("<testsuite name=\"t.yaml\" tests=\"2\" failures=\"1\">"), "{xml}");
        assert!(
            xml.contains("name=\"&lt;bad&gt;\" time=\"1.5\">\n      <failure message=\"a &amp; b\">"),
            "{xml}"
        );
    }
}
