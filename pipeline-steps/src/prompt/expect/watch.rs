//! Which files of a workspace changed, and by how many lines.
//!
//! Owns the look before and the look after. Both are recorded effects: an attempt that comes back after a crash compares
//! with what there was before its first try. Must not know who changes files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use globset::{GlobBuilder, GlobMatcher};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::value::{Hash, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Folders that hold nothing of the user's own making.
const SKIPPED: [&str; 4] = [".git", ".pipeline", "node_modules", "target"];

/// Most files, and most lines of all of them together.
const MOST_FILES: usize = 20_000;
const MOST_LINES: usize = 400_000;

/// A file that is larger is compared by its length and times, and counts as one line.
const LARGE: u64 = 4 * 1024 * 1024;

/// Cells of the table that finds the longest common part of two files; over it lines are counted without their order.
const TABLE: usize = 4_000_000;

/// One file, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    hash: String,
    /// Its lines, each as a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lines: Vec<u32>,
}

type Files = BTreeMap<String, Seen>;

/// A workspace as it was.
#[derive(Debug)]
pub(in crate::prompt) struct Before(Files);

/// What is different.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes {
    /// Made, changed and removed files, in order.
    pub files: Vec<String>,
    /// Lines added and removed, together.
    pub lines: u64,
}

impl Before {
    /// Looks at the step's workspace.
    ///
    /// # Errors
    /// `TooLarge` when there is too much in it, `Environment` when it cannot be read.
    pub async fn look(cx: &StepContext, with_lines: bool) -> Result<Self, StepError> {
        let request = json!({ "lines": with_lines });
        let work = async { serde_json::to_value(files(&cx.workspace, with_lines).await?).map_err(internal) };
        let seen = cx.effect("files before", &request, work).await?;
        Ok(Self(serde_json::from_value(seen.into_json()).map_err(internal)?))
    }

    /// Looks again and compares.
    ///
    /// # Errors
    /// As [`Before::look`].
    pub(super) async fn changes(&self, cx: &StepContext, with_lines: bool) -> Result<Changes, StepError> {
        let request = json!({ "lines": with_lines });
        let work = async {
            let after = files(&cx.workspace, with_lines).await?;
            serde_json::to_value(compared(&self.0, &after)).map_err(internal)
        };
        let found: Value = cx.effect("files after", &request, work).await?.into_json();
        serde_json::from_value(found).map_err(internal)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
fn internal(error: serde_json::Error) -> StepError {
    StepError::new(ErrorKind::Internal, format!("cannot keep what was seen of the workspace: {error}"))
}

/// A file pattern; a name without a slash means it anywhere.
///
/// # Errors
/// `Invalid`.
pub(super) fn matcher(pattern: &str) -> Result<GlobMatcher, StepError> {
    let bare = pattern.strip_prefix("./").unwrap_or(pattern);
    let glob = if bare.contains('/') { bare.to_owned() } else { format!("{{{bare},**/{bare}}}") };
    let glob = GlobBuilder::new(&glob).literal_separator(true).build();
    glob.map(|g| g.compile_matcher())
        .map_err(|error| StepError::invalid(format!("`{pattern}` is not a file pattern: {}", error.kind())))
}

async fn files(workspace: &Path, with_lines: bool) -> Result<Files, StepError> {
    let fail = |path: &Path, error: &io::Error| {
        let message = format!("cannot look at `{}` in the workspace: {error}", path.display());
        StepError::new(ErrorKind::Environment, message)
    };
    let root = match Dir::open_ambient_dir(workspace, ambient_authority()) {
        Ok(root) => root,
        // An agent may be the first to make it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Files::new()),
        Err(error) => return Err(fail(workspace, &error)),
    };
    let mut all = Files::new();
    let mut lines = 0;
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        let here = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
        for entry in root.read_dir(here).map_err(|e| fail(here, &e))? {
            let entry = entry.map_err(|e| fail(here, &e))?;
            let name = entry.file_name();
            let path = at.join(&name);
            let kind = entry.file_type().map_err(|e| fail(&path, &e))?;
            if kind.is_dir() {
                if !SKIPPED.iter().any(|s| name == *s) {
                    open.push(path);
                }
                continue;
            }
            if !kind.is_file() {
                continue;
            }
            let seen = seen(&root, &path, with_lines).map_err(|e| fail(&path, &e))?;
            lines += seen.lines.len();
            all.insert(path.to_string_lossy().into_owned(), seen);
            if all.len() > MOST_FILES || lines > MOST_LINES {
                let message = format!(
                    "the workspace has more than {MOST_FILES} files or {MOST_LINES} lines to compare"
                );
                return Err(StepError::new(ErrorKind::TooLarge, message).help(
                    "give the step a smaller workspace, or leave out `files_changed` and `max_diff_lines`",
                ));
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(all)
}

fn seen(root: &Dir, path: &Path, with_lines: bool) -> io::Result<Seen> {
    let metadata = root.metadata(path)?;
    if metadata.len() > LARGE {
        let changed = metadata.modified()?.into_std();
        return Ok(Seen { hash: format!("{} {changed:?}", metadata.len()), lines: Vec::new() });
    }
    let bytes = root.read(path)?;
    let number =
        |line: &[u8]| u32::try_from(Hash::of_bytes(line).seed() & u64::from(u32::MAX)).unwrap_or_default();
    let is_text = with_lines && !bytes.contains(&0);
    let lines = if is_text && !bytes.is_empty() {
        bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|b| *b == b'\n').map(number).collect()
    } else {
        Vec::new()
    };
    Ok(Seen { hash: Hash::of_bytes(&bytes).to_string(), lines })
}

fn compared(before: &Files, after: &Files) -> Changes {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut changes = Changes { files: Vec::new(), lines: 0 };
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old.map(|s| &s.hash) == new.map(|s| &s.hash) {
            continue;
        }
        let lines = |seen: Option<&Seen>| seen.map_or(Vec::new(), |s| s.lines.clone());
        let counted = differing(&lines(old), &lines(new));
        // A file without lines of its own (binary, large, empty) counts as one.
        changes.lines += counted.max(1);
        changes.files.push(name.clone());
    }
    changes
}

/// Lines that only one of the two has, in order.
fn differing(old: &[u32], new: &[u32]) -> u64 {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let common =
        if old.len().saturating_mul(new.len()) <= TABLE { in_order(old, new) } else { unordered(old, new) };
    (old.len() + new.len() - 2 * common) as u64
}

/// The length of the longest common subsequence.
fn in_order(old: &[u32], new: &[u32]) -> usize {
    let mut above = vec![0; new.len() + 1];
    for a in old {
        let mut left = 0;
        let mut corner = 0;
        for (place, b) in new.iter().enumerate() {
            let up = above[place + 1];
            let best = if a == b { corner + 1 } else { up.max(left) };
            corner = up;
            above[place + 1] = best;
            left = best;
        }
    }
    above[new.len()]
}

fn unordered(old: &[u32], new: &[u32]) -> usize {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for line in old {
        *counts.entry(*line).or_default() += 1;
    }
    let takes = |line: &&u32| match counts.get_mut(line) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    new.iter().filter(takes).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_a_diff_does() {
        for (old, new, expected) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], 0),
            (&[1, 2, 3], &[1, 9, 3], 2),
            (&[], &[1, 2], 2),
            (&[1, 2, 3, 4], &[1, 3, 4, 5], 2),
            (&[1, 2], &[2, 1], 2),
            (&[1, 1, 1], &[1], 2),
        ] {
            assert_eq!(differing(old, new), expected, "{old:?} {new:?}");
        }
    }
}
