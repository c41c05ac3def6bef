//! Lists and maps, and expressions over their items.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::support::{
    ENDED, Located, NOW, ROW, entries, help_of, items, map_value, of_scope, pay, pay_items, printed, shown,
    wrong,
};
use crate::expr::{Expr, NAMESPACES};

/// Longest `range`.
const LONGEST_RANGE: u64 = 100_000;

/// What the expressions over items are compiled with: an engine with so much fuel.
pub(super) type Engine = fn(u64) -> Environment<'static>;

pub(super) fn install(env: &mut Environment<'static>, engine: Engine) {
    env.add_function("length", length);
    env.add_filter("length", length);
    env.add_function("append", |state: &State, x: Value, item: Value| {
        if let Some(text) = x.as_str() {
            let item = printed(&item)?;
            pay(state, text.len() + item.len())?;
            return Ok(Value::from(format!("{text}{item}")));
        }
        pay_items(state, x.len().unwrap_or_default())?;
        Ok::<_, Error>(items(&x)?.chain([item]).collect())
    });
    env.add_function("keys", |x: Value| {
        entries(&x).map(|m| m.into_iter().map(|(k, _)| k).collect::<Value>())
    });
    env.add_function("values", |x: Value| {
        entries(&x).map(|m| m.into_iter().map(|(_, v)| v).collect::<Value>())
    });
    env.add_function("merge", |state: &State, maps: Rest<Value>| {
        let mut all: Vec<(Value, Value)> = Vec::new();
        for map in maps.iter() {
            all.extend(entries(map)?);
        }
        pay_items(state, all.len())?;
        Ok::<_, Error>(map_value(all))
    });
    env.add_function("concat", concat);
    env.add_function("range", range);
    over_items(env, engine);
}

fn length(x: Value) -> Result<usize, Error> {
    match x.as_str() {
        Some(text) => Ok(text.chars().count()),
        None => x.len().ok_or_else(|| wrong(format!("{} has no length", shown(&x)))),
    }
}

fn concat(state: &State, parts: Rest<Value>) -> Result<Value, Error> {
    if parts.iter().all(|p| p.as_str().is_some()) {
        let text: String = parts.iter().filter_map(Value::as_str).collect();
        pay(state, text.len())?;
        return Ok(Value::from(text));
    }
    let mut all = Vec::new();
    for part in parts.iter() {
        if part.kind() == ValueKind::Seq || part.kind() == ValueKind::Iterable {
            all.extend(part.try_iter()?);
        } else {
            all.push(part.clone());
        }
    }
    pay_items(state, all.len())?;
    Ok(Value::from(all))
}

fn range(state: &State, first: i64, stop: Option<i64>, step: Option<i64>) -> Result<Vec<i64>, Error> {
    let (start, stop) = stop.map_or((0, first), |stop| (first, stop));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(wrong("a range needs a step other than 0"));
    }
    let is_empty = if step > 0 { start >= stop } else { start <= stop };
    let length = if is_empty { 0 } else { start.abs_diff(stop).div_ceil(step.unsigned_abs()) };
    if length > LONGEST_RANGE {
        return Err(wrong(format!("a range has at most {LONGEST_RANGE} numbers, and this has {length}")));
    }
    pay_items(state, usize::try_from(length).unwrap_or(usize::MAX))?;
    let next = |n: &i64| n.checked_add(step);
    let numbers =
        std::iter::successors(Some(start), next).take_while(|n| if step > 0 { *n < stop } else { *n > stop });
    Ok(numbers.collect())
}

fn over_items(env: &mut Environment<'static>, engine: Engine) {
    env.add_function("count", move |state: &State, x: Value, condition: Option<String>| match condition {
        None => match x.as_str() {
            Some(_) => Err(wrong(format!("{} has no items to count", shown(&x)))),
            None => x.len().ok_or_else(|| wrong(format!("{} has no items to count", shown(&x)))),
        },
        Some(text) => Ok(each(state, engine, &x, &text)?.iter().filter(|(_, v)| v.is_true()).count()),
    });
    env.add_function("any", move |state: &State, x: Value, condition: Option<String>| match condition {
        None => Ok(items(&x)?.any(|v| v.is_true())),
        Some(text) => Ok::<_, Error>(each(state, engine, &x, &text)?.iter().any(|(_, v)| v.is_true())),
    });
    env.add_function("all", move |state: &State, x: Value, condition: Option<String>| match condition {
        None => Ok(items(&x)?.all(|v| v.is_true())),
        Some(text) => Ok::<_, Error>(each(state, engine, &x, &text)?.iter().all(|(_, v)| v.is_true())),
    });
    env.add_function("filter", move |state: &State, x: Value, text: String| {
        let held = each(state, engine, &x, &text)?.into_iter().filter(|(_, v)| v.is_true());
        Ok::<_, Error>(held.map(|(item, _)| item).collect::<Value>())
    });
    env.add_function("map", move |state: &State, x: Value, text: String| {
        let all = each(state, engine, &x, &text)?.into_iter().map(|(_, v)| v);
        Ok::<_, Error>(all.map(|v| if v.is_undefined() { Value::from(()) } else { v }).collect::<Value>())
    });
}

/// Every item with the value of an expression over it. What is spent on each is paid by the expression around.
fn each(state: &State, engine: Engine, list: &Value, text: &str) -> Result<Vec<(Value, Value)>, Error> {
    let in_text = |e: &dyn std::fmt::Display| wrong(format!("in `{text}`: {e}"));
    let left = state.fuel_levels().map_or(u64::MAX, |(_, left)| left);
    let env = engine(left);
    let (rewritten, reads) = Expr::rewritten_row(text).map_err(|e| in_text(&e.message))?;
    let code = env
        .compile_expression(&rewritten)
        .map_err(|e| in_text(&e.detail().unwrap_or("it is no expression")))?;
    let outer = |name: &str| state.lookup(name).filter(|_| NAMESPACES.contains(&name));
    let mut all = Vec::new();
    for item in items(list)? {
        let mut names: Vec<(&str, Value)> = Vec::new();
        let mut scope: Vec<&str> = Vec::new();
        let around = [NOW, ENDED].into_iter().filter_map(|name| Some((name, state.lookup(name)?)));
        names.extend(around);
        for read in &reads {
            let field = item.get_attr(&read.root).ok().filter(|f| !f.is_undefined());
            let own = || (read.root == "item").then(|| item.clone());
            if let Some(value) = field.or_else(own) {
                names.push((&read.root, value));
            } else if let Some(value) = outer(&read.root) {
                names.push((&read.root, value));
                scope.extend(of_scope(state, &read.root).then_some(read.root.as_str()));
            }
        }
        names.push((ROW, scope.into_iter().collect::<Value>()));
        let value = match code.eval(map_value(names)) {
            Ok(pair) => {
                let spent = pair.get_item_by_index(1).ok().and_then(|v| u64::try_from(v).ok()).unwrap_or(1);
                state.consume_fuel(spent)?;
                pair.get_item_by_index(0)?
            }
            Err(error) if error.kind() == ErrorKind::UndefinedError => {
                state.consume_fuel(8)?;
                Value::UNDEFINED
            }
            Err(error) if error.kind() == ErrorKind::OutOfFuel => return Err(error),
            Err(error) => {
                let told = in_text(&error.detail().unwrap_or("it cannot be computed"));
                return Err(told.with_source(Located { range: None, help: help_of(&error) }));
            }
        };
        all.push((item, value));
    }
    Ok(all)
}
