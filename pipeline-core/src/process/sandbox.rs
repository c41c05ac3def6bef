//! A sandbox around a child, which bubblewrap makes.
//!
//! Owns [`Sandbox`]: what a program sees of this machine, the words of `bwrap` that say so, and the limits that hold inside. It
//! fails closed: where no sandbox can be made nothing is started. Must not know what runs, nor who asked for a sandbox. Why it
//! is made so: docs/decisions/0017-a-sandbox-for-programs.md.

mod layout;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Command, is_executable};
use crate::error::{ErrorKind, StepError};
use layout::Layout;

/// Processes and threads at once in one sandbox. The kernel does not count those of root.
pub const MOST_PROCESSES: u32 = 2048;

/// Bytes of one file that a program writes.
pub const MOST_FILE: u64 = 4 << 30;

/// Bytes of each directory in memory: `/tmp`, the home, `/dev/shm`.
const MOST_MEMORY: u64 = 1 << 30;

/// How `bwrap` begins each of its complaints.
const COMPLAINT: &str = "bwrap: ";

/// Longest wait for a program that does nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where programs are where no `PATH` says so.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where the sandbox sees what the system says of the process that made it.
const ALIVE: &str = "/.alive";

/// Goes on while `pipeline` is there: `bwrap` asks for its own end with its parent's, and each part of it a little after its
/// beginning, so that what is begun while the parent is killed would stay. The last to ask is the first process inside, which then
/// sleeps. From there on a kill is passed on, so what counts is that none came before. The threads of a process that is killed end
/// one by one, and the one that started `bwrap` may be gone long before the process is: but at once it has SIGKILL pending (256 in
/// the 31st field of its `stat`), until it is marked as leaving (4, 1024 in the 9th). It is read twice, as the one may become the
/// other between the two fields.
///
/// Sets the limits and becomes the program. Shells disagree about the letter for processes; one that may not raise a limit
/// has a lower one already.
const LIMITED: &str = r#"alive() {
  read -r line 2>/dev/null <"$1" || return 1
  set -- ${line##*) }
  [ $(($7 & 1028)) = 0 ] && [ $((${29} & 256)) = 0 ]
}
if [ -n "$1" ]; then
  tries=0
  until read -r pid name state rest </proc/1/stat && [ "$state" = S ] || [ "$tries" = 5000 ]; do tries=$((tries + 1)); done
  alive "$1" && alive "$1" || exit 1
fi; shift
case $(ulimit -u 2>/dev/null) in "") ulimit -p "$1";; *) ulimit -u "$1";; esac 2>/dev/null
ulimit -f "$2" 2>/dev/null; ulimit -c 0; shift 2; exec "$@""#;

/// Whether the limits hold.
const IS_LIMITED: &str = r#"most=$(ulimit -u 2>/dev/null || ulimit -p)
[ "$most" != unlimited ] && [ "$(ulimit -f)" != unlimited ] || { echo "bwrap: the limits of processes and files do not hold" >&2; exit 1; }"#;

/// Variables that the loader and the C library act on, by how their names begin: they are for the program inside, and not for
/// `bwrap`, which is outside.
const OF_LOADER: [&str; 12] = [
    "LD_",
    "GLIBC_",
    "MALLOC_",
    "MUSL_",
    "GCONV_",
    "GETCONF_",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "RES",
];

/// Every `bwrap` that was seen to work. Whoever starts several programs keeps it, so that each is not tried again.
#[derive(Debug, Clone, Default)]
pub struct Tried(Arc<Mutex<Vec<PathBuf>>>);

/// What a program sees of this machine, beside the programs and libraries of the system. The default is nothing.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// What is known of the `bwrap` of this machine.
    pub tried: Tried,
    /// `PATH` in which `bwrap` is looked up: ours, and never one that a pipeline gives its program.
    pub search: Option<String>,
    /// What may be read because somebody said so.
    pub read: Vec<PathBuf>,
    /// What may be read because the run works there; not if all of the home is in it.
    pub around: Vec<PathBuf>,
    /// Directories that may be written; they are made. Files in them that other programs run by themselves may not
    /// (`.git/hooks`, `.bashrc`, …), where they exist.
    pub write: Vec<PathBuf>,
    /// What is only read, even below a directory that may be written.
    pub kept: Vec<PathBuf>,
    /// The home, in whose place the program finds an empty directory of its own.
    pub home: Option<PathBuf>,
    /// `TMPDIR`; the same, where the program may not write there anyway.
    pub temporary: Option<PathBuf>,
    /// Whether it has the network of this machine; else it has none.
    pub network: bool,
}

/// A command with its sandbox around it.
pub(super) struct Wrapped {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: BTreeMap<String, String>,
}

/// The `bwrap` that `PATH` leads to, when it can make a sandbox: it is tried with a program that does nothing, unless it was seen
/// to work before.
///
/// # Errors
/// `Environment`, with what to install or to change.
pub async fn find(search: Option<&str>, tried: &Tried) -> Result<PathBuf, StepError> {
    let bwrap = on_path(search).ok_or_else(|| {
        let what = if cfg!(target_os = "linux") {
            "there is no `bwrap` in PATH, which makes the sandbox"
        } else {
            "there is no sandbox on this system; it needs Linux"
        };
        refused(
            what.to_owned(),
            "install bubblewrap (`apt-get install bubblewrap`, `dnf install bubblewrap`)",
        )
    })?;
    // The first of many tries it, and the others wait.
    let mut working = tried.0.lock().await;
    if !working.contains(&bwrap) {
        attempt(&bwrap).await?;
        working.push(bwrap.clone());
    }
    Ok(bwrap)
}

#[expect(clippy::disallowed_methods, reason = "it is the sandbox that is started")]
async fn attempt(bwrap: &Path) -> Result<(), StepError> {
    let inside = Command::new("/bin/sh", ["-c", IS_LIMITED]);
    let Wrapped { program, args, env } = Sandbox::default().around(bwrap.to_owned(), &inside)?;
    let command = Command { env, ..Command::new(program, args) };
    let why = match Box::pin(command.run(b"", 4096, Instant::now() + PATIENCE)).await {
        Ok(done) if done.status.success() => return Ok(()),
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
            line.trim_start_matches(COMPLAINT).to_owned()
        }
        Err(error) => error.message,
    };
    Err(refused(
        format!("{} cannot make a sandbox: {why}", bwrap.display()),
        "let users make namespaces (`kernel.unprivileged_userns_clone=1`, \
         `kernel.apparmor_restrict_unprivileged_userns=0`; in a container `--security-opt seccomp=unconfined`)",
    ))
}

fn refused(why: String, help: &str) -> StepError {
    StepError::new(ErrorKind::Environment, why)
        .help(format!("{help}; or let programs run without one (--no-sandbox)"))
}

fn on_path(search: Option<&str>) -> Option<PathBuf> {
    let folders = std::env::split_paths(search.unwrap_or(USUAL_PATH)).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join("bwrap")).find(|path| is_executable(path))
}

/// What `bwrap` itself said, when it ended before the program began. A program may say the same, and then fails for it.
pub(super) fn complaint(code: Option<i32>, stdout: &[u8], stderr: &[u8]) -> Option<StepError> {
    if code != Some(1) || !stdout.is_empty() || !stderr.starts_with(COMPLAINT.as_bytes()) {
        return None;
    }
    let said = String::from_utf8_lossy(stderr);
    let line = said.lines().next().unwrap_or_default().trim_start_matches(COMPLAINT);
    let message = format!("the sandbox was not made, and nothing was started: {line}");
    Some(
        StepError::new(ErrorKind::Environment, message)
            .help("`pipeline doctor` tells whether it works at all"),
    )
}

impl Sandbox {
    /// The command with the sandbox around it.
    ///
    /// # Errors
    /// `Environment` when a directory that may be written cannot be made, or the program is not there; `Denied` when the sandbox
    /// does not show the program.
    pub(super) fn around(&self, bwrap: PathBuf, command: &Command) -> Result<Wrapped, StepError> {
        for dir in &self.write {
            std::fs::create_dir_all(dir).map_err(|error| {
                let message = format!("the directory {} cannot be made: {error}", dir.display());
                StepError::new(ErrorKind::Environment, message)
            })?;
        }
        let layout = Layout::of(self);
        check_program(command, &layout)?;
        let mut args: Vec<OsString> =
            ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--cap-drop", "ALL"]
                .map(OsString::from)
                .to_vec();
        if self.network {
            args.push("--share-net".into());
        }
        let own = format!("/proc/{}/stat", std::process::id());
        let alive = if Path::new(&own).exists() {
            args.extend(["--ro-bind", &own, ALIVE].map(OsString::from));
            ALIVE
        } else {
            ""
        };
        args.extend(layout.words());
        if let Some(cwd) = &command.cwd {
            args.extend(["--chdir".into(), cwd.into()]);
        }
        let (of_loader, env): (BTreeMap<String, String>, BTreeMap<String, String>) =
            command.env.clone().into_iter().partition(|(name, _)| is_of_loader(name));
        for (name, value) in of_loader {
            args.extend(["--setenv".into(), name.into(), value.into()]);
        }
        args.extend(["--", "/bin/sh", "-c", LIMITED, "sh", alive].map(OsString::from));
        // Files are counted in pieces of 512 bytes.
        args.extend([MOST_PROCESSES.to_string().into(), (MOST_FILE / 512).to_string().into()]);
        args.push(command.program.clone());
        args.extend(command.args.iter().cloned());
        Ok(Wrapped { program: bwrap, args, env })
    }
}

fn is_of_loader(name: &str) -> bool {
    OF_LOADER.iter().any(|start| name.starts_with(start))
}

/// Nothing, where the program is there and can be seen inside.
fn check_program(command: &Command, layout: &Layout) -> Result<(), StepError> {
    let shown = command.program.to_string_lossy();
    let given = Path::new(&command.program);
    let from = command.cwd.as_deref().unwrap_or(Path::new(""));
    let candidates: Vec<PathBuf> = if given.components().count() > 1 || shown.starts_with('/') {
        vec![from.join(given)]
    } else {
        let folders = command.env.get("PATH").map_or(USUAL_PATH, String::as_str);
        std::env::split_paths(folders).map(|folder| from.join(folder).join(given)).collect()
    };
    let mut there = candidates.iter().filter(|path| is_executable(path)).peekable();
    let Some(first) = there.peek().copied().cloned() else {
        let message = format!("there is no program `{shown}` on this machine");
        return Err(StepError::new(ErrorKind::Environment, message).help("install it, or give its path"));
    };
    if there.any(|path| layout.shows(path)) {
        return Ok(());
    }
    let message = format!("the sandbox does not show the program `{shown}`, which is {}", first.display());
    Err(StepError::new(ErrorKind::Denied, message)
        .help("add its directory to `permissions.read`, or give it with --allow-read"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
    #![expect(clippy::disallowed_methods, reason = "there is no step")]

    use super::*;
    use crate::process::Signal;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

    fn sh(script: &str, sandbox: Sandbox) -> Command {
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        Command { env, sandbox: Some(sandbox), ..Command::new("/bin/sh", ["-c", script]) }
    }

    fn words(sandbox: &Sandbox) -> Vec<String> {
        let wrapped = sandbox.around("/bin/bwrap".into(), &sh("", Sandbox::default())).unwrap();
        wrapped.args.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// How a path is bound, if it is.
    fn bound<'w>(words: &'w [String], path: &Path) -> Option<&'w str> {
        let path = path.to_str().unwrap();
        let is_it = |part: &&[String]| part[0].starts_with("--") && (part[1] == path || part[2] == path);
        words.windows(3).filter(is_it).map(|part| part[0].as_str()).next_back()
    }

    /// Naive: a signal goes to the sandbox, which dies of it and takes along a program that wanted to save what it has.
    #[tokio::test]
    async fn a_program_in_a_sandbox_is_asked_to_stop_and_ends_by_itself() {
        if let Err(error) = find(Some("/usr/bin:/bin"), &Tried::default()).await {
            println!("skipped: {}", error.message);
            return;
        }
        let script = "trap 'echo saved; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
        let mut running = sh(script, Sandbox::default()).spawn().await.unwrap();
        let (_stdin, stdout, _stderr) = running.streams();
        let mut stdout = BufReader::new(stdout.unwrap());
        let mut said = String::new();
        stdout.read_line(&mut said).await.unwrap();
        assert_eq!(said, "ready\n");
        running.signal(Signal::Terminate);
        assert_eq!(running.wait().await.unwrap().code(), Some(5));
        said.clear();
        stdout.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "saved\n");
    }

    /// Naive: the program's environment is that of `bwrap` too, which then loads a library of the pipeline's outside.
    #[test]
    fn what_the_loader_acts_on_is_for_the_program_only() {
        let mut command = sh("", Sandbox::default());
        for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "MALLOC_TRACE", "SOME_KEY"] {
            command.env.insert(name.to_owned(), "value".to_owned());
        }
        let wrapped = Sandbox::default().around("/bin/bwrap".into(), &command).unwrap();
        assert_eq!(wrapped.env.keys().collect::<Vec<_>>(), ["PATH", "SOME_KEY"]);
        let named = wrapped.args.windows(2).filter(|pair| pair[0] == "--setenv").map(|pair| &pair[1]);
        assert_eq!(
            named.collect::<Vec<_>>(),
            ["GLIBC_TUNABLES", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_TRACE"]
        );
        assert!(!wrapped.args.iter().any(|word| word == "SOME_KEY"), "all users can see arguments");
    }

    /// Naive: the directory that somebody stands in may be read, also when it is the home, or one above.
    #[test]
    fn a_home_is_shown_only_to_those_who_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("me");
        let work = home.join("work");
        std::fs::create_dir_all(&work).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&home, &link).unwrap();
        let sandbox = |home: &Path, around: &Path| Sandbox {
            home: Some(home.to_owned()),
            around: vec![around.to_owned()],
            ..Sandbox::default()
        };
        for (home, around) in [(&home, home.as_path()), (&home, dir.path()), (&link, &home), (&home, &link)] {
            assert_ne!(bound(&words(&sandbox(home, around)), around), Some("--ro-bind-try"), "{around:?}");
        }
        assert!(!words(&sandbox(&home, Path::new("/"))).contains(&"--ro-bind-try /".to_owned()));
        let below = words(&sandbox(&home, &work));
        assert_eq!((bound(&below, &home), bound(&below, &work)), (Some("--tmpfs"), Some("--ro-bind-try")));
        let named = Sandbox { read: vec![home.clone()], ..sandbox(&home, &work) };
        assert_eq!(bound(&words(&named), &home), Some("--ro-bind-try"));
    }

    /// Naive: each directory of the run is bound, also one in whose place an earlier program has put a link to elsewhere.
    #[test]
    fn nothing_is_opened_where_a_program_can_put_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, secret) = (dir.path().join("workspace"), dir.path().join("secret"));
        for made in [&workspace, &secret, &workspace.join(".git/hooks"), &workspace.join("plain")] {
            std::fs::create_dir_all(made).unwrap();
        }
        let (branch, rc) = (workspace.join("branch"), workspace.join(".bashrc"));
        std::os::unix::fs::symlink(&secret, &branch).unwrap();
        std::os::unix::fs::symlink(&secret, &rc).unwrap();
        let sandbox = Sandbox {
            write: vec![workspace.clone(), branch.clone(), workspace.join("plain")],
            read: vec![branch.clone(), workspace.join("plain")],
            kept: vec![dir.path().join("not-there")],
            ..Sandbox::default()
        };
        let words = words(&sandbox);
        assert_eq!(bound(&words, &workspace), Some("--bind-try"));
        for path in [&branch, &rc, &secret, &workspace.join("plain")] {
            assert_eq!(bound(&words, path), None, "{path:?}");
        }
        assert_eq!(bound(&words, &workspace.join(".git")), Some("--bind-try"));
        assert_eq!(bound(&words, &workspace.join(".git/hooks")), Some("--ro-bind-try"));
    }

    #[test]
    fn a_program_that_is_not_shown_is_told_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("tool");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let command = Command::new(&program, [""; 0]);
        let error = Sandbox::default().around("/bin/bwrap".into(), &command).err().unwrap();
        assert!(error.kind == ErrorKind::Denied && error.message.contains("does not show"), "{error}");
        let shown = Sandbox { read: vec![program], ..Sandbox::default() };
        assert!(shown.around("/bin/bwrap".into(), &command).is_ok());
        let gone = Command::new("no-such-program", [""; 0]);
        let error = shown.around("/bin/bwrap".into(), &gone).err().unwrap();
        assert!(error.kind == ErrorKind::Environment && error.message.contains("no program"), "{error}");
    }
}
