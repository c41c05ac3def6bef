//! Texts with expressions: templates, conditions, data sources, legacy references.
//!
//! Compiles each with `expr`, checks what it reads, and points findings into the file.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span};
use crate::document::{Node, NodeKind};
use crate::expr::{Dynamic, Expr, ExprError, RowExpr, Script, Template, Words, rewrite_legacy, unwrapped};
use crate::plan::Condition;
use crate::plan::compile::Compiler;
use crate::plan::compile::names::Place;
use crate::source::offset;
use crate::value::Data;

impl Compiler<'_> {
    /// A text that may have templates; plain text is a constant.
    pub(super) fn template(&mut self, node: &Node, text: &str, place: &Place) -> Dynamic {
        if !Template::is_needed(text) {
            return Dynamic::Const(Data::new(text.into()));
        }
        let text = self.modern(node, text);
        match self.with_words(place, |words| Template::compile_among(&text, words)) {
            Ok(template) => {
                self.check_reads_of(node, &text, template.reads(), place);
                match template.as_expr() {
                    Some(expr) => Dynamic::Expr(expr.clone()),
                    None => Dynamic::Template(template),
                }
            }
            Err(error) => {
                self.bad_text(node, &text, &error, place);
                Dynamic::Const(Data::null())
            }
        }
    }

    /// A shell script that may have values in it.
    pub(super) fn script(&mut self, node: &Node, text: &str, place: &Place) -> Dynamic {
        let source = match self.template(node, text, place) {
            Dynamic::Template(template) => template.source().to_owned(),
            Dynamic::Expr(expr) => format!("{{{{{}}}}}", expr.source()),
            constant => return constant,
        };
        match self.with_words(place, |words| Script::compile(&source, words)) {
            Ok(script) => Dynamic::Script(script),
            Err(error) => {
                self.bad_text(node, text, &error, place);
                Dynamic::Const(Data::null())
            }
        }
    }

    /// A text that must stay a template, for places that want text.
    pub(super) fn text_template(&mut self, node: &Node, place: &Place) -> Option<Template> {
        let text = node.as_text()?;
        let text = self.modern(node, text);
        match self.with_words(place, |words| Template::compile_among(&text, words)) {
            Ok(template) => {
                self.check_reads_of(node, &text, template.reads(), place);
                Some(template)
            }
            Err(error) => {
                self.bad_text(node, &text, &error, place);
                None
            }
        }
    }

    /// An expression; `{{ … }}` around the whole of it is allowed.
    pub(super) fn expression(&mut self, node: &Node, text: &str, place: &Place) -> Option<Expr> {
        let bare = unwrapped(text);
        let text = match self.legacy(bare) {
            Some(modern) => {
                self.rewritten(node, bare, &modern);
                modern
            }
            None => bare.to_owned(),
        };
        match self.with_words(place, |words| Expr::compile_data_source(&text, words)) {
            Ok(expr) => {
                self.check_reads_of(node, &text, expr.reads(), place);
                Some(expr)
            }
            Err(error) => {
                self.bad_text(node, &text, &error, place);
                None
            }
        }
    }

    /// An expression over rows.
    pub(super) fn row(&mut self, node: &Node, place: &Place) -> Dynamic {
        let Some(text) = node.as_text() else {
            self.report.push(Diagnostic::error("E0103", node.span, "an expression over rows must be text"));
            return Dynamic::Const(Data::null());
        };
        match self.with_words(place, |words| RowExpr::compile_among(unwrapped(text), words)) {
            Ok(row) => {
                // Other names may be fields of the rows.
                let of_scope = ["steps", "inputs", "state", "variables", "global_vars", "loop"];
                let reads: Vec<_> = row
                    .scope_reads()
                    .filter(|r| r.field.is_some() && of_scope.contains(&r.root.as_str()))
                    .cloned()
                    .collect();
                self.check_reads_of(node, unwrapped(text), &reads, place);
                Dynamic::Row(row)
            }
            Err(error) => {
                self.bad_text(node, text, &error, place);
                Dynamic::Const(Data::null())
            }
        }
    }

    /// A condition in any of its forms.
    pub(super) fn condition(&mut self, node: &Node, place: &Place) -> Condition {
        match &node.kind {
            NodeKind::Bool(value) => Condition::Const(*value),
            NodeKind::Text(text) => {
                self.expression(node, text, place).map_or(Condition::Const(false), Condition::Expr)
            }
            NodeKind::List(items) => Condition::All(items.iter().map(|i| self.condition(i, place)).collect()),
            NodeKind::Map(entries) => {
                let mut parts = Vec::new();
                for entry in entries {
                    let many = |this: &mut Self, node: &Node| match &node.kind {
                        NodeKind::List(items) => items.iter().map(|i| this.condition(i, place)).collect(),
                        _ => vec![this.condition(node, place)],
                    };
                    parts.push(match entry.key.as_str() {
                        "and" => Condition::All(many(self, &entry.value)),
                        "or" => Condition::Any(many(self, &entry.value)),
                        "not" => Condition::Not(Box::new(Condition::All(many(self, &entry.value)))),
                        other => {
                            let message = format!("a condition has no key `{other}`");
                            let finding = Diagnostic::error("E0101", entry.key_span, message);
                            self.report.push(finding.help("it has: and, or, not"));
                            continue;
                        }
                    });
                }
                Condition::All(parts)
            }
            _ => {
                let message = format!("a condition cannot be {}", node.kind_name());
                let finding = Diagnostic::error("E0103", node.span, message);
                self.report
                    .push(finding.help("write an expression, true, false, a list, or a map of and/or/not"));
                Condition::Const(false)
            }
        }
    }

    fn with_words<T>(&self, place: &Place, compile: impl FnOnce(&Words<'_>) -> T) -> T {
        let names: Vec<&str> = self.scope.hyphenated.iter().map(String::as_str).collect();
        compile(&Words { names: &names, previous: place.previous.as_deref() })
    }

    fn check_reads_of(&mut self, node: &Node, text: &str, reads: &[crate::expr::Read], place: &Place) {
        let spans: Vec<Span> = reads.iter().map(|r| self.place_of(node, text, Some(&r.range))).collect();
        self.check_reads(reads, place, |read| {
            reads
                .iter()
                .position(|r| std::ptr::eq(r, read))
                .and_then(|i| spans.get(i).copied())
                .unwrap_or(node.span)
        });
    }

    fn bad_text(&mut self, node: &Node, text: &str, error: &ExprError, place: &Place) {
        let span = self.place_of(node, text, error.range.as_ref());
        let mut finding = Diagnostic::error("E0401", span, error.message.clone()).at(&place.path);
        finding.help.clone_from(&error.help);
        self.report.push(finding);
    }

    /// Where a part of a text stands in the file: searched, because quotes, escapes and block scalars move it.
    fn place_of(&self, node: &Node, text: &str, range: Option<&Range<usize>>) -> Span {
        let part = range.and_then(|r| Some((r.start, text.get(r.clone())?)));
        let file = self.sources.get(node.span.file);
        let (Some((start, part)), Some(file)) = (part.filter(|(_, p)| !p.is_empty()), file) else {
            return node.span;
        };
        let whole = node.defined.unwrap_or(node.span);
        let Some(source) = file.text.get(whole.start as usize..whole.end as usize) else { return node.span };
        let before = text.get(..start).map_or(0, |t| t.matches(part).count());
        match source.match_indices(part).nth(before) {
            Some((at, _)) => {
                let from = whole.start + offset(at);
                Span::new(whole.file, from, from + offset(part.len()))
            }
            None => node.span,
        }
    }

    /// The text with legacy references in their modern spelling.
    fn modern(&mut self, node: &Node, text: &str) -> String {
        if !text.contains(':') {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            let Some(close) = rest[open..].find("}}").map(|c| open + c) else { break };
            let inside = &rest[open + 2..close];
            out.push_str(&rest[..open + 2]);
            match self.legacy(inside) {
                Some(modern) => {
                    self.rewritten(node, inside.trim(), &modern);
                    out.push_str(&format!(" {modern} "));
                }
                None => out.push_str(inside),
            }
            out.push_str("}}");
            rest = &rest[close + 2..];
        }
        out + rest
    }

    /// The modern spelling of a legacy reference.
    pub(super) fn legacy(&self, text: &str) -> Option<String> {
        let known = |name: &str| self.scope.steps.contains(name) || self.scope.fields.contains_key(name);
        let modern = rewrite_legacy(text, known)?;
        let rest = modern.strip_prefix("steps['")?;
        let (name, path) = rest.split_once("']")?;
        if !self.scope.steps.contains(name)
            && let Some(step) = self.scope.fields.get(name)
        {
            let path = if path == ".result" { "" } else { path };
            return Some(format!("steps['{step}']['{name}']{path}"));
        }
        if let Some(field) = self.scope.transforms.get(name) {
            let names_field = path.strip_prefix('.').is_some_and(|p| {
                let first = p.split(['.', '[']).next().unwrap_or(p);
                first == field || first == "count"
            });
            let path = if path == ".result" { "" } else { path };
            return Some(if names_field { modern } else { format!("steps['{name}']['{field}']{path}") });
        }
        Some(modern)
    }

    fn rewritten(&mut self, node: &Node, from: &str, to: &str) {
        let span = self.place_of(node, from, Some(&(0..from.len())));
        let message = format!("`{from}` is an old spelling of `{to}`");
        self.report.push(Diagnostic::note("E0111", span, message).suggest(to));
    }
}
