//! What must be impossible, the tests that show it, and the page that says so.
//!
//! Owns the reading of `xtask/hazards.txt` and of the tests that carry its ids in their names (`n05_x25_…`). Made of both, of the
//! README's promise and, where it is there, of the figures in `docs/reliability.json`: `docs/reliability.md`. Must not know what
//! a test does. An id without a test is a problem, and so is a test that does not say on which naive version it fails.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::repo::Repo;

/// Where the page is.
pub const PAGE: &str = "docs/reliability.md";

/// The heading of the README above the promise.
const PROMISE: &str = "## What it promises";

const HEADING: &str = "\
<!-- Written by `cargo xtask codegen` from README.md, xtask/hazards.txt, the tests and docs/reliability.json; do not edit. -->

# Reliability
";

/// One thing that must be impossible.
#[derive(Debug, PartialEq, Eq)]
struct Hazard {
    /// `N08a`.
    id: String,
    fault: String,
    property: String,
}

/// A test with ids in its name.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    /// In the order of the name, as in the list.
    ids: Vec<String>,
    name: String,
    file: String,
    /// The naive version that it fails on.
    naive: Option<String>,
    /// How much it tries.
    figure: Option<String>,
}

/// The page, and everything that is missing for it.
pub fn page(repo: &Repo) -> Result<(String, Vec<String>)> {
    let hazards = read(&repo.read("xtask/hazards.txt")?)?;
    let mut tests = Vec::new();
    let is_rust = |file: &&String| Path::new(file).extension().is_some_and(|extension| extension == "rs");
    for file in repo.files()?.iter().filter(is_rust) {
        tests.extend(tests_of(file, &repo.read(file)?));
    }
    tests.sort_by(|a, b| (&a.name, &a.file).cmp(&(&b.name, &b.file)));
    let figures = match repo.read("docs/reliability.json") {
        Ok(text) => Some(serde_json::from_str(&text).context("docs/reliability.json is not JSON")?),
        Err(_) => None,
    };
    let readme = repo.read("README.md")?;
    let promise = section(&readme, PROMISE).with_context(|| format!("README.md has no `{PROMISE}`"))?;
    // Its last paragraph sends the reader of the README here.
    let promise = promise.rsplit_once("\n\n").map_or(promise, |(promise, _)| promise);
    Ok((text(promise, figures.as_ref(), &hazards, &tests), problems(&hazards, &tests)))
}

/// The hazards of the list.
fn read(list: &str) -> Result<Vec<Hazard>> {
    let lines = list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let hazard = |line: &str| {
        let mut parts = line.splitn(3, " | ").map(|part| part.trim().to_owned());
        let mut next =
            || parts.next().with_context(|| format!("xtask/hazards.txt: `{line}` has not three parts"));
        Ok(Hazard { id: next()?, fault: next()?, property: next()? })
    };
    lines.map(hazard).collect()
}

/// The tests of a file that have ids in their names. Functions that are no tests are helpers of some.
fn tests_of(file: &str, text: &str) -> Vec<Test> {
    let mut found = Vec::new();
    let mut doc = String::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            doc.push_str(comment);
            doc.push('\n');
            continue;
        }
        if line.starts_with("#[") || line.starts_with("#![") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            continue;
        }
        let signature = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = signature.and_then(|rest| rest.split('(').next())
            && is_test
        {
            let ids = ids(name);
            if !ids.is_empty() {
                let (naive, figure) = (said(&doc, "Naive:"), said(&doc, "Figure:"));
                found.push(Test { ids, name: name.to_owned(), file: file.to_owned(), naive, figure });
            }
        }
        doc.clear();
        is_test = false;
    }
    found
}

/// The ids that a name begins with.
fn ids(name: &str) -> Vec<String> {
    let is_id = |word: &&str| {
        let digits = word.get(1..).unwrap_or("").trim_end_matches(['a', 'b', 'c', 'd']);
        word.starts_with(['n', 'x']) && digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let upper = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').take_while(is_id).map(upper).collect()
}

/// What a doc comment says behind a word, up to the next such word, as one line.
fn said(doc: &str, word: &str) -> Option<String> {
    let (_, rest) = doc.split_once(word)?;
    let end = ["Naive:", "Figure:"].iter().filter_map(|other| rest.find(other)).min().unwrap_or(rest.len());
    let words: Vec<&str> = rest[..end].split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// What stands under a heading, up to the next one of its kind.
fn section<'a>(markdown: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = markdown.split_once(&format!("{heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest).trim())
}

fn problems(hazards: &[Hazard], tests: &[Test]) -> Vec<String> {
    let known: BTreeSet<&str> = hazards.iter().map(|hazard| hazard.id.as_str()).collect();
    let shown: BTreeSet<&str> = tests.iter().flat_map(|test| &test.ids).map(String::as_str).collect();
    let untested = known.difference(&shown).map(|id| format!("no test has {id} in its name"));
    let unlisted =
        shown.difference(&known).map(|id| format!("{id} has tests, and is not in xtask/hazards.txt"));
    let of = |test: &Test, lacks: &str| format!("{}: `{}` has no {lacks}", test.file, test.name);
    let silent = tests.iter().filter(|test| test.naive.is_none());
    let silent = silent.map(|test| of(test, "sentence `Naive: …` that says which version it fails on"));
    untested.chain(unlisted).chain(silent).collect()
}

fn text(promise: &str, scorecard: Option<&Value>, hazards: &[Hazard], tests: &[Test]) -> String {
    let mut text = format!("{HEADING}\n## The promise\n\n{promise}\n\n## Scorecard\n\n");
    match scorecard {
        Some(scorecard) => text.push_str(&scores(scorecard)),
        None => text.push_str("No figures are committed yet.\n"),
    }
    text.push_str(
        "\n## What must be impossible\n\nEach line has tests that fail on the naive version, which the list below this one tells.\n\n\
         | id | what goes wrong | what holds here | tried with | tests |\n|---|---|---|---|---|\n",
    );
    for Hazard { id, fault, property } in hazards {
        let of_it: Vec<&Test> = tests.iter().filter(|test| test.ids.contains(id)).collect();
        let figures: Vec<&str> = of_it.iter().filter_map(|test| test.figure.as_deref()).collect();
        let links: Vec<String> = of_it.iter().map(|t| format!("[{}](../{})", t.name, t.file)).collect();
        let cells =
            [id, fault, property, &figures.join(" "), &links.join(", ")].map(|cell| cell.replace('|', "\\|"));
        // Writing into a String cannot fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push_str("\n## The naive versions\n\nWhat each test fails on.\n\n");
    for test in tests {
        let _ = writeln!(text, "- `{}`: {}", test.name, test.naive.as_deref().unwrap_or("not told"));
    }
    text
}

/// The table of `docs/reliability.json`.
fn scores(scorecard: &Value) -> String {
    const COLUMNS: [(&str, &str); 10] = [
        ("id", "id"),
        ("name", "test"),
        ("figure", "figure"),
        ("trials", "trials"),
        ("failures", "failures"),
        ("bound", "95 % bound"),
        ("control", "control that must fail"),
        ("seed", "seed"),
        ("mode", "run"),
        ("commit", "commit"),
    ];
    let mut text =
        format!("| {} |\n|{}\n", COLUMNS.map(|(_, title)| title).join(" | "), "---|".repeat(COLUMNS.len()));
    for test in scorecard["tests"].as_array().into_iter().flatten() {
        let cells = COLUMNS.map(|(key, _)| match &test[key] {
            Value::String(text) => text.replace('|', "\\|"),
            Value::Null => String::new(),
            // The bound of few trials says nothing: one in one.
            bound if key == "bound" => format!("{:.1e}", bound.as_f64().unwrap_or(1.0).min(1.0)),
            other => other.to_string(),
        });
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    /// Lines behind `> `, so that this file has no such tests itself.
    const FILE: &str = "
    > /// It is so.
    > /// Naive: the other
    > /// way. Figure: 9 of 9.
    > #[tokio::test(start_paused = true)]
    > async fn n05_x25_all_is_well() {}
    >
    > #[test]
    > fn n08a_nothing_is_said() {}
    >
    > /// Naive: a helper is no test.
    > fn n06_helper() {}
    >
    > #[test]
    > fn next_to_nothing() {}
    ";

    fn found() -> Vec<Test> {
        let lines = FILE.lines().map(|line| line.trim().trim_start_matches(['>', ' ']));
        tests_of("a.rs", &lines.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn tests_are_found_by_their_names_with_what_they_fail_on() {
        let tests = found();
        assert_eq!(tests.len(), 2, "{tests:?}");
        assert_eq!(tests[0].ids, ["N05", "X25"]);
        assert_eq!(tests[0].naive.as_deref(), Some("the other way."));
        assert_eq!(tests[0].figure.as_deref(), Some("9 of 9."));
        assert_eq!((tests[1].ids.as_slice(), &tests[1].naive), (&["N08a".to_owned()][..], &None));
    }

    #[test]
    fn what_is_missing_is_told() {
        let list = "# comment\nN05 | a | b\nX25 | a | b\nX30 | a | b\n";
        let told = problems(&read(list).unwrap(), &found());
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("no test has X30") && told[1].contains("N08a has tests"), "{told:?}");
        assert!(told[2].contains("`n08a_nothing_is_said` has no sentence `Naive: …`"), "{told:?}");
        assert!(read("N05 | only two").is_err());
    }

    #[test]
    fn the_page_has_promise_figures_and_tests() {
        let promise = section("# x\n## What it promises\n\n1. One.\n\n## Next\n", PROMISE).unwrap();
        let figures =
            json!({"tests": [{"id": "T1", "name": "kill", "figure": "0 lost", "trials": 61, "failures": 0}]});
        let hazards = read("N05 | a | b | c\nN08a | a | b").unwrap();
        let text = text(promise, Some(&figures), &hazards, &found());
        assert!(text.contains("## The promise\n\n1. One.\n"), "{text}");
        assert!(text.contains("| T1 | kill | 0 lost | 61 | 0 |  |  |  |"), "{text}");
        assert!(text.contains("| N05 | a | b \\| c | 9 of 9. | [n05_x25_all_is_well](../a.rs) |"), "{text}");
        assert!(text.contains("- `n05_x25_all_is_well`: the other way."), "{text}");
    }

    #[test]
    fn the_list_has_every_id_once() {
        let hazards = read(include_str!("../hazards.txt")).unwrap();
        let ids: BTreeSet<&str> = hazards.iter().map(|hazard| hazard.id.as_str()).collect();
        let letters =
            |id: &str, to: char| ('a'..=to).map(|letter| format!("{id}{letter}")).collect::<Vec<_>>();
        let mut expected: Vec<String> = (1..=30).map(|n| format!("X{n:02}")).collect();
        expected.extend((1..=25).filter(|n| ![8, 19].contains(n)).map(|n| format!("N{n:02}")));
        expected.extend(letters("N08", 'd').into_iter().chain(letters("N19", 'c')));
        assert_eq!(ids.len(), hazards.len());
        assert_eq!(ids, expected.iter().map(String::as_str).collect());
    }
}
