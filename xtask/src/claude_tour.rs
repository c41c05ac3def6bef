//! The real agent CLI, driven by the real program against a server on loopback.
//!
//! Owns the cases: a tool that writes a file, a session that goes on in a later step and after a kill, a denial, too few
//! turns, a cancellation. Fetches the CLI from its registry; whatever is not there skips the tour, loudly. The server is a
//! script that the caller names; it takes its answers by `POST /__script` and tells its requests by `GET /__log`.
//! Must not know any crate of the workspace.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::clock::timed;
use crate::loopback::{Background, ask, document, ended, failed, npm_install, scratch, wait_for};
use crate::repo::{Repo, is_installed};
use crate::report::{self, Verdict};

/// The package of the CLI.
const PACKAGE: &str = "@anthropic-ai/claude-code";

struct Tour {
    pipeline: PathBuf,
    /// The folder that has the CLI.
    bin: PathBuf,
    root: PathBuf,
    port: u16,
}

/// Runs the tour with the fake server at `server`.
pub fn run(repo: &Repo, server: Option<&str>) -> Result<Verdict> {
    let Some(server) = server else {
        return Ok(Verdict::Skipped("no server: give its script with --server".to_owned()));
    };
    for program in ["npm", "python3"] {
        if !is_installed(program) {
            return Ok(Verdict::Skipped(format!("`{program}` is not installed")));
        }
    }
    let root = repo.root().join("target/claude-tour");
    let Some(bin) = install(&root)? else {
        return Ok(Verdict::Skipped(format!("{PACKAGE} could not be fetched")));
    };
    let pipeline = repo.build_binary(false)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let _server = Background::start(Command::new("python3").args([server, "--port", &port.to_string()]))?;
    let tour = Tour { pipeline, bin, root, port };
    wait_for("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    let version = Command::new(tour.bin.join("claude")).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let mut rows = vec![report::row(["case", "seconds", "what was seen"])];
    let mut problems = Vec::new();
    for (name, case) in CASES {
        let (outcome, took) = timed(|| case(&tour, &scratch(&tour.root, name)?));
        let seen = outcome.unwrap_or_else(|error| {
            problems.push(format!("{name}: {error:#}"));
            "FAILED".to_owned()
        });
        rows.push(report::row([name, &format!("{:.1}", took.as_secs_f64()), &seen]));
    }
    report::line(report::table(&rows))?;
    Ok(Verdict::from_problems(problems, format!("{} cases with {version}", CASES.len())))
}

/// The folder of the CLI's executable, fetched unless it is there.
fn install(root: &Path) -> Result<Option<PathBuf>> {
    let npm = root.join("npm");
    let find = || {
        let scope = fs::read_dir(npm.join("node_modules/@anthropic-ai")).ok()?;
        scope.filter_map(|e| Some(e.ok()?.path())).find(|dir| dir.join("claude").is_file())
    };
    if find().is_none() {
        npm_install(&npm, &[PACKAGE])?;
    }
    Ok(find())
}

type Case = fn(&Tour, &Path) -> Result<String>;

const CASES: [(&str, Case); 6] = [
    ("a tool writes a file", writes),
    ("a session goes on in a later step", goes_on),
    ("a session goes on after a kill", goes_on_after_a_kill),
    ("a denial fails the step", denied),
    ("too few turns fail the step", too_few_turns),
    ("a cancellation leaves no process", cancelled),
];

fn writes(tour: &Tour, dir: &Path) -> Result<String> {
    let made = dir.join("workspace/made.txt");
    tour.script(
        &json!([tool("Write", &json!({"file_path": made, "content": "by a tool"})), {"text": "done"}]),
    )?;
    let run = tour
        .run(dir, &[step("write", "/write it", "permission_mode: accept_edits, allowed_tools: [Write]")])?;
    ended(&run, 0)?;
    ensure!(fs::read_to_string(&made)? == "by a tool", "the file is not there");
    let value = &document(&run)?["steps"]["write"]["value"];
    ensure!(value["text"] == "done" && value["cost_usd"].is_number(), "{value}");
    Ok(format!("{} calls, {} tokens, ${}", tour.log()?.len(), value["usage"]["input"], value["cost_usd"]))
}

fn session_steps() -> [String; 2] {
    let steps = [("first", "remember 7"), ("second", "what was it")];
    steps.map(|(name, prompt)| step(name, prompt, "allowed_tools: []") + "      session: talk\n")
}

fn goes_on(tour: &Tour, dir: &Path) -> Result<String> {
    tour.script(&json!([{"text": "one"}, {"text": "two"}]))?;
    let run = tour.run(dir, &session_steps())?;
    ended(&run, 0)?;
    let steps = &document(&run)?["steps"];
    ensure!(steps["first"]["value"]["session_id"] == steps["second"]["value"]["session_id"], "{steps}");
    tour.said_before()
}

fn goes_on_after_a_kill(tour: &Tour, dir: &Path) -> Result<String> {
    tour.script(&json!([{"text": "one"}, {"text": "never heard", "delay": 60}]))?;
    let mut child = tour.start(dir, &session_steps())?;
    wait_for("the second call", || tour.log().is_ok_and(|log| log.len() == 2))?;
    child.kill()?;
    child.wait()?;
    let left = marked(dir);
    tour.script(&json!([{"text": "two"}]))?;
    let resumed = tour.command(dir, &["resume", "--json"]).output()?;
    ended(&resumed, 0)?;
    let steps = &document(&resumed)?["steps"];
    ensure!(steps["second"]["value"]["text"] == "two" && steps["first"]["reused"] == true, "{steps}");
    nothing_left(dir)?;
    Ok(format!("{}; {left} processes of the killed run found and ended", tour.said_before()?))
}

fn denied(tour: &Tour, dir: &Path) -> Result<String> {
    let made = dir.join("workspace/made.txt");
    tour.script(
        &json!([tool("Write", &json!({"file_path": made, "content": "x"})), {"text": "I wrote it"}]),
    )?;
    let run = tour.run(dir, &[step("write", "write it", "permission_mode: default")])?;
    failed(&run, "denied")
}

fn too_few_turns(tour: &Tour, dir: &Path) -> Result<String> {
    let mut again = tool("Bash", &json!({"command": "echo x"}));
    again["repeat"] = json!(-1);
    tour.script(&json!([again]))?;
    let run = tour.run(dir, &[step("ask", "loop", "max_turns: 2, allowed_tools: [Bash]")])?;
    failed(&run, "budget")
}

fn cancelled(tour: &Tour, dir: &Path) -> Result<String> {
    let sleep = tool("Bash", &json!({"command": "sleep 7531"}));
    tour.script(&json!([sleep, {"text": "late"}]))?;
    let mut child = tour.start(dir, &[step("ask", "sleep", "allowed_tools: [Bash]")])?;
    // The CLI, its shell and the sleep.
    wait_for("the tool", || marked(dir) >= 3)?;
    let before = marked(dir);
    for _ in 0..2 {
        Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let status = child.wait()?;
    nothing_left(dir)?;
    Ok(format!("exit {:?}, {before} processes before, none after", status.code()))
}

impl Tour {
    fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.pipeline);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.bin.display());
        command.args(args).current_dir(dir).env_clear().envs([
            ("PATH", path),
            ("HOME", self.root.join("home").display().to_string()),
            ("ANTHROPIC_BASE_URL", format!("http://127.0.0.1:{}", self.port)),
            ("ANTHROPIC_API_KEY", "sk-ant-of-the-tour".to_owned()),
        ]);
        command
    }

    fn file(dir: &Path, steps: &[String]) -> Result<()> {
        let text = format!("workflow:\n  name: tour\n  steps:\n{}", steps.concat());
        Ok(fs::write(dir.join("tour.yaml"), text)?)
    }

    fn run(&self, dir: &Path, steps: &[String]) -> Result<Output> {
        Self::file(dir, steps)?;
        Ok(self.command(dir, &["run", "tour.yaml", "--json"]).output()?)
    }

    fn start(&self, dir: &Path, steps: &[String]) -> Result<Child> {
        Self::file(dir, steps)?;
        let mut command = self.command(dir, &["run", "tour.yaml", "--json"]);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// The model's next answers; what was asked before is forgotten.
    fn script(&self, answers: &Value) -> Result<()> {
        ask(self.port, "POST", "/__log", &json!([]))?;
        ask(self.port, "POST", "/__script", answers)?;
        Ok(())
    }

    /// Requests to the model, oldest first.
    fn log(&self) -> Result<Vec<Value>> {
        let log = ask(self.port, "GET", "/__log", &Value::Null)?;
        let all = log.as_array().cloned().unwrap_or_default();
        let is_call = |e: &Value| e["path"].as_str().is_some_and(|p| p.starts_with("/v1/messages"));
        Ok(all.into_iter().filter(is_call).collect())
    }

    /// The last request holds what was said before it.
    fn said_before(&self) -> Result<String> {
        let log = self.log()?;
        let messages = log.last().map(|call| call["body"]["messages"].clone()).unwrap_or_default();
        let text = messages.to_string();
        ensure!(text.contains("remember 7") && text.contains("what was it"), "{text}");
        Ok(format!("the last call has {} messages", messages.as_array().map_or(0, Vec::len)))
    }
}

/// A `claude` step of a file.
fn step(name: &str, prompt: &str, options: &str) -> String {
    format!(
        "    - name: {name}\n      type: claude\n      prompt: {prompt}\n      claude_options: {{{options}}}\n"
    )
}

/// An answer that calls a tool.
fn tool(name: &str, input: &Value) -> Value {
    json!({"tools": [{"name": name, "input": input}]})
}

/// Living processes that belong to a run in that folder.
fn marked(dir: &Path) -> usize {
    let mark = format!("PIPELINE_ATTEMPT={}", dir.display());
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let carries = |environ: Vec<u8>| environ.split(|b| *b == 0).any(|e| e.starts_with(mark.as_bytes()));
    processes
        .filter_map(|p| fs::read(p.ok()?.path().join("environ")).ok())
        .filter(|e| carries(e.clone()))
        .count()
}

fn nothing_left(dir: &Path) -> Result<()> {
    wait_for("the end of all processes", || marked(dir) == 0)
}
