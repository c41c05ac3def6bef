//! Variables that outlive runs, in the session store.
//!
//! Owns where they are kept and how one attempt sets them: under the lease of the session, once, and only on top of what
//! the run has seen. Next: `schedule/lasting.rs`, which decides what follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};

use crate::engine::effect::EffectPort;
use crate::error::{ErrorKind, StepError};
use crate::expr::Dynamic;
use crate::fact::{Assignment, AttemptEnd, Status, Usage, VariableScope};
use crate::path::OpKey;
use crate::plan::{Body, Plan};
use crate::schedule::{Lasting, LastingVariables, Merge, reduce};
use crate::step::RunInfo;
use crate::store::{SessionLease, SessionStore, SessionTurn};
use crate::value::{Data, Value};

/// The session that keeps the variables of a workflow. Those of runs on mocks are others than those of live runs.
pub fn session_of(workflow: &str, mock: bool) -> String {
    format!("{}variables/{workflow}", if mock { "mock/" } else { "" })
}

/// What is kept of the variables of the workflows in `plan`: what a run of it begins with.
///
/// # Errors
/// As [`SessionStore::read`].
pub async fn stored(
    store: &dyn SessionStore,
    plan: &Plan,
    mock: bool,
) -> Result<LastingVariables, StepError> {
    let mut all = LastingVariables::new();
    if !plan.steps.iter().any(|step| matches!(&step.body, Body::Leaf(leaf) if may_last(&leaf.with))) {
        return Ok(all);
    }
    for pipeline in &plan.pipelines {
        if let Some(session) = store.read(&session_of(&pipeline.name, mock)).await? {
            let variables = session.variables.into_iter().map(|(name, value)| (name, Data::new(value)));
            all.insert(pipeline.name.to_string(), variables.collect());
        }
    }
    Ok(all)
}

fn may_last(with: &Dynamic) -> bool {
    let Dynamic::Map(fields) = with else { return false };
    fields.iter().any(|(name, value)| {
        name == "scope"
            && match value {
                Dynamic::Const(word) => word.json() == "session",
                _ => true,
            }
    })
}

/// Keeps lasting variables for one attempt.
pub(super) struct Keeper {
    pub(super) sessions: Option<Arc<dyn SessionStore>>,
    pub(super) effects: EffectPort,
    pub(super) run: Arc<RunInfo>,
    pub(super) attempt: OpKey,
}

/// The end of an attempt that was computed from values that are no longer there.
pub(super) fn stale(now: Vec<Assignment>) -> AttemptEnd {
    let names: Vec<String> = now.iter().map(|a| format!("`{}`", a.name)).collect();
    let message =
        format!("another run has set {}: it is done again with what is there now", names.join(", "));
    let error = StepError::new(ErrorKind::Cancelled, message);
    AttemptEnd { status: Status::Cancelled, put_back: true, set: now, ..AttemptEnd::failed(error) }
}

impl Keeper {
    /// Keeps what a step sets. Gives what is there when another run has set one of the variables since they were seen;
    /// then nothing is kept.
    pub(super) async fn keep(
        &self,
        lasting: &Lasting,
        set: &[Assignment],
    ) -> Result<Option<Vec<Assignment>>, StepError> {
        let set: BTreeMap<String, Value> = set
            .iter()
            .filter(|a| a.scope == VariableScope::Session)
            .map(|a| (a.name.clone(), a.value.json().clone()))
            .collect();
        if set.is_empty() {
            return Ok(None);
        }
        let seen: Map<String, Value> = set
            .keys()
            .filter_map(|name| Some((name.clone(), lasting.seen.get(name)?.json().clone())))
            .collect();
        let request = json!({ "workflow": &*lasting.workflow, "set": set, "seen": seen });
        let keep = async {
            let mut lease = self.lease(lasting).await?;
            if lease.has(&self.key()) {
                return Ok(json!({}));
            }
            let there = &lease.session().variables;
            let is_stale = set.keys().any(|name| there.get(name).is_some_and(|v| seen.get(name) != Some(v)));
            if is_stale {
                let now = set.keys().filter_map(|name| Some((name.clone(), there.get(name)?.clone())));
                return Ok(json!({ "now": now.collect::<Map<String, Value>>() }));
            }
            lease.append(self.turn(), set).await?;
            Ok(json!({}))
        };
        let kept = self.effects.run("session variables", &request, keep).await?;
        let now = kept.json().get("now").and_then(Value::as_object);
        Ok(now.map(|now| {
            now.iter().map(|(k, v)| Assignment::from((k.clone(), Data::new(v.clone())))).collect()
        }))
    }

    /// Merges what parallel turns wrote with what is there, keeps it, and gives it.
    pub(super) async fn merge(
        &self,
        lasting: Option<&Lasting>,
        merges: &[Merge],
    ) -> Result<Vec<Assignment>, StepError> {
        let Some(lasting) = lasting else { return Ok(Vec::new()) };
        let request = json!({ "workflow": &*lasting.workflow, "merge": merges });
        let keep = async {
            let mut lease = self.lease(lasting).await?;
            let there = lease.session().variables.clone();
            if lease.has(&self.key()) {
                // Set before a crash; whatever other runs have set since stands on top of it.
                return Ok(json!(
                    merges.iter().filter_map(|m| there.get_key_value(&m.name)).collect::<BTreeMap<_, _>>()
                ));
            }
            let mut set = BTreeMap::new();
            for merge in merges {
                let of_others = there
                    .get(&merge.name)
                    .filter(|v| lasting.seen.get(&merge.name).map(Data::json) != Some(v));
                let before = of_others.map(|v| Data::new(v.clone())).or_else(|| merge.before.clone());
                let value = reduce(merge.reducer, before.as_ref(), &merge.written)
                    .map_err(|message| StepError::invalid(format!("reduce `{}`: {message}", merge.name)))?;
                set.insert(merge.name.clone(), value.into_json());
            }
            lease.append(self.turn(), set.clone()).await?;
            Ok(json!(set))
        };
        let kept = self.effects.run("session variables", &request, keep).await?;
        let kept = kept.json().as_object().cloned().unwrap_or_default();
        Ok(kept.into_iter().map(|(name, value)| Assignment::from((name, Data::new(value)))).collect())
    }

    async fn lease(&self, lasting: &Lasting) -> Result<Box<dyn SessionLease>, StepError> {
        let store = self.sessions.as_deref().ok_or_else(|| {
            StepError::new(
                ErrorKind::Environment,
                "there is no place where variables of scope `session` are kept",
            )
            .help("run it with the program `pipeline`, or set them in another scope")
        })?;
        store.lease(&session_of(&lasting.workflow, self.run.mock)).await
    }

    /// The attempt's idempotency key: what it set is not set again when a crash cuts it off and it comes back.
    fn key(&self) -> String {
        format!("{}/{}/{}", self.run.id, self.attempt.path, self.attempt.turn)
    }

    fn turn(&self) -> SessionTurn {
        SessionTurn {
            key: self.key(),
            messages: Vec::new(),
            provider: String::new(),
            provider_session: None,
            usage: Usage::default(),
        }
    }
}
