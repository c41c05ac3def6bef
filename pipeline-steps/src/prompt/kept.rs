//! Answers that are kept for worse times.
//!
//! Owns the name under which an answer is kept: its step and its question. Must not know when one is asked for.

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::Content;
use pipeline_core::step::{StepContext, StepOutput};
use pipeline_core::store::{SnapshotSpace, SnapshotStore};
use pipeline_core::value::{Hash, Value};
use serde_json::json;

/// Where the answer to a question of this step is kept. What mocks say is kept apart.
pub(super) fn name(cx: &StepContext, question: &[Content], system: Option<&str>) -> String {
    let hash = Hash::of(&(&cx.run.workflow, cx.key.path.as_str(), question, system));
    format!("{}answer-{hash}", if cx.run.mock { "mock-" } else { "" })
}

fn store(cx: &StepContext) -> Result<&dyn SnapshotStore, StepError> {
    cx.services.snapshots.as_deref().ok_or_else(|| {
        StepError::new(ErrorKind::Environment, "there is no place where answers are kept")
            .help("run it with the program `pipeline`, which keeps them in its state directory")
    })
}

/// Keeps the value of a step that succeeded.
///
/// # Errors
/// `Environment` when it cannot be written.
pub(super) async fn save(cx: &StepContext, name: &str, value: &Value) -> Result<(), StepError> {
    let work = async {
        store(cx)?.save(SnapshotSpace::Cache, name, value).await?;
        Ok(Value::Null)
    };
    cx.effect("keep answer", &json!({ "name": name }), work).await?;
    Ok(())
}

/// The value that was kept. Nobody is asked, so it uses nothing.
///
/// # Errors
/// `Environment` when nothing is kept.
pub(super) async fn load(cx: &StepContext, name: &str) -> Result<StepOutput, StepError> {
    let work = async {
        let found = store(cx)?.load(SnapshotSpace::Cache, name).await?;
        found.map(|(value, _)| value).ok_or_else(|| {
            StepError::new(ErrorKind::Environment, "no answer to this question has been kept yet")
                .help("an answer is kept when the step succeeds; give it another `fallback_action` beside it")
        })
    };
    let mut value = cx.effect("kept answer", &json!({ "name": name }), work).await?.into_json();
    if let Some(fields) = value.as_object_mut() {
        fields.insert(
            "usage".to_owned(),
            json!({ "input": 0, "output": 0, "cache_read": 0, "cache_write": 0 }),
        );
        fields.insert("cost_usd".to_owned(), json!(0.0));
        fields.insert("stop_reason".to_owned(), "kept".into());
        fields.insert("attempts".to_owned(), cx.key.turn.into());
    }
    Ok(StepOutput::ok(value))
}
