//! The program at a real terminal: questions, the live view, and a terminal that goes away.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::support::{Scratch, finish, signal};

/// The program at the far end of a terminal.
struct Terminal {
    child: Child,
    keys: File,
    screen: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(scratch: &Scratch, variables: &[(&str, &str)], arguments: &[&str], columns: u16) -> Self {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&near, size).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap();
        let far = std::path::Path::new(name.to_str().unwrap());
        let open = || Stdio::from(OwnedFd::from(File::options().read(true).write(true).open(far).unwrap()));
        let mut command = scratch.command(arguments);
        command.env("TERM", "xterm").envs(variables.iter().copied());
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        drop(command);
        let keys = File::from(near);
        let mut reader = keys.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        #[expect(clippy::disallowed_methods, reason = "what is on the screen is read beside the test")]
        let _reading = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count) = reader.read(&mut piece) {
                if count == 0 || sender.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, screen, shown: String::new() }
    }

    /// Waits until something is on the screen.
    fn see(&mut self, what: &str) {
        while !self.shown.contains(what) {
            let piece = self.screen.recv_timeout(Duration::from_secs(30));
            let piece = piece.unwrap_or_else(|_| panic!("`{what}` does not come: {}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, and all that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        let code = finish(self.child).code;
        while let Ok(piece) = self.screen.recv_timeout(Duration::from_millis(200)) {
            self.shown.push_str(&String::from_utf8_lossy(&piece));
        }
        (code, self.shown)
    }
}

const SHELL: &str = "workflow:
  name: q
  permissions: {shell: [echo]}
  steps: [{name: a, type: shell, command: [echo, hi]}]
";

#[test]
fn the_first_live_run_of_a_file_with_a_shell_asks_and_only_yes_is_yes() {
    let scratch = Scratch::new();
    scratch.write("q.yaml", SHELL);
    for (keys, code) in [("n\n", 2), ("\n", 2), ("\u{4}", 2), ("y\n", 0)] {
        let mut terminal = Terminal::start(&scratch, &[], &["run", "q.yaml"], 80);
        terminal.see("Run it? [y/N]");
        terminal.type_in(keys);
        let (ended, shown) = terminal.end();
        assert_eq!(ended, Some(code), "{keys:?}: {shown}");
    }
    // Now it has run, and is not asked about again.
    assert_eq!(Terminal::start(&scratch, &[], &["run", "q.yaml"], 80).end().0, Some(0));
    scratch.write("other.yaml", SHELL);
    let (code, shown) = Terminal::start(&scratch, &[("CI", "true")], &["run", "other.yaml"], 80).end();
    assert!(code == Some(0) && shown.contains("warning:") && !shown.contains("Run it?"), "{shown}");
    assert!(!shown.contains("\u{1b}[J"), "nothing is redrawn on a build server: {shown:?}");
    scratch.write("third.yaml", SHELL);
    assert_eq!(Terminal::start(&scratch, &[], &["run", "third.yaml", "--yes"], 80).end().0, Some(0));
}

#[test]
fn a_question_is_asked_again_until_the_answer_fits() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", "workflow:\n  name: a\n  steps:\n    - {name: go, type: approval, message: 'Deploy?', choices: ['yes', 'no']}\n    - {name: said, type: test_echo, value: 'it is {{ steps.go }}'}\n");
    let mut terminal = Terminal::start(&scratch, &[], &["run", "a.yaml", "--mock"], 80);
    terminal.see("1. yes");
    terminal.type_in("maybe\n");
    terminal.see("\"maybe\" is not one of");
    terminal.type_in("yes\n");
    let (code, shown) = terminal.end();
    assert!(code == Some(0) && shown.contains("said: it is yes"), "{shown}");
}

#[test]
fn the_live_view_folds_a_fan_out_and_fits_a_narrow_terminal() {
    let scratch = Scratch::new();
    scratch.write("f.yaml", "workflow:\n  name: f\n  steps:\n    - name: fan\n      type: for_loop\n      data_source: '{{ range(30) | list }}'\n      parallel: true\n      max_parallel: 10\n      steps: [{name: think, type: test_echo, delay_ms: 400}]\n");
    for columns in [20_u16, 80] {
        let mut terminal =
            Terminal::start(&scratch, &[], &["run", "f.yaml", "--mock", "--set", "x=1"], columns);
        terminal.see("fan");
        terminal.see("running 10");
        let (code, shown) = terminal.end();
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains('█') && shown.contains("more"), "{shown}");
        let plain = anstream_free(&shown);
        let drawn = plain.lines().filter(|line| line.contains("running") || line.contains("think"));
        let widest = drawn.map(|line| line.trim_end().chars().count()).max().unwrap();
        assert!(widest <= usize::from(columns), "{widest} of {columns}: {plain}");
    }
}

/// Without escape sequences.
fn anstream_free(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                let _sequence = chars.by_ref().find(char::is_ascii_alphabetic);
                out.push('\n');
            }
            '\r' => out.push('\n'),
            c => out.push(c),
        }
    }
    out
}

/// Naive: the program dies at once, and the children of its steps, in groups of their own, go on for ever.
#[test]
fn x11_a_terminal_that_goes_away_stops_the_run_with_its_state_saved() {
    let scratch = Scratch::new();
    // Nobody else's: one that another test left behind would be taken for it.
    let time = format!("977.{}", std::process::id());
    let step = format!("{{name: a, type: shell, command: [sleep, '{time}']}}");
    let text = format!("workflow:\n  name: s\n  permissions: {{shell: ['*']}}\n  steps: [{step}]\n");
    scratch.write("s.yaml", &text);
    let child = scratch.spawn(&["run", "s.yaml", "--yes", "--run-id", "one"]);
    let wanted = format!("sleep\0{time}\0");
    let sleeps = || {
        let processes =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path().join("cmdline")));
        processes.filter(|path| std::fs::read(path).is_ok_and(|line| line == wanted.as_bytes())).count()
    };
    while sleeps() == 0 {}
    signal(&child, Signal::HUP);
    let ended = finish(child);
    assert_eq!(ended.code, Some(129), "{}", ended.stderr);
    assert!(ended.stderr.contains("go on with"), "{}", ended.stderr);
    assert_eq!(sleeps(), 0, "no child outlives it");
    assert_eq!(scratch.run(&["runs", "show", "one", "--json"]).json()["status"], "interrupted");
}
