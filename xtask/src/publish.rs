//! What the world sees of the crates: documentation, packages, the oldest compiler, breaking changes.
//!
//! Owns the stages about publishing. Must not know how anything is uploaded: nothing here does.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::repo::{Repo, is_installed};
use crate::report::Verdict;

/// Pages of all crates without a warning: no broken link, nothing public without words.
pub fn rustdoc(repo: &Repo) -> Result<Verdict> {
    let args = ["doc", "--quiet", "--no-deps", "--workspace", "--keep-going"];
    repo.run_in("cargo", &args, &[("RUSTDOCFLAGS", "-D warnings")])?;
    Ok(Verdict::Passed("all crates".to_owned()))
}

/// Every crate that is published can be packed, and has what a registry and its readers need.
pub fn package(repo: &Repo) -> Result<Verdict> {
    let metadata = repo.metadata()?;
    let crates = published(&metadata)?;
    let mut problems: Vec<String> = crates.iter().flat_map(|package| lacking(package)).collect();
    for package in &crates {
        let name = package["name"].as_str().unwrap_or_default();
        let listed = repo.output("cargo", &["package", "--list", "--allow-dirty", "--package", name])?;
        problems.extend(unpacked(name, &listed));
    }
    let mut args = vec!["package", "--quiet", "--workspace", "--no-verify", "--allow-dirty"];
    args.extend(["--exclude", "xtask"]);
    repo.run("cargo", &args)?;
    Ok(Verdict::from_problems(problems, format!("{} crates", crates.len())))
}

/// The crates build with the oldest compiler that they name.
pub fn msrv(repo: &Repo) -> Result<Verdict> {
    let metadata = repo.metadata()?;
    let mut stated: Vec<&str> = Vec::new();
    for package in published(&metadata)? {
        let name = &package["name"];
        stated.push(
            package["rust_version"].as_str().with_context(|| format!("{name} states no rust-version"))?,
        );
    }
    stated.dedup();
    let [oldest] = stated[..] else { bail!("the crates state different versions: {}", stated.join(", ")) };
    let installed = repo.output("rustc", &["--version"])?;
    if is_version(&installed, oldest) {
        return Ok(Verdict::Passed(format!("{oldest} is the compiler of all other stages")));
    }
    if Command::new("rustup")
        .args(["run", oldest, "rustc", "--version"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        repo.run("rustup", &["run", oldest, "cargo", "check", "--workspace", "--quiet"])?;
        return Ok(Verdict::Passed(format!("checked with {oldest}")));
    }
    Ok(Verdict::Skipped(format!(
        "Rust {oldest} is not installed (`rustup toolchain install {oldest}`); clippy's incompatible_msrv stands in"
    )))
}

/// No breaking change since the last release that its version does not announce.
pub fn semver(repo: &Repo) -> Result<Verdict> {
    let tags = repo.output("git", &["tag", "--list", "v*", "--sort=-version:refname"])?;
    let Some(last) = tags.lines().next() else {
        return Ok(Verdict::Skipped("nothing has been released, so nothing can break".to_owned()));
    };
    if !is_installed("cargo-semver-checks") {
        return Ok(Verdict::Skipped("cargo-semver-checks is not installed".to_owned()));
    }
    repo.run("cargo", &["semver-checks", "--workspace", "--exclude", "xtask", "--baseline-rev", last])?;
    Ok(Verdict::Passed(format!("compared with {last}")))
}

fn published(metadata: &Value) -> Result<Vec<&Value>> {
    let members = metadata["workspace_members"].as_array().context("cargo metadata lists no members")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    // `publish = false` is an empty list of registries.
    let is_published = |package: &&Value| package["publish"].as_array().is_none_or(|list| !list.is_empty());
    Ok(packages.iter().filter(|p| members.contains(&p["id"])).filter(is_published).collect())
}

/// What a registry asks for, and a reader looks for first.
fn lacking(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let without = |key: &&&str| package[**key].as_str().is_none_or(str::is_empty);
    let keys = ["description", "license", "readme", "rust_version"];
    let mut problems: Vec<String> =
        keys.iter().filter(without).map(|key| format!("{name}: no `{key}`")).collect();
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    // What only tests need is left out of what is published, where it has no version.
    for dependency in dependencies.filter(|d| d["path"].is_string() && d["req"] == "*" && d["kind"] != "dev")
    {
        problems.push(format!("{name}: {} has a path and no version", dependency["name"]));
    }
    problems
}

/// Files that the package of a crate must have.
fn unpacked(name: &str, listed: &str) -> Vec<String> {
    let needed = ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "Cargo.toml"];
    let missing = needed.iter().filter(|file| !listed.lines().any(|line| line == **file));
    missing.map(|file| format!("{name}: {file} is not in the package")).collect()
}

/// `rustc 1.95.0 (…)` is of `1.95`; `rustc 1.950.0` is not.
fn is_version(rustc: &str, stated: &str) -> bool {
    let Some(version) = rustc.split_whitespace().nth(1) else { return false };
    version == stated || version.strip_prefix(stated).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_registry_would_refuse_is_found() {
        let package = json!({"name": "a", "description": "x", "license": "MIT", "readme": null, "rust_version": "1.95",
            "dependencies": [{"name": "b", "path": "/b", "req": "*"}, {"name": "c", "path": "/c", "req": "^1"},
            {"name": "a", "path": "/a", "req": "*", "kind": "dev"}]});
        assert_eq!(lacking(&package), ["a: no `readme`", "a: \"b\" has a path and no version"]);
        assert_eq!(
            unpacked("a", "Cargo.toml\nLICENSE-MIT\nREADME.md\n"),
            ["a: LICENSE-APACHE is not in the package"]
        );
    }

    #[test]
    fn only_what_is_published_counts() {
        let metadata = json!({"workspace_members": ["a", "b"], "packages": [
            {"id": "a", "publish": null}, {"id": "b", "publish": []}, {"id": "c", "publish": null}]});
        assert_eq!(published(&metadata).unwrap(), [&json!({"id": "a", "publish": null})]);
    }

    #[test]
    fn a_version_is_its_first_numbers() {
        assert!(is_version("rustc 1.95.0 (x)", "1.95") && is_version("rustc 1.95.0", "1.95.0"));
        assert!(
            !is_version("rustc 1.96.0", "1.95")
                && !is_version("rustc 1.950.0", "1.95")
                && !is_version("", "1")
        );
    }
}
