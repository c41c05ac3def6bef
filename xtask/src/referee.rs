//! `cargo xtask referee [SCRIPT]`: the vendors' own Python clients judge `pipeline mock-server`.
//!
//! Owns the virtual environment of those clients (`target/referee`) and the server's life. SCRIPT takes the server's address
//! as its argument and ends with 0 when it is satisfied; without one it is `xtask/referee.py`. What our providers talk to in
//! tests is so shown to be the true format. Must not know what a script asks.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::loopback::Background;
use crate::repo::{Repo, is_installed};
use crate::report::{self, Verdict};

/// The vendors' clients.
const CLIENTS: [&str; 3] = ["anthropic", "openai", "google-genai"];

/// Runs a script against the server.
pub fn run(repo: &Repo, script: Option<&str>) -> Result<Verdict> {
    if !is_installed("python3") {
        return Ok(Verdict::Skipped(
            "there is no python3 here, and the vendors' clients are Python".to_owned(),
        ));
    }
    let home = repo.root().join("target/referee");
    let python = home.join("bin/python");
    let has_clients = || works(&python, &["-c", "import anthropic, openai, google.genai"]);
    if !has_clients() {
        report::line("installing the vendors' clients into target/referee")?;
        let made = works(Path::new("python3"), &["-m", "venv", &home.display().to_string()]);
        let install = [&["-m", "pip", "install", "--quiet"], CLIENTS.as_slice()].concat();
        if !made || !works(&python, &install) || !has_clients() {
            let why = "the vendors' clients cannot be installed: no pip, or no way to its index";
            return Ok(Verdict::Skipped(why.to_owned()));
        }
    }
    let binary = repo.build_binary(false)?;
    let (_server, port) = Background::mock_server(&binary, &[])?;
    let address = format!("http://127.0.0.1:{port}");
    let script = script.map_or_else(|| repo.root().join("xtask/referee.py"), |s| repo.root().join(s));
    let status = Command::new(&python).arg(&script).arg(&address).status();
    let status = status.with_context(|| format!("cannot run {}", script.display()))?;
    let problem = format!("{} is not satisfied; its lines above say with what", script.display());
    let problems = if status.success() { Vec::new() } else { vec![problem] };
    Ok(Verdict::from_problems(
        problems,
        format!("{} clients are satisfied with the mock server", CLIENTS.len()),
    ))
}

fn works(program: &Path, args: &[&str]) -> bool {
    let ended = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
    ended.is_ok_and(|status| status.success())
}
