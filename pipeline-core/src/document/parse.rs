//! Reads a YAML or JSON text into nodes.
//!
//! Owns [`parse`] and [`Limits`]. The only module that names the YAML parser. Findings here:
//!
//! | code | finding |
//! |---|---|
//! | E0001 | the text is not YAML |
//! | E0002 | a key stands twice in one map |
//! | E0003 | `{{x}}` without quotes, which YAML reads as a map |
//! | E0004 | the file is over a limit |
//! | E0005 | a number that JSON does not have |
//! | E0006 | a key that is a list or a map |

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_yaml::{Location, Spanned};

use crate::diagnostic::{Diagnostic, FileId, Span};
use crate::document::{Entry, Node, NodeKind};
use crate::planted::{Bug, planted};
use crate::source::{SourceFile, SourceMap, offset};

/// Limits that keep a hostile file from taking memory or time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one file; 8 MiB.
    pub file_bytes: usize,
    /// Nodes after aliases are expanded; 250,000.
    pub nodes: usize,
    /// Bytes of all scalars after aliases are expanded; 8 MiB.
    pub scalar_bytes: usize,
    /// Nesting; 64.
    pub depth: usize,
    /// Aliases; 200.
    pub aliases: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 8 << 20, nodes: 250_000, scalar_bytes: 8 << 20, depth: 64, aliases: 200 }
    }
}

/// Parses the text of `file`. Findings that leave a document to go on with (a duplicate key, an unquoted template) come
/// beside it; the first of a duplicate key's values is kept.
///
/// # Errors
/// The findings, when there is no document to go on with.
pub fn parse(
    sources: &SourceMap,
    file: FileId,
    limits: &Limits,
) -> Result<(Node, Vec<Diagnostic>), Vec<Diagnostic>> {
    let Some(source) = sources.get(file) else {
        return Err(vec![Diagnostic::error("E0001", None, "there is no such file in the source map")]);
    };
    if source.text.len() > limits.file_bytes {
        let message = format!(
            "{} is {} bytes long, over the limit of {}",
            source.display,
            source.text.len(),
            limits.file_bytes
        );
        let finding = Diagnostic::error("E0004", Span::new(file, 0, 0), message);
        return Err(vec![
            finding.help("split it into child pipelines (`pipeline_file`), or move data into files"),
        ]);
    }
    crate::stack::with_room(|| {
        let parsed: Result<Spanned<Tree>, _> =
            serde_yaml::from_str_with_options(&source.text, options(limits));
        match parsed {
            Ok(tree) => {
                let mut builder = Builder { file, source, findings: Vec::new() };
                let node = builder.node(tree);
                Ok((node, builder.findings))
            }
            Err(error) => Err(vec![failed(&error, file, source, limits)]),
        }
    })
}

fn options(limits: &Limits) -> serde_yaml::Options {
    let raised = Limits { nodes: 1 << 40, aliases: 1 << 40, scalar_bytes: 1 << 40, ..*limits };
    let limits = if planted(Bug::RaiseBudget) { &raised } else { limits };
    let replayed = limits.nodes.saturating_mul(3);
    serde_yaml::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Merge,
        budget: serde_yaml::budget! {
            max_documents: 1,
            max_nodes: limits.nodes,
            max_events: replayed,
            max_depth: limits.depth,
            max_aliases: limits.aliases,
            max_anchors: limits.aliases,
            max_total_scalar_bytes: limits.scalar_bytes,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: replayed },
    }
}

fn place(file: FileId, source: &SourceFile, location: Location) -> Span {
    let span = location.span();
    match (span.byte_offset(), span.byte_len()) {
        (Some(start), Some(length)) => Span::new(file, narrow(start), narrow(start + length)),
        _ => {
            let start = source.offset(narrow(location.line()), narrow(location.column()));
            Span::new(file, start, start)
        }
    }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn failed(error: &serde_yaml::Error, file: FileId, source: &SourceFile, limits: &Limits) -> Diagnostic {
    let span = error.location().map_or(Span::new(file, 0, 0), |location| place(file, source, location));
    let line = source.line(source.position(span.start).line);
    if planted(Bug::IndexBySpan) {
        let _behind = line.as_bytes()[source.position(span.start).column as usize];
    }
    let mut words = error.without_snippet().to_string();
    if let Some(end) = words.find(" at line") {
        words.truncate(end);
    }
    if let serde_yaml::Error::Budget { .. }
    | serde_yaml::Error::AliasReplayLimitExceeded { .. }
    | serde_yaml::Error::AliasExpansionLimitExceeded { .. }
    | serde_yaml::Error::AliasReplayStackDepthExceeded { .. } = error.without_snippet()
    {
        let help = format!(
            "limits: {} nodes, {} bytes of text, depth {}, {} aliases",
            limits.nodes, limits.scalar_bytes, limits.depth, limits.aliases
        );
        return Diagnostic::error("E0004", span, format!("the file is over a limit: {words}")).help(help);
    }
    if let serde_yaml::Error::NonFiniteFloat { .. } = error.without_snippet() {
        let finding = Diagnostic::error("E0005", span, "this is a number that JSON does not have");
        return finding.help("write it as text, in quotes");
    }
    if let Some(at) = line.find("{{").filter(|at| !line[..*at].contains(['"', '\'', '#', '|', '>'])) {
        let start = source.offset(source.position(span.start).line, 1) + offset(at);
        return unquoted(Span::new(file, start, start + 2));
    }
    Diagnostic::error("E0001", span, format!("this is not YAML: {words}"))
        .help("check indentation, colons and quotes at this place and on the line before")
}

fn unquoted(span: Span) -> Diagnostic {
    Diagnostic::error("E0003", span, "a template without quotes: YAML reads `{{ … }}` as a map")
        .help("put quotes around the whole value: \"{{ … }}\"")
}

/// What the parser hands over; turned into nodes afterwards, so that every finding has its place.
enum Tree {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<Tree>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(Tree::Number).ok_or_else(|| E::custom("a number that JSON does not have"))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Tree, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Tree, E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

/// Turns parsed values into nodes and collects what is wrong with them.
struct Builder<'a> {
    file: FileId,
    source: &'a SourceFile,
    findings: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn node(&mut self, tree: Spanned<Tree>) -> Node {
        let span = place(self.file, self.source, tree.referenced);
        let defined = place(self.file, self.source, tree.defined);
        let kind = match tree.value {
            Tree::Null => NodeKind::Null,
            Tree::Bool(value) => NodeKind::Bool(value),
            Tree::Number(value) => NodeKind::Number(value),
            Tree::Text(text) => NodeKind::Text(text),
            Tree::List(items) => NodeKind::List(items.into_iter().map(|item| self.node(item)).collect()),
            Tree::Map(entries) => self.map(span, entries),
        };
        Node { span, defined: (defined != span).then_some(defined), kind }
    }

    fn map(&mut self, span: Span, entries: Vec<(Spanned<Tree>, Spanned<Tree>)>) -> NodeKind {
        let mut map: Vec<Entry> = Vec::with_capacity(entries.len());
        let mut seen: HashMap<String, Span> = HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            let key_span = place(self.file, self.source, key.referenced);
            let value = self.node(value);
            let key = match key.value {
                Tree::Text(text) => text,
                Tree::Bool(flag) => flag.to_string(),
                Tree::Number(number) => number.to_string(),
                Tree::Null => "null".to_owned(),
                Tree::Map(_)
                    if self.source.text.get(span.start as usize..).is_some_and(|t| t.starts_with("{{")) =>
                {
                    self.findings.push(unquoted(Span::new(self.file, span.start, span.start + 2)));
                    continue;
                }
                Tree::List(_) | Tree::Map(_) => {
                    let finding = Diagnostic::error("E0006", key_span, "a key must be text, and this is not");
                    self.findings.push(finding.help("put it in quotes"));
                    continue;
                }
            };
            if let Some(first) = seen.get(&key) {
                let finding =
                    Diagnostic::error("E0002", key_span, format!("`{key}` stands twice in this map"))
                        .label(*first, "first defined here")
                        .help("remove one of the two, or rename it");
                self.findings.push(finding);
                continue;
            }
            seen.insert(key.clone(), key_span);
            map.push(Entry { key, key_span, value });
        }
        NodeKind::Map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::LoadedSource;

    type Read = Result<(Node, Vec<Diagnostic>), Vec<Diagnostic>>;

    fn read(text: &str) -> (SourceMap, Read) {
        let mut sources = SourceMap::default();
        let name = "t.yaml".to_owned();
        let file =
            sources.add(LoadedSource { display: name.clone(), canonical: name, text: text.to_owned() });
        let result = parse(&sources, file, &Limits::default());
        (sources, result)
    }

    fn findings(text: &str) -> Vec<String> {
        let (sources, result) = read(text);
        let findings = result.map_or_else(|f| f, |(_, f)| f);
        let show = |d: &Diagnostic| {
            let (_, p) = sources.locate(d.span.expect("a place")).expect("a file");
            format!("{}:{} {}", p.line, p.column, d.code)
        };
        findings.iter().map(show).collect()
    }

    #[test]
    fn values_keep_their_kind_and_place() {
        let (sources, result) = read("a: yes\nb: [010, 1_000, 2, 2.5, true, ~, 2024-01-01]\n1: é\nc: x\n");
        let (node, findings) = result.expect("it parses");
        assert!(findings.is_empty());
        assert_eq!(
            node.to_json(),
            serde_json::json!({
                "a": "yes", "b": ["010", "1_000", 2, 2.5, true, null, "2024-01-01"], "1": "é", "c": "x",
            })
        );
        let c = node.get("c").expect("c");
        assert_eq!(
            &sources.get(FileId(0)).expect("a file").text[c.span.start as usize..c.span.end as usize],
            "x"
        );
    }

    #[test]
    fn aliases_and_merge_keys_work() {
        let (_, result) = read("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nagain: *b\n");
        let (node, findings) = result.expect("it parses");
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(node.to_json()["use"], serde_json::json!({"x": 1, "y": 3}));
        assert!(node.get("again").expect("again").defined.is_some());
    }

    #[test]
    fn every_finding_has_its_place() {
        assert_eq!(findings("a: 1\nb: 2\na: 3\n"), ["3:1 E0002"]);
        assert_eq!(findings("a: {{x}}\n"), ["1:4 E0003"]);
        assert_eq!(findings("a: {{ steps.x.y }} and more\n"), ["1:4 E0003"]);
        assert_eq!(findings("a: .inf\n"), ["1:4 E0005"]);
        assert_eq!(findings("a: [1, 2\nb: 3\n").len(), 1);
        assert_eq!(findings("a: 1\n---\nb: 2\n").len(), 1);
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = "a: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 {
            let list = vec![format!("*a{}", i - 1); 9].join(", ");
            laughs.push_str(&format!("b{i}: &a{i} [{list}]\n"));
        }
        assert!(read(&laughs).1.is_err());
        let scalar = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 20_000].join(", "));
        assert!(read(&scalar).1.is_err());
        assert!(read(&"[".repeat(200_000)).1.is_err());
        let deep: String = (0..3000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(read(&deep).1.is_err());
        assert!(read(&"x".repeat(9 << 20)).1.is_err());
        let keys: String = (0..100_000).map(|i| format!("k{i}: 1\n")).collect();
        let (_, result) = read(&keys);
        assert!(result.is_ok(), "many keys are fine");
    }
}
