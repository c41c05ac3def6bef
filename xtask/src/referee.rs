//! `cargo xtask referee [SCRIPT]`: the vendors' own Python clients judge `pipeline mock-server`.
//!
//! Owns the virtual environment of those clients (`target/referee`) and the server's life. SCRIPT takes the server's address
//! as its argument and ends with 0 when it is satisfied; without one it is `xtask/referee.py`. What our providers talk to in
//! tests is so shown to be the true format. Must not know what a script asks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

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
    let mut server = Server::start(&binary)?;
    let address = server.address()?;
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

/// The server; it ends with this.
struct Server(Child);

impl Server {
    fn start(binary: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["mock-server", "--quiet"]).stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self(command.spawn().context("cannot start the mock server")?))
    }

    /// The first line that it prints.
    fn address(&mut self) -> Result<String> {
        let stdout = self.0.stdout.take().context("the mock server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("the mock server printed no address")?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
