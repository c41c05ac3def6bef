//! `cargo xtask targets`: the program compiles for the platforms that nobody tests on.
//!
//! Owns the list of foreign targets. C code is not compiled: for a check it is enough that its build scripts believe so.
//! Must not know what differs between platforms: `docs/platforms.md` tells.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::report::{self, Verdict};

const TARGETS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-apple-darwin"];

/// Stands in for a compiler of C: makes the file after `-o`, and tells what it is when a build script asks.
const STAND_IN: &str = r#"#!/bin/sh
for word; do
  [ "$before" = -o ] && : > "$word"
  case "$word" in *.a) : > "$word" ;; -E) exec cc -E -x c /dev/null ;; --version) echo "clang version 15.0.0" ;; esac
  before=$word
done
"#;

/// Checks the program for every target whose standard library is installed.
pub fn run(repo: &Repo) -> Result<Verdict> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let installed = installed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let folder = repo.root().join("target").join("targets");
    fs::create_dir_all(&folder)?;
    let stand_in = folder.join("cc");
    fs::write(&stand_in, STAND_IN).context("cannot write the stand-in for a compiler")?;
    #[cfg(unix)]
    fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let stand_in = stand_in.display().to_string();
    let mut lacking = Vec::new();
    let mut checked = Vec::new();
    for target in TARGETS {
        if !installed.lines().any(|line| line == target) {
            lacking.push(target);
            continue;
        }
        report::line(format!("== {target}"))?;
        let name = target.replace('-', "_");
        let variables = [
            (format!("CC_{name}"), &stand_in),
            (format!("AR_{name}"), &stand_in),
            ("SDKROOT".to_owned(), &stand_in),
        ];
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let args = [
            "check",
            "--quiet",
            "--package",
            "pipeline-cli",
            "--target",
            target,
            "--target-dir",
            "target/targets",
        ];
        repo.run_in("cargo", &args, &variables)?;
        checked.push(target);
    }
    if lacking.is_empty() {
        return Ok(Verdict::Passed(checked.join(", ")));
    }
    let lacking = lacking.join(" ");
    Ok(Verdict::Skipped(format!(
        "not installed: `rustup target add {lacking}`; checked: {}",
        if checked.is_empty() { "none".to_owned() } else { checked.join(", ") }
    )))
}
