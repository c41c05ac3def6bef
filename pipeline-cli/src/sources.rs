//! Pipeline files on disk, for the compiler.
//!
//! Owns [`FileSources`]: paths, standard input and the library. Must not know what is in a file.

use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use parking_lot::Mutex;
use pipeline_core::error::StepError;
use pipeline_core::source::{LoadedSource, Referrer, SourceError, SourceLoader, SourceRef};
use pipeline_steps::confine::{self, Roots};

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

    /// A file that another names: it is opened below a directory that may be read, whatever links and `..` say.
    fn child(&self, path: &str, from: Referrer<'_>) -> Result<LoadedSource, SourceError> {
        let full = self.folder_of(from.file).join(path);
        let shown = plain(&full);
        let display = shown.strip_prefix(&self.working).unwrap_or(&shown).display().to_string();
        let own = [self.folder_of(from.root), self.working.clone(), self.library.clone()];
        let roots =
            Roots::readable(own.into_iter().chain(from.read.iter().map(|dir| self.working.join(dir))));
        let told = |error: StepError| {
            let help = "move it below the folder of the pipeline file or the working directory, or name its \
                        directory in `permissions.read`";
            refused(error.message, help)
        };
        let (dir, below) = roots.open(&full, &self.working).map_err(told)?;
        let file = confine::open_regular(&dir, &below).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied if error.raw_os_error().is_none() => {
                told(roots.failure(Path::new(&display), &error))
            }
            _ => unreadable(&display, &error),
        })?;
        // The name is for telling files apart only; what is read is the open file.
        let canonical = full.canonicalize().map_err(|error| unreadable(&display, &error))?;
        Self::loaded(file, &canonical, display)
    }

    fn file(path: &Path, display: String) -> Result<LoadedSource, SourceError> {
        let canonical = path.canonicalize().map_err(|error| unreadable(&display, &error))?;
        if canonical.is_dir() {
            return Err(unreadable(&display, &ErrorKind::IsADirectory.into()));
        }
        let file = std::fs::File::open(&canonical).map_err(|error| unreadable(&display, &error))?;
        Self::loaded(file, &canonical, display)
    }

    fn loaded(file: std::fs::File, canonical: &Path, display: String) -> Result<LoadedSource, SourceError> {
        let text = read(file, &display)?;
        let Some(canonical) = canonical.to_str() else {
            return Err(refused(
                format!("cannot use {display}: its full path is not Unicode"),
                "move it to a folder whose name is Unicode",
            ));
        };
        Ok(LoadedSource { display, canonical: canonical.to_owned(), text })
    }

    /// A pipeline of the library: of this machine's, or of the one that lies beside the root file and travels with it.
    fn library(&self, name: &str, from: Option<Referrer<'_>>) -> Result<LoadedSource, SourceError> {
        let display = format!("library:{name}");
        let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !is_plain {
            return Err(refused(
                format!("`{name}` is not the name of a library pipeline"),
                "a name has no leading `/` and no `..`",
            ));
        }
        let beside = from.map(|from| self.folder_of(from.root)).map(|folder| {
            // The files of a library are its members when they are the root themselves.
            if folder.ends_with("library") { folder } else { folder.join("library") }
        });
        let folders = [Some(self.library.clone()), beside];
        let candidates = folders
            .iter()
            .flatten()
            .flat_map(|folder| ["yaml", "yml"].map(|ending| folder.join(format!("{name}.{ending}"))));
        let Some(path) = candidates.into_iter().find(|path| path.is_file()) else {
            let folder = self.library.display();
            return Err(refused(
                format!("there is no library pipeline `{name}`"),
                &format!("put it at {folder}/{name}.yaml, or at library/{name}.yaml beside the root file"),
            ));
        };
        Self::file(&path, display)
    }
}

impl SourceLoader for FileSources {
    fn load(&self, reference: &SourceRef, from: Option<Referrer<'_>>) -> Result<LoadedSource, SourceError> {
        match (reference, from) {
            (SourceRef::Library(name), from) => self.library(name, from),
            (SourceRef::Path(path), None) if path == "-" => self.standard_input(),
            (SourceRef::Path(path), None) => Self::file(&self.working.join(path), path.clone()),
            (SourceRef::Path(path), Some(from)) => self.child(path, from),
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
        ErrorKind::IsADirectory => "name a pipeline file in it",
        ErrorKind::NotFound => {
            "check the path; in a file it is relative to that file, on the command line to the working directory"
        }
        ErrorKind::PermissionDenied => "make it readable for this user",
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

    fn named_by(file: &str) -> Referrer<'_> {
        Referrer { file, root: file, read: &[] }
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
        let child = sources.load(&path("./y.yaml"), Some(named_by(&plain.canonical))).unwrap();
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
    fn a_library_may_travel_with_the_file() {
        let files: &[(&str, &[u8])] = &[
            ("library/x.yaml", b"machine's"),
            ("a/library/x.yaml", b"own"),
            ("a/library/y.yaml", b"own"),
            ("a/main.yaml", b""),
        ];
        let (dir, sources) = folder(files);
        let root = dir.path().canonicalize().unwrap();
        let named = |name: &str, by: &str| {
            let by = root.join(by).display().to_string();
            sources.load(&SourceRef::Library(name.to_owned()), Some(named_by(&by))).map(|source| source.text)
        };
        assert_eq!(named("x", "a/main.yaml").unwrap(), "machine's", "what a person chose comes first");
        assert_eq!(named("y", "a/main.yaml").unwrap(), "own");
        assert_eq!(named("y", "a/library/x.yaml").unwrap(), "own", "members see each other");
        assert!(named("y", "main.yaml").is_err());
    }

    /// A folder `work` with a root file and traps, and `outside` beside it.
    fn traps() -> (tempfile::TempDir, FileSources, String) {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for folder in ["work/in", "work/real", "outside/dir"] {
            std::fs::create_dir_all(top.join(folder)).unwrap();
        }
        for name in ["outside/secret.yaml", "outside/dir/secret.yaml", "secret.yaml"] {
            std::fs::write(top.join(name), "canary").unwrap();
        }
        for name in ["work/main.yaml", "work/in/fine.yaml", "work/real/secret.yaml"] {
            std::fs::write(top.join(name), "fine").unwrap();
        }
        let links = [
            ("to_file.yaml", top.join("outside/secret.yaml")),
            ("to_dir", top.join("outside/dir")),
            ("to_root", "/".into()),
            ("up", "..".into()),
            ("in/relative.yaml", "../../secret.yaml".into()),
            ("chain", "to_dir".into()),
            ("chain.yaml", "chain/secret.yaml".into()),
            ("proc", "/proc/self/root".into()),
            ("fd", "/proc/self/fd".into()),
            ("inside.yaml", "in/fine.yaml".into()),
        ];
        for (name, target) in links {
            symlink(target, top.join("work").join(name)).unwrap();
        }
        let fifo = top.join("work/fifo.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        let root = top.join("work/main.yaml").to_str().unwrap().to_owned();
        let sources = FileSources::new(top.join("work"), top.join("work/library"));
        (dir, sources, root)
    }

    /// Naive: the path of a child is joined to the folder and opened.
    #[test]
    fn x13_no_child_pipeline_lies_outside() {
        let (dir, sources, root) = traps();
        let top = dir.path().canonicalize().unwrap();
        let outside = top.join("outside/secret.yaml").display().to_string();
        let (long, deep) = ("x".repeat(300), format!("{}../secret.yaml", "in/../".repeat(700)));
        let mut targets: Vec<String> = [
            "../secret.yaml",
            "../outside/secret.yaml",
            "./../outside/./secret.yaml",
            "in/../../secret.yaml",
            "to_file.yaml",
            "to_dir/secret.yaml",
            "to_dir",
            "to_root/etc/passwd",
            "up/secret.yaml",
            "up/outside/secret.yaml",
            "in/relative.yaml",
            "chain/secret.yaml",
            "chain.yaml",
            "proc/etc/passwd",
            "fd/0",
            "/proc/self/root/etc/passwd",
            "/proc/self/environ",
            "/proc/self/cwd/../secret.yaml",
            "/etc/passwd",
            "/dev/zero",
            "fifo.yaml",
            "..\\secret.yaml",
            "\u{2024}\u{2024}/secret.yaml",
            "a\0b",
            "",
            ".",
            "..",
            "~/.ssh/id_rsa",
            "file:///etc/passwd",
            "$HOME/x",
            "%2e%2e/secret.yaml",
        ]
        .map(str::to_owned)
        .to_vec();
        targets.extend([
            outside,
            long.clone(),
            deep,
            format!("{}etc/passwd", "../".repeat(40)),
            format!("{long}/x"),
        ]);
        let ways = |path: &str| {
            let absolute = top.join("work").join(path).display().to_string();
            [
                path.to_owned(),
                format!("./{path}"),
                format!("in/../{path}"),
                format!("real/../in/../{path}"),
                absolute,
                format!("{path}/"),
            ]
        };
        let mut attempts = 0;
        for target in &targets {
            for way in ways(target) {
                attempts += 1;
                let found = sources.load(&path(&way), Some(named_by(&root)));
                assert!(found.as_ref().map_or(true, |f| f.text == "fine"), "{way}: {found:?}");
                if let Err(error) = found {
                    assert!(error.help.is_some(), "{way}: {error}");
                }
            }
        }
        assert!(attempts >= 200, "only {attempts} attempts");
        for inside in ["in/fine.yaml", "inside.yaml", "in/../main.yaml"] {
            assert_eq!(sources.load(&path(inside), Some(named_by(&root))).unwrap().text, "fine", "{inside}");
        }
        // The root file may say that more is read; a child of a child may not lie elsewhere either.
        let read = ["../outside".to_owned()];
        let more = Referrer { read: &read, ..named_by(&root) };
        assert_eq!(sources.load(&path("../outside/secret.yaml"), Some(more)).unwrap().text, "canary");
        assert!(sources.load(&path("../secret.yaml"), Some(more)).is_err());
    }

    /// Naive: the path is checked, and then opened by its name again.
    #[test]
    fn x13_a_folder_swapped_for_a_link_between_check_and_use_leads_nowhere() {
        let (dir, sources, root) = traps();
        let work = dir.path().canonicalize().unwrap().join("work");
        let (own, spare, trap) = (work.join("swap"), work.join("spare"), work.join("../outside/dir"));
        std::os::unix::fs::symlink("real", &own).unwrap();
        let good = std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                let targets = [trap.as_path(), Path::new("real")];
                for target in targets.iter().cycle() {
                    if !matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
                        break;
                    }
                    // A rename in the way of another is tried again in the next turn.
                    let _ = std::fs::remove_file(&spare);
                    let _ = std::os::unix::fs::symlink(target, &spare)
                        .and_then(|()| std::fs::rename(&spare, &own));
                }
            });
            let texts = (0..2000).filter_map(|_| {
                sources.load(&path("swap/secret.yaml"), Some(named_by(&root))).ok().map(|found| found.text)
            });
            let texts: Vec<String> = texts.collect();
            drop(stop);
            texts
        });
        assert!(!good.is_empty() && good.iter().all(|text| text == "fine"), "{good:?}");
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
