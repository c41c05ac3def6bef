//! The files that `output_to_file` names.
//!
//! Owns [`OutputFiles`]: a name becomes a path below the output directory, and the text is there whole or not at all.
//! Must not know which step wrote what; that two steps do not name one file is checked when the pipeline is compiled.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use pipeline_core::error::StepError;
use pipeline_core::step::RunInfo;
use pipeline_core::store::OutputWriter;

use crate::atomic;
use crate::confine::{Roots, lexical};

/// Writes output files below the run's output directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputFiles;

#[async_trait]
impl OutputWriter for OutputFiles {
    async fn write(&self, run: &RunInfo, name: &str, text: &str) -> Result<PathBuf, StepError> {
        let target = target(run, name)?;
        let roots = Roots::write_below(&run.dirs.output);
        // The name as it was written, so that an error names what is in the pipeline file.
        let (dir, below) = roots.open(&target, &run.dirs.output).map_err(|mut error| {
            error.message = error.message.replace(&target.display().to_string(), name);
            error
        })?;
        atomic::write(&dir, &below, text.as_bytes())
            .await
            .map_err(|error| roots.failure(Path::new(name), &error))?;
        Ok(target)
    }
}

/// Where `name` is written: below the output directory, whose own spelling in front of it counts once.
fn target(run: &RunInfo, name: &str) -> Result<PathBuf, StepError> {
    let dirs = &run.dirs;
    if name.trim().is_empty() || name.ends_with('/') || Path::new(name).file_name().is_none() {
        return Err(StepError::invalid(format!("`output_to_file: {name}` does not name a file"))
            .help("give the name of a file, for example `report.md`"));
    }
    let output = lexical(&dirs.output);
    let from_working = lexical(&dirs.working.join(name));
    // `./outputs/x` with the output directory `outputs` means `outputs/x`; so does its absolute path.
    if from_working.starts_with(&output) && spells_output(name, &output, &dirs.working) {
        return Ok(from_working);
    }
    // Not yet confined: `..` may lead out of it, and the caller refuses that.
    Ok(lexical(&output.join(name)))
}

/// Whether `name` begins with the output directory's path, from the working directory or from the top.
///
/// When the working directory itself is the output directory, or is inside of it, a relative name spells nothing.
fn spells_output(name: &str, output: &Path, working: &Path) -> bool {
    Path::new(name).is_absolute() || !lexical(working).starts_with(output)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use pipeline_core::error::ErrorKind;

    use super::*;
    use crate::fixture::Fixture;

    async fn write(fx: &Fixture, name: &str, text: &str) -> Result<PathBuf, StepError> {
        OutputFiles.write(&fx.context().run, name, text).await
    }

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_name_is_below_the_output_directory_however_it_is_spelled() {
        let fx = Fixture::new();
        let absolute = fx.path("outputs/e.md").display().to_string();
        for (name, place) in [
            ("a.md", "outputs/a.md"),
            ("./outputs/b.md", "outputs/b.md"),
            ("outputs/deep/c.md", "outputs/deep/c.md"),
            ("sub/dir/d.md", "outputs/sub/dir/d.md"),
            (absolute.as_str(), "outputs/e.md"),
            ("x/../f.md", "outputs/f.md"),
            ("outputs_not/g.md", "outputs/outputs_not/g.md"),
        ] {
            assert_eq!(write(&fx, name, name).await.unwrap(), fx.path(place), "{name}");
            assert_eq!(std::fs::read_to_string(fx.path(place)).unwrap(), name);
        }
    }

    /// Naive: the name from the file is joined to the directory.
    #[tokio::test]
    async fn x13_a_name_cannot_leave_the_output_directory() {
        let fx = Fixture::new();
        for name in ["../a.md", "/etc/a.md", "outputs/../../a.md", "sub/../../a.md", "../outputs2/a.md"] {
            let error = write(&fx, name, "x").await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Denied, "{name}: {error:?}");
            assert!(error.message.contains(&format!("`{name}`")), "{}", error.message);
        }
        std::fs::create_dir_all(fx.path("outputs")).unwrap();
        std::os::unix::fs::symlink(fx.outside(""), fx.path("outputs/link")).unwrap();
        let error = write(&fx, "link/a.md", "x").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
        assert!(files(&fx.outside("")).is_empty());
    }

    /// Naive: the file is opened by its name, wherever a link leads.
    #[tokio::test]
    async fn x13_a_link_in_place_of_the_file_is_replaced_not_followed() {
        let fx = Fixture::new();
        std::fs::create_dir_all(fx.path("outputs")).unwrap();
        std::fs::write(fx.outside("victim"), "untouched").unwrap();
        std::os::unix::fs::symlink(fx.outside("victim"), fx.path("outputs/a.md")).unwrap();
        write(&fx, "a.md", "new").await.unwrap();
        assert_eq!(std::fs::read_to_string(fx.outside("victim")).unwrap(), "untouched");
        assert_eq!(std::fs::read_to_string(fx.path("outputs/a.md")).unwrap(), "new");
    }

    /// Naive: the file is written in place, and an attempt that is cut off leaves half of it.
    #[tokio::test]
    async fn x13_an_attempt_that_is_dropped_leaves_the_old_file_and_nothing_else() {
        let fx = Fixture::new();
        write(&fx, "a.md", "old").await.unwrap();
        let text = "n".repeat(1 << 20);
        // Every number of polls is a place where the attempt may be cut off.
        for polls in 1..6 {
            let mut writing = Box::pin(write(&fx, "a.md", &text));
            let mut is_done = false;
            for _ in 0..polls {
                if futures_util::poll!(&mut writing).is_ready() {
                    is_done = true;
                    break;
                }
            }
            drop(writing);
            let found = std::fs::read_to_string(fx.path("outputs/a.md")).unwrap();
            assert!(found == "old" && !is_done || found == text, "a part of a file is visible");
            assert_eq!(files(&fx.path("outputs")), ["a.md"]);
        }
    }

    /// Naive: the file is truncated, then written.
    /// Figure: 40 rewrites, 200 reads.
    #[tokio::test]
    async fn x13_a_reader_never_sees_a_part() {
        let fx = Fixture::new();
        let (a, b) = ("a".repeat(100_000), "b".repeat(200_000));
        write(&fx, "f", &a).await.unwrap();
        let writing = async {
            for _ in 0..20 {
                write(&fx, "f", &b).await.unwrap();
                write(&fx, "f", &a).await.unwrap();
            }
        };
        let reading = async {
            for _ in 0..200 {
                let found = std::fs::read_to_string(fx.path("outputs/f")).unwrap();
                assert!(found == a || found == b, "{} bytes", found.len());
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn what_names_no_file_is_invalid_and_a_directory_is_not_replaced() {
        let fx = Fixture::new();
        for name in ["", "  ", "sub/", ".."] {
            assert_eq!(write(&fx, name, "x").await.unwrap_err().kind, ErrorKind::Invalid, "{name:?}");
        }
        std::fs::create_dir_all(fx.path("outputs/d")).unwrap();
        let error = write(&fx, "d", "x").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Environment);
        assert!(error.message.contains("`d`"), "{}", error.message);
        assert_eq!(files(&fx.path("outputs")), ["d"]);
    }
}
