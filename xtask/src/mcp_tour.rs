//! MCP servers that others wrote, listed and called by the real program.
//!
//! Owns the cases: the filesystem server and the "everything" server from npm over their pipes, the second over HTTP too;
//! each listed by `pipeline tools`, called by a `tool` step, and called by a model that `pipeline mock-server` plays.
//! Whatever is not there skips the tour, loudly. Must not know any crate of the workspace.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clock::timed;
use crate::loopback::{Background, ask, document, ended, failed, npm_install, scratch, wait_for};
use crate::repo::{Repo, is_installed};
use crate::report::{self, Verdict};

/// The packages, with the name of their program.
const SERVERS: [(&str, &str); 2] = [
    ("@modelcontextprotocol/server-filesystem", "mcp-server-filesystem"),
    ("@modelcontextprotocol/server-everything", "mcp-server-everything"),
];

struct Tour {
    pipeline: PathBuf,
    /// The folder that has the servers' programs.
    bin: PathBuf,
    /// Where the model is.
    model: u16,
    /// Where the server over HTTP is.
    web: u16,
}

/// Runs the tour.
pub fn run(repo: &Repo) -> Result<Verdict> {
    if !is_installed("npm") {
        return Ok(Verdict::Skipped("`npm` is not installed".to_owned()));
    }
    let root = repo.root().join("target/mcp-tour");
    let bin = root.join("npm/node_modules/.bin");
    let is_there = || SERVERS.iter().all(|(_, program)| bin.join(program).is_file());
    if !is_there() {
        npm_install(&root.join("npm"), &SERVERS.map(|(package, _)| package))?;
    }
    if !is_there() {
        return Ok(Verdict::Skipped("the servers could not be fetched".to_owned()));
    }
    let pipeline = repo.build_binary(false)?;
    let (_model, model) = Background::mock_server(&pipeline, &[])?;
    let web = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut over_http = Command::new(bin.join(SERVERS[1].1));
    let _web = Background::start(over_http.arg("streamableHttp").env("PORT", web.to_string()))?;
    wait_for("the server over HTTP", || TcpStream::connect(("127.0.0.1", web)).is_ok())?;
    let tour = Tour { pipeline, bin, model, web };
    let mut rows = vec![report::row(["case", "seconds", "what was seen"])];
    let mut problems = Vec::new();
    for (name, case) in CASES {
        let (outcome, took) = timed(|| case(&tour, &scratch(&root, name)?));
        let seen = outcome.unwrap_or_else(|error| {
            problems.push(format!("{name}: {error:#}"));
            "FAILED".to_owned()
        });
        rows.push(report::row([name, &format!("{:.1}", took.as_secs_f64()), &seen]));
    }
    report::line(report::table(&rows))?;
    Ok(Verdict::from_problems(problems, format!("{} cases with {} servers", CASES.len(), SERVERS.len())))
}

type Case = fn(&Tour, &Path) -> Result<String>;

const CASES: [(&str, Case); 6] = [
    ("tools are listed", listed),
    ("a tool step calls every server", called),
    ("a model calls a tool and is told", by_a_model),
    ("a model calls over HTTP", by_a_model_over_http),
    ("what a server refuses fails the step", refused),
    ("a run leaves no server behind", nothing_left),
];

fn listed(tour: &Tour, dir: &Path) -> Result<String> {
    tour.file(dir, "    - {name: none, type: test_echo, value: x}\n")?;
    let run = tour.pipeline(dir, &["tools", "list", "--file", "tour.yaml", "--json"])?;
    ended(&run, 0)?;
    let all = document(&run)?["tools"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = all.iter().filter_map(|tool| tool["name"].as_str()).collect();
    for wanted in ["mcp__files__read_text_file", "mcp__all__get-sum", "mcp__web__get-sum", "calculator"] {
        ensure!(names.contains(&wanted), "{wanted} is not among {names:?}");
    }
    Ok(format!(
        "{} tools, {} of servers",
        names.len(),
        names.iter().filter(|n| n.starts_with("mcp__")).count()
    ))
}

fn called(tour: &Tour, dir: &Path) -> Result<String> {
    let path = dir.join("data/a.txt");
    let write = json!({"path": path, "content": "by a tool step"});
    let steps = [
        ("write", "mcp__files__write_file", write),
        ("read", "mcp__files__read_text_file", json!({ "path": path })),
        ("sum", "mcp__all__get-sum", json!({"a": 2, "b": 40})),
        ("weather", "mcp__all__get-structured-content", json!({"location": "Chicago"})),
        ("far", "mcp__web__get-sum", json!({"a": 20, "b": 3})),
    ];
    let steps = steps.map(|(name, tool, arguments)| {
        format!("    - {{name: {name}, type: tool, tool: {tool}, arguments: {arguments}}}\n")
    });
    tour.file(dir, &steps.concat())?;
    let run = tour.pipeline(dir, &["run", "tour.yaml", "--json"])?;
    ended(&run, 0)?;
    let value = |step: &str| Ok::<_, anyhow::Error>(document(&run)?["steps"][step]["value"].clone());
    ensure!(fs::read_to_string(&path)? == "by a tool step", "the file is not there");
    ensure!(value("read")?["content"] == "by a tool step", "{}", value("read")?);
    for (step, number) in [("sum", "42"), ("far", "23")] {
        let value = value(step)?;
        ensure!(value["content"].as_str().is_some_and(|text| text.contains(number)), "{value}");
    }
    let weather = value("weather")?;
    ensure!(weather["data"]["temperature"].is_number(), "no structured content: {weather}");
    Ok(format!("a file, two sums, {}", weather["data"]))
}

fn by_a_model(tour: &Tour, dir: &Path) -> Result<String> {
    let path = dir.join("data/b.txt");
    let call = json!({"name": "mcp__files__write_file", "input": {"path": path, "content": "by a model"}});
    let sum = json!({"name": "mcp__all__get-sum", "input": {"a": 1, "b": 6}});
    let calls = tour.converse(
        dir,
        "[mcp__files__write_file, mcp__all__get-sum]",
        &json!([{"tools": [call]}, {"tools": [sum]}, {"text": "done"}]),
    )?;
    ensure!(fs::read_to_string(&path)? == "by a model", "the file is not there");
    let told = calls.last().context("nothing was asked")?["body"]["messages"].to_string();
    ensure!(told.contains("The sum of 1 and 6 is 7"), "the model is not told: {told}");
    let offered = calls.first().map(|call| call["body"]["tools"].clone()).unwrap_or_default();
    Ok(format!(
        "{} calls of the model, {} tools offered",
        calls.len(),
        offered.as_array().map_or(0, Vec::len)
    ))
}

fn by_a_model_over_http(tour: &Tour, dir: &Path) -> Result<String> {
    let sum = json!({"name": "mcp__web__get-sum", "input": {"a": 30, "b": 1}});
    let calls = tour.converse(dir, "[mcp__web]", &json!([{"tools": [sum]}, {"text": "done"}]))?;
    let told = calls.last().context("nothing was asked")?["body"]["messages"].to_string();
    ensure!(told.contains("The sum of 30 and 1 is 31"), "the model is not told: {told}");
    Ok(format!("{} calls of the model", calls.len()))
}

fn refused(tour: &Tour, dir: &Path) -> Result<String> {
    let step = |path: &str| {
        format!(
            "    - {{name: read, type: tool, tool: mcp__files__read_text_file, arguments: {{path: {path}}}}}\n"
        )
    };
    tour.file(dir, &step("/etc/hostname"))?;
    failed(&tour.pipeline(dir, &["run", "tour.yaml", "--json"])?, "refused")
}

fn nothing_left(tour: &Tour, dir: &Path) -> Result<String> {
    let slow = json!({"duration": 600, "steps": 600});
    let step = format!(
        "    - {{name: slow, type: tool, tool: mcp__all__trigger-long-running-operation, timeout: 3s, arguments: {slow}}}\n"
    );
    tour.file(dir, &step)?;
    let run = tour.pipeline(dir, &["run", "tour.yaml", "--json"])?;
    let told = failed(&run, "timed_out")?;
    wait_for("the end of all servers", || living(dir) == 0)?;
    Ok(told)
}

/// Living processes that were started in that folder.
fn living(dir: &Path) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    processes
        .filter_map(|p| fs::read_link(p.ok()?.path().join("cwd")).ok())
        .filter(|cwd| cwd.starts_with(dir))
        .count()
}

impl Tour {
    fn file(&self, dir: &Path, steps: &str) -> Result<()> {
        let data = dir.join("data");
        fs::create_dir_all(&data)?;
        let [files, all] = SERVERS.map(|(_, program)| self.bin.join(program).display().to_string());
        let servers = json!({
            "files": {"command": files, "args": [data]},
            "all": {"command": all, "args": ["stdio"]},
            "web": {"type": "http", "url": format!("http://127.0.0.1:{}/mcp", self.web)},
        });
        let text = format!(
            "workflow:\n  name: tour\n  permissions: {{shell: true}}\n  mcp_servers: {servers}\n  providers: {{claude: {{kind: anthropic}}}}\n  steps:\n{steps}"
        );
        Ok(fs::write(dir.join("tour.yaml"), text)?)
    }

    /// A conversation with a model that has tools and answers by a script; its requests.
    fn converse(&self, dir: &Path, tools: &str, script: &Value) -> Result<Vec<Value>> {
        ask(self.model, "POST", "/__log", &json!([]))?;
        ask(self.model, "POST", "/__script", script)?;
        self.file(
            dir,
            &format!("    - {{name: talk, type: claude, prompt: do it, tools: {tools}, max_turns: 5}}\n"),
        )?;
        let run = self.pipeline(dir, &["run", "tour.yaml", "--json"])?;
        ended(&run, 0)?;
        let text = document(&run)?["steps"]["talk"]["value"]["text"].clone();
        ensure!(text == "done", "{text}");
        let log = ask(self.model, "GET", "/__log", &Value::Null)?;
        Ok(log.as_array().cloned().unwrap_or_default())
    }

    fn pipeline(&self, dir: &Path, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.pipeline);
        let address = format!("http://127.0.0.1:{}", self.model);
        let path = "/usr/local/bin:/usr/bin:/bin".to_owned();
        command
            .args(args)
            .current_dir(dir)
            .env_clear()
            .envs([("PATH", path), ("ANTHROPIC_BASE_URL", address)]);
        Ok(command.env("ANTHROPIC_API_KEY", "sk-of-the-tour").env("HOME", dir).output()?)
    }
}
