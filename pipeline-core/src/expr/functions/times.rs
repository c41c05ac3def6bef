//! Dates and lengths of time, in seconds.

use minijinja::{Environment, Error, State, Value};

use super::support::{NOW, fold, number, whole_or_real, wrong};
use crate::clock::Timestamp;

pub(super) fn install(env: &mut Environment<'static>) {
    for (name, length) in [("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1)] {
        env.add_function(name, move |n: Value| {
            fold(&[n, Value::from(length)], i64::checked_mul, |a, b| a * b)
        });
    }
    env.add_function("now", now);
    env.add_function("date", |x: Value, format: Option<String>| {
        let seconds = match x.as_str() {
            Some(text) => moment(text).ok_or_else(|| wrong(format!("`{text}` is not a date or time")))?,
            None => number(&x)?,
        };
        let Some(format) = format else { return Ok(whole_or_real(seconds)) };
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and far times are refused below")]
        let zoned = jiff::Timestamp::from_second(seconds.floor() as i64)
            .map_err(|_| wrong(format!("{seconds} seconds are no time that a calendar has")))?
            .to_zoned(jiff::tz::TimeZone::UTC);
        let text = jiff::fmt::strtime::format(&format, &zoned)
            .map_err(|e| wrong(format!("`{format}` is not a format of a date: {e}")))?;
        Ok::<_, Error>(Value::from(text))
    });
}

fn now(state: &State) -> Result<i64, Error> {
    let ms = state.lookup(NOW).and_then(|v| v.as_i64()).ok_or_else(|| wrong("now() has no meaning here"))?;
    Ok(ms.div_euclid(1000))
}

/// A time written as text, in seconds since 1970.
pub(super) fn moment(text: &str) -> Option<f64> {
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp.0 as f64 / 1000.0);
    }
    let civil: jiff::civil::DateTime =
        text.parse().ok().or_else(|| text.parse::<jiff::civil::Date>().ok().map(|d| d.at(0, 0, 0, 0)))?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_second() as f64)
}
