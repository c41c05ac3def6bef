//! Which files a path in a prompt means, and what is in them.
//!
//! Owns finding (one file, a directory, a glob), the order and the decoding: text, or an image or PDF as it is. Must not
//! know parts or models.
//! Every path is confined: see `confine.rs`.

use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;
use globset::{GlobBuilder, GlobMatcher};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;

use crate::confine::Roots;
use crate::file_cache::FileCache;
use crate::prompt::part::Encoding;

/// Most files that one path may mean.
const MOST_FILES: usize = 10_000;

/// Files that go as they are, by the ending of their names.
const MEDIA: [&str; 6] = ["png", "jpg", "jpeg", "gif", "webp", "pdf"];

/// A file and the path that it is headed by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub shown: String,
    pub content: FileContent,
}

/// What is in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileContent {
    Text(String),
    /// An image or a PDF.
    Media {
        media_type: &'static str,
        bytes: std::sync::Arc<[u8]>,
    },
}

/// Every file that `path` means, ordered by path.
///
/// # Errors
/// `Denied` outside of what may be read, `Environment` when there is none, `Invalid` when it is not text,
/// `TooLarge` for too many files or one that is too long.
pub(super) async fn read(
    cx: &StepContext,
    cache: &FileCache,
    path: &str,
    encoding: Encoding,
) -> Result<Vec<Found>, StepError> {
    let written = Path::new(path);
    if path.trim().is_empty() {
        return Err(StepError::invalid("the `path` of a file part is empty"));
    }
    let dirs = &cx.run.dirs;
    let mut worst: Option<StepError> = None;
    for base in [&dirs.pipeline, &dirs.working] {
        match found(cx, cache, written, base, encoding).await {
            Ok(files) => return Ok(files),
            // The other place may have it. What is forbidden says more than what is not there.
            Err(error) if matches!(error.kind, ErrorKind::Environment | ErrorKind::Denied) => {
                if worst.as_ref().is_none_or(|w| w.kind == ErrorKind::Environment) {
                    worst = Some(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(worst.unwrap_or_else(|| StepError::new(ErrorKind::Internal, "no directory was looked at")))
}

async fn found(
    cx: &StepContext,
    cache: &FileCache,
    written: &Path,
    base: &Path,
    encoding: Encoding,
) -> Result<Vec<Found>, StepError> {
    let roots = Roots::read(cx);
    let (dir, below) = roots.open(written, base)?;
    let fail = |path: &Path, error: &io::Error| failure(&roots, path, error);
    let wanted = match dir.metadata(&below) {
        Ok(metadata) if metadata.is_dir() => Wanted::below(written, None),
        Ok(_) => {
            let absolute = base.join(written);
            let file = read_one(cx, cache, &dir, &below, &absolute, encoding);
            let content = file.await.map_err(|e| e.told(written, &fail))?;
            return Ok(vec![Found { shown: written.display().to_string(), content }]);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match split_glob(written) {
            Some((start, pattern)) => Wanted::below(&start, Some(matcher(&pattern)?)),
            None => return Err(fail(written, &error)),
        },
        Err(error) => return Err(fail(written, &error)),
    };
    let (dir, below) = roots.open(&wanted.start, base)?;
    let start = dir.open_dir(&below).map_err(|e| fail(&wanted.start, &e))?;
    let names = walk(&start, &wanted, &fail).await?;
    if names.is_empty() {
        let message = format!("cannot read `{}`: no file matches", written.display());
        let help = "correct the path or the pattern; hidden files count only when they are named";
        return Err(StepError::new(ErrorKind::Environment, message).help(help));
    }
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let shown = wanted.start.join(&name);
        let absolute = base.join(&shown);
        let file = read_one(cx, cache, &start, &name, &absolute, encoding);
        let content = file.await.map_err(|e| e.told(&shown, &fail))?;
        files.push(Found { shown: shown.display().to_string(), content });
    }
    Ok(files)
}

/// What is looked for from a directory on.
struct Wanted {
    start: PathBuf,
    pattern: Option<GlobMatcher>,
    with_hidden: bool,
}

impl Wanted {
    fn below(start: &Path, pattern: Option<GlobMatcher>) -> Self {
        // A leading `./` says nothing, and would stand in every heading.
        let start = start.strip_prefix(".").unwrap_or(start);
        let start = if start.as_os_str().is_empty() { Path::new(".") } else { start };
        let with_hidden = pattern.as_ref().is_some_and(|p| {
            let text = p.glob().glob();
            text.starts_with('.') || text.contains("/.")
        });
        Self { start: start.to_path_buf(), pattern, with_hidden }
    }

    fn takes(&self, path: &Path) -> bool {
        self.pattern.as_ref().is_none_or(|p| p.is_match(path))
    }
}

/// Regular files below `start` that are wanted, ordered. Links to directories are not followed: they may be circles.
async fn walk(
    start: &Dir,
    wanted: &Wanted,
    fail: &(impl Fn(&Path, &io::Error) -> StepError + Sync),
) -> Result<Vec<PathBuf>, StepError> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        let here = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
        for entry in start.read_dir(here).map_err(|e| fail(here, &e))? {
            let entry = entry.map_err(|e| fail(here, &e))?;
            let name = entry.file_name();
            if !wanted.with_hidden && name.to_string_lossy().starts_with('.') {
                continue;
            }
            let path = at.join(&name);
            let kind = entry.file_type().map_err(|e| fail(&path, &e))?;
            if kind.is_dir() {
                open.push(path);
            } else if wanted.takes(&path) {
                // Follows a link; one that leads out of the root is an error, not a file that is silently missing.
                let metadata = start.metadata(&path).map_err(|e| fail(&wanted.start.join(&path), &e))?;
                if metadata.is_file() {
                    files.push(path);
                }
            }
        }
        if files.len() > MOST_FILES {
            let message = format!("`{}` means more than {MOST_FILES} files", wanted.start.display());
            return Err(
                StepError::new(ErrorKind::TooLarge, message).help("name a smaller directory or pattern")
            );
        }
        // Large trees give way to other steps.
        tokio::task::yield_now().await;
    }
    files.sort();
    Ok(files)
}

/// Why a file gave nothing.
enum NoContent {
    System(io::Error),
    Encoding(usize),
    Media(String),
}

impl NoContent {
    fn told(&self, path: &Path, fail: &impl Fn(&Path, &io::Error) -> StepError) -> StepError {
        match self {
            Self::System(error) => fail(path, error),
            Self::Encoding(place) => {
                let message = format!("`{}` is not UTF-8 text (at byte {place})", path.display());
                StepError::invalid(message).help(
                    "give its `encoding`, for example `latin-1`; images and PDFs are known by their names (.png, .pdf)",
                )
            }
            Self::Media(ending) => {
                let message = format!("`{}` is named .{ending} and is neither image nor PDF", path.display());
                StepError::invalid(message).help("give it the name that fits what it is")
            }
        }
    }
}

async fn read_one(
    cx: &StepContext,
    cache: &FileCache,
    dir: &Dir,
    below: &Path,
    absolute: &Path,
    encoding: Encoding,
) -> Result<FileContent, NoContent> {
    let absolute = crate::confine::lexical(absolute);
    let bytes = cache.read(dir, below, &absolute).await.map_err(NoContent::System)?;
    cx.has_read(&absolute, &bytes);
    let ending = below.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    if MEDIA.contains(&ending.as_str()) {
        let media_type = media_type(&bytes).ok_or(NoContent::Media(ending))?;
        return Ok(FileContent::Media { media_type, bytes });
    }
    let text = match encoding {
        Encoding::Latin1 => bytes.iter().map(|b| char::from(*b)).collect(),
        Encoding::Utf8 => {
            let text = std::str::from_utf8(&bytes).map_err(|e| NoContent::Encoding(e.valid_up_to()))?;
            text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()
        }
    };
    Ok(FileContent::Text(text))
}

/// What the first bytes say; a name may be wrong.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    let is = |at: usize, mark: &[u8]| bytes.get(at..at + mark.len()) == Some(mark);
    Some(match bytes {
        _ if is(0, b"\x89PNG\r\n\x1a\n") => "image/png",
        _ if is(0, b"\xff\xd8\xff") => "image/jpeg",
        _ if is(0, b"GIF8") => "image/gif",
        _ if is(0, b"RIFF") && is(8, b"WEBP") => "image/webp",
        _ if is(0, b"%PDF-") => "application/pdf",
        _ => return None,
    })
}

fn failure(roots: &Roots, path: &Path, error: &io::Error) -> StepError {
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            StepError::invalid(format!("cannot read `{}`: {error}", path.display()))
        }
        io::ErrorKind::FileTooLarge => {
            let message = format!("cannot read `{}`: {error}", path.display());
            StepError::new(ErrorKind::TooLarge, message).help("put only what the model needs into the prompt")
        }
        _ => roots.failure(path, error),
    }
}

/// The directory before the first component with a pattern, and the pattern from there on.
fn split_glob(path: &Path) -> Option<(PathBuf, String)> {
    let mut start = PathBuf::new();
    let mut components = path.components();
    for component in components.by_ref() {
        let text = component.as_os_str().to_string_lossy();
        if text.contains(['*', '?', '[', '{']) {
            let pattern: PathBuf = std::iter::once(component).chain(components).collect();
            return Some((start, pattern.to_string_lossy().into_owned()));
        }
        start.push(component);
    }
    None
}

fn matcher(pattern: &str) -> Result<GlobMatcher, StepError> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|g| g.compile_matcher())
        .map_err(|error| StepError::invalid(format!("`{pattern}` is not a file pattern: {}", error.kind())))
}
