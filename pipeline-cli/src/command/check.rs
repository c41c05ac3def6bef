//! `pipeline check`: findings without running anything.

use std::path::{Path, PathBuf};

use pipeline_core::diagnostic::Severity;
use pipeline_core::plan::CompileOptions;

use crate::app::{self, App};
use crate::args::{Check, FindingFormat};
use crate::exit::{Exit, Failure};
use crate::report::diagnostics::{self, Checked};
use crate::settings::Mode;
use crate::sources::reason;

/// Deepest folder that is walked.
const DEEPEST: usize = 32;

/// Checks every file and prints what was found.
///
/// # Errors
/// [`Failure`] for a directory that cannot be walked or has no pipeline files.
pub fn check(app: &App, args: &Check) -> Result<Exit, Failure> {
    // The mock answers as the live providers would, so that a check needs no credential.
    let kinds = app.kinds(Mode::Mock, None)?;
    let loader = app.sources(&app.settings.state_dir(None));
    let options = CompileOptions { lenient: args.lenient };
    let files = files(&args.files, &app.settings.working)?;
    let checked: Vec<Checked> = files
        .iter()
        .map(|file| match app::compile(&loader, file, &kinds.catalog, &options) {
            Ok((_, checked)) | Err(checked) => checked,
        })
        .collect();
    let format = if app.settings.json { FindingFormat::Json } else { args.format };
    app.console.out(&match format {
        FindingFormat::Text => checked.iter().map(diagnostics::text).collect(),
        FindingFormat::Json => format!("{:#}\n", diagnostics::json(&checked)),
        FindingFormat::Github => diagnostics::github(&checked),
        FindingFormat::Sarif => format!("{:#}\n", diagnostics::sarif(&checked)),
    })?;
    let count = |severity| checked.iter().map(|c| c.count(severity)).sum::<usize>();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    app.console.note(&format!(
        "{} checked: {}, {}",
        many(checked.len(), "file"),
        many(errors, "error"),
        many(warnings, "warning")
    ));
    Ok(if errors > 0 { Exit::Usage } else { Exit::Success })
}

fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The files that the words name: themselves, or the YAML files in directories, by name.
fn files(words: &[String], working: &Path) -> Result<Vec<String>, Failure> {
    let mut files = Vec::new();
    for word in words {
        if word == "-" || !working.join(word).is_dir() {
            files.push(word.clone());
            continue;
        }
        let before = files.len();
        walk(working, Path::new(word), 0, &mut files)?;
        if files.len() == before {
            return Err(Failure::usage(format!("there is no pipeline file in {word}"))
                .help("pipeline files end in .yaml or .yml"));
        }
    }
    Ok(files)
}

fn walk(working: &Path, folder: &Path, depth: usize, files: &mut Vec<String>) -> Result<(), Failure> {
    let unreadable = |error: &std::io::Error| {
        Failure::environment(format!("cannot read the directory {}: {}", folder.display(), reason(error)))
    };
    let mut entries: Vec<(PathBuf, std::fs::FileType)> = Vec::new();
    for entry in std::fs::read_dir(working.join(folder)).map_err(|e| unreadable(&e))? {
        let entry = entry.map_err(|e| unreadable(&e))?;
        // Hidden folders hold what programs wrote, such as the state directory.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        entries.push((folder.join(entry.file_name()), entry.file_type().map_err(|e| unreadable(&e))?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind) in entries {
        // A link to a folder is not followed: it may lead back.
        if kind.is_dir() && depth < DEEPEST {
            walk(working, &path, depth + 1, files)?;
        } else if !kind.is_dir()
            && path.extension().is_some_and(|e| e == "yaml" || e == "yml")
            && !is_for_tests(&working.join(&path))
        {
            files.push(path.strip_prefix(".").unwrap_or(&path).display().to_string());
        }
    }
    Ok(())
}

/// Cases of `pipeline test` and mock rules lie beside pipelines and are none; a file that is named is never one of these.
fn is_for_tests(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| {
        let has = |key: &str| text.lines().any(|line| line.starts_with(key));
        (has("cases:") || has("rules:")) && !has("workflow:") && !has("steps:")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn directories_are_walked_by_name_without_what_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["flows/b.yml", "flows/a.yaml", "flows/deep/c.yaml", "flows/.pipeline/x.yaml", "flows/n.md"]
        {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(files(&[".".to_owned()], dir.path()).unwrap()[0], "flows/a.yaml");
        let words = ["one.yaml".to_owned(), "flows".to_owned(), "-".to_owned()];
        let found = files(&words, dir.path()).unwrap();
        assert_eq!(found, ["one.yaml", "flows/a.yaml", "flows/b.yml", "flows/deep/c.yaml", "-"]);
    }

    #[test]
    fn cases_and_mock_rules_in_a_directory_are_not_pipelines_and_broken_pipelines_are() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cases.yaml", "# c\npipeline: a.yaml\ncases: []\n"),
            ("rules.yaml", "seed: 7\nrules: []\n"),
            ("broken.yaml", "workflw:\n  name: x\n"),
            ("both.yaml", "workflow: {}\nrules: []\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(files(&[".".to_owned()], dir.path()).unwrap(), ["both.yaml", "broken.yaml"]);
        assert_eq!(files(&["rules.yaml".to_owned()], dir.path()).unwrap(), ["rules.yaml"]);
    }

    #[test]
    fn a_directory_without_pipelines_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let failure = files(&["empty".to_owned()], dir.path()).expect_err("nothing to check");
        assert_eq!(failure.exit.code(), 2);
        assert!(failure.to_string().contains("empty"));
    }
}
