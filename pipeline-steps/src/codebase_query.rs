//! `codebase_query`: what stands in a codebase, and what depends on what.
//!
//! Owns the step: which files must be read for the questions that are asked, and the order of the work. Reads only
//! through the roots of the run, off the threads that run tasks. Must not know a language (`facts.rs`), where modules are
//! looked for (`resolve.rs`) or how a question is answered (`find.rs`, `symbols.rs`, `relations.rs`, `git.rs`).

mod config;
mod language;
mod tree;
mod facts;
mod index;
mod resolve;
mod graph;
mod find;
mod symbols;
mod packages;
mod project;
mod references;
mod relations;
mod git;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;
use pipeline_core::document::Node;
use pipeline_core::engine::blocking::{self, Stop};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::CheckContext;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::confine::Roots;
use config::{Config, Question};
use facts::Detail;
use index::Index;
use language::Language;
use relations::World;
use resolve::Resolver;
use tree::{Selection, Tree};

const EXAMPLE: &str = r#"workflow:
  name: overview
  steps:
    - name: code
      type: codebase_query
      queries:
        project: {get_project_type: {}}
        tests:
          find_files: {type: test}
        entry_points:
          find_functions: {name: main}
    - name: told
      type: test_echo
      value: "a {{ steps.code.project.type }} project with {{ steps.code.tests.count }} test files"
"#;

/// The step type `codebase_query`.
pub(crate) struct CodebaseQuery;

#[async_trait]
impl Step for CodebaseQuery {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "codebase_query",
            summary: "Asks what stands in a codebase: files, functions, classes, imports, references, dependencies, \
                      the project's packages and what git says. Reads Rust, Python, JavaScript, TypeScript, Go and Elixir.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    fn check(&self, config: &Node, cx: &mut CheckContext<'_>) {
        config::check(config, cx);
    }

    fn fields(&self, config: &Node) -> Option<Vec<String>> {
        Some(config.get("queries")?.entries().iter().map(|entry| entry.key.clone()).collect())
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let config: Config = cx.decode(with.clone())?;
        let work = async {
            let done = answer(cx, config).await?;
            serde_json::to_value(done).map_err(|e| StepError::new(ErrorKind::Internal, e.to_string()))
        };
        // What was found on disk is recorded, so that a resumed run sees what this one saw.
        let done: Done = cx.decode(cx.effect("query", with.json(), work).await?.into_json())?;
        Ok(StepOutput { warnings: done.warnings, ..StepOutput::ok(Value::Object(done.value)) })
    }
}

/// What the questions gave, as it is recorded.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    value: Map<String, Value>,
    warnings: Vec<String>,
}

async fn answer(cx: &StepContext, config: Config) -> Result<Done, StepError> {
    let mut questions = IndexMap::new();
    for (name, query) in config.queries {
        let question = query.question(&name)?;
        questions.insert(name, question);
    }
    let path = config.path.unwrap_or_else(|| ".".to_owned());
    let selection = Selection { include_hidden: config.include_hidden, exclude: config.exclude_patterns };
    let (roots, working) = (Roots::read(cx), cx.run.dirs.working.clone());
    let tree = blocking::run(move |stop| Tree::walk(&roots, &path, &working, &selection, stop)).await??;
    let tree = Arc::new(tree);
    let detail = if questions.values().any(reads_graph) { Detail::Paths } else { Detail::Definitions };
    let index = Index::read(&tree, needed(&tree, questions.values())?, detail).await?;
    let (mut ready, mut warnings) = (Map::new(), index.warnings.clone());
    for (name, question) in &questions {
        let git = git::Git::new(cx, &tree.place, &tree.root);
        let answer = match question {
            Question::GitStatus => git.status().await?,
            Question::ChangedFiles(asked) => git.changed(asked).await?,
            Question::References(asked) => {
                let found = references::references(&tree, asked, &mut warnings).await;
                found.map_err(|error| within(name, error))?
            }
            _ => continue,
        };
        ready.insert(name.clone(), answer);
    }
    let done = Done { value: ready, warnings };
    blocking::run(move |stop| answers(&tree, &index, &questions, done, stop)).await?
}

/// The files that must be read for these questions.
fn needed<'q>(tree: &Tree, questions: impl Iterator<Item = &'q Question>) -> Result<Vec<usize>, StepError> {
    let mut all = BTreeSet::new();
    let with_language = |wanted: Option<Language>| {
        let fits = move |at: &usize| {
            tree.files[*at].language().is_some_and(|l| wanted.is_none_or(|wanted| wanted == l))
        };
        (0..tree.files.len()).filter(fits)
    };
    for question in questions {
        match question {
            Question::Functions(asked) => all.extend(symbols::places(tree, &asked.place)?),
            Question::Classes(asked) => all.extend(symbols::places(tree, &asked.place)?),
            Question::Imports(asked) => {
                all.extend(symbols::places(tree, &asked.place)?);
                // Where a module of Elixir is, its path does not tell.
                all.extend(with_language(Some(Language::Elixir)));
            }
            question if reads_graph(question) => all.extend(with_language(None)),
            Question::Dependencies(_)
            | Question::Dependents(_)
            | Question::Related(_)
            | Question::Impact(_)
            | Question::Files(_)
            | Question::References(_)
            | Question::ProjectType
            | Question::Packages(_)
            | Question::GitStatus
            | Question::ChangedFiles(_) => {}
        }
    }
    Ok(all.into_iter().collect())
}

/// Whether the answer follows from which file depends on which.
fn reads_graph(question: &Question) -> bool {
    match question {
        Question::Dependencies(asked) => asked.for_file.is_some(),
        Question::Files(asked) => asked.related_to.is_some(),
        Question::Dependents(_) | Question::Related(_) | Question::Impact(_) => true,
        _ => false,
    }
}

/// Answers the questions in their order; some have their answers already.
fn answers(
    tree: &Tree,
    index: &Index,
    questions: &IndexMap<String, Question>,
    mut ready: Done,
    stop: &Stop,
) -> Result<Done, StepError> {
    let resolver = Resolver::new(tree, index);
    let world = World { tree, index, resolver: &resolver, graph: OnceCell::new() };
    let mut done = Done { value: Map::new(), warnings: std::mem::take(&mut ready.warnings) };
    for (name, question) in questions {
        if stop.is_set() {
            return Err(StepError::new(ErrorKind::Cancelled, "it was stopped"));
        }
        let warnings = &mut done.warnings;
        let value = match question {
            Question::Files(asked) => find::files(tree, asked, world.related_places(asked)?.as_deref()),
            Question::Functions(asked) => symbols::functions(tree, index, asked),
            Question::Classes(asked) => symbols::classes(tree, index, asked),
            Question::Imports(asked) => symbols::imports(tree, index, &resolver, asked),
            Question::Dependencies(asked) => world.dependencies(asked, warnings),
            Question::Dependents(asked) => world.dependents(asked),
            Question::Related(asked) => world.related(asked),
            Question::Impact(asked) => world.impact(asked),
            Question::ProjectType => Ok(project::project_type(tree)),
            Question::Packages(asked) => Ok(packages::answer(tree, asked, warnings)),
            Question::References(_) | Question::GitStatus | Question::ChangedFiles(_) => {
                Ok(ready.value.remove(name).unwrap_or_default())
            }
        };
        let value = value.map_err(|error| within(name, error))?;
        done.value.insert(name.clone(), value);
    }
    done.warnings.sort();
    done.warnings.dedup();
    Ok(done)
}

fn within(name: &str, error: StepError) -> StepError {
    StepError { message: format!("query `{name}`: {}", error.message), ..error }
}

#[cfg(test)]
mod tests;
