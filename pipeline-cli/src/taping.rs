//! `--record` and `--replay`.
//!
//! Owns [`Taping`]: what a run remembers of its tape, and how the tape is opened for a run that begins or goes on. Must not know
//! the form of a tape.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline_core::clock::{Clock, Timestamp};
use pipeline_core::store::Manifest;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::app::{App, Workshop};
use crate::args;
use crate::exit::Failure;
use crate::setup::Kept;
use crate::wiring::{self, TapedRun};

/// The tape of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taping {
    /// Every effect is kept there.
    Record {
        /// The tape's directory.
        dir: PathBuf,
    },
    /// Every effect comes from there.
    Replay {
        /// The tape's directory.
        dir: PathBuf,
        /// The run that it was recorded of.
        run: TapedRun,
    },
}

impl Taping {
    /// What the command line asks for.
    ///
    /// # Errors
    /// [`Failure`] when there is no tape to replay, or it cannot be read.
    pub fn of(app: &App, asked: &args::Taping) -> Result<Option<Self>, Failure> {
        if let Some(dir) = &asked.replay {
            let dir = app.settings.absolute(dir);
            let run = wiring::taped_run(&dir, app.settings.secrets()).map_err(|error| unusable(&error))?;
            return Ok(Some(Self::Replay { dir, run }));
        }
        Ok(asked.record.as_ref().map(|dir| Self::Record { dir: app.settings.absolute(dir) }))
    }

    /// The run that is replayed.
    pub fn replayed(&self) -> Option<&TapedRun> {
        match self {
            Self::Record { .. } => None,
            Self::Replay { run, .. } => Some(run),
        }
    }

    /// Gives a workshop its tape for the run of `manifest`, whose own directory is `run_dir`, and a replay the time of its
    /// recording.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written or read.
    pub fn put_into(
        &self,
        workshop: &mut Workshop,
        app: &App,
        manifest: &Manifest,
        kept: &Kept,
        run_dir: &Path,
    ) -> Result<(), Failure> {
        let secrets = app.settings.secrets();
        let engine = &mut workshop.engine;
        let services = Arc::make_mut(&mut engine.services);
        let done = match self {
            Self::Record { dir } => {
                let run = TapedRun {
                    run_id: manifest.run_id.clone(),
                    workflow: manifest.workflow.clone(),
                    started_at: manifest.created_at,
                    seed: kept.seed,
                    mode: manifest.mode.clone(),
                    lasting: kept.lasting.clone(),
                };
                wiring::record(services, dir, &run, secrets)
            }
            Self::Replay { dir, run } => {
                let time = RecordedTime { started_at: run.started_at, begun: Instant::now() };
                engine.clock = Arc::new(time);
                wiring::replay(services, dir, run_dir, Arc::clone(&engine.clock), secrets)
            }
        };
        done.map_err(|error| unusable(&error))
    }
}

/// Time that begins when the recorded run did.
struct RecordedTime {
    started_at: Timestamp,
    begun: Instant,
}

impl Clock for RecordedTime {
    fn now(&self) -> Timestamp {
        Timestamp(self.started_at.0 + i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX / 2))
    }
}

fn unusable(message: &str) -> Failure {
    Failure::environment(message)
        .help("`pipeline run FILE --record DIR` makes a tape in a directory that has none")
}
