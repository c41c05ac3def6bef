//! A scratch folder and the binary in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// An empty folder that is removed at the end.
pub struct Scratch(pub tempfile::TempDir);

/// How a command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a scratch folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// The binary with arguments, in this folder, with a bare environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(arguments).current_dir(self.path()).env_clear().envs(handed_on());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments).spawn().expect("it starts"))
    }

    /// The same, for pipelines that start programs of the system.
    pub fn command_with_path(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("PATH", "/usr/bin:/bin");
        command
    }

    pub fn run_with_path(&self, arguments: &[&str]) -> Ended {
        finish(self.command_with_path(arguments).spawn().expect("it starts"))
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("it starts")
    }

    /// The folder of the newest run.
    pub fn run_dir(&self) -> PathBuf {
        let state = self.path().join(".pipeline");
        let id = std::fs::read_to_string(state.join("latest")).expect("there is a run");
        state.join("runs").join(id.trim())
    }
}

/// What the program is given of a test's own environment: which bug is planted, where `cargo xtask reliability` plants one.
#[expect(clippy::disallowed_methods, reason = "how a test hands the bug on that it was given")]
pub fn handed_on() -> Option<(&'static str, String)> {
    const BUG: &str = "PIPELINE_PLANTED_BUG";
    std::env::var(BUG).ok().map(|bug| (BUG, bug))
}

/// Waits for a child, at most a minute.
pub fn finish(mut child: Child) -> Ended {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    // Both pipes are read to their end by `wait_with_output`; a hanging child is killed first.
    let id = child.id();
    let watcher = std::sync::mpsc::channel::<()>();
    let done = watcher.0;
    #[expect(clippy::disallowed_methods, reason = "a watchdog of the test")]
    let dog = std::thread::spawn(move || {
        let left = patience.saturating_duration_since(tokio::time::Instant::now());
        if watcher.1.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            && let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(id).unwrap_or(0))
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("it ends");
    drop(done);
    dog.join().expect("the watchdog ends");
    output.into()
}

pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it is alive");
}
