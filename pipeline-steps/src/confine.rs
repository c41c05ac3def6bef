//! Paths confined to roots.
//!
//! Owns [`Roots`]: the directories that a step may read or write, and how a path as the user wrote it becomes a
//! handle of one of them. What is opened through that handle cannot leave it, by `..` or by a symbolic link, whatever
//! else happens on the disk meanwhile. Must not know any step.

use std::io;
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::planted::{Bug, planted};
use pipeline_core::step::StepContext;

/// Directories that may be read, or that may be written.
#[derive(Debug, Clone)]
pub struct Roots {
    dirs: Vec<PathBuf>,
    access: Access,
}

/// What the roots are for; decides what an error advises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Roots {
    /// What may be read: the pipeline's folder, the working directory, the workspace, and what was allowed beside them.
    pub fn read(cx: &StepContext) -> Self {
        let dirs = &cx.run.dirs;
        let own = [&dirs.pipeline, &dirs.working, &dirs.workspace];
        Self::new(own.into_iter().chain(&dirs.read), Access::Read)
    }

    /// What may be written: the workspace, the output directory, and what was allowed beside them.
    pub fn write(cx: &StepContext) -> Self {
        let dirs = &cx.run.dirs;
        Self::new([&dirs.workspace, &dirs.output].into_iter().chain(&dirs.write), Access::Write)
    }

    /// Directories that may be read, where there is no step.
    pub fn readable(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::new(&dirs.into_iter().collect::<Vec<_>>(), Access::Read)
    }

    /// One directory that may be written.
    pub(crate) fn write_below(dir: &PathBuf) -> Self {
        Self::new([dir], Access::Write)
    }

    fn new<'p>(dirs: impl IntoIterator<Item = &'p PathBuf>, access: Access) -> Self {
        // A directory that is not set would contain everything.
        let dirs = dirs.into_iter().filter(|d| d.is_absolute()).map(|d| lexical(d)).collect();
        Self { dirs, access }
    }

    /// The root that contains `path`, opened, and the path within it. A relative `path` is meant from `working`.
    ///
    /// The innermost root counts. Nothing below the root is touched: use the returned pair with the handle's methods,
    /// and [`Roots::failure`] for what they return. A root that is written and does not exist is made; one that is read
    /// and does not exist leaves the matter to the next root around it.
    ///
    /// # Errors
    /// `Denied` when no root contains it, `Environment` when the root cannot be opened.
    pub fn open(&self, path: &Path, working: &Path) -> Result<(Dir, PathBuf), StepError> {
        let full = lexical(&working.join(path));
        // A planted bug may ruin a test's own files, and nothing else of the machine it is tried on.
        if planted(Bug::JoinPaths) && full.starts_with(std::env::temp_dir()) {
            let top = Path::new("/");
            return self
                .open_root(top)
                .map(|dir| (dir, within(&full, top)))
                .map_err(|e| self.failure(path, &e));
        }
        let mut around: Vec<&PathBuf> = self.dirs.iter().filter(|root| full.starts_with(root)).collect();
        around.sort_by_key(|root| std::cmp::Reverse(root.components().count()));
        around.dedup();
        let mut failed = None;
        for root in around {
            match self.open_root(root) {
                Ok(dir) => return Ok((dir, within(&full, root))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => failed = Some(error),
                Err(error) => return Err(self.failure(path, &error)),
            }
        }
        Err(match failed {
            Some(error) => self.failure(path, &error),
            None => self.denied(path, "it is outside of the directories that"),
        })
    }

    fn open_root(&self, root: &Path) -> io::Result<Dir> {
        if self.access == Access::Write {
            Dir::create_ambient_dir_all(root, ambient_authority())?;
        }
        Dir::open_ambient_dir(root, ambient_authority())
    }

    /// What an error of the system means for `path`, in words for people. `path` is named as it was written.
    pub fn failure(&self, path: &Path, error: &io::Error) -> StepError {
        let verb = self.verb();
        // cap-std makes its own error, without a number of the system, for a path that would escape.
        if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
            return self.denied(path, "`..` or a symbolic link leads out of the directories that");
        }
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let message = format!("cannot {verb} `{shown}`: the system does not permit it");
                StepError::new(ErrorKind::Denied, message).help("check the owner and the mode of the file")
            }
            io::ErrorKind::NotFound => {
                let message = format!("cannot {verb} `{shown}`: there is no such file or directory");
                let help = "create it, or correct the path; a relative path is meant from the directory of the \
                            pipeline file or the working directory";
                StepError::new(ErrorKind::Environment, message).help(help)
            }
            io::ErrorKind::StorageFull => {
                let message = format!("cannot {verb} `{shown}`: the disk is full");
                StepError::new(ErrorKind::Environment, message).help("make room and resume the run")
            }
            _ => StepError::new(ErrorKind::Environment, format!("cannot {verb} `{shown}`: {error}")),
        }
    }

    fn denied(&self, path: &Path, why: &str) -> StepError {
        let verb = self.verb();
        let mut dirs: Vec<String> = Vec::new();
        for dir in self.dirs.iter().map(|d| d.display().to_string()) {
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        let shown = path.display();
        let message = format!("cannot {verb} `{shown}`: {why} this run may {verb}");
        StepError::new(ErrorKind::Denied, message)
            .help(format!(
                "move it into one of them ({}), or allow its directory with `--allow-{verb}` or `permissions.{verb}`",
                dirs.join(", ")
            ))
            .details(serde_json::json!({ "path": shown.to_string(), "roots": dirs }))
    }

    fn verb(&self) -> &'static str {
        match self.access {
            Access::Read => "read",
            Access::Write => "write",
        }
    }
}

/// Opens a regular file below `dir` for reading. Anything else that may have the name is refused, and never waited for.
///
/// # Errors
/// `IsADirectory`, `InvalidInput` for devices and pipes, and those of the system.
pub fn open_regular(dir: &Dir, below: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // A named pipe would wait for its writer.
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    let file = dir.open_with(below, &options)?.into_std();
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// `.` and `..` resolved by the text alone; `..` above the top stays there.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The path below `root`; `.` for the root itself.
fn within(full: &Path, root: &Path) -> PathBuf {
    match full.strip_prefix(root) {
        Ok(below) if !below.as_os_str().is_empty() => below.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn the_innermost_root_is_opened() {
        let fx = Fixture::new();
        std::fs::create_dir_all(fx.path("workspace/deep")).unwrap();
        std::fs::write(fx.path("workspace/deep/a.txt"), "A").unwrap();
        let cx = fx.context();
        let roots = Roots::read(&cx);
        let (dir, below) =
            roots.open(Path::new("./workspace/x/../deep/a.txt"), &cx.run.dirs.working).unwrap();
        assert_eq!(below, Path::new("deep/a.txt"));
        assert_eq!(dir.read_to_string(below).unwrap(), "A");
        let (_, itself) = roots.open(Path::new("workspace"), &cx.run.dirs.working).unwrap();
        assert_eq!(itself, Path::new("."));
    }

    #[test]
    fn leaving_by_dots_or_an_absolute_path_is_denied() {
        let fx = Fixture::new();
        let cx = fx.context();
        for path in
            ["../secret", "/etc/passwd", "workspace/../../secret", "../../../../../../../../etc/passwd"]
        {
            let error = Roots::read(&cx).open(Path::new(path), &cx.run.dirs.working).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied, "{path}");
            assert!(error.message.contains(path), "{}", error.message);
            assert!(error.help.unwrap().contains("--allow-read"));
        }
        // The working directory may be read, and is not written.
        let error = Roots::write(&cx).open(Path::new("a.txt"), &cx.run.dirs.working).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.help.unwrap().contains("--allow-write"));
    }

    #[test]
    fn leaving_by_a_symbolic_link_is_denied() {
        let fx = Fixture::new();
        std::fs::write(fx.outside("secret"), "S").unwrap();
        std::os::unix::fs::symlink(fx.outside("secret"), fx.path("link")).unwrap();
        std::os::unix::fs::symlink("../outside/secret", fx.path("relative")).unwrap();
        let cx = fx.context();
        let roots = Roots::read(&cx);
        for name in ["link", "relative"] {
            let (dir, below) = roots.open(Path::new(name), &cx.run.dirs.working).unwrap();
            let error = roots.failure(Path::new(name), &dir.read_to_string(below).unwrap_err());
            assert_eq!(error.kind, ErrorKind::Denied, "{name}: {error:?}");
            assert!(error.message.contains("symbolic link"));
        }
    }

    #[test]
    fn a_root_that_is_written_is_made_and_one_that_is_read_is_not() {
        let fx = Fixture::new();
        let cx = fx.context();
        Roots::read(&cx).open(Path::new("workspace/a"), &cx.run.dirs.working).unwrap();
        assert!(!fx.path("workspace").exists());
        Roots::write(&cx).open(Path::new("workspace/a"), &cx.run.dirs.working).unwrap();
        assert!(fx.path("workspace").is_dir());
    }

    #[test]
    fn a_directory_that_is_not_set_allows_nothing() {
        let fx = Fixture::new();
        let mut run = (*fx.context().run).clone();
        run.dirs.pipeline = PathBuf::new();
        let cx = StepContext { run: std::sync::Arc::new(run), ..fx.context() };
        let error = Roots::read(&cx).open(Path::new("/etc/hosts"), &cx.run.dirs.working).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
    }
}
