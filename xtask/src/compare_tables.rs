//! `cargo xtask compare-tables`: random tables through the real program's `data_transform`, and through pandas.
//!
//! Owns the virtual environment of pandas (`target/compare-tables`). `xtask/compare-tables.py` makes the tables from a seed,
//! runs both and tells every difference. Must not know what an operation does.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::repo::{Repo, is_installed};
use crate::report::{self, Verdict};

/// How many tables, and which.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub tables: u32,
    pub seed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { tables: 200, seed: 1 }
    }
}

/// Compares.
pub fn run(repo: &Repo, options: &Options) -> Result<Verdict> {
    if !is_installed("python3") {
        return Ok(Verdict::Skipped("there is no python3 here, and pandas is Python".to_owned()));
    }
    let home = repo.root().join("target/compare-tables");
    let python = home.join("bin/python");
    if !works(&python, &["-c", "import pandas"]) {
        report::line("installing pandas into target/compare-tables")?;
        let made = works(Path::new("python3"), &["-m", "venv", &home.display().to_string()]);
        let install = ["-m", "pip", "install", "--quiet", "pandas"];
        if !made || !works(&python, &install) || !works(&python, &["-c", "import pandas"]) {
            let why = "pandas cannot be installed: no venv, no pip, or no way to its index";
            return Ok(Verdict::Skipped(why.to_owned()));
        }
    }
    let mut command = Command::new(&python);
    command.arg(repo.root().join("xtask/compare-tables.py")).arg(repo.build_binary(false)?);
    command.args([options.tables.to_string(), options.seed.to_string()]);
    let status = command.status().context("cannot run the comparison")?;
    let problem = "pandas and data_transform differ; the lines above say where".to_owned();
    let problems = if status.success() { Vec::new() } else { vec![problem] };
    Ok(Verdict::from_problems(problems, format!("{} tables are as pandas has them", options.tables)))
}

fn works(program: &Path, args: &[&str]) -> bool {
    let ended = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
    ended.is_ok_and(|status| status.success())
}
