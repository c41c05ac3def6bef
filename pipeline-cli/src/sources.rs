//! Pipeline files on disk, for the compiler.
//!
//! Owns [`FileSources`]: paths, standard input and the library. Must not know what is in a file.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use parking_lot::Mutex;
use pipeline_core::source::{LoadedSource, SourceError, SourceLoader, SourceRef};

/// Largest pipeline file, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

/// The name of standard input as a file.
const STDIN: &str = "<stdin>";

/// Reads pipeline files from the file system.
pub struct FileSources {
    working: PathBuf,
    library: PathBuf,
    /// Standard input can be read once; a compilation may ask for the root twice.
    stdin: Mutex<Option<String>>,
}

impl FileSources {
    /// Sources seen from the directory `working`, with the pipeline library in `library`.
    pub fn new(working: PathBuf, library: PathBuf) -> Self {
        Self { working, library, stdin: Mutex::new(None) }
    }

    /// The full path of a file that need not exist, as its identity.
    pub fn absolute(&self, path: &str) -> String {
        plain(&self.working.join(path)).display().to_string()
    }

    /// The folder that relative paths in the file `canonical` mean.
    pub fn folder_of(&self, canonical: &str) -> PathBuf {
        if canonical == STDIN {
            return self.working.clone();
        }
        Path::new(canonical).parent().map_or_else(|| self.working.clone(), Path::to_path_buf)
    }

    fn standard_input(&self) -> Result<LoadedSource, SourceError> {
        let mut kept = self.stdin.lock();
        let text = match &*kept {
            Some(text) => text.clone(),
            None => kept.insert(read(std::io::stdin().lock(), STDIN)?).clone(),
        };
        Ok(LoadedSource { display: STDIN.to_owned(), canonical: STDIN.to_owned(), text })
    }

    fn file(path: &Path, display: String) -> Result<LoadedSource, SourceError> {
        let canonical = path.canonicalize().map_err(|error| unreadable(&display, &error))?;
        if canonical.is_dir() {
            return Err(refused(
                format!("cannot read {display}: it is a directory"),
                "name a pipeline file in it",
            ));
        }
        let file = std::fs::File::open(&canonical).map_err(|error| unreadable(&display, &error))?;
        let text = read(file, &display)?;
        let Some(canonical) = canonical.to_str() else {
            return Err(refused(
                format!("cannot use {display}: its full path is not Unicode"),
                "move it to a folder whose name is",
            ));
        };
        Ok(LoadedSource { display, canonical: canonical.to_owned(), text })
    }

    fn library(&self, name: &str) -> Result<LoadedSource, SourceError> {
        let display = format!("library:{name}");
        let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !is_plain {
            return Err(refused(
                format!("`{name}` is not the name of a library pipeline"),
                "a name has no leading `/` and no `..`",
            ));
        }
        let candidates = ["yaml", "yml"].map(|ending| self.library.join(format!("{name}.{ending}")));
        let Some(path) = candidates.iter().find(|path| path.is_file()) else {
            let folder = self.library.display();
            return Err(refused(
                format!("there is no library pipeline `{name}`"),
                &format!("put it at {folder}/{name}.yaml"),
            ));
        };
        Self::file(path, display)
    }
}

impl SourceLoader for FileSources {
    fn load(&self, reference: &SourceRef, from: Option<&str>) -> Result<LoadedSource, SourceError> {
        match (reference, from) {
            (SourceRef::Library(name), _) => self.library(name),
            (SourceRef::Path(path), None) if path == "-" => self.standard_input(),
            (SourceRef::Path(path), None) => Self::file(&self.working.join(path), path.clone()),
            (SourceRef::Path(path), Some(from)) => {
                let full = self.folder_of(from).join(path);
                // Only what is shown is tidied: `link/..` is not what it looks like.
                let shown = plain(&full);
                let display = shown.strip_prefix(&self.working).unwrap_or(&shown).display().to_string();
                Self::file(&full, display)
            }
        }
    }

    fn data_file_exists(&self, path: &str, from: &str) -> Option<bool> {
        Some(self.folder_of(from).join(path).exists() || self.working.join(path).exists())
    }
}

/// The path without `.` and `..`, as text: nothing is looked up.
pub fn plain(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts
}

fn read(from: impl Read, display: &str) -> Result<String, SourceError> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| unreadable(display, &error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(refused(
            format!("{display} is larger than 8 MiB"),
            "a pipeline file is written by people: put data into files of its own and read them with a step",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refused(format!("{display} is not UTF-8 text (byte {at})"), "save it as UTF-8")
    })
}

fn unreadable(display: &str, error: &std::io::Error) -> SourceError {
    let help = match error.kind() {
        std::io::ErrorKind::NotFound => {
            "check the path; in a file it is relative to that file, on the command line to the working directory"
        }
        std::io::ErrorKind::PermissionDenied => "make it readable for this user",
        _ => "check the path and the disk",
    };
    refused(format!("cannot read {display}: {}", reason(error)), help)
}

/// The system's words without the number that means nothing to people.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = words.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

fn refused(message: String, help: &str) -> SourceError {
    SourceError { message, help: Some(help.to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn path(text: &str) -> SourceRef {
        SourceRef::Path(text.to_owned())
    }

    fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, FileSources) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let full = dir.path().join(name);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, text).unwrap();
        }
        let root = dir.path().canonicalize().unwrap();
        let sources = FileSources::new(root.clone(), root.join("library"));
        (dir, sources)
    }

    #[test]
    fn two_spellings_of_one_file_are_one() {
        let (_dir, sources) = folder(&[("a/x.yaml", b"x"), ("a/y.yaml", b"y")]);
        let plain = sources.load(&path("a/x.yaml"), None).unwrap();
        let odd = sources.load(&path("./a/../a/x.yaml"), None).unwrap();
        assert_eq!(plain.canonical, odd.canonical);
        assert_eq!(plain.display, "a/x.yaml");
        let child = sources.load(&path("./y.yaml"), Some(&plain.canonical)).unwrap();
        assert_eq!((child.text.as_str(), child.display.as_str()), ("y", "a/y.yaml"));
    }

    #[test]
    fn what_cannot_be_a_pipeline_file_is_refused_with_its_name() {
        let large = vec![b'#'; 8 * 1024 * 1024 + 1];
        let (_dir, sources) =
            folder(&[("large.yaml", &large), ("latin.yaml", b"name: caf\xe9"), ("d/x", b"")]);
        let cases = [
            ("large.yaml", "8 MiB"),
            ("latin.yaml", "byte 9"),
            ("d", "is a directory"),
            ("gone.yaml", "no such file"),
        ];
        for (name, expected) in cases {
            let error = sources.load(&path(name), None).expect_err(name);
            assert!(error.message.contains(name) && error.message.contains(expected), "{error}");
            assert!(error.help.is_some(), "{name}");
        }
        let limit = vec![b'#'; 8 * 1024 * 1024];
        let (_dir, sources) = folder(&[("full.yaml", &limit)]);
        assert_eq!(sources.load(&path("full.yaml"), None).unwrap().text.len(), limit.len());
    }

    #[test]
    fn a_library_name_cannot_leave_the_library() {
        let (_dir, sources) = folder(&[("library/team/x.yml", b"lib"), ("secret.yaml", b"no")]);
        let library = |name: &str| sources.load(&SourceRef::Library(name.to_owned()), None);
        assert_eq!(library("team/x").unwrap().text, "lib");
        for name in ["../secret", "/etc/passwd", "", "team/../../secret"] {
            let error = library(name).expect_err(name);
            assert!(error.message.contains("not the name"), "{error}");
        }
        assert!(library("team/y").expect_err("missing").message.contains("no library pipeline"));
    }

    #[test]
    fn data_files_are_looked_up_beside_the_file_then_in_the_working_directory() {
        let (dir, sources) = folder(&[("p/x.yaml", b""), ("p/beside.md", b""), ("here.md", b"")]);
        let from = dir.path().canonicalize().unwrap().join("p/x.yaml");
        let exists = |name: &str| sources.data_file_exists(name, from.to_str().unwrap());
        assert_eq!(exists("beside.md"), Some(true));
        assert_eq!(exists("here.md"), Some(true));
        assert_eq!(exists("nowhere.md"), Some(false));
    }
}
