//! Operations that sum rows up: `group_by` and `aggregate`.
//!
//! Owns what an aggregate gives for no rows (null, or 0 for sums and counts) and for values that it cannot use (an error that
//! names the row). Must not know the step's context.

use std::borrow::Cow;
use std::collections::HashSet;

use indexmap::IndexMap;
use pipeline_core::error::StepError;
use pipeline_core::value::Value;
use serde_json::{Map, Number};

use super::cell::{self, MISSING, Same};
use super::config::{Function, Operation};
use super::rows::{Row, Table};

/// Rows by the value of a field, in order of first appearance. Rows without it are under `null`.
pub(super) fn group_by<'a>(operation: &Operation, rows: Vec<Row<'a>>) -> Result<Table<'a>, StepError> {
    let Some(field) = &operation.field else {
        return Err(StepError::invalid("`field` is missing").help("add `field: …` to the operation"));
    };
    // Names of a map are text: 1 and "1" are one group.
    let mut names: IndexMap<Cow<'_, str>, usize> = IndexMap::new();
    let mut places = Vec::with_capacity(rows.len());
    for row in &rows {
        let name = match cell::get(row, field).unwrap_or(&MISSING) {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        };
        let entry = names.entry(name);
        places.push(entry.index());
        *entry.or_default() += 1;
    }
    let mut groups: Vec<(String, Vec<Row<'a>>)> =
        names.into_iter().map(|(name, size)| (name.into_owned(), Vec::with_capacity(size))).collect();
    for (row, place) in rows.into_iter().zip(places) {
        groups[place].1.push(row);
    }
    Ok(Table::Groups(groups.into_iter().collect()))
}

/// Rows by a field's value, in order of first appearance.
fn grouped<'r>(rows: &'r [Row<'_>], field: &str) -> IndexMap<Same<'r>, Vec<&'r Value>> {
    let mut groups: IndexMap<Same<'r>, Vec<&'r Value>> = IndexMap::new();
    for row in rows {
        let row: &Value = row;
        groups.entry(Same(cell::get(row, field).unwrap_or(&MISSING))).or_default().push(row);
    }
    groups
}

/// One value for all rows, or for each group.
pub(super) fn aggregate<'a>(operation: &Operation, table: Table<'a>) -> Result<Table<'a>, StepError> {
    let field = operation.field.as_deref();
    match (table, &operation.group_by) {
        (Table::Rows(rows), None) => {
            let rows: Vec<&Value> = rows.iter().map(|row| &**row).collect();
            compute(operation.function, field, &rows).map(|value| Table::One(Cow::Owned(value)))
        }
        (Table::Rows(rows), Some(by)) => {
            let name = operation.alias.clone().unwrap_or_else(|| operation.function.name().to_owned());
            let mut all = Vec::new();
            for (key, rows) in grouped(&rows, by) {
                let mut row = Map::new();
                row.insert(by.clone(), key.0.clone());
                row.insert(name.clone(), compute(operation.function, field, &rows)?);
                all.push(Cow::Owned(Value::Object(row)));
            }
            Ok(Table::Rows(all))
        }
        (Table::Groups(_), Some(_)) => Err(StepError::invalid("the rows are grouped already")
            .help("leave `group_by` out: the result is one value for each group")),
        (Table::Groups(groups), None) => {
            let each = groups.into_iter().map(|(key, rows)| {
                let rows: Vec<&Value> = rows.iter().map(|row| &**row).collect();
                Ok((key, compute(operation.function, field, &rows)?))
            });
            Ok(Table::One(Cow::Owned(Value::Object(each.collect::<Result<_, StepError>>()?))))
        }
        (Table::One(value), _) => Err(super::not_rows(&value)),
    }
}

fn compute(function: Function, field: Option<&str>, rows: &[&Value]) -> Result<Value, StepError> {
    let values: Vec<(usize, &Value)> =
        rows.iter().enumerate().filter_map(|(i, row)| Some((i, present(row, field)?))).collect();
    let plain = || values.iter().map(|(_, v)| *v);
    Ok(match function {
        Function::Count => values.len().into(),
        Function::CountDistinct => plain().map(Same).collect::<HashSet<_>>().len().into(),
        Function::First => plain().next().cloned().unwrap_or_default(),
        Function::Last => plain().next_back().cloned().unwrap_or_default(),
        Function::Unique => {
            let mut seen = HashSet::new();
            plain().filter(|v| seen.insert(Same(v))).cloned().collect()
        }
        Function::Min => plain().min_by(|a, b| cell::compare(a, b)).cloned().unwrap_or_default(),
        Function::Max => plain().max_by(|a, b| cell::compare(a, b)).cloned().unwrap_or_default(),
        Function::Sum => sum(&numbers(function, field, &values)?),
        Function::Average => {
            let numbers = numbers(function, field, &values)?;
            divided(&sum(&numbers), numbers.len())
        }
        Function::Median => median(numbers(function, field, &values)?),
    })
}

/// What a row contributes; nothing when it is null or not there.
fn present<'r>(row: &'r Value, field: Option<&str>) -> Option<&'r Value> {
    match field {
        // The rows are the plain values of a list that `field` named.
        Some(_) if !matches!(row, Value::Object(_) | Value::Array(_)) => Some(row).filter(|r| !r.is_null()),
        Some(field) => cell::get(row, field),
        None => Some(row).filter(|r| !r.is_null()),
    }
}

fn numbers<'v>(
    function: Function,
    field: Option<&str>,
    values: &[(usize, &'v Value)],
) -> Result<Vec<&'v Number>, StepError> {
    let number = |(index, value): &(usize, &'v Value)| match value {
        Value::Number(n) => Ok(n),
        other => {
            let mut shown: String = other.to_string().chars().take(60).collect();
            shown = field.map_or(shown.clone(), |f| format!("`{f}` is {shown}"));
            let message = format!("row {}: {shown}, which is not a number", index + 1);
            Err(StepError::invalid(message)
                .help(format!("`{}` needs numbers: filter or map the rows first", function.name())))
        }
    };
    values.iter().map(number).collect()
}

/// Whole as long as all are whole.
fn sum(numbers: &[&Number]) -> Value {
    let whole = numbers.iter().try_fold(0_i128, |sum, n| cell::whole(n).map(|n| sum + n));
    if let Some(sum) = whole
        && let Some(number) = Number::from_i128(sum)
    {
        return Value::Number(number);
    }
    Value::from(numbers.iter().filter_map(|n| n.as_f64()).sum::<f64>())
}

/// Null for none.
fn divided(sum: &Value, count: usize) -> Value {
    match sum.as_f64() {
        Some(sum) if count > 0 => Value::from(sum / count as f64),
        _ => Value::Null,
    }
}

fn median(mut numbers: Vec<&Number>) -> Value {
    let as_value = |n: &Number| Value::Number(n.clone());
    numbers.sort_by(|a, b| cell::compare(&as_value(a), &as_value(b)));
    let middle = numbers.len() / 2;
    match (numbers.len() % 2, numbers.get(middle), middle.checked_sub(1).and_then(|i| numbers.get(i))) {
        (1, Some(one), _) => as_value(one),
        (_, Some(high), Some(low)) => divided(&sum(&[low, high]), 2),
        _ => Value::Null,
    }
}
