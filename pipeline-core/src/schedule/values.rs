//! The values of control forms, in the shapes that the language page gives.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::{Map, json};

use crate::error::{ErrorKind, StepError};
use crate::fact::{RunError, Status};
use crate::plan::{Reducer, StepPlan};
use crate::schedule::state::TurnDone;
use crate::value::{Data, Name, Part, Value};

/// The error of something that was stopped.
pub(super) fn stopped(status: Status, step: &StepPlan) -> StepError {
    if status == Status::TimedOut {
        let limit = step.timeout.map_or(String::new(), |t| format!(" after {t:?}"));
        return StepError::new(ErrorKind::TimedOut, format!("`{}` reached its deadline{limit}", step.name))
            .help("give it a longer `timeout`, or do less in it");
    }
    StepError::new(
        ErrorKind::Cancelled,
        format!("`{}` was stopped, because what it belongs to ended", step.name),
    )
}

/// What later steps read of a step that failed and was let go by `continue_on_error`.
pub(super) fn of_failure(status: Status, error: &StepError) -> Data {
    Data::of_step(json!({
        "success": false,
        "status": status.name(),
        "error": { "kind": error.kind.name(), "message": error.message },
    }))
}

fn error_value(error: Option<&RunError>) -> Value {
    error.map_or(
        Value::Null,
        |e| json!({ "kind": e.error.kind.name(), "message": e.error.message, "path": e.path }),
    )
}

/// Counts of successes and failures.
fn counts(done: &BTreeMap<usize, TurnDone>) -> (usize, usize) {
    let failed = done.values().filter(|t| !t.status.is_success() && t.status != Status::Skipped).count();
    (done.values().filter(|t| t.status.is_success()).count(), failed)
}

/// The value of a fan-out: `ids` in order.
pub(super) fn of_parallel(ids: &[String], done: &BTreeMap<usize, TurnDone>) -> Data {
    let mut results = IndexMap::new();
    let mut items = Vec::with_capacity(done.len());
    let mut texts = Vec::new();
    let [id, index, status, value, error] = names(["id", "index", "status", "value", "error"]);
    for (place, turn) in done {
        let name = ids.get(*place).cloned().unwrap_or_else(|| format!("task_{}", place + 1));
        let is_success = turn.status.is_success();
        if is_success {
            texts.push(format!("=== {name} ===\n{}", text_of(&turn.last)));
            results.insert(Name::from(&*name), Part::Shared(turn.last.clone()));
        }
        items.push(Part::map([
            (Name::clone(&id), Value::from(name).into()),
            (Name::clone(&index), Value::from(*place).into()),
            (Name::clone(&status), Value::from(turn.status.name()).into()),
            (Name::clone(&value), if is_success { turn.last.clone().into() } else { Value::Null.into() }),
            (Name::clone(&error), error_value(turn.error.as_ref()).into()),
        ]));
    }
    let (succeeded, failed) = counts(done);
    step([
        ("results", Part::map(results)),
        ("items", Part::list(items)),
        ("succeeded", Value::from(succeeded).into()),
        ("failed", Value::from(failed).into()),
        ("combined_text", Value::from(texts.join("\n\n")).into()),
        ("success", Value::from(failed == 0).into()),
    ])
}

/// The value of a control form, of its fields.
fn step<const N: usize>(fields: [(&str, Part); N]) -> Data {
    Data::of_parts(Part::map(fields.map(|(name, part)| (Name::from(name), part)))).into_step()
}

/// Names that every turn has: made once, shared by all.
fn names<const N: usize>(names: [&str; N]) -> [Name; N] {
    names.map(Name::from)
}

/// A value as text: text as it is, anything else as JSON.
fn text_of(value: &Data) -> String {
    match value.json().get("text").unwrap_or(value.primary()) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The value of a for_loop over so many items.
pub(super) fn of_for_loop(total: usize, done: &BTreeMap<usize, TurnDone>) -> Data {
    let mut turns = Vec::with_capacity(done.len());
    let [index, item, status, results, error] = names(["index", "item", "status", "results", "error"]);
    for (place, turn) in done {
        let by_step = turn.results.iter().map(|(name, value)| (Name::clone(name), value.clone().into()));
        turns.push(Part::map([
            (Name::clone(&index), Value::from(*place).into()),
            (Name::clone(&item), turn.item.clone().into()),
            (Name::clone(&status), Value::from(turn.status.name()).into()),
            (Name::clone(&results), Part::map(by_step)),
            (Name::clone(&error), error_value(turn.error.as_ref()).into()),
        ]));
    }
    let last = done.values().filter(|t| t.status.is_success()).map(|t| t.last.clone().into());
    let (completed, failed) = counts(done);
    step([
        ("iterations", Part::list(turns)),
        ("results", Part::list(last)),
        ("total_items", Value::from(total).into()),
        ("completed_items", Value::from(completed).into()),
        ("failed_items", Value::from(failed).into()),
        ("success", Value::from(failed == 0).into()),
    ])
}

/// The value of a while_loop.
pub(super) fn of_while(count: u64, last: &IndexMap<Name, Data>, reason: &str, success: bool) -> Data {
    let last = last.iter().map(|(name, value)| (Name::clone(name), value.clone().into()));
    step([
        ("iterations", Value::from(count).into()),
        ("last", Part::map(last)),
        ("stop_reason", Value::from(reason).into()),
        ("success", Value::from(success).into()),
    ])
}

/// Merges what parallel turns wrote to one variable, in item order, with the value there was.
///
/// # Errors
/// A sentence when the values do not fit the reducer.
pub(crate) fn reduce(reducer: Reducer, before: Option<&Data>, written: &[Data]) -> Result<Data, String> {
    let before = before.map(Data::json).filter(|v| !v.is_null());
    let numbers = |what: &str| -> Result<Vec<Value>, String> {
        before
            .into_iter()
            .chain(written.iter().map(Data::json))
            .map(|v| {
                if v.is_number() { Ok(v.clone()) } else { Err(format!("{what} needs numbers, and met {v}")) }
            })
            .collect()
    };
    let number = |v: &Value| v.as_f64().unwrap_or_default();
    let value = match reducer {
        Reducer::Append => {
            let mut list = match before {
                Some(Value::Array(items)) => items.clone(),
                Some(other) => vec![other.clone()],
                None => Vec::new(),
            };
            list.extend(written.iter().map(|d| d.json().clone()));
            Value::Array(list)
        }
        Reducer::Merge => {
            let mut all = Map::new();
            for part in before.into_iter().chain(written.iter().map(Data::json)) {
                let Value::Object(fields) = part else {
                    return Err(format!("merge needs maps, and met {part}"));
                };
                all.extend(fields.clone());
            }
            Value::Object(all)
        }
        Reducer::Last => written.last().map_or(Value::Null, |d| d.json().clone()),
        Reducer::Sum => {
            let all = numbers("sum")?;
            let whole: Option<i64> = all.iter().try_fold(0_i64, |sum, v| sum.checked_add(v.as_i64()?));
            whole.map_or_else(|| json!(all.iter().map(number).sum::<f64>()), Value::from)
        }
        Reducer::Max => {
            let all = numbers("max")?;
            all.into_iter().max_by(|a, b| number(a).total_cmp(&number(b))).unwrap_or_default()
        }
        Reducer::Min => {
            let all = numbers("min")?;
            all.into_iter().min_by(|a, b| number(a).total_cmp(&number(b))).unwrap_or_default()
        }
    };
    Ok(Data::new(value))
}

/// A path like `a.b[0]` into a value.
pub(super) fn at_path<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = value;
    for part in path.split('.').flat_map(|p| p.split('[')) {
        let name = part.trim_end_matches(']');
        here = match name.parse::<usize>() {
            Ok(index) if here.is_array() => here.get(index)?,
            _ if name.is_empty() => here,
            _ => here.get(name)?,
        };
    }
    Some(here)
}
