//! `cargo xtask deps`: the crate graph is a test.
//!
//! Owns the allowed edges, the forbidden packages and the check of ARCHITECTURE.md's table. Reads `cargo metadata` only;
//! must not know how packages are built.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::licences;
use crate::repo::Repo;
use crate::report::{self, Verdict, row};

const FOUR: &[&str] = &["pipeline-checkpoint", "pipeline-providers", "pipeline-steps", "pipeline-tools"];

/// Which crates of the workspace each crate uses: these and no others.
fn allowed(name: &str) -> Option<Vec<&'static str>> {
    match name {
        "pipeline-cli" => Some([FOUR, &["pipeline-core"]].concat()),
        "pipeline-core" | "xtask" => Some(Vec::new()),
        _ if FOUR.contains(&name) => Some(vec!["pipeline-core"]),
        _ => None,
    }
}

/// A package that may not be anywhere in the tree, on any platform.
struct Forbidden {
    name: &'static str,
    reason: &'static str,
}

const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        name: "serde_yaml",
        reason: "archived; one aliased scalar takes gigabytes; the name is serde-saphyr's here",
    },
    Forbidden { name: "serde_yml", reason: "RUSTSEC-2025-0068: unsound and archived" },
    Forbidden { name: "yaml-rust", reason: "RUSTSEC-2024-0320: unmaintained" },
    Forbidden {
        name: "openssl-sys",
        reason: "needs a system library at build and at run time; TLS is rustls",
    },
    Forbidden { name: "native-tls", reason: "TLS behaves differently on each platform; TLS is rustls" },
    Forbidden { name: "aws-lc-sys", reason: "the slowest unit of the whole build; rustls uses ring" },
    Forbidden { name: "sled", reason: "never reached a stable format; the journal is ours" },
    Forbidden { name: "chrono", reason: "jiff is the one date library" },
];

/// Forbidden packages that one user brings along and cannot be had without: package, user, why that user is worth it.
const ACCEPTED: &[(&str, &str, &str)] =
    &[("chrono", "rmcp", "the official MCP client always depends on it; none of our code uses it")];

/// What a crate may not reach through normal and build dependencies, however deep.
const FORBIDDEN_BELOW: &[(&str, &[&str], &str)] = &[(
    "pipeline-core",
    &["reqwest", "hyper", "clap", "moka", "cap-std"],
    "the core knows no HTTP, terminals, caches or files",
)];

/// One direct dependency of the workspace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Direct {
    /// Crates that use it at run or build time, by short name.
    used_by: BTreeSet<String>,
    /// Crates that use it in tests.
    tested_by: BTreeSet<String>,
}

impl Direct {
    /// The cell of ARCHITECTURE.md's column "crates".
    fn crates(&self) -> String {
        let used = self.used_by.iter().cloned();
        let tested = self.tested_by.difference(&self.used_by).map(|name| format!("{name} (tests)"));
        used.chain(tested).collect::<Vec<_>>().join(", ")
    }
}

/// Checks edges, packages and the page; prints the crate graph as a table. With `fix`, renews the page's column of
/// crates first; reasons are never written by a machine.
pub fn run(repo: &Repo, fix: bool) -> Result<Verdict> {
    let metadata = repo.metadata()?;
    let graph = Graph::read(&metadata)?;
    let mut page = repo.read("ARCHITECTURE.md")?;
    if fix {
        page = renewed(&page, &graph.direct());
        std::fs::write(repo.root().join("ARCHITECTURE.md"), &page).context("cannot write ARCHITECTURE.md")?;
    }
    let mut problems = Vec::new();
    let mut rows = vec![row(["crate", "uses", "verdict"])];
    for (name, uses) in graph.workspace_edges() {
        let wrong = wrong_edges(&name, &uses);
        let shown: Vec<&str> = uses.iter().map(String::as_str).collect();
        let shown = if shown.is_empty() { "-".to_owned() } else { shown.join(", ") };
        rows.push(row([&name, &shown, if wrong.is_empty() { "ok" } else { "WRONG" }]));
        problems.extend(wrong);
    }
    report::line(report::table(&rows))?;
    let forbidden = forbidden_packages(&graph);
    let below = forbidden_below(&graph);
    let unlicensed = licences::problems(&metadata)?;
    let rules = vec![
        row(["rule", "verdict"]),
        row([&format!("none of {} forbidden packages in the tree", FORBIDDEN.len()), mark(&forbidden)]),
        row(["pipeline-core reaches none of its forbidden packages", mark(&below)]),
        row([&format!("licences of {} packages", array(&metadata, "packages")?.len()), mark(&unlicensed)]),
    ];
    problems.extend(forbidden);
    problems.extend(below);
    problems.extend(unlicensed);
    let direct = graph.direct();
    let listed = check_page(&direct, &page);
    let rule = format!("each of {} direct dependencies is in ARCHITECTURE.md", direct.len());
    let rules = [rules, vec![row([&rule, mark(&listed)])]].concat();
    report::line(report::table(&rules))?;
    problems.extend(listed);
    let note = format!("{} packages, {} of them direct dependencies", graph.packages.len(), direct.len());
    Ok(Verdict::from_problems(problems, note))
}

fn mark(problems: &[String]) -> &'static str {
    if problems.is_empty() { "ok" } else { "WRONG" }
}

/// Problems of one crate's edges inside the workspace.
fn wrong_edges(name: &str, uses: &BTreeSet<String>) -> Vec<String> {
    let Some(allowed) = allowed(name) else {
        return vec![format!(
            "{name}: a crate that xtask/src/deps.rs does not know; say there what it may use"
        )];
    };
    uses.iter()
        // In its tests a crate may use itself with other features.
        .filter(|used| !allowed.contains(&used.as_str()) && *used != name)
        .map(|used| {
            format!(
                "{name} uses {used}: crates meet only through the traits of pipeline-core; remove the edge"
            )
        })
        .collect()
}

fn forbidden_packages(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for Forbidden { name, reason } in FORBIDDEN {
        for (id, package) in graph.packages.iter().filter(|(_, package)| package.name == *name) {
            let mut users: Vec<&str> = graph.users(id);
            users.retain(|user| !ACCEPTED.iter().any(|(package, by, _)| package == name && by == user));
            if users.is_empty() {
                continue;
            }
            let users = users.join(", ");
            problems.push(format!("{name} {} is in the tree, through {users}: {reason}", package.version));
        }
    }
    problems
}

fn forbidden_below(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for (top, names, reason) in FORBIDDEN_BELOW {
        let Some(id) = graph.member(top) else { continue };
        for path in graph.reached(id) {
            let last = path.last().copied().unwrap_or_default();
            if names.contains(&last) {
                problems.push(format!("{top} reaches {last} by {}: {reason}", path.join(" > ")));
            }
        }
    }
    problems
}

/// Compares the direct dependencies with the table under "## Dependencies".
fn check_page(direct: &BTreeMap<String, Direct>, page: &str) -> Vec<String> {
    let listed = listed(page);
    let mut problems = Vec::new();
    for (name, found) in direct {
        let crates = found.crates();
        match listed.get(name) {
            None => problems.push(format!(
                "ARCHITECTURE.md, Dependencies: `{name}` is not listed; add `| {name} | {crates} | why |`"
            )),
            Some((written, _)) if *written != crates => problems.push(format!(
                "ARCHITECTURE.md, Dependencies: `{name}` is listed for \"{written}\" and used by \"{crates}\"; \
                 run `cargo xtask deps --fix`"
            )),
            Some((_, why)) if why.is_empty() => {
                problems
                    .push(format!("ARCHITECTURE.md, Dependencies: `{name}` has no reason; write one line"));
            }
            Some(_) => {}
        }
    }
    let gone = listed.keys().filter(|name| !direct.contains_key(*name));
    problems.extend(gone.map(|name| {
        format!("ARCHITECTURE.md, Dependencies: `{name}` is listed and no crate uses it; remove the line")
    }));
    problems
}

/// The page with the column "crates" of every known row renewed. Other lines stay as they are.
fn renewed(page: &str, direct: &BTreeMap<String, Direct>) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in page.split('\n') {
        if let Some(title) = line.strip_prefix("## ") {
            inside = title.starts_with("Dependencies");
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let known = |name: &str| direct.get(name.trim_matches('`'));
        lines.push(match cells.as_slice() {
            [name, _, why] if inside && line.starts_with('|') && known(name).is_some() => {
                let crates = known(name).map(Direct::crates).unwrap_or_default();
                format!("| {name} | {crates} | {why} |")
            }
            _ => line.to_owned(),
        });
    }
    lines.join("\n")
}

/// Rows of the table: package → (crates, why).
fn listed(page: &str) -> BTreeMap<String, (String, String)> {
    let section = page.split("\n## ").find(|section| section.starts_with("Dependencies")).unwrap_or_default();
    let mut rows = BTreeMap::new();
    // The first two lines of a table are its header and its rule.
    for line in section.lines().filter(|line| line.starts_with('|')).skip(2) {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        if let (Some(name), Some(crates), Some(why)) = (cells.next(), cells.next(), cells.next()) {
            rows.insert(name.trim_matches('`').to_owned(), (crates, why));
        }
    }
    rows
}

/// A package of the dependency tree.
struct Package {
    name: String,
    version: String,
    /// Declared dependencies: name as used (after a rename), and whether for tests only.
    declared: Vec<(String, bool)>,
    /// Ids of what it uses at run or build time.
    uses: Vec<String>,
}

/// The resolved dependency graph.
struct Graph {
    packages: BTreeMap<String, Package>,
    members: Vec<String>,
}

impl Graph {
    fn read(metadata: &Value) -> Result<Self> {
        let mut packages = BTreeMap::new();
        for package in array(metadata, "packages")? {
            let declared = array(package, "dependencies")?.iter().map(|dependency| {
                let name = dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap_or_default();
                (name.to_owned(), dependency["kind"] == "dev")
            });
            packages.insert(
                text(package, "id")?,
                Package {
                    name: text(package, "name")?,
                    version: text(package, "version")?,
                    declared: declared.collect(),
                    uses: Vec::new(),
                },
            );
        }
        for node in array(&metadata["resolve"], "nodes")? {
            let mut uses = Vec::new();
            for edge in array(node, "deps")? {
                if array(edge, "dep_kinds")?.iter().any(|kind| kind["kind"] != "dev") {
                    uses.push(text(edge, "pkg")?);
                }
            }
            if let Some(package) = packages.get_mut(&text(node, "id")?) {
                package.uses = uses;
            }
        }
        let members = array(metadata, "workspace_members")?;
        let members = members.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self { packages, members })
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        self.members.iter().filter_map(|id| self.packages.get(id))
    }

    fn member(&self, name: &str) -> Option<&str> {
        self.members
            .iter()
            .find(|id| self.packages.get(*id).is_some_and(|p| p.name == name))
            .map(String::as_str)
    }

    /// Every crate of the workspace with the crates of the workspace that it declares, for tests too.
    fn workspace_edges(&self) -> BTreeMap<String, BTreeSet<String>> {
        let names: BTreeSet<&str> = self.members().map(|package| package.name.as_str()).collect();
        self.members()
            .map(|package| {
                let uses = package.declared.iter().map(|(name, _)| name);
                let uses = uses.filter(|name| names.contains(name.as_str())).cloned().collect();
                (package.name.clone(), uses)
            })
            .collect()
    }

    /// Every package from outside that a crate of the workspace declares.
    fn direct(&self) -> BTreeMap<String, Direct> {
        let names: BTreeSet<&str> = self.members().map(|package| package.name.as_str()).collect();
        let mut direct: BTreeMap<String, Direct> = BTreeMap::new();
        for package in self.members() {
            let user = package.name.trim_start_matches("pipeline-").to_owned();
            for (name, tests) in package.declared.iter().filter(|(name, _)| !names.contains(name.as_str())) {
                let entry = direct.entry(name.clone()).or_default();
                if *tests { &mut entry.tested_by } else { &mut entry.used_by }.insert(user.clone());
            }
        }
        direct
    }

    fn users(&self, id: &str) -> Vec<&str> {
        let uses_it = |package: &&Package| package.uses.iter().any(|used| used == id);
        self.packages.values().filter(uses_it).map(|package| package.name.as_str()).collect()
    }

    /// Every package below `top`, each with one shortest way to it.
    fn reached(&self, top: &str) -> Vec<Vec<&str>> {
        let mut seen = BTreeSet::from([top]);
        let mut ways: Vec<(&str, Vec<&str>)> =
            self.packages.get(top).map(|package| (top, vec![package.name.as_str()])).into_iter().collect();
        let mut next = 0;
        while let Some((id, way)) = ways.get(next).cloned() {
            next += 1;
            for used in self.packages.get(id).into_iter().flat_map(|package| &package.uses) {
                if let (true, Some(package)) = (seen.insert(used), self.packages.get(used)) {
                    ways.push((used, [way.as_slice(), &[package.name.as_str()]].concat()));
                }
            }
        }
        ways.into_iter().map(|(_, way)| way).collect()
    }
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key]
        .as_array()
        .with_context(|| format!("cargo metadata has no list `{key}` where one was expected"))
}

fn text(value: &Value, key: &str) -> Result<String> {
    let found = value[key].as_str().map(str::to_owned);
    found.with_context(|| format!("cargo metadata has no text `{key}` where one was expected"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &Value) -> Value {
        json!({"id": name, "name": name, "version": "1.0.0", "dependencies": dependencies})
    }

    fn node(id: &str, deps: &[(&str, Option<&str>)]) -> Value {
        let deps: Vec<_> =
            deps.iter().map(|(to, kind)| json!({"pkg": to, "dep_kinds": [{"kind": kind}]})).collect();
        json!({"id": id, "deps": deps})
    }

    fn graph() -> Graph {
        let metadata = json!({
            "workspace_members": ["pipeline-core", "pipeline-steps"],
            "packages": [
                package("pipeline-core", &json!([
                    {"name": "serde-saphyr", "rename": "serde_yaml", "kind": null},
                    {"name": "insta", "rename": null, "kind": "dev"},
                ])),
                package("pipeline-steps", &json!([
                    {"name": "pipeline-core", "rename": null, "kind": null},
                    {"name": "insta", "rename": null, "kind": null},
                ])),
                package("serde-saphyr", &json!([])),
                package("insta", &json!([])),
                package("clap", &json!([])),
                package("hyper", &json!([])),
            ],
            "resolve": {"nodes": [
                node("pipeline-core", &[("serde-saphyr", None), ("insta", Some("dev"))]),
                node("pipeline-steps", &[("pipeline-core", None), ("insta", None)]),
                node("serde-saphyr", &[("clap", None)]),
                node("insta", &[("hyper", None)]),
            ]},
        });
        Graph::read(&metadata).unwrap()
    }

    #[test]
    fn only_the_allowed_edges_pass() {
        let uses = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(wrong_edges("pipeline-steps", &uses(&["pipeline-core"])), Vec::<String>::new());
        assert_eq!(wrong_edges("pipeline-steps", &uses(&["pipeline-tools", "pipeline-core"])).len(), 1);
        assert_eq!(wrong_edges("pipeline-core", &uses(&["pipeline-steps"])).len(), 1);
        assert_eq!(wrong_edges("xtask", &uses(&["pipeline-core"])).len(), 1);
        assert_eq!(wrong_edges("pipeline-new", &uses(&[])).len(), 1);
    }

    #[test]
    fn forbidden_packages_are_found_below_and_test_edges_do_not_count() {
        let problems = forbidden_below(&graph());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("pipeline-core > serde-saphyr > clap"), "{problems:?}");
    }

    #[test]
    fn a_renamed_package_is_known_by_the_name_that_the_code_uses() {
        assert_eq!(forbidden_packages(&graph()), Vec::<String>::new(), "serde_yaml is only a rename here");
        assert_eq!(graph().direct()["serde_yaml"].crates(), "core");
        assert_eq!(graph().direct()["insta"].crates(), "steps, core (tests)");
    }

    #[test]
    fn the_page_must_list_every_direct_dependency_and_nothing_else() {
        let page = "# A\n\n## Dependencies\n\n| package | crates | why |\n|---|---|---|\n\
                    | `serde_yaml` | core | parser |\n| insta | core |  |\n| gone | core | old |\n\n## After\n\n| x | y | z |\n";
        let direct = graph().direct();
        let problems = check_page(&direct, page);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("`insta` is listed for \"core\" and used by \"steps, core (tests)\""));
        assert!(problems[1].contains("`gone` is listed and no crate uses it"));
        let missing = check_page(&graph().direct(), "## Dependencies\n");
        assert!(missing[0].contains("`insta` is not listed"), "{missing:?}");
    }

    #[test]
    fn renewing_changes_the_column_of_crates_and_nothing_else() {
        let page = "| insta | x | y |\n\n## Dependencies\n\n| package | crates | why |\n|---|---|---|\n\
                    | insta | core | snapshots |\n| gone | core | old |\n";
        let wanted = page.replace("| insta | core |", "| insta | steps, core (tests) |");
        assert_eq!(renewed(page, &graph().direct()), wanted);
    }
}
