//! What stands where in a sandbox.
//!
//! Owns [`Layout`]: one list of places and what each is, outer ones first, so that what lies deeper wins; and which files in a
//! directory that may be written may not. Must not know how a sandbox is started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{MOST_MEMORY, Sandbox};

/// Programs and libraries of a system, and what they need to work.
const SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix/store", "/gnu/store"];

/// Where a program finds an empty directory of its own. Sockets of services are in `/run`.
const PRIVATE: [&str; 3] = ["/tmp", "/run", "/dev/shm"];

/// Files below `/etc` that root can read and that no program of a step needs.
const SECRET_FILES: [&str; 7] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/security/opasswd",
    "/etc/krb5.keytab",
];

/// The same, as directories.
const SECRET_DIRS: [&str; 3] = ["/etc/ssh", "/etc/ssl/private", "/etc/sudoers.d"];

/// What other programs run, or take their orders from, when somebody merely works in a directory.
const SELF_RUNNING: [&str; 16] = [
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".envrc",
    ".gitconfig",
    ".gitmodules",
    ".mcp.json",
    ".vscode",
    ".idea",
    ".claude",
    "pipeline.toml",
];

/// What stands at a place. Of two at the same place the later one is seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// An empty directory in memory.
    Empty,
    /// A link, as the system has it there.
    Link(PathBuf),
    /// What is there, to be read.
    Read,
    /// What is there, to be written.
    Write,
    /// What is there, only to be read whatever stands around it.
    Guarded,
    /// An empty file.
    Blank,
    /// The processes of the sandbox.
    Processes,
    /// A few harmless devices.
    Devices,
}

/// What stands where.
#[derive(Debug)]
pub(super) struct Layout(Vec<(PathBuf, Place)>);

impl Layout {
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        let mut all: Vec<(PathBuf, Place)> = SYSTEM.iter().filter_map(|path| of_system(path)).collect();
        all.extend(PRIVATE.map(|dir| (dir.into(), Place::Empty)));
        all.extend([("/proc".into(), Place::Processes), ("/dev".into(), Place::Devices)]);
        // It may be a control of the terminal that we have, and not of the program's.
        all.push(("/dev/tty".into(), Place::Blank));
        let files = SECRET_FILES.map(PathBuf::from).into_iter().filter(|path| path.is_file());
        all.extend(files.map(|path| (path, Place::Blank)));
        let dirs = SECRET_DIRS.map(PathBuf::from).into_iter().filter(|path| path.is_dir());
        all.extend(dirs.map(|path| (path, Place::Empty)));
        if let Some(names) = sandbox.network.then(|| real("/etc/resolv.conf")).flatten() {
            all.push((names, Place::Read));
        }
        all.extend(homes(sandbox).filter(|home| home.is_dir()).map(|home| (home, Place::Empty)));
        let write = outermost(&sandbox.write);
        let is_below_write = |path: &Path| write.iter().any(|dir| path.starts_with(real_or(dir)));
        let temporary = sandbox.temporary.iter().filter(|dir| dir.is_dir() && dir.parent().is_some());
        let temporary = temporary.filter(|dir| !is_below_write(&place_of(dir)));
        all.extend(temporary.map(|dir| (dir.clone(), Place::Empty)));
        let around = sandbox.around.iter().filter(|dir| !has_home(dir, sandbox));
        let read = sandbox.read.iter().chain(around).filter(|path| path.is_absolute());
        // A program may put a link in the place of what lies where it can write, so nothing is opened again there.
        let read = read.filter(|path| !is_below_write(&place_of(path)));
        all.extend(read.map(|path| (path.clone(), Place::Read)));
        all.extend(sandbox.write.iter().filter(|dir| dir.is_absolute()).flat_map(|dir| guarded(dir)));
        let kept = sandbox.kept.iter().filter(|dir| dir.is_dir() && is_below_write(&place_of(dir)));
        all.extend(kept.map(|dir| (dir.clone(), Place::Guarded)));
        all.extend(write.into_iter().map(|dir| (dir, Place::Write)));
        if all.iter().any(|(path, _)| path.parent().is_none()) {
            // Links are there with all else.
            all.retain(|(_, place)| !matches!(place, Place::Link(_)));
        }
        all.sort_by_cached_key(|(path, place)| (path.components().count(), place.clone()));
        all.dedup();
        Self(all)
    }

    /// Whether a program inside finds this file, under its name and where links lead.
    pub(super) fn shows(&self, file: &Path) -> bool {
        let is_seen = |file: &Path| {
            let around = self.0.iter().rev().find(|(path, _)| file.starts_with(path));
            around.is_some_and(|(_, place)| {
                matches!(place, Place::Link(_) | Place::Read | Place::Write | Place::Guarded)
            })
        };
        is_seen(file) && is_seen(&real_or(file))
    }

    /// The words of `bwrap`.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        for (path, place) in &self.0 {
            let pair = |option: &str| vec![option.into(), path.into(), path.into()];
            words.extend(match place {
                Place::Empty => {
                    vec!["--size".into(), MOST_MEMORY.to_string().into(), "--tmpfs".into(), path.into()]
                }
                Place::Link(target) => vec!["--symlink".into(), target.into(), path.into()],
                // What is gone by now is not there for the program either.
                Place::Read | Place::Guarded => pair("--ro-bind-try"),
                Place::Write => pair("--bind-try"),
                Place::Blank => vec!["--dev-bind".into(), "/dev/null".into(), path.into()],
                Place::Processes => vec!["--proc".into(), path.into()],
                Place::Devices => vec!["--dev".into(), path.into()],
            });
        }
        // Two are in memory, and nobody counts what is written there. Root may set the kernel by files in the third, without any
        // capability.
        words.extend(["--remount-ro", "/dev", "--remount-ro", "/proc"].map(OsString::from));
        if !self.0.iter().any(|(path, _)| path.parent().is_none()) {
            words.extend(["--remount-ro", "/"].map(OsString::from));
        }
        words
    }
}

/// A directory of the system, or the link that stands in its place.
fn of_system(path: &str) -> Option<(PathBuf, Place)> {
    let path = Path::new(path);
    match path.read_link() {
        Ok(target) => Some((path.to_owned(), Place::Link(target))),
        Err(_) => path.is_dir().then(|| (path.to_owned(), Place::Read)),
    }
}

fn real(path: impl AsRef<Path>) -> Option<PathBuf> {
    path.as_ref().canonicalize().ok()
}

fn real_or(path: &Path) -> PathBuf {
    real(path).unwrap_or_else(|| path.to_owned())
}

/// Where a path is, without following the link that it may be itself.
fn place_of(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real_or(parent).join(name),
        _ => path.to_owned(),
    }
}

/// Directories that may be written, without those that lie in another.
fn outermost(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let dirs: Vec<&PathBuf> = dirs.iter().filter(|dir| dir.is_absolute()).collect();
    let is_inner = |dir: &Path| {
        let place = place_of(dir);
        dirs.iter().map(|other| real_or(other)).any(|other| place != other && place.starts_with(&other))
    };
    dirs.iter().filter(|dir| !is_inner(dir)).map(|dir| (*dir).clone()).collect()
}

/// The home, by both of its names.
fn homes(sandbox: &Sandbox) -> impl Iterator<Item = PathBuf> {
    let is_home = |dir: &PathBuf| dir.is_absolute() && dir.parent().is_some();
    sandbox.home.iter().flat_map(|dir| [dir.clone(), real_or(dir)]).filter(is_home)
}

/// Whether all of the home would be seen with a directory.
fn has_home(dir: &Path, sandbox: &Sandbox) -> bool {
    dir.parent().is_none()
        || homes(sandbox).any(|home| home.starts_with(dir) || home.starts_with(real_or(dir)))
}

/// What may not be written in a directory that may, as far as it is there. A link is not followed: whatever it leads to is not
/// to be opened for it.
fn guarded(dir: &Path) -> Vec<(PathBuf, Place)> {
    let kind = |path: &Path| path.symlink_metadata().ok().map(|meta| meta.file_type());
    let is_there = |path: &Path| kind(path).is_some_and(|kind| kind.is_dir() || kind.is_file());
    if real(dir) != Some(place_of(dir)) {
        return Vec::new();
    }
    let mut all: Vec<(PathBuf, Place)> = Vec::new();
    let git = dir.join(".git");
    if kind(&git).is_some_and(|kind| kind.is_dir()) {
        let inner = ["hooks", "config"].map(|name| git.join(name)).into_iter();
        all.extend(inner.filter(|path| is_there(path)).map(|path| (path, Place::Guarded)));
        // What is mounted cannot be moved away, and another put in its place.
        all.push((git, Place::Write));
    } else if is_there(&git) {
        all.push((git, Place::Guarded));
    }
    let own = SELF_RUNNING.iter().map(|name| dir.join(name));
    all.extend(own.filter(|path| is_there(path)).map(|path| (path, Place::Guarded)));
    all
}
