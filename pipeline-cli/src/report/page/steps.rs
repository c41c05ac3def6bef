//! What each step instance was asked and what it answered.
//!
//! Owns [`Story`]. Instances of one place in the file are folded together; texts share the room that there is.

use std::collections::HashMap;
use std::fmt::Write;

use indexmap::IndexMap;
use pipeline_core::fact::{Fact, Record};
use pipeline_core::path::{OpKey, StepPath};
use pipeline_core::schedule::{TaskCall, TaskWork};
use pipeline_core::value::{Data, Value};

use crate::figures::{Figures, StepFigures, family_of};
use crate::report::picture::escape;
use crate::report::{time, usage};

/// Most instances of one place that are shown with their texts.
const INSTANCES: usize = 300;

/// What was asked and answered, by step instance: the last attempt counts.
#[derive(Debug, Default)]
pub struct Story {
    asked: HashMap<StepPath, Data>,
    answered: HashMap<StepPath, Data>,
    effects: HashMap<StepPath, Vec<String>>,
}

impl Story {
    /// What the facts and the calls of a run tell.
    pub fn of(records: &[Record], calls: &[(OpKey, TaskCall)]) -> Self {
        let mut story = Self::default();
        for (key, call) in calls {
            if let TaskWork::Step { with, .. } = &call.work {
                story.asked.insert(key.path.clone(), with.clone());
            }
        }
        for record in records {
            match &record.fact {
                Fact::AttemptEnded { path, end, .. } if end.status.is_success() => {
                    story.answered.insert(path.clone(), end.value.clone());
                }
                Fact::EffectDone { path, name, .. } => {
                    story.effects.entry(path.clone()).or_default().push(name.clone());
                }
                _ => {}
            }
        }
        story
    }
}

/// Every instance, folded by place; `room` bytes are for texts.
pub(super) fn steps(figures: &Figures, story: &Story, room: usize) -> String {
    let mut places: IndexMap<String, Vec<(&StepPath, &StepFigures)>> = IndexMap::new();
    for (path, step) in &figures.steps {
        places.entry(family_of(path.as_str())).or_default().push((path, step));
    }
    let shown: usize = places.values().map(|list| list.len().min(INSTANCES)).sum();
    // Two texts an instance: what was asked and what was answered.
    let each = (room / (2 * shown.max(1))).clamp(120, 20_000);
    let mut out = String::new();
    for (name, list) in &places {
        if let [(path, step)] = list.as_slice() {
            instance(&mut out, path, step, story, each);
            continue;
        }
        let failed = list.iter().filter(|(_, s)| s.status().is_some_and(|s| !s.is_success())).count();
        let bad = if failed > 0 { format!(", {failed} not ok") } else { String::new() };
        let class = if failed > 0 { "failed" } else { "ok" };
        let _ok = write!(
            out,
            "<details class=\"fold\"><summary><span class=\"dot {class}\"></span>{}<small>{} times{bad}</small></summary><div>",
            escape(name),
            list.len()
        );
        // What went wrong is shown first: it is what people look for.
        let mut order: Vec<_> = list.iter().collect();
        order.sort_by_key(|(_, s)| s.status().is_some_and(pipeline_core::fact::Status::is_success));
        for (path, step) in order.iter().take(INSTANCES) {
            instance(&mut out, path, step, story, each);
        }
        if list.len() > INSTANCES {
            let _ok = write!(out, "<p class=\"sub\">and {} more</p>", list.len() - INSTANCES);
        }
        out.push_str("</div></details>");
    }
    out
}

fn instance(out: &mut String, path: &StepPath, step: &StepFigures, story: &Story, each: usize) {
    let class = step.status().map_or("running", pipeline_core::fact::Status::name);
    let used =
        step.attempts.last().and_then(|a| usage(&a.usage)).map_or_else(String::new, |u| format!(", {u}"));
    let name = escape(path.as_str());
    let _ok = write!(
        out,
        "<details id=\"{name}\"><summary><span class=\"dot {class}\"></span>{name}<small>{class}, {}{used}</small></summary>",
        time(step.busy_ms())
    );
    if let Some(reason) = &step.skipped {
        let _ok = write!(out, "<pre>{}</pre>", escape(&cut(reason, each)));
    }
    if let Some(with) = story.asked.get(path) {
        asked(out, with.json(), each);
    }
    if let Some(value) = story.answered.get(path) {
        let _ok = write!(out, "<h4>result</h4><pre>{}</pre>", escape(&cut(&answer(value), each)));
    }
    if step.attempts.len() > 1 || step.attempts.iter().any(|a| a.error.is_some()) {
        for attempt in &step.attempts {
            let status = attempt.status.map_or("cut off", pipeline_core::fact::Status::name);
            let error = attempt.error.as_ref();
            let error = error.map_or_else(String::new, |(kind, text)| format!(" {}: {text}", kind.name()));
            let class = if attempt.error.is_some() { "bad" } else { "" };
            let text = format!("attempt {} {status} in {}{error}", attempt.number, time(attempt.duration_ms));
            let _ok = write!(out, "<pre class=\"{class}\">{}</pre>", escape(&cut(&text, each)));
        }
    }
    if let Some(effects) = story.effects.get(path).filter(|list| list.len() > 1) {
        let _ok = write!(out, "<h4>effects</h4><pre>{}</pre>", escape(&cut(&effects.join("\n"), each)));
    }
    out.push_str("</details>\n");
}

/// The prompt as text, and the rest of what was asked as JSON.
fn asked(out: &mut String, with: &Value, each: usize) {
    let Value::Object(fields) = with else { return };
    let mut rest = fields.clone();
    for name in ["system_prompt", "prompt", "command"] {
        if let Some(value) = rest.shift_remove(name).filter(|value| !value.is_null()) {
            let label = name.replace('_', " ");
            let _ok = write!(out, "<h4>{label}</h4><pre>{}</pre>", escape(&cut(&prompt(&value), each)));
        }
    }
    if !rest.is_empty() {
        let text = words(&Value::Object(rest));
        let _ok = write!(out, "<h4>configuration</h4><pre>{}</pre>", escape(&cut(&text, each.min(1_500))));
    }
}

/// A prompt's parts, one after the other; files by their paths, as they are read when the step runs.
fn prompt(value: &Value) -> String {
    let Value::Array(parts) = value else { return words(value) };
    let part = |part: &Value| match (part.get("content"), part.get("path")) {
        (Some(Value::String(text)), _) => text.clone(),
        (_, Some(Value::String(path))) => format!("[file {path}]"),
        _ => words(part),
    };
    parts.iter().map(part).collect::<Vec<_>>().join("\n")
}

/// A result for people: the text of an answer, else all of it.
fn answer(value: &Data) -> String {
    let json = value.json();
    match json.get("text").and_then(Value::as_str) {
        Some(text) => {
            match json.get("function_calls").filter(|calls| calls.as_array().is_some_and(|c| !c.is_empty())) {
                Some(calls) => format!("{text}\n{}", words(calls)),
                None => text.to_owned(),
            }
        }
        None => words(json),
    }
}

/// A value for people: text as it is, anything else as JSON.
pub(super) fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

/// At most `most` bytes of a text, with how much was left out.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}… ({} more bytes)", &text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn long_texts_are_cut_between_letters_and_say_so() {
        assert_eq!(cut("äöü", 3), "ä… (4 more bytes)");
        assert_eq!(cut("abc", 3), "abc");
    }

    #[test]
    fn a_prompt_is_shown_as_text_and_everything_is_escaped() {
        let mut out = String::new();
        asked(
            &mut out,
            &json!({"prompt": [{"type": "static", "content": "<script>"}, {"type": "file", "path": "a.md"}], "model": "m"}),
            500,
        );
        assert!(out.contains("<pre>&lt;script&gt;\n[file a.md]</pre>"), "{out}");
        assert!(out.contains("&quot;model&quot;: &quot;m&quot;"), "{out}");
        assert_eq!(answer(&Data::of_step(json!({"text": "hi", "function_calls": []}))), "hi");
    }
}
