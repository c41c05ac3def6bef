//! The values of control forms, in the shapes that the language page gives.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::{Map, json};

use crate::error::{ErrorKind, StepError};
use crate::fact::{RunError, Status};
use crate::plan::{Reducer, StepPlan};
use crate::schedule::state::TurnDone;
use crate::value::{Data, Value};

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
    let mut results = Map::new();
    let mut items = Vec::new();
    let mut texts = Vec::new();
    for (index, turn) in done {
        let id = ids.get(*index).cloned().unwrap_or_else(|| format!("task_{}", index + 1));
        if turn.status.is_success() {
            results.insert(id.clone(), turn.last.json().clone());
            texts.push(format!("=== {id} ===\n{}", text_of(&turn.last)));
        }
        let value = if turn.status.is_success() { turn.last.json().clone() } else { Value::Null };
        items.push(json!({
            "id": id, "index": index, "status": turn.status.name(),
            "value": value, "error": error_value(turn.error.as_ref()),
        }));
    }
    let (succeeded, failed) = counts(done);
    Data::of_step(json!({
        "results": results, "items": items, "succeeded": succeeded, "failed": failed,
        "combined_text": texts.join("\n\n"), "success": failed == 0,
    }))
}

/// A value as text: text as it is, anything else as JSON.
fn text_of(value: &Data) -> String {
    match value.json().get("text").unwrap_or(value.primary()) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The value of a for_loop. Takes the turns' values: a large loop is never held three times.
pub(super) fn of_for_loop(items: &[Value], done: &mut BTreeMap<usize, TurnDone>) -> Data {
    let (completed, failed) = counts(done);
    let mut iterations = Vec::with_capacity(done.len());
    let mut results = Vec::with_capacity(done.len());
    for (index, turn) in done {
        if turn.status.is_success() {
            results.push(turn.last.json().clone());
        }
        // Now the value below is the only one, and moves.
        turn.last = Data::null();
        let by_step =
            std::mem::take(&mut turn.results).into_iter().map(|(name, value)| (name, value.into_json()));
        iterations.push(json!({
            "index": index, "item": items.get(*index), "status": turn.status.name(),
            "results": by_step.collect::<Map<_, _>>(), "error": error_value(turn.error.as_ref()),
        }));
    }
    let mut value = Map::new();
    value.insert("iterations".to_owned(), Value::Array(iterations));
    value.insert("results".to_owned(), Value::Array(results));
    value.insert("total_items".to_owned(), items.len().into());
    value.insert("completed_items".to_owned(), completed.into());
    value.insert("failed_items".to_owned(), failed.into());
    value.insert("success".to_owned(), (failed == 0).into());
    Data::of_step(Value::Object(value))
}

/// The value of a while_loop.
pub(super) fn of_while(count: u64, last: &IndexMap<String, Data>, reason: &str, success: bool) -> Data {
    let last: Map<String, Value> = last.iter().map(|(k, v)| (k.clone(), v.json().clone())).collect();
    Data::of_step(json!({ "iterations": count, "last": last, "stop_reason": reason, "success": success }))
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
