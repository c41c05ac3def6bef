//! What happens when a model step fails for good: `fallback`, `fallback_model`, `fallback_action`.
//!
//! Owns the translation into what the schedule knows: overlays (keys that replace those of the step for another round of
//! tries) and a value that stands in for the answer. Both make the step `degraded`. Must not know the schedule.

use serde_json::json;

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::normalise::made;
use crate::normalise::model::Model;

/// What `fallback_action` may say.
pub(crate) const ACTIONS: [&str; 8] = [
    "graceful_degradation",
    "cached_response",
    "use_cached_response",
    "simplified_prompt",
    "emergency_response",
    "mock_response",
    "skip",
    "fail",
];

/// Overlays, in order, and the value that stands in for the answer.
type Fallbacks = (Vec<Vec<Entry>>, Option<Node>);

impl Model<'_> {
    pub(super) fn fallbacks(&mut self, report: &mut Report) -> Fallbacks {
        let mut overlays = Vec::new();
        if let Some(entry) = self.fallback_model.take() {
            for item in items(&entry.value) {
                overlays.push(vec![made("model", item)]);
            }
        }
        if let Some(entry) = self.fallback.take() {
            for item in items(&entry.value) {
                overlays.extend(self.overlay(&item, report));
            }
        }
        let mut on_error = None;
        if let Some(action) = self.action(report) {
            let span = action.span;
            match action.as_text().unwrap_or_default() {
                "simplified_prompt" => overlays.push(vec![made("simplify", flag(&action))]),
                "cached_response" | "use_cached_response" => {
                    self.config.push(made("keep_answer", Node::text(span, "save")));
                    overlays.push(vec![made("keep_answer", Node::text(span, "load"))]);
                }
                "fail" => {}
                stand_in => on_error = Some(Node::from_json(span, &self.stand_in(stand_in))),
            }
        }
        (overlays, on_error)
    }

    /// `fallback_action` of the step itself, of its `retry` or `retry_config`, or of its options.
    fn action(&mut self, report: &mut Report) -> Option<Node> {
        let own = self.step.get("retry_config").and_then(|n| n.get("fallback_action"));
        let among = self.retry.as_ref().and_then(|(entry, _)| entry.value.get("fallback_action"));
        let short = self.step.get("retry").and_then(|n| n.get("fallback_action"));
        let bare = self.step.get("fallback_action");
        let action = bare.or(short).or(own).or(among).cloned()?;
        let given = action.as_text().unwrap_or_default();
        if ACTIONS.contains(&given) {
            return Some(action);
        }
        let finding = Diagnostic::error("E0104", action.span, format!("there is no fallback `{given}`"));
        report.push(match closest(given, ACTIONS) {
            Some(near) => finding.suggest(near),
            None => finding.help(format!("it is one of {}", ACTIONS.join(", "))),
        });
        None
    }

    /// One entry of `fallback`: a provider, a model, `provider/model`, or keys.
    fn overlay(&self, item: &Node, report: &mut Report) -> Option<Vec<Entry>> {
        let knows = |name: &str| (self.around.capabilities)(name).is_some();
        let at = |text: &str| Node::text(item.span, text);
        match &item.kind {
            NodeKind::Text(text) if knows(text) => Some(self.to_provider(text, None, item, report)),
            NodeKind::Text(text) => match text.split_once('/').filter(|(name, _)| knows(name)) {
                Some((name, model)) => Some(self.to_provider(name, Some(at(model)), item, report)),
                None => Some(vec![made("model", item.clone())]),
            },
            NodeKind::Map(entries) => {
                const KNOWN: [&str; 9] = [
                    "provider",
                    "model",
                    "prompt",
                    "system_prompt",
                    "temperature",
                    "top_p",
                    "top_k",
                    "max_output_tokens",
                    "max_turns",
                ];
                let mut overlay = match item.get("provider").and_then(Node::as_text) {
                    Some(name) => self.to_provider(name, item.get("model").cloned(), item, report),
                    None => Vec::new(),
                };
                for entry in entries {
                    if !KNOWN.contains(&entry.key.as_str()) {
                        let message = format!("a `fallback` has no key `{}`", entry.key);
                        let finding = Diagnostic::error("E0101", entry.key_span, message);
                        report.push(match closest(&entry.key, KNOWN) {
                            Some(near) => finding.suggest(near),
                            None => finding.help(format!("it has: {}", KNOWN.join(", "))),
                        });
                        continue;
                    }
                    let value = match entry.key.as_str() {
                        "prompt" => crate::normalise::parts::prompt(&entry.value, report),
                        _ => entry.value.clone(),
                    };
                    overlay.retain(|e| e.key != entry.key);
                    overlay.push(Entry { value, ..entry.clone() });
                }
                Some(overlay)
            }
            _ => {
                let message =
                    format!("a `fallback` is a provider, a model or a map, and this is {}", item.kind_name());
                report.push(Diagnostic::error("E0103", item.span, message));
                None
            }
        }
    }

    /// Another provider: its own model, and without what it cannot honour.
    fn to_provider(&self, name: &str, model: Option<Node>, item: &Node, report: &mut Report) -> Vec<Entry> {
        let none = || Node::new(item.span, NodeKind::Null);
        let mut overlay =
            vec![made("provider", Node::text(item.span, name)), made("model", model.unwrap_or_else(none))];
        let Some(able) = (self.around.capabilities)(name) else {
            report.push(Diagnostic::error("E0403", item.span, format!("there is no provider `{name}`")));
            return overlay;
        };
        let mut without = Vec::new();
        for (field, is_able) in [
            ("temperature", able.sampling),
            ("top_p", able.sampling),
            ("top_k", able.sampling),
            ("max_output_tokens", able.max_output_tokens),
        ] {
            if self.has(field) && !is_able {
                overlay.push(made(field, none()));
                without.push(field.to_owned());
            }
        }
        // The overlay is laid over deep: what must go is set to nothing.
        let lost = self.options.iter().filter(|e| !able.options.contains(&e.key.as_str()));
        let lost: Vec<Entry> = lost.map(|e| made(&e.key, none())).collect();
        without.extend(lost.iter().map(|e| e.key.clone()).filter(|k| k != "output_format"));
        if !lost.is_empty() {
            overlay.push(made("options", Node::new(item.span, NodeKind::Map(lost))));
        }
        if !without.is_empty() {
            let message = format!("the fallback `{name}` is asked without {}", without.join(", "));
            report.push(Diagnostic::note("E0406", item.span, message).help("it has no such options"));
        }
        overlay
    }

    /// The value in the place of an answer: a prompt's, with `success: false`.
    fn stand_in(&self, action: &str) -> crate::value::Value {
        let name = self.step.get("name").and_then(Node::as_text).unwrap_or("this step");
        let text = match action {
            "skip" => String::new(),
            "mock_response" => format!("Mock response for `{name}`: the model did not answer."),
            "emergency_response" => {
                format!("`{name}` could not be answered. This is an emergency response without any content.")
            }
            _ => format!("`{name}` could not be answered just now. The pipeline goes on without its answer."),
        };
        json!({
            "text": text, "model": null, "provider": self.provider,
            "usage": { "input": 0, "output": 0, "cache_read": 0, "cache_write": 0 }, "cost_usd": null,
            "stop_reason": "fallback", "session_id": null, "function_calls": [], "success": false,
            "fallback": action,
            "error": { "kind": "{{ error.kind }}", "message": "{{ error.message }}" },
        })
    }
}

/// The items of a list; anything else is a list of one.
fn items(node: &Node) -> Vec<Node> {
    match &node.kind {
        NodeKind::List(items) => items.clone(),
        NodeKind::Null => Vec::new(),
        _ => vec![node.clone()],
    }
}

fn flag(at: &Node) -> Node {
    Node::new(at.span, NodeKind::Bool(true))
}
