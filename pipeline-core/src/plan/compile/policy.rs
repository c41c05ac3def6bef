//! Keys about trouble and limits: retries, budgets, effects.

use std::time::Duration;

use crate::diagnostic::{Diagnostic, Span, closest};
use crate::document::{Node, NodeKind};
use crate::error::ErrorKind;
use crate::expr::Dynamic;
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::{Keys, duration};
use crate::plan::{Backoff, Body, Budget, Cache, Retry};
use crate::resources::ResourceLimits;
use crate::value::Data;

const KINDS: [&str; 14] = [
    "timeout",
    "rate_limit",
    "overloaded",
    "server",
    "network",
    "parse",
    "schema",
    "truncated",
    "quota",
    "refused",
    "environment",
    "panicked",
    "api_error",
    "temporary_error",
];

impl Compiler<'_> {
    /// `retry`: a number of tries, or a map. What it does not say is that of `defaults.retry`.
    pub(super) fn retry(&mut self, node: &Node) -> Retry {
        let under = self.scope.retry.clone().unwrap_or_else(Retry::tried);
        self.retry_over(under, node)
    }

    /// `retry` over what is said elsewhere.
    pub(super) fn retry_over(&mut self, under: Retry, node: &Node) -> Retry {
        let mut retry = under;
        if let Some(count) = node.as_u64().filter(|n| *n >= 1) {
            retry.max_attempts = small(count);
            return retry;
        }
        let report = &mut self.report;
        let mut keys = Keys::new(node, "`retry`", report);
        if let Some(count) = keys.count("max_attempts", 1, report) {
            retry.max_attempts = small(count);
        }
        if let Some(backoff) = keys.word("backoff", &["fixed", "linear", "exponential"], report) {
            retry.backoff = backoff;
        }
        delays(&mut keys, &mut retry, report);
        if let Some(jitter) = keys.flag("jitter", report) {
            retry.jitter = jitter;
        }
        let on = keys.texts("on", report);
        // Read by `normalise/model/robust.rs`; what is no model step is told in `steps.rs`.
        keys.know(&["fallback_action"]);
        keys.finish("`retry`", self.options.lenient, &mut self.report);
        self.kinds(&mut retry, &on);
        retry
    }

    /// The original's `retry_config`: `max_retries` counts the tries after the first.
    pub(super) fn retry_config(&mut self, node: &Node) -> Retry {
        // Without `max_retries` there are three more tries, as in the original.
        let mut retry = self.scope.retry.clone().unwrap_or(Retry { max_attempts: 4, ..Retry::default() });
        let report = &mut self.report;
        let mut keys = Keys::new(node, "`retry_config`", report);
        if let Some(count) = keys.count("max_retries", 0, report) {
            retry.max_attempts = small(count).saturating_add(1);
        }
        if let Some(backoff) =
            keys.word::<Backoff>("backoff_strategy", &["fixed", "linear", "exponential"], report)
        {
            retry.backoff = backoff;
        }
        delays(&mut keys, &mut retry, report);
        let mut on = keys.texts("retry_conditions", report);
        on.extend(keys.texts("retry_on", report));
        // Read by `normalise/model/robust.rs`; what is no model step is told in `steps.rs`.
        keys.know(&["fallback_action"]);
        keys.finish("`retry_config`", self.options.lenient, &mut self.report);
        self.kinds(&mut retry, &on);
        retry
    }

    fn kinds(&mut self, retry: &mut Retry, on: &[(String, Span)]) {
        if on.is_empty() {
            return;
        }
        retry.on.clear();
        for (word, span) in on {
            match word.as_str() {
                "timeout" => retry.on.push(ErrorKind::TimedOut),
                "rate_limit" => retry.on.push(ErrorKind::RateLimited),
                "api_error" | "temporary_error" => {
                    retry.on.extend([ErrorKind::Server, ErrorKind::Overloaded, ErrorKind::Network]);
                }
                "max_turns" => {
                    let finding = Diagnostic::note("E0110", *span, "`max_turns` is never retried");
                    self.report.push(finding.help("the same again ends the same way: give it more turns"));
                }
                other => match serde_json::from_value(other.into()) {
                    Ok(kind) => retry.on.push(kind),
                    Err(_) => {
                        let finding =
                            Diagnostic::error("E0104", *span, format!("there is no error kind `{other}`"));
                        self.report.push(match closest(other, KINDS) {
                            Some(near) => finding.suggest(near),
                            None => finding.help(format!("it is one of {}", KINDS.join(", "))),
                        });
                    }
                },
            }
        }
    }

    /// `budget`.
    pub(super) fn budget(&mut self, node: &Node) -> Budget {
        let report = &mut self.report;
        let mut keys = Keys::new(node, "`budget`", report);
        let budget = Budget {
            max_cost_usd: keys.number("max_cost_usd", report),
            max_tokens: keys.count("max_tokens", 0, report),
            max_steps: keys.count("max_steps", 1, report),
            max_duration: keys.duration("max_duration", report).flatten(),
            max_parallel: keys.count("max_parallel", 1, report).map(size),
            resources: ResourceLimits {
                max_memory_mb: keys.count("max_memory_mb", 1, report),
                max_open_files: keys.count("max_open_files", 1, report),
                max_processes: keys.count("max_processes", 0, report),
                min_free_disk_mb: keys.count("min_free_disk_mb", 1, report),
                on_unknown: keys.word("on_unknown", &["warn", "stop"], report).unwrap_or_default(),
            },
        };
        keys.finish("`budget`", self.options.lenient, report);
        budget
    }

    /// `cache`: `true`, or for how long. Only a model's answer that follows from the step's own text can be kept: what
    /// reads files, sessions or the world may have changed since.
    pub(super) fn cache(&mut self, node: &Node, body: &Body) -> Option<Cache> {
        let max_age = match node.as_bool() {
            Some(false) => return None,
            Some(true) => None,
            None => match duration(node) {
                Ok(age) => age,
                Err(finding) => {
                    self.report.push(*finding);
                    return None;
                }
            },
        };
        let Body::Leaf(leaf) = body else {
            return self.no_cache(node, "only a model step can have `cache`");
        };
        if &*leaf.kind != "prompt" {
            return self.no_cache(node, "only a model step can have `cache`");
        }
        if reads_outside(&leaf.with) {
            return self.no_cache(node, "a step with files, a session or tools cannot have `cache`");
        }
        Some(Cache { max_age })
    }

    fn no_cache(&mut self, node: &Node, message: &str) -> Option<Cache> {
        let help = "remove `cache`; a resumed run never asks again what was answered";
        self.report.push(Diagnostic::error("E0407", node.span, message).help(help));
        None
    }

    /// The deadline of a step: `timeout`, `timeout_seconds` or `timeout_ms`. `Some(None)` = `none`, written out.
    pub(super) fn timeout(&mut self, keys: &mut Keys<'_>) -> Option<Option<Duration>> {
        let first = keys.duration("timeout", &mut self.report);
        let seconds = keys.duration("timeout_seconds", &mut self.report);
        let ms = keys.get("timeout_ms").map(|n| self.milliseconds(n));
        first.or(seconds).or(ms.map(Some))
    }

    pub(super) fn milliseconds(&mut self, node: &Node) -> Duration {
        if let Some(ms) = node.as_u64() {
            return Duration::from_millis(ms);
        }
        let finding =
            Diagnostic::error("E0402", node.span, "`timeout_ms` must be a whole number of milliseconds");
        self.report.push(finding);
        Duration::from_secs(300)
    }
}

/// Whether the answer to a prompt depends on more than its text.
fn reads_outside(with: &Dynamic) -> bool {
    let is_outside = |key: &str, has_path: &dyn Fn() -> bool| {
        matches!(key, "session" | "tools") || (key == "prompt" && has_path())
    };
    match with {
        Dynamic::Map(entries) => {
            entries.iter().any(|(key, value)| is_outside(key, &|| value.has_key("path")))
        }
        Dynamic::Const(data) => data.json().as_object().is_some_and(|fields| {
            fields.iter().any(|(key, value)| {
                is_outside(key, &|| Dynamic::Const(Data::new(value.clone())).has_key("path"))
            })
        }),
        _ => true,
    }
}

fn delays(keys: &mut Keys<'_>, retry: &mut Retry, report: &mut crate::diagnostic::Report) {
    let ms = |node: Option<&Node>| {
        node.and_then(|n| match &n.kind {
            NodeKind::Number(n) => n.as_u64().map(Duration::from_millis),
            _ => duration(n).ok().flatten(),
        })
    };
    if let Some(delay) = keys.duration("base_delay", report).flatten().or(ms(keys.get("base_delay_ms"))) {
        retry.base_delay = delay;
    }
    if let Some(delay) = keys.duration("max_delay", report).flatten().or(ms(keys.get("max_delay_ms"))) {
        retry.max_delay = delay;
    }
    retry.max_delay = retry.max_delay.max(retry.base_delay);
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
