//! Typing errors: how often `check` names the word that was meant.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::support::Scratch;

/// What is asked of the suggestions, in percent.
const RIGHT: usize = 95;

/// Steps in one file.
const CHUNK: usize = 500;

/// Typing errors of two letters, for each word.
const TWICE: usize = 12;

/// A word, where it may stand, and a text with one like it.
struct Word {
    name: String,
    /// The line of a file in which `TYPO` is the word.
    line: String,
}

/// Letters beside a letter on a keyboard, and those that look like it.
fn beside(letter: char) -> &'static str {
    const ROWS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];
    for row in ROWS {
        if let Some(at) = row.find(letter) {
            return &row[at.saturating_sub(1)..(at + 2).min(row.len())];
        }
    }
    "-"
}

/// A word with one letter left out, doubled, changed for one beside it, with one beside it added, or with two exchanged.
fn once(word: &str) -> BTreeSet<String> {
    let letters: Vec<char> = word.chars().collect();
    let text = |parts: &[&[char]]| parts.concat().iter().collect::<String>();
    let mut all = BTreeSet::new();
    for (at, letter) in letters.iter().enumerate() {
        let (before, after) = (&letters[..at], &letters[at + 1..]);
        all.insert(text(&[before, after]));
        for other in beside(*letter).chars().chain([*letter]) {
            all.insert(text(&[before, &[other], after]));
            all.insert(text(&[before, &[other, *letter], after]));
            all.insert(text(&[before, &[*letter, other], after]));
        }
        if let [next, rest @ ..] = after {
            all.insert(text(&[before, &[*next, *letter], rest]));
        }
    }
    all.retain(|typo| typo != word && typo.chars().count() > 1);
    all
}

/// A few words with two such errors: the same each time.
fn twice(word: &str) -> BTreeSet<String> {
    let first: Vec<String> = once(word).into_iter().collect();
    let mut seed = word.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut all = BTreeSet::new();
    for _ in 0..TWICE {
        let second: Vec<String> = once(&first[next(first.len())]).into_iter().collect();
        if !second.is_empty() {
            all.insert(second[next(second.len())].clone());
        }
    }
    all.retain(|typo| distance(typo, word) == 2);
    all
}

/// Letters to leave out, add, change or exchange.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// What the program's schema has: keys of every step, of each type, of the workflow; and what the reference has of functions.
fn words(scratch: &Scratch) -> Vec<Word> {
    let schema = scratch.run(&["schema"]).json();
    let keys = |name: &str| -> Vec<String> {
        schema["$defs"][name]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let mut words = Vec::new();
    let mut step = |kind: &str, name: String| {
        let line = format!("    - {{name: sN, type: {kind}, TYPO: 1}}");
        words.push(Word { name, line });
    };
    let common = keys("step");
    common.iter().filter(|key| *key != "steps" && *key != "output_schema").for_each(|key| {
        step("test_echo", key.clone());
    });
    for name in schema["$defs"].as_object().unwrap().keys() {
        let kind = ["step.", "form."].iter().find_map(|front| name.strip_prefix(front));
        if let Some(kind) = kind.filter(|kind| !kind.contains('.')) {
            let own = schema["$defs"][name]["properties"].as_object();
            own.into_iter().flat_map(|own| own.keys()).filter(|key| !common.contains(key)).for_each(|key| {
                step(kind, key.clone());
            });
        }
    }
    for name in keys("workflow") {
        words.push(Word { name, line: "  TYPO: 1".to_owned() });
    }
    let reference = scratch.run(&["explain", "--expressions"]).stdout;
    let functions = reference.split("## Functions").nth(1).unwrap().split("\n## ").next().unwrap();
    for call in functions.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()) {
        let name = call.split('(').next().unwrap().to_owned();
        if name.chars().all(|letter| letter.is_alphanumeric() || letter == '_') {
            words.push(Word {
                name,
                line: "    - {name: sN, type: test_echo, value: '{{ TYPO(1) }}'}".to_owned(),
            });
        }
    }
    words
}

/// The help of each finding about an unknown key or function, by its line.
fn told(scratch: &Scratch, lines: &[String]) -> BTreeMap<u64, String> {
    let (steps, keys): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with("    "));
    let first = if keys.is_empty() { "    - {name: first, type: test_echo}\n" } else { "" };
    assert!(steps.is_empty() || keys.is_empty(), "a file has one kind");
    let tail = if keys.is_empty() { "" } else { "  steps: [{name: first, type: test_echo}]\n" };
    let head = if keys.is_empty() { "  steps:\n" } else { "" };
    let text = format!("workflow:\n  name: t\n{head}{first}{}\n{tail}", lines.join("\n"));
    scratch.write("typos.yaml", &text);
    let begin = 3 + u64::from(!head.is_empty()) + u64::from(!first.is_empty());
    let checked = scratch.run(&["check", "typos.yaml", "--json"]).json();
    let mut all = BTreeMap::new();
    for finding in checked["files"][0]["findings"].as_array().unwrap() {
        let is_about = matches!(finding["code"].as_str(), Some("E0101" | "E0401" | "E0201" | "E0207"))
            || finding["message"].as_str().is_some_and(|m| m.starts_with("there is no function"));
        if is_about && let Some(line) = finding["line"].as_u64() {
            let help = finding["help"].as_str().unwrap_or_default();
            all.insert(line - begin, help.to_owned());
        }
    }
    all
}

#[test]
fn the_word_that_was_meant_is_suggested() {
    let scratch = Scratch::new();
    let words = words(&scratch);
    assert!(words.len() > 150, "{} words", words.len());
    let mut asked: Vec<(&Word, String)> = Vec::new();
    for word in &words {
        asked.extend(once(&word.name).into_iter().chain(twice(&word.name)).map(|typo| (word, typo)));
    }
    // Two words of the workflow cannot be misspelled alike in one file.
    let mut seen = BTreeSet::new();
    asked.retain(|(word, typo)| seen.insert((word.line.clone(), typo.clone())));
    let (in_steps, in_workflow): (Vec<_>, Vec<_>) =
        asked.iter().partition(|(word, _)| word.line.starts_with("    "));
    let (mut right, mut accepted, mut wrong) = (0, 0, Vec::new());
    for chunk in in_steps.chunks(CHUNK).chain(in_workflow.chunks(CHUNK)) {
        let line = |(at, (word, typo)): (usize, &&(&Word, String))| {
            word.line.replace("TYPO", typo).replace("sN", &format!("s{at}"))
        };
        let told = told(&scratch, &chunk.iter().enumerate().map(line).collect::<Vec<_>>());
        for (at, (word, typo)) in chunk.iter().enumerate() {
            // What is no mistake is another word.
            let Some(help) = told.get(&(at as u64)) else {
                accepted += 1;
                continue;
            };
            let suggested = help.strip_prefix("did you mean `").and_then(|rest| rest.split('`').next());
            match suggested {
                Some(name) if name == word.name => right += 1,
                Some(name) if distance(typo, name) <= distance(typo, &word.name) => {}
                _ => wrong.push(format!("{typo} for {}: {help}", word.name)),
            }
        }
    }
    let all = right + wrong.len();
    println!("{right} of {all} typing errors; {accepted} are other words");
    assert!(accepted * 50 < all, "{accepted} are not found");
    assert!(all > 10_000, "{all} typing errors");
    assert!(right * 100 >= all * RIGHT, "{right} of {all}, and not: {:#?}", &wrong[..wrong.len().min(60)]);
}

/// The type of a finding's line is what the test reads.
#[test]
fn words_of_other_tools_are_understood_when_they_are_misspelled_and_own_keys_are_listed() {
    let scratch = Scratch::new();
    scratch.write(
        "guess.yaml",
        "workflow:\n  name: g\n  steps:\n    - {name: a, type: test_echo}\n    - {name: b, type: test_echo, depend_on: a}\n    - {name: c, type: shell, command: ls, zzzzzz: 1}\n    - {name: d, type: break, zzzzzz: 1}\n",
    );
    let checked: Value = scratch.run(&["check", "guess.yaml", "--json"]).json();
    let helps: Vec<&str> = checked["files"][0]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["code"] == "E0101")
        .map(|finding| finding["help"].as_str().unwrap())
        .collect();
    assert_eq!(helps[0], "did you mean `needs`?");
    assert!(helps[1].starts_with("it has: command, cwd, env, "), "{helps:?}");
    assert!(!helps[1].contains("timeout_seconds"), "{helps:?}");
    assert_eq!(helps[2], "it has only the keys that every step has");
}
