//! `checkpoint`: saves the pipeline's state under a name, or brings it back.
//!
//! Owns the step and the form of a snapshot. Every run is journaled and resumes without it: this is for state that another
//! run, or a later step, starts from. Where snapshots lie is the store's. Next: `checkpoint/folder.rs`, the workspace's files.

mod folder;

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::{Assignment, VariableScope};
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::store::{SnapshotSpace, SnapshotStore};
use pipeline_core::value::{Data, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

const EXAMPLE: &str = r#"workflow:
  name: snapshot
  variables: {done: [1, 2]}
  steps:
    - name: keep
      type: checkpoint
      checkpoint_name: halfway
    - name: back
      type: checkpoint
      action: load
      checkpoint_name: halfway
    - name: show
      type: test_echo
      value: "{{ state.done }}"
"#;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Saves, in the place of what had the name.
    #[default]
    Save,
    /// Sets the variables that were saved.
    Load,
}

/// What to do when there is no snapshot of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnNotFound {
    /// The step fails.
    #[default]
    #[serde(alias = "error")]
    Fail,
    /// The step succeeds with `found: false`; the variables under `state` are set to what stands there.
    #[serde(alias = "skip", alias = "ignore")]
    Continue,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The snapshot's name; the step's own name when it is left out.
    #[serde(default)]
    checkpoint_name: Option<String>,
    /// save or load.
    #[serde(default)]
    action: Action,
    /// save: what is saved, an expression or a map of names and values; all variables of the pipeline when it is left out.
    /// load: names of variables, with the values that they get when there is no snapshot.
    #[serde(default)]
    #[schemars(extend("x-kind" = "expression"))]
    state: Value,
    /// The files of the workspace belong to the snapshot too: up to 64 MiB.
    #[serde(default)]
    include_workspace: bool,
    /// Packs the snapshot.
    #[serde(default)]
    compress: bool,
    /// load: what happens when there is no snapshot of the name.
    #[serde(default)]
    on_not_found: OnNotFound,
}

/// A snapshot as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    state: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<Vec<folder::Stored>>,
}

/// The step type `checkpoint`.
pub(crate) struct Checkpoint;

#[async_trait]
impl Step for Checkpoint {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "checkpoint",
            summary: "Saves the pipeline's variables under a name that outlives the run, or brings them back.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with.clone())?;
        let Some(store) = cx.services.snapshots.clone() else {
            let message = "this program was put together without a store for snapshots";
            return Err(StepError::new(ErrorKind::Unsupported, message));
        };
        let name = config.checkpoint_name.clone().unwrap_or_else(|| {
            let path = cx.key.path.as_str();
            path.rsplit('/').next().unwrap_or(path).to_owned()
        });
        match config.action {
            Action::Save => save(cx, &*store, name, config, with.json()).await,
            Action::Load => load(cx, &*store, name, config, with.json()).await,
        }
    }
}

async fn save(
    cx: &StepContext,
    store: &dyn SnapshotStore,
    name: String,
    config: Config,
    with: &Value,
) -> Result<StepOutput, StepError> {
    let work = async {
        let files = if config.include_workspace { Some(folder::read(cx).await?) } else { None };
        let count = files.as_ref().map(Vec::len);
        let snapshot = Snapshot { state: config.state, files };
        let broken = |e: serde_json::Error| StepError::new(ErrorKind::Internal, e.to_string());
        let mut stored = serde_json::to_value(snapshot).map_err(broken)?;
        if config.compress {
            stored = json!({ "packed": folder::pack(stored.to_string().as_bytes())? });
        }
        store.save(SnapshotSpace::Checkpoint, &name, &stored).await?;
        Ok(match count {
            Some(files) => json!({ "name": name, "files": files }),
            None => json!({ "name": name }),
        })
    };
    let value = cx.effect("save", with, work).await?.into_json();
    Ok(StepOutput::ok(value))
}

async fn load(
    cx: &StepContext,
    store: &dyn SnapshotStore,
    name: String,
    config: Config,
    with: &Value,
) -> Result<StepOutput, StepError> {
    let work = async {
        let Some((stored, _)) = store.load(SnapshotSpace::Checkpoint, &name).await? else {
            return match config.on_not_found {
                OnNotFound::Continue => Ok(json!({ "name": name, "found": false, "state": config.state })),
                OnNotFound::Fail => {
                    let message = format!("there is no checkpoint `{name}`");
                    Err(StepError::new(ErrorKind::Environment, message)
                        .help("save one first, or go on without it: `on_not_found: continue`"))
                }
            };
        };
        let snapshot = unpacked(&name, stored)?;
        let mut value = json!({ "name": name, "found": true, "state": snapshot.state });
        if config.include_workspace {
            let Some(files) = snapshot.files else {
                return Err(StepError::invalid(format!(
                    "the checkpoint `{name}` has no files of a workspace"
                ))
                .help("save it with `include_workspace: true`"));
            };
            folder::write(cx, &files).await?;
            value["files"] = files.len().into();
        }
        Ok(value)
    };
    let value = cx.effect("load", with, work).await?.into_json();
    let set = match &value["state"] {
        Value::Object(variables) => assignments(variables),
        _ => Vec::new(),
    };
    Ok(StepOutput { set, ..StepOutput::ok(value) })
}

fn assignments(variables: &Map<String, Value>) -> Vec<Assignment> {
    let one = |(name, value): (&String, &Value)| Assignment {
        scope: VariableScope::Global,
        name: name.clone(),
        value: Data::new(value.clone()),
    };
    variables.iter().map(one).collect()
}

fn unpacked(name: &str, stored: Value) -> Result<Snapshot, StepError> {
    let broken = |what: String| {
        StepError::new(ErrorKind::Environment, format!("the checkpoint `{name}` cannot be read: {what}"))
            .help("save it again")
    };
    let plain = match stored.get("packed").and_then(Value::as_str) {
        Some(packed) => {
            let bytes = folder::unpack(packed).map_err(&broken)?;
            serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?
        }
        None => stored,
    };
    serde_json::from_value(plain).map_err(|e| broken(e.to_string()))
}
