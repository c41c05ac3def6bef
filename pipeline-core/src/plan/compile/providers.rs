//! `providers`: backends of the file's own.
//!
//! Owns the reading of its entries. Must not know how a kind is spoken to: what there is, the catalog says.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::{Entry, Node, NodeKind};
use crate::plan::compile::Compiler;
use crate::plan::compile::keys::{Keys, wrong};
use crate::plan::compile::names::Place;
use crate::provider::{Capabilities, LongPrice, ModelPrice, ProviderEntry, ProviderLimits};

impl Compiler<'_> {
    /// Reads `providers`. A name means the same in a workflow and all its children.
    pub(super) fn provider_entries(&mut self, keys: &mut Keys<'_>) {
        let Some(node) = keys.get("providers") else { return };
        if !matches!(node.kind, NodeKind::Map(_)) {
            wrong(node, "providers", "a map of names and backends", &mut self.report);
        }
        for entry in node.entries().iter().filter(|e| !e.key.starts_with("x-")) {
            let Some(read) = self.provider_entry(entry) else { continue };
            self.scope.providers.insert(read.name.clone(), read.kind.clone());
            match self.providers.get(&read.name) {
                Some((other, place)) if *other != read => {
                    let at = self.sources.locate(*place).map_or_else(String::new, |(file, at)| {
                        format!(" ({file}:{}:{})", at.line, at.column)
                    });
                    let message = format!("`{}` is another provider elsewhere{at}", read.name);
                    let finding = Diagnostic::error("E0113", entry.key_span, message);
                    self.report.push(finding.help("give one of them another name"));
                }
                _ => {
                    self.providers.insert(read.name.clone(), (read, entry.key_span));
                }
            }
        }
    }

    /// What the backend of a provider's name honours; `None` when the name is not known here.
    fn capabilities_of(&self, provider: &str) -> Option<Capabilities> {
        match self.scope.providers.get(provider) {
            Some(kind) => self.catalog.kind(kind).map(|k| k.capabilities.clone()),
            None => self.catalog.provider(provider).map(|p| p.capabilities()),
        }
    }

    /// What a model step asks of its backend, where the backend is known: what it lacks is refused, never ignored.
    pub(super) fn check_abilities(&mut self, fields: &[Entry], place: &Place) {
        let named = fields.iter().find(|e| e.key == "provider").and_then(|e| e.value.as_text());
        let Some(name) = named else { return };
        let Some(can) = self.capabilities_of(name) else { return };
        for field in fields {
            if let Some(what) = lacks(field, &can) {
                let message = format!("`{name}` has {what}, so `{}` cannot be honoured", field.key);
                let finding = Diagnostic::error("E0406", field.key_span, message);
                self.report.push(finding.help("remove it, or choose another provider").at(&place.path));
            }
            if field.key == "options" {
                let unknown = field.value.entries().iter().filter_map(|e| unknown_option(name, e, &can));
                let unknown: Vec<Diagnostic> = unknown.map(|f| f.at(&place.path)).collect();
                self.report.extend(unknown);
            }
        }
    }

    fn provider_entry(&mut self, entry: &Entry) -> Option<ProviderEntry> {
        let report = &mut self.report;
        let mut keys = Keys::new(&entry.value, "a provider", report);
        let kinds: Vec<&str> = self.catalog.kinds().map(|k| k.name).collect();
        let written = keys.word::<String>("kind", &kinds, report);
        let by_name = || self.catalog.kinds().find(|k| k.built_in.contains(&entry.key.as_str()));
        let kind = written.or_else(|| by_name().map(|k| k.name.to_owned()));
        if kind.is_none() && entry.value.get("kind").is_none() {
            let message = format!("the provider `{}` needs a `kind`", entry.key);
            let finding = Diagnostic::error("E0102", entry.key_span, message);
            report.push(finding.help(format!("add `kind:`, one of {}", kinds.join(", "))));
        }
        let base_url = keys.text("base_url", report);
        if let Some(node) = keys.get("base_url") {
            check_url(node, report);
        }
        let read = ProviderEntry {
            name: entry.key.clone(),
            kind: kind.clone().unwrap_or_default(),
            base_url: base_url.map(str::to_owned),
            model: keys.text("model", report).map(str::to_owned),
            api_key_env: key_variable(&mut keys, report),
            executable: keys.text("executable", report).map(str::to_owned),
            headers: headers(&mut keys, report),
            limits: keys.get("limits").map(|n| limits(n, self.options.lenient, report)).unwrap_or_default(),
            prices: prices(&mut keys, self.options.lenient, report),
        };
        keys.finish("a provider", self.options.lenient, report);
        kind.map(|_| read)
    }
}

/// The variable that holds the key: `api_key_env: NAME`, or `api_key: ${NAME}`.
fn key_variable(keys: &mut Keys<'_>, report: &mut Report) -> Option<String> {
    let variable = keys.text("api_key_env", report).map(str::to_owned);
    if let (Some(name), Some(node)) = (&variable, keys.get("api_key_env"))
        && !is_variable(name)
    {
        let finding =
            Diagnostic::error("E0103", node.span, "`api_key_env` is the name of an environment variable");
        report
            .push(finding.help("write the name alone, such as `api_key_env: MY_KEY`; never the key itself"));
    }
    let Some(node) = keys.either(&["api_key"], report) else { return variable };
    let inside = node.as_text().and_then(|t| t.strip_prefix("${")?.strip_suffix('}')).map(str::to_owned);
    match inside.filter(|name| is_variable(name)) {
        Some(name) => variable.or(Some(name)),
        None => {
            let finding = Diagnostic::error("E0103", node.span, "a key does not belong into a pipeline file");
            report.push(finding.help("put it into an environment variable and write `api_key_env: NAME`"));
            variable
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn check_url(node: &Node, report: &mut Report) {
    let Some(text) = node.as_text().filter(|t| !t.contains("${")) else { return };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|r| r.split(['/', '?', '#']).next().unwrap_or_default());
    let message = match host {
        Some(host) if host.contains('@') => "a URL with a user name or password in it is not used",
        Some(host) if !host.is_empty() => return,
        _ => "`base_url` starts with https:// or http:// and a host",
    };
    report.push(
        Diagnostic::error("E0103", node.span, message)
            .help("for example `base_url: http://127.0.0.1:11434/v1`"),
    );
}

fn headers(keys: &mut Keys<'_>, report: &mut Report) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Some(node) = keys.get("headers") else { return all };
    if !matches!(node.kind, NodeKind::Map(_)) {
        wrong(node, "headers", "a map of names and texts", report);
    }
    for entry in node.entries() {
        match entry.value.as_text() {
            Some(text) => {
                all.insert(entry.key.to_ascii_lowercase(), text.to_owned());
            }
            None => wrong(&entry.value, &entry.key, "text", report),
        }
    }
    all
}

fn limits(node: &Node, lenient: bool, report: &mut Report) -> ProviderLimits {
    let mut keys = Keys::new(node, "`limits`", report);
    let mut seconds =
        |keys: &mut Keys<'_>, key| keys.duration(key, report).flatten().map(|length| length.as_secs_f64());
    let (response_seconds, idle_seconds) =
        (seconds(&mut keys, "response_seconds"), seconds(&mut keys, "idle_seconds"));
    let read = ProviderLimits {
        requests_per_minute: keys.count("requests_per_minute", 1, report),
        input_tokens_per_minute: keys.count("input_tokens_per_minute", 1, report),
        output_tokens_per_minute: keys.count("output_tokens_per_minute", 1, report),
        max_parallel: keys.count("max_parallel", 1, report),
        max_output_tokens: keys.count("max_output_tokens", 1, report),
        response_seconds,
        idle_seconds,
    };
    keys.finish("`limits`", lenient, report);
    read
}

fn prices(keys: &mut Keys<'_>, lenient: bool, report: &mut Report) -> BTreeMap<String, ModelPrice> {
    let mut all = BTreeMap::new();
    let Some(node) = keys.get("prices") else { return all };
    if !matches!(node.kind, NodeKind::Map(_)) {
        wrong(node, "prices", "a map of models and their prices", report);
    }
    for entry in node.entries() {
        let mut keys = Keys::new(&entry.value, "a price", report);
        for needed in ["input", "output"].into_iter().filter(|k| entry.value.get(k).is_none()) {
            let message = format!("the price of `{}` needs `{needed}`", entry.key);
            let finding = Diagnostic::error("E0102", entry.key_span, message);
            report.push(finding.help(format!("add `{needed}:`, US dollars for a million tokens")));
        }
        let long = keys.get("long").map(|node| long_price(node, lenient, report));
        let price = ModelPrice {
            input: keys.number("input", report).unwrap_or_default(),
            output: keys.number("output", report).unwrap_or_default(),
            cache_read: keys.number("cache_read", report),
            cache_write: keys.number("cache_write", report),
            max_output_tokens: keys.count("max_output_tokens", 1, report),
            long,
        };
        keys.finish("a price", lenient, report);
        all.insert(entry.key.clone(), price);
    }
    all
}

fn long_price(node: &Node, lenient: bool, report: &mut Report) -> LongPrice {
    let mut keys = Keys::new(node, "`long`", report);
    let price = LongPrice {
        above: keys.count("above", 1, report).unwrap_or(u64::MAX),
        input: keys.number("input", report).unwrap_or_default(),
        output: keys.number("output", report).unwrap_or_default(),
        cache_read: keys.number("cache_read", report),
    };
    keys.finish("`long`", lenient, report);
    price
}

/// What a leaf asks of its backend, and what the backend must be able to do for it.
fn lacks(field: &Entry, can: &Capabilities) -> Option<&'static str> {
    let is_set = match &field.value.kind {
        NodeKind::Null => false,
        NodeKind::List(items) => !items.is_empty(),
        NodeKind::Map(entries) => !entries.is_empty(),
        _ => true,
    };
    let (can, what) = match field.key.as_str() {
        "temperature" | "top_p" | "top_k" => (can.sampling, "no sampling parameters"),
        "max_output_tokens" => (can.max_output_tokens, "no limit on the length of an answer"),
        "functions" | "tools" => (can.functions, "no functions"),
        _ => return None,
    };
    (is_set && !can).then_some(what)
}

/// An option that the backend does not have.
fn unknown_option(provider: &str, entry: &Entry, can: &Capabilities) -> Option<Diagnostic> {
    // These steer this program, or are made into other options before a call.
    let is_ours = entry.key == "preset";
    // A fallback takes an option away by setting it to nothing.
    let is_set = entry.value.kind != NodeKind::Null;
    if !is_set || can.options.contains(&entry.key.as_str()) || (can.agent && is_ours) {
        return None;
    }
    let message = format!("`{provider}` has no option `{}`", entry.key);
    let finding = Diagnostic::error("E0406", entry.key_span, message);
    Some(match closest(&entry.key, can.options.iter().copied()) {
        Some(near) => finding.suggest(near),
        None if can.options.is_empty() => finding.help("this provider has no options"),
        None => finding.help(format!("it has: {}", can.options.join(", "))),
    })
}
