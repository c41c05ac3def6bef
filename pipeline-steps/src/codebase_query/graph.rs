//! Which file depends on which.
//!
//! Owns [`Graph`]: edges both ways, and what can be reached over them. Each file is visited once, however many ways lead
//! to it. Must not know the questions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::index::Index;
use super::resolve::{Resolver, Target};
use super::tree::Tree;

/// The edges between the files of a tree, by their places.
pub(super) struct Graph {
    uses: Vec<BTreeSet<usize>>,
    used_by: Vec<BTreeSet<usize>>,
    /// Packages that a file uses.
    packages: Vec<BTreeSet<String>>,
}

/// Along which edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Uses,
    UsedBy,
}

impl Graph {
    pub(super) fn new(tree: &Tree, index: &Index, resolver: &Resolver<'_>) -> Self {
        let mut graph = Self {
            uses: vec![BTreeSet::new(); tree.files.len()],
            used_by: vec![BTreeSet::new(); tree.files.len()],
            packages: vec![BTreeSet::new(); tree.files.len()],
        };
        for place in 0..tree.files.len() {
            for import in index.of(place).into_iter().flat_map(|facts| &facts.imports) {
                match resolver.target(place, import) {
                    Target::Files(files) => {
                        for file in files.into_iter().filter(|f| *f != place) {
                            graph.uses[place].insert(file);
                            graph.used_by[file].insert(place);
                        }
                    }
                    Target::Package(name) => {
                        graph.packages[place].insert(name);
                    }
                    Target::Nothing => {}
                }
            }
        }
        graph
    }

    /// The files next to one, in order.
    pub(super) fn next_to(&self, place: usize, way: Way) -> &BTreeSet<usize> {
        match way {
            Way::Uses => &self.uses[place],
            Way::UsedBy => &self.used_by[place],
        }
    }

    pub(super) fn packages(&self, place: usize) -> &BTreeSet<String> {
        &self.packages[place]
    }

    /// Everything up to `most` steps away, with the number of steps, by place.
    pub(super) fn reach(&self, start: usize, way: Way, most: usize) -> BTreeMap<usize, usize> {
        let mut seen = BTreeMap::from([(start, 0)]);
        let mut ahead = VecDeque::from([(start, 0)]);
        while let Some((place, steps)) = ahead.pop_front() {
            if steps == most {
                continue;
            }
            for next in self.next_to(place, way) {
                if !seen.contains_key(next) {
                    seen.insert(*next, steps + 1);
                    ahead.push_back((*next, steps + 1));
                }
            }
        }
        seen.remove(&start);
        seen
    }
}
