//! `pipeline run --detach`: a run that outlives the terminal it was started at.
//!
//! Owns the start of this program in a process group of its own, and the wait until its run is on disk or has failed to begin.
//! Whatever that process tells goes to `detached.log` in the directory of its run. What a run is: `run.rs`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pipeline_core::store::CheckpointStore;
use serde_json::json;
use tokio::time::Instant;

use crate::app::App;
use crate::args::Run;
use crate::exit::{Exit, Failure};
use crate::setup::run_dir;

const FLAG: &str = "--detach";
/// What the process told, in the directory of its run.
const LOG: &str = "detached.log";
/// How long a run may take to begin: tools that it names are started before.
const BEGIN: Duration = Duration::from_mins(2);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Starts this command line again as a process of its own, which makes the run `id`; all questions have been asked.
///
/// # Errors
/// [`Failure`] when it cannot be started, or when no run comes of it.
pub(super) async fn detach(
    app: &App,
    args: &Run,
    id: &str,
    state_dir: &Path,
    store: &dyn CheckpointStore,
) -> Result<Exit, Failure> {
    if args.file == "-" {
        return Err(Failure::usage("a run cannot be detached from a file on standard input")
            .help("write it to a file, and run that"));
    }
    let log = Log::new(state_dir, id)?;
    let failed = |error: std::io::Error| {
        Failure::environment(format!("the run cannot be started as a process of its own: {error}"))
            .help("run it without --detach")
    };
    let program = std::env::current_exe().map_err(failed)?;
    let (out, err) = log.open()?;
    let mut command = Command::new(program);
    command.args(again(std::env::args_os().skip(1), id, args.id.is_some()));
    command.stdin(Stdio::null()).stdout(out).stderr(err).current_dir(&app.settings.working);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut process = command.spawn().map_err(failed)?;
    let until = Instant::now() + BEGIN;
    while store.read(id).await.is_err() {
        if let Some(status) = process.try_wait().map_err(failed)?
            && store.read(id).await.is_err()
        {
            let told = log.take_back();
            app.console.err(told.trim_end());
            return Ok(status.code().and_then(Exit::of_code).unwrap_or(Exit::Failed));
        }
        if Instant::now() > until {
            // It may begin after all, and nobody would know: what does not begin in time is stopped.
            let _gone = process.kill().and_then(|()| process.wait());
            return Err(Failure::environment(format!("the run did not begin within {BEGIN:?}"))
                .help(format!("it told: {}", log.take_back().trim_end())));
        }
        tokio::time::sleep(LOOK).await;
    }
    log.keep(&run_dir(state_dir, id));
    app.console.out(&if app.settings.json {
        let document = json!({"schema": "pipeline.detached/1", "run_id": id, "pid": process.id()});
        format!("{document:#}\n")
    } else {
        format!(
            "run {id} goes on by itself (pid {})\n  watch it: pipeline runs logs {id} --follow\n  stop it:  pipeline runs cancel {id}\n",
            process.id()
        )
    })?;
    Ok(Exit::Success)
}

/// The command line of the process: without the flag, with the run's id, asking nothing.
fn again(args: impl Iterator<Item = OsString>, id: &str, has_id: bool) -> Vec<OsString> {
    let (mut all, mut found) = (Vec::new(), false);
    for arg in args {
        if found || arg != FLAG {
            all.push(arg);
            continue;
        }
        found = true;
        all.extend(["--yes", "--no-interactive"].map(OsString::from));
        if !has_id {
            all.push(format!("--run-id={id}").into());
        }
    }
    all
}

/// What the process tells: beside the runs until there is a directory of its own.
struct Log {
    path: PathBuf,
}

impl Log {
    fn new(state_dir: &Path, id: &str) -> Result<Self, Failure> {
        let log = Self { path: state_dir.join(format!("{id}.{LOG}")) };
        fs::create_dir_all(state_dir).map_err(|error| log.failure(&error))?;
        Ok(log)
    }

    fn open(&self) -> Result<(File, File), Failure> {
        let open = || {
            let file = File::create_new(&self.path)?;
            Ok((file.try_clone()?, file))
        };
        open().map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::environment(format!("{} cannot be written: {error}", self.path.display()))
            .help("see that the directory is there and may be written, or choose another by --state-dir")
    }

    /// What it told, when no run came of it.
    fn take_back(&self) -> String {
        let told = fs::read(&self.path).unwrap_or_default();
        // Of no more use to anybody, and harmless where it stays.
        let _ = fs::remove_file(&self.path);
        String::from_utf8_lossy(&told).into_owned()
    }

    /// Puts it where the run is: it goes when the run goes. The process writes on.
    fn keep(self, run_dir: &Path) {
        // Where the run was removed already, nobody misses it.
        let _ = fs::rename(&self.path, run_dir.join(LOG));
    }
}
