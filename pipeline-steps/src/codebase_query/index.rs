//! What all files of a codebase define and import.
//!
//! Owns [`Index`]: reads files on several threads, each file once, whatever is asked. Must not know the questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipeline_core::engine::blocking::{self, Stop};
use pipeline_core::error::{ErrorKind, StepError};

use super::facts::{self, Detail, Facts};
use super::tree::{LARGEST, Tree, Unread};

/// What is known of each file of a tree.
#[derive(Default)]
pub(super) struct Index {
    /// By the file's place in [`Tree::files`]; `None` for what was not or could not be read.
    pub(super) facts: Vec<Option<Facts>>,
    /// Files that were left out, and why.
    pub(super) warnings: Vec<String>,
}

impl Index {
    /// Reads the files at these places.
    ///
    /// # Errors
    /// `Cancelled`, `Panicked`.
    pub(super) async fn read(
        tree: &Arc<Tree>,
        places: Vec<usize>,
        detail: Detail,
    ) -> Result<Self, StepError> {
        let mut index = Self::default();
        index.facts.resize_with(tree.files.len(), || None);
        for (place, read) in
            on_lanes(tree, places, move |tree, place, stop| one(tree, place, detail, stop)).await?
        {
            match read {
                Read::Facts(facts) => index.facts[place] = Some(facts),
                Read::LeftOut(why) => {
                    index.warnings.push(format!("`{}` is left out: {why}", tree.files[place].path));
                }
            }
        }
        index.warnings.sort();
        Ok(index)
    }

    /// What a file says; nothing, when it was not read.
    pub(super) fn of(&self, place: usize) -> Option<&Facts> {
        self.facts.get(place)?.as_ref()
    }
}

enum Read {
    Facts(Facts),
    LeftOut(String),
}

/// What `one` makes of each of these files, on several threads, in the order of the files.
///
/// # Errors
/// `Cancelled`, `Panicked`.
pub(super) async fn on_lanes<T: Send + 'static>(
    tree: &Arc<Tree>,
    places: Vec<usize>,
    one: impl Fn(&Tree, usize, &Stop) -> T + Clone + Send + 'static,
) -> Result<Vec<(usize, T)>, StepError> {
    let (places, next) = (Arc::new(places), Arc::new(AtomicUsize::new(0)));
    let lane = || {
        let (tree, places, next, one) =
            (Arc::clone(tree), Arc::clone(&places), Arc::clone(&next), one.clone());
        blocking::run(move |stop| {
            let mut all = Vec::new();
            while let Some(&place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                let made = one(&tree, place, stop);
                if stop.is_set() {
                    return Err(StepError::new(ErrorKind::Cancelled, "it was stopped"));
                }
                all.push((place, made));
            }
            Ok(all)
        })
    };
    let lanes = (0..blocking::lanes().min(places.len())).map(|_| lane());
    let mut all = Vec::with_capacity(places.len());
    for made in futures_util::future::try_join_all(lanes).await? {
        all.extend(made?);
    }
    all.sort_unstable_by_key(|(place, _)| *place);
    Ok(all)
}

fn one(tree: &Tree, place: usize, detail: Detail, stop: &Stop) -> Read {
    let Some((language, dialect)) = tree.files[place].language else {
        return Read::LeftOut("its language is not known".to_owned());
    };
    let source = match tree.read(place) {
        Ok(source) => source,
        Err(why) => return Read::LeftOut(told(&why)),
    };
    match facts::read(&source, language, dialect, detail, &|| stop.is_set()) {
        Ok(facts) => Read::Facts(facts),
        Err(_) => Read::LeftOut("it takes too long to read".to_owned()),
    }
}

/// Why a file was not read, in words.
pub(super) fn told(why: &Unread) -> String {
    match why {
        Unread::TooLarge => format!("it is over {} MiB", LARGEST / 1024 / 1024),
        Unread::Binary => "it is not text".to_owned(),
        Unread::Failed(error) => error.to_string(),
    }
}
