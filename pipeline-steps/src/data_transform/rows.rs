//! Operations that make rows of rows.
//!
//! Owns [`Data`], what stands between two operations, and every operation that keeps a list a list. Rows of the
//! input are borrowed until an operation changes them, so that a million of them are copied once at most. Must not know the step's context.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::expr::{ExprError, RowExpr};
use pipeline_core::value::Value;

use super::cell::{self, MISSING, Same, SortKey};
use super::config::{Fields, JoinType, Key, Keys, Operation, Order};

/// After so many evaluated rows, other tasks get their turn and a deadline is noticed.
const YIELD_EVERY: usize = 1024;

/// Most pairs of rows that a join may have.
const MOST_PAIRS: usize = 10_000_000;

/// A row: of the input as it is, or one that an operation made.
pub(super) type Row<'a> = Cow<'a, Value>;

/// What stands between two operations.
pub(super) enum Table<'a> {
    /// A list of rows.
    Rows(Vec<Row<'a>>),
    /// What `group_by` made: a list of rows for each key.
    Groups(IndexMap<String, Vec<Row<'a>>>),
    /// A single value: what an aggregate gave, or an input that is not a list.
    One(Row<'a>),
}

impl<'a> Table<'a> {
    /// A list as its rows, anything else as it is.
    pub(super) fn of(value: Row<'a>) -> Self {
        match value {
            Cow::Borrowed(Value::Array(items)) => Self::Rows(items.iter().map(Cow::Borrowed).collect()),
            Cow::Owned(Value::Array(items)) => Self::Rows(items.into_iter().map(Cow::Owned).collect()),
            other => Self::One(other),
        }
    }

    /// The list `field` of a map, where the map has it.
    pub(super) fn inner_list(self, field: Option<&str>) -> Self {
        match (self, field) {
            (Self::One(map), Some(name)) if map.get(name).is_some_and(Value::is_array) => {
                inner(map, name).map_or(Self::Rows(Vec::new()), Self::of)
            }
            (data, _) => data,
        }
    }

    /// As a value: the rows that are still those of the input are copied now.
    pub(super) fn into_value(self) -> Value {
        let list = |rows: Vec<Row<'a>>| rows.into_iter().map(Cow::into_owned).collect();
        match self {
            Self::Rows(rows) => Value::Array(list(rows)),
            Self::Groups(groups) => {
                groups.into_iter().map(|(name, rows)| (name, Value::Array(list(rows)))).collect()
            }
            Self::One(value) => value.into_owned(),
        }
    }
}

/// What a field of a row has.
fn inner<'a>(row: Row<'a>, field: &str) -> Option<Row<'a>> {
    match row {
        Cow::Borrowed(row) => cell::get(row, field).map(Cow::Borrowed),
        Cow::Owned(row) => cell::get(&row, field).cloned().map(Cow::Owned),
    }
}

fn lacks(key: &str) -> StepError {
    StepError::invalid(format!("`{key}` is missing")).help(format!("add `{key}: …` to the operation"))
}

fn at_row(index: usize, error: ExprError) -> StepError {
    let trouble = StepError::invalid(format!("row {}: {}", index + 1, error.message));
    match error.help {
        Some(help) => trouble.help(help),
        None => trouble,
    }
}

async fn breathe(index: usize) {
    if index % YIELD_EVERY == YIELD_EVERY - 1 {
        tokio::task::yield_now().await;
    }
}

/// Keeps the rows for which the condition holds; without one, those whose field is there and not false.
pub(super) async fn filter<'a>(
    operation: &Operation,
    mut rows: Vec<Row<'a>>,
) -> Result<Vec<Row<'a>>, StepError> {
    let field = operation.field.as_deref();
    let mut keeps = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        breathe(index).await;
        keeps.push(match (&operation.condition, field) {
            (Some(condition), field) => holds(condition, field, row).map_err(|e| at_row(index, e))?,
            (None, Some(field)) => cell::get(row, field).is_some_and(|v| *v != Value::Bool(false)),
            (None, None) => return Err(lacks("condition")),
        });
    }
    keep(&mut rows, &keeps);
    Ok(rows)
}

/// Keeps the rows whose flag is set, in their place.
fn keep<T>(rows: &mut Vec<T>, keeps: &[bool]) {
    let mut flags = keeps.iter();
    rows.retain(|_| flags.next().is_some_and(|f| *f));
}

/// A condition may call the row's `field` simply `value`.
fn holds(condition: &RowExpr, field: Option<&str>, row: &Value) -> Result<bool, ExprError> {
    if let Some(field) = field
        && condition.source().contains("value")
        && let Value::Object(fields) = row
        && !fields.contains_key("value")
        && let Some(value) = cell::get(row, field)
    {
        let mut fields = fields.clone();
        fields.insert("value".to_owned(), value.clone());
        return condition.holds(&Value::Object(fields));
    }
    condition.holds(row)
}

/// Replaces each row, or one of its fields.
pub(super) async fn map<'a>(
    operation: &Operation,
    mut rows: Vec<Row<'a>>,
) -> Result<Vec<Row<'a>>, StepError> {
    for (index, row) in rows.iter_mut().enumerate() {
        breathe(index).await;
        let changed = match (operation.field.as_deref(), &operation.expression, &operation.mapping) {
            (Some(field), Some(expression), _) => {
                let value = field_value(expression, field, row).map_err(|e| at_row(index, e))?;
                cell::set(row.to_mut(), field, value)
            }
            (Some(field), None, Some(mapping)) => {
                let new = cell::get(row, field).and_then(|old| mapping.get(&cell::text(old)).cloned());
                new.is_none_or(|new| cell::set(row.to_mut(), field, new))
            }
            (None, Some(expression), _) => {
                *row = Cow::Owned(expression.eval(row).map_err(|e| at_row(index, e))?);
                true
            }
            (None, None, Some(mapping)) => match row.to_mut() {
                Value::Object(fields) => {
                    fields.extend(mapping.iter().map(|(k, v)| (k.clone(), v.clone())));
                    true
                }
                _ => false,
            },
            (_, None, None) => return Err(lacks("expression")),
        };
        if !changed {
            return Err(StepError::invalid(format!(
                "row {} is not a map, so no field can be set",
                index + 1
            ))
            .help("leave `field` out and use `expression` with `item`"));
        }
    }
    Ok(rows)
}

fn field_value(expression: &RowExpr, field: &str, row: &Value) -> Result<Value, ExprError> {
    let old = cell::get(row, field);
    let change = match expression.source().trim() {
        "uppercase" => str::to_uppercase,
        "lowercase" => str::to_lowercase,
        _ => return expression.eval(row),
    };
    Ok(match old {
        Some(Value::String(text)) => Value::String(change(text)),
        Some(other) => other.clone(),
        None => Value::Null,
    })
}

/// Stable; rows without the field come last in either direction.
pub(super) fn sort<'a>(operation: &Operation, mut rows: Vec<Row<'a>>) -> Result<Vec<Row<'a>>, StepError> {
    let keys: Vec<(Option<&str>, Order)> = match (&operation.by, &operation.field) {
        (Some(Keys::Many(keys)), _) => keys
            .iter()
            .map(|key| match key {
                Key::Name(field) => (Some(field.as_str()), operation.order),
                Key::Full(full) => (Some(full.field.as_str()), full.order),
            })
            .collect(),
        (Some(Keys::One(field)), _) | (None, Some(field)) => vec![(Some(field), operation.order)],
        (None, None) if rows.iter().any(|row| row.is_object()) => return Err(lacks("field")),
        (None, None) => vec![(None, operation.order)],
    };
    let key = |row, (field, _): &(Option<&str>, Order)| match field {
        Some(field) => SortKey::of(cell::get(row, field)),
        None => SortKey::of(Some(row)),
    };
    // Each key is found once, not at each comparison.
    let width = keys.len();
    let table: Vec<SortKey<'_>> =
        rows.iter().flat_map(|row| keys.iter().map(move |k| key(&**row, k))).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| {
        let by = |(at, (_, order)): (usize, &(Option<&str>, Order))| {
            table[a * width + at].compare(&table[b * width + at], *order == Order::Desc)
        };
        keys.iter().enumerate().map(by).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    });
    drop(table);
    Ok(order.into_iter().map(|place| std::mem::take(&mut rows[place])).collect())
}

/// Keeps the first of rows that are the same, or the same in some fields.
pub(super) fn unique<'a>(operation: &Operation, mut rows: Vec<Row<'a>>) -> Vec<Row<'a>> {
    let fields: Vec<&str> = match (&operation.fields, &operation.field) {
        (Some(Fields::One(field)), _) | (None, Some(field)) => vec![field],
        (Some(Fields::Many(fields)), _) => fields.iter().map(String::as_str).collect(),
        (Some(Fields::Renamed(fields)), _) => fields.keys().map(String::as_str).collect(),
        (None, None) => Vec::new(),
    };
    let keeps: Vec<bool> = if fields.is_empty() {
        let mut seen = HashSet::with_capacity(rows.len());
        rows.iter().map(|row| seen.insert(Same(row))).collect()
    } else {
        let mut seen = HashSet::with_capacity(rows.len());
        let of = |row, field: &&str| Same(cell::get(row, field).unwrap_or(&MISSING));
        rows.iter().map(|row| seen.insert(fields.iter().map(|f| of(row, f)).collect::<Vec<_>>())).collect()
    };
    keep(&mut rows, &keeps);
    rows
}

/// Keeps some fields of each row. A field that a row lacks stays away.
pub(super) fn select<'a>(operation: &Operation, rows: Vec<Row<'a>>) -> Result<Vec<Row<'a>>, StepError> {
    let same = |field: &String| (field.rsplit('.').next().unwrap_or(field).to_owned(), field.clone());
    let pairs: Vec<(String, String)> = match &operation.fields {
        None => return Err(lacks("fields")),
        Some(Fields::One(field)) => vec![same(field)],
        Some(Fields::Many(fields)) => fields.iter().map(same).collect(),
        Some(Fields::Renamed(fields)) => fields.iter().map(|(k, v)| (k.clone(), cell::text(v))).collect(),
    };
    let chosen = |row: Row<'_>| {
        let found =
            pairs.iter().filter_map(|(new, field)| Some((new.clone(), cell::get(&row, field)?.clone())));
        Cow::Owned(Value::Object(found.collect()))
    };
    Ok(rows.into_iter().map(chosen).collect())
}

/// Keeps `count` rows after `offset`.
pub(super) fn limit<'a>(operation: &Operation, rows: Vec<Row<'a>>) -> Result<Vec<Row<'a>>, StepError> {
    let count = operation.count.ok_or_else(|| lacks("count"))?;
    let as_size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(rows.into_iter().skip(as_size(operation.offset)).take(as_size(count)).collect())
}

/// One level: lists become their elements; with a field, the elements of that field's lists.
pub(super) fn flatten<'a>(operation: &Operation, rows: Vec<Row<'a>>) -> Vec<Row<'a>> {
    let mut flat = Vec::new();
    for row in rows {
        let found = match &operation.field {
            Some(field) => inner(row, field),
            None => Some(row),
        };
        match found.map(Table::of) {
            Some(Table::Rows(items)) => flat.extend(items),
            Some(one) => flat.push(Cow::Owned(one.into_value())),
            None => {}
        }
    }
    flat
}

/// Puts each row together with every one of the other rows that has the same key: as many rows as there are pairs.
pub(super) async fn join<'a>(
    operation: &Operation,
    rows: Vec<Row<'a>>,
    others: Option<&Value>,
) -> Result<Vec<Row<'a>>, StepError> {
    let Some(Value::Array(others)) = others else {
        return Err(StepError::invalid("`right_source` is not a list").help("point it at a list of rows"));
    };
    let (left, right) = match (operation.left_field.as_deref(), operation.join_key.as_deref()) {
        (Some(left), Some(right)) => (left, right),
        (Some(both), None) | (None, Some(both)) => (both, both),
        (None, None) => return Err(lacks("join_key")),
    };
    // Where the first partner of each key is, and where the next one after each partner: no list for each key.
    let mut first: HashMap<Same<'_>, usize> = HashMap::with_capacity(others.len());
    let mut next: Vec<Option<usize>> = vec![None; others.len()];
    for (place, other) in others.iter().enumerate().rev() {
        if let Some(key) = cell::get(other, right) {
            next[place] = first.insert(Same(key), place);
        }
    }
    let mut joined = Vec::with_capacity(rows.len());
    for (number, row) in rows.into_iter().enumerate() {
        breathe(number).await;
        let mut at = cell::get(&row, left).and_then(|key| first.get(&Same(key)).copied());
        if at.is_none() && operation.join_type == JoinType::Left {
            joined.push(row);
            continue;
        }
        let mut row = Some(row);
        while let Some(place) = at {
            at = next[place];
            if joined.len() >= MOST_PAIRS {
                let message = format!("the join has more than {MOST_PAIRS} pairs of rows");
                return Err(StepError::new(ErrorKind::TooLarge, message)
                    .help("filter the rows first, or join by a field that tells them apart"));
            }
            // The last pair takes the row itself.
            let one = if at.is_some() { row.clone() } else { row.take() };
            let Some(Value::Object(mut fields)) = one.map(Cow::into_owned) else {
                return Err(StepError::invalid(format!("row {} is not a map", number + 1)));
            };
            match (&operation.alias, &others[place]) {
                (Some(alias), partner) => {
                    fields.insert(alias.clone(), partner.clone());
                }
                (None, Value::Object(more)) => {
                    fields.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
                }
                // It has the key, so it is a map.
                (None, _) => {}
            }
            joined.push(Cow::Owned(Value::Object(fields)));
        }
    }
    Ok(joined)
}
