//! A call of the CLI as a stream of events.
//!
//! Owns the process while it runs: feeds it, reads its lines up to limits, watches the deadline, and stops it so that
//! nothing of it is left, whichever way the call ends. Dropping the stream is enough. Must not know what lines mean for
//! the answer (`verdict.rs`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Fuse, FusedFuture};
use futures_util::stream;
use pipeline_core::clock::Clock;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::process::Running;
use pipeline_core::provider::{ModelEvent, ModelStream};
use pipeline_core::step::StepContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdout;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::claude_cli::invocation::Invocation;
use crate::claude_cli::line::{self, Init, Line};
use crate::claude_cli::verdict::{Ended, Told};
use crate::secret::Secret;

/// Longest line that is read.
const MOST_LINE: usize = 32 * 1024 * 1024;

/// Most that is read in all.
const MOST_OUTPUT: u64 = 1024 * 1024 * 1024;

/// Most of standard error that is kept.
const MOST_STDERR: usize = 64 * 1024;

/// Room for one read.
const READ: usize = 64 * 1024;

/// How long pipes that something else still holds open are read after the CLI itself has ended.
const LINGER: Duration = Duration::from_millis(500);

/// A call that is going on.
struct Call {
    // The order matters: pipes are closed after the process, and everything that it started, is gone.
    running: Running,
    stdout: ChildStdout,
    work: Fuse<BoxFuture<'static, ()>>,
    stderr: Arc<parking_lot::Mutex<Vec<u8>>>,
    buffer: Vec<u8>,
    /// How far the buffer holds no end of a line.
    searched: usize,
    read: u64,
    told: Told,
    servers: Vec<String>,
    schema: bool,
    secrets: Vec<Secret>,
    usage: Progress,
    waiting: VecDeque<ModelEvent>,
    ended: Option<(std::process::ExitStatus, Instant)>,
    deadline: Instant,
    cancel: CancellationToken,
    clock: Arc<dyn Clock>,
}

/// Usage while messages arrive: those that are complete, and the one being received.
#[derive(Default)]
pub(super) struct Progress {
    before: Usage,
    current: Usage,
}

/// What woke the loop.
enum Woken {
    Read(std::io::Result<usize>),
    Exit(std::io::Result<std::process::ExitStatus>),
    Lingered,
    Deadline,
    Cancelled,
}

/// Starts a call.
///
/// # Errors
/// As [`pipeline_core::process::Command::spawn`].
pub(super) async fn start(
    invocation: Invocation,
    cx: &StepContext,
    clock: Arc<dyn Clock>,
) -> Result<ModelStream, StepError> {
    let mut running = invocation.command.spawn().await?;
    let (stdin, stdout, stderr) = running.streams();
    let (Some(mut stdin), Some(stdout), Some(mut stderr)) = (stdin, stdout, stderr) else {
        return Err(StepError::new(ErrorKind::Internal, "the agent has no pipes"));
    };
    let kept = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let input = invocation.input;
    let feed = async move {
        // Whether it reads its input is its own matter: its result says how it went.
        let _ = stdin.write_all(&input).await;
        let _ = stdin.shutdown().await;
    };
    let complaints = async move {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
            let mut kept = keep.lock();
            kept.extend_from_slice(&buffer[..read]);
            // The end says most.
            let over = kept.len().saturating_sub(MOST_STDERR);
            kept.drain(..over);
        }
    };
    let call = Call {
        running,
        stdout,
        work: async {
            tokio::join!(feed, complaints);
        }
        .boxed()
        .fuse(),
        stderr: kept,
        buffer: Vec::new(),
        searched: 0,
        read: 0,
        told: Told::default(),
        servers: invocation.servers,
        schema: invocation.schema,
        secrets: invocation.secrets,
        usage: Progress::default(),
        waiting: VecDeque::new(),
        ended: None,
        deadline: cx.deadline,
        cancel: cx.cancel.clone(),
        clock,
    };
    Ok(Box::pin(stream::unfold(Some(call), |call| async move {
        let mut call = call?;
        match call.next().await {
            Ok(Some(event)) => Some((Ok(event), Some(call))),
            Ok(None) => {
                let (answer, call) = (call.told_all(), None);
                Some((answer, call))
            }
            Err(error) => Some((Err(call.without_secrets(error)), None)),
        }
    })))
}

impl Call {
    /// The next event; `None` when everything has been told.
    async fn next(&mut self) -> Result<Option<ModelEvent>, StepError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            if let Some(line) = self.take_line()? {
                self.hear(&line)?;
                continue;
            }
            match self.wait().await {
                Woken::Read(Ok(read @ 1..)) => {
                    self.read += u64::try_from(read).unwrap_or(u64::MAX);
                    if self.read > MOST_OUTPUT {
                        return Err(too_much(&format!("the agent printed over {MOST_OUTPUT} bytes")));
                    }
                }
                // The end of its output, or a pipe that broke: its exit says which.
                Woken::Read(_) => {
                    if self.ended.is_none() {
                        self.wait_for_exit().await?;
                    }
                    self.drain_work().await;
                    return Ok(None);
                }
                Woken::Exit(Ok(status)) => self.ended = Some((status, Instant::now() + LINGER)),
                Woken::Exit(Err(error)) => {
                    let message = format!("cannot wait for the agent: {error}");
                    return Err(StepError::new(ErrorKind::Environment, message));
                }
                Woken::Lingered => return Ok(None),
                Woken::Deadline => return Err(self.timed_out()),
                Woken::Cancelled => {
                    return Err(StepError::new(ErrorKind::Cancelled, "the agent was stopped"));
                }
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let linger = self.ended.as_ref().map(|(_, until)| *until);
        let (running, work, stdout) = (&mut self.running, &mut self.work, &mut self.stdout);
        self.buffer.reserve(READ);
        tokio::select! {
            biased;
            read = stdout.read_buf(&mut self.buffer) => Woken::Read(read),
            status = with(work, running.wait()), if linger.is_none() => Woken::Exit(status),
            () = until(linger), if linger.is_some() => Woken::Lingered,
            () = self.cancel.cancelled() => Woken::Cancelled,
            () = tokio::time::sleep_until(self.deadline) => Woken::Deadline,
        }
    }

    /// Its output has ended; the process ends next.
    async fn wait_for_exit(&mut self) -> Result<(), StepError> {
        let deadline = self.deadline.min(Instant::now() + pipeline_core::process::GRACE);
        let exit = with(&mut self.work, self.running.wait());
        match tokio::time::timeout_at(deadline, exit).await {
            Ok(Ok(status)) => {
                self.ended = Some((status, Instant::now()));
                Ok(())
            }
            Ok(Err(error)) => {
                let message = format!("cannot wait for the agent: {error}");
                Err(StepError::new(ErrorKind::Environment, message))
            }
            Err(_) if deadline == self.deadline => Err(self.timed_out()),
            Err(_) => {
                let message = "the agent closed its output and went on running";
                Err(StepError::new(ErrorKind::Truncated, message))
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let lines = line::read(bytes).ok_or_else(|| {
            let start: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
            let message = format!("the agent printed a line that is no JSON object: {start}");
            StepError::new(ErrorKind::Parse, message)
                .help("see whether `providers.claude.executable` is the Claude Code CLI")
        })?;
        for line in lines {
            match &line {
                Line::Init(init) => self.check_servers(init)?,
                Line::TextDelta(text) => self.waiting.push_back(ModelEvent::TextDelta(text.clone())),
                Line::ThinkingDelta(text) => self.waiting.push_back(ModelEvent::ThinkingDelta(text.clone())),
                Line::ToolCall(name) => self.waiting.push_back(ModelEvent::ToolCall { name: name.clone() }),
                Line::Note(note) | Line::Fallback(note) => {
                    self.waiting.push_back(ModelEvent::Note(note.clone()));
                }
                Line::Usage { id, usage } => {
                    let so_far = self.usage.hear(id.is_some(), usage);
                    self.waiting.push_back(ModelEvent::Usage(so_far));
                }
                Line::Message { .. }
                | Line::Trouble { .. }
                | Line::ToolRefused(_)
                | Line::Limit { .. }
                | Line::Result(_) => {}
            }
            self.told.hear(line);
        }
        Ok(())
    }

    /// The CLI goes on without servers that did not start; a pipeline that names them needs them.
    fn check_servers(&self, init: &Init) -> Result<(), StepError> {
        let down = init.servers.iter().filter(|(name, _)| self.servers.contains(name));
        let down: Vec<String> = down
            .filter(|(_, status)| !matches!(status.as_str(), "connected" | "pending"))
            .map(|(name, status)| format!("`{name}` ({status})"))
            .collect();
        if down.is_empty() {
            return Ok(());
        }
        let message = format!("MCP servers did not start: {}", down.join(", "));
        Err(StepError::new(ErrorKind::Environment, message)
            .help("check their `command` or `url` in `mcp_servers`"))
    }

    /// A whole line, without its end.
    fn take_line(&mut self) -> Result<Option<Vec<u8>>, StepError> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = found.map(|at| self.searched + at) else {
            self.searched = self.buffer.len();
            if self.buffer.len() > MOST_LINE {
                return Err(too_much(&format!("the agent printed a line of over {MOST_LINE} bytes")));
            }
            return Ok(None);
        };
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        self.searched = 0;
        line.pop();
        Ok(Some(line))
    }

    /// Everything is told: the verdict.
    fn told_all(mut self) -> Result<ModelEvent, StepError> {
        let Some((status, _)) = self.ended else {
            return Err(StepError::new(ErrorKind::Internal, "the agent's end was not seen"));
        };
        let rest = std::mem::take(&mut self.buffer);
        // The last line may lack its end.
        let torn = !rest.iter().all(u8::is_ascii_whitespace)
            && line::read(&rest).map(|lines| lines.into_iter().for_each(|l| self.told.hear(l))).is_none();
        let stderr = String::from_utf8_lossy(&self.stderr.lock()).into_owned();
        let told = std::mem::take(&mut self.told);
        let ended = Ended { status, stderr: &stderr, torn };
        match told.verdict(&ended, self.schema, self.clock.now()) {
            Ok(answer) => Ok(ModelEvent::Finished(Box::new(answer))),
            Err(error) => Err(self.without_secrets(error)),
        }
    }

    /// What is left on standard error when the process has ended.
    async fn drain_work(&mut self) {
        if !self.work.is_terminated() {
            // Something else may hold the pipe open: then what has been read has to do.
            let _ = tokio::time::timeout(LINGER, &mut self.work).await;
        }
    }

    fn timed_out(&self) -> StepError {
        let message = if self.told.has_result() {
            "the agent gave its answer and did not end before its deadline"
        } else {
            "the agent did not end before its deadline"
        };
        StepError::new(ErrorKind::TimedOut, message)
            .help("give the step a longer `timeout`, or see why it hangs")
    }

    /// The CLI's words may repeat a credential.
    fn without_secrets(&self, mut error: StepError) -> StepError {
        let clean =
            |text: &str| self.secrets.iter().fold(text.to_owned(), |text, secret| secret.redact(&text));
        error.message = clean(&error.message);
        if let Ok(details) = serde_json::from_str(&clean(&error.details.to_string())) {
            error.details = details;
        }
        error
    }
}

impl Progress {
    pub(super) fn hear(&mut self, is_new: bool, usage: &Usage) -> Usage {
        if is_new {
            self.before.add(&self.current);
            self.current = *usage;
        } else {
            // Later words on the same message are totals; some leave out what does not change.
            let larger = |a: &mut u64, b: u64| *a = (*a).max(b);
            larger(&mut self.current.input, usage.input);
            larger(&mut self.current.output, usage.output);
            larger(&mut self.current.cache_read, usage.cache_read);
            larger(&mut self.current.cache_write, usage.cache_write);
        }
        let mut total = self.before;
        total.add(&self.current);
        total
    }
}

/// Waits for `main`, and lets `beside` go on meanwhile.
async fn with<T>(beside: &mut Fuse<BoxFuture<'static, ()>>, main: impl Future<Output = T>) -> T {
    tokio::pin!(main);
    loop {
        if beside.is_terminated() {
            return main.await;
        }
        tokio::select! {
            result = &mut main => return result,
            () = &mut *beside => {}
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn too_much(message: &str) -> StepError {
    // It has worked for us until here, whatever the kind says of money.
    let error = StepError::new(ErrorKind::TooLarge, message).used(Usage::unseen());
    error.help("ask for less, or for files instead of text")
}
