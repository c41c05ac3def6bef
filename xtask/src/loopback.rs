//! What the tours share: programs that end with their owner, packages of npm, requests over loopback, patience.
//!
//! Must not know what a tour shows.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Looks for something this often, a tenth of a second apart.
const PATIENCE: u32 = 600;

/// A program that runs in the background; ended when dropped.
pub struct Background(Child);

impl Background {
    /// Starts it, silent.
    pub fn start(command: &mut Command) -> Result<Self> {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(started.context("a server does not start")?))
    }

    /// Starts `pipeline mock-server` with further arguments; the second is its port.
    pub fn mock_server(pipeline: &Path, args: &[&str]) -> Result<(Self, u16)> {
        let mut command = Command::new(pipeline);
        command.args(["mock-server", "--quiet"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Self(command.spawn().context("the mock server does not start")?);
        let stdout = server.0.stdout.take().context("the mock server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("the mock server printed no address")?;
        let port = line.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Ok((server, port.with_context(|| format!("no port in `{line}`"))?))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fetches packages of npm into a folder; what of it is there is for the caller to see.
pub fn npm_install(folder: &Path, packages: &[&str]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let args = ["install", "--no-audit", "--no-fund", "--ignore-scripts"];
    Command::new("npm").args(args).args(packages).current_dir(folder).output()?;
    Ok(())
}

/// One request for JSON.
pub fn ask(port: u16, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).with_context(|| format!("{method} {path}: {text}"))
}

/// Waits for something for a minute.
pub fn wait_for(what: &str, is_there: impl Fn() -> bool) -> Result<()> {
    for _ in 0..PATIENCE {
        if is_there() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("{what} did not come")
}

/// The document that a run printed.
pub fn document(run: &Output) -> Result<Value> {
    serde_json::from_slice(&run.stdout).with_context(|| String::from_utf8_lossy(&run.stderr).into_owned())
}

/// The run ended with that code.
pub fn ended(run: &Output, code: i32) -> Result<()> {
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    ensure!(run.status.code() == Some(code), "ended with {}: {err}\n{out}", run.status);
    Ok(())
}

/// The run failed with an error of that kind.
pub fn failed(run: &Output, kind: &str) -> Result<String> {
    ended(run, 1)?;
    let error = document(run)?["error"].clone();
    ensure!(error["kind"] == kind, "{error}");
    Ok(format!("{kind}: {}", error["message"].as_str().unwrap_or_default()))
}

/// A folder of that name below `root`, empty.
pub fn scratch(root: &Path, name: &str) -> Result<std::path::PathBuf> {
    let dir = root.join("runs").join(name.replace(' ', "-"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
