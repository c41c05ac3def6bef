//! Dependencies, dependents, related files, impact.
//!
//! Owns the answers that follow edges between files.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use pipeline_core::error::StepError;
use serde_json::{Value, json};

use super::config::{
    AnalyzeImpact, FindDependencies, FindDependents, FindFiles, FindImports, FindRelated, Origin, Relation,
    Role, Where, needed,
};
use super::graph::{Graph, Way};
use super::index::Index;
use super::language::{directory, stem};
use super::packages::packages;
use super::resolve::Resolver;
use super::symbols;
use super::tree::Tree;

/// Names that are alike beyond this count as similar.
const SIMILAR: f64 = 0.7;

/// What the answers of this module are made from.
pub(super) struct World<'w> {
    pub(super) tree: &'w Tree,
    pub(super) index: &'w Index,
    pub(super) resolver: &'w Resolver<'w>,
    /// Made when it is first asked for.
    pub(super) graph: OnceCell<Graph>,
}

impl World<'_> {
    fn graph(&self) -> &Graph {
        self.graph.get_or_init(|| Graph::new(self.tree, self.index, self.resolver))
    }

    fn path(&self, at: usize) -> &str {
        &self.tree.files[at].path
    }

    fn is_test(&self, at: usize) -> bool {
        self.tree.files[at].role == Role::Test
    }

    /// Answers `find_dependencies`.
    ///
    /// # Errors
    /// `Invalid` for a file that is not there.
    pub(super) fn dependencies(
        &self,
        asked: &FindDependencies,
        warnings: &mut Vec<String>,
    ) -> Result<Value, StepError> {
        let Some(file) = asked.for_file.as_deref() else { return Ok(self.of_project(asked, warnings)) };
        let at = self.tree.named(file)?;
        let wants = |origin: Origin| asked.origin.is_none_or(|wanted| wanted == origin);
        let fits = |at: usize| asked.language.is_none_or(|l| self.tree.files[at].language() == Some(l));
        let internal = |at: usize, steps: usize| json!({ "name": self.path(at), "type": Origin::Internal, "depth": steps });
        let external =
            |name: &String, steps: usize| json!({ "name": name, "type": Origin::External, "depth": steps });
        let mut direct: Vec<Value> = Vec::new();
        if wants(Origin::Internal) {
            direct.extend(
                self.graph().next_to(at, Way::Uses).iter().filter(|n| fits(**n)).map(|n| internal(*n, 1)),
            );
        }
        if wants(Origin::External) {
            direct.extend(self.graph().packages(at).iter().map(|name| external(name, 1)));
        }
        let mut transitive = Vec::new();
        if asked.include_transitive {
            let reached = self.graph().reach(at, Way::Uses, usize::MAX);
            if wants(Origin::Internal) {
                let further = reached.iter().filter(|(at, steps)| **steps > 1 && fits(**at));
                transitive.extend(further.map(|(at, steps)| internal(*at, *steps)));
            }
            if wants(Origin::External) {
                let mut nearest: BTreeMap<&String, usize> = BTreeMap::new();
                for (at, steps) in &reached {
                    for name in self.graph().packages(*at) {
                        let least = nearest.entry(name).or_insert(usize::MAX);
                        *least = (*least).min(steps + 1);
                    }
                }
                nearest.retain(|name, _| !self.graph().packages(at).contains(*name));
                transitive.extend(nearest.into_iter().map(|(name, steps)| external(name, steps)));
            }
        }
        let place = Where { in_file: Some(self.path(at).to_owned()), ..Where::default() };
        let statements = FindImports { place, ..FindImports::default() };
        let file_specific = symbols::imports(self.tree, self.index, self.resolver, &statements)?;
        Ok(json!({
            "file": self.path(at), "direct": direct, "transitive": transitive, "file_specific": file_specific,
        }))
    }

    /// The packages of the manifests; those that something else needs are the transitive ones.
    fn of_project(&self, asked: &FindDependencies, warnings: &mut Vec<String>) -> Value {
        let (mut all, unread) = packages(self.tree);
        warnings.extend(unread);
        all.retain(|p| asked.language.is_none_or(|l| l.family() == p.language.family()));
        if asked.origin == Some(Origin::Internal) {
            all.clear();
        }
        let (transitive, direct): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|p| p.need == super::config::Need::Indirect);
        let named = |all: Vec<super::packages::Package>, depth: usize| {
            let one = |p: super::packages::Package| json!({ "name": p.name, "type": Origin::External, "version": p.version, "manifest": p.manifest, "depth": depth });
            all.into_iter().map(one).collect::<Vec<Value>>()
        };
        let transitive = if asked.include_transitive { named(transitive, 2) } else { Vec::new() };
        json!({ "file": null, "direct": named(direct, 1), "transitive": transitive, "file_specific": [] })
    }

    /// Answers `find_dependents`.
    ///
    /// # Errors
    /// `Invalid` for a file that is not there.
    pub(super) fn dependents(&self, asked: &FindDependents) -> Result<Value, StepError> {
        let at = self.tree.named(needed(asked.file.as_deref(), "find_dependents", "file")?)?;
        let most = if asked.include_transitive { asked.max_depth.unwrap_or(usize::MAX) } else { 1 };
        let (mut direct, mut transitive) = (Vec::new(), Vec::new());
        for (next, steps) in self.graph().reach(at, Way::UsedBy, most) {
            if asked.exclude_tests && self.is_test(next) {
                continue;
            }
            if steps == 1 { direct.push(self.path(next)) } else { transitive.push(self.path(next)) }
        }
        let count = direct.len() + transitive.len();
        Ok(json!({ "file": self.path(at), "direct": direct, "transitive": transitive, "count": count }))
    }

    /// Answers `analyze_impact`.
    ///
    /// # Errors
    /// `Invalid` for a file that is not there.
    pub(super) fn impact(&self, asked: &AnalyzeImpact) -> Result<Value, StepError> {
        let at = self.tree.named(needed(asked.file.as_deref(), "analyze_impact", "file")?)?;
        let (mut direct, mut further, mut tests) = (Vec::new(), Vec::new(), Vec::new());
        for (next, steps) in self.graph().reach(at, Way::UsedBy, asked.max_depth) {
            match (self.is_test(next), steps) {
                (true, _) => tests.push(next),
                (false, 1) => direct.push(next),
                (false, _) => further.push(next),
            }
        }
        if asked.include_tests {
            tests.extend(self.near(at, Relation::Test));
            tests.sort_unstable();
            tests.dedup();
        } else {
            tests.clear();
        }
        let paths = |all: &[usize]| all.iter().map(|at| self.path(*at)).collect::<Vec<_>>();
        Ok(json!({
            "file": self.path(at),
            "directly_affected": paths(&direct),
            "potentially_affected": paths(&further),
            "test_files": paths(&tests),
            "impact_score": 3 * direct.len() + further.len() + 2 * tests.len(),
        }))
    }

    /// Answers `find_related`.
    ///
    /// # Errors
    /// `Invalid` for a file that is not there.
    pub(super) fn related(&self, asked: &FindRelated) -> Result<Value, StepError> {
        let at = self.tree.named(needed(asked.file.as_deref(), "find_related", "file")?)?;
        let mut all: Vec<(usize, Relation, f64)> = Vec::new();
        let types = [
            Relation::Test,
            Relation::Source,
            Relation::Dependency,
            Relation::Dependent,
            Relation::Similar,
            Relation::Directory,
        ];
        for relation in types.into_iter().filter(|t| asked.types.is_empty() || asked.types.contains(t)) {
            for next in self.near(at, relation) {
                if all.iter().all(|(seen, _, _)| *seen != next) {
                    all.push((next, relation, self.confidence(at, next, relation)));
                }
            }
        }
        all.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.1.cmp(&b.1)).then(a.0.cmp(&b.0)));
        all.truncate(asked.max_results);
        let one = |(at, relation, confidence): (usize, Relation, f64)| json!({ "file": self.path(at), "relation_type": relation, "confidence": confidence });
        Ok(all.into_iter().map(one).collect())
    }

    fn confidence(&self, at: usize, next: usize, relation: Relation) -> f64 {
        match relation {
            Relation::Test | Relation::Source => 0.9,
            Relation::Dependency | Relation::Dependent => 0.8,
            Relation::Similar => (self.likeness(at, next) * 100.0).round() / 100.0,
            Relation::Directory => 0.7,
        }
    }

    fn likeness(&self, a: usize, b: usize) -> f64 {
        strsim::jaro(stem(self.path(a)), stem(self.path(b)))
    }

    /// The files that have one relation with a file, in order.
    fn near(&self, at: usize, relation: Relation) -> Vec<usize> {
        let file = &self.tree.files[at];
        let family = file.language().map(super::language::Language::family);
        let others = (0..self.tree.files.len()).filter(|next| *next != at);
        let is_same = |next: usize| {
            let other = &self.tree.files[next];
            other.language().map(super::language::Language::family) == family
                && stem(&other.path) == stem(&file.path)
        };
        match relation {
            Relation::Dependency => self.graph().next_to(at, Way::Uses).iter().copied().collect(),
            Relation::Dependent => self.graph().next_to(at, Way::UsedBy).iter().copied().collect(),
            Relation::Test if self.is_test(at) || family.is_none() => Vec::new(),
            Relation::Test => others
                .filter(|n| {
                    self.is_test(*n) && (is_same(*n) || self.graph().next_to(at, Way::UsedBy).contains(n))
                })
                .collect(),
            Relation::Source if !self.is_test(at) => Vec::new(),
            Relation::Source => others
                .filter(|n| {
                    let is_source = matches!(self.tree.files[*n].role, Role::Source | Role::Main);
                    is_source && (is_same(*n) || self.graph().next_to(at, Way::Uses).contains(n))
                })
                .collect(),
            Relation::Similar => others
                .filter(|n| {
                    self.likeness(at, *n) > SIMILAR
                        && family.is_some() == self.tree.files[*n].language.is_some()
                })
                .collect(),
            Relation::Directory => {
                others.filter(|n| directory(self.path(*n)) == directory(&file.path)).collect()
            }
        }
    }

    /// The files that `find_files` means by `related_to`.
    ///
    /// # Errors
    /// `Invalid` for a file that is not there.
    pub(super) fn related_places(&self, asked: &FindFiles) -> Result<Option<Vec<usize>>, StepError> {
        let Some(file) = asked.related_to.as_deref() else { return Ok(None) };
        let at = self.tree.named(file)?;
        let relations = [
            Relation::Test,
            Relation::Source,
            Relation::Dependency,
            Relation::Dependent,
            Relation::Similar,
            Relation::Directory,
        ];
        let mut all: Vec<usize> =
            relations.into_iter().flat_map(|relation| self.near(at, relation)).collect();
        all.sort_unstable();
        all.dedup();
        Ok(Some(all))
    }
}
