//! Which part of the file system a step may reach.
//!
//! Owns [`Roots`]: a path is opened through the directory that allows it, so that neither `..` nor a symbolic link leads
//! out. Must not know any step.

use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;

/// Directories below which a step may read, or write.
#[derive(Debug, Clone)]
pub struct Roots {
    roots: Vec<PathBuf>,
    flag: &'static str,
}

impl Roots {
    /// What may be read: the pipeline's folder, the working directory, what may be written, and `--allow-read`.
    pub fn read(cx: &StepContext) -> Self {
        let dirs = &cx.run.dirs;
        let mut roots = vec![dirs.pipeline.clone(), dirs.working.clone()];
        roots.extend(Self::write(cx).roots);
        roots.extend(dirs.read.iter().cloned());
        Self { roots, flag: "--allow-read" }
    }

    /// What may be written: the workspace, the output directory, and `--allow-write`.
    pub fn write(cx: &StepContext) -> Self {
        let dirs = &cx.run.dirs;
        let mut roots = vec![dirs.workspace.clone(), dirs.output.clone()];
        roots.extend(dirs.write.iter().cloned());
        Self { roots, flag: "--allow-write" }
    }

    /// The directory that allows `path`, opened, and the path below it (`.` for the directory itself). A relative
    /// `path` means one below `working`.
    ///
    /// # Errors
    /// `Denied` when no root allows it, `Environment` when the root cannot be opened.
    pub fn open(&self, path: &Path, working: &Path) -> Result<(Dir, PathBuf), StepError> {
        let full = lexical(&working.join(path));
        let root = self
            .roots
            .iter()
            .map(|root| lexical(root))
            .filter(|root| root.is_absolute() && full.starts_with(root))
            .max_by_key(|root| root.components().count());
        let Some(root) = root else {
            let message = format!("`{}` is outside the directories that this step may use", path.display());
            return Err(StepError::new(ErrorKind::Denied, message)
                .help(format!("allow its directory with `{} DIR`", self.flag)));
        };
        let dir = Dir::open_ambient_dir(&root, ambient_authority()).map_err(|error| {
            let message = format!("cannot open the directory {}: {error}", root.display());
            StepError::new(ErrorKind::Environment, message)
        })?;
        let below = full.strip_prefix(&root).unwrap_or(Path::new(""));
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        Ok((dir, below.to_owned()))
    }
}

/// The path without `.` and `..`, by its text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}
