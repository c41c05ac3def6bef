//! `cargo xtask compare-code [--release]`: what `codebase_query` finds, against tools that are not ours.
//!
//! Owns the trees (this repository, and packages from their registries, in a temporary folder), the call of the other
//! tools and the comparison. Python is compared with Python's own parser, TypeScript with TypeScript's, Go and Rust with
//! universal-ctags. Needs the network, pip, npm and apt; what is missing is told as skipped. Must not know the step's code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::clock::timed;
use crate::repo::{Repo, is_installed};
use crate::report::{self, Verdict, row};

/// The least share of definitions and imports on which both must agree, in percent.
const LEAST: f64 = 98.0;

/// How many disagreements of a tree are shown.
const SHOWN: usize = 5;

const KINDS: &[&str] = &["function", "class", "import"];

/// A tree of sources and what it is compared with.
struct Case {
    name: &'static str,
    language: &'static str,
    /// Shell commands that fill the current, empty directory; none for this repository.
    fetch: &'static str,
    /// Programs that must be there.
    needs: &'static [&'static str],
    tool: Tool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    PythonAst,
    TypeScript,
    Ctags,
}

const CASES: &[Case] = &[
    Case { name: "this repository", language: "rust", fetch: "", needs: &["ctags"], tool: Tool::Ctags },
    Case {
        name: "django (PyPI)",
        language: "python",
        fetch: "python3 -m pip download -q --no-deps --no-binary :all: django==5.1.3 && tar xzf *.tar.gz && rm *.tar.gz",
        needs: &["python3"],
        tool: Tool::PythonAst,
    },
    Case {
        name: "rxjs, effect (npm)",
        language: "typescript",
        fetch: "for p in rxjs@7.8.1 effect@3.10.0; do f=$(npm pack --silent $p) && mkdir -p $p && tar xzf $f -C $p && rm $f; done",
        needs: &["node", "npm"],
        tool: Tool::TypeScript,
    },
    Case {
        name: "golang.org/x/tools (Debian)",
        language: "go",
        fetch: "apt-get download -q golang-golang-x-tools-dev 2>/dev/null && dpkg -x *.deb . && rm *.deb",
        needs: &["ctags", "dpkg"],
        tool: Tool::Ctags,
    },
];

/// What was found: how often, by kind, file, line and name.
type Found = BTreeMap<(String, String, u64, String), usize>;

/// Compares every case whose tools are there.
pub fn run(repo: &Repo, release: bool) -> Result<Verdict> {
    let binary = repo.build_binary(release)?;
    let scratch = repo.root().join("target/compare-code");
    fs::create_dir_all(&scratch).context("cannot make target/compare-code")?;
    let mut rows = vec![row(["tree", "what", "ours", "theirs", "both", "agreement", "time"])];
    let (mut problems, mut skipped, mut done) = (Vec::new(), Vec::new(), 0);
    for case in CASES {
        if let Some(missing) = case.needs.iter().find(|program| !is_installed(program)) {
            skipped.push(format!("{}: there is no `{missing}` on this machine", case.name));
            continue;
        }
        let tree = match fetched(repo, &scratch, case) {
            Ok(tree) => tree,
            Err(error) => {
                skipped.push(format!("{}: {error:#}", case.name));
                continue;
            }
        };
        compare(repo, &binary, &scratch, &tree, case, &mut rows, &mut problems)?;
        done += 1;
    }
    report::line(report::table(&rows))?;
    for reason in &skipped {
        report::line(format!("SKIPPED: {reason}"))?;
    }
    if done == 0 {
        return Ok(Verdict::Skipped("no tree could be compared".to_owned()));
    }
    Ok(Verdict::from_problems(problems, format!("{done} trees, {} skipped", skipped.len())))
}

/// The folder of a case, filled once.
fn fetched(repo: &Repo, scratch: &Path, case: &Case) -> Result<PathBuf> {
    if case.fetch.is_empty() {
        return Ok(repo.root().to_owned());
    }
    let folder = scratch.join(case.language);
    let stamp = scratch.join(format!("{}.fetched", case.language));
    if stamp.is_file() {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let status = Command::new("sh").args(["-c", case.fetch]).current_dir(&folder).status()?;
    if !status.success() {
        bail!("its sources could not be fetched");
    }
    fs::write(stamp, case.fetch)?;
    Ok(folder)
}

fn compare(
    repo: &Repo,
    binary: &Path,
    scratch: &Path,
    tree: &Path,
    case: &Case,
    rows: &mut Vec<Vec<String>>,
    problems: &mut Vec<String>,
) -> Result<()> {
    let (files, mut ours, time) = ours(binary, scratch, tree, case)?;
    let list = scratch.join(format!("{}.files", case.language));
    fs::write(&list, files.join("\n"))?;
    let mut theirs = match case.tool {
        Tool::PythonAst => lines(
            tree,
            &list,
            Command::new("python3").arg(repo.root().join("xtask/compare-code/python_ast.py")),
        )?,
        Tool::TypeScript => {
            let tools = scratch.join("tools");
            fs::create_dir_all(&tools)?;
            if !tools.join("node_modules/typescript").is_dir() {
                let args = ["install", "--silent", "--no-save", "--prefix", ".", "typescript@5.6.3"];
                let status = Command::new("npm").args(args).current_dir(&tools).status()?;
                if !status.success() {
                    bail!("npm could not install typescript");
                }
            }
            let script = repo.root().join("xtask/compare-code/typescript.cjs");
            lines(tree, &list, Command::new("node").arg(script).arg(&tools))?
        }
        Tool::Ctags => ctags(tree, &list, case.language)?,
    };
    // What the language's own parser refuses is no question.
    let refused: Vec<String> =
        theirs.keys().filter(|(what, ..)| what == "unreadable").map(|(_, file, ..)| file.clone()).collect();
    for found in [&mut ours, &mut theirs] {
        found.retain(|(what, file, ..), _| what != "unreadable" && !refused.contains(file));
    }
    if case.tool == Tool::Ctags && case.language != "go" {
        // It does not know imports of Rust.
        ours.retain(|(what, ..), _| what != "import");
    }
    let count =
        |found: &Found, of: &str| found.iter().filter(|((w, ..), _)| w == of).map(|(_, n)| *n).sum::<usize>();
    for what in KINDS.iter().copied() {
        let (mine, other) = (count(&ours, what), count(&theirs, what));
        let both = ours
            .iter()
            .filter(|((w, ..), _)| w == what)
            .map(|(key, n)| theirs.get(key).map_or(0, |m| *n.min(m)))
            .sum::<usize>();
        let all = mine + other - both;
        if all == 0 {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of definitions are far below 2^52")]
        let share = both as f64 * 100.0 / all as f64;
        rows.push(row([
            &format!("{} ({} files)", case.name, files.len()),
            what,
            &mine.to_string(),
            &other.to_string(),
            &both.to_string(),
            &format!("{share:.2} %"),
            &time,
        ]));
        if share < LEAST {
            problems.push(format!("{}: {what}: only {share:.2} % are found by both", case.name));
        }
    }
    report::line(format!("{}: {} files that the other tool refuses", case.name, refused.len()))?;
    differences("only ours", &ours, &theirs)?;
    differences("only theirs", &theirs, &ours)
}

fn differences(title: &str, these: &Found, those: &Found) -> Result<()> {
    for kind in KINDS {
        let only = these.iter().filter(|((what, ..), _)| what == kind);
        let only = only.filter(|(key, n)| those.get(*key).is_none_or(|m| m < *n));
        for ((what, file, line, name), _) in only.take(SHOWN) {
            report::line(format!("  {title}: {what} {name} at {file}:{line}"))?;
        }
    }
    Ok(())
}

/// Files of the language, what the step finds in them, and how long the run took.
fn ours(binary: &Path, scratch: &Path, tree: &Path, case: &Case) -> Result<(Vec<String>, Found, String)> {
    let language = case.language;
    let queries = json!({
        "files": { "find_files": { "language": language, "size_max": 1024 * 1024 } },
        "functions": { "find_functions": { "language": language } },
        "classes": { "find_classes": { "language": language } },
        "imports": { "find_imports": { "language": language } },
    });
    let step = json!({ "name": "code", "type": "codebase_query", "queries": queries });
    let pipeline = scratch.join("compare.json");
    fs::write(&pipeline, json!({ "workflow": { "name": "compare", "steps": [step] } }).to_string())?;
    let mut command = Command::new(binary);
    command.arg("run").arg(&pipeline).args(["--mock", "--json", "--state-dir"]).arg(scratch.join("state"));
    command.current_dir(tree).stdin(Stdio::null());
    let (output, time) = timed(|| command.output());
    let output = output.with_context(|| format!("cannot start {}", binary.display()))?;
    let time = format!("{:.1} s", time.as_secs_f64());
    if !output.status.success() {
        bail!("`pipeline run` ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let report: Value =
        serde_json::from_slice(&output.stdout).context("`pipeline run --json` printed no JSON")?;
    let value = &report["outputs"]["code"];
    let files = value["files"]["files"].as_array().context("there are no files in the answer")?;
    let files = files.iter().filter_map(|f| f["path"].as_str()).map(str::to_owned).collect();
    let mut found = Found::new();
    for (query, what, name) in
        [("functions", "function", "name"), ("classes", "class", "name"), ("imports", "import", "module")]
    {
        for one in value[query].as_array().into_iter().flatten() {
            // ctags does not look into functions of Go.
            if language == "go" && what != "import" && one["parent"].is_string() && one["type"] != "method" {
                continue;
            }
            add(&mut found, what, &one["file"], &one["line"], &one[name]);
        }
    }
    Ok((files, found, time))
}

fn add(found: &mut Found, what: &str, file: &Value, line: &Value, name: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    *found.entry((what.to_owned(), text(file), line.as_u64().unwrap_or(0), text(name))).or_default() += 1;
}

/// What a tool prints, one JSON object a line, for files that it reads from standard input.
fn lines(tree: &Path, files: &Path, command: &mut Command) -> Result<Found> {
    let output = command
        .current_dir(tree)
        .stdin(fs::File::open(files)?)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the other tool")?;
    if !output.status.success() {
        bail!("the other tool ended with {}", output.status);
    }
    let mut found = Found::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let one: Value =
            serde_json::from_str(line).context("the other tool printed something else than JSON")?;
        let what = one["what"].as_str().unwrap_or_default().to_owned();
        add(&mut found, &what, &one["file"], &one["line"], &one["name"]);
    }
    Ok(found)
}

/// What universal-ctags finds.
fn ctags(tree: &Path, files: &Path, language: &str) -> Result<Found> {
    let output = Command::new("ctags")
        .args([
            "--options=NONE",
            "--output-format=json",
            "--fields=+nKr",
            "--extras=+r",
            "--sort=no",
            "-f",
            "-",
            "-L",
        ])
        .arg(files)
        .current_dir(tree)
        .output()
        .context("cannot start ctags")?;
    let mut found = Found::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let tag: Value = serde_json::from_str(line).context("this ctags writes no JSON")?;
        let what = match (language, tag["kind"].as_str().unwrap_or_default()) {
            ("rust", "function" | "method" | "macro") | ("go", "func" | "methodSpec") => "function",
            ("rust", "module" | "struct" | "enum" | "typedef" | "interface")
            | ("go", "struct" | "interface" | "type" | "talias") => "class",
            ("go", "package") if tag["roles"] == "imported" => "import",
            _ => continue,
        };
        add(&mut found, what, &tag["path"], &tag["line"], &tag["name"]);
    }
    Ok(found)
}
