//! Values of a leaf's configuration: the step's JSON Schema walked against the nodes.
//!
//! Finds unknown keys, wrong types and missing fields with their places, and compiles the texts as the schema's `x-kind`
//! says. Must not know any step. See ARCHITECTURE.md for the table of kinds.

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::document::{Entry, Node, NodeKind};
use crate::expr::{Dynamic, Template};
use crate::plan::Condition;
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::{self, COMMON};
use crate::plan::compile::names::Place;
use crate::value::Data;

/// A schema within its root, where `$ref`s point.
#[derive(Clone, Copy)]
pub(super) struct Schema<'s> {
    pub(super) root: &'s Value,
    pub(super) at: &'s Value,
}

impl<'s> Schema<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        Self { root, at: root }
    }

    fn with(self, at: &'s Value) -> Self {
        Self { root: self.root, at }
    }

    /// The schema that a `$ref` means.
    fn resolved(self) -> Self {
        let target = self.at.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
        target.and_then(|t| self.root.pointer(t)).map_or(self, |at| self.with(at))
    }

    fn kind(self) -> &'s str {
        let of = |schema: &'s Value| schema.get("x-kind").and_then(Value::as_str);
        of(self.at).or_else(|| of(self.resolved().at)).unwrap_or_default()
    }

    fn properties(self) -> impl Iterator<Item = (&'s String, &'s Value)> {
        self.at.get("properties").and_then(Value::as_object).into_iter().flatten()
    }

    /// The alternatives of `anyOf` and `oneOf`.
    fn alternatives(self) -> Vec<Self> {
        let of = |key: &str| self.at.get(key).and_then(Value::as_array);
        of("anyOf").or_else(|| of("oneOf")).into_iter().flatten().map(|at| self.with(at).resolved()).collect()
    }

    /// Whether a node's kind fits `type` and `const`, without looking inside.
    fn fits(self, node: &Node) -> bool {
        let schema = self.resolved();
        let alternatives = schema.alternatives();
        if !alternatives.is_empty() {
            return alternatives.iter().any(|a| a.fits(node));
        }
        if let Some(constant) = schema.at.get("const") {
            return *constant == node.to_json();
        }
        if let Some(allowed) = schema.at.get("enum").and_then(Value::as_array) {
            return allowed.contains(&node.to_json());
        }
        // A tagged alternative is chosen by its constants.
        for (name, property) in schema.properties() {
            if property.get("const").is_some()
                && node.get(name).is_some_and(|v| !schema.with(property).fits(v))
            {
                return false;
            }
        }
        let types: Vec<&str> = match schema.at.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        types.iter().any(|t| match &node.kind {
            NodeKind::Null => *t == "null",
            NodeKind::Bool(_) => *t == "boolean",
            NodeKind::Number(n) => *t == "number" || *t == "integer" && (n.is_i64() || n.is_u64()),
            NodeKind::Text(_) => *t == "string",
            NodeKind::List(_) => *t == "array",
            NodeKind::Map(_) => *t == "object",
        })
    }

    /// What is expected, in words.
    fn words(self) -> String {
        let schema = self.resolved();
        let alternatives = schema.alternatives();
        if !alternatives.is_empty() {
            let mut words: Vec<String> =
                alternatives.iter().map(|a| a.words()).filter(|w| w != "nothing").collect();
            words.dedup();
            return words.join(" or ");
        }
        if let Some(allowed) = schema.at.get("enum").and_then(Value::as_array) {
            return format!("one of {}", allowed.iter().map(plain).collect::<Vec<_>>().join(", "));
        }
        if let Some(constant) = schema.at.get("const") {
            return plain(constant);
        }
        let word = |t: &str| match t {
            "string" => "text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a map",
            _ => "nothing",
        };
        match schema.at.get("type") {
            Some(Value::String(one)) => word(one).to_owned(),
            Some(Value::Array(many)) => {
                let words: Vec<&str> =
                    many.iter().filter_map(Value::as_str).map(word).filter(|w| *w != "nothing").collect();
                words.join(" or ")
            }
            _ => "a value".to_owned(),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |t| format!("`{t}`"))
}

impl Compiler<'_> {
    /// A configuration map. `what` names it in findings.
    pub(super) fn config(
        &mut self,
        entries: &[&Entry],
        at: &Node,
        schema: Schema<'_>,
        what: &str,
        place: &Place,
    ) -> Dynamic {
        let schema = schema.resolved();
        let mut all = Vec::new();
        let known: Vec<&str> = schema.properties().map(|(name, _)| name.as_str()).collect();
        let extra = schema.at.get("additionalProperties");
        let common: &[&str] = if what.ends_with(" step") { &COMMON } else { &[] };
        for entry in entries {
            let property =
                schema.properties().find(|(name, _)| **name == entry.key).map(|(_, s)| schema.with(s));
            match (property, extra) {
                (Some(property), _) => {
                    if entry.value.kind == NodeKind::Null && !property.fits(&entry.value) {
                        continue;
                    }
                    let value = self.value(&entry.value, property, &entry.key, place);
                    all.push((entry.key.clone(), value));
                }
                (None, Some(Value::Object(_))) => {
                    let extra = schema.with(&schema.at["additionalProperties"]);
                    all.push((entry.key.clone(), self.value(&entry.value, extra, &entry.key, place)));
                }
                (None, Some(Value::Bool(false))) => {
                    if keys::has_no_effect(&entry.key) {
                        keys::no_effect(entry, &mut self.report);
                    } else if !entry.key.starts_with("x-") {
                        let known = [known.as_slice(), common].concat();
                        let lenient = self.options.lenient;
                        keys::unknown(entry, what, at.span, &known, lenient, &mut self.report);
                    }
                }
                (None, _) => all.push((entry.key.clone(), self.any_value(&entry.value, place))),
            }
        }
        for name in schema
            .at
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !entries.iter().any(|e| e.key == name && e.value.kind != NodeKind::Null) {
                let message = format!("{what} needs `{name}`");
                let finding = Diagnostic::error("E0102", at.span, message).at(&place.path);
                self.report.push(finding.help(format!("add `{name}: …`")).about(at.span, name));
            }
        }
        folded(Dynamic::Map(all))
    }

    /// One value against its schema.
    fn value(&mut self, node: &Node, schema: Schema<'_>, key: &str, place: &Place) -> Dynamic {
        match schema.kind() {
            "raw" => return Dynamic::Const(Data::new(node.to_json())),
            "row" => return self.row(node, place),
            "script" => {
                if let Some(text) = node.as_text() {
                    return self.script(node, text, place);
                }
            }
            "expression" => {
                if let Some(text) = node.as_text() {
                    return self
                        .expression(node, text, place)
                        .map_or(Dynamic::Const(Data::null()), Dynamic::Expr);
                }
                return self.any_value(node, place);
            }
            "condition" => return self.condition_value(node, place),
            "bindings" => return self.bindings(node, place),
            "duration" => {
                return match keys::duration(node) {
                    Ok(duration) => Dynamic::Const(Data::new(duration.map(|d| d.as_secs_f64()).into())),
                    Err(finding) => {
                        self.report.push(*finding);
                        Dynamic::Const(Data::null())
                    }
                };
            }
            _ => {}
        }
        let schema = schema.resolved();
        if let Some(text) = node.as_text().filter(|t| Template::is_needed(t)) {
            return self.template(node, text, place);
        }
        if !schema.fits(node) {
            self.misfit(node, schema, key);
            return Dynamic::Const(Data::null());
        }
        let chosen = schema.alternatives().into_iter().find(|a| a.fits(node)).unwrap_or(schema);
        match &node.kind {
            NodeKind::List(items) => {
                let items = items.iter().map(|item| match chosen.at.get("items") {
                    Some(schema) => self.value(item, chosen.with(schema), key, place),
                    None => self.any_value(item, place),
                });
                folded(Dynamic::List(items.collect()))
            }
            NodeKind::Map(entries) => {
                let entries: Vec<&Entry> = entries.iter().collect();
                self.config(&entries, node, chosen, &format!("`{key}`"), place)
            }
            NodeKind::Number(n) => {
                let limit = |name: &str| chosen.at.get(name).and_then(Value::as_f64);
                let n = n.as_f64().unwrap_or_default();
                let is_out =
                    limit("minimum").is_some_and(|m| n < m) || limit("maximum").is_some_and(|m| n > m);
                if is_out {
                    let low = limit("minimum").map_or(String::new(), |m| format!(" from {m}"));
                    let high = limit("maximum").map_or(String::new(), |m| format!(" up to {m}"));
                    let message = format!("`{key}` must be a number{low}{high}");
                    self.report.push(Diagnostic::error("E0109", node.span, message));
                }
                Dynamic::Const(Data::new(node.to_json()))
            }
            _ => Dynamic::Const(Data::new(node.to_json())),
        }
    }

    fn misfit(&mut self, node: &Node, schema: Schema<'_>, key: &str) {
        let has_words = schema.words().contains('`');
        let found = match node.as_text().filter(|text| has_words && text.len() <= 40) {
            Some(text) => format!("`{text}`"),
            None => node.kind_name().to_owned(),
        };
        let message = format!("`{key}` must be {}, and this is {found}", schema.words());
        let allowed: Vec<&str> = match schema.at.get("enum").and_then(Value::as_array) {
            Some(allowed) => allowed.iter().filter_map(Value::as_str).collect(),
            None => schema.alternatives().iter().filter_map(|a| a.at.get("const")?.as_str()).collect(),
        };
        let near = node.as_text().and_then(|t| crate::diagnostic::closest(t, allowed));
        let code = if node.as_text().is_some() && has_words { "E0104" } else { "E0103" };
        let finding = Diagnostic::error(code, node.span, message);
        self.report.push(match near {
            Some(near) => finding.suggest(near),
            None if matches!(node.kind, NodeKind::Number(_) | NodeKind::Bool(_)) => {
                finding.help("put it in quotes to make it text")
            }
            None => finding,
        });
    }

    /// A value of any shape, with templates anywhere in it.
    pub(super) fn any_value(&mut self, node: &Node, place: &Place) -> Dynamic {
        match &node.kind {
            NodeKind::Text(text) => self.template(node, text, place),
            NodeKind::List(items) => {
                folded(Dynamic::List(items.iter().map(|i| self.any_value(i, place)).collect()))
            }
            NodeKind::Map(entries) => folded(Dynamic::Map(
                entries.iter().map(|e| (e.key.clone(), self.any_value(&e.value, place))).collect(),
            )),
            _ => Dynamic::Const(Data::new(node.to_json())),
        }
    }

    /// Entries in order, later ones see earlier ones.
    pub(super) fn bindings(&mut self, node: &Node, place: &Place) -> Dynamic {
        if !matches!(node.kind, NodeKind::Map(_)) {
            keys::wrong(node, "variables", "a map of names and values", &mut self.report);
        }
        let mut place = place.clone();
        let mut all = Vec::new();
        for entry in node.entries() {
            all.push((entry.key.clone(), self.any_value(&entry.value, &place)));
            place.bound.push(entry.key.clone());
        }
        Dynamic::Bindings(all)
    }

    /// A condition whose value a step gets.
    fn condition_value(&mut self, node: &Node, place: &Place) -> Dynamic {
        match self.condition(node, place) {
            Condition::Const(value) => Dynamic::Const(Data::new(value.into())),
            Condition::Expr(expr) => Dynamic::Expr(expr),
            condition => {
                let text = as_text(&condition);
                self.expression(node, &text, place).map_or(Dynamic::Const(Data::null()), Dynamic::Expr)
            }
        }
    }
}

/// A condition as one expression.
fn as_text(condition: &Condition) -> String {
    let joined = |parts: &[Condition], word: &str, none: &str| {
        let parts: Vec<String> = parts.iter().map(|p| format!("({})", as_text(p))).collect();
        if parts.is_empty() { none.to_owned() } else { parts.join(word) }
    };
    match condition {
        Condition::Const(value) => value.to_string(),
        Condition::Expr(expr) => expr.source().to_owned(),
        Condition::All(parts) => joined(parts, " and ", "true"),
        Condition::Any(parts) => joined(parts, " or ", "false"),
        Condition::Not(inner) => format!("not ({})", as_text(inner)),
    }
}

/// A value without anything to render is a constant.
fn folded(value: Dynamic) -> Dynamic {
    let constant = |d: &Dynamic| if let Dynamic::Const(data) = d { Some(data.json().clone()) } else { None };
    let whole = match &value {
        Dynamic::List(items) => items.iter().map(constant).collect::<Option<Vec<_>>>().map(Value::Array),
        Dynamic::Map(entries) => entries
            .iter()
            .map(|(k, v)| Some((k.clone(), constant(v)?)))
            .collect::<Option<serde_json::Map<_, _>>>()
            .map(Value::Object),
        _ => None,
    };
    whole.map_or(value, |json| Dynamic::Const(Data::new(json)))
}
