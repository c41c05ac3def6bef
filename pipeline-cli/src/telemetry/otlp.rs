//! Spans and histograms in OTLP's JSON form.
//!
//! Owns the wire format, and [`Histogram`]. Must not know facts or connections. Next: `../telemetry.rs`, which sends.

use pipeline_core::value::Value;
use serde_json::json;

use super::semconv::SCHEMA_URL;
use super::spans::{Span, nanoseconds};

const SCOPE: &str = "pipeline";

/// A call to another service, as OTLP numbers kinds of spans.
const CLIENT: u8 = 3;
/// Everything else.
const INTERNAL: u8 = 1;
/// The status of what failed.
const ERROR: u8 = 2;
/// Counts since the beginning, not since the last time.
const CUMULATIVE: u8 = 2;

/// A body for `/v1/traces`.
pub fn traces(service: &str, trace: &str, spans: &[Span]) -> Value {
    let span = |span: &Span| {
        let mut fields = json!({
            "traceId": trace,
            "spanId": span.id,
            "name": span.name,
            "kind": if span.is_call { CLIENT } else { INTERNAL },
            "startTimeUnixNano": nanoseconds(span.start),
            "endTimeUnixNano": nanoseconds(span.end),
            "attributes": span.attributes.iter().map(|(key, value)| attribute(key, value)).collect::<Vec<_>>(),
        });
        if let Some(parent) = &span.parent {
            fields["parentSpanId"] = json!(parent);
        }
        if span.is_error {
            fields["status"] = json!({"code": ERROR});
        }
        fields
    };
    json!({"resourceSpans": [{
        "resource": resource(service),
        "scopeSpans": [{
            "scope": scope(),
            "schemaUrl": SCHEMA_URL,
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
        "schemaUrl": SCHEMA_URL,
    }]})
}

/// A body for `/v1/metrics`.
pub fn metrics(service: &str, histograms: &[&Histogram], start: i64, end: i64) -> Value {
    let metric = |histogram: &&Histogram| {
        let point = |(attributes, points): &(Vec<(&'static str, Value)>, Points)| {
            json!({
                "startTimeUnixNano": nanoseconds(start),
                "timeUnixNano": nanoseconds(end),
                "count": points.count.to_string(),
                "sum": points.sum,
                "bucketCounts": points.buckets.iter().map(u64::to_string).collect::<Vec<_>>(),
                "explicitBounds": histogram.bounds,
                "attributes": attributes.iter().map(|(k, v)| attribute(k, v)).collect::<Vec<_>>(),
            })
        };
        json!({
            "name": histogram.name,
            "unit": histogram.unit,
            "histogram": {
                "aggregationTemporality": CUMULATIVE,
                "dataPoints": histogram.series.iter().map(point).collect::<Vec<_>>(),
            },
        })
    };
    let metrics: Vec<Value> = histograms.iter().filter(|h| !h.series.is_empty()).map(metric).collect();
    json!({"resourceMetrics": [{
        "resource": resource(service),
        "scopeMetrics": [{"scope": scope(), "schemaUrl": SCHEMA_URL, "metrics": metrics}],
        "schemaUrl": SCHEMA_URL,
    }]})
}

fn resource(service: &str) -> Value {
    json!({"attributes": [
        attribute("service.name", &json!(service)),
        attribute("service.version", &json!(env!("CARGO_PKG_VERSION"))),
    ]})
}

fn scope() -> Value {
    json!({"name": SCOPE, "version": env!("CARGO_PKG_VERSION")})
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(flag) => json!({"boolValue": flag}),
        // 64 bits do not fit a number of JSON.
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            json!({"intValue": number.to_string()})
        }
        Value::Number(number) => json!({"doubleValue": number}),
        Value::String(text) => json!({"stringValue": text}),
        other => json!({"stringValue": other.to_string()}),
    };
    json!({"key": key, "value": value})
}

/// How often something was how large, for each set of attributes.
pub struct Histogram {
    name: &'static str,
    unit: &'static str,
    bounds: &'static [f64],
    series: Vec<(Vec<(&'static str, Value)>, Points)>,
}

struct Points {
    count: u64,
    sum: f64,
    buckets: Vec<u64>,
}

impl Histogram {
    /// An empty one.
    pub fn new(name: &'static str, unit: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, unit, bounds, series: Vec::new() }
    }

    /// Counts a value. Attributes stand for places of the file and names of models, so there are few sets of them.
    pub fn record(&mut self, value: f64, attributes: Vec<(&'static str, Value)>) {
        let place = match self.series.iter().position(|(known, _)| *known == attributes) {
            Some(place) => place,
            None => {
                let buckets = vec![0; self.bounds.len() + 1];
                self.series.push((attributes, Points { count: 0, sum: 0.0, buckets }));
                self.series.len() - 1
            }
        };
        if let Some((_, points)) = self.series.get_mut(place) {
            points.count += 1;
            points.sum += value;
            let bucket = self.bounds.partition_point(|bound| *bound < value);
            if let Some(count) = points.buckets.get_mut(bucket) {
                *count += 1;
            }
        }
    }
}
