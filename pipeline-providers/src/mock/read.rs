//! Reading a file of mock rules.
//!
//! Owns the file's shape and every message about it; each names the line and column of what is wrong. Must not know what
//! a rule does when it answers.

use std::collections::BTreeMap;

use pipeline_core::diagnostic::{Diagnostic, Severity, Span, closest};
use pipeline_core::document::{Limits, Node, NodeKind, parse};
use pipeline_core::error::ErrorKind;
use pipeline_core::provider::FunctionCall;
use pipeline_core::source::{LoadedSource, SourceMap};

use crate::mock::rules::{Matcher, MockRules, Rule, Scripted, data_text};

const TOP_KEYS: &[&str] = &["seed", "rules"];
const RULE_KEYS: &[&str] =
    &["match", "text", "data", "function_calls", "error", "delay_ms", "usage", "files", "times"];
const MATCH_KEYS: &[&str] = &["step", "prompt_contains", "provider", "model", "call"];
const ERROR_KEYS: &[&str] = &["kind", "retry_after_ms", "message"];
const USAGE_KEYS: &[&str] = &["input", "output"];
const CALL_KEYS: &[&str] = &["name", "arguments"];

/// Every kind of error, to suggest from.
const KINDS: [ErrorKind; 20] = [
    ErrorKind::Invalid,
    ErrorKind::Auth,
    ErrorKind::Denied,
    ErrorKind::Quota,
    ErrorKind::RateLimited,
    ErrorKind::Overloaded,
    ErrorKind::Server,
    ErrorKind::Network,
    ErrorKind::Truncated,
    ErrorKind::Parse,
    ErrorKind::Schema,
    ErrorKind::TooLarge,
    ErrorKind::Refused,
    ErrorKind::Unsupported,
    ErrorKind::Environment,
    ErrorKind::Budget,
    ErrorKind::Cancelled,
    ErrorKind::TimedOut,
    ErrorKind::Panicked,
    ErrorKind::Internal,
];

/// See [`MockRules::parse`].
pub(crate) fn rules(text: &str, source_name: &str) -> Result<MockRules, String> {
    let mut sources = SourceMap::default();
    let file = sources.add(LoadedSource {
        display: source_name.to_owned(),
        canonical: source_name.to_owned(),
        text: text.to_owned(),
    });
    let mut findings = Vec::new();
    let mut rules = MockRules::default();
    match parse(&sources, file, &Limits::default()) {
        Ok((root, warnings)) => {
            findings.extend(warnings.into_iter().filter(|w| w.severity == Severity::Error));
            let mut reader = Reader { findings: &mut findings };
            rules = reader.top(&root);
        }
        Err(errors) => findings.extend(errors),
    }
    if findings.is_empty() {
        return Ok(rules);
    }
    let lines: Vec<String> = findings.iter().map(|f| line(f, &sources, source_name)).collect();
    Err(lines.join("\n"))
}

fn line(finding: &Diagnostic, sources: &SourceMap, source_name: &str) -> String {
    let place = match finding.span.and_then(|span| sources.locate(span)) {
        Some((file, at)) => format!("{file}:{}:{}", at.line, at.column),
        None => source_name.to_owned(),
    };
    match &finding.help {
        Some(help) => format!("{place}: {}; {help}", finding.message),
        None => format!("{place}: {}", finding.message),
    }
}

struct Reader<'a> {
    findings: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn find(&mut self, span: Span, message: String, help: Option<String>) {
        let finding = Diagnostic::error("E0801", span, message);
        self.findings.push(match help {
            Some(help) => finding.help(help),
            None => finding,
        });
    }

    fn expected(&mut self, node: &Node, what: &str, wanted: &str) {
        self.find(node.span, format!("`{what}` is {}, but must be {wanted}", node.kind_name()), None);
    }

    /// Reports keys that are not `known`, and a node that is no map.
    fn keys(&mut self, node: &Node, what: &str, known: &[&'static str]) {
        if !matches!(node.kind, NodeKind::Map(_)) {
            return self.expected(node, what, "a map");
        }
        for entry in node.entries().iter().filter(|e| !known.contains(&e.key.as_str())) {
            let help = match closest(&entry.key, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are {}", known.join(", ")),
            };
            self.find(entry.key_span, format!("`{what}` has no key `{}`", entry.key), Some(help));
        }
    }

    fn number(&mut self, map: &Node, key: &str) -> Option<u64> {
        let node = map.get(key)?;
        let number = node.as_u64();
        if number.is_none() {
            self.expected(node, key, "a whole number, not negative");
        }
        number
    }

    /// A number of which 0 would mean "never".
    fn positive(&mut self, map: &Node, key: &str) -> Option<u64> {
        let number = self.number(map, key)?;
        if let (0, Some(node)) = (number, map.get(key)) {
            self.find(node.span, format!("`{key}` counts from 1, so 0 never holds"), None);
        }
        Some(number)
    }

    fn text(&mut self, map: &Node, key: &str) -> Option<String> {
        let node = map.get(key)?;
        let text = node.as_text().map(str::to_owned);
        if text.is_none() {
            self.expected(node, key, "text (put it in quotes)");
        }
        text
    }

    fn top(&mut self, root: &Node) -> MockRules {
        if matches!(root.kind, NodeKind::Null) {
            return MockRules::default();
        }
        self.keys(root, "mock rules", TOP_KEYS);
        let seed = self.number(root, "seed").unwrap_or(0);
        let rules = match root.get("rules") {
            None | Some(Node { kind: NodeKind::Null, .. }) => Vec::new(),
            Some(Node { kind: NodeKind::List(rules), .. }) => rules.iter().map(|r| self.rule(r)).collect(),
            Some(other) => {
                self.expected(other, "rules", "a list");
                Vec::new()
            }
        };
        MockRules { seed, rules }
    }

    fn rule(&mut self, node: &Node) -> Rule {
        self.keys(node, "rules", RULE_KEYS);
        let mut rule =
            Rule { answer: self.answer(node), times: self.positive(node, "times"), ..Rule::default() };
        if let Some(conditions) = node.get("match") {
            rule.matcher = self.matcher(conditions);
        }
        if let Some(delay) = node.get("delay_ms") {
            rule.delay_ms = self.delay(delay);
        }
        if let Some(usage) = node.get("usage") {
            self.keys(usage, "usage", USAGE_KEYS);
            rule.input_tokens = self.number(usage, "input");
            rule.output_tokens = self.number(usage, "output");
        }
        if let Some(files) = node.get("files") {
            rule.files = self.files(files);
        }
        rule
    }

    fn matcher(&mut self, node: &Node) -> Matcher {
        self.keys(node, "match", MATCH_KEYS);
        Matcher {
            step: self.text(node, "step"),
            prompt_contains: self.text(node, "prompt_contains"),
            provider: self.text(node, "provider"),
            model: self.text(node, "model"),
            call: self.positive(node, "call"),
        }
    }

    fn answer(&mut self, node: &Node) -> Scripted {
        let one_of = |reader: &mut Self, first: &str, others: &[&str]| {
            for other in others {
                if let Some(entry) = node.entry(other) {
                    let message = format!("a rule has `{first}` or `{other}`, not both");
                    reader.find(entry.key_span, message, None);
                }
            }
        };
        if let Some(error) = node.get("error") {
            one_of(self, "error", &["text", "data", "function_calls", "usage", "files"]);
            return self.error(error);
        }
        let mut text = self.text(node, "text");
        if let Some(data) = node.get("data") {
            one_of(self, "data", &["text"]);
            text = Some(data_text(&data.to_json()));
        }
        let function_calls = match node.get("function_calls") {
            None => Vec::new(),
            Some(calls @ Node { kind: NodeKind::List(_), .. }) => {
                calls.items().iter().filter_map(|call| self.function_call(call)).collect()
            }
            Some(other) => {
                self.expected(other, "function_calls", "a list of {name, arguments}");
                Vec::new()
            }
        };
        if text.is_none() && node.get("function_calls").is_none() {
            return Scripted::BuiltIn;
        }
        Scripted::Answer { text, function_calls }
    }

    fn function_call(&mut self, node: &Node) -> Option<FunctionCall> {
        self.keys(node, "function_calls", CALL_KEYS);
        if node.get("name").is_none() {
            self.find(node.span, "a function call needs a `name`".to_owned(), None);
        }
        let name = self.text(node, "name")?;
        let arguments = node.get("arguments").map_or_else(|| serde_json::json!({}), Node::to_json);
        Some(FunctionCall { id: String::new(), name, arguments })
    }

    fn error(&mut self, node: &Node) -> Scripted {
        self.keys(node, "error", ERROR_KEYS);
        if node.get("kind").is_none() {
            let help = Some("for example `kind: rate_limited`".to_owned());
            self.find(node.span, "an error needs a `kind`".to_owned(), help);
        }
        let name = self.text(node, "kind");
        let kind = name.as_deref().and_then(|name| KINDS.into_iter().find(|k| k.name() == name));
        if let (Some(name), None, Some(place)) = (&name, kind, node.get("kind")) {
            let help = match closest(name, KINDS.iter().map(|k| k.name())) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are {}", KINDS.map(ErrorKind::name).join(", ")),
            };
            self.find(place.span, format!("there is no error kind `{name}`"), Some(help));
        }
        Scripted::Error {
            kind: kind.unwrap_or(ErrorKind::Server),
            retry_after_ms: self.number(node, "retry_after_ms"),
            message: self.text(node, "message"),
        }
    }

    fn delay(&mut self, node: &Node) -> (u64, u64) {
        let ends: Vec<Option<u64>> = match &node.kind {
            NodeKind::List(ends) => ends.iter().map(Node::as_u64).collect(),
            _ => vec![node.as_u64()],
        };
        match ends.as_slice() {
            [Some(exactly)] => (*exactly, *exactly),
            [Some(low), Some(high)] if low <= high => (*low, *high),
            _ => {
                self.expected(node, "delay_ms", "milliseconds, or [shortest, longest]");
                (0, 0)
            }
        }
    }

    fn files(&mut self, node: &Node) -> BTreeMap<String, String> {
        if !matches!(node.kind, NodeKind::Map(_)) {
            self.expected(node, "files", "a map of names to texts");
        }
        let mut files = BTreeMap::new();
        for entry in node.entries() {
            match entry.value.as_text() {
                Some(text) => {
                    files.insert(entry.key.clone(), text.to_owned());
                }
                None => self.expected(&entry.value, &entry.key, "text (put it in quotes)"),
            }
        }
        files
    }
}
