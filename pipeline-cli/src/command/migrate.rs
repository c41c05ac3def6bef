//! `pipeline migrate FILE`: rewrites legacy spellings where they stand, so that comments and layout stay.
//!
//! What is legacy, and what stands instead, is the compiler's to say: its notes carry the place and the replacement. A
//! rewrite is kept only when the file is no worse after it.

use std::io::Write;

use pipeline_core::diagnostic::{Diagnostic, FileId, Severity};
use pipeline_core::plan::CompileOptions;
use serde_json::json;

use super::work::tell_findings;
use crate::app::{self, App};
use crate::args::Migrate;
use crate::console::{GREEN, RED, paint, visible};
use crate::exit::{Exit, Failure};
use crate::settings::Mode;
use crate::sources::reason;

/// Rewriting may show something that was hidden before; more rounds than this are a circle.
const ROUNDS: usize = 8;

/// Rewrites a file, or tells what would be rewritten.
///
/// # Errors
/// [`Failure`] when it cannot be read or written.
pub fn migrate(app: &App, args: &Migrate) -> Result<Exit, Failure> {
    let path = app.settings.absolute(&args.file);
    let unreadable = |error: &std::io::Error| {
        Failure::usage(format!("cannot read {}: {}", args.file, reason(error))).help("check the path")
    };
    let old = std::fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
    let kinds = app.kinds(Mode::Mock, None)?;
    let loader = app.sources(&app.settings.state_dir(None));
    let look = |text: &str| {
        let loader =
            super::generate::Draft { name: args.file.clone(), text: text.to_owned(), under: &loader };
        match app::compile(&loader, &args.file, &kinds.catalog, &CompileOptions::default()) {
            Ok((_, checked)) | Err(checked) => checked,
        }
    };
    let mut text = old.clone();
    let mut checked = look(&text);
    for _ in 0..ROUNDS {
        let next = rewritten(&text, &checked.findings);
        if next == text {
            break;
        }
        let after = look(&next);
        if after.count(Severity::Error) > checked.count(Severity::Error) {
            break;
        }
        (text, checked) = (next, after);
    }
    let changed = old.lines().zip(text.lines()).filter(|(a, b)| a != b).count();
    if args.check || app.settings.json {
        let document = json!({"schema": "pipeline.migrate/1", "file": args.file, "changed_lines": changed, "written": !args.check && text != old});
        app.console.out(&if app.settings.json { format!("{document:#}\n") } else { diff(&old, &text) })?;
    }
    if text != old && !args.check {
        let folder = path.parent().unwrap_or(&path);
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            if let Ok(known) = std::fs::metadata(&path) {
                file.as_file().set_permissions(known.permissions())?;
            }
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| {
            Failure::environment(format!("cannot write {}: {}", args.file, reason(&error)))
        })?;
    }
    app.console.note(&match changed {
        0 => "there is nothing to rewrite".to_owned(),
        n if args.check => format!("{n} line{} would be rewritten", if n == 1 { "" } else { "s" }),
        n => format!("{n} line{} rewritten", if n == 1 { " was" } else { "s were" }),
    });
    let is_refused = checked.count(Severity::Error) > 0;
    if is_refused {
        tell_findings(app, &checked, true)?;
    }
    Ok(if is_refused || (args.check && text != old) { Exit::Usage } else { Exit::Success })
}

/// The text with every replacement of a note of the file itself in its place, last first. Of two that overlap the first
/// counts; the other has its turn in the next round.
fn rewritten(text: &str, findings: &[Diagnostic]) -> String {
    let mut edits: Vec<(usize, usize, &str)> = findings
        .iter()
        .filter(|f| f.severity == Severity::Note)
        .filter_map(|f| {
            let (span, new) = (f.span.filter(|s| s.file == FileId(0))?, f.suggestion.as_deref()?);
            let (start, end) = (span.start as usize, span.end as usize);
            (start < end && text.get(start..end).is_some()).then_some((start, end, new))
        })
        .collect();
    edits.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end, new) in edits {
        if start >= at {
            out.push_str(&text[at..start]);
            out.push_str(new);
            at = end;
        }
    }
    out.push_str(&text[at..]);
    out
}

fn diff(old: &str, new: &str) -> String {
    let changed = old.lines().zip(new.lines()).enumerate().filter(|(_, (a, b))| a != b);
    changed
        .map(|(line, (a, b))| {
            let (a, b) = (paint(RED, format!("- {}", visible(a))), paint(GREEN, format!("+ {}", visible(b))));
            format!("line {}\n{a}\n{b}\n", line + 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_core::diagnostic::Span;

    #[test]
    fn only_notes_with_a_replacement_are_written_and_never_over_each_other() {
        let note = |start, end, new: &str| {
            Diagnostic::note("E0999", Span::new(FileId(0), start, end), "old").suggest(new)
        };
        let error = Diagnostic::error("E0100", Span::new(FileId(0), 0, 1), "wrong").suggest("X");
        let elsewhere = Diagnostic::note("E0999", Span::new(FileId(1), 0, 1), "old").suggest("X");
        let findings = [note(6, 9, "new"), note(7, 8, "no"), error, elsewhere, note(0, 1, "A")];
        assert_eq!(rewritten("a b: # old # stays\n", &findings), "A b: #newd # stays\n");
    }
}
