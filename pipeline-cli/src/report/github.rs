//! A run that did not succeed, as an annotation of GitHub Actions.

use pipeline_core::engine::RunReport;
use pipeline_core::fact::RunStatus;

use crate::exit::status_name;

/// The workflow command that shows what went wrong beside the job; `None` for a run that is ok.
pub fn annotation(report: &RunReport) -> Option<String> {
    if report.status == RunStatus::Ok {
        return None;
    }
    let (place, message) = match &report.error {
        Some(failed) => (failed.path.as_ref().map_or("", |p| p.as_str()), failed.error.message.as_str()),
        None => ("", ""),
    };
    let title = format!("{} {}", report.workflow, status_name(report.status));
    let text = [place, message].iter().filter(|t| !t.is_empty()).copied().collect::<Vec<_>>().join(": ");
    Some(format!(
        "::error title={}::{}",
        property(&title),
        data(if text.is_empty() { &title } else { &text })
    ))
}

/// What stands after `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What stands in a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json::tests::report;

    #[test]
    fn only_a_run_that_did_not_succeed_is_annotated_and_its_text_cannot_be_a_command() {
        assert_eq!(annotation(&report(RunStatus::Ok)), None);
        let line = annotation(&report(RunStatus::Failed));
        assert_eq!(line.as_deref(), Some("::error title=demo failed::fan[3]/think: too many requests"));
        assert_eq!((data("a\n::b%"), property("a:b,c")), ("a%0A::b%25".to_owned(), "a%3Ab%2Cc".to_owned()));
    }
}
