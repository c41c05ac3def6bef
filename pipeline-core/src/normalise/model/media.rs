//! Images and documents that the chosen backend does not take are refused here, where it can be known.
//!
//! The step refuses the rest when it runs: a provider or a path that a template makes. What else a backend cannot honour
//! the compiler refuses (`plan/compile/providers.rs`). Must not know any backend.

use crate::diagnostic::{Diagnostic, Report};
use crate::document::{Node, NodeKind};
use crate::normalise::model::Model;

/// What the prompt may carry beside text, by the ending of a file's name.
const MEDIA: [(&str, &str); 6] = [
    ("png", "image"),
    ("jpg", "image"),
    ("jpeg", "image"),
    ("gif", "image"),
    ("webp", "image"),
    ("pdf", "PDF"),
];

impl Model<'_> {
    /// Refuses files that the provider does not take.
    pub(super) fn check_media(&self, report: &mut Report) {
        let (Some(able), Some(provider)) = (&self.able, &self.provider) else { return };
        let parts = self.config.iter().find(|e| e.key == "prompt").map(|e| e.value.items());
        for part in parts.unwrap_or_default() {
            let path = part.get("path").filter(|_| part.get("type").and_then(Node::as_text) == Some("file"));
            let Some(text) = path.and_then(Node::as_text).filter(|t| !t.contains("{{")) else { continue };
            let ending = text.rsplit_once('.').map_or("", |(_, ending)| ending).to_lowercase();
            let Some((_, what)) = MEDIA.iter().find(|(e, _)| *e == ending) else { continue };
            let is_left_out = matches!(part.get("when").map(|n| &n.kind), Some(NodeKind::Bool(false)));
            let is_able = if *what == "PDF" { able.documents } else { able.images };
            if let Some(path) = path.filter(|_| !is_able && !is_left_out) {
                let message = format!("`{provider}` takes no {what} in a prompt");
                let help = format!("ask a provider that does, or give it the text of `{text}`");
                report.push(Diagnostic::error("E0406", path.span, message).help(help));
            }
        }
    }
}
