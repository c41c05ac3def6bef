//! The engine: the embedded backend of the schedule, and the door to run or resume a plan.
//!
//! Owns [`Engine`]. Must not know files, vendors or terminals. Next: `engine/dispatcher.rs`.

pub mod effect;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::catalog::Services;
use crate::clock::{Clock, Timestamp};
use crate::event::EventSink;
use crate::fact::{RunError, RunStatus, Status, Usage};
use crate::error::StepError;
use crate::plan::{Budget, Inputs, Plan};
use crate::step::RunInfo;
use crate::store::{CheckpointStore, Manifest, OpenedRun, StoreError, StoredRun, StoredSources};
use crate::value::Data;

/// Runs plans. Cheap to clone; nothing in it belongs to one run.
#[derive(Clone)]
pub struct Engine {
    /// What steps use.
    pub services: Arc<Services>,
    /// Where runs live.
    pub store: Arc<dyn CheckpointStore>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

/// What a run is given beside its plan. All of it is stored or derived from what is stored, so that a resume has
/// the same.
#[derive(Debug, Clone)]
pub struct RunSetup {
    /// Facts about the run that steps may know.
    pub info: RunInfo,
    /// Checked inputs (see [`crate::plan::check_inputs`]).
    pub inputs: Inputs,
    /// Values of the environment that expressions may read (`permissions.env`).
    pub env: BTreeMap<String, String>,
    /// State set from outside (`--set VAR=VALUE`).
    pub state: BTreeMap<String, Data>,
    /// Limits from outside; the tighter of these and the file's hold.
    pub limits: Budget,
    /// Stops after the top-level step of this name.
    pub until: Option<String>,
}

/// Who watches a run and who may stop it.
#[derive(Default)]
pub struct RunControl {
    /// Observers.
    pub sinks: Vec<Box<dyn EventSink>>,
    /// Cancelled by the first Ctrl-C: nothing more is started, what is in flight is cut off, state is saved.
    pub stop: CancellationToken,
}

/// Why a run could not be worked on at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal and the plan do not belong together.
    #[error("the journal of this run does not fit its plan: {0}")]
    Mismatch(String),
}

/// How a run stands, when it ended or stopped: what `run --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Run id.
    pub run_id: String,
    /// Workflow name.
    pub workflow: String,
    /// How it ended or stopped.
    pub status: RunStatus,
    /// What it returned.
    pub outputs: Data,
    /// Top-level steps, in the order of the file.
    pub steps: IndexMap<String, StepReport>,
    /// What all attempts used.
    pub usage: Usage,
    /// When it was created.
    pub started_at: Timestamp,
    /// The run's elapsed milliseconds.
    pub duration_ms: u64,
    /// What people should know.
    pub warnings: Vec<String>,
    /// Why it did not succeed.
    pub error: Option<RunError>,
}

/// How a top-level step stands.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// How; `None` = not reached.
    pub status: Option<Status>,
    /// Its value.
    pub value: Data,
    /// Ended attempts, of all leaves below it for a control form.
    pub attempts: u32,
    /// From ready to ended, in run time.
    pub duration_ms: u64,
    /// True when this process did not run it, because the journal had it.
    pub reused: bool,
    /// Why it did not succeed.
    pub error: Option<StepError>,
}

impl Engine {
    /// Creates a run and works on it until it ends or stops.
    ///
    /// # Errors
    /// [`EngineError`] when the run could not be created or its journal could not be written; a run that fails is a
    /// report, not an error.
    pub async fn run(
        &self,
        plan: Arc<Plan>,
        setup: RunSetup,
        manifest: Manifest,
        sources: StoredSources,
        control: RunControl,
    ) -> Result<RunReport, EngineError> {
        let _ = (plan, setup, sources, control);
        Err(EngineError::Mismatch(manifest.run_id))
    }

    /// Goes on with a run that was taken over. A finished run is reported as it is: nothing is appended.
    ///
    /// # Errors
    /// As [`Engine::run`], and [`EngineError::Mismatch`].
    pub async fn resume(
        &self,
        plan: Arc<Plan>,
        setup: RunSetup,
        opened: OpenedRun,
        control: RunControl,
    ) -> Result<RunReport, EngineError> {
        let _ = (plan, setup, control);
        Err(EngineError::Mismatch(opened.stored.manifest.run_id))
    }

    /// Folds a stored run, without working on it: what `runs show` prints.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`].
    pub fn inspect(plan: &Arc<Plan>, setup: &RunSetup, stored: &StoredRun) -> Result<RunReport, EngineError> {
        let _ = (plan, setup);
        Err(EngineError::Mismatch(stored.manifest.run_id.clone()))
    }
}
