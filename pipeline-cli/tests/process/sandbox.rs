//! The sandbox around programs, and the half of T14 of `cargo xtask reliability` that is about them: attempts to get out of it.
//! They reach for stand-ins below a scratch folder and for nothing of the machine, because under the control they really run.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pipeline_core::conformance::trials::{Trials, skip};
use pipeline_core::process;
use pipeline_core::process::sandbox::{MOST_PROCESSES, Sandbox, Tried, find};
use serde_json::json;
use tokio::time::Instant;

use super::crash::{signal_if_alive, wait_for};
use super::support::{Ended, Scratch, finish, handed_on};

/// In every file and variable that no program of the sandbox may read.
const CANARY: &str = "canary-of-the-test";

/// What a script prints, in two pieces, that did what it must not be able to do.
const ESCAPED: &str = "escaped";

/// Why there is no sandbox here, if there is none.
pub fn missing() -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(find(Some("/usr/bin:/bin"), &Tried::default())).err()?;
    Some(format!("{}; {}", error.message, error.help.unwrap_or_default()))
}

/// An attempt to get out.
struct Attempt {
    what: &'static str,
    /// A script for `sh`, beside the variables of [`Ground::script`].
    script: &'static str,
    /// Whether it may be made without a sandbox too: whatever it does then it does to stand-ins.
    is_harmless: bool,
}

const fn harmless(what: &'static str, script: &'static str) -> Attempt {
    Attempt { what, script, is_harmless: true }
}

const fn inside(what: &'static str, script: &'static str) -> Attempt {
    Attempt { what, script, is_harmless: false }
}

const ATTEMPTS: &[Attempt] = &[
    harmless("write a file elsewhere", r#"echo HARM > "$T/outside/file""#),
    harmless("write elsewhere by dots", "echo HARM > workspace/../../outside/file"),
    harmless("make a file elsewhere", r#"mkdir -p "$T/outside"; : > "$T/outside/new""#),
    harmless("write through a link", r#"ln -s "$T/outside" workspace/l; echo HARM > workspace/l/file"#),
    harmless("write through a hard link", r#"ln "$T/outside/file" workspace/h && echo HARM > workspace/h"#),
    harmless("remove a file elsewhere", r#"rm -f "$T/outside/file""#),
    harmless("move a file away", r#"mv "$T/outside/file" workspace/"#),
    harmless("open a file to everybody", r#"chmod 777 "$T/outside/file""#),
    harmless("write what is only read", r#"echo HARM > "$T/readable/file""#),
    harmless("write the pipeline file", "echo HARM >> cage.yaml"),
    harmless(
        "write the journal, where it may write else",
        r#"echo HARM >> "$T/repo/state/runs/r/journal.log""#,
    ),
    harmless(
        "put other runs in the place",
        r#"cd "$T/repo"; mv state old; mkdir -p state/runs/r; echo HARM > state/runs/r/journal.log"#,
    ),
    harmless("a shell's start file", r#"echo HARM >> "$T/home/.bashrc""#),
    harmless("a new start file", r#"echo HARM > "$T/home/.profile""#),
    harmless("a key of its own", r#"echo HARM >> "$T/home/.ssh/authorized_keys""#),
    harmless("read a key", r#"cat "$T/home/.ssh/id""#),
    harmless("read a key through a link", r#"ln -s "$T/home/.ssh/id" workspace/k; cat workspace/k"#),
    harmless("read a key by /proc/self/root", r#"cat "/proc/self/root$T/home/.ssh/id""#),
    harmless("read a key by /proc/1/root", r#"cat "/proc/1/root$T/home/.ssh/id""#),
    harmless("read a key by the parent's directory", r#"cat "/proc/$PPID/cwd/../home/.ssh/id""#),
    harmless("read a file elsewhere", r#"find "$T" -name secret -exec cat {} +"#),
    harmless("write a hook", r#"echo HARM > "$T/repo/.git/hooks/pre-commit""#),
    harmless("make a hook", r#"echo HARM > "$T/repo/.git/hooks/post-commit""#),
    harmless(
        "put other hooks in the place",
        r#"cd "$T/repo/.git"; mv hooks old; mkdir -p hooks; echo HARM > hooks/pre-commit"#,
    ),
    harmless(
        "put another repository in the place",
        r#"cd "$T/repo"; mv .git old; mkdir -p .git/hooks; echo HARM > .git/hooks/pre-commit"#,
    ),
    harmless("git's configuration", r#"echo HARM >> "$T/repo/.git/config""#),
    harmless("git's configuration by a move", r#"cd "$T/repo"; echo HARM > x; mv -f x .git/config"#),
    harmless("a start file where it may write", r#"echo HARM > "$T/repo/.bashrc""#),
    harmless("a start file by a move", r#"cd "$T/repo"; echo HARM > x; mv -f x .bashrc; rm -f .bashrc"#),
    harmless("servers of an agent", r#"echo HARM > "$T/repo/.mcp.json""#),
    harmless("the configuration of this program", r#"echo HARM > "$T/repo/pipeline.toml""#),
    harmless(
        "connect to this machine",
        r#"perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $ARGV[0]) and print "esc", "aped"' "$TCP""#,
    ),
    harmless(
        "send a datagram",
        r#"perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "127.0.0.1", PeerPort => $ARGV[0]); $s and $s->send("x")' "$UDP""#,
    ),
    harmless(
        "connect to a socket elsewhere",
        r#"perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Peer => $ARGV[0]) and print "esc", "aped"' "$T/run/socket""#,
    ),
    harmless(
        "connect to a socket through a link",
        r#"ln -s "$T/run/socket" workspace/s; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Peer => "workspace/s") and print "esc", "aped"'"#,
    ),
    harmless(
        "connect to a socket without a file",
        r#"perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, pack("S a*", AF_UNIX, "\0$ARGV[0]")) and print "esc", "aped"' "$ABSTRACT""#,
    ),
    harmless("kill another process", r#"kill -9 "$VICTIM""#),
    harmless("stop another process", r#"kill -STOP "$VICTIM""#),
    harmless("kill the parent", r#"kill -9 "$PPID""#),
    harmless("see another process", r#"[ ! -e "/proc/$VICTIM" ] || echo esc""aped"#),
    harmless("read another's environment", r#"tr '\0' '\n' < "/proc/$VICTIM/environ""#),
    harmless("read the parent's environment", r#"tr '\0' '\n' < "/proc/$PPID/environ""#),
    harmless(
        "read another's memory",
        r#"perl -e 'open(F, "<", "/proc/$ARGV[0]/mem") and print "esc", "aped"' "$VICTIM""#,
    ),
    harmless(
        "trace another process",
        r#"perl -e '$n = `uname -m` =~ /x86_64/ ? 101 : 117; syscall($n, 16, $ARGV[0] + 0, 0, 0) == 0 and print "esc", "aped"' "$VICTIM""#,
    ),
    harmless("gain by setuid", r#"grep -q 'NoNewPrivs:.*1' /proc/self/status || echo esc""aped"#),
    harmless("a file without end", r#"truncate -s 5G workspace/large 2>/dev/null && echo esc""aped"#),
    harmless(
        "stay, in a session of its own and without its environment",
        r#"for i in 1 2 3 4 5; do env -i setsid sleep "$MARK" > /dev/null 2>&1 < /dev/null & done; sleep 0.1"#,
    ),
    harmless(
        "open what is only read, as root of a namespace",
        r#"unshare -Urm sh -c 'mount -o remount,bind,rw "$1"; echo HARM > "$1/file"' sh "$T/readable""#,
    ),
    harmless(
        "open hooks, as root of a namespace",
        r#"unshare -Urm sh -c 'umount "$1"; echo HARM > "$1/pre-commit"' sh "$T/repo/.git/hooks""#,
    ),
    inside("make a device", r#"mknod workspace/null c 1 3 && echo esc""aped"#),
    inside("mount", r#"mount -t tmpfs none "$T/readable" && echo esc""aped"#),
    inside("have a namespace of its own", r#"unshare -U true && echo esc""aped"#),
    inside("have a capability", r#"grep -q 'CapEff:.*[1-9a-f]' /proc/self/status && echo esc""aped"#),
    inside("set what the kernel does", r#"[ -w /proc/sys/kernel/core_pattern ] && echo esc""aped"#),
    inside("fill the memory by files", r#": > /mine && echo esc""aped; : > /dev/mine && echo esc""aped"#),
    inside("fill /tmp", r#"[ "$(df -kP /tmp | awk 'NR == 2 {print $2}')" -le 1048576 ] || echo esc""aped"#),
    inside("read passwords", r#"head -c 1 /etc/shadow | grep -q . && echo esc""aped"#),
    inside(
        "any number of processes",
        r#"[ "$(awk '/^Max processes/ {print $4}' /proc/self/limits)" -le "$MOST" ] || echo esc""aped"#,
    ),
];

/// What the attempts reach for.
struct Ground {
    scratch: Scratch,
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    abstract_name: String,
    abstract_socket: UnixListener,
    victim: Child,
    /// How long the processes sleep that want to stay: their mark.
    mark: String,
    before: BTreeMap<PathBuf, (String, u32)>,
}

/// Folders below the scratch folder that must not change.
const UNTOUCHED: [&str; 3] = ["outside", "home", "readable"];

/// Files of a folder that may be written which must not change.
const GUARDED: [&str; 6] = [
    "repo/.git/config",
    "repo/.git/hooks/pre-commit",
    "repo/.bashrc",
    "repo/.mcp.json",
    "repo/pipeline.toml",
    "work/cage.yaml",
];

impl Ground {
    fn new(number: usize, script: &str) -> Self {
        let scratch = Scratch::new();
        for name in ["outside/secret", "home/.ssh/id"] {
            scratch.write(name, CANARY);
        }
        for name in ["outside/file", "home/.bashrc", "readable/file"] {
            scratch.write(name, "as it was");
        }
        for name in GUARDED.iter().filter(|name| !name.ends_with("yaml")) {
            scratch.write(name, "# as it was");
        }
        std::fs::create_dir_all(scratch.path().join("run")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(scratch.path().join("run/socket")).unwrap();
        let abstract_name = format!("pipeline-test-{}-{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(abstract_name.as_bytes()).unwrap();
        let abstract_socket = UnixListener::bind_addr(&address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        unix.set_nonblocking(true).unwrap();
        abstract_socket.set_nonblocking(true).unwrap();
        let mut victim = Command::new("sleep");
        victim.arg("600").env_clear().env("KEPT", CANARY).stdin(Stdio::null()).stdout(Stdio::null());
        let victim = victim.spawn().unwrap();
        let mark = format!("7{}.{number:03}", std::process::id());
        let mut ground = Self {
            scratch,
            tcp,
            udp,
            unix,
            abstract_name,
            abstract_socket,
            victim,
            mark,
            before: BTreeMap::new(),
        };
        let root = ground.scratch.path().to_owned();
        let file = json!({"workflow": {
            "name": "cage",
            "permissions": {
                "sandbox": true, "shell": ["sh"], "read": [root.join("readable")],
                "write": [root.join("repo")],
            },
            "steps": [{
                "name": "out", "type": "shell", "command": ["sh", "-c", ground.script(script)],
                "ok_exit_codes": (1..=255).collect::<Vec<_>>(),
            }],
        }});
        ground.scratch.write("work/cage.yaml", &file.to_string());
        ground.before = ground.look();
        ground
    }

    fn script(&self, script: &str) -> String {
        let ports = (self.tcp.local_addr().unwrap().port(), self.udp.local_addr().unwrap().port());
        format!(
            "set -u; T='{}'; TCP={}; UDP={}; ABSTRACT={}; VICTIM={}; MARK={}; MOST={MOST_PROCESSES}\n{script}",
            self.scratch.path().display(),
            ports.0,
            ports.1,
            self.abstract_name,
            self.victim.id(),
            self.mark,
        )
    }

    /// What must stay as it is.
    fn look(&self) -> BTreeMap<PathBuf, (String, u32)> {
        let mut seen = BTreeMap::new();
        let root = self.scratch.path();
        let mut open: Vec<PathBuf> = UNTOUCHED.iter().map(|dir| root.join(dir)).collect();
        open.push(root.join("repo/.git/hooks"));
        open.extend(GUARDED.iter().map(|name| root.join(name)));
        while let Some(path) = open.pop() {
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
                seen.insert(path, (String::new(), meta.permissions().mode()));
            } else {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                seen.insert(path, (text, meta.permissions().mode() ^ u32::try_from(meta.nlink()).unwrap()));
            }
        }
        seen
    }

    fn run(&self) -> Ended {
        let state = self.scratch.path().join("repo/state").display().to_string();
        let mut command = self.scratch.command_with_path(&[
            "--state-dir",
            &state,
            "run",
            "cage.yaml",
            "--yes",
            "--json",
            "--run-id",
            "r",
        ]);
        command.current_dir(self.scratch.path().join("work"));
        command.env("HOME", self.scratch.path().join("home")).env("SOME_SECRET", CANARY);
        finish(command.spawn().expect("it starts"))
    }

    /// What came out of the sandbox, if anything did.
    fn harm(&mut self, ended: &Ended) -> Result<(), String> {
        if ended.code.is_none() {
            return Err("the program that started it is dead".to_owned());
        }
        if ended.code != Some(0) {
            return Err(format!("it ends with {:?}: {}", ended.code, ended.stderr));
        }
        for word in [CANARY, ESCAPED] {
            if ended.stdout.contains(word) {
                return Err(format!("it says `{word}`: {}", ended.stdout));
            }
        }
        let after = self.look();
        if let Some(path) =
            after.keys().chain(self.before.keys()).find(|path| after.get(*path) != self.before.get(*path))
        {
            let shown = path.strip_prefix(self.scratch.path()).unwrap_or(path).display();
            return Err(format!("{shown} is {:?} and was {:?}", after.get(path), self.before.get(path)));
        }
        let journal = self.scratch.path().join("repo/state/runs/r/journal.log");
        let journal = std::fs::read(journal).map_err(|error| error.to_string())?;
        if journal.ends_with(b"HARM\n")
            || String::from_utf8_lossy(&journal).lines().any(|line| line == "HARM")
        {
            return Err("the journal was written".to_owned());
        }
        let nobody = |outcome: Option<std::io::Error>, what: &str| match outcome {
            Some(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            _ => Err(format!("{what} was reached")),
        };
        nobody(self.tcp.accept().err(), "the network")?;
        nobody(self.udp.recv(&mut [0; 8]).err(), "the network by a datagram")?;
        nobody(self.unix.accept().err(), "the socket")?;
        nobody(self.abstract_socket.accept().err(), "the socket without a file")?;
        if self.victim.try_wait().unwrap().is_some() {
            return Err("another process is dead".to_owned());
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.victim.id())).unwrap();
        if stat.contains(") T ") || stat.contains(") t ") {
            return Err("another process is stopped".to_owned());
        }
        // When the system gets round to the end of a namespace is its own matter.
        let patience = Instant::now() + Duration::from_secs(3);
        while !self.staying().is_empty() {
            if Instant::now() > patience {
                return Err(format!("{} processes stay", self.staying().len()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Processes of the step that live.
    fn staying(&self) -> Vec<u32> {
        sleeping(&self.mark)
    }
}

/// Processes whose command line is `sleep` with that mark.
fn sleeping(mark: &str) -> Vec<u32> {
    let wanted = format!("sleep\0{mark}\0");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    })
    .collect()
}

fn kill(pid: u32) {
    // It may be gone.
    let _ = process::send(pid, process::Signal::Kill);
}

impl Drop for Ground {
    fn drop(&mut self) {
        for pid in self.staying() {
            kill(pid);
        }
        // It may be dead already.
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// Half of `count` times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long `true` takes without a sandbox and with one: the median of thirty.
#[expect(clippy::disallowed_methods, reason = "there is no step")]
fn overhead() -> (Duration, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scratch = Scratch::new();
    let bare = process::Command {
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        cwd: Some(scratch.path().to_owned()),
        ..process::Command::new("true", [""; 0])
    };
    let sandbox = Sandbox { write: vec![scratch.path().to_owned()], ..Sandbox::default() };
    let wrapped = process::Command { sandbox: Some(sandbox), ..bare.clone() };
    let time = |command: &process::Command| {
        let begun = Instant::now();
        let done = runtime.block_on(command.run(b"", 100, begun + Duration::from_secs(20))).unwrap();
        assert!(done.status.success());
        begun.elapsed()
    };
    let times = (0..30).map(|_| (time(&bare), time(&wrapped)));
    let (bare, wrapped): (Vec<_>, Vec<_>) = times.unzip();
    (median(bare), median(wrapped))
}

/// Naive: a program is given leave, or a list of words that it may not say, and has the rights of whoever started it.
/// Figure: 58 ways out, each against stand-ins.
#[test]
fn t14_no_program_gets_out_of_the_sandbox() {
    let trials = Trials::of("T14", 1);
    if let Some(why) = missing() {
        return skip("T14", &why);
    }
    let is_bare = handed_on().is_some_and(|(_, bug)| bug == "no-namespace");
    let has_perl = Path::new("/usr/bin/perl").exists();
    let mut tried = 0;
    'rounds: for round in 0..trials.wanted() {
        for (number, attempt) in ATTEMPTS.iter().enumerate() {
            if attempt.script.starts_with("perl") && !has_perl || is_bare && !attempt.is_harmless {
                continue;
            }
            if !trials.go_on() {
                break 'rounds;
            }
            tried += usize::from(round == 0);
            let mut ground = Ground::new(number, attempt.script);
            let ended = ground.run();
            trials.count(ground.harm(&ended).map_err(|why| format!("{}: {why}", attempt.what)));
        }
    }
    let (bare, wrapped) = overhead();
    assert!(wrapped < Duration::from_secs(5), "{wrapped:?}");
    let cost = wrapped.saturating_sub(bare);
    trials.finish(format!(
        "{tried} ways out of a sandbox: none leads out; `true` takes {:.1} ms and {:.1} ms more in it",
        bare.as_secs_f64() * 1e3,
        cost.as_secs_f64() * 1e3,
    ));
}

const MARKED: &str = "workflow:
  name: marked
  permissions: {shell: [sh], sandbox: true}
  steps:
    - {name: mark, type: shell, command: 'echo here > workspace/mark', retry: {max_attempts: 3, base_delay: 1ms}}
";

/// Naive: a warning, and on without it.
#[test]
fn without_a_sandbox_nothing_starts() {
    let refuses = "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n";
    for (bwrap, says) in [
        (None, "there is no `bwrap` in PATH"),
        (Some(refuses), "cannot make a sandbox: No permissions to create new namespace"),
        (Some("#!/bin/sh\nexit 3\n"), "it does not say why"),
    ] {
        let scratch = Scratch::new();
        scratch.write("marked.yaml", MARKED);
        std::fs::create_dir_all(scratch.path().join("workspace")).unwrap();
        let bin = scratch.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        if let Some(text) = bwrap {
            let program = scratch.write("bin/bwrap", text);
            std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let run = |arguments: &[&str]| {
            let mut command = scratch.command(arguments);
            command.env("PATH", &bin);
            finish(command.spawn().expect("it starts"))
        };
        let ended = run(&["run", "marked.yaml", "--yes", "--mock", "--json"]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let error = &ended.json()["steps"]["mark"]["error"];
        assert_eq!(error["kind"], "environment", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("was not started") && message.contains(says), "{message}");
        assert!(!scratch.path().join("workspace/mark").exists(), "{says}");
        // `resume` keeps it, and only a flag takes it away.
        assert_eq!(run(&["resume", "--from", "mark", "--json"]).code, Some(1));
        let told = run(&["doctor"]);
        assert!(told.stdout.contains("absent   sandbox: ") && told.stdout.contains(says), "{}", told.stdout);
        let mut needed = scratch.command(&["doctor"]);
        needed.env("PATH", &bin).env("PIPELINE_SANDBOX", "1");
        assert_eq!(finish(needed.spawn().unwrap()).code, Some(3));
        assert_eq!(run(&["run", "marked.yaml", "--yes", "--mock", "--no-sandbox"]).code, Some(0));
        assert!(scratch.path().join("workspace/mark").exists());
    }
}

/// Naive: what a killed program left in sessions of its own is found by a mark in its environment, which it has emptied.
#[test]
fn what_a_killed_program_left_in_a_sandbox_is_gone() {
    if let Some(why) = missing() {
        return skip("T7", &why);
    }
    let scratch = Scratch::new();
    let mark = format!("6{}.777", std::process::id());
    let script = format!("env -i setsid sleep {mark} & sleep {mark}");
    let file = json!({"workflow": {
        "name": "left", "permissions": {"shell": ["sh"]},
        "steps": [{"name": "a", "type": "shell", "command": ["sh", "-c", script]}],
    }});
    scratch.write("left.yaml", &file.to_string());
    let child = scratch
        .command_with_path(&["run", "left.yaml", "--yes", "--mock", "--sandbox"])
        .spawn()
        .expect("it starts");
    wait_for("its children", || sleeping(&mark).len() == 2);
    signal_if_alive(&child);
    wait_for("their end", || sleeping(&mark).is_empty());
    finish(child);
}

/// Naive: the sandbox eats what it is between: input, both outputs, exit codes, signals.
#[test]
fn what_passes_through_a_sandbox_is_as_without_one() {
    if let Some(why) = missing() {
        return skip("T14", &why);
    }
    let scratch = Scratch::new();
    scratch.write(
        "through.yaml",
        "workflow:
  name: through
  permissions: {shell: [sh, no-such-program]}
  steps:
    - {name: all, type: shell, input: \"in\\n\", env: {LD_PRELOAD: /nowhere.so, A: 'b c'}, command: [sh, -c, 'cat; echo \"$A $LD_PRELOAD $0\"; echo err >&2; exit 7', 'a b'], ok_exit_codes: [7]}
    - {name: killed, type: shell, command: [sh, -c, 'kill -TERM $$'], ok_exit_codes: [143]}
    - {name: gone, type: shell, command: [no-such-program], continue_on_error: true}
  outputs: {all: '{{ steps.all }}', killed: '{{ steps.killed.exit_code }}'}
",
    );
    let run = |flag: &str| {
        let ended = scratch.run_with_path(&["run", "through.yaml", "--yes", "--mock", "--json", flag]);
        assert_eq!(ended.code, Some(0), "{flag}: {}{}", ended.stdout, ended.stderr);
        let document = ended.json();
        let mut outputs = document["outputs"].clone();
        // The loader complains of what it cannot load once for each program that begins.
        let stderr = outputs["all"]["stderr"].as_str().unwrap();
        outputs["all"]["stderr"] = stderr.lines().filter(|line| !line.contains("LD_PRELOAD")).collect();
        let error = document["steps"]["gone"]["error"]["message"].clone();
        (outputs, error)
    };
    let inside = run("--sandbox");
    assert_eq!(inside.0["all"]["stdout"], "in\nb c /nowhere.so a b\n");
    assert_eq!(inside, run("--no-sandbox"));
}
