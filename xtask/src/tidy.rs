//! `cargo xtask tidy`: the house rules that a compiler does not check.
//!
//! Owns the budgets, the forbidden words and the walk over the repository. Must not know Rust syntax (`source_text.rs`),
//! module order (`order.rs`) or Markdown (`links.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::links;
use crate::order;
use crate::repo::Repo;
use crate::report::{self, Verdict};
use crate::source_text::{
    functions, line_of, lines_without_tests, mask, test_modules, traits, without_tests,
};

/// A size that is too much to read at once (`warn`) and one that is refused (`fail`).
struct Budget {
    what: &'static str,
    warn: usize,
    fail: usize,
}

const FILE: Budget = Budget { what: "lines without tests", warn: 500, fail: 800 };
const FUNCTION: Budget = Budget { what: "lines", warn: 60, fail: 100 };
const TRAIT: Budget = Budget { what: "methods", warn: 5, fail: 8 };

/// Text that no Rust file of ours holds outside comments and literals.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!", "finish it, or return a typed error that says what is missing"),
    ("unimplemented!", "finish it, or return a typed error that says what is missing"),
    ("dbg!", "remove it; tracing is for what should stay"),
    ("#[ignore", "a test that does not run proves nothing: fix it or delete it"),
];

/// File names that say nothing about what is inside.
const VAGUE: &[&str] = &["utils", "util", "types", "prelude", "helpers", "helper"];

/// What somebody's own directory looks like in a path. Written in two halves, so that this file does not hold them.
const HOMES: &[&str] =
    &[concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("C:\\Us", "ers\\")];

/// Names that stand for anybody, in examples and in tests of path handling.
const ANYBODY: &[&str] = &["me", "you", "user", "someone", "x"];

/// Everything that one walk finds.
#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn judge(&mut self, place: &str, budget: &Budget, size: usize) {
        let Budget { what, warn, fail } = *budget;
        if size > fail {
            self.problems.push(format!("{place}: {size} {what}, the limit is {fail}; split it"));
        } else if size > warn {
            self.warnings.push(format!("{place}: {size} {what}, more than {warn}"));
        }
    }
}

/// One Rust file, read once.
struct RustFile {
    path: String,
    text: String,
    masked: String,
    /// Masked, and without inline test modules.
    code: String,
}

/// Checks the whole repository.
pub fn run(repo: &Repo) -> Result<Verdict> {
    let paths = repo.files()?;
    let mut findings = Findings::default();
    let mut rust = Vec::new();
    for path in paths.iter().filter(|path| is_ours(path)) {
        let text = repo.read(path)?;
        let masked = mask(&text);
        let code = without_tests(&masked);
        rust.push(RustFile { path: path.clone(), text, masked, code });
    }
    let tests = test_files(&rust);
    for file in &rust {
        check_words(file, &mut findings);
        check_shared(file, &mut findings);
        if file.path.contains("/src/") {
            check_header(file, &mut findings);
            if !tests.iter().any(|test| belongs_to(&file.path, test)) {
                check_budgets(file, &mut findings);
            }
        }
    }
    check_order(&rust, &tests, &mut findings);
    check_names(&paths, &mut findings);
    check_homes(repo, &paths, &mut findings)?;
    check_links(repo, &paths, &mut findings)?;
    for warning in &findings.warnings {
        report::line(format!("warning: {warning}"))?;
    }
    let note =
        format!("{} files, {} of them Rust; {} warnings", paths.len(), rust.len(), findings.warnings.len());
    Ok(Verdict::from_problems(findings.problems, note))
}

fn is_ours(path: &str) -> bool {
    (path.starts_with("pipeline-") || path.starts_with("xtask/")) && extension(path) == "rs"
}

fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// Paths of the files declared `#[cfg(test)] mod x;`.
fn test_files(files: &[RustFile]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files {
        for name in test_modules(&file.masked) {
            found.insert(format!("{}/{name}.rs", child_folder(&file.path)));
        }
    }
    found
}

/// The folder in which the child modules of a file live.
fn child_folder(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

/// True for a test file and for everything in the folder of the same name.
fn belongs_to(path: &str, test: &str) -> bool {
    path == test || path.starts_with(&format!("{}/", test.trim_end_matches(".rs")))
}

fn check_header(file: &RustFile, findings: &mut Findings) {
    if !file.text.starts_with("//!") {
        let ask = "begin it with `//!` lines: what it owns, what it must not know, where to go next";
        findings.problems.push(format!("{}:1: no module header; {ask}", file.path));
    }
}

fn check_budgets(file: &RustFile, findings: &mut Findings) {
    findings.judge(&file.path, &FILE, lines_without_tests(&file.masked));
    for function in functions(&file.code) {
        let place = format!("{}:{}: fn {}", file.path, function.line, function.name);
        findings.judge(&place, &FUNCTION, function.size);
    }
    for found in traits(&file.code) {
        let place = format!("{}:{}: trait {}", file.path, found.line, found.name);
        findings.judge(&place, &TRAIT, found.size);
    }
}

fn check_words(file: &RustFile, findings: &mut Findings) {
    for (word, ask) in FORBIDDEN {
        for (at, _) in file.masked.match_indices(word) {
            let standalone =
                file.masked[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
            if standalone {
                let line = line_of(file.masked.as_bytes(), at);
                findings.problems.push(format!("{}:{line}: `{word}` is not allowed; {ask}", file.path));
            }
        }
    }
}

/// State of the process that runs and tests could change under each other. Those that are allowed change nothing that anybody
/// can see: lists and tables made once, counters that make names unique, a bound of threads.
fn check_shared(file: &RustFile, findings: &mut Findings) {
    const ALLOWED: [(&str, &str); 9] = [
        ("pipeline-core/src/planted.rs", "WANTED"),
        ("pipeline-core/src/engine/blocking.rs", "BUDGET"),
        ("pipeline-core/src/expr/language.rs", "EXPRESSIONS"),
        ("pipeline-core/src/expr/language.rs", "DATA_SOURCES"),
        ("pipeline-core/src/expr/functions/compare.rs", "PATTERNS"),
        ("pipeline-core/src/process/family.rs", "CHILDREN"),
        ("pipeline-steps/src/atomic.rs", "NEXT"),
        ("pipeline-steps/src/fuzz.rs", "CATALOG"),
        ("pipeline-tools/src/files.rs", "CALLS"),
    ];
    for (number, line) in file.masked.lines().enumerate() {
        let place = format!("{}:{}", file.path, number + 1);
        for call in ["set_var(", "remove_var(", "set_current_dir(", "static mut ", "thread_local!"] {
            if line.contains(call) {
                let what =
                    format!("`{}` changes what the whole process shares; hand the value on", call.trim());
                findings.problems.push(format!("{place}: {what}"));
            }
        }
        let mut words =
            line.trim_start().trim_start_matches("pub(super) ").trim_start_matches("pub ").split_whitespace();
        let (Some("static"), Some(name)) = (words.next(), words.next()) else { continue };
        let name = name.trim_end_matches(':');
        let changes = ["Mutex", "RwLock", "Atomic", "Cell", "OnceLock", "LazyLock", "Semaphore"];
        if changes.iter().any(|kind| line.contains(kind)) && !ALLOWED.contains(&(file.path.as_str(), name)) {
            findings
                .problems
                .push(format!("{place}: `{name}` is state of the whole process; put it into what owns it"));
        }
    }
}

fn check_order(files: &[RustFile], tests: &BTreeSet<String>, findings: &mut Findings) {
    const HOME: &str = "pipeline-core/src/";
    let Some(lib) = files.iter().find(|file| file.path == format!("{HOME}lib.rs")) else {
        findings.problems.push(format!("{HOME}lib.rs is missing, so the module order cannot be checked"));
        return;
    };
    let declared = order::declared(&lib.masked);
    let mut used = BTreeSet::new();
    for file in files {
        let Some(inside) = file.path.strip_prefix(HOME) else { continue };
        if tests.iter().any(|test| belongs_to(&file.path, test)) {
            continue;
        }
        let module = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        for upward in order::upward(&declared, module, &file.code) {
            if let Some(excuse) = order::excused(&upward) {
                used.insert((excuse.from, excuse.to));
                continue;
            }
            let order::Upward { from, to, line } = upward;
            findings.problems.push(format!(
                "{}:{line}: `{from}` uses `{to}`, which lib.rs declares below it; move what both need into a \
                 module above, or change the order in lib.rs",
                file.path
            ));
        }
    }
    for excuse in order::EXCEPTIONS.iter().filter(|e| !used.contains(&(e.from, e.to))) {
        let order::Exception { from, to, reason } = excuse;
        findings.warnings.push(format!(
            "xtask/src/order.rs: the exception {from} -> {to} ({reason}) is no longer needed; remove it"
        ));
    }
}

fn check_names(paths: &[String], findings: &mut Findings) {
    for path in paths {
        let stem = Path::new(path).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let vague_folder = Path::new(path).parent().is_some_and(|parent| {
            parent.components().any(|part| VAGUE.iter().any(|vague| part.as_os_str() == *vague))
        });
        if extension(path) == "rs" && (VAGUE.contains(&stem) || vague_folder) {
            findings.problems.push(format!("{path}: the name says nothing; name it after what it owns"));
        }
    }
}

fn check_homes(repo: &Repo, paths: &[String], findings: &mut Findings) -> Result<()> {
    for path in paths {
        let bytes = std::fs::read(repo.root().join(path))?;
        let text = String::from_utf8_lossy(&bytes);
        for (i, line) in text.lines().enumerate() {
            if let Some(home) = home_path(line) {
                findings.problems.push(format!(
                    "{path}:{}: `{home}` is a path of one machine; write it relative, or make it up at run time",
                    i + 1
                ));
            }
        }
    }
    Ok(())
}

/// A path below somebody's own directory in a line of text.
fn home_path(line: &str) -> Option<&str> {
    HOMES.iter().find_map(|home| {
        line.match_indices(home).find_map(|(at, _)| {
            // `docs/…` before it makes it part of a longer, relative path.
            let starts = line[..at]
                .chars()
                .next_back()
                .is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-'));
            let after = &line[at + home.len()..];
            let name =
                after.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').unwrap_or(after.len());
            let told = starts && name > 0 && !ANYBODY.contains(&&after[..name]);
            told.then(|| &line[at..at + home.len() + name])
        })
    })
}

fn check_links(repo: &Repo, paths: &[String], findings: &mut Findings) -> Result<()> {
    let known: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let mut anchors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in paths.iter().filter(|path| extension(path) == "md") {
        anchors.insert(path.clone(), links::anchors(&repo.read(path)?));
    }
    for path in anchors.keys() {
        for link in links::relative(&repo.read(path)?) {
            let place = format!("{path}:{}", link.line);
            let Some(target) = resolve(path, &link.path) else {
                findings.problems.push(format!("{place}: the link `{}` leaves the repository", link.path));
                continue;
            };
            let is_folder = paths.iter().any(|known| known.starts_with(&format!("{target}/")));
            if !known.contains(target.as_str()) && !is_folder {
                findings.problems.push(format!("{place}: the link `{}` leads nowhere", link.path));
            } else if let (Some(anchor), Some(there)) = (&link.anchor, anchors.get(&target))
                && !there.contains(anchor)
            {
                findings.problems.push(format!("{place}: {target} has no heading `#{anchor}`"));
            }
        }
    }
    Ok(())
}

/// A link's path from the root; `None` when it leads out of the repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    if link.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts = PathBuf::new();
    for part in Path::new(from).parent()?.join(link).components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir if parts.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(parts.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn file(path: &str, text: &str) -> RustFile {
        let masked = mask(text);
        let code = without_tests(&masked);
        RustFile { path: path.into(), text: text.into(), masked, code }
    }

    #[test]
    fn budgets_warn_above_the_first_number_and_fail_above_the_second() {
        let mut findings = Findings::default();
        for size in [60, 61, 100, 101] {
            findings.judge("a.rs:1: fn f", &FUNCTION, size);
        }
        assert_eq!((findings.warnings.len(), findings.problems.len()), (2, 1));
    }

    #[test]
    fn forbidden_words_are_found_in_code_only() {
        let mut findings = Findings::default();
        let text = "//! todo!()\nfn a() { let s = \"dbg!\"; my_todo!(); todo!() }\n#[ignore = \"slow\"]\nfn b() {}\n";
        check_words(&file("x/src/a.rs", text), &mut findings);
        assert_eq!(findings.problems.len(), 2, "{:?}", findings.problems);
        assert!(findings.problems[0].starts_with("x/src/a.rs:2: `todo!`"));
        assert!(findings.problems[1].starts_with("x/src/a.rs:3: `#[ignore`"));
    }

    /// Naive: settings are variables of the process, and tests or runs that go on at once change them under each other.
    /// Figure: every Rust file, tests too.
    #[test]
    fn x24_no_file_changes_what_the_whole_process_shares() {
        let mut findings = Findings::default();
        let text = "//! set_var(\nfn a() { unsafe { std::env::set_var(\"A\", \"set_var(\") } }\nstatic mut N: u8 = 0;\n\
                    pub static MODE: Mutex<u8> = Mutex::new(0);\nstatic LIST: &[u8] = &[];\n    static NEXT: AtomicU64 = AtomicU64::new(0);\n";
        check_shared(&file("pipeline-steps/src/atomic.rs", text), &mut findings);
        let lines: Vec<&str> = findings.problems.iter().filter_map(|p| p.split(':').nth(1)).collect();
        assert_eq!(lines, ["2", "3", "4"], "{:?}", findings.problems);

        let repo = Repo::find().unwrap();
        let mut findings = Findings::default();
        let paths: Vec<String> = repo.files().unwrap().into_iter().filter(|path| is_ours(path)).collect();
        assert!(paths.len() > 300);
        for path in paths {
            check_shared(&file(&path, &repo.read(&path).unwrap()), &mut findings);
        }
        assert_eq!(findings.problems, Vec::<String>::new());
    }

    #[test]
    fn a_test_module_in_its_own_file_is_known_as_one() {
        let files = [
            file("c/src/expr.rs", "#[cfg(test)]\nmod tests;\n"),
            file("c/src/lib.rs", "#[cfg(test)]\nmod checks;\n"),
        ];
        let tests = test_files(&files);
        assert!(tests.contains("c/src/expr/tests.rs") && tests.contains("c/src/checks.rs"), "{tests:?}");
        assert!(belongs_to("c/src/checks/more.rs", "c/src/checks.rs"));
        assert!(!belongs_to("c/src/checks_more.rs", "c/src/checks.rs"));
    }

    #[test]
    fn own_directories_are_found_and_relative_paths_are_not() {
        let bad = format!("see {}alice/x", HOMES[0]);
        assert_eq!(home_path(&bad), Some(&bad[4..bad.len() - 2]));
        assert_eq!(home_path(&format!("docs{}page.md", HOMES[0])), None);
        assert_eq!(home_path(&format!("the folder {} itself", HOMES[0])), None);
        assert_eq!(home_path(&format!("{}me/x", HOMES[0])), None, "an invented one names no machine");
    }

    #[test]
    fn links_are_resolved_from_the_page_that_holds_them() {
        assert_eq!(resolve("docs/style.md", "../README.md").unwrap(), "README.md");
        assert_eq!(resolve("docs/style.md", "decisions/").unwrap(), "docs/decisions");
        assert_eq!(resolve("README.md", "").unwrap(), "README.md");
        assert_eq!(resolve("README.md", "../x.md"), None);
    }
}
