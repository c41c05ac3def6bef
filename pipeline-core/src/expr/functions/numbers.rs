//! Arithmetic. Whole numbers stay whole; what cannot be computed is an error.

use std::cmp::Ordering;

use minijinja::value::Rest;
use minijinja::{Environment, Error, State, Value};

use super::compare::order;
use super::support::{fold, items, number, pay_items, whole_or_real, wrong};

fn extreme(state: &State, arguments: &[Value], wanted: Ordering) -> Result<Value, Error> {
    let all: Vec<Value> = match arguments {
        [list] if !list.is_number() => items(list)?.collect(),
        many => many.to_vec(),
    };
    pay_items(state, all.len())?;
    let mut best: Option<Value> = None;
    for item in all {
        match &best {
            Some(b) if order(&item, b)? != wanted => {}
            _ => best = Some(item),
        }
    }
    best.ok_or_else(|| wrong("an empty list has no greatest or least item"))
}

fn round(x: Value, digits: Option<i32>) -> Result<Value, Error> {
    let digits = digits.unwrap_or(0);
    if !(-300..=300).contains(&digits) {
        return Err(wrong("`round` takes -300 to 300 digits"));
    }
    if digits >= 0 && x.is_integer() {
        return Ok(x);
    }
    let scale = 10_f64.powi(digits.abs());
    let value = number(&x)?;
    let rounded = if digits >= 0 { (value * scale).round() / scale } else { (value / scale).round() * scale };
    let rounded = if rounded.is_finite() { rounded } else { value };
    Ok(if digits <= 0 { whole_or_real(rounded) } else { Value::from(rounded) })
}

pub(super) fn install(env: &mut Environment<'static>) {
    env.add_function("add", |v: Rest<Value>| fold(&v, i64::checked_add, |a, b| a + b));
    env.add_function("subtract", |a: Value, b: Value| fold(&[a, b], i64::checked_sub, |a, b| a - b));
    env.add_function("multiply", |v: Rest<Value>| fold(&v, i64::checked_mul, |a, b| a * b));
    env.add_function("divide", |a: Value, b: Value| {
        let by = number(&b)?;
        if by == 0.0 { Err(wrong("division by zero")) } else { Ok(number(&a)? / by) }
    });
    env.add_function("max", |state: &State, v: Rest<Value>| extreme(state, &v, Ordering::Greater));
    env.add_function("min", |state: &State, v: Rest<Value>| extreme(state, &v, Ordering::Less));
    env.add_function("round", round);
    env.add_function("floor", |x: Value| Ok::<_, Error>(whole_or_real(number(&x)?.floor())));
    env.add_function("ceil", |x: Value| Ok::<_, Error>(whole_or_real(number(&x)?.ceil())));
    env.add_function("abs", |x: Value| match x.as_i64().filter(|_| x.is_integer()) {
        Some(whole) => whole.checked_abs().map(Value::from).ok_or_else(|| wrong("the number is too large")),
        None => number(&x).map(|n| Value::from(n.abs())),
    });
    env.add_function("sqrt", |x: Value| {
        let x = number(&x)?;
        if x < 0.0 { Err(wrong("a negative number has no square root")) } else { Ok(x.sqrt()) }
    });
    env.add_function("pow", |x: Value, y: Value| {
        let whole = x.as_i64().filter(|_| x.is_integer()).zip(y.as_i64().filter(|_| y.is_integer()));
        let exact = whole.and_then(|(x, y)| x.checked_pow(u32::try_from(y).ok()?));
        exact.map_or_else(
            || Ok(Value::from(number(&x)?.powf(number(&y)?))),
            |n| Ok::<_, Error>(Value::from(n)),
        )
    });
    env.add_function("sum", |state: &State, x: Value| {
        let all: Vec<Value> = std::iter::once(Value::from(0)).chain(items(&x)?).collect();
        pay_items(state, all.len())?;
        fold(&all, i64::checked_add, |a, b| a + b)
    });
    env.add_function("average", |state: &State, x: Value| {
        let all = items(&x)?.map(|v| number(&v)).collect::<Result<Vec<_>, _>>()?;
        pay_items(state, all.len())?;
        let count = all.len();
        if count == 0 {
            Err(wrong("an empty list has no average"))
        } else {
            Ok(all.iter().sum::<f64>() / count as f64)
        }
    });
}
