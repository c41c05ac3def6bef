//! This program, started by itself: a case of `test`, a cut of `verify`, a measurement of `bench` are runs like any other.

use std::path::Path;
use std::time::Duration;

use pipeline_core::process::{Command, Finished};
use pipeline_core::value::Value;
use tokio::time::Instant;

use crate::app::App;
use crate::exit::Failure;

/// Most bytes of a stream that are read.
const MOST: usize = 64 * 1024 * 1024;

/// How a run of this program ended.
pub struct Ended {
    /// Its exit code; `None` = a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it told.
    pub stderr: String,
}

impl Ended {
    /// The document that it printed; null when it printed none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or(Value::Null)
    }
}

/// This program with arguments, in `cwd`, with what children get of the environment.
///
/// # Errors
/// [`Failure`] when the program cannot find itself.
#[expect(clippy::disallowed_methods, reason = "this program itself, which a person asked for")]
pub fn command(app: &App, args: &[String], cwd: &Path) -> Result<Command, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::environment(format!("the program cannot find its own file: {error}")))?;
    let mut command = Command::new(program, args);
    command.cwd = Some(cwd.to_owned());
    command.env = app.settings.child_env();
    Ok(command)
}

/// Runs it to its end.
///
/// # Errors
/// [`Failure`] when it cannot be started or does not end in time.
pub async fn run(app: &App, args: &[String], cwd: &Path, patience: Duration) -> Result<Ended, Failure> {
    let done: Finished = command(app, args, cwd)?
        .run(b"", MOST, Instant::now() + patience)
        .await
        .map_err(|error| Failure::environment(format!("`pipeline {}`: {error}", args.join(" "))))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { code: done.status.code(), stdout: text(&done.stdout), stderr: text(&done.stderr) })
}

/// Words as arguments.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
