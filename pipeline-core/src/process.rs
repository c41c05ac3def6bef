//! Child processes that cannot outlive whoever started them, and cannot flood or hang them.
//!
//! Owns [`Command`] and [`Running`]: every child is the leader of a process group of its own, the whole group, and what left it
//! (`process/family.rs`), is killed when its guard is dropped, what it prints is read up to a limit, and nothing of the environment reaches it but what
//! is given. Shell steps, agent CLIs, MCP servers and the jq host start their children here and nowhere else; where a sandbox is
//! asked for (`process/sandbox.rs`), it stands around them or nothing starts. Must not know what runs.

mod system;
mod family;
pub mod sandbox;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::Instant;

use crate::error::{ErrorKind, StepError};
use crate::planted::{Bug, planted};
use sandbox::{Sandbox, Wrapped};

pub use family::descendants;
pub use system::{Signal, ended_by, is_alive, is_executable, send};

/// How long a group that was asked to stop (SIGTERM) is waited for before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Program: a path, or a name that is looked up in `PATH` of [`Command::env`].
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where it runs; `None` = where this process does.
    pub cwd: Option<PathBuf>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// For which logical attempt it works: [`crate::step::StepContext::family`]. Everything that it starts then carries two marks
    /// in its environment, PIPELINE_CHILD and PIPELINE_ATTEMPT, and dies with it, in sessions of its own too; and what a
    /// killed process of ours left of the same attempt dies first. `None` = only its process group.
    pub family: Option<String>,
    /// What it sees of this machine; `None` = everything that we do. Inside, an end by a signal is told as exit code 128 and the
    /// signal's number, as shells do.
    pub sandbox: Option<Sandbox>,
}

/// What a child that was run to its end left.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed, up to the limit.
    pub stdout: Vec<u8>,
    /// What it complained, up to the limit.
    pub stderr: Vec<u8>,
    /// Whether either was cut at the limit.
    pub is_cut: bool,
}

/// A child and its process group. Dropping it kills the group.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Option<u32>,
    /// What everything that it started has in its environment.
    mark: Option<String>,
    /// The child is the sandbox, and the program in its group.
    is_wrapped: bool,
}

impl Command {
    /// A program with arguments, without an environment.
    pub fn new(program: impl Into<OsString>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.into(), args, ..Self::default() }
    }

    /// Starts it with all three streams piped. A child in a sandbox ends with the thread that started it, as with the process.
    ///
    /// # Errors
    /// `Environment` when the program or its directory does not exist or may not be run, or the sandbox cannot be made; `Denied`
    /// when the sandbox does not show the program.
    pub async fn spawn(&self) -> Result<Running, StepError> {
        let sandbox = self.sandbox.as_ref().filter(|_| !planted(Bug::NoNamespace));
        let is_wrapped = sandbox.is_some();
        let Wrapped { program, args, mut env } = match sandbox {
            Some(sandbox) => Box::pin(self.wrapped(sandbox)).await?,
            None => Wrapped {
                program: PathBuf::from(&self.program),
                args: self.args.clone(),
                env: self.env.clone(),
            },
        };
        let mut command = tokio::process::Command::new(program);
        let mark = self.family.as_ref().map(|attempt| family::mark(&mut env, attempt));
        command.args(args).env_clear().envs(&env).kill_on_drop(true);
        system::lead(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let child = command.spawn().map_err(|error| {
            let program = self.program.to_string_lossy();
            let message = match (error.kind(), &self.cwd) {
                (std::io::ErrorKind::NotFound, Some(cwd)) if !cwd.is_dir() => {
                    format!("cannot start `{program}`: there is no directory {}", cwd.display())
                }
                (std::io::ErrorKind::NotFound, _) => {
                    format!("there is no program `{program}` on this machine")
                }
                _ => format!("cannot start `{program}`: {error}"),
            };
            StepError::new(ErrorKind::Environment, message).help("install it, or give its path")
        })?;
        let group = child.id();
        Ok(Running { child, group, mark, is_wrapped })
    }

    /// The command with its sandbox around it, when one can be made.
    async fn wrapped(&self, sandbox: &Sandbox) -> Result<Wrapped, StepError> {
        let bwrap = sandbox::find(sandbox.search.as_deref(), &sandbox.tried).await.map_err(|mut error| {
            let program = self.program.to_string_lossy();
            error.message = format!("`{program}` was not started: {}", error.message);
            error
        })?;
        sandbox.around(bwrap, self)
    }

    /// Runs it to its end: writes `input`, reads what it prints up to `most` bytes of each stream. What is over the limit
    /// is read and dropped, so that a flood neither blocks the child nor fills the memory.
    ///
    /// # Errors
    /// As [`Command::spawn`]; `TimedOut` at `deadline`, with the group killed.
    pub async fn run(&self, input: &[u8], most: usize, deadline: Instant) -> Result<Finished, StepError> {
        let mut running = self.spawn().await?;
        let program = self.program.to_string_lossy().into_owned();
        let (stdin, stdout, stderr) = running.streams();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A child that does not read its input is its own matter: its exit status says how it went.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let work = async {
            let ((), out, err) = tokio::join!(feed, read_up_to(stdout, most), read_up_to(stderr, most));
            (out, err, running.wait().await)
        };
        match tokio::time::timeout_at(deadline, work).await {
            Ok((out, err, Ok(status))) => {
                let complaint = sandbox::complaint(status.code(), &out.0, &err.0);
                if let Some(complaint) = complaint.filter(|_| running.is_wrapped) {
                    return Err(complaint);
                }
                let is_cut = out.1 || err.1;
                Ok(Finished { status, stdout: out.0, stderr: err.0, is_cut })
            }
            Ok((_, _, Err(error))) => {
                Err(StepError::new(ErrorKind::Environment, format!("cannot wait for `{program}`: {error}")))
            }
            Err(_) => Err(StepError::new(
                ErrorKind::TimedOut,
                format!("`{program}` did not end before its deadline"),
            )
            .help("give the step a longer `timeout`, or see why it hangs")),
        }
    }
}

impl Running {
    /// Its pipes, each given out once.
    pub fn streams(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Its process id; `None` when it has been waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until the child itself has ended. Its group may live on until this guard is dropped or stopped.
    ///
    /// # Errors
    /// The system's.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks the group to stop, waits for the child up to [`GRACE`], then kills the group.
    pub async fn stop(mut self) {
        self.signal(Signal::Terminate);
        // Whether it went by itself or is killed now makes no difference to the caller.
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        drop(self);
    }

    /// Sends a signal to the whole group; where there are no groups, the child itself is killed, whatever the signal.
    pub fn signal(&mut self, signal: Signal) {
        if let Some(group) = self.group.filter(|_| self.is_wrapped && signal == Signal::Terminate) {
            // A sandbox that is asked to stop takes the program along at once: only what is inside is asked.
            family::terminate_inside(group);
            return;
        }
        if let Some(group) = self.group
            && (planted(Bug::KillOnDrop) || !system::signal_group(group, signal))
        {
            // One that has ended needs no signal.
            let _ = self.child.start_kill();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First the group, so that it starts nothing more; then what it started, wherever that has moved.
        self.signal(Signal::Kill);
        if let Some(mark) = self.mark.as_ref().filter(|_| !planted(Bug::KillOnDrop)) {
            family::kill_marked(mark);
        }
    }
}

/// Reads to the end, keeps the first `most` bytes, and tells whether there were more.
pub async fn read_up_to(stream: Option<impl AsyncRead + Unpin>, most: usize) -> (Vec<u8>, bool) {
    let Some(mut stream) = stream else { return (Vec::new(), false) };
    let mut kept = Vec::new();
    let mut is_cut = false;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            // A pipe that breaks has ended; the exit status says why.
            Ok(0) | Err(_) => return (kept, is_cut),
            Ok(read) => {
                let room = most.saturating_sub(kept.len()).min(read);
                kept.extend_from_slice(&buffer[..room]);
                is_cut |= room < read;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
    #![expect(clippy::disallowed_methods, reason = "there is no step")]

    use super::*;

    fn sh(script: &str) -> Command {
        Command {
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            ..Command::new("/bin/sh", ["-c", script])
        }
    }

    fn soon(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    fn alive(pid: &str) -> bool {
        // A zombie that nobody has reaped yet does not run.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
    }

    #[tokio::test]
    async fn it_gives_status_output_and_nothing_of_our_environment() {
        let done =
            sh("cat; echo oops >&2; env | wc -l; exit 3").run(b"hello\n", 1000, soon(20)).await.unwrap();
        assert_eq!(done.status.code(), Some(3));
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(text.starts_with("hello\n"), "{text}");
        let variables: u32 = text.lines().last().unwrap().trim().parse().unwrap();
        assert!(variables <= 4, "PATH and what sh sets itself, not {variables}");
        assert_eq!(done.stderr, b"oops\n");
    }

    /// Naive: all of a child's output in memory.
    #[tokio::test]
    async fn n19c_a_flood_is_read_and_dropped() {
        let done = sh("head -c 50000000 /dev/zero").run(b"", 1000, soon(20)).await.unwrap();
        assert!(done.is_cut && done.stdout.len() == 1000 && done.stdout.capacity() < 100_000);
        assert!(done.status.success(), "the child was not blocked");
    }

    /// Naive: `kill_on_drop` alone leaves grandchildren behind.
    #[tokio::test]
    async fn n08a_the_deadline_kills_the_whole_group() {
        let script = "sleep 300 & echo $!; trap '' TERM; sleep 300 & echo $!; wait";
        let mut running = sh(script).spawn().await.unwrap();
        let (_stdin, stdout, _stderr) = running.streams();
        let mut stdout = stdout.unwrap();
        let mut text = String::new();
        while text.lines().count() < 2 || !text.ends_with('\n') {
            let mut buffer = [0; 64];
            let read = stdout.read(&mut buffer).await.unwrap();
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        assert!(text.lines().all(alive));
        drop(running);
        for _ in 0..200 {
            if !text.lines().any(alive) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("descendants are alive: {text}");
    }

    /// Naive: `output()` and wait.
    #[tokio::test]
    async fn x26_a_child_that_hangs_ends_at_its_deadline() {
        let error =
            sh("sleep 300").run(b"", 10, Instant::now() + Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TimedOut);
    }

    /// Naive: only the process group is killed, and a child that leaves it with `setsid`, or forks twice, lives on.
    /// Figure: three ways to leave, ended in three ways.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn n08a_what_left_the_group_dies_with_the_child() {
        let leave =
            ["setsid sleep 300 &", "(setsid sh -c 'sleep 300 & echo $!' &)", "setsid setsid sleep 300 &"];
        for (number, leave) in leave.into_iter().enumerate() {
            for end in ["exit 0", "sleep 300", "kill -9 $$"] {
                let attempt = format!("n08a/{}/{number}/{end}", std::process::id());
                let script = format!("{leave}\necho started; {end}");
                let command =
                    Command { family: Some(attempt.clone()), ..sh(&format!("exec 2>/dev/null; {script}")) };
                let mut running = command.spawn().await.unwrap();
                let (_stdin, stdout, _stderr) = running.streams();
                let mut stdout = tokio::io::BufReader::new(stdout.unwrap());
                let mut line = String::new();
                while !line.contains("started") {
                    line.clear();
                    let read = tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
                    assert!(read > 0, "{script}");
                }
                let of_it = || family::living(&attempt);
                if end == "sleep 300" {
                    assert!(!of_it().is_empty(), "{leave} {end}: it was there");
                } else {
                    running.wait().await.unwrap();
                }
                drop(running);
                // The signal is sent; when the system gets round to it is its own matter.
                let patience = Instant::now() + Duration::from_secs(20);
                while !of_it().is_empty() {
                    assert!(Instant::now() < patience, "{leave} {end}: {:?}", of_it());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_start_says_why() {
        let error = Command::new("/no/such/program", ["x"]).spawn().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Environment);
        assert!(error.message.contains("/no/such/program"), "{}", error.message);
        let lost = Command { cwd: Some("/no/such/dir".into()), ..sh("true") };
        assert!(lost.spawn().await.unwrap_err().message.contains("/no/such/dir"));
    }
}
