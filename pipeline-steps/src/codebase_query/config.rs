//! What is written in a `codebase_query` step.
//!
//! Owns the configuration and what can be checked of it before anything runs. Must not touch files.

use std::fmt;

use indexmap::IndexMap;
use pipeline_core::document::{Entry, Node, NodeKind};
use pipeline_core::error::StepError;
use pipeline_core::plan::CheckContext;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::language::Language;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The directory of the codebase; the working directory when it is left out.
    #[serde(default)]
    pub(super) path: Option<String>,
    /// Hidden files and directories, too; never `.git`.
    #[serde(default)]
    pub(super) include_hidden: bool,
    /// Files that no query looks at, as globs on their paths below `path`: `vendor/**`.
    #[serde(default)]
    pub(super) exclude_patterns: Vec<String>,
    /// The queries: a name of yours and what is asked. The step's value has each answer under its name.
    #[schemars(with = "std::collections::BTreeMap<String, Query>")]
    pub(super) queries: IndexMap<String, Query>,
}

/// One question: exactly one of these keys, with its options as a map or as a list of maps.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Query {
    /// Files by role, language, name, size, text or date: `files`, `count` and the `criteria`.
    #[serde(deserialize_with = "asked")]
    find_files: Asked<FindFiles>,
    /// Functions, methods and macros: a list with name, type, file, line, signature.
    #[serde(deserialize_with = "asked")]
    find_functions: Asked<FindFunctions>,
    /// Classes, structs, enums, traits, interfaces, modules and named types: a list with name, type, file, line.
    #[serde(deserialize_with = "asked")]
    find_classes: Asked<FindClasses>,
    /// Imports in all their forms: a list with module, names, file, line and the file that is meant.
    #[serde(deserialize_with = "asked")]
    find_imports: Asked<FindImports>,
    /// Places where a name is used: a list with file, line, column and the text of the line.
    #[serde(deserialize_with = "asked")]
    find_references: Asked<FindReferences>,
    /// What a file, or the whole project, depends on: `direct`, `transitive`, `file_specific`.
    #[serde(deserialize_with = "asked")]
    find_dependencies: Asked<FindDependencies>,
    /// Files that depend on a file: `direct` and `transitive`.
    #[serde(deserialize_with = "asked")]
    find_dependents: Asked<FindDependents>,
    /// Files that have to do with a file: its tests, its sources, neighbours, files of a similar name, what it imports.
    #[serde(deserialize_with = "asked")]
    find_related: Asked<FindRelated>,
    /// What a change to a file may reach: `directly_affected`, `potentially_affected`, `test_files`, `impact_score`.
    #[serde(deserialize_with = "asked")]
    analyze_impact: Asked<AnalyzeImpact>,
    /// What kind of project it is: `type`, all `types`, `manifests`, `languages`.
    #[serde(deserialize_with = "asked")]
    get_project_type: Asked<NoOptions>,
    /// Packages that its manifests ask for: `dependencies` and `count`.
    #[serde(deserialize_with = "asked")]
    get_dependencies: Asked<GetDependencies>,
    /// Branch, commit, what is changed, the last commits.
    #[serde(deserialize_with = "asked")]
    get_git_status: Asked<NoOptions>,
    /// Files that differ from a commit, and files that git does not know yet.
    #[serde(deserialize_with = "asked")]
    get_changed_files: Asked<GetChangedFiles>,
}

/// A query with its options.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Files(FindFiles),
    Functions(FindFunctions),
    Classes(FindClasses),
    Imports(FindImports),
    References(FindReferences),
    Dependencies(FindDependencies),
    Dependents(FindDependents),
    Related(FindRelated),
    Impact(AnalyzeImpact),
    ProjectType,
    Packages(GetDependencies),
    GitStatus,
    ChangedFiles(GetChangedFiles),
}

/// The keys of [`Query`], each with the option that it cannot do without.
const KINDS: &[(&str, Option<&str>)] = &[
    ("find_files", None),
    ("find_functions", None),
    ("find_classes", None),
    ("find_imports", None),
    ("find_references", Some("name")),
    ("find_dependencies", None),
    ("find_dependents", Some("file")),
    ("find_related", Some("file")),
    ("analyze_impact", Some("file")),
    ("get_project_type", None),
    ("get_dependencies", None),
    ("get_git_status", None),
    ("get_changed_files", None),
];

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// Where a program or library begins: `main.rs`, `index.js`, `__main__.py`.
    Main,
    /// Tests.
    Test,
    /// Manifests and settings.
    Config,
    /// Source text in a known language; in `find_files`, the main files too.
    Source,
    /// Anything else.
    Other,
}

/// Files by name, role, size and date.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindFiles {
    /// What the files are for.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<Role>,
    /// A glob on the file's name, or on its path below `path` when it has a `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pattern: Option<String>,
    /// The language, by the ending of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) language: Option<Language>,
    /// The ending of the name, with or without the dot: `md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extension: Option<String>,
    /// Text that the file contains; files over 1 MiB are not searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) contains: Option<String>,
    /// The smallest size, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size_min: Option<u64>,
    /// The largest size, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size_max: Option<u64>,
    /// Changed on disk at or after this time: `2026-01-31` or `2026-01-31T12:00:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modified_since: Option<String>,
    /// Leaves tests out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) exclude_tests: bool,
    /// Leaves files out, as globs on their paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) exclude_patterns: Vec<String>,
    /// Only files that have to do with this one, as in `find_related`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) related_to: Option<String>,
}

/// Which functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FunctionType {
    /// Functions that belong to no type.
    Function,
    /// Functions of a class, trait, interface or type.
    Method,
    /// Macros.
    Macro,
    /// What other modules can use.
    Public,
    /// What they cannot.
    Private,
}

/// Functions, methods and macros.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindFunctions {
    /// The exact name.
    pub(super) name: Option<String>,
    /// A glob on the name: `test_*`.
    pub(super) pattern: Option<String>,
    /// Which functions.
    #[serde(rename = "type")]
    pub(super) kind: Option<FunctionType>,
    /// Only what other modules can use.
    pub(super) public_only: bool,
    #[serde(flatten)]
    pub(super) place: Where,
}

/// Which kind of named type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClassType {
    Class,
    Struct,
    Enum,
    Union,
    Trait,
    Interface,
    Protocol,
    Implementation,
    Exception,
    Module,
    Type,
}

/// Types and modules.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindClasses {
    /// The exact name.
    pub(super) name: Option<String>,
    /// A glob on the name: `*Error`.
    pub(super) pattern: Option<String>,
    /// Which kind of type.
    #[serde(rename = "type")]
    pub(super) kind: Option<ClassType>,
    /// Only what other modules can use.
    pub(super) public_only: bool,
    #[serde(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindImports {
    /// The imported module, or one name of it: `std::fs`, `os.path`, `react`.
    pub(super) module: Option<String>,
    /// A glob on the module: `@scope/*`.
    pub(super) pattern: Option<String>,
    /// Only what comes from outside of the codebase.
    pub(super) external_only: bool,
    #[serde(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindReferences {
    /// The name, as it stands in the source. Comments and texts do not count.
    pub(super) name: Option<String>,
    /// The place where it is defined, too.
    pub(super) include_definitions: bool,
    #[serde(flatten)]
    pub(super) place: Where,
}

/// Where to look.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct Where {
    /// Only in this file.
    pub(super) in_file: Option<String>,
    /// Only in these files; globs are fine.
    pub(super) in_files: Vec<String>,
    /// Only in this language.
    pub(super) language: Option<Language>,
    /// Not in tests.
    pub(super) exclude_tests: bool,
    /// Not in these files, as globs on their paths.
    pub(super) exclude_patterns: Vec<String>,
    /// The most answers.
    pub(super) max_results: Option<usize>,
}

/// From where a dependency comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A file of this codebase.
    Internal,
    /// A package.
    External,
}

/// What a file needs, or all packages of the project.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindDependencies {
    /// The file; without it, the packages of the project's manifests.
    pub(super) for_file: Option<String>,
    /// What the dependencies depend on, too.
    pub(super) include_transitive: bool,
    /// Only files of this codebase, or only packages.
    #[serde(rename = "type")]
    pub(super) origin: Option<Origin>,
    /// Only dependencies in this language.
    pub(super) language: Option<Language>,
}

/// Files that need a file.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindDependents {
    /// The file that is depended on.
    pub(super) file: Option<String>,
    /// What depends on the dependents, too.
    pub(super) include_transitive: bool,
    /// How many steps away, with `include_transitive`; without a limit when it is left out.
    pub(super) max_depth: Option<usize>,
    /// Leaves tests out.
    pub(super) exclude_tests: bool,
}

/// How a file has to do with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Relation {
    /// A test of it.
    Test,
    /// What it tests.
    Source,
    /// It is imported.
    Dependency,
    /// It imports.
    Dependent,
    /// A similar name.
    Similar,
    /// In the same directory.
    Directory,
}

/// Files that belong together with a file.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FindRelated {
    /// The file.
    pub(super) file: Option<String>,
    /// Which relations; all of them when it is left out.
    pub(super) types: Vec<Relation>,
    /// The most answers.
    pub(super) max_results: usize,
}

impl Default for FindRelated {
    fn default() -> Self {
        Self { file: None, types: Vec::new(), max_results: 20 }
    }
}

/// What a change of a file may reach.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AnalyzeImpact {
    /// The file that is to be changed.
    pub(super) file: Option<String>,
    /// Whether tests count.
    pub(super) include_tests: bool,
    /// How many steps away.
    pub(super) max_depth: usize,
}

impl Default for AnalyzeImpact {
    fn default() -> Self {
        Self { file: None, include_tests: true, max_depth: 3 }
    }
}

/// When a package is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Need {
    /// When it runs.
    Runtime,
    /// When it is developed and tested.
    Development,
    /// When it is built.
    Build,
    /// When an option of it is chosen.
    Optional,
    /// By something else that is needed.
    Indirect,
}

/// Packages that manifests declare.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GetDependencies {
    /// Only packages that are needed for this.
    #[serde(rename = "type")]
    pub(super) need: Option<Need>,
    /// Only packages of this language.
    pub(super) language: Option<Language>,
}

/// Files that git says have changed.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GetChangedFiles {
    /// The commit, branch or tag to compare the files on disk with.
    pub(super) since: String,
    /// Files that git does not know yet, too.
    pub(super) include_untracked: bool,
}

impl Default for GetChangedFiles {
    fn default() -> Self {
        Self { since: "HEAD".to_owned(), include_untracked: true }
    }
}

/// A query that takes no options.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NoOptions {}

/// Options that may stand there, as nothing, as a map, or as a list of maps.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
struct Asked<T>(Option<T>);

impl<T: JsonSchema> JsonSchema for Asked<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Asked{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let options = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [options, { "type": "array", "items": options }, { "type": "null" }] })
    }
}

/// Reads a key of [`Query`] that is there.
fn asked<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Asked<T>, D::Error> {
    let options = match Value::deserialize(deserializer)? {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        Value::Array(items) => merged(items).map_err(D::Error::custom)?,
        other => return Err(D::Error::custom(format!("{other} is neither a map nor a list of maps"))),
    };
    serde_json::from_value(Value::Object(options)).map(|t| Asked(Some(t))).map_err(D::Error::custom)
}

fn merged(items: Vec<Value>) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for item in items {
        let Value::Object(map) = item else { return Err(format!("{item} is not a map")) };
        for (key, value) in map {
            if let Some(first) = all.get(&key) {
                return Err(format!("`{key}` is there twice: {first} and {value}"));
            }
            all.insert(key, value);
        }
    }
    Ok(all)
}

impl Query {
    /// # Errors
    /// `Invalid` when it asks for nothing, for several things, or lacks an option that it needs.
    pub(super) fn question(self, name: &str) -> Result<Question, StepError> {
        let mut all = [
            self.find_files.0.map(Question::Files),
            self.find_functions.0.map(Question::Functions),
            self.find_classes.0.map(Question::Classes),
            self.find_imports.0.map(Question::Imports),
            self.find_references.0.map(Question::References),
            self.find_dependencies.0.map(Question::Dependencies),
            self.find_dependents.0.map(Question::Dependents),
            self.find_related.0.map(Question::Related),
            self.analyze_impact.0.map(Question::Impact),
            self.get_project_type.0.map(|_| Question::ProjectType),
            self.get_dependencies.0.map(Question::Packages),
            self.get_git_status.0.map(|_| Question::GitStatus),
            self.get_changed_files.0.map(Question::ChangedFiles),
        ]
        .into_iter()
        .flatten();
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(StepError::invalid(format!("the query `{name}` must ask exactly one thing"))
                .help(format!("one of: {}", kinds()))),
        }
    }
}

/// The value of an option that a query cannot do without.
///
/// # Errors
/// `Invalid` when it is not there or empty.
pub(super) fn needed<'t>(option: Option<&'t str>, kind: &str, key: &str) -> Result<&'t str, StepError> {
    option.filter(|text| !text.is_empty()).ok_or_else(|| {
        StepError::invalid(format!("`{kind}` needs `{key}`")).help(format!("add `{key}: …` to its options"))
    })
}

fn kinds() -> String {
    KINDS.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ")
}

/// Checks each query: one question, and the option that it needs.
pub(super) fn check(config: &Node, cx: &mut CheckContext<'_>) {
    let Some(queries) = config.get("queries") else { return };
    if matches!(queries.kind, NodeKind::Map(_)) && queries.entries().is_empty() {
        cx.error(
            "E0102",
            queries.span,
            "`queries` is empty",
            "add a query: `sources: {find_files: {type: source}}`",
        );
    }
    for entry in queries.entries() {
        let NodeKind::Map(all) = &entry.value.kind else { continue };
        let known = |e: &&Entry| KINDS.iter().find(|(kind, _)| *kind == e.key).copied();
        let asked: Vec<(&Entry, Option<&str>)> = all.iter().filter_map(|e| Some((e, known(&e)?.1))).collect();
        match asked.as_slice() {
            [(one, needs)] => {
                if let Some(needs) = needs
                    && !has(&one.value, needs)
                {
                    let message = format!("`{}` needs `{needs}`", one.key);
                    let help = format!("write `{}: {{{needs}: …}}`", one.key);
                    cx.missing(&one.value, &[needs], one.key_span, message, &help);
                }
            }
            // What is no question has been told as an unknown key.
            [] if !all.is_empty() => {}
            [] => {
                let message = format!("the query `{}` asks nothing", entry.key);
                cx.error("E0102", entry.key_span, message, &format!("write one of: {}", kinds()));
            }
            [_, (second, _), ..] => {
                let message = format!("the query `{}` asks several things", entry.key);
                cx.error("E0102", second.key_span, message, "give each question a name of its own");
            }
        }
    }
}

/// Whether options have a key; what a template makes of them is seen when it runs.
fn has(options: &Node, key: &str) -> bool {
    let one = |map: &Node| map.get(key).is_some();
    match &options.kind {
        NodeKind::Map(_) => one(options),
        NodeKind::List(items) => items.iter().any(|item| one(item) || item.as_text().is_some()),
        _ => options.as_text().is_some(),
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Test => "test",
            Self::Config => "config",
            Self::Source => "source",
            Self::Other => "other",
        })
    }
}
